//! From the registry to reports.
//!
//! The only module that asks the registry anything. Curves are the bulk of it, so those of all the
//! runs are asked for at once and come thinned, read on all cores; everything else is a handful of
//! short lists for each run. A stage that hit has its numbers from the execution that made it,
//! whichever run that was, so a run in which nothing ran still shows its curves.

mod curves;

use std::collections::HashMap;

use tinylm_registry::{
    self as registry, Execution, Metric, Param, Registry, Run, Status, Thinning,
};

pub use curves::{Tail, window};

use crate::{
    Error,
    curve::{Curve, is_loss},
    metric::{place, selects},
    report::{Final, Going, Report, Sample, Stage},
};

/// How much of each run is read.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// The present, in milliseconds since 1970: what still goes on has lasted until now.
    pub now_ms: i64,
    pub points: Fineness,
    /// Metrics whose curves are read, as `loss` or `base.loss`; all when empty.
    pub curves: Vec<String>,
}

/// The points that curves are thinned to, their peaks kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fineness {
    /// Of a loss, which is drawn large, and of all else.
    pub large: usize,
    pub small: usize,
    /// Whether they are for an axis that shows decades.
    pub is_log: bool,
}

impl Fineness {
    /// No curve is read; where each ends is known all the same.
    pub const ENDS: Fineness = Fineness::even(0);

    pub const fn even(points_max: usize) -> Fineness {
        Fineness {
            large: points_max,
            small: points_max,
            is_log: false,
        }
    }

    fn of(self, metric: &str) -> Thinning {
        Thinning {
            points_max: if is_loss(metric) {
                self.large
            } else {
                self.small
            },
            is_log: self.is_log,
        }
    }
}

/// Runs beyond this number are read for an overview: losses only, and fewer points of them.
const MANY_RUNS: usize = 40;

impl ReportOptions {
    /// Everything that a report of `n_runs` runs can show; `metrics` are those asked for by name.
    pub fn for_runs(n_runs: usize, now_ms: i64, metrics: &[String]) -> ReportOptions {
        if n_runs <= MANY_RUNS {
            return ReportOptions {
                now_ms,
                points: Fineness::even(1_000),
                curves: Vec::new(),
            };
        }
        let curves = if metrics.is_empty() {
            ["loss", "validation_loss"].map(str::to_owned).to_vec()
        } else {
            metrics.to_vec()
        };
        ReportOptions {
            now_ms,
            points: Fineness::even(160),
            curves,
        }
    }
}

/// Reads one run.
pub fn read(registry: &Registry, run: &Run, options: &ReportOptions) -> Result<Report, Error> {
    let mut reports = read_all(registry, std::slice::from_ref(run), options)?;
    // One run in, one report out.
    reports.pop().ok_or(Error::NoRuns)
}

/// Reads several runs.
pub fn read_all(
    registry: &Registry,
    runs: &[Run],
    options: &ReportOptions,
) -> Result<Vec<Report>, Error> {
    let mut reader = Reader {
        registry,
        options,
        executions: HashMap::new(),
        run_names: HashMap::new(),
        tokens: HashMap::new(),
        ends: HashMap::new(),
    };
    for run in runs {
        reader.run_names.insert(run.id.clone(), run.name.clone());
    }
    let mut reports = runs
        .iter()
        .map(|run| reader.report(run))
        .collect::<Result<Vec<_>, Error>>()?;
    reader.read_curves(&mut reports)?;
    Ok(reports)
}

struct Reader<'a> {
    registry: &'a Registry,
    options: &'a ReportOptions,
    executions: HashMap<String, Option<Execution>>,
    run_names: HashMap<String, String>,
    /// By execution, its last step and the tokens seen by then.
    tokens: HashMap<String, (u64, f64)>,
    /// The last word of every metric by its execution.
    ends: HashMap<(String, String), f64>,
}

