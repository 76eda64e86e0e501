//! What computes a stage: what is said of a GPU, what its record keeps, and why there is none.
//!
//! On another GPU, or with other kernels, the last digits of a number differ, which is why it is recorded.

use serde_json::{Value, json};
use tinylm_model::machine::Machine;
use tinylm_pipeline::{Device, StageError};

/// What a stage on a GPU says of it, and what its record keeps; `does` is what it does there.
pub(crate) fn used(does: &str, machine: &Machine) -> (String, Value) {
    let Machine {
        device, kernels, ..
    } = machine;
    let record = json!({ "device": device.to_string(), "kernels": kernels });
    (format!("{does} on {kernels}"), record)
}

/// Looks for a device to train on.
pub(crate) fn to_train(device: Device) -> Result<Machine, StageError> {
    Machine::with(device).map_err(|why| missing("train", device, why))
}

/// Looks for a device to read a model on.
pub(crate) fn to_read(device: Device) -> Result<Machine, StageError> {
    Machine::to_read(device).map_err(|why| missing("read a model", device, why))
}

/// What is not done without a device.
fn missing(does: &str, device: Device, why: String) -> StageError {
    let message = format!("this machine cannot {does} on `{device}`");
    let help = "`--device cpu` does it here; `tinylm doctor` tells what it finds";
    StageError::new(message).cause(why).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_computes_on_a_gpu_is_told_and_recorded() {
        let kernels = "NVIDIA H200, sm_90a, own products".to_owned();
        let machine = Machine {
            device: "cuda:1".parse().unwrap(),
            kernels,
            memory_bytes: None,
        };
        let (line, record) = used("trains", &machine);
        assert_eq!(line, "trains on NVIDIA H200, sm_90a, own products");
        let expected =
            json!({ "device": "cuda:1", "kernels": "NVIDIA H200, sm_90a, own products" });
        assert_eq!(record, expected);
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_with_what_works() {
        let error = to_read("cuda:63".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.message,
            "this machine cannot read a model on `cuda:63`"
        );
        assert!(error.cause.is_some() && !error.is_final);
    }
}
