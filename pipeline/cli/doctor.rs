//! `tinylm doctor`: this machine and this project.

use std::{num::NonZero, thread};

use clap::Args;
use serde_json::{Value, json};
use tinylm_model::machine::{Device, Gpus, Machine};
use tinylm_pipeline::secrets::masked;
use tinylm_registry::{FileSystem, Home, Patient, Registry, Store};
use tinylm_reports::bytes;

use crate::{
    failure::{DAMAGED, Failure},
    list::ListArgs,
    output::{print_json, print_line},
    project::{Project, outside},
    shared::{self, Named},
};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// First make the registry again from the journals of the runs
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// One line of `doctor`: what was looked at, whether it is well, what was found.
struct Finding {
    what: &'static str,
    is_well: bool,
    found: String,
}

pub(crate) fn doctor(project: &Project, args: &DoctorArgs) -> Result<(), Failure> {
    if args.rebuild {
        project.registry_to_write()?.rebuild()?;
    }
    let findings = findings(project);
    if args.list.json {
        let rows = findings.iter();
        let rows =
            rows.map(|one| json!({"what": one.what, "well": one.is_well, "found": one.found}));
        print_json(&Value::Array(rows.collect()));
    } else {
        for one in &findings {
            let word = if one.is_well { "well" } else { "WRONG" };
            print_line(format!("{word:<6} {:<9} {}", one.what, one.found));
        }
    }
    match findings.iter().all(|one| one.is_well) {
        true => Ok(()),
        false => Err(Failure::said(DAMAGED)),
    }
}

fn findings(project: &Project) -> Vec<Finding> {
    let home = project.home();
    let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut findings = vec![Finding {
        what: "machine",
        is_well: true,
        found: format!(
            "{n_cores} cores; kernels for {}",
            tinylm_model::kernels::name()
        ),
    }];
    let mut add = |what, result: Result<String, String>| {
        let is_well = result.is_ok();
        let found = result.unwrap_or_else(|error| error);
        findings.push(Finding {
            what,
            is_well,
            found,
        });
    };
    let root = home.root().display().to_string();
    if !home.root().is_dir() {
        add("home", Ok(format!("none yet; a run would make `{root}`")));
    } else {
        add(
            "home",
            match (home.check(), home.is_writable()) {
                (Err(error), _) => Err(error.to_string()),
                (Ok(_), false) => Err(format!(
                    "`{root}` cannot be written to: hits only, nothing recorded"
                )),
                (Ok(_), true) => Ok(format!("{root} ({})", file_system(&home))),
            },
        );
        let registry = Registry::open_to_read(&home);
        let checked = registry.map(|registry| registry.map(history));
        let none = Ok("0 runs".to_owned());
        add(
            "registry",
            checked.map_or_else(
                |error| Err(error.to_string()),
                |found| found.unwrap_or(none),
            ),
        );
        let usage = Store::new(home.clone()).usage();
        add(
            "store",
            usage
                .map(|usage| format!("{} in {} artifacts", bytes(usage.bytes), usage.n_artifacts))
                .map_err(|error| error.to_string()),
        );
    }
    let place = if home.root().is_dir() {
        home.root()
    } else {
        &project.current_dir
    };
    let free = rustix::fs::statvfs(place).map(|stat| stat.f_bavail * stat.f_frsize);
    add(
        "disk",
        match free {
            Ok(free) if free < 1_000_000_000 => Err(format!("only {} are free", bytes(free))),
            Ok(free) => Ok(format!("{} are free", bytes(free))),
            Err(error) => Err(error.to_string()),
        },
    );
    let outside = outside();
    let token = if outside.hf_token.is_some() {
        "with"
    } else {
        "without"
    };
    let endpoint = masked(outside.hf_endpoint.as_deref().unwrap_or("the public hub"));
    let hub = match outside.offline {
        true => Ok("offline: nothing is asked of the network".to_owned()),
        false => tinylm_stages::reach_hub(&outside)
            .map(|()| format!("{endpoint} answers; {token} a token"))
            .map_err(|why| format!("{endpoint} does not answer: {why}")),
    };
    add("hub", hub);
    add("remote", remote(project));
    let [of_nvidia, of_any_maker] = gpus();
    add("cuda", Ok(of_nvidia));
    add("gpu", Ok(of_any_maker));
    add("cluster", cluster(project));
    findings
}

