//! Reading history back.
//!
//! Lists are plain rows. Two questions are bigger: which runs fit a condition over fields, settings
//! and metrics, and what a thousand long curves look like. The first gathers the values of just
//! the names that are asked for; the second reads points in the order in which they lie, keeps the
//! lowest and highest of each of a few hundred buckets, and splits the curves among threads.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    num::NonZero,
    str::FromStr,
    thread,
};

use rusqlite::{OptionalExtension, Row, ToSql, params, types::ValueRef};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Digest, Error, Millis, Registry, home, locks,
    nearest::nearest,
    recorder::{Level, Outcome, Status},
    where_filter::{Fact, Filter},
};

/// A run, without its long texts (see [`Registry::source`]).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    pub id: String,
    pub name: String,
    pub experiment: String,
    pub file: String,
    pub seed: Option<u64>,
    pub status: Status,
    pub started_at: Millis,
    pub ended_at: Option<Millis>,
    pub host: Value,
    pub device: String,
    pub git_commit: Option<String>,
    pub git_dirty: Option<bool>,
    pub version: String,
    pub command: String,
    pub sweep: Option<String>,
    pub tags: Vec<String>,
}

/// What a run was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSource {
    /// The experiment file as written.
    pub text: String,
    /// The resolved experiment, as JSON.
    pub resolved: String,
}

/// Which runs, in which order.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    pub filter: Option<Filter>,
    /// Text to be found in a name, experiment, file, command, tag or note.
    pub search: Option<String>,
    /// A field, setting or metric; `-` before it for the largest first. The newest first without.
    pub sort: Option<String>,
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRow {
    pub run_id: String,
    pub name: String,
    pub position: u32,
    pub kind: String,
    pub outcome: Outcome,
    pub key: Option<String>,
    pub execution_id: Option<String>,
    pub artifact: Option<String>,
    pub reason: Option<String>,
    pub inputs: Value,
    pub settings: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Execution {
    pub id: String,
    pub run_id: String,
    pub stage: String,
    pub key: String,
    pub kind: String,
    pub attempt: u32,
    pub status: Status,
    pub started_at: Millis,
    pub ended_at: Option<Millis>,
    pub cpu_seconds: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub artifact: Option<String>,
    pub device: String,
    pub threads: Option<u32>,
    pub origin: Option<Value>,
    pub recipe: String,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Param {
    pub name: String,
    pub value: String,
    pub is_default: bool,
}

/// The last word of a metric of a run: its final number, else that of its last step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    pub stage: String,
    pub execution_id: String,
    pub name: String,
    pub step: Option<u64>,
    pub value: f64,
    pub at: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    pub step: u64,
    pub value: f64,
    pub at: Millis,
}

/// A curve, thinned out to what a plot can show.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    pub execution_id: String,
    pub name: String,
    /// How many there are in the registry.
    pub n_points: u64,
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleRow {
    pub step: Option<u64>,
    pub prompt: String,
    pub text: String,
    pub at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub stage: Option<String>,
    pub at: Millis,
    pub level: Level,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub at: Millis,
    pub text: String,
}

/// The last time that an experiment carried out or found a stage of some name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastStage {
    pub run_name: String,
    /// Read its key record for the recipe where the execution is not known.
    pub key: String,
    pub execution_id: Option<String>,
    /// One `path = value` a line.
    pub recipe: Option<String>,
}

const RUN: &str =
    "SELECT id, name, experiment, file, seed, status, started_at, ended_at, host, device,
    git_commit, git_dirty, version, command, sweep FROM runs WHERE removed_at IS NULL";

/// The fields of a run that can be compared and sorted by, beside settings and metrics.
const FIELDS: [&str; 16] = [
    "id",
    "name",
    "experiment",
    "file",
    "seed",
    "status",
    "started",
    "ended",
    "seconds",
    "device",
    "host",
    "commit",
    "dirty",
    "version",
    "command",
    "sweep",
];

impl Registry {
    /// Finds a run by name, uuid, a unique prefix of either, or `@last`.
    pub fn find_run(&self, text: &str) -> Result<Run, Error> {
        if text == "@last" {
            let last = self.run_where("ORDER BY started_at DESC, id DESC LIMIT 1", [])?;
            return last.ok_or_else(|| unknown_run(text, &[]));
        }
        if let Some(run) = self.run_where("AND (name = ?1 OR id = ?1)", [text])? {
            return Ok(run);
        }
        const FITS: &str =
            "AND (substr(name, 1, length(?1)) = ?1 OR substr(id, 1, length(?1)) = ?1)
            ORDER BY started_at DESC, id DESC";
        let mut fitting = self.runs_where(if text.is_empty() { "AND 0" } else { FITS }, text)?;
        match fitting.len() {
            0 => {
                let names = self.texts("SELECT name FROM runs WHERE removed_at IS NULL")?;
                let names = names.iter().map(String::as_str).chain(["@last"]);
                Err(unknown_run(text, &nearest(text, names)))
            }
            1 => Ok(fitting.remove(0)),
            _ => Err(Error::AmbiguousRun {
                text: text.to_owned(),
                matches: fitting.into_iter().map(|run| run.name).collect(),
            }),
        }
    }

    /// The run with this id.
    pub fn run(&self, run_id: &str) -> Result<Run, Error> {
        let run = self.run_where("AND id = ?1", [run_id])?;
        run.ok_or_else(|| unknown_run(run_id, &[]))
    }

    pub fn source(&self, run_id: &str) -> Result<RunSource, Error> {
        let select = "SELECT text, resolved FROM runs WHERE id = ?1";
        self.connection
            .query_row(select, [run_id], |row| {
                Ok(RunSource {
                    text: row.get(0)?,
                    resolved: row.get(1)?,
                })
            })
            .map_err(|error| self.error(error))
    }

