//! A whole Slurm on loopback: real daemons, three nodes, no init system, everything in one folder.
//!
//! The daemons stay in the foreground as children of this process and die with it. A node is lost as
//! a machine is: its daemon, the shepherds of its jobs and the jobs themselves are gone at once, and
//! nobody is left to tell of it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Condvar, Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, setpriority_process,
};
use tinylm_pipeline::sys::die_with_parent;

use crate::skipped::skipped;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The node whose jobs are held to their memory by control groups, where the kernel has them; on the others
/// Slurm looks now and then at how much they take.
pub(crate) const CONFINED: &str = "n3";

/// Where those groups are.
const GROUPS: &str = "/sys/fs/cgroup/memory";

/// How long a scheduler may take for what it does at its leisure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Lab {
    dir: PathBuf,
    daemons: Mutex<Vec<(String, u32)>>,
    /// Whether nodes see `shared` through a mount of their own, whose caches and locks are its own.
    has_mounts: bool,
    /// Whether the kernel holds jobs of the node `CONFINED` to their memory.
    has_groups: bool,
}

/// Returns the cluster that tests share, none of which takes anything of it away; or says why there is none.
pub(crate) fn lab() -> Option<&'static Lab> {
    static LAB: OnceLock<Result<Lab, String>> = OnceLock::new();
    started(LAB.get_or_init(|| Lab::start(true)))
}

/// Further clusters, for tests that take a node or the controller away: each has one to itself.
pub(crate) fn breakable() -> Option<(&'static Lab, Taken)> {
    static LABS: [OnceLock<Result<Lab, String>>; 2] = [const { OnceLock::new() }; 2];
    let taken = Taken::any();
    // The kernel's groups are named by node alone: only the shared cluster has them.
    let lab = started(LABS[taken.0].get_or_init(|| Lab::start(false)))?;
    lab.wait_for_nodes();
    Some((lab, taken))
}

/// A cluster's number, which is another test's once it is dropped.
pub(crate) struct Taken(usize);

static TAKEN: Mutex<[bool; 2]> = Mutex::new([false; 2]);
static LEFT: Condvar = Condvar::new();

impl Taken {
    fn any() -> Taken {
        let taken = TAKEN.lock().unwrap();
        let mut taken = LEFT
            .wait_while(taken, |taken| taken.iter().all(|t| *t))
            .unwrap();
        let idx = taken.iter().position(|t| !t).unwrap();
        taken[idx] = true;
        Taken(idx)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.lock().unwrap()[self.0] = false;
        LEFT.notify_one();
    }
}

