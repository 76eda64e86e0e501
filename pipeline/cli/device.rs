//! Which device a command computes on: the one that it names, or what `auto` finds here.
//!
//! In a run `auto` takes NVIDIA's first GPU if that computes what this processor does: what tests held elsewhere says
//! nothing of the card and the driver here. Another process tries it: a driver that fails takes nothing with it, and
//! what it holds of the card is given back. GPUs of other makers are taken by name, and `auto` reads models with the
//! processor, which has begun to answer before a driver has started.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tinylm_model::{gpu, machine::Machine};
use tinylm_pipeline::{Device, FoundDevice, RunDevice, settings::NotADevice};
use tinylm_registry::{Registry, Run, StageRow};

use crate::{failure::Failure, output::print_line, project::Project};

/// Without a word.
const AUTO: &str = "auto";

/// What computes again what a run computed: what is asked for, and without a word what it ran on.
pub(crate) fn device_of(
    project: &Project,
    registry: &Registry,
    asked: &str,
    run: &Run,
) -> Result<String, Failure> {
    if asked != AUTO {
        return Ok(asked.to_owned());
    }
    match run.device.as_str() {
        AUTO => found_by(project, registry, run),
        device if device.parse::<Device>().is_ok() => Ok(device.to_owned()),
        _ => Ok(AUTO.to_owned()),
    }
}

/// What `auto` found in a run: where the stages computed that can.
fn found_by(project: &Project, registry: &Registry, run: &Run) -> Result<String, Failure> {
    let on_device = |stage: &StageRow| {
        let mut kinds = project.catalog.iter();
        kinds.any(|kind| kind.name == stage.kind && kind.on_device)
    };
    let stages = registry.stages(&run.id)?.into_iter().filter(on_device);
    let mut found = AUTO.to_owned();
    for id in stages.filter_map(|stage| stage.execution_id) {
        if let Some(execution) = registry.execution(&id)?.filter(|one| one.run_id == run.id) {
            found = execution.device;
        }
    }
    Ok(found)
}

/// What reads a model.
pub(crate) fn device(asked: &str) -> Result<Device, Failure> {
    Ok(named(asked)?.unwrap_or_default())
}

/// What a run computes on, and the word for it that history keeps; `is_here` says that no cluster computes.
pub(crate) fn device_of_run(asked: &str, is_here: bool) -> Result<(RunDevice, String), Failure> {
    match named(asked)? {
        Some(device) => {
            // A node may have what this machine has not.
            if is_here {
                has(device)?;
            }
            Ok((device.into(), device.to_string()))
        }
        // What it was is in the record of each stage.
        None if is_here && gpu::is_driver_here() => {
            Ok((RunDevice::to_be_found(find), AUTO.to_owned()))
        }
        None => Ok((Device::Cpu.into(), Device::Cpu.to_string())),
    }
}

fn named(asked: &str) -> Result<Option<Device>, Failure> {
    if asked == AUTO {
        return Ok(None);
    }
    asked.parse().map(Some).map_err(|error: NotADevice| {
        let help = "there is `auto`, `cpu`, `cuda`, `cuda:N`, several as `cuda:N,M`, and `gpu`";
        Failure::wrong(error.to_string()).help(help)
    })
}

fn has(device: Device) -> Result<(), Failure> {
    Machine::with(device).map(drop).map_err(|why| {
        let help = "`--device cpu` works here; `tinylm doctor` says what it finds";
        Failure::wrong(format!("`{device}` cannot be used: {why}")).help(help)
    })
}

/// What a trial says of the first GPU.
#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    /// It computes what this processor does.
    Good,
    /// There is none, which is nothing to talk about.
    Nothing,
    /// There is one, and it is not taken.
    Refused(String),
}

/// Has another process look; this machine's processor is there in any case.
fn find() -> FoundDevice {
    match look().unwrap_or_else(Verdict::Refused) {
        Verdict::Good => (Device::CUDA, None),
        Verdict::Nothing => (Device::Cpu, None),
        Verdict::Refused(why) => {
            let taken = "the processor computes; `--device cuda` takes the GPU all the same";
            (Device::Cpu, Some(format!("{why}: {taken}")))
        }
    }
}

fn look() -> Result<Verdict, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    let command = command.arg("try-gpu").stdin(Stdio::null());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let begun = Instant::now();
    // What it prints is a line, which a pipe holds until it is read.
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if begun.elapsed() > TRIAL_MAX {
            child.kill().ok();
            child.wait().ok();
            return Err(format!(
                "trying the GPU took more than {} s",
                TRIAL_MAX.as_secs()
            ));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let said = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&said.stdout)
        .map_err(|_| format!("trying the GPU ended with {}", said.status))
}

/// A driver that has not answered by then hangs.
const TRIAL_MAX: Duration = Duration::from_secs(60);

fn tried() -> Result<(), String> {
    let found = gpu::find(0)?;
    gpu::trial(Device::CUDA).map_err(|why| format!("{} is not taken: {why}", found.name))
}

/// What that process does.
pub(crate) fn try_gpu() {
    let verdict = match gpu::is_card_here() {
        Ok(false) => Verdict::Nothing,
        Ok(true) => tried().map_or_else(Verdict::Refused, |()| Verdict::Good),
        Err(why) => Verdict::Refused(why),
    };
    print_line(serde_json::json!(verdict).to_string());
}