/// The store that the team shares, and whether it answers.
fn remote(project: &Project) -> Result<String, String> {
    let said = |failure: Failure| failure.message().unwrap_or_default().to_owned();
    let settings = match project.named_remote().map_err(said)? {
        Named::Nothing => return Ok("none: TINYLM_REMOTE does not name a shared store".to_owned()),
        Named::Offline(settings) => {
            let remote = shared::open(&settings).map_err(said)?;
            return Ok(format!("{}, which is not asked: offline", remote.shown()));
        }
        Named::Remote(settings) => settings,
    };
    let remote = shared::open(&settings).map_err(said)?;
    let (shown, mode) = (remote.shown(), remote.mode().word());
    match remote.reach(&Patient) {
        Ok(()) => Ok(format!("{shown} answers; mode {mode}")),
        Err(why) => Err(format!("{shown} ({mode}) does not answer: {why}")),
    }
}

/// All GPUs of NVIDIA's, each with the device that names it, and the one that `gpu` takes.
fn gpus() -> [String; 2] {
    let told = |machine: Machine| {
        let size = bytes(machine.memory_bytes.unwrap_or(0));
        let Machine {
            device, kernels, ..
        } = machine;
        // A kernel of these sees one buffer, which a driver bounds.
        let of = match device {
            Device::Gpu => " at most for a model",
            Device::Cuda(_) | Device::Cpu => "",
        };
        format!("{kernels}, {size}{of}: `--device {device}` trains on it")
    };
    let mut numbered = Vec::new();
    for gpu in (0..).map_while(Gpus::one) {
        match Machine::with(Device::Cuda(gpu)) {
            Ok(machine) => numbered.push(told(machine)),
            // One that is too old stands before others.
            Err(why) if why.starts_with("GPU ") => numbered.push(why),
            Err(why) => {
                if numbered.is_empty() {
                    numbered.push(format!("none: {why}"));
                }
                break;
            }
        }
    }
    let of_nvidia = numbered.join("; ");
    let of_any_maker = match Machine::with(Device::Gpu) {
        Ok(machine) => told(machine),
        Err(why) => format!("none: {why}"),
    };
    [of_nvidia, of_any_maker]
}

/// What `--executor slurm` would find here.
fn cluster(project: &Project) -> Result<String, String> {
    let Some(version) = tinylm_pipeline::slurm::version() else {
        return Ok("none: `sbatch` cannot be started".to_owned());
    };
    match (project.site_file(), project.site(Some("slurm"))) {
        (Some(path), Ok(_)) => Ok(format!("{version}; site file `{}`", path.display())),
        (None, _) => Ok(format!("{version}; no site file")),
        (Some(path), Err(_)) => Err(format!(
            "the site file `{}` cannot be understood",
            path.display()
        )),
    }
}

/// What the registry holds, or what is wrong with it or with the journals that it is read from.
fn history(registry: Registry) -> Result<String, String> {
    let counted = || {
        registry.verify()?;
        let unread = (registry.unread_runs()?, registry.unread_lines()?);
        Ok::<_, tinylm_registry::Error>((registry.count_runs()?, unread))
    };
    let (n_runs, unread) = counted().map_err(|error| error.to_string())?;
    if let [first, others @ ..] = &registry.faults()[..] {
        let more = match others.len() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        return Err(format!(
            "{n_runs} runs, and journals that cannot be read: {first}{more}"
        ));
    }
    match unread {
        (0, 0) => Ok(format!("{n_runs} runs")),
        (0, lines) => Ok(format!(
            "{n_runs} runs; {lines} lines of their journals were torn and are left out"
        )),
        // Nothing is damaged: it is only known that there is more.
        (runs, _) => Ok(format!(
            "{n_runs} runs, and journals of {runs} that say more: `tinylm doctor --rebuild` reads them"
        )),
    }
}

/// The sort of file system that the home is on, and where the registry of a shared one stands.
fn file_system(home: &Home) -> String {
    let name = FileSystem::of(home.root()).map_or_else(
        || "its file system does not say what it is".to_owned(),
        |system| system.name,
    );
    match home.is_shared() {
        true => format!(
            "{name}, shared with other machines; this one's registry: {}",
            home.registry_path().display()
        ),
        false => name,
    }
}
