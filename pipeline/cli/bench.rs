//! The orchestrator's figures: `cargo bench --bench orchestrator`.
//!
//! The real binary in a temporary folder: a run of ten stages with nothing to do (process
//! start included) and plans, medians of alternating rounds. Then what looking at an
//! artifact of 1 GiB takes, and what recording costs: 100,000 numbers from a stage's pipe
//! into the registry, and the numbers of one training step beside the length of a step of
//! the quickstart's model, the shortest of any that ships.
//!
//! `dvc_peer.py` beside this file times the same ten stages with nothing to do in DVC. What
//! the store and the registry cost alone is in `registry/benches`.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, PipeReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tinylm_pipeline::{
    Event, Happened, Observer, Outside, Recorder, StageIo, exec, io::Assignment, spec,
};
use tinylm_registry::{Condition, Home, NewExecution, Registry, Run, RunSource, Status, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 21;
const ROWS: u64 = 100_000;
const STEPS: u64 = 500;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    looking(dir)?;
    hashing(dir)?;
    writing(dir)?;
    training(dir)
}

/// Runs and plans with nothing to do.
fn looking(dir: &Path) -> Result<()> {
    fs::write(dir.join("ten.yaml"), chain(10))?;
    fs::write(dir.join("thousand.yaml"), chain(1000))?;
    tinylm(dir, &["run", "ten.yaml"])?;
    // The store distrusts files younger than two seconds; a second run settles them.
    thread::sleep(Duration::from_millis(2100));
    tinylm(dir, &["run", "ten.yaml"])?;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(tinylm(dir, &["run", "ten.yaml"])?);
        times[1].push(tinylm(dir, &["plan", "ten.yaml"])?);
        times[2].push(tinylm(dir, &["plan", "thousand.yaml"])?);
    }
    let names = [
        "run, ten stages, nothing to do",
        "plan, ten stages, all fresh",
        "plan, a thousand stages",
    ];
    for (name, times) in names.iter().zip(&mut times) {
        times.sort();
        let range = format!("({:.1} to {:.1})", ms(times[0]), ms(times[ROUNDS - 1]));
        report(name, times[ROUNDS / 2], &range)?;
    }
    Ok(())
}

/// Every byte of an artifact read again, as `cache verify` does; the best of three.
fn hashing(dir: &Path) -> Result<()> {
    const BYTES: usize = 1 << 30;
    let home = Home::at(dir.join("hashing"));
    let out = home.work().below("out");
    out.create_folder()?;
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i * 31 % 251) as u8).collect();
    let mut file = out.below("gigabyte").create_file()?;
    for _ in 0..BYTES / block.len() {
        file.write_all(&block)?;
    }
    drop(file);
    let store = Store::new(home);
    let digest = store.commit(&out)?.digest;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let condition = store.verify(&digest)?;
        best = best.min(started.elapsed());
        assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
    }
    store.remove(&digest)?;
    let rate = BYTES as f64 / best.as_secs_f64() / 1e9;
    report(
        "hash an artifact of 1 GiB",
        best,
        &format!("{rate:.2} GB/s"),
    )
}

/// As many numbers as fast as they come.
fn writing(dir: &Path) -> Result<()> {
    let home = Home::at(dir.join("writing"));
    let started = Instant::now();
    recorded(dir, &home, |io| {
        for step in 0..ROWS {
            io.metric("loss", step, 1.0 / (step + 1) as f64);
        }
    })?;
    let time = started.elapsed();
    let series = Registry::open(&home)?.metric_series("execution", "loss", 2)?;
    assert_eq!(series.n_points, ROWS);
    let each = time.as_secs_f64() * 1e6 / ROWS as f64;
    let note = format!("{each:.2} us a row, from a stage's pipe");
    report("100,000 metric rows written", time, &note)
}

