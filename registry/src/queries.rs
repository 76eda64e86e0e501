//! Reading history back.
//!
//! Here are plain rows: runs and what hangs on them. Two questions are bigger and have a file each:
//! which runs fit a condition over fields, settings and metrics (`choose`), and what a thousand long
//! curves look like (`curves`).

use std::{collections::HashMap, str::FromStr};

use rusqlite::{Row, ToSql, params, types::ValueRef};
use serde_json::Value;

use crate::{
    Digest, Error, Millis, Registry, claims, home,
    load::IS_NO_LOAD,
    locks,
    nearest::nearest,
    rows::{Event, Execution, LastStage, Metric, Note, Param, Run, RunSource, SampleRow, StageRow},
    where_filter::Filter,
    words::Status,
};

mod choose;
mod curves;

pub use curves::{ALL_STEPS, Point, Series, Thinning};

/// Which runs, in which order.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    pub filter: Option<Filter>,
    /// Text to be found in a name, experiment, file, command, tag or note.
    pub search: Option<String>,
    /// A field, setting or metric; `-` before it for the largest first. The newest first without.
    pub sort: Option<String>,
    pub limit: Option<usize>,
    /// So many are passed over first.
    pub skip: usize,
}

const RUN: &str =
    "SELECT id, name, experiment, file, seed, status, started_at, ended_at, host, device,
    git_commit, git_dirty, version, command, sweep FROM runs WHERE removed_at IS NULL";

/// In order of recording, which no clock that was set wrong can disturb.
const NEWEST_FIRST: &str = "ORDER BY rowid DESC";

/// Of a run: it made something, or was about to.
const WORKED: &str = "EXISTS (SELECT 1 FROM executions
    WHERE executions.run_id = runs.id AND executions.status <> 'failed')";

impl Registry {
    /// Finds a run by name, uuid, a unique prefix of either, or `@last`.
    pub fn find_run(&self, text: &str) -> Result<Run, Error> {
        if text == "@last" {
            return self.last_run()?.ok_or_else(|| unknown_run(text, &[]));
        }
        if let Some(back) = text.strip_prefix("@last~") {
            let run = back.parse().map(|back| self.before_last(back));
            return run
                .unwrap_or(Ok(None))?
                .ok_or_else(|| unknown_run(text, &[]));
        }
        if let Some(run) = self.run_where("AND (name = ?1 OR id = ?1)", [text])? {
            return Ok(run);
        }
        const FITS: &str =
            "AND (substr(name, 1, length(?1)) = ?1 OR substr(id, 1, length(?1)) = ?1)";
        let fits = if text.is_empty() { "AND 0" } else { FITS };
        let mut fitting = self.runs_where(&format!("{fits} {NEWEST_FIRST}"), text)?;
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

    /// The run that is meant by `@last~N`: of those that made something, so many before `@last`.
    fn before_last(&self, back: usize) -> Result<Option<Run>, Error> {
        let Some(last) = self.last_run()? else {
            return Ok(None);
        };
        let mut runs = self.runs_where(&format!("AND {WORKED} {NEWEST_FIRST}"), "")?;
        if !runs.iter().any(|run| run.id == last.id) {
            runs.insert(0, last.clone());
        }
        let mut from_last = runs.into_iter().skip_while(|run| run.id != last.id);
        Ok(from_last.nth(back))
    }

    /// The run that is meant by `@last`: the last that came to something. An attempt that failed
    /// before it made anything is passed over while there is another run, and one that found all of
    /// its stages there stands for the run that made them.
    fn last_run(&self) -> Result<Option<Run>, Error> {
        const HAS_ALL_STAGES_OF: &str = "NOT EXISTS (SELECT 1 FROM stages AS wanted
            WHERE wanted.run_id = ?1 AND NOT EXISTS (SELECT 1 FROM stages AS there
              WHERE there.run_id = runs.id AND there.name = wanted.name
                AND there.key IS wanted.key))";
        let first = |condition: &str, params: &[&dyn ToSql]| {
            self.run_where(&format!("{condition} {NEWEST_FIRST} LIMIT 1"), params)
        };
        let came_to_something = format!("AND (runs.status = 'done' OR {WORKED})");
        let Some(last) = first(&came_to_something, &[])? else {
            return first("", &[]);
        };
        let is_maker = format!("AND {WORKED} AND {HAS_ALL_STAGES_OF}");
        match self.executions(&last.id)?.is_empty() {
            true => Ok(first(&is_maker, &[&last.id])?.or(Some(last))),
            false => Ok(Some(last)),
        }
    }

    /// The run with this id.
    pub fn run(&self, run_id: &str) -> Result<Run, Error> {
        let run = self.run_where("AND id = ?1", [run_id])?;
        run.ok_or_else(|| unknown_run(run_id, &[]))
    }

    /// The headline that the run's author chose, as `STAGE.METRIC`.
    pub fn headline(&self, run_id: &str) -> Result<Option<String>, Error> {
        Ok(self.resolved(run_id)?["headline"]
            .as_str()
            .map(str::to_owned))
    }

