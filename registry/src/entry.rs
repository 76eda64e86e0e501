//! The lines of a journal: one for each thing that happens to a run.
//!
//! A line is written into the run's journal and then carried out on the registry's rows, and nothing
//! else changes those rows. So a registry can be made again from the journals alone. Journals are
//! kept for years: a line's names may be added to, and never change what they mean.

use std::{collections::HashMap, fmt};

use rusqlite::{Transaction, params};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    Level, MetricRow, Millis, NewExecution, Outcome, Progress, Run, RunSource, StageRecord, Status,
    load::IS_NO_LOAD, names, records::Finished,
};

/// The numbers of the series met so far, by execution and name.
pub(crate) type SeriesNumbers = HashMap<(String, String), i64>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    Begun(Box<Begun>),
    /// It is carried out once more (`resume`).
    Again {
        device: String,
        version: String,
    },
    Status {
        status: Status,
        ended_at: Option<Millis>,
    },
    Params(Vec<(String, String, bool)>),
    Stages(Vec<StageRecord>),
    Outcome {
        stage: String,
        outcome: Outcome,
        reason: Option<String>,
    },
    Execution(NewExecution),
    Place {
        execution: String,
        place: String,
    },
    Ended {
        execution: String,
        end: Finished,
    },
    Numbers {
        execution: String,
        curves: Vec<Curve>,
    },
    /// Numbers and samples after a step go: they are about to be made again.
    Cut {
        execution: String,
        after_step: u64,
    },
    Samples {
        execution: String,
        at: Millis,
        samples: Vec<(Option<u64>, String, String)>,
    },
    Progress(Vec<Progress>),
    Event {
        stage: Option<String>,
        level: Level,
        message: String,
        at: Millis,
    },
    /// What people say of a run afterwards. `n` puts what they say from several machines in order.
    Tag {
        tag: String,
        n: u64,
    },
    Untag {
        tag: String,
        n: u64,
    },
    Note {
        text: String,
        at: Millis,
        n: u64,
    },
    Removed {
        at: Millis,
        n: u64,
    },
}

/// A run as it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) run: Run,
    pub(crate) source: RunSource,
    /// Its place among the runs of the registry that it was recorded in.
    pub(crate) order: i64,
}

/// Some points of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<CurvePoint>,
}

/// Step (none for a final number), value, time: an array, since there are many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CurvePoint(pub(crate) Option<u64>, pub(crate) Value, pub(crate) Millis);

/// A number that JSON has no way to write is spelt as a word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value(pub(crate) f64);

impl Entry {
    /// Numbers of one execution, gathered by name; the order within a name stays.
    pub(crate) fn numbers(execution: &str, rows: &[MetricRow]) -> Entry {
        let mut curves: Vec<Curve> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for row in rows {
            let place = *places.entry(&row.name).or_insert(curves.len());
            if place == curves.len() {
                let name = row.name.clone();
                curves.push(Curve {
                    name,
                    points: Vec::new(),
                });
            }
            let point = CurvePoint(row.step, Value(row.value), row.at);
            curves[place].points.push(point);
        }
        Entry::Numbers {
            execution: execution.to_owned(),
            curves,
        }
    }

    /// The place among what people said of a run, of what is that.
    pub(crate) fn place_among_words(&self) -> Option<u64> {
        match self {
            Entry::Tag { n, .. }
            | Entry::Untag { n, .. }
            | Entry::Note { n, .. }
            | Entry::Removed { n, .. } => Some(*n),
            _ => None,
        }
    }

