//! Which device a command computes on: the one that it names, or what `auto` finds here.
//!
//! In a run `auto` takes NVIDIA's first GPU if that computes what this processor does: what tests held elsewhere says
//! nothing of the card and the driver here. Another process tries it: a driver that fails takes nothing with it, and
//! what it holds of the card is given back. GPUs of other makers are taken by name, and `auto` reads models with the
//! processor, which has begun to answer before a driver has started.

use std::process::Command;

use serde::{Deserialize, Serialize};
use tinylm_model::{gpu, machine::Machine};
use tinylm_pipeline::{Device, FoundDevice, RunDevice, settings::NotADevice};
use tinylm_registry::Run;

use crate::{failure::Failure, output::print_line};

/// Without a word.
const AUTO: &str = "auto";

/// What computes again what a run computed: what is asked for, and without a word what it ran on.
pub(crate) fn device_of(asked: &str, run: &Run) -> String {
    match asked == AUTO && run.device.parse::<Device>().is_ok() {
        true => run.device.clone(),
        false => asked.to_owned(),
    }
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
    let said = Command::new(program).arg("try-gpu").output();
    let said = said.map_err(|error| error.to_string())?;
    serde_json::from_slice(&said.stdout)
        .map_err(|_| format!("trying the GPU ended with {}", said.status))
}

/// What that process does.
pub(crate) fn try_gpu() {
    let verdict = match gpu::find(0) {
        Err(why) if why.starts_with("GPU ") => Verdict::Refused(why),
        Err(_) => Verdict::Nothing,
        Ok(found) => match gpu::trial(Device::CUDA) {
            Ok(()) => Verdict::Good,
            Err(why) => Verdict::Refused(format!("{} is not taken: {why}", found.name)),
        },
    };
    print_line(serde_json::json!(verdict).to_string());
}
