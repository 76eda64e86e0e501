//! The things that can be looked at, each with an address of its own.
//!
//! A view is read anew whenever somebody asks: from the registry to the list of sections that a
//! report prints, and from there to pieces of HTML. What it does not know is who looks at it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use serde_json::{Value, json};
use tinylm_registry::{Filter, Home, Registry, Run, RunQuery};
use tinylm_reports::{
    Fineness, Report, ReportOptions, Selection,
    block::{Block, Document, Section},
    compare,
    html::{self, Piece},
    listing, losses, read, read_all, sections,
};

use crate::{page::Address, wrong::Wrong};

/// Runs in a list before it is made longer.
const RUNS_AT_ONCE: usize = 50;
/// Runs that are drawn side by side.
const COMPARED_MAX: usize = 200;
/// Of more runs nobody is told how far the choice of documents explains their differences: it takes some
/// hundredths of a second a run, each time that the page is read.
const DOCUMENTS_OF_MAX: usize = 32;
/// Bytes of a log's end.
const LOG_MAX: u64 = 16 << 10;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View {
    Runs(Asked),
    Run(String),
    Stage(String, String),
    Compare(Vec<String>),
    /// All runs of the sweep that this run is of.
    Sweep(String),
}

/// Which runs are listed, and which are opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub(crate) search: String,
    pub(crate) filter: String,
    pub(crate) sort: String,
    pub(crate) limit: usize,
    pub(crate) pinned: Vec<String>,
}

/// How much of a view is read.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// All but the points of curves, which come by themselves.
    Words,
    /// The curves, in as many points as a screen shows.
    Curves(Fineness),
}

/// A view as it is now.
pub(crate) struct Seen {
    pub(crate) title: String,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) charts: Value,
    /// The runs whose curves are shown.
    pub(crate) reports: Vec<Report>,
}

impl View {
    pub(crate) fn of(address: &Address) -> Option<View> {
        let path: Vec<&str> = address
            .path
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        match path[..] {
            [] => Some(View::Runs(Asked {
                search: address.one("q"),
                filter: address.one("where"),
                sort: address.one("sort"),
                limit: address.one("limit").parse().unwrap_or(RUNS_AT_ONCE),
                pinned: address.all("pin"),
            })),
            ["run", run] => Some(View::Run(run.to_owned())),
            ["run", run, stage] => Some(View::Stage(run.to_owned(), stage.to_owned())),
            ["compare"] => Some(View::Compare(address.all("run"))),
            ["sweep", run] => Some(View::Sweep(run.to_owned())),
            _ => None,
        }
    }

    /// The run that it is of, where it is of one.
    pub(crate) fn run(&self) -> Option<&str> {
        match self {
            View::Run(run) | View::Stage(run, _) => Some(run),
            _ => None,
        }
    }

    /// Reads it; `now_ms` is the present.
    pub(crate) fn see(
        &self,
        registry: &Registry,
        home: &Home,
        part: Part,
        now_ms: i64,
    ) -> Result<Seen, Wrong> {
        match self {
            View::Runs(asked) => asked.see(registry, part, now_ms),
            View::Run(name) => {
                let report = read(
                    registry,
                    &registry.find_run(name)?,
                    &options(1, part, now_ms),
                )?;
                Ok(seen(&sections::of_report(&report, &[])).with(report))
            }
            View::Stage(run, stage) => {
                let mut report = read(
                    registry,
                    &registry.find_run(run)?,
                    &options(1, part, now_ms),
                )?;
                report.keep_only(stage);
                see_stage(report, stage, home)
            }
            View::Compare(names) => {
                let runs: Result<Vec<Run>, _> =
                    names.iter().map(|name| registry.find_run(name)).collect();
                see_many(registry, home, runs?, part, now_ms)
            }
            View::Sweep(name) => {
                let run = registry.find_run(name)?;
                let mut runs = registry.runs(&RunQuery::default())?;
                runs.retain(|other| {
                    other.id == run.id || other.sweep.is_some() && other.sweep == run.sweep
                });
                runs.reverse();
                see_many(registry, home, runs, part, now_ms)
            }
        }
    }
}