impl Reader<'_> {
    fn report(&mut self, run: &Run) -> Result<Report, Error> {
        let mut stages = self.stages(run)?;
        let finals = self.registry.final_metrics(&run.id)?;
        for stage in &mut stages {
            stage.going = self.going(stage, &finals)?;
        }
        for metric in &finals {
            let of = (metric.execution_id.clone(), metric.name.clone());
            self.ends.insert(of, metric.value);
            if let Some(step) = metric.step.filter(|_| metric.name == curves::TOKENS) {
                let last = (step, metric.value);
                self.tokens.insert(metric.execution_id.clone(), last);
            }
        }
        let finals = finals.into_iter().filter(|metric| metric.step.is_none());
        let mut finals: Vec<Final> = finals
            .map(|metric| Final {
                stage: metric.stage,
                metric: metric.name,
                value: metric.value,
            })
            .collect();
        // Stages keep their order.
        for of_stage in finals.chunk_by_mut(|a, b| a.stage == b.stage) {
            of_stage.sort_by_key(|last| place(&last.metric));
        }
        Ok(Report {
            elapsed_seconds: self.elapsed_seconds(run, &stages)?,
            question: question(&self.registry.source(&run.id)?.text),
            headline: self.registry.headline(&run.id)?,
            settings: self.settings(run, &stages)?,
            finals,
            curves: Vec::new(),
            samples: self.samples(&stages)?,
            events: self.registry.events(&run.id)?,
            notes: self.registry.notes(&run.id)?,
            run: run.clone(),
            stages,
        })
    }

    /// Returns the last moment something is known of a run that nobody ended.
    fn last_sign(&self, run: &Run, stages: &[Stage]) -> Result<i64, Error> {
        let own = stages
            .iter()
            .filter_map(|stage| stage.execution.as_ref())
            .filter(|execution| execution.run_id == run.id);
        let ends = own
            .map(|execution| execution.ended_at.unwrap_or(execution.started_at))
            .max();
        let events = self
            .registry
            .events(&run.id)?
            .iter()
            .map(|event| event.at)
            .max();
        let metrics = self.registry.final_metrics(&run.id)?;
        let metrics = metrics
            .iter()
            .filter(|metric| metric.at >= run.started_at)
            .map(|metric| metric.at)
            .max();
        Ok(ends.max(events).max(metrics).unwrap_or(run.started_at))
    }

    /// Returns how long a run lasted, or has lasted by now.
    fn elapsed_seconds(&self, run: &Run, stages: &[Stage]) -> Result<f64, Error> {
        let end = match run.ended_at {
            Some(end) => end,
            None if run.status == Status::Running => self.options.now_ms,
            None => self.last_sign(run, stages)?,
        };
        Ok(seconds_between(run.started_at, end))
    }

    /// Returns the settings in the order of the stages they belong to.
    fn settings(&self, run: &Run, stages: &[Stage]) -> Result<Vec<Param>, Error> {
        let position = |name: &str| {
            let stage = name.split('.').next().unwrap_or(name);
            stages
                .iter()
                .position(|other| other.row.name == stage)
                .map_or(0, |idx| idx + 1)
        };
        let mut settings = self.registry.params(&run.id)?;
        settings.sort_by_cached_key(|setting| position(&setting.name));
        Ok(settings)
    }

    fn stages(&mut self, run: &Run) -> Result<Vec<Stage>, Error> {
        let mut stages = Vec::new();
        for row in self.registry.stages(&run.id)? {
            let execution = match &row.execution_id {
                Some(id) => self.execution(id)?,
                None => None,
            };
            let made_by = match &execution {
                Some(execution) => self.run_name(&execution.run_id),
                None => String::new(),
            };
            stages.push(Stage {
                elapsed_seconds: self.stage_seconds(execution.as_ref()),
                going: None,
                row,
                execution,
                made_by,
            });
        }
        Ok(stages)
    }

    fn going(&self, stage: &Stage, metrics: &[Metric]) -> Result<Option<Going>, Error> {
        let running = stage.execution.as_ref();
        let Some(running) = running.filter(|execution| execution.status == Status::Running) else {
            return Ok(None);
        };
        let last = |name: &str| {
            let is_it = |metric: &&Metric| {
                metric.execution_id == running.id && metric.name == name && metric.step.is_some()
            };
            metrics.iter().find(is_it).map(|metric| metric.value)
        };
        let progress = self.registry.progress(&running.id)?;
        // A job of a cluster is somewhere before it says how far it is.
        let silent = || {
            running
                .place
                .is_some()
                .then(tinylm_registry::Progress::default)
        };
        Ok(progress.or_else(silent).map(|progress| Going {
            progress,
            loss: last("loss"),
            tokens_per_second: last("tokens_per_second"),
        }))
    }

    fn execution(&mut self, id: &str) -> Result<Option<Execution>, Error> {
        if let Some(known) = self.executions.get(id) {
            return Ok(known.clone());
        }
        let mut found = self.registry.execution(id)?;
        if let Some(execution) = &mut found {
            execution.origin.take_if(|origin| origin.is_null());
        }
        self.executions.insert(id.to_owned(), found.clone());
        Ok(found)
    }

    fn stage_seconds(&self, execution: Option<&Execution>) -> f64 {
        let Some(execution) = execution else {
            return 0.0;
        };
        let end = match execution.status {
            Status::Running => execution.ended_at.unwrap_or(self.options.now_ms),
            _ => execution.ended_at.unwrap_or(0),
        };
        seconds_between(execution.started_at, end)
    }

    /// Returns the name of the run that made something; empty when that run has been removed.
    fn run_name(&mut self, run_id: &str) -> String {
        if let Some(name) = self.run_names.get(run_id) {
            return name.clone();
        }
        let name = self
            .registry
            .run(run_id)
            .map(|run| run.name)
            .unwrap_or_default();
        self.run_names.insert(run_id.to_owned(), name.clone());
        name
    }

    fn samples(&self, stages: &[Stage]) -> Result<Vec<Sample>, Error> {
        let mut samples = Vec::new();
        for stage in stages {
            let Some(execution) = &stage.execution else {
                continue;
            };
            let of_stage = self.registry.samples(&execution.id)?.into_iter();
            samples.extend(of_stage.map(|row| Sample {
                stage: stage.row.name.clone(),
                step: row.step,
                prompt: row.prompt,
                text: row.text,
            }));
        }
        Ok(samples)
    }

    /// Reads the curves of all reports at once.
    fn read_curves(&self, reports: &mut [Report]) -> Result<(), Error> {
        let wanted = self.wanted_curves(reports)?;
        if self.options.points == Fineness::ENDS {
            self.add_ends(reports, &wanted);
            return Ok(());
        }
        let series = self.series(wanted)?;
        let mut by_execution: HashMap<&str, Vec<&registry::Series>> = HashMap::new();
        for one in series.iter().filter(|one| !one.points.is_empty()) {
            by_execution.entry(&one.execution_id).or_default().push(one);
        }
        for report in reports {
            for stage in &report.stages {
                let Some(execution) = &stage.execution else {
                    continue;
                };
                let Some(series) = by_execution.get(execution.id.as_str()) else {
                    continue;
                };
                let tokens = self.tokens.get(&execution.id).copied();
                report
                    .curves
                    .extend(curves::of(&stage.row.name, execution, series, tokens));
            }
        }
        Ok(())
    }

    fn series(&self, wanted: Vec<(String, String)>) -> Result<Vec<registry::Series>, Error> {
        let fineness = self.options.points;
        let (losses, others): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|(_, metric)| is_loss(metric));
        let mut series = Vec::new();
        for (curves, thinning) in [(losses, fineness.of("loss")), (others, fineness.of(""))] {
            let read = self
                .registry
                .metric_series_of(&curves, &registry::ALL_STEPS, thinning)?;
            series.extend(read);
        }
        Ok(series)
    }

    /// Adds the curves that there are, each by its end alone.
    fn add_ends(&self, reports: &mut [Report], wanted: &[(String, String)]) {
        for report in reports {
            for stage in &report.stages {
                let of_stage = wanted.iter().filter(|(execution_id, _)| {
                    let execution = stage.execution.as_ref();
                    execution.is_some_and(|execution| execution.id == *execution_id)
                });
                let end = |of: &(String, String)| {
                    let value = self.ends.get(of).copied().unwrap_or(f64::NAN);
                    Curve::end(&of.0, &stage.row.name, &of.1, value)
                };
                report.curves.extend(of_stage.map(end));
            }
        }
    }

    /// Returns each curve once, however many runs share it, as `(execution, metric)`.
    fn wanted_curves(&self, reports: &[Report]) -> Result<Vec<(String, String)>, Error> {
        let mut wanted = Vec::new();
        let mut seen = HashMap::new();
        for stage in reports.iter().flat_map(|report| &report.stages) {
            let Some(execution) = &stage.execution else {
                continue;
            };
            if seen.insert(execution.id.as_str(), ()).is_some() {
                continue;
            }
            let ends = self.registry.curve_ends(&execution.id, None)?.into_iter();
            let names = ends.map(|(name, _)| name);
            let is_wanted = |name: &String| selects(&self.options.curves, &stage.row.name, name);
            let of = |name| (execution.id.clone(), name);
            wanted.extend(names.filter(is_wanted).map(of));
        }
        Ok(wanted)
    }
}

fn seconds_between(start_ms: i64, end_ms: i64) -> f64 {
    end_ms.saturating_sub(start_ms).max(0) as f64 / 1e3
}

/// Returns the first paragraph of the comment that opens an experiment's file.
fn question(text: &str) -> String {
    let lines = text
        .lines()
        .map_while(|line| line.trim_start().strip_prefix('#'));
    let lines: Vec<&str> = lines
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_comment_is_the_question() {
        assert_eq!(
            question("# Does it\n# talk?\n#\n# More.\nname: x\n"),
            "Does it talk?"
        );
        assert_eq!(question("name: x\n# no\n"), "");
    }
}
