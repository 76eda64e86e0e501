//! `tinylm report`: one run, or several side by side.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};
use tinylm_pipeline::spec::nearest;
use tinylm_registry::{Filter, Registry, Run, RunQuery};
use tinylm_reports::{
    Axis, Error, Fineness, ReportOptions, Selection, Sort,
    block::Document,
    data,
    fit::{Fit, Wanted},
    html, sections,
    terminal::TerminalOptions,
};

use crate::{
    completions,
    failure::Failure,
    law,
    lookup::{find_runs, runs_of_its_sweep, with_their_seeds},
    output::{Shown, print_line},
    pager,
    project::{self, Project, quoted},
    watch,
};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The run; the last one when nothing is named
    #[arg(add = completions::runs())]
    pub(crate) run: Option<String>,
    /// Put these runs side by side; the first is what the others are measured against
    #[arg(long, value_name = "RUN", num_args = 1.., add = completions::runs())]
    pub(crate) compare: Vec<String>,
    /// Put all runs of this run's sweep side by side
    #[arg(long, value_name = "RUN", add = completions::runs())]
    pub(crate) sweep: Option<String>,
    /// With each run, all that differ from it only in their seed
    #[arg(long)]
    pub(crate) seeds: bool,
    /// Put all runs for which this holds side by side: 'experiment = "mini" and loss < 3'
    #[arg(long = "where", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Only these metrics: `loss`, or `STAGE.loss`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) metric: Vec<String>,
    /// Order the runs by a metric, a setting, or name, started, time, cpu, memory; `-NAME` for the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// The horizontal axis of curves
    #[arg(long, value_enum, default_value = "step")]
    pub(crate) x: XAxis,
    /// Draw curves on a logarithmic scale
    #[arg(long)]
    pub(crate) log: bool,
    /// Fit L = E + A/N^a + B/D^b to the runs: loss by weights and tokens
    #[arg(long, conflicts_with_all = ["sort", "x", "log", "follow"])]
    fit: bool,
    /// With `--fit`: the best size for so many operations, 6 for a weight and a token
    #[arg(long, value_name = "OPERATIONS", value_delimiter = ',', requires = "fit", value_parser = law::amount)]
    budget: Vec<f64>,
    /// With `--fit`: the loss of a run before it is made, `weights=7e6,tokens=2e7`; or of a RUN, which is left out of the fit and held against it
    #[arg(long, value_name = "WHAT", requires = "fit", add = completions::runs())]
    predict: Vec<String>,
    /// Follow a run that goes on until it ends; the same as `watch`
    #[arg(long, conflicts_with_all = ["compare", "sweep", "seeds", "filter", "html", "json", "csv", "markdown"])]
    follow: bool,
    /// Write a page for a browser
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print JSON
    #[arg(long, group = "format")]
    pub(crate) json: bool,
    /// Print CSV
    #[arg(long, group = "format")]
    pub(crate) csv: bool,
    /// Print Markdown
    #[arg(long, group = "format")]
    pub(crate) markdown: bool,
}