    /// The settings that make the run a point of its sweep, with their values.
    pub fn sweep_point(&self, run_id: &str) -> Result<Vec<(String, Value)>, Error> {
        let resolved = self.resolved(run_id)?;
        let point = resolved["sweep"].as_object().into_iter().flatten();
        Ok(point
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    fn resolved(&self, run_id: &str) -> Result<Value, Error> {
        let resolved = self.source(run_id)?.resolved;
        Ok(serde_json::from_str(&resolved).unwrap_or_default())
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
        let limit = query
            .limit
            .map_or(-1, |limit| limit.try_into().unwrap_or(i64::MAX));
        let page = [limit, query.skip.try_into().unwrap_or(i64::MAX)];
        // What has to be looked at run by run is cut afterwards.
        let is_plain = query.search.is_none() && query.filter.is_none() && query.sort.is_none();
        let read = match is_plain {
            true => self.list(
                &format!("{RUN} {NEWEST_FIRST} LIMIT ?1 OFFSET ?2"),
                page,
                |row| run(self, row),
            ),
            false => self.list(&format!("{RUN} {NEWEST_FIRST}"), [], |row| run(self, row)),
        };
        let mut runs = read?;
        self.add_tags(&mut runs)?;
        if is_plain {
            return Ok(runs);
        }
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
        runs.drain(..query.skip.min(runs.len()));
        runs.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(runs)
    }

    pub fn count_runs(&self) -> Result<usize, Error> {
        let count = "SELECT count(*) FROM runs WHERE removed_at IS NULL";
        let count: Result<i64, _> = self.connection.query_row(count, [], |row| row.get(0));
        let count = count.map_err(|error| self.error(error))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// What changes whenever somebody has written something, also on another machine.
    pub fn tide(&self) -> Result<(i64, u64), Error> {
        self.read_news(false)?;
        let of_others = self
            .connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        // What this connection has read out of journals is news too.
        Ok((of_others, self.connection.total_changes()))
    }

    /// The stages of a run in the order of the plan.
    pub fn stages(&self, run_id: &str) -> Result<Vec<StageRow>, Error> {
        let select = "SELECT run_id, name, position, kind, outcome, key, execution_id, artifact,
            reason, inputs, settings FROM stages WHERE run_id = ?1 ORDER BY position, name";
        self.list(select, [run_id], stage_row)
    }

    /// The executions that a run carried out, in order of time.
    pub fn executions(&self, run_id: &str) -> Result<Vec<Execution>, Error> {
        let select = format!("{EXECUTION} WHERE run_id = ?1 ORDER BY rowid");
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
        self.read_news(false)?;
        let select = "SELECT id FROM executions WHERE key = ?1 AND status <> 'done'
            ORDER BY rowid DESC LIMIT 1";
        let found = self.list(select, [key.to_string()], |row| row.get(0))?;
        Ok(found.into_iter().next())
    }

    /// The execution that `plan` compares a stage with: the last one of this name in this experiment, or, if the
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
                 ORDER BY runs.rowid DESC LIMIT 1"
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

    /// The curves of an execution with the last step of each, as they were at a moment if one is given.
    pub fn curve_ends(
        &self,
        execution_id: &str,
        by: Option<Millis>,
    ) -> Result<Vec<(String, u64)>, Error> {
        let select = match by {
            None => {
                "SELECT name, (SELECT max(step) FROM points WHERE series_id = series.id) AS last
                 FROM series WHERE execution_id = ?1 AND last >= 0 AND ?2 IS NULL ORDER BY name"
            }
            Some(_) => {
                "SELECT name, (SELECT max(step) FROM points
                   WHERE series_id = series.id AND at <= ?2) AS last
                 FROM series WHERE execution_id = ?1 AND last >= 0 ORDER BY name"
            }
        };
        self.list(select, params![execution_id, by], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
        })
    }

    /// The last word of every metric of a run, by stage and name; the load of the machine is none.
    pub fn final_metrics(&self, run_id: &str) -> Result<Vec<Metric>, Error> {
        let select = format!(
            "{FINAL} AND {IS_NO_LOAD} WHERE stages.run_id = ?1 ORDER BY stages.position, series.name"
        );
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

    /// The numbers that an execution told at its end: name, value, time.
    pub fn final_numbers(&self, execution_id: &str) -> Result<Vec<(String, f64, Millis)>, Error> {
        let select = "SELECT series.name, value, special, at FROM series
            JOIN points ON points.series_id = series.id AND points.step = -1
            WHERE execution_id = ?1 ORDER BY series.name";
        self.list(select, [execution_id], |row| {
            Ok((row.get(0)?, value(row, 1)?, row.get(3)?))
        })
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

    /// The status after a look at its run's lock.
    fn alive(&self, status: Status, run_id: &str) -> Status {
        let is_held = || {
            let lock = home::run_lock(&self.locks(), run_id);
            // A lock that cannot be asked after is not proof of death.
            locks::holder(&lock).map_or(true, |holder| holder.is_some())
                || claims::may_live(&home::run_claim(&self.locks(), run_id))
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
    cpu_seconds, peak_memory_bytes, artifact, device, threads, origin, recipe, error, place FROM executions";

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
        place: row.get(17)?,
    })
}

fn unknown_run(text: &str, nearest: &[&str]) -> Error {
    Error::UnknownRun {
        text: text.to_owned(),
        nearest: nearest.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// A JSON column; what does not parse is shown as it is.
pub(crate) fn json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| number.try_into().ok()))
}

/// The number in `column`, or the one spelt in the column after it.
pub(crate) fn value(row: &Row<'_>, column: usize) -> rusqlite::Result<f64> {
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

pub(crate) fn word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

#[cfg(test)]
mod tests;