    /// Carries a line out on the rows of its run.
    pub(crate) fn apply(
        &self,
        rows: &Transaction<'_>,
        run_id: &str,
        series: &mut SeriesNumbers,
    ) -> rusqlite::Result<()> {
        match self {
            Entry::Begun(begun) => begin(rows, run_id, &begun.run, &begun.source),
            Entry::Again { device, version } => {
                let again =
                    "UPDATE runs SET status = 'running', ended_at = NULL, device = ?2, version = ?3
                    WHERE id = ?1";
                rows.prepare_cached(again)?
                    .execute([run_id, device, version])
                    .map(drop)
            }
            Entry::Status { status, ended_at } => rows
                .prepare_cached("UPDATE runs SET status = ?2, ended_at = ?3 WHERE id = ?1")?
                .execute(params![run_id, status.as_str(), ended_at])
                .map(drop),
            Entry::Params(settings) => {
                let mut insert =
                    rows.prepare_cached("INSERT OR REPLACE INTO params VALUES (?1, ?2, ?3, ?4)")?;
                for (name, value, is_default) in settings {
                    insert.execute(params![run_id, name, value, is_default])?;
                }
                Ok(())
            }
            Entry::Stages(stages) => insert_stages(rows, run_id, stages),
            Entry::Outcome {
                stage,
                outcome,
                reason,
            } => rows
                .prepare_cached(
                    "UPDATE stages SET outcome = ?3, reason = ?4 WHERE run_id = ?1 AND name = ?2",
                )?
                .execute(params![run_id, stage, outcome.as_str(), reason])
                .map(drop),
            Entry::Execution(execution) => insert_execution(rows, run_id, execution),
            Entry::Place { execution, place } => rows
                .prepare_cached("UPDATE executions SET place = ?2 WHERE id = ?1")?
                .execute([execution, place])
                .map(drop),
            Entry::Ended { execution, end } => end_execution(rows, execution, end),
            Entry::Numbers { execution, curves } => insert_numbers(rows, execution, curves, series),
            Entry::Cut {
                execution,
                after_step,
            } => cut(rows, execution, *after_step),
            Entry::Samples {
                execution,
                at,
                samples,
            } => {
                let mut insert =
                    rows.prepare_cached("INSERT INTO samples VALUES (?1, ?2, ?3, ?4, ?5)")?;
                for (step, prompt, text) in samples {
                    let step = step.map(|step| step as i64);
                    insert.execute(params![execution, step, prompt, text, at])?;
                }
                Ok(())
            }
            Entry::Progress(progress) => progress
                .iter()
                .try_for_each(|row| insert_progress(rows, row)),
            Entry::Event {
                stage,
                level,
                message,
                at,
            } => rows
                .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![run_id, stage, at, level.as_str(), message])
                .map(drop),
            Entry::Tag { tag, .. } => rows
                .prepare_cached("INSERT OR IGNORE INTO tags VALUES (?1, ?2)")?
                .execute([run_id, tag])
                .map(drop),
            Entry::Untag { tag, .. } => rows
                .prepare_cached("DELETE FROM tags WHERE run_id = ?1 AND tag = ?2")?
                .execute([run_id, tag])
                .map(drop),
            Entry::Note { text, at, .. } => rows
                .prepare_cached("INSERT INTO notes VALUES (?1, ?2, ?3)")?
                .execute(params![run_id, at, text])
                .map(drop),
            Entry::Removed { at, .. } => rows
                .prepare_cached("UPDATE runs SET removed_at = ?2 WHERE id = ?1")?
                .execute(params![run_id, at])
                .map(drop),
        }
    }
}

fn begin(
    rows: &Transaction<'_>,
    run_id: &str,
    run: &Run,
    source: &RunSource,
) -> rusqlite::Result<()> {
    rows.prepare_cached(
        "INSERT OR IGNORE INTO runs (id, name, experiment, file, text, resolved, seed, status, started_at,
         host, device, git_commit, git_dirty, version, command, sweep)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        run_id,
        free_name(rows, run_id, &run.name)?,
        run.experiment,
        run.file,
        source.text,
        source.resolved,
        // SQLite has no unsigned numbers; the bits are kept.
        run.seed.map(|seed| seed as i64),
        run.started_at,
        run.host.to_string(),
        run.device,
        run.git_commit,
        run.git_dirty,
        run.version,
        run.command,
        run.sweep,
    ])?;
    let mut insert = rows.prepare_cached("INSERT OR IGNORE INTO tags VALUES (?1, ?2)")?;
    for tag in &run.tags {
        insert.execute([run_id, tag])?;
    }
    Ok(())
}

/// The name that a run was given, or one with more digits if another run has it.
pub(crate) fn free_name(
    rows: &Transaction<'_>,
    run_id: &str,
    given: &str,
) -> rusqlite::Result<String> {
    let mut taken = rows.prepare_cached("SELECT 1 FROM runs WHERE name = ?1 AND id <> ?2")?;
    let mut name = match given {
        "" => names::run_name(run_id),
        given => given.to_owned(),
    };
    for n_digits in 5..=60 {
        if !taken.exists([&name, run_id])? {
            break;
        }
        name = names::longer_run_name(run_id, n_digits);
    }
    Ok(name)
}

