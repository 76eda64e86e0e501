//! Writing history: what a run does, as it does it.
//!
//! Every function is one transaction and takes its times as values. Metrics are the only rows that
//! come by the thousand, so they are written in batches through prepared statements. Writing the
//! same row again replaces it, so that a resumed run repeats itself without doubling anything.

use crate::{
    Digest, Error, Millis, Registry,
    load::IS_NO_LOAD,
    names,
    rows::{Run, RunSource},
    words::{Level, Outcome, Status},
};
use rusqlite::{OptionalExtension, Transaction, params};

/// An execution as it begins.
#[derive(Debug, Clone, Default)]
pub struct NewExecution {
    pub id: String,
    pub run_id: String,
    pub stage: String,
    pub key: String,
    pub kind: String,
    pub attempt: u32,
    pub started_at: Millis,
    pub device: String,
    pub threads: Option<u32>,
    /// The key's explanation, one `path = value` a line.
    pub recipe: String,
}

/// An execution as it ends.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    pub status: Status,
    pub ended_at: Millis,
    pub cpu_seconds: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub artifact: Option<Digest>,
    /// Where a download came from, as JSON.
    pub origin: Option<String>,
    pub error: Option<String>,
}

/// A stage of a run, as far as it has come.
#[derive(Debug, Clone, Default)]
pub struct StageRecord {
    pub run_id: String,
    pub name: String,
    pub position: u32,
    pub kind: String,
    pub outcome: Outcome,
    pub key: Option<Digest>,
    /// The execution that made the artifact, of an earlier run if this one hit.
    pub execution_id: Option<String>,
    pub artifact: Option<Digest>,
    pub reason: Option<String>,
    /// `{"role": ["stage", ...]}`.
    pub inputs: String,
    /// The settings with defaults filled in, as JSON.
    pub settings: String,
}

/// One number of one execution.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRow {
    pub execution_id: String,
    pub name: String,
    /// Nothing for a final number.
    pub step: Option<u64>,
    pub value: f64,
    pub at: Millis,
}

impl Registry {
    /// Records a run as running and returns the name it got: `names::run_name`, with more digits if
    /// another run has that one. A run that is there already (`resume`) is set running again.
    /// Its name, status and end are the registry's own, whatever `run` says of them.
    pub fn insert_run(&self, run: &Run, source: &RunSource) -> Result<String, Error> {
        self.write(|transaction| {
            let named = "SELECT name FROM runs WHERE id = ?1";
            let known = transaction.query_row(named, [&run.id], |row| row.get(0)).optional()?;
            let Some(name) = known else {
                let name = free_name(transaction, &run.id)?;
                insert_run(transaction, run, source, &name)?;
                return Ok(name);
            };
            let again = "UPDATE runs SET status = 'running', ended_at = NULL, device = ?2, version = ?3 WHERE id = ?1";
            transaction.execute(again, params![run.id, run.device, run.version])?;
            Ok(name)
        })
    }