    /// The runs that fit, in the order asked for.
    pub fn runs(&self, query: &RunQuery) -> Result<Vec<Run>, Error> {
        let mut runs = self.list(
            &format!("{RUN} ORDER BY started_at DESC, id DESC"),
            [],
            |row| run(self, row),
        )?;
        self.add_tags(&mut runs)?;
        if let Some(text) = &query.search {
            let fitting = self.search(&runs, text)?;
            runs.retain(|run| fitting.contains(&run.id));
        }
        if let Some(filter) = &query.filter {
            self.retain(&mut runs, filter)?;
        }
        if let Some(sort) = &query.sort {
            self.sort(&mut runs, sort)?;
        }
        runs.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(runs)
    }

    /// The stages of a run in the order of the plan.
    pub fn stages(&self, run_id: &str) -> Result<Vec<StageRow>, Error> {
        let select = "SELECT run_id, name, position, kind, outcome, key, execution_id, artifact,
            reason, inputs, settings FROM stages WHERE run_id = ?1 ORDER BY position, name";
        self.list(select, [run_id], stage_row)
    }

    /// The executions that a run carried out, in order of time.
    pub fn executions(&self, run_id: &str) -> Result<Vec<Execution>, Error> {
        let select = format!("{EXECUTION} WHERE run_id = ?1 ORDER BY started_at, id");
        self.list(&select, [run_id], |row| execution(self, row))
    }

    /// One execution, of whatever run.
    pub fn execution(&self, execution_id: &str) -> Result<Option<Execution>, Error> {
        let select = format!("{EXECUTION} WHERE id = ?1");
        let found = self.list(&select, [execution_id], |row| execution(self, row))?;
        Ok(found.into_iter().next())
    }

    /// The last execution of `key` that came to no good end, whose curve the next one goes on with.
    /// Whoever asks holds the key's lock, so it is not under way.
    pub fn unfinished_execution(&self, key: &Digest) -> Result<Option<String>, Error> {
        let select = "SELECT id FROM executions WHERE key = ?1 AND status <> 'done'
            ORDER BY started_at DESC, id DESC LIMIT 1";
        let found = self.list(select, [key.to_string()], |row| row.get(0))?;
        Ok(found.into_iter().next())
    }