fn insert_stages(
    rows: &Transaction<'_>,
    run_id: &str,
    stages: &[StageRecord],
) -> rusqlite::Result<()> {
    let mut insert = rows.prepare_cached(
        "INSERT OR REPLACE INTO stages
         (run_id, name, position, kind, outcome, key, execution_id, artifact, reason, inputs, settings)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for stage in stages {
        insert.execute(params![
            run_id,
            stage.name,
            stage.position,
            stage.kind,
            stage.outcome.as_str(),
            stage.key.map(|key| key.to_string()),
            stage.execution_id,
            stage.artifact.map(|digest| digest.to_string()),
            stage.reason,
            stage.inputs,
            stage.settings,
        ])?;
    }
    Ok(())
}

/// An execution that another run adopts is that run's from then on, in whichever order the two journals
/// are read.
fn insert_execution(
    rows: &Transaction<'_>,
    run_id: &str,
    execution: &NewExecution,
) -> rusqlite::Result<()> {
    rows.prepare_cached(
        "INSERT INTO executions (id, run_id, stage, key, kind, attempt, status, started_at, device, threads, recipe)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'running', ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET run_id = excluded.run_id, stage = excluded.stage, key = excluded.key,
           kind = excluded.kind, attempt = excluded.attempt, status = excluded.status,
           started_at = excluded.started_at, device = excluded.device, threads = excluded.threads,
           recipe = excluded.recipe, ended_at = NULL, cpu_seconds = NULL, peak_memory_bytes = NULL,
           artifact = NULL, origin = NULL, error = NULL, place = NULL
         WHERE excluded.started_at >= executions.started_at",
    )?
    .execute(params![
        execution.id,
        run_id,
        execution.stage,
        execution.key,
        execution.kind,
        execution.attempt,
        execution.started_at,
        execution.device,
        execution.threads,
        execution.recipe,
    ])
    .map(drop)
}

fn end_execution(rows: &Transaction<'_>, execution: &str, end: &Finished) -> rusqlite::Result<()> {
    rows.prepare_cached(
        "UPDATE executions SET status = ?2, ended_at = ?3, cpu_seconds = ?4,
         peak_memory_bytes = ?5, artifact = ?6, origin = ?7, error = ?8 WHERE id = ?1",
    )?
    .execute(params![
        execution,
        end.status.as_str(),
        end.ended_at,
        end.cpu_seconds,
        end.peak_memory_bytes.map(|bytes| bytes as i64),
        end.artifact.map(|digest| digest.to_string()),
        end.origin,
        end.error,
    ])?;
    rows.prepare_cached("DELETE FROM progress WHERE execution_id = ?1")?
        .execute([execution])
        .map(drop)
}

fn insert_numbers(
    rows: &Transaction<'_>,
    execution: &str,
    curves: &[Curve],
    series: &mut SeriesNumbers,
) -> rusqlite::Result<()> {
    let mut insert =
        rows.prepare_cached("INSERT OR REPLACE INTO points VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for curve in curves {
        let number = series_number(rows, series, execution, &curve.name)?;
        for CurvePoint(step, Value(value), at) in &curve.points {
            let step = step.map_or(-1, |step| step as i64);
            let stored = value.is_finite().then_some(value);
            insert.execute(params![number, step, stored, word_of(*value), at])?;
        }
    }
    Ok(())
}

pub(crate) fn insert_progress(rows: &Transaction<'_>, row: &Progress) -> rusqlite::Result<()> {
    rows.prepare_cached(
        "INSERT OR REPLACE INTO progress VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        row.execution_id,
        row.done as i64,
        row.total.map(|total| total as i64),
        row.unit,
        row.note,
        row.from_done as i64,
        row.from_at,
        row.cpu_seconds,
        row.memory_bytes.map(|bytes| bytes as i64),
        row.at,
    ])
    .map(drop)
}

fn series_number(
    rows: &Transaction<'_>,
    series: &mut SeriesNumbers,
    execution: &str,
    name: &str,
) -> rusqlite::Result<i64> {
    let name_of = (execution.to_owned(), name.to_owned());
    if let Some(&number) = series.get(&name_of) {
        return Ok(number);
    }
    rows.prepare_cached("INSERT OR IGNORE INTO series (execution_id, name) VALUES (?1, ?2)")?
        .execute([execution, name])?;
    let number = rows
        .prepare_cached("SELECT id FROM series WHERE execution_id = ?1 AND name = ?2")?
        .query_row([execution, name], |row| row.get(0))?;
    series.insert(name_of, number);
    Ok(number)
}

fn cut(rows: &Transaction<'_>, execution: &str, after_step: u64) -> rusqlite::Result<()> {
    let after_step = after_step as i64;
    rows.prepare_cached(&format!(
        "DELETE FROM points WHERE (step > ?2 OR step = -1)
         AND series_id IN (SELECT id FROM series WHERE execution_id = ?1 AND {IS_NO_LOAD})"
    ))?
    .execute(params![execution, after_step])?;
    rows.prepare_cached(
        "DELETE FROM samples WHERE execution_id = ?1 AND (step > ?2 OR step IS NULL)",
    )?
    .execute(params![execution, after_step])
    .map(drop)
}

/// The word for a number that is none.
fn word_of(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("nan"),
        f64::INFINITY => Some("inf"),
        f64::NEG_INFINITY => Some("-inf"),
        _ => None,
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.0 == other.0 || (self.0.is_nan() && other.0.is_nan())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match word_of(self.0) {
            Some(word) => serializer.serialize_str(word),
            None => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(NumberOrWord)
    }
}

struct NumberOrWord;

impl de::Visitor<'_> for NumberOrWord {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, nan, inf or -inf")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value(value as f64))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value(value as f64))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Value, E> {
        match word {
            "nan" => Ok(Value(f64::NAN)),
            "inf" => Ok(Value(f64::INFINITY)),
            "-inf" => Ok(Value(f64::NEG_INFINITY)),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }
}