/// The numbers of a step, told one step at a time as training does, beside a step itself.
fn training(dir: &Path) -> Result<()> {
    let (step, names) = quickstart_step(dir)?;
    let mut told = Vec::new();
    let cpu = cpu_time();
    recorded(dir, &Home::at(dir.join("training")), |io| {
        for step in 1..=STEPS {
            let started = Instant::now();
            for name in &names {
                io.metric(name, step, 1.0 / step as f64);
            }
            told.push(started.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
    })?;
    let cpu = (cpu_time() - cpu) / STEPS as u32;
    told.sort();
    let told = told[told.len() / 2];
    let share = |part: Duration| 100.0 * part.as_secs_f64() / step.as_secs_f64();
    report("a step of the quickstart's model", step, "")?;
    let note = format!("{:.3} % of it, for {} numbers", share(told), names.len());
    report("  recording it keeps training for", told, &note)?;
    let note = format!("{:.3} % of it, the recorder's included", share(cpu));
    report("  and takes of all cores", cpu, &note)
}

/// Returns how long a step of the quickstart's model takes, and what is recorded of one.
fn quickstart_step(dir: &Path) -> Result<(Duration, Vec<String>)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/quickstart.yaml");
    let file = file.to_str().ok_or("this project's path is not UTF-8")?;
    let few = "model.train.steps=80";
    tinylm(dir, &["run", file, "--until", "model", "-S", few])?;
    let registry = Registry::open(&Home::at(dir.join(".tinylm")))?;
    let stages = registry.stages(&registry.find_run("@last")?.id)?;
    let model = stages.iter().find(|stage| stage.name == "model");
    let execution = model.and_then(|model| model.execution_id.as_deref());
    let execution = execution.ok_or("the model was not trained")?;
    let loss = registry.metric_series(execution, "loss", 1000)?.points;
    let mut steps: Vec<Duration> = loss
        .windows(2)
        .map(|pair| {
            let ms = u64::try_from(pair[1].at - pair[0].at).unwrap_or(0);
            Duration::from_millis(ms) / (pair[1].step - pair[0].step) as u32
        })
        .collect();
    steps.sort();
    let step = *steps.get(steps.len() / 2).ok_or("no step was recorded")?;
    // The others are final numbers, or those of a validation.
    let is_of_steps = |name: &String| {
        let series = registry.metric_series(execution, name, 2);
        series.is_ok_and(|series| series.n_points as usize + 1 >= loss.len())
    };
    let mut names = registry.metric_names(execution)?;
    names.retain(is_of_steps);
    Ok((step, names))
}

/// Lets `tell` be a stage and records what it tells as a run does: a line an event through a
/// pipe, a thread that reads it, one that writes. Returns when all is written.
fn recorded(dir: &Path, home: &Home, tell: impl FnOnce(&StageIo)) -> Result<()> {
    let request = spec::Request {
        file: dir.join("ten.yaml"),
        overrides: Vec::new(),
        sweep: Vec::new(),
        current_dir: dir.to_owned(),
    };
    let experiments = spec::load(&request, &tinylm_stages::catalog());
    let experiments = experiments.map_err(|wrong| wrong.render(false))?;
    let registry = Registry::open(home)?;
    let run = Run {
        id: "run".to_owned(),
        ..Run::default()
    };
    registry.insert_run(&run, &RunSource::default())?;
    let execution = NewExecution {
        id: "execution".to_owned(),
        run_id: run.id,
        ..NewExecution::default()
    };
    registry.insert_execution(&execution)?;
    let recorder = Recorder::start(registry, "run", &experiments[0], None)?;
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        scope.spawn(|| listen(reader, &recorder));
        let writer = Mutex::new(writer);
        let send = |event: Event| exec::send_line(&writer, &event);
        let (outside, cancel) = (Outside::default(), AtomicBool::new(false));
        tell(&StageIo::new(&nothing(dir), &outside, &cancel, &send));
    });
    match recorder.finish(Status::Done) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// The parent's side of the pipe.
fn listen(reader: PipeReader, recorder: &Recorder) {
    let lines = BufReader::new(reader)
        .split(b'\n')
        .map_while(io::Result::ok);
    for line in lines {
        if let Ok(event) = serde_json::from_slice(&line) {
            recorder.see(&Happened::Said {
                stage: "s0",
                execution_id: "execution",
                event: &event,
            });
        }
    }
}

fn nothing(dir: &Path) -> Assignment {
    Assignment {
        inputs: Vec::new(),
        local_files: Vec::new(),
        pins: Vec::new(),
        out: dir.to_owned(),
        checkpoints: dir.to_owned(),
        seed: 1,
        threads: 1,
        device: tinylm_pipeline::Device::Cpu,
        ranks: tinylm_pipeline::Ranks::default(),
    }
}

/// A chain of stages, each of which copies what the one before it wrote.
fn chain(n_stages: usize) -> String {
    let mut text =
        "stages:\n  s0: { kind: download, with: { rows: [{ text: hello }] } }\n".to_owned();
    for n in 1..n_stages {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  s{n}: {{ kind: command, inputs: {{ before: s{} }}, with: {{ run: [sh, -c, \"echo {n} > '{{out}}/x'\"], outputs: [x] }} }}",
            n - 1
        );
    }
    text
}

fn tinylm(dir: &Path, args: &[&str]) -> Result<Duration> {
    let started = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_tinylm"))
        .args(args)
        .current_dir(dir)
        .env("TINYLM_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(started.elapsed()),
        false => Err(format!("tinylm {args:?} ended with {status}").into()),
    }
}

/// The processor time that all threads of this process have had.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn report(name: &str, time: Duration, note: &str) -> Result<()> {
    let line = format!("{name:<34} {:9.3} ms  {note}", ms(time));
    Ok(writeln!(io::stdout(), "{}", line.trim_end())?)
}
