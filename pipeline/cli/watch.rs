//! `tinylm watch`: a run followed from another terminal until it ends.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use tinylm_registry::{Registry, Run, Status};
use tinylm_reports::{Fineness, Report, ReportOptions, amount, duration, number, sections};

use crate::{
    failure::{Failure, STAGE_FAILED},
    output::{Redrawn, Shown, print_line},
    project::{self, Project, now_ms},
};

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The run; the newest one when nothing is named
    #[arg(add = crate::completions::runs())]
    pub(crate) run: Option<String>,
}

/// How often it is looked whether anything was written.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time passes on a screen too, and a run may die without a word.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// Lines where nobody sits before a terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Points of a curve; a terminal shows fewer.
const POINTS_MAX: usize = 400;

pub(crate) fn watch(project: &Project, args: &WatchArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let run = match &args.run {
        Some(name) => registry.find_run(name)?,
        None => newest(&registry)?,
    };
    follow(project, &registry, &run)
}

/// Returns the run that goes on, or else the last one: `@last` is not yet a run that has made nothing.
fn newest(registry: &Registry) -> Result<Run, Failure> {
    let limit = Some(1);
    let query = tinylm_registry::RunQuery {
        limit,
        ..Default::default()
    };
    match registry.runs(&query)?.pop() {
        Some(run) if run.status == Status::Running => Ok(run),
        _ => Ok(registry.find_run("@last")?),
    }
}

/// Shows a run until it has ended, and then reports on it.
pub(crate) fn follow(project: &Project, registry: &Registry, run: &Run) -> Result<(), Failure> {
    let mut screen = Redrawn::default();
    let (mut tide, mut told) = (registry.tide()?, None::<Instant>);
    let is_terminal = project::stdout_is_terminal();
    loop {
        let run = registry.run(&run.id)?;
        if run.status != Status::Running {
            return end(project, registry, &run, screen);
        }
        let report = read(registry, &run, &["loss", "validation_loss"])?;
        match is_terminal {
            true => screen.draw(glance(project, &report), project::stdout_height()),
            false if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) => {
                told = Some(Instant::now());
                lines(&report).into_iter().for_each(print_line);
            }
            false => {}
        }
        let drawn = Instant::now();
        while drawn.elapsed() < DRAW_EVERY {
            thread::sleep(LOOK_EVERY);
            let now = registry.tide()?;
            if now != std::mem::replace(&mut tide, now) {
                break;
            }
        }
    }
}

fn read(registry: &Registry, run: &Run, curves: &[&str]) -> Result<Report, Failure> {
    let options = ReportOptions {
        points: Fineness::even(POINTS_MAX),
        curves: curves.iter().map(|&name| name.to_owned()).collect(),
        now_ms: now_ms(),
    };
    Ok(tinylm_reports::read(registry, run, &options)?)
}

fn glance(project: &Project, report: &Report) -> Shown {
    let options = tinylm_reports::terminal::TerminalOptions {
        is_brief: true,
        ..project.terminal_options()
    };
    Shown::report(&sections::at_a_glance(report), &options)
}

/// How far each running stage is, and where, and what others wait for, in a line each.
fn lines(report: &Report) -> Vec<String> {
    let waiting = sections::waiting(report).map(|(stage, what)| format!("{stage}: {what}"));
    at_work(report).into_iter().chain(waiting).collect()
}

fn at_work(report: &Report) -> Vec<String> {
    let going = report
        .stages
        .iter()
        .filter_map(|stage| Some((stage, stage.going.as_ref()?)));
    let line = going.map(|(stage, going)| {
        let progress = &going.progress;
        // A job of a cluster is somewhere before it says how far it is.
        let far = Some(&progress.unit).filter(|unit| !unit.is_empty());
        let far = far.map(|unit| amount(progress.done, progress.total, unit));
        let mut words: Vec<String> = far.into_iter().collect();
        words.extend(going.loss.map(|loss| format!("loss {}", number(loss))));
        words.extend(going.tokens_per_second.map(|n| format!("{n:.0} tokens/s")));
        words.extend(
            progress
                .seconds_left()
                .map(|left| format!("{} left", duration(left))),
        );
        let execution = stage.execution.as_ref();
        words.extend(execution.and_then(|execution| execution.place.clone()));
        format!("{}: {}", stage.row.name, words.join(", "))
    });
    line.collect()
}

fn end(
    project: &Project,
    registry: &Registry,
    run: &Run,
    mut screen: Redrawn,
) -> Result<(), Failure> {
    screen.clear();
    let options = ReportOptions::for_runs(1, now_ms(), &[]);
    let report = tinylm_reports::read(registry, run, &options)?;
    let options = tinylm_reports::terminal::TerminalOptions {
        is_brief: !project.global.verbose,
        ..project.terminal_options()
    };
    print_line(Shown::report(&sections::of_report(&report, &[]), &options).trimmed());
    match run.status {
        Status::Done => Ok(()),
        _ => Err(Failure::said(STAGE_FAILED)),
    }
}
