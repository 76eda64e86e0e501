//! The side of an executor that does the work: an order in, events out.
//!
//! [`exec_stage`] is the child of a local run: it reads one [`Order`] from standard input and
//! writes events, a JSON object a line, to standard output. SIGTERM asks the stage to stop at its
//! next safe point. A panic is a bug; it ends the process with 101 and the message stands in the
//! stage's log, so it takes nothing with it. [`carry_out`] is the same work without a process
//! around it, for whoever brings orders and events some other way.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex},
};

use crate::{
    error::StageError, event::Event, io::StageIo, kind::Kind, metrics::Metrics, order::Order,
    outside::Outside,
};

/// Carries out the order on standard input; returns the exit code.
pub fn exec_stage(catalog: &[Kind], outside: &Outside) -> i32 {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Without the handler the stage would simply end at once, which is safe too.
        signal_hook::flag::register(signal, Arc::clone(&outside.stop)).ok();
    }
    let stdout = Mutex::new(io::stdout());
    let send = |event: Event| send_line(&stdout, &event);
    match read_order().and_then(|order| carry_out(catalog, outside, &order, &send)) {
        Ok(metrics) => {
            send(Event::Finished { metrics });
            0
        }
        Err(error) => {
            send(Event::Failed { error });
            1
        }
    }
}

/// Carries out an order in this thread, until `outside.stop` is set.
pub fn carry_out(
    catalog: &[Kind],
    outside: &Outside,
    order: &Order,
    send: &(dyn Fn(Event) + Sync),
) -> Result<Metrics, StageError> {
    let kind = catalog
        .iter()
        .find(|kind| kind.name == order.kind)
        .ok_or_else(|| StageError::new(format!("no stage kind is called `{}`", order.kind)))?;
    let io = StageIo::new(&order.assignment, outside, &outside.stop, send);
    (kind.run)(&order.settings, &order.watch, &io)
}

fn read_order() -> Result<Order, StageError> {
    let unreadable =
        |error: &dyn std::fmt::Display| StageError::new("the order could not be read").cause(error);
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| unreadable(&error))?;
    serde_json::from_str(&text).map_err(|error| unreadable(&error))
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