fn options(n_runs: usize, part: Part, now_ms: i64) -> ReportOptions {
    let options = ReportOptions::for_runs(n_runs, now_ms, &[]);
    let points = match part {
        Part::Words => Fineness::ENDS,
        Part::Curves(fineness) if options.curves.is_empty() => fineness,
        // Of an overview of many runs nobody sees the pixels.
        Part::Curves(Fineness { is_log, .. }) => Fineness {
            is_log,
            ..options.points
        },
    };
    ReportOptions { points, ..options }
}

fn seen(document: &Document<'_>) -> Seen {
    Seen {
        title: document.head.title.clone(),
        pieces: html::pieces(document),
        charts: html::charts(document),
        reports: Vec::new(),
    }
}

impl Seen {
    /// A page that says why there is nothing else on it.
    pub(crate) fn of_wrong(wrong: &Wrong) -> Seen {
        let message = html::text(&wrong.message);
        Seen {
            title: "tinylm".to_owned(),
            pieces: vec![Piece {
                id: "wrong".to_owned(),
                html: format!("<p class=\"question\">{message}</p>"),
            }],
            charts: json!({ "charts": [] }),
            reports: Vec::new(),
        }
    }

    fn with(mut self, report: Report) -> Seen {
        self.reports.push(report);
        self
    }
}

fn see_stage(report: Report, name: &str, home: &Home) -> Result<Seen, Wrong> {
    let stage = report
        .stage(name)
        .ok_or_else(|| Wrong::absent(format!("{} has no stage `{name}`", report.run.name)))?;
    let log = stage
        .row
        .execution_id
        .as_deref()
        .map(|id| log_end(home, id));
    let seen = seen(&sections::of_stage(
        &report,
        stage,
        &log.unwrap_or_default(),
    ));
    Ok(seen.with(report))
}

/// Returns the end of what an execution wrote to its log; nothing if it wrote nothing.
fn log_end(home: &Home, execution_id: &str) -> String {
    let read = || {
        let mut file = File::open(home.log_path(execution_id)).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX)))
            .ok()?;
        let mut end = Vec::new();
        file.take(LOG_MAX).read_to_end(&mut end).ok()?;
        let text = String::from_utf8_lossy(&end).into_owned();
        // The first line may have been cut.
        match length > LOG_MAX {
            true => text.split_once('\n').map(|(_, rest)| rest.to_owned()),
            false => Some(text),
        }
    };
    read().unwrap_or_default()
}

fn see_many(
    registry: &Registry,
    home: &Home,
    mut runs: Vec<Run>,
    part: Part,
    now_ms: i64,
) -> Result<Seen, Wrong> {
    let n_runs = runs.len();
    if n_runs < 2 {
        return Err(Wrong::asked("comparing takes two runs or more"));
    }
    runs.truncate(COMPARED_MAX);
    let reports = read_all(registry, &runs, &options(runs.len(), part, now_ms))?;
    let mut comparison = compare(reports, &Selection::default())?;
    if runs.len() <= DOCUMENTS_OF_MAX && part == Part::Words {
        comparison.pair_documents(&|artifact| losses(home, artifact));
    }
    let mut document = sections::of_comparison(&comparison);
    if n_runs > runs.len() {
        document.head.question = format!("the first {} of {n_runs} runs", runs.len());
    }
    let seen = seen(&document);
    Ok(Seen {
        reports: comparison.runs,
        ..seen
    })
}

impl Asked {
    fn query(&self) -> Result<RunQuery, Wrong> {
        let given = |text: &String| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        let filter = given(&self.filter)
            .map(|filter| Filter::parse(&filter))
            .transpose();
        Ok(RunQuery {
            search: given(&self.search),
            filter: filter.map_err(tinylm_registry::Error::from)?,
            sort: given(&self.sort),
            ..RunQuery::default()
        })
    }