    /// Ends a run, or with [`Status::Running`] and no end, begins it again.
    pub fn set_run_status(
        &self,
        run_id: &str,
        status: Status,
        ended_at: Option<Millis>,
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let update = "UPDATE runs SET status = ?2, ended_at = ?3 WHERE id = ?1";
            transaction.execute(update, params![run_id, status.as_str(), ended_at])?;
            Ok(())
        })
    }

    pub fn insert_execution(&self, execution: &NewExecution) -> Result<(), Error> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO executions
                 (id, run_id, stage, key, kind, attempt, status, started_at, device, threads, recipe)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'running', ?7, ?8, ?9, ?10)",
                params![
                    execution.id,
                    execution.run_id,
                    execution.stage,
                    execution.key,
                    execution.kind,
                    execution.attempt,
                    execution.started_at,
                    execution.device,
                    execution.threads,
                    execution.recipe,
                ],
            )?;
            Ok(())
        })
    }

    pub fn finish_execution(&self, execution_id: &str, end: &Finished) -> Result<(), Error> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE executions SET status = ?2, ended_at = ?3, cpu_seconds = ?4,
                 peak_memory_bytes = ?5, artifact = ?6, origin = ?7, error = ?8 WHERE id = ?1",
                params![
                    execution_id,
                    end.status.as_str(),
                    end.ended_at,
                    end.cpu_seconds,
                    end.peak_memory_bytes.map(|bytes| bytes as i64),
                    end.artifact.map(|digest| digest.to_string()),
                    end.origin,
                    end.error,
                ],
            )?;
            let over = "DELETE FROM progress WHERE execution_id = ?1";
            transaction.execute(over, [execution_id])?;
            Ok(())
        })
    }

    /// Says where on a cluster an execution is.
    pub fn set_place(&self, execution_id: &str, place: &str) -> Result<(), Error> {
        self.write(|transaction| {
            let update = "UPDATE executions SET place = ?2 WHERE id = ?1";
            transaction.execute(update, [execution_id, place])?;
            Ok(())
        })
    }

    /// Writes a stage of a run, over what was there.
    pub fn upsert_stage(&self, stage: &StageRecord) -> Result<(), Error> {
        self.upsert_stages(std::slice::from_ref(stage))
    }

    /// Writes many stages at once, as a run that has just been planned does.
    pub fn upsert_stages(&self, stages: &[StageRecord]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO stages
                 (run_id, name, position, kind, outcome, key, execution_id, artifact, reason, inputs, settings)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for stage in stages {
                insert.execute(params![
                    stage.run_id,
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
        })
    }

    /// Says how a stage of a run stands and why, and leaves all else as it was written.
    pub fn set_stage_outcome(&self, stage: &StageRecord) -> Result<(), Error> {
        self.write(|transaction| {
            let update =
                "UPDATE stages SET outcome = ?3, reason = ?4 WHERE run_id = ?1 AND name = ?2";
            let outcome = stage.outcome.as_str();
            transaction.execute(
                update,
                params![stage.run_id, stage.name, outcome, stage.reason],
            )?;
            Ok(())
        })
    }

    /// Records the flattened settings of a run: `(name, value, is it a default)`.
    pub fn insert_params(
        &self,
        run_id: &str,
        params: &[(String, String, bool)],
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut insert = transaction
                .prepare_cached("INSERT OR REPLACE INTO params VALUES (?1, ?2, ?3, ?4)")?;
            for (name, value, is_default) in params {
                insert.execute(params![run_id, name, value, is_default])?;
            }
            Ok(())
        })
    }

    /// Writes a batch of numbers; of two for the same step the later one stays.
    pub fn append_metrics(&self, rows: &[MetricRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut insert = transaction
                .prepare_cached("INSERT OR REPLACE INTO points VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for row in rows {
                let series = self.series_number(transaction, &row.execution_id, &row.name)?;
                let (value, special) = encode(row.value);
                let step = row.step.map_or(-1, |step| step as i64);
                insert.execute(params![series, step, value, special, row.at])?;
            }
            Ok(())
        })
    }

    /// Forgets the numbers after `step` and the final ones, as an execution that goes on from a
    /// checkpoint must, and its samples after `step`.
    pub fn cut_metrics_after(&self, execution_id: &str, step: u64) -> Result<(), Error> {
        self.write(|transaction| {
            let delete = format!(
                "DELETE FROM points WHERE (step > ?2 OR step = -1)
                 AND series_id IN (SELECT id FROM series WHERE execution_id = ?1 AND {IS_NO_LOAD})"
            );
            transaction.execute(&delete, params![execution_id, step as i64])?;
            transaction.execute(
                "DELETE FROM samples WHERE execution_id = ?1 AND (step > ?2 OR step IS NULL)",
                params![execution_id, step as i64],
            )?;
            Ok(())
        })
    }

    /// Copies the numbers and samples of one execution to another, which goes on where it stopped.
    /// Each is then whole: how far the first came stays with the run that it was of.
    pub fn copy_metrics(&self, from_execution: &str, to_execution: &str) -> Result<(), Error> {
        let series = format!(
            "INSERT OR IGNORE INTO series (execution_id, name)
             SELECT ?2, name FROM series WHERE execution_id = ?1 AND {IS_NO_LOAD}"
        );
        let copies = [
            series.as_str(),
            "INSERT OR IGNORE INTO points
             SELECT ours.id, step, value, special, at
             FROM series AS theirs
             JOIN series AS ours ON ours.execution_id = ?2 AND ours.name = theirs.name
             JOIN points ON points.series_id = theirs.id
             WHERE theirs.execution_id = ?1",
            "INSERT INTO samples
             SELECT ?2, step, prompt, text, at FROM samples WHERE execution_id = ?1",
        ];
        self.write(|transaction| {
            for copy in copies {
                transaction.execute(copy, [from_execution, to_execution])?;
            }
            Ok(())
        })
    }

    /// Records texts that a model wrote: `(step, prompt, text)`.
    pub fn append_samples(
        &self,
        execution_id: &str,
        samples: &[(Option<u64>, String, String)],
        at: Millis,
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT INTO samples VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (step, prompt, text) in samples {
                let step = step.map(|step| step as i64);
                insert.execute(params![execution_id, step, prompt, text, at])?;
            }
            Ok(())
        })
    }

    pub fn append_event(
        &self,
        run_id: &str,
        stage: Option<&str>,
        level: Level,
        message: &str,
        at: Millis,
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?;
            insert.execute(params![run_id, stage, at, level.as_str(), message])?;
            Ok(())
        })
    }

    fn series_number(
        &self,
        transaction: &Transaction<'_>,
        execution_id: &str,
        name: &str,
    ) -> rusqlite::Result<i64> {
        let name_of = (execution_id.to_owned(), name.to_owned());
        if let Some(&number) = self.series.borrow().get(&name_of) {
            return Ok(number);
        }
        transaction
            .prepare_cached("INSERT OR IGNORE INTO series (execution_id, name) VALUES (?1, ?2)")?
            .execute([execution_id, name])?;
        let number = transaction
            .prepare_cached("SELECT id FROM series WHERE execution_id = ?1 AND name = ?2")?
            .query_row([execution_id, name], |row| row.get(0))?;
        self.series.borrow_mut().insert(name_of, number);
        Ok(number)
    }
}