fn started(lab: &'static Result<Lab, String>) -> Option<&'static Lab> {
    match lab {
        Ok(lab) => Some(lab),
        Err(why) => {
            skipped(&format!("{why}, so nothing runs on a cluster"));
            None
        }
    }
}

impl Lab {
    fn start(may_have_groups: bool) -> Result<Lab, String> {
        for program in ["munged", "slurmctld", "slurmd"] {
            let path = Path::new("/usr/sbin").join(program);
            if !path.exists() {
                return Err(format!(
                    "there is no `{program}` (Debian: munge slurmctld slurmd slurm-client)"
                ));
            }
        }
        if !rustix::process::geteuid().is_root() {
            return Err("a Slurm of one's own needs root".to_owned());
        }
        let dir = tempfile::Builder::new()
            .prefix("tinylm-slurm-")
            .tempdir()
            .unwrap()
            .keep();
        remove_at_our_end(&dir);
        let has_mounts = mount_twice(&dir);
        let has_groups = may_have_groups && has_memory_groups(&dir);
        let lab = Lab {
            dir,
            has_mounts,
            has_groups,
            daemons: Mutex::default(),
        };
        lab.configure();
        lab.daemon(
            "munged",
            &[
                "--foreground",
                "--force",
                &format!("--key-file={}", lab.at("munge.key")),
                &format!("--socket={}", lab.at("munge.socket")),
                &format!("--pid-file={}", lab.at("munge.pid")),
                &format!("--log-file={}", lab.at("munge.log")),
                &format!("--seed-file={}", lab.at("munge.seed")),
            ],
        );
        wait_for("munge's socket", || lab.dir.join("munge.socket").exists());
        lab.start_controller();
        NODES.iter().for_each(|node| lab.start_node(node));
        lab.wait_for_nodes();
        Ok(lab)
    }

    fn at(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub(crate) fn config(&self) -> String {
        self.at("slurm.conf")
    }

    fn configure(&self) {
        for folder in ["state", "spool", "log"] {
            fs::create_dir(self.dir.join(folder)).unwrap();
        }
        fs::write(self.dir.join("munge.key"), rand_bytes()).unwrap();
        set_mode(&self.dir.join("munge.key"), 0o400);
        set_mode(&self.dir, 0o755);
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let host = host.split('.').next().unwrap();
        let ports = free_ports();
        let lab = self.dir.display();
        let (controller, first, last) = (ports[0], ports[1], ports[3]);
        let text = format!(
            "ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={lab}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={lab}/state
SlurmctldPidFile={lab}/slurmctld.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdSpoolDir={lab}/spool/%n
SlurmdPidFile={lab}/%n.pid
SlurmdLogFile={lab}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=200
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,requeue_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
MessageTimeout=10
KillWait=5
MinJobAge=5
BatchStartTimeout=10
UnkillableStepTimeout=30
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=10 PreemptMode=OFF State=UP
"
        );
        fs::write(self.dir.join("slurm.conf"), &text).unwrap();
        if self.has_groups {
            let text = text
                .replace("TaskPlugin=task/none", "TaskPlugin=task/cgroup")
                .replace("JobAcctGatherParams=OverMemoryKill\n", "");
            let groups = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainRAMSpace=yes\nConstrainSwapSpace=yes\nAllowedSwapSpace=0\n";
            fs::create_dir(self.dir.join("confined")).unwrap();
            fs::write(self.dir.join("confined/slurm.conf"), text).unwrap();
            fs::write(self.dir.join("confined/cgroup.conf"), groups).unwrap();
        }
    }

    /// What a node is configured with: each its own file, as on a real cluster.
    fn config_of(&self, node: &str) -> String {
        match self.has_groups && node == CONFINED {
            true => self.at("confined/slurm.conf"),
            false => self.config(),
        }
    }

    /// The node whose jobs the kernel holds to their memory.
    pub(crate) fn confined(&self) -> Option<&'static str> {
        if !self.has_groups {
            skipped(
                "there is no memory control group (version 1) to write to, so no job is killed by the kernel",
            );
        }
        self.has_groups.then_some(CONFINED)
    }

    /// Starts a daemon from a thread that stays until it ends: the kernel ties its life to that one.
    fn daemon(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(Path::new("/usr/sbin").join(program));
        command.args(args).env("SLURM_CONF", self.config());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut child: Child = die_with_parent(&mut command).spawn().unwrap();
            tell.send(child.id()).unwrap();
            child.wait().ok();
        });
        let name = args
            .last()
            .filter(|name| NODES.contains(name))
            .unwrap_or(&program);
        let mut daemons = self.daemons.lock().unwrap();
        daemons.push(((*name).to_owned(), told.recv().unwrap()));
    }

    fn pid(&self, name: &str) -> u32 {
        let daemons = self.daemons.lock().unwrap();
        daemons
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
    }

    fn start_controller(&self) {
        self.daemon("slurmctld", &["-D", "-f", &self.config()]);
    }

    /// Ends the controller as its own stop would, until what is returned is dropped. It keeps its state.
    pub(crate) fn without_controller(&self) -> impl Drop {
        let pid = self.pid("slurmctld");
        kill(pid, Signal::TERM);
        wait_for("the controller's end", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
        Mended(move || self.start_controller())
    }

    fn start_node(&self, node: &str) {
        let config = self.config_of(node);
        if !self.has_mounts {
            return self.daemon("slurmd", &["-D", "-f", &config, "-N", node]);
        }
        let line = format!(
            "{} && exec /usr/sbin/slurmd -D -f '{config}' -N $0",
            self.seen_through("a")
        );
        self.daemon("/usr/bin/unshare", &["-m", "sh", "-c", &line, node]);
    }

    /// A line for a shell with mounts of its own, in which `shared` is one of its two views.
    pub(crate) fn seen_through(&self, mount: &str) -> String {
        format!("mount --bind '{}' '{}'", self.at(mount), self.at("shared"))
    }

    /// A folder, where nodes and driver see it through different mounts, and the driver's mount of it.
    pub(crate) fn shared(&self) -> Option<[PathBuf; 3]> {
        if !self.has_mounts {
            skipped("there is no `bindfs` that may mount, so no folder is seen through two caches");
        }
        self.has_mounts
            .then(|| ["real", "shared", "b"].map(|name| self.dir.join(name)))
    }

    /// The process that carries out the stage of a job; none once it is gone.
    pub(crate) fn stage_of(&self, job: &str) -> Option<u32> {
        self.process_of(job, "exec-stage")
    }

    /// The process of a job that starts the stage and commits what it made; none once it is gone.
    pub(crate) fn committer_of(&self, job: &str) -> Option<u32> {
        self.process_of(job, "exec-job")
    }

    /// The process of the driver that a job is for.
    pub(crate) fn driver_of(&self, job: &str) -> Option<u32> {
        self.process_of(job, "run")
    }

    fn process_of(&self, job: &str, does: &str) -> Option<u32> {
        let is_of_job = |environment: &Environment| environment.get("SLURM_JOB_ID") == Some(job);
        self.processes_that(does)
            .find(|(_, environment)| is_of_job(environment))
            .map(|(pid, _)| pid)
    }

    /// A process that carries out a part as the task of an array, with the job and the task as Slurm names them.
    pub(crate) fn part_at_work(&self) -> Option<(u32, String)> {
        self.processes_that("exec-stage")
            .find_map(|(pid, environment)| {
                let array = environment.get("SLURM_ARRAY_JOB_ID")?;
                let task = environment.get("SLURM_ARRAY_TASK_ID")?;
                Some((pid, format!("{array}_{task}")))
            })
    }

    fn processes_that(&self, does: &str) -> impl Iterator<Item = (u32, Environment)> + use<> {
        let configs = NODES.map(|node| self.config_of(node));
        let does = does.to_owned();
        processes().filter(move |(pid, environment)| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            environment
                .get("SLURM_CONF")
                .is_some_and(|own| configs.iter().any(|config| config == own))
                && words
                    .split(|byte| *byte == 0)
                    .any(|word| word == does.as_bytes())
        })
    }

    fn wait_for_nodes(&self) {
        wait_for("all nodes", || {
            let states = self.slurm("sinfo", &["-h", "-N", "-p", "cpu", "-o", "%T"]);
            states
                .lines()
                .filter(|state| matches!(*state, "idle" | "mixed" | "allocated"))
                .count()
                == NODES.len()
        });
    }

    /// Takes a node away with all that runs on it, until what is returned is dropped.
    pub(crate) fn without_node(&self, node: &str) -> impl Drop + use<'_> {
        let gone = self.all_of_node(node);
        // Stopped first, so that none of them sees another one die.
        gone.iter().for_each(|pid| kill(*pid, Signal::STOP));
        gone.iter().for_each(|pid| kill(*pid, Signal::KILL));
        let node = node.to_owned();
        Mended(move || self.start_node(&node))
    }

    /// Lets a node hang with all that runs on it, as a machine does whose disk is away: it answers nobody, and
    /// nothing of it is gone. Those who run the cluster say that it is down. It is started anew once what is
    /// returned is dropped.
    pub(crate) fn with_hung_node(&self, node: &str) -> impl Drop + use<'_> {
        let hung = self.all_of_node(node);
        hung.iter().for_each(|pid| kill(*pid, Signal::STOP));
        let name = format!("NodeName={node}");
        self.slurm("scontrol", &["update", &name, "State=DOWN", "Reason=hangs"]);
        let node = node.to_owned();
        Mended(move || {
            hung.iter().for_each(|pid| kill(*pid, Signal::KILL));
            self.start_node(&node);
        })
    }

    /// A node's daemon, the shepherds of its jobs and the jobs.
    fn all_of_node(&self, node: &str) -> Vec<u32> {
        let mut all = vec![self.pid(node)];
        for pid in processes_of_node(node, &self.config_of(node)) {
            all.extend(shepherds(pid));
            all.push(pid);
        }
        all
    }

    /// Asks one of Slurm's own programs; what it says counts only if it succeeds.
    pub(crate) fn slurm(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(args).env("SLURM_CONF", self.config());
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The jobs that the scheduler knows, dead ones too, each as this format says it.
    pub(crate) fn jobs(&self, format: &str) -> Vec<String> {
        let mut jobs = None;
        wait_for("an answer of the scheduler", || {
            let args = ["--noheader", "--states=all", "--format", format];
            let mut command = Command::new("squeue");
            command.args(args).env("SLURM_CONF", self.config());
            let output = command.output().unwrap();
            jobs = output.status.success().then_some(output.stdout);
            jobs.is_some()
        });
        let text = String::from_utf8(jobs.unwrap()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

/// Mends what was broken once it is dropped, also where a test fails.
struct Mended<F: FnMut()>(F);

impl<F: FnMut()> Drop for Mended<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[track_caller]
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

/// Holds a process still until it is gone, whatever wakes it: what wakes it gives it no time to do anything.
pub(crate) fn hold_still(pid: u32) {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else {
        return;
    };
    give_way(pid);
    let until = Instant::now() + PATIENCE;
    while pidfd_send_signal(&process, Signal::STOP).is_ok() {
        assert!(Instant::now() < until, "process {pid} does not end");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Has each thread of a process give way to this one, also on a machine where all have much to do.
pub(crate) fn give_way(pid: u32) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    for thread in threads.flatten().flatten() {
        let name = thread.file_name().into_string().unwrap();
        setpriority_process(Pid::from_raw(name.parse().unwrap()), 19).ok();
    }
}

/// The processes of jobs on one node of this cluster.
fn processes_of_node(node: &str, config: &str) -> Vec<u32> {
    let is_there = |environment: &Environment| {
        environment.get("SLURMD_NODENAME") == Some(node)
            && environment.get("SLURM_CONF") == Some(config)
    };
    let there = processes().filter(|(_, environment)| is_there(environment));
    there.map(|(pid, _)| pid).collect()
}

/// What a process was started with.
struct Environment(String);

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        let mut variables = self.0.split('\0');
        variables.find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
    }
}

fn processes() -> impl Iterator<Item = (u32, Environment)> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        (
            pid,
            Environment(String::from_utf8_lossy(&environment).into_owned()),
        )
    })
}

