//! The side of an executor that does the work: an order in, events out.
//!
//! [`exec_stage`] is the child of a local run: it reads one [`Order`] from standard input and
//! writes events, a JSON object a line, to standard output. SIGTERM asks the stage to stop at its
//! next safe point. A panic is a bug; it ends the process with 101 and the message stands in the
//! stage's log, so it takes nothing with it. [`carry_out`] is the same work without a process
//! around it, for whoever brings orders and events some other way.

use std::{
    io::{self, Read, Write},
    iter,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    error::StageError,
    event::Event,
    io::{Follows, StageIo},
    kind::Kind,
    metrics::Metrics,
    order::Order,
    outside::Outside,
    sys,
};

/// Carries out the order on standard input; returns the exit code.
pub fn exec_stage(catalog: &[Kind], outside: &Outside) -> i32 {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Without the handler the stage would simply end at once, which is safe too.
        signal_hook::flag::register(signal, Arc::clone(&outside.stop)).ok();
    }
    let stdout = Mutex::new(io::stdout());
    let send = |event: Event| send_line(&stdout, &event);
    let order = read_order();
    let follows = |order: &Order| order.assignment.ranks.follows.is_some();
    let is_follower = order.as_ref().is_ok_and(follows);
    let is_heavy = |order: &Order| {
        let kind = catalog.iter().find(|kind| kind.name == order.kind);
        kind.is_some_and(|kind| kind.heavy)
    };
    if order.as_ref().is_ok_and(is_heavy) {
        sys::share_one_heap();
    }
    match order.and_then(|order| carry_out(catalog, outside, &order, &send)) {
        Ok(metrics) => {
            send(Event::Finished { metrics });
            0
        }
        Err(error) => {
            if is_follower {
                // Nobody reads its events, and its standard error is the stage's log.
                writeln!(io::stderr(), "a process that follows: {error}").ok();
            }
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
        .flat_map(|kind| iter::once(kind).chain(kind.parts))
        .find(|kind| kind.name == order.kind)
        .ok_or_else(|| StageError::new(format!("no stage kind is called `{}`", order.kind)))?;
    let start = |follows: Follows| start_rank(order, follows);
    let io = StageIo::new(&order.assignment, outside, &outside.stop, send).with_starter(&start);
    (kind.run)(&order.settings, &order.watch, &io)
}

/// Starts a process that carries out the same order as one of its ranks: on this machine, or on
/// another of the scheduler's job. What it says of itself goes to the stage's log.
fn start_rank(order: &Order, follows: Follows) -> Result<Child, StageError> {
    let ranks = &order.assignment.ranks;
    let (rank, nodes) = (follows.rank, ranks.nodes.max(1));
    let threads = order.assignment.threads.max(1);
    let mut order = order.clone();
    order.assignment.ranks.follows = Some(follows);
    let unwritable = |error| StageError::new("the order could not be written").cause(error);
    let order = serde_json::to_vec(&order).map_err(unwritable)?;
    let program =
        std::env::current_exe().map_err(|error| StageError::io(Path::new("."), &error))?;
    let mut command = match rank % nodes {
        0 => Command::new(&program),
        node => {
            let mut srun = Command::new("srun");
            // What the job was given for each machine is not passed on by itself.
            let relative = format!("--relative={node}");
            let cpus = format!("--cpus-per-task={threads}");
            srun.args(["--overlap", "--nodes=1", "--ntasks=1", "--quiet"]);
            srun.args([relative, cpus]);
            srun.arg(&program);
            srun
        }
    };
    command
        .arg("exec-stage")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| StageError::io(&program, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that died at once does not come, which is told.
        stdin.write_all(&order).ok();
    }
    Ok(child)
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