    /// Returns the runs that fit, as many as are shown, and how many there are.
    fn runs(&self, registry: &Registry) -> Result<(Vec<Run>, usize), Wrong> {
        let query = self.query()?;
        let is_plain = query.search.is_none() && query.filter.is_none() && query.sort.is_none();
        if is_plain {
            let limit = Some(self.limit);
            let runs = registry.runs(&RunQuery { limit, ..query })?;
            return Ok((runs, registry.count_runs()?));
        }
        let mut runs = registry.runs(&query)?;
        let n_fitting = runs.len();
        runs.truncate(self.limit);
        Ok((runs, n_fitting))
    }

    fn see(&self, registry: &Registry, part: Part, now_ms: i64) -> Result<Seen, Wrong> {
        let (runs, n_fitting) = self.runs(registry)?;
        let mut open: Vec<Run> = Vec::new();
        let pinned = self
            .pinned
            .iter()
            .filter_map(|name| registry.find_run(name).ok());
        for run in pinned.chain(runs.first().cloned()) {
            if !open.iter().any(|other| other.id == run.id) {
                open.push(run);
            }
        }
        let options = ReportOptions {
            curves: ["loss", "validation_loss"].map(str::to_owned).to_vec(),
            ..options(open.len(), part, now_ms)
        };
        let reports = read_all(registry, &open, &options)?;
        let mut pieces: Vec<Piece> = reports.iter().map(opened).collect();
        let charts: Vec<Value> = reports.iter().flat_map(main_charts).collect();
        pieces.push(Piece {
            id: "Curves".to_owned(),
            html: match charts.is_empty() {
                true => String::new(),
                false => format!("<section>{}</section>", html::CHARTS),
            },
        });
        pieces.push(self.list(registry, &runs, n_fitting)?);
        Ok(Seen {
            title: "Runs".to_owned(),
            pieces,
            charts: json!({ "charts": charts }),
            reports,
        })
    }

    fn list(&self, registry: &Registry, runs: &[Run], n_fitting: usize) -> Result<Piece, Wrong> {
        let wanted: Vec<String> = [self.sort.trim().trim_start_matches('-')]
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let listing = listing(registry, runs, &wanted)?;
        let headline = listing.headline.map(|name| format!("headline: {name}"));
        let more = match n_fitting > runs.len() {
            true => format!(
                " <button type=\"button\" id=\"more\" data-limit=\"{}\">more</button>",
                self.limit.max(1) * 2
            ),
            false => String::new(),
        };
        let table = html::table(&listing.table);
        Ok(Piece {
            id: "Runs".to_owned(),
            html: format!(
                "<section class=\"list\"><h2>Runs <small>loaded {} of {n_fitting}{more}</small> \
                 <small>{}</small></h2>{table}</section>",
                runs.len(),
                html::text(&headline.unwrap_or_default()),
            ),
        })
    }
}

/// A run that is open in the list: its head, and what goes on.
fn opened(report: &Report) -> Piece {
    let mut document = sections::of_report(report, &[]);
    document.sections.retain(|section| section.title == "Now");
    let pieces = html::pieces(&document).into_iter().map(|piece| piece.html);
    let place = html::text(&format!("run/{}", report.run.name));
    Piece {
        id: format!("open {}", report.run.name),
        html: format!(
            "<div class=\"open\" data-at=\"{place}\">{}</div>",
            pieces.collect::<String>()
        ),
    }
}

/// The losses of a run, under its name.
fn main_charts(report: &Report) -> Vec<Value> {
    let mut document = sections::of_report(report, &[]);
    for section in &mut document.sections {
        name_charts(section, &report.run.name);
    }
    let charts = html::charts(&document);
    charts["charts"].as_array().cloned().unwrap_or_default()
}

fn name_charts(section: &mut Section<'_>, run: &str) {
    for block in &mut section.blocks {
        if let Block::Chart(chart) = block {
            chart.title = format!("{run} · {}", chart.title);
            chart.is_main = false;
        }
    }
}
