//! The child's side: one stage, carried out in a process of its own.
//!
//! The parent writes one [`Order`] to standard input and reads events, a JSON object
//! a line, from standard output. SIGTERM asks the stage to stop at its next safe
//! point. A panic is a bug; it ends the process with 101 and the message stands in
//! the stage's log, so it takes nothing with it.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::StageError,
    event::Event,
    io::{Assignment, StageIo},
    kind::Kind,
    outside::Outside,
};

/// What to carry out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub kind: String,
    pub settings: Value,
    pub watch: Value,
    pub assignment: Assignment,
}

/// Carries out the order on standard input; returns the exit code.
pub fn exec_stage(catalog: &[Kind], outside: &Outside) -> i32 {
    let cancel = &outside.stop;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Without the handler the stage would simply end at once, which is safe too.
        signal_hook::flag::register(signal, Arc::clone(cancel)).ok();
    }
    let stdout = Mutex::new(io::stdout());
    let send = |event: Event| send_line(&stdout, &event);
    match carry_out(catalog, outside, cancel, &send) {
        Ok(event) => {
            send(event);
            0
        }
        Err(error) => {
            send(Event::Failed { error });
            1
        }
    }
}

fn carry_out(
    catalog: &[Kind],
    outside: &Outside,
    cancel: &AtomicBool,
    send: &(dyn Fn(Event) + Sync),
) -> Result<Event, StageError> {
    let order = read_order()?;
    let kind = catalog
        .iter()
        .find(|kind| kind.name == order.kind)
        .ok_or_else(|| StageError::new(format!("no stage kind is called `{}`", order.kind)))?;
    let io = StageIo::new(&order.assignment, outside, cancel, send);
    let metrics = (kind.run)(&order.settings, &order.watch, &io)?;
    Ok(Event::Finished { metrics })
}

fn read_order() -> Result<Order, StageError> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| StageError::new("the order could not be read").cause(error))?;
    serde_json::from_str(&text)
        .map_err(|error| StageError::new("the order could not be read").cause(error))
}

/// Writes one event. A parent that is gone cannot be told; the kernel ends us with it.
pub fn send_line(out: &Mutex<impl Write>, event: &Event) {
    let Ok(mut line) = serde_json::to_vec(event) else {
        return;
    };
    line.push(b'\n');
    if let Ok(mut out) = out.lock() {
        out.write_all(&line).and_then(|()| out.flush()).ok();
    }
}
