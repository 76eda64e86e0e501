//! Where a run computes: on a device that was named, or on what is found when its first stage wants one.
//!
//! Not looked for at the beginning, because a driver takes half a second to say what there is, and a run that
//! finds all that it asks for is over by then.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::settings::Device;

/// What was found, and what its user should know of it.
pub type FoundDevice = (Device, Option<String>);

/// The device of a run.
#[derive(Clone)]
pub struct RunDevice {
    known: Arc<OnceLock<Device>>,
    is_named: bool,
    find: Arc<dyn Fn() -> FoundDevice + Send + Sync>,
}

impl RunDevice {
    /// What `find` finds, which is asked once, by the first stage that computes on a device.
    pub fn to_be_found(find: impl Fn() -> FoundDevice + Send + Sync + 'static) -> Self {
        Self {
            known: Arc::default(),
            is_named: false,
            find: Arc::new(find),
        }
    }

    /// Looks for it if nobody has.
    pub(crate) fn look(&self, warn: impl FnOnce(&str)) {
        self.known.get_or_init(|| {
            let (device, note) = (self.find)();
            if let Some(note) = note {
                warn(&note);
            }
            device
        });
    }

    /// Whether nobody has looked yet.
    pub(crate) fn is_open(&self) -> bool {
        self.known.get().is_none()
    }

    /// Where a stage computes; processes that share one do so on processors, unless a device was named.
    pub(crate) fn of_stage(&self, is_shared: bool) -> Device {
        match self.is_named || !is_shared {
            true => self.known(),
            false => Device::Cpu,
        }
    }

    /// This machine's CPU, as long as nobody has looked for another.
    pub fn known(&self) -> Device {
        self.known.get().copied().unwrap_or_default()
    }
}

impl From<Device> for RunDevice {
    fn from(device: Device) -> Self {
        Self {
            known: Arc::new(OnceLock::from(device)),
            is_named: true,
            find: Arc::new(move || (device, None)),
        }
    }
}

impl fmt::Debug for RunDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.known.get())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_device_is_looked_for_once_and_only_if_somebody_wants_it() {
        let asked = Arc::new(AtomicUsize::new(0));
        let device = RunDevice::to_be_found({
            let asked = Arc::clone(&asked);
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                (Device::CUDA, Some("it is slow".to_owned()))
            }
        });
        assert_eq!(device.known(), Device::Cpu);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let mut notes = Vec::new();
        for device in [&device, &device.clone()] {
            device.look(|note| notes.push(note.to_owned()));
            assert_eq!(device.known(), Device::CUDA);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(notes, ["it is slow"]);
        assert_eq!(device.of_stage(false), Device::CUDA);
        assert_eq!(device.of_stage(true), Device::Cpu, "nobody named a GPU");
    }

    #[test]
    fn a_device_that_was_named_is_known_from_the_first() {
        let device = RunDevice::from(Device::Gpu);
        device.look(|note| panic!("{note}"));
        assert_eq!(device.known(), Device::Gpu);
        assert_eq!(device.of_stage(true), Device::Gpu);
    }
}