impl ReportArgs {
    fn is_of_one(&self) -> bool {
        self.compare.is_empty() && self.sweep.is_none() && self.filter.is_none() && !self.seeds
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum XAxis {
    Step,
    Tokens,
    Time,
}

pub(crate) fn run(project: &Project, args: &ReportArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let runs = chosen(&registry, args)?;
    if let (true, [run]) = (args.follow, &runs[..]) {
        return watch::follow(project, &registry, run);
    }
    let read = ReportOptions::for_runs(runs.len(), project::now_ms(), &args.metric);
    if args.fit {
        return fitted(project, args, &registry, runs);
    }
    let mut reports = tinylm_reports::read_all(&registry, &runs, &read)?;
    if args.is_of_one()
        && let Some(report) = reports.pop()
    {
        tinylm_reports::check_metrics(&report, &args.metric)?;
        let document = sections::of_report(&report, &args.metric);
        let printed = match (args.json, args.csv) {
            (true, _) => Shown::json(&data::json(&report)),
            (_, true) => data::report_csv(&report).into(),
            _ => printed(project, args, &document),
        };
        return put(project, args, printed, &document);
    }
    let selection = Selection {
        metrics: args.metric.clone(),
        sort: args.sort.as_deref().map(Sort::parse),
    };
    let mut comparison = tinylm_reports::compare(reports, &selection)?;
    let home = project.home();
    comparison.pair_documents(&|artifact| tinylm_reports::losses(&home, artifact));
    let document = sections::of_comparison(&comparison);
    let printed = match (args.json, args.csv) {
        (true, _) => Shown::json(&data::json(&comparison)),
        (_, true) => data::comparison_csv(&comparison).into(),
        _ => printed(project, args, &document),
    };
    put(project, args, printed, &document)
}

/// Reports the law that the chosen runs follow, and what was asked of it.
fn fitted(
    project: &Project,
    args: &ReportArgs,
    registry: &Registry,
    runs: Vec<Run>,
) -> Result<(), Failure> {
    let (runs, predictions) = law::asked(registry, runs, &args.predict)?;
    let read = ReportOptions {
        points: Fineness::ENDS,
        ..ReportOptions::for_runs(runs.len(), project::now_ms(), &[])
    };
    let reports = tinylm_reports::read_all(registry, &runs, &read)?;
    let selection = Selection {
        metrics: args.metric.clone(),
        sort: None,
    };
    let comparison = tinylm_reports::compare(reports, &selection)?;
    let wanted = Wanted {
        budgets: args.budget.clone(),
        predictions,
    };
    let fit = Fit::of(&comparison, &wanted)?;
    let document = sections::of_fit(&fit);
    let printed = match (args.json, args.csv) {
        (true, _) => Shown::json(&data::json(&fit)),
        (_, true) => data::fit_csv(&fit).into(),
        _ => printed(project, args, &document),
    };
    put(project, args, printed, &document)
}

fn printed(project: &Project, args: &ReportArgs, document: &Document<'_>) -> Shown {
    match args.markdown {
        true => Shown::markdown(document),
        false => Shown::report(document, &terminal_options(project, args)),
    }
}

/// Returns the runs that were named, each once, in the order of their names.
fn chosen(registry: &Registry, args: &ReportArgs) -> Result<Vec<Run>, Failure> {
    let mut runs = find_runs(registry, args.run.iter().chain(&args.compare))?;
    if let Some(name) = &args.sweep {
        let run = registry.find_run(name)?;
        runs.extend(runs_of_its_sweep(registry, &run)?);
    }
    if let Some(filter) = &args.filter {
        let filter = Some(Filter::parse(filter)?);
        runs.extend(
            registry
                .runs(&RunQuery {
                    filter,
                    ..RunQuery::default()
                })?
                .into_iter()
                .rev(),
        );
    }
    let is_comparison = !args.is_of_one();
    if runs.is_empty() && !is_comparison {
        runs.push(registry.find_run("@last")?);
    }
    if args.seeds {
        if runs.is_empty() {
            runs.push(registry.find_run("@last")?);
        }
        runs = with_their_seeds(registry, runs)?;
        if let [alone] = &runs[..] {
            let message = format!(
                "no other finished run differs from `{}` only in its seed",
                alone.name
            );
            return Err(
                Failure::wrong(message).help("`tinylm run FILE --sweep seed=1,2,3` makes three")
            );
        }
    }
    let mut seen = std::collections::HashSet::new();
    runs.retain(|run| seen.insert(run.id.clone()));
    if is_comparison && runs.len() < 2 && !args.fit {
        return Err(
            Failure::wrong("comparing takes two runs or more").help("`tinylm runs` lists them")
        );
    }
    Ok(runs)
}

fn terminal_options(project: &Project, args: &ReportArgs) -> TerminalOptions {
    TerminalOptions {
        axis: match args.x {
            XAxis::Step => Axis::Step,
            XAxis::Tokens => Axis::Tokens,
            XAxis::Time => Axis::Time,
        },
        log: args.log,
        is_brief: args.is_of_one() && args.metric.is_empty() && !project.global.verbose,
        ..project.terminal_options()
    }
}

/// Writes the page if one was asked for, and prints otherwise or when another format was asked for too.
fn put(
    project: &Project,
    args: &ReportArgs,
    printed: Shown,
    document: &Document<'_>,
) -> Result<(), Failure> {
    let Some(file) = &args.html else {
        pager::print(project, printed);
        return Ok(());
    };
    fs::write(file, html::print(document)).map_err(|error| {
        Failure::wrong(format!("cannot write `{}`", file.display()))
            .note("cause", error.to_string())
            .help("name a file in a folder that exists and can be written to")
    })?;
    if args.json || args.csv || args.markdown {
        print_line(printed.trimmed());
    } else if !project.global.quiet {
        print_line(format!("wrote {}", project.shown(file)));
    }
    Ok(())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let help = match &error {
            Error::UnknownMetric { name, known } | Error::UnknownSort { name, known } => {
                meant(name, known)
            }
            Error::TooFewRuns { .. } => Some(
                "run a sweep of five sizes by four trainings, such as `experiments/scaling.yaml`, \
                 and name one of its runs: `tinylm report --sweep RUN --fit`"
                    .to_owned(),
            ),
            _ => None,
        };
        let failure = match error {
            Error::Registry(error) => Failure::from(error),
            Error::TooFewRuns { ref left_out, .. } if !left_out.is_empty() => {
                Failure::wrong(error.to_string()).note("left out", law::shortly(left_out))
            }
            error => Failure::wrong(error.to_string()),
        };
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

/// Names that an unknown one may have meant, rather than all of a hundred.
const NAMES_SHOWN: usize = 8;

fn meant(name: &str, known: &[String]) -> Option<String> {
    if let Some(near) = nearest(name, known) {
        return Some(format!("did you mean `{near}`?"));
    }
    let shown = quoted(known.iter().take(NAMES_SHOWN).map(String::as_str));
    match known.len() {
        0 => None,
        n if n > NAMES_SHOWN => Some(format!("there are {shown} and {} more", n - NAMES_SHOWN)),
        _ => Some(format!("there are {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_names_the_nearest_is_told_or_a_few() {
        let known: Vec<String> = (0..100).map(|n| format!("a.metric_{n}")).collect();
        let near = meant("a.metrc_7", &known).unwrap();
        assert_eq!(near, "did you mean `a.metric_7`?");
        let few = meant("nosuch", &known).unwrap();
        assert!(few.ends_with("`a.metric_7` and 92 more"), "{few}");
    }
}