fn insert_run(
    transaction: &Transaction<'_>,
    run: &Run,
    source: &RunSource,
    name: &str,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO runs (id, name, experiment, file, text, resolved, seed, status, started_at,
         host, device, git_commit, git_dirty, version, command, sweep)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            run.id,
            name,
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
        ],
    )?;
    let insert = "INSERT OR IGNORE INTO tags VALUES (?1, ?2)";
    for tag in &run.tags {
        transaction.execute(insert, [&run.id, tag])?;
    }
    Ok(())
}

fn free_name(transaction: &Transaction<'_>, run_id: &str) -> rusqlite::Result<String> {
    let taken = "SELECT count(*) FROM runs WHERE name = ?1";
    let mut name = names::run_name(run_id);
    for n_digits in 5..=60 {
        if transaction.query_row(taken, [&name], |row| row.get::<_, i64>(0))? == 0 {
            break;
        }
        name = names::longer_run_name(run_id, n_digits);
    }
    Ok(name)
}

/// SQLite stores no NaN, and an infinity is clearer as a word.
fn encode(value: f64) -> (Option<f64>, Option<&'static str>) {
    if value.is_nan() {
        (None, Some("nan"))
    } else if value == f64::INFINITY {
        (None, Some("inf"))
    } else if value == f64::NEG_INFINITY {
        (None, Some("-inf"))
    } else {
        (Some(value), None)
    }
}
