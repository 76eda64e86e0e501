//! Who looks on is told whenever somebody has written to the registry.
//!
//! SQLite counts what other connections commit. One thread reads that number some times a second,
//! and only while anybody looks on; asking each viewer to read it would ask as often as there are
//! viewers.

use std::{sync::Arc, thread, time::Duration};

use tokio::sync::watch;

use crate::readers::{Reader, Readers};

/// How often the number is read.
const EVERY: Duration = Duration::from_millis(150);

pub(crate) struct Pulse {
    beats: watch::Sender<()>,
}

impl Pulse {
    pub(crate) fn start(readers: Arc<Readers>) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse {
            beats: watch::Sender::new(()),
        });
        let beating = Arc::downgrade(&pulse);
        thread::spawn(move || {
            let mut reader: Option<Reader> = None;
            let mut last = None;
            while let Some(pulse) = beating.upgrade() {
                if pulse.beats.receiver_count() > 0 {
                    reader = reader.filter(|reader| readers.is_current(reader));
                    reader = reader.or_else(|| readers.open().ok().flatten());
                    let tide = reader
                        .as_ref()
                        .and_then(|reader| reader.registry.tide().ok());
                    if tide != last {
                        pulse.beats.send_replace(());
                    }
                    last = tide;
                }
                drop(pulse);
                thread::sleep(EVERY);
            }
        });
        pulse
    }

    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.beats.subscribe()
    }
}
