//! A run as a person sees it while it goes on.
//!
//! On a terminal, one line with a bar for each running stage; elsewhere a plain line
//! now and then. Both go to standard error. As each stage settles, its line of the
//! summary goes to standard output: that line is a result, and the same in both.

use std::{
    collections::HashMap,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tinylm_pipeline::{
    Event, Happened, Observer, Outcome, Settled,
    observe::Execution,
    pushing::{Pushed, Pushing},
    spec::Experiment,
};
use tinylm_reports::{amount, block::Tone, bytes, clean, duration};

use crate::{
    experiment::left_out,
    global::Global,
    output::{Shown, eprint, tell},
    project,
};

/// How often a plain log tells how far a stage is.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Console {
    global: Global,
    is_terminal: bool,
    color: bool,
    name_width: usize,
    /// Stands before each line where several runs are told side by side.
    label: String,
    bars: MultiProgress,
    running: Mutex<HashMap<String, Running>>,
}

/// A stage that is being carried out.
struct Running {
    bar: ProgressBar,
    started: Instant,
    told: Instant,
    loss: Option<f64>,
}

impl Console {
    /// With a label, runs are told side by side: a line each, and no bars.
    pub(crate) fn new(global: &Global, stage_names: &[&str], label: Option<&str>) -> Self {
        let is_alone = label.is_none();
        let is_terminal = std::io::stderr().is_terminal() && !global.quiet && is_alone;
        let bars = MultiProgress::new();
        if !is_terminal {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let widths = stage_names.iter().map(|name| name.chars().count());
        Self {
            global: global.clone(),
            is_terminal,
            color: project::stdout_has_color(),
            name_width: widths.max().unwrap_or(0),
            label: label.map_or(String::new(), |label| format!("{label}  ")),
            bars,
            running: Mutex::default(),
        }
    }

    /// Prints a line to standard error, between the bars.
    pub(crate) fn say(&self, line: &str) {
        if !self.global.quiet {
            let label = if line.is_empty() { "" } else { &self.label };
            self.bars.suspend(|| eprint(format!("{label}{line}")));
        }
    }

    /// Prints a line of the result.
    pub(crate) fn result(&self, line: impl Into<Shown>) {
        self.bars.suspend(|| tell(line));
    }

    /// Tells of other processes only: that heavy stages of one run take turns is no news.
    fn waiting(&self, stage: &str, holder: &str) {
        let ours = format!("(process {})", std::process::id());
        if !holder.ends_with(&ours) {
            self.say(&format!("{stage}: waiting for {holder}"));
        }
    }

    fn started(&self, execution: &Execution) {
        let again = match execution.attempt {
            1 => String::new(),
            n => format!(" (attempt {n})"),
        };
        if !self.is_terminal {
            let name = &execution.stage;
            self.say(&format!(
                "start    {name:width$}{again}",
                width = self.name_width
            ));
        }
        self.begin(&execution.stage);
    }

    /// What a stage would make begins to come from elsewhere, or goes on to.
    fn fetching(&self, stage: &str, from: &str, done: u64, total: u64) {
        if !self.running().contains_key(stage) {
            if !self.is_terminal {
                let (size, width) = (bytes(total), self.name_width);
                self.say(&format!("fetch    {stage:width$}  {size} from {from}"));
            }
            self.begin(stage);
        }
        self.progress(stage, done, Some(total), "bytes", Some("fetched"));
    }

    /// What was made goes to the remote store, and somebody waits for it.
    pub(crate) fn pushing(&self, to: &str, pushing: Pushing) {
        const LINE: &str = "push";
        if !self.running().contains_key(LINE) {
            let n = counted(pushing.n_left);
            self.say(&format!(
                "pushing {n} to {to}; Ctrl-C leaves the rest for the next time"
            ));
            self.begin(LINE);
        }
        if pushing.total > 0 {
            let note = format!("{} left", counted(pushing.n_left));
            self.progress(
                LINE,
                pushing.done,
                Some(pushing.total),
                "bytes",
                Some(&note),
            );
        }
    }

    /// Takes away the bar of a stage.
    pub(crate) fn forget(&self, stage: &str) {
        if let Some(running) = self.running().remove(stage) {
            running.bar.finish_and_clear();
            self.bars.remove(&running.bar);
        }
    }

    pub(crate) fn pushed(&self, to: &str, pushed: &Pushed) {
        self.forget("push");
        if pushed.n_pushed > 0 {
            let (n, size) = (counted(pushed.n_pushed), bytes(pushed.bytes));
            self.say(&format!("pushed {n} to {to}, {size} sent"));
        }
        if pushed.n_owed > 0 {
            let n = counted(pushed.n_owed);
            let why = pushed.why.as_deref().unwrap_or("stopped");
            self.say(&format!(
                "warning: {n} not pushed to {to} ({why}); the next run does it, or `tinylm push`"
            ));
        }
    }

    /// Draws a bar for a stage; one that it had goes.
    fn begin(&self, stage: &str) {
        let bar = self.bars.add(ProgressBar::no_length());
        bar.set_style(self.style("{spinner:.dim} {prefix} {wide_msg:.dim} {elapsed}"));
        bar.set_prefix(format!("{:width$}", clean(stage), width = self.name_width));
        // A thread of its own, which a run without a terminal need not find.
        if !self.bars.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        let running = Running {
            bar,
            started: Instant::now(),
            told: Instant::now(),
            loss: None,
        };
        if let Some(before) = self.running().insert(stage.to_owned(), running) {
            before.bar.finish_and_clear();
            self.bars.remove(&before.bar);
        }
    }

    fn style(&self, template: &str) -> ProgressStyle {
        let plain;
        let template = match self.color {
            true => template,
            false => {
                plain = template.replace(":.dim", "").replace(".cyan", "");
                &plain
            }
        };
        // The templates are constants of this file, tried by its test.
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸ ")
    }

    fn progress(&self, stage: &str, done: u64, total: Option<u64>, unit: &str, note: Option<&str>) {
        let mut running = self.running();
        let Some(running) = running.get_mut(stage) else {
            return;
        };
        let loss = running
            .loss
            .map_or(String::new(), |loss| format!("loss {loss:.3}"));
        let words: Vec<&str> = [note.unwrap_or(""), &loss]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        let note = words.join("  ");
        if running.bar.length() != total {
            let style = match total {
                Some(total) => {
                    running.bar.set_length(total);
                    self.style(BAR)
                }
                None => self.style("{spinner:.dim} {prefix} {wide_msg} {elapsed}"),
            };
            running.bar.set_style(style);
        }
        running.bar.set_position(done);
        let amount = amount(done, total, unit);
        let message = format!("{amount}  {note}");
        running.bar.set_message(clean(&message).into_owned());
        if !self.is_terminal && running.told.elapsed() >= PLAIN_EVERY {
            running.told = Instant::now();
            let seconds = duration(running.started.elapsed().as_secs_f64());
            self.say(&format!("  {stage}: {amount}  {note} after {seconds}"));
        }
    }

    /// Where the stage's job is: in the bar until there is more to say, and as a line where there
    /// are no bars.
    fn placed(&self, stage: &str, place: &str) {
        if !self.is_terminal {
            self.say(&format!("  {stage}: {place}"));
        } else if let Some(running) = self.running().get(stage) {
            running.bar.set_message(clean(place).into_owned());
        }
    }

    fn said(&self, stage: &str, event: &Event) {
        match event {
            Event::Placed { place } => self.placed(stage, place),
            Event::Progress {
                done,
                total,
                unit,
                note,
            } => {
                self.progress(stage, *done, *total, unit, note.as_deref());
            }
            Event::Metric { name, value, .. } if name == "loss" => {
                if let Some(running) = self.running().get_mut(stage) {
                    running.loss = Some(*value);
                }
            }
            Event::Warning { message } => self.say(&format!("warning: {stage}: {message}")),
            Event::Info { message } if !self.global.verbose => {}
            Event::Info { message } | Event::Note { message } => {
                self.say(&format!("  {stage}: {message}"));
            }
            _ => {}
        }
    }

    /// Tells of the stages that this run does without.
    pub(crate) fn left_out(&self, experiment: &Experiment) {
        if !self.global.quiet {
            for line in left_out(experiment, self.name_width) {
                let label = Shown::from(self.label.as_str());
                self.result(label.then(line.as_str()));
            }
        }
    }

    fn settled(&self, settled: &Settled) {
        self.forget(&settled.stage);
        if !self.global.quiet {
            let label = Shown::from(self.label.as_str());
            self.result(label.then(self.summary_line(settled)));
        }
    }

    fn summary_line(&self, settled: &Settled) -> Shown {
        let word = settled.outcome.word();
        let tone = match &settled.outcome {
            Outcome::Made => Tone::Good,
            Outcome::Failed(_) => Tone::Bad,
            _ => Tone::Quiet,
        };
        let made = settled.outcome == Outcome::Made;
        let time = if made {
            duration(settled.seconds)
        } else {
            String::new()
        };
        let size = if made {
            bytes(settled.artifact_bytes)
        } else {
            String::new()
        };
        let name = &settled.stage;
        let width = self.name_width;
        let why = self.why(settled);
        let word = Shown::painted(&format!("{word:<8}"), tone, self.color);
        word.then(format!(" {name:width$}  {time:>8}  {size:>8}  {why}"))
            .trimmed()
    }

    fn why(&self, settled: &Settled) -> String {
        match &settled.outcome {
            Outcome::Hit => {
                let run = match &settled.made_by {
                    Some(run) => format!("from {run}"),
                    None => "from this run".to_owned(),
                };
                match &settled.arrived {
                    Some(arrived) => {
                        format!(
                            "{run}, {} fetched from {}",
                            bytes(arrived.bytes),
                            arrived.from
                        )
                    }
                    None => run,
                }
            }
            Outcome::Made if self.global.verbose => settled.why.join("; "),
            Outcome::Made => match &settled.why[..] {
                [] => String::new(),
                [one] => one.clone(),
                [first, rest @ ..] => format!("{first}; {} more", rest.len()),
            },
            Outcome::Failed(error) => error.message.clone(),
            Outcome::Skipped(because) => because.clone(),
            Outcome::Cancelled => String::new(),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted(n: usize) -> String {
    match n {
        1 => "1 artifact".to_owned(),
        n => format!("{n} artifacts"),
    }
}

const BAR: &str = "{spinner:.dim} {prefix} {bar:16.cyan} {percent:>3}% {wide_msg} {eta} left";

impl Observer for Console {
    fn see(&self, happened: &Happened) {
        match happened {
            Happened::Waiting { stage, holder } => self.waiting(stage, holder),
            Happened::Asking { stage, source } => {
                self.say(&format!("{stage}: asking what `{source}` is now"));
            }
            Happened::Fetching {
                stage,
                from,
                done,
                total,
            } => self.fetching(stage, from, *done, *total),
            Happened::Warned { message, .. } => self.say(&format!("warning: {message}")),
            // Of a part of a stage, the stage's line tells.
            Happened::Started(execution) if execution.is_part() => {}
            Happened::Started(execution) => self.started(execution),
            Happened::Said { stage, .. } if stage.contains('/') => {}
            Happened::Said { stage, event, .. } => self.said(stage, event),
            Happened::Ended {
                execution,
                result: Err(error),
                retry_in_seconds: Some(pause),
                ..
            } => self.say(&format!(
                "{}: {error}; trying again in {pause} s",
                execution.stage
            )),
            Happened::Ended { .. } | Happened::Kept(_) => {}
            Happened::Settled(settled) => self.settled(settled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