/// The `slurmstepd`s above a process.
fn shepherds(mut pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    while pid > 1 {
        if fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "slurmstepd")
        {
            found.push(pid);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent
            .and_then(|parent| parent.trim().parse().ok())
            .unwrap_or(0);
    }
    found
}

fn free_ports() -> [u16; 4] {
    // Four in a row for the nodes' range, of which the first is the controller's.
    loop {
        let first = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        if first > 60000 {
            continue;
        }
        let ports = [first, first + 1, first + 2, first + 3];
        if ports
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        {
            return ports;
        }
    }
}

fn rand_bytes() -> Vec<u8> {
    let mut random = fs::File::open("/dev/urandom").unwrap();
    let mut bytes = vec![0; 1024];
    std::io::Read::read_exact(&mut random, &mut bytes).unwrap();
    bytes
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Mounts one folder twice, as two clients of a file server see it: with caches of names and attributes
/// of their own, and locks that reach no further. Returns whether that is possible here.
fn mount_twice(dir: &Path) -> bool {
    const CACHES: &str = "attr_timeout=20,entry_timeout=20,negative_timeout=20";
    for folder in ["real", "a", "b", "shared"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    ["a", "b"].iter().all(|mount| {
        let mut bindfs = Command::new("bindfs");
        bindfs
            .args(["-o", CACHES])
            .arg(dir.join("real"))
            .arg(dir.join(mount));
        bindfs.stdout(Stdio::null()).stderr(Stdio::null());
        bindfs.status().is_ok_and(|status| status.success())
    })
}

/// Whether Slurm may make control groups that limit memory. What it makes stands below a name that is known
/// only to it, and goes with its jobs.
fn has_memory_groups(dir: &Path) -> bool {
    let groups = Path::new(GROUPS);
    let ours = groups.join(dir.file_name().unwrap());
    let may_make = groups.join("memory.limit_in_bytes").exists() && fs::create_dir(&ours).is_ok();
    may_make && fs::remove_dir(&ours).is_ok()
}

/// Whatever becomes of this process, its folder goes, and what is left of its jobs: a step outlives its
/// node's daemon.
fn remove_at_our_end(dir: &Path) {
    let line = format!(
        "while kill -0 {pid} 2>/dev/null; do sleep 0.5; done; sleep 1; \
         umount -l '{dir}/a' '{dir}/b' 2>/dev/null; \
         for process in /proc/[0-9]*; do \
           ! grep -qs '{dir}/' $process/environ || kill -9 ${{process#/proc/}} 2>/dev/null; \
         done; rm -rf --one-file-system '{dir}'; rmdir '{GROUPS}/slurm_{CONFINED}' 2>/dev/null",
        pid = std::process::id(),
        dir = dir.display()
    );
    // Left behind by a shell that ends at once: nobody waits for it.
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "setsid sh -c \"$0\" >/dev/null 2>&1 </dev/null &",
        &line,
    ]);
    command.status().unwrap();
}