    /// What `plan` compares a stage with: the last one of this name in this experiment, or, if the
    /// experiment has been renamed, in this file.
    pub fn last_stage(
        &self,
        experiment: &str,
        file: &str,
        stage: &str,
    ) -> Result<Option<LastStage>, Error> {
        for (column, value) in [("experiment", experiment), ("file", file)] {
            let select = format!(
                "SELECT runs.name, stages.key, stages.execution_id, executions.recipe
                 FROM runs JOIN stages ON stages.run_id = runs.id AND stages.name = ?2
                 LEFT JOIN executions ON executions.id = stages.execution_id
                 WHERE runs.{column} = ?1 AND runs.removed_at IS NULL
                   AND stages.key IS NOT NULL AND stages.outcome IN ('hit', 'made')
                 ORDER BY runs.started_at DESC LIMIT 1"
            );
            let found = self.list(&select, [value, stage], |row| {
                Ok(LastStage {
                    run_name: row.get(0)?,
                    key: row.get(1)?,
                    execution_id: row.get(2)?,
                    recipe: row.get(3)?,
                })
            })?;
            if let Some(last) = found.into_iter().next() {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    pub fn params(&self, run_id: &str) -> Result<Vec<Param>, Error> {
        let select = "SELECT name, value, is_default FROM params WHERE run_id = ?1 ORDER BY name";
        self.list(select, [run_id], |row| {
            Ok(Param {
                name: row.get(0)?,
                value: row.get(1)?,
                is_default: row.get(2)?,
            })
        })
    }

    pub fn tags(&self, run_id: &str) -> Result<Vec<String>, Error> {
        let select = "SELECT tag FROM tags WHERE run_id = ?1 ORDER BY tag";
        self.list(select, [run_id], |row| row.get(0))
    }

    pub fn notes(&self, run_id: &str) -> Result<Vec<Note>, Error> {
        let select = "SELECT at, text FROM notes WHERE run_id = ?1 ORDER BY at, rowid";
        self.list(select, [run_id], |row| {
            Ok(Note {
                at: row.get(0)?,
                text: row.get(1)?,
            })
        })
    }

    pub fn events(&self, run_id: &str) -> Result<Vec<Event>, Error> {
        let select =
            "SELECT stage, at, level, message FROM events WHERE run_id = ?1 ORDER BY at, rowid";
        self.list(select, [run_id], |row| {
            Ok(Event {
                stage: row.get(0)?,
                at: row.get(1)?,
                level: word(row, 2)?,
                message: row.get(3)?,
            })
        })
    }

    pub fn samples(&self, execution_id: &str) -> Result<Vec<SampleRow>, Error> {
        let select = "SELECT step, prompt, text, at FROM samples WHERE execution_id = ?1
            ORDER BY step IS NULL, step, rowid";
        self.list(select, [execution_id], |row| {
            Ok(SampleRow {
                step: unsigned(row, 0)?,
                prompt: row.get(1)?,
                text: row.get(2)?,
                at: row.get(3)?,
            })
        })
    }

    pub fn metric_names(&self, execution_id: &str) -> Result<Vec<String>, Error> {
        let select = "SELECT name FROM series WHERE execution_id = ?1 ORDER BY name";
        self.list(select, [execution_id], |row| row.get(0))
    }

    /// The last word of every metric of a run, by stage and name.
    pub fn final_metrics(&self, run_id: &str) -> Result<Vec<Metric>, Error> {
        let select =
            format!("{FINAL} WHERE stages.run_id = ?1 ORDER BY stages.position, series.name");
        self.list(&select, [run_id], |row| {
            Ok(Metric {
                stage: row.get(1)?,
                execution_id: row.get(2)?,
                name: row.get(3)?,
                step: row.get::<_, i64>(4)?.try_into().ok(),
                value: value(row, 5)?,
                at: row.get(7)?,
            })
        })
    }

    /// A curve of at most `max_points` points, its first, last, lowest and highest among them.
    pub fn metric_series(
        &self,
        execution_id: &str,
        name: &str,
        max_points: usize,
    ) -> Result<Series, Error> {
        let mut thinner = Thinner::new(max_points);
        self.thin(execution_id, name, &mut thinner)
            .map_err(|error| self.error(error))?;
        Ok(Series {
            execution_id: execution_id.to_owned(),
            name: name.to_owned(),
            n_points: thinner.n_points,
            points: thinner.finish(),
        })
    }

    /// Many curves, `(execution, name)`, read on all cores.
    pub fn metric_series_of(
        &self,
        curves: &[(String, String)],
        max_points: usize,
    ) -> Result<Vec<Series>, Error> {
        let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
        let n_each = curves.len().div_ceil(n_threads).max(16);
        let read = |reader: &Registry, curves: &[(String, String)]| {
            let read = |(execution_id, name): &(String, String)| {
                reader.metric_series(execution_id, name, max_points)
            };
            curves.iter().map(read).collect::<Result<Vec<_>, Error>>()
        };
        let (ours, others) = curves.split_at(n_each.min(curves.len()));
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for curves in others.chunks(n_each) {
                let reader = self.reader()?;
                readers.push(scope.spawn(move || read(&reader, curves)));
            }
            let mut series = read(self, ours)?;
            for reader in readers {
                match reader.join() {
                    Ok(read) => series.extend(read?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(series)
        })
    }

    fn thin(&self, execution_id: &str, name: &str, thinner: &mut Thinner) -> rusqlite::Result<()> {
        let series: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM series WHERE execution_id = ?1 AND name = ?2")?
            .query_row([execution_id, name], |row| row.get(0))
            .optional()?;
        let Some(series) = series else {
            return Ok(());
        };
        thinner.last_step = self
            .connection
            .prepare_cached("SELECT max(step) FROM points WHERE series_id = ?1")?
            .query_row([series], |row| row.get::<_, Option<i64>>(0))?
            .and_then(|step| step.try_into().ok())
            .unwrap_or(0);
        let mut select = self.connection.prepare_cached(
            "SELECT step, ifnull(value, special), at FROM points
             WHERE series_id = ?1 AND step >= 0 ORDER BY step",
        )?;
        let mut rows = select.query([series])?;
        while let Some(row) = rows.next()? {
            thinner.add(Point {
                step: row.get::<_, i64>(0)? as u64,
                value: number(row.get_ref(1)?)?,
                at: row.get(2)?,
            });
        }
        Ok(())
    }

    fn retain(&self, runs: &mut Vec<Run>, filter: &Filter) -> Result<(), Error> {
        let mut facts = HashMap::new();
        for (name, span) in filter.names() {
            let found = self.facts(runs, name)?;
            let is_known = !found.is_empty() || is_field(name) || runs.is_empty();
            if !is_known {
                let known = self.fact_names()?;
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(filter.unknown(name, span, &nearest(name, known)).into());
            }
            facts.insert(name.to_owned(), found);
        }
        runs.retain(|run| {
            filter.holds(&|name: &str| {
                let found = facts.get(name).and_then(|runs| runs.get(&run.id));
                found.map_or(&[][..], Vec::as_slice)
            })
        });
        Ok(())
    }

    fn sort(&self, runs: &mut [Run], by: &str) -> Result<(), Error> {
        let (name, is_descending) = match by.strip_prefix('-') {
            Some(name) => (name, true),
            None => (by, false),
        };
        let facts = self.facts(runs, name)?;
        if facts.is_empty() && !is_field(name) && !runs.is_empty() {
            let known = self.fact_names()?;
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let nearest = nearest(name, known).first().map(|&near| near.to_owned());
            let name = name.to_owned();
            return Err(Error::UnknownName { name, nearest });
        }
        let first = |run: &Run| facts.get(&run.id).and_then(|facts| facts.first());
        // Runs without the value come last either way.
        runs.sort_by(|a, b| match (first(a), first(b)) {
            (Some(a), Some(b)) if is_descending => compare(b, a),
            (Some(a), Some(b)) => compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        Ok(())
    }

    /// The values that a name has in each run: a field, else a setting, else a metric. A setting or
    /// metric may be named by its end: `lr` is `base.train.lr`, `loss` is `base.loss`.
    fn facts(&self, runs: &[Run], name: &str) -> Result<HashMap<String, Vec<Fact>>, Error> {
        if is_field(name) {
            return self.field_facts(runs, name);
        }
        const PARAMS: &str = "SELECT run_id, value FROM params
            WHERE name = ?1 OR substr(name, -length(?1) - 1) = '.' || ?1 ORDER BY name";
        let settings = self.gather(PARAMS, name, |row| Ok(Fact::Text(row.get(1)?)))?;
        if !settings.is_empty() {
            return Ok(settings);
        }
        let metrics = metric_facts();
        self.gather(&metrics, name, |row| Ok(Fact::Number(value(row, 5)?)))
    }

    fn field_facts(&self, runs: &[Run], name: &str) -> Result<HashMap<String, Vec<Fact>>, Error> {
        if name == "note" {
            let select = "SELECT run_id, text FROM notes WHERE ?1 = ?1";
            return self.gather(select, name, |row| Ok(Fact::Text(row.get(1)?)));
        }
        let facts = runs.iter().map(|run| (run.id.clone(), field(run, name)));
        Ok(facts.collect())
    }

    fn gather(
        &self,
        select: &str,
        name: &str,
        fact: impl Fn(&Row<'_>) -> rusqlite::Result<Fact>,
    ) -> Result<HashMap<String, Vec<Fact>>, Error> {
        let rows = self.list(select, [name], |row| {
            Ok((row.get::<_, String>(0)?, fact(row)?))
        })?;
        let mut facts: HashMap<String, Vec<Fact>> = HashMap::new();
        for (run_id, fact) in rows {
            facts.entry(run_id).or_default().push(fact);
        }
        Ok(facts)
    }

    /// Every name that a condition could use, with the ends of the long ones.
    fn fact_names(&self) -> Result<HashSet<String>, Error> {
        let mut names: HashSet<String> = FIELDS.iter().map(|&name| name.to_owned()).collect();
        names.extend(["tag".to_owned(), "note".to_owned()]);
        let select = "SELECT DISTINCT name FROM params UNION SELECT DISTINCT name FROM series
            UNION SELECT DISTINCT stages.name || '.' || series.name
            FROM stages JOIN series USING (execution_id)";
        for name in self.texts(select)? {
            let ends = name
                .match_indices('.')
                .map(|(dot, _)| name[dot + 1..].to_owned());
            names.extend(ends);
            names.insert(name);
        }
        Ok(names)
    }

    fn search(&self, runs: &[Run], text: &str) -> Result<HashSet<String>, Error> {
        let text = text.to_lowercase();
        let fits = |value: &str| value.to_lowercase().contains(&text);
        let notes = self.list("SELECT run_id, text FROM notes", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let noted = notes
            .into_iter()
            .filter(|(_, note)| fits(note))
            .map(|(run_id, _)| run_id);
        let mut fitting: HashSet<String> = noted.collect();
        for run in runs {
            let values = [&run.name, &run.experiment, &run.file, &run.command];
            if values.into_iter().chain(&run.tags).any(|value| fits(value)) {
                fitting.insert(run.id.clone());
            }
        }
        Ok(fitting)
    }

    fn run_where(
        &self,
        condition: &str,
        params: impl rusqlite::Params,
    ) -> Result<Option<Run>, Error> {
        let mut runs = self.list(&format!("{RUN} {condition}"), params, |row| run(self, row))?;
        self.add_tags(&mut runs)?;
        Ok(runs.into_iter().next())
    }

    fn runs_where(&self, condition: &str, text: &str) -> Result<Vec<Run>, Error> {
        let params: &[&dyn ToSql] = if condition.contains("?1") {
            params![text]
        } else {
            params![]
        };
        let mut runs = self.list(&format!("{RUN} {condition}"), params, |row| run(self, row))?;
        self.add_tags(&mut runs)?;
        Ok(runs)
    }

    fn add_tags(&self, runs: &mut [Run]) -> Result<(), Error> {
        if let [run] = runs {
            run.tags = self.tags(&run.id)?;
            return Ok(());
        }
        let rows = self.list("SELECT run_id, tag FROM tags ORDER BY tag", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut tags: HashMap<String, Vec<String>> = HashMap::new();
        for (run_id, tag) in rows {
            tags.entry(run_id).or_default().push(tag);
        }
        for run in runs {
            run.tags = tags.remove(&run.id).unwrap_or_default();
        }
        Ok(())
    }

    pub(crate) fn texts(&self, select: &str) -> Result<Vec<String>, Error> {
        self.list(select, [], |row| row.get(0))
    }

    pub(crate) fn list<T>(
        &self,
        select: &str,
        params: impl rusqlite::Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let list = || -> rusqlite::Result<Vec<T>> {
            let mut statement = self.connection.prepare_cached(select)?;
            statement.query_map(params, |row| read(row))?.collect()
        };
        list().map_err(|error| self.error(error))
    }

    /// What a status says once its run's lock has been looked at.
    fn alive(&self, status: Status, run_id: &str) -> Status {
        let is_held = || {
            let lock = home::run_lock(&self.locks(), run_id);
            // A lock that cannot be asked after is not proof of death.
            locks::holder(&lock).map_or(true, |holder| holder.is_some())
        };
        match status {
            Status::Running if !is_held() => Status::Interrupted,
            status => status,
        }
    }
}

/// Columns: run, stage, execution, name, step (-1 for a final number), value, special, at.
/// `CROSS` keeps the order: left to itself SQLite begins with every point there is.
const FINAL: &str = "SELECT stages.run_id, stages.name, series.execution_id, series.name,
    points.step, points.value, points.special, points.at
    FROM stages CROSS JOIN series ON series.execution_id = stages.execution_id
    CROSS JOIN points ON points.series_id = series.id AND points.step = ifnull(
      (SELECT -1 FROM points WHERE series_id = series.id AND step = -1),
      (SELECT max(step) FROM points WHERE series_id = series.id))";

const EXECUTION: &str = "SELECT id, run_id, stage, key, kind, attempt, status, started_at, ended_at,
    cpu_seconds, peak_memory_bytes, artifact, device, threads, origin, recipe, error FROM executions";

fn metric_facts() -> String {
    format!(
        "{FINAL} WHERE series.name = ?1 OR stages.name || '.' || series.name = ?1
         OR substr(series.name, -length(?1) - 1) = '.' || ?1
         OR substr(stages.name || '.' || series.name, -length(?1) - 1) = '.' || ?1
         ORDER BY stages.position DESC"
    )
}

fn run(registry: &Registry, row: &Row<'_>) -> rusqlite::Result<Run> {
    let id: String = row.get(0)?;
    Ok(Run {
        status: registry.alive(word(row, 5)?, &id),
        id,
        name: row.get(1)?,
        experiment: row.get(2)?,
        file: row.get(3)?,
        seed: row.get::<_, Option<i64>>(4)?.map(|seed| seed as u64),
        started_at: row.get(6)?,
        ended_at: row.get(7)?,
        host: json(row.get(8)?),
        device: row.get(9)?,
        git_commit: row.get(10)?,
        git_dirty: row.get(11)?,
        version: row.get(12)?,
        command: row.get(13)?,
        sweep: row.get(14)?,
        tags: Vec::new(),
    })
}

fn stage_row(row: &Row<'_>) -> rusqlite::Result<StageRow> {
    Ok(StageRow {
        run_id: row.get(0)?,
        name: row.get(1)?,
        position: row.get(2)?,
        kind: row.get(3)?,
        outcome: word(row, 4)?,
        key: row.get(5)?,
        execution_id: row.get(6)?,
        artifact: row.get(7)?,
        reason: row.get(8)?,
        inputs: json(row.get(9)?),
        settings: json(row.get(10)?),
    })
}

fn execution(registry: &Registry, row: &Row<'_>) -> rusqlite::Result<Execution> {
    let run_id: String = row.get(1)?;
    Ok(Execution {
        id: row.get(0)?,
        status: registry.alive(word(row, 6)?, &run_id),
        run_id,
        stage: row.get(2)?,
        key: row.get(3)?,
        kind: row.get(4)?,
        attempt: row.get(5)?,
        started_at: row.get(7)?,
        ended_at: row.get(8)?,
        cpu_seconds: row.get(9)?,
        peak_memory_bytes: unsigned(row, 10)?,
        artifact: row.get(11)?,
        device: row.get(12)?,
        threads: row.get(13)?,
        origin: row.get::<_, Option<String>>(14)?.map(json),
        recipe: row.get(15)?,
        error: row.get(16)?,
    })
}

fn unknown_run(text: &str, nearest: &[&str]) -> Error {
    Error::UnknownRun {
        text: text.to_owned(),
        nearest: nearest.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn is_field(name: &str) -> bool {
    FIELDS.contains(&name) || name == "tag" || name == "note"
}

fn field(run: &Run, name: &str) -> Vec<Fact> {
    let text = |text: &str| Some(Fact::Text(text.to_owned()));
    let time = |at: Millis| {
        let time = chrono::DateTime::from_timestamp_millis(at)?;
        Some(Fact::Text(
            time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        ))
    };
    let fact = match name {
        "id" => text(&run.id),
        "name" => text(&run.name),
        "experiment" => text(&run.experiment),
        "file" => text(&run.file),
        // As text, because a seed of 64 bits is no `f64`.
        "seed" => run.seed.map(|seed| Fact::Text(seed.to_string())),
        "status" => text(run.status.as_str()),
        "started" => time(run.started_at),
        "ended" => run.ended_at.and_then(time),
        "seconds" => run
            .ended_at
            .map(|end| Fact::Number((end - run.started_at) as f64 / 1e3)),
        "device" => text(&run.device),
        "host" => run.host.get("name").and_then(Value::as_str).and_then(text),
        "commit" => run.git_commit.as_deref().and_then(text),
        "dirty" => run
            .git_dirty
            .map(|is_dirty| Fact::Text(is_dirty.to_string())),
        "version" => text(&run.version),
        "command" => text(&run.command),
        "sweep" => run.sweep.as_deref().and_then(text),
        "tag" => return run.tags.iter().map(|tag| Fact::Text(tag.clone())).collect(),
        _ => None,
    };
    fact.into_iter().collect()
}

fn compare(a: &Fact, b: &Fact) -> Ordering {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.text().cmp(&b.text()),
    }
}

/// A JSON column; what does not parse is shown as it is.
fn json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| number.try_into().ok()))
}

/// The number in `column`, or the one spelt in the column after it.
fn value(row: &Row<'_>, column: usize) -> rusqlite::Result<f64> {
    match row.get_ref(column)? {
        ValueRef::Null => number(row.get_ref(column + 1)?),
        value => number(value),
    }
}

fn number(value: ValueRef<'_>) -> rusqlite::Result<f64> {
    Ok(match value {
        ValueRef::Real(value) => value,
        ValueRef::Integer(value) => value as f64,
        value => match value.as_str_or_null()? {
            Some("inf") => f64::INFINITY,
            Some("-inf") => f64::NEG_INFINITY,
            _ => f64::NAN,
        },
    })
}

fn word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

/// Keeps what a plot can show of a curve: all of a short one; of a long one the first and last
/// point and, for each bucket of steps, the lowest and the highest. NaN counts as the highest, so
/// that a loss which blew up once is not thinned away.
struct Thinner {
    max_points: usize,
    n_points: u64,
    last_step: u64,
    /// All points so far, while there are few.
    few: Vec<Point>,
    thinned: Vec<Point>,
    bucket: Option<Bucket>,
    last: Option<Point>,
}

struct Bucket {
    number: u64,
    low: Point,
    high: Point,
}

impl Thinner {
    fn new(max_points: usize) -> Self {
        Thinner {
            max_points: max_points.max(4),
            n_points: 0,
            last_step: 0,
            few: Vec::new(),
            thinned: Vec::new(),
            bucket: None,
            last: None,
        }
    }

    fn add(&mut self, point: Point) {
        self.n_points += 1;
        if self.n_points <= self.max_points as u64 {
            self.few.push(point);
            return;
        }
        for point in std::mem::take(&mut self.few) {
            self.put(point);
        }
        self.put(point);
    }

    fn put(&mut self, point: Point) {
        if self.last.is_none() {
            self.thinned.push(point);
        }
        self.last = Some(point);
        let n_buckets = (self.max_points as u64 - 2) / 2;
        let number = point.step.saturating_mul(n_buckets) / self.last_step.saturating_add(1);
        match &mut self.bucket {
            Some(bucket) if bucket.number == number => {
                if point.value.total_cmp(&bucket.low.value).is_lt() {
                    bucket.low = point;
                }
                if point.value.total_cmp(&bucket.high.value).is_gt() {
                    bucket.high = point;
                }
            }
            _ => {
                self.close();
                let (low, high) = (point, point);
                self.bucket = Some(Bucket { number, low, high });
            }
        }
    }

    fn close(&mut self) {
        if let Some(Bucket { low, high, .. }) = self.bucket.take() {
            let (a, b) = if low.step <= high.step {
                (low, high)
            } else {
                (high, low)
            };
            self.keep(a);
            self.keep(b);
        }
    }

    fn keep(&mut self, point: Point) {
        if self
            .thinned
            .last()
            .is_none_or(|last| last.step < point.step)
        {
            self.thinned.push(point);
        }
    }

    fn finish(mut self) -> Vec<Point> {
        if !self.few.is_empty() {
            return self.few;
        }
        self.close();
        if let Some(last) = self.last {
            self.keep(last);
        }
        self.thinned
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Lock,
        recorder::{Finished, MetricRow, NewExecution, NewRun, StageRecord},
    };

    struct Fixture {
        folder: tempfile::TempDir,
        registry: Registry,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let registry = Registry::open(&folder.path().join("registry.sqlite")).unwrap();
            Fixture { folder, registry }
        }

        /// A finished run of one stage, `base`, that ended at `loss`. Returns its name.
        fn run(&self, id: &str, lr: &str, loss: f64) -> String {
            let registry = &self.registry;
            let execution_id = format!("e-{id}");
            let name = registry
                .insert_run(&NewRun {
                    id: id.into(),
                    experiment: "tiny".into(),
                    file: "tiny.yaml".into(),
                    seed: Some(u64::MAX),
                    started_at: 1_000_000_000_000 + self.n_runs() as i64 * 1000,
                    host: r#"{"name":"here"}"#.into(),
                    ..NewRun::default()
                })
                .unwrap();
            registry
                .insert_execution(&NewExecution {
                    id: execution_id.clone(),
                    run_id: id.into(),
                    stage: "base".into(),
                    key: format!("key of lr {lr}"),
                    recipe: format!("train.lr = {lr}"),
                    ..NewExecution::default()
                })
                .unwrap();
            registry
                .upsert_stage(&StageRecord {
                    run_id: id.into(),
                    name: "base".into(),
                    outcome: Outcome::Made,
                    key: Some(crate::Digest::of_bytes(lr.as_bytes())),
                    execution_id: Some(execution_id.clone()),
                    inputs: r#"{"shards":["shards"]}"#.into(),
                    settings: "{}".into(),
                    ..StageRecord::default()
                })
                .unwrap();
            let params = [("base.train.lr".to_owned(), lr.to_owned(), false)];
            registry.insert_params(id, &params).unwrap();
            registry
                .append_metrics(&curve(&execution_id, "loss", &[9.0, 5.0, loss]))
                .unwrap();
            registry
                .finish_execution(
                    &execution_id,
                    &Finished {
                        status: Status::Done,
                        ended_at: 5,
                        peak_memory_bytes: Some(7),
                        ..Finished::default()
                    },
                )
                .unwrap();
            registry
                .set_run_status(id, Status::Done, Some(1_000_000_060_000))
                .unwrap();
            name
        }

        fn n_runs(&self) -> usize {
            self.registry.runs(&RunQuery::default()).unwrap().len()
        }

        #[track_caller]
        fn ids(&self, filter: &str, sort: &str) -> Vec<String> {
            let query = RunQuery {
                filter: Some(Filter::parse(filter).unwrap()),
                sort: Some(sort.to_owned()),
                ..RunQuery::default()
            };
            let runs = self.registry.runs(&query).unwrap();
            runs.into_iter().map(|run| run.id).collect()
        }
    }

    fn curve(execution_id: &str, name: &str, values: &[f64]) -> Vec<MetricRow> {
        (1..)
            .zip(values)
            .map(|(step, &value)| MetricRow {
                execution_id: execution_id.into(),
                name: name.into(),
                step: Some(step),
                value,
                at: step as i64 * 10,
            })
            .collect()
    }

    #[test]
    fn a_run_is_found_by_any_name_for_it() {
        let fixture = Fixture::new();
        let registry = &fixture.registry;
        assert!(matches!(
            registry.find_run("@last"),
            Err(Error::UnknownRun { .. })
        ));
        let (a, b) = (
            fixture.run("0197aa", "1", 3.0),
            fixture.run("0197ab", "1", 3.0),
        );
        for text in ["0197aa", a.as_str(), &a[..a.len() - 1]] {
            assert_eq!(registry.find_run(text).unwrap().id, "0197aa", "{text}");
        }
        assert_eq!(registry.find_run("@last").unwrap().name, b);

        match registry.find_run("0197").unwrap_err() {
            Error::AmbiguousRun { matches, .. } => assert_eq!(matches, [b.clone(), a.clone()]),
            error => panic!("{error}"),
        }
        let mistyped = a.replacen('-', "_", 1);
        let error = registry.find_run(&mistyped).unwrap_err();
        assert!(error.is_mistake());
        assert_eq!(error.to_string(), format!("no run is called `{mistyped}`"));
        assert_eq!(error.hint().unwrap(), format!("did you mean `{a}`?"));
        assert!(registry.find_run("").is_err());

        registry.remove_run("0197ab", 9).unwrap();
        assert_eq!(registry.find_run("0197").unwrap().name, a);
        assert!(registry.find_run(&b).is_err());
    }

    #[test]
    fn a_run_without_an_end_is_interrupted_once_its_lock_is_free() {
        let fixture = Fixture::new();
        fixture.run("r", "1", 3.0);
        fixture
            .registry
            .set_run_status("r", Status::Running, None)
            .unwrap();
        let status = || fixture.registry.run("r").unwrap().status;
        assert_eq!(status(), Status::Interrupted);
        let path = home::run_lock(&fixture.folder.path().join("locks"), "r");
        let lock = Lock::try_exclusive(&path, "r").unwrap().unwrap();
        assert_eq!(status(), Status::Running);
        drop(lock);
        assert_eq!(status(), Status::Interrupted);
        assert_eq!(fixture.ids("status = interrupted", "name"), ["r"]);
    }

    #[test]
    fn runs_are_filtered_and_sorted_by_fields_settings_metrics_and_tags() {
        let fixture = Fixture::new();
        fixture.run("a", "1e-3", 2.5);
        fixture.run("b", "0.01", 4.0);
        fixture.run("c", "0.1", f64::NAN);
        fixture.registry.add_tag("b", "baby").unwrap();
        fixture.registry.add_tag("b", "first").unwrap();
        fixture.registry.add_note("c", "It blew up", 1).unwrap();

        assert_eq!(fixture.ids("loss < 3", "id"), ["a"]);
        assert_eq!(fixture.ids("base.loss < 5", "-loss"), ["b", "a"]);
        assert_eq!(
            fixture.ids("lr = 0.001 or train.lr = 1e-2", "-lr"),
            ["b", "a"]
        );
        assert_eq!(fixture.ids("tag = baby and status = done", "id"), ["b"]);
        assert_eq!(fixture.ids("tag != baby", "id"), ["a", "c"]);
        assert_eq!(fixture.ids("note ~ BLEW", "id"), ["c"]);
        assert_eq!(
            fixture.ids("started > 2001-09-09 and host = here", "-started"),
            ["c", "b", "a"]
        );
        assert_eq!(
            fixture.ids(&format!("seed = {}", u64::MAX), "seed"),
            ["c", "b", "a"]
        );

        let query = RunQuery {
            search: Some("FIRST".into()),
            limit: Some(5),
            ..RunQuery::default()
        };
        assert_eq!(
            fixture.registry.runs(&query).unwrap()[0].tags,
            ["baby", "first"]
        );

        let filter = Some(Filter::parse("status = done and los < 3").unwrap());
        let query = RunQuery {
            filter,
            ..RunQuery::default()
        };
        match fixture.registry.runs(&query).unwrap_err() {
            Error::Filter(error) => {
                assert_eq!(&error.text[error.span.clone()], "los");
                assert_eq!(error.hint.as_deref(), Some("did you mean `loss`?"));
            }
            error => panic!("{error}"),
        }
        let query = RunQuery {
            sort: Some("-tokns".into()),
            ..RunQuery::default()
        };
        assert!(fixture.registry.runs(&query).unwrap_err().is_mistake());
        assert!(fixture.registry.remove_tag("b", "baby").unwrap());
        assert!(!fixture.registry.remove_tag("b", "baby").unwrap());
    }

    #[test]
    fn a_condition_on_a_metric_reads_one_point_of_each_curve() {
        let fixture = Fixture::new();
        let explain = format!("EXPLAIN QUERY PLAN {}", metric_facts());
        let steps = fixture
            .registry
            .list(&explain, ["loss"], |row| row.get::<_, String>(3));
        let steps = steps.unwrap().join("\n");
        assert!(steps.contains("SEARCH points USING PRIMARY KEY (series_id=? AND step=?)"));
        assert!(!steps.contains("SCAN points"), "{steps}");
    }

    #[test]
    fn a_run_that_hit_shows_the_numbers_of_the_execution_that_made_it() {
        let fixture = Fixture::new();
        fixture.run("a", "1", 2.0);
        let mut hit = StageRecord {
            run_id: "b".into(),
            name: "renamed".into(),
            outcome: Outcome::Hit,
            execution_id: Some("e-a".into()),
            inputs: "{}".into(),
            settings: "{}".into(),
            ..StageRecord::default()
        };
        fixture.registry.upsert_stage(&hit).unwrap();
        hit.reason = Some("made by a".into());
        fixture.registry.upsert_stage(&hit).unwrap();
        let last = fixture.registry.final_metrics("b").unwrap();
        assert_eq!(last.len(), 1);
        assert_eq!(
            (last[0].stage.as_str(), last[0].step, last[0].value),
            ("renamed", Some(3), 2.0)
        );
        hit.reason = Some("made by a, a while ago".into());
        hit.artifact = Some(Digest::of_bytes(b"ignored"));
        fixture.registry.set_stage_outcome(&hit).unwrap();
        let stages = fixture.registry.stages("b").unwrap();
        assert_eq!(stages[0].artifact, None);
        assert_eq!(stages[0].reason.as_deref(), Some("made by a, a while ago"));
        assert_eq!(fixture.registry.executions("b").unwrap(), []);
        let executions = fixture.registry.executions("a").unwrap();
        assert_eq!(
            (executions[0].status, executions[0].peak_memory_bytes),
            (Status::Done, Some(7))
        );
        assert_eq!(
            fixture.registry.execution("e-a").unwrap().as_ref(),
            executions.first()
        );
    }

    #[test]
    fn plan_finds_the_last_stage_of_the_experiment_or_of_its_file() {
        let fixture = Fixture::new();
        fixture.run("a", "1", 2.0);
        fixture.run("b", "2", 2.0);
        let last = |experiment, file, stage| {
            let last = fixture
                .registry
                .last_stage(experiment, file, stage)
                .unwrap();
            last.and_then(|last| last.recipe)
        };
        assert_eq!(
            last("tiny", "other.yaml", "base").as_deref(),
            Some("train.lr = 2")
        );
        assert_eq!(
            last("renamed", "tiny.yaml", "base").as_deref(),
            Some("train.lr = 2")
        );
        assert_eq!(last("tiny", "tiny.yaml", "other"), None);
        fixture.registry.remove_run("b", 1).unwrap();
        assert_eq!(
            last("tiny", "tiny.yaml", "base").as_deref(),
            Some("train.lr = 1")
        );
    }

    #[test]
    fn going_on_from_a_checkpoint_repeats_no_step() {
        let fixture = Fixture::new();
        let registry = &fixture.registry;
        registry
            .append_metrics(&curve("e", "loss", &[5.0, 4.0, 3.0, 2.0]))
            .unwrap();
        let last = MetricRow {
            step: None,
            ..curve("e", "loss", &[1.0]).remove(0)
        };
        registry.append_metrics(&[last]).unwrap();
        let sample = |step| (step, "hi".to_owned(), "there".to_owned());
        registry
            .append_samples("e", &[sample(Some(2)), sample(Some(4)), sample(None)], 1)
            .unwrap();
        registry.cut_metrics_after("e", 2).unwrap();
        registry
            .append_metrics(&curve("e", "loss", &[5.0, 4.0, 2.5]))
            .unwrap();
        let steps = |execution_id| {
            let series = registry.metric_series(execution_id, "loss", 100).unwrap();
            series
                .points
                .iter()
                .map(|point| (point.step, point.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(steps("e"), [(1, 5.0), (2, 4.0), (3, 2.5)]);
        assert_eq!(registry.samples("e").unwrap().len(), 1);

        let key = Digest::of_bytes(b"key");
        assert_eq!(registry.unfinished_execution(&key).unwrap(), None);
        for id in ["e", "later"] {
            let execution = NewExecution {
                id: id.into(),
                key: key.to_string(),
                started_at: id.len() as i64,
                ..NewExecution::default()
            };
            let dead = registry.unfinished_execution(&key).unwrap();
            assert_eq!(dead.as_deref(), (id == "later").then_some("e"));
            registry.insert_execution(&execution).unwrap();
        }
        registry.move_metrics("e", "later").unwrap();
        assert_eq!(steps("e"), []);
        assert_eq!(steps("later").len(), 3);
        registry
            .append_metrics(&curve("e", "loss", &[7.0]))
            .unwrap();
        assert_eq!(steps("e"), [(1, 7.0)]);
        assert_eq!(registry.metric_names("later").unwrap(), ["loss"]);
    }

    #[test]
    fn numbers_that_are_none_come_back_as_they_were() {
        let fixture = Fixture::new();
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3.0, -0.5];
        fixture
            .registry
            .append_metrics(&curve("e", "x", &values))
            .unwrap();
        let series = fixture.registry.metric_series("e", "x", 100).unwrap();
        let read: Vec<String> = series
            .points
            .iter()
            .map(|point| point.value.to_string())
            .collect();
        assert_eq!(read, ["NaN", "inf", "-inf", "3", "-0.5"]);
    }

    #[test]
    fn many_curves_read_at_once_are_those_read_one_by_one() {
        let fixture = Fixture::new();
        let mut curves = Vec::new();
        for i in 0..50 {
            let values: Vec<f64> = (0..30).map(|step| f64::from(step * i)).collect();
            fixture
                .registry
                .append_metrics(&curve(&format!("e{i}"), "loss", &values))
                .unwrap();
            curves.push((format!("e{i}"), "loss".to_owned()));
        }
        curves.push(("none".into(), "loss".into()));
        let together = fixture.registry.metric_series_of(&curves, 10).unwrap();
        let alone: Vec<Series> = curves
            .iter()
            .map(|(id, name)| fixture.registry.metric_series(id, name, 10).unwrap())
            .collect();
        assert_eq!(together, alone);
        assert_eq!(together[3].n_points, 30);
    }

    #[test]
    fn two_runs_never_share_a_name_and_resume_keeps_it() {
        let fixture = Fixture::new();
        let name = fixture.run("a", "1", 1.0);
        assert_eq!(name, crate::names::run_name("a"));
        let update = "UPDATE runs SET id = 'other' WHERE id = 'a'";
        fixture.registry.connection.execute(update, []).unwrap();
        let longer = fixture.run("a", "1", 1.0);
        assert!(
            longer.starts_with(&name) && longer.len() == name.len() + 1,
            "{longer}"
        );
        let again = NewRun {
            id: "a".into(),
            ..NewRun::default()
        };
        assert_eq!(fixture.registry.insert_run(&again).unwrap(), longer);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_thinned_curve_is_part_of_the_whole_and_keeps_its_ends_and_extremes(
            steps in prop::collection::btree_set(0_u64..2000, 1..400),
            max_points in 4_usize..100,
        ) {
            let points: Vec<Point> = steps
                .iter()
                .map(|&step| Point { step, value: (step * 7919 % 1009) as f64, at: 0 })
                .collect();
            let mut thinner = Thinner::new(max_points);
            thinner.last_step = points.last().unwrap().step;
            points.iter().for_each(|&point| thinner.add(point));
            let thinned = thinner.finish();
            prop_assert!(thinned.len() <= max_points, "{} of {max_points}", thinned.len());
            prop_assert!(thinned.windows(2).all(|pair| pair[0].step < pair[1].step));
            prop_assert!(thinned.iter().all(|point| points.contains(point)));
            prop_assert_eq!(thinned.first(), points.first());
            prop_assert_eq!(thinned.last(), points.last());
            let highest = |points: &[Point]| points.iter().map(|p| p.value as u64).max();
            let lowest = |points: &[Point]| points.iter().map(|p| p.value as u64).min();
            prop_assert_eq!(highest(&thinned), highest(&points));
            prop_assert_eq!(lowest(&thinned), lowest(&points));
        }
    }
}
