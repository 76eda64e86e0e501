//! Writing history: what a run does, as it does it.
//!
//! Every function is one line of the run's journal (`entry.rs`) and one transaction, and takes its
//! times as values. Metrics are the only numbers that come by the thousand, so they are written in
//! batches. Writing the same row again replaces it, so that a resumed run repeats itself without
//! doubling anything.

use rusqlite::OptionalExtension;

use crate::{
    Error, Millis, Registry,
    db::Failure,
    entry::{self, Begun, Entry},
    history,
    load::is_load,
    records::{Finished, MetricRow, NewExecution, StageRecord},
    rows::{Run, RunSource},
    words::{Level, Status},
};

impl Registry {
    /// Records a run as running and returns the name it got: `names::run_name`, with more digits if
    /// another run has that one. A run that is there already (`resume`) is set running again.
    /// Its name, status and end are the registry's own, whatever `run` says of them.
    pub fn insert_run(&self, run: &Run, source: &RunSource) -> Result<String, Error> {
        self.write(|rows| -> Result<String, Failure> {
            let named = "SELECT name FROM runs WHERE id = ?1";
            let known = rows
                .query_row(named, [&run.id], |row| row.get(0))
                .optional()?;
            if let Some(name) = known {
                let again = Entry::Again {
                    device: run.device.clone(),
                    version: run.version.clone(),
                };
                self.record_in(rows, &run.id, &again)?;
                return Ok(name);
            }
            let name = entry::free_name(rows, &run.id, "")?;
            let last = "SELECT ifnull(max(rowid), 0) FROM runs";
            let begun = Entry::Begun(Box::new(Begun {
                run: Run {
                    name: name.clone(),
                    ..run.clone()
                },
                source: source.clone(),
                order: rows.query_row(last, [], |row| row.get::<_, i64>(0))? + 1,
            }));
            self.record_in(rows, &run.id, &begun)?;
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
        self.record(run_id, &Entry::Status { status, ended_at })
    }

    pub fn insert_execution(&self, execution: &NewExecution) -> Result<(), Error> {
        // Of two beginnings the later one holds, whatever the clocks of two machines say.
        let known = self.execution(&execution.id)?;
        let after = known.filter(|known| known.run_id != execution.run_id);
        let after = after.map_or(Millis::MIN, |known| known.started_at + 1);
        let execution = NewExecution {
            started_at: execution.started_at.max(after),
            ..execution.clone()
        };
        self.record(&execution.run_id.clone(), &Entry::Execution(execution))
    }

    pub fn finish_execution(&self, execution_id: &str, end: &Finished) -> Result<(), Error> {
        let ended = Entry::Ended {
            execution: execution_id.to_owned(),
            end: end.clone(),
        };
        self.record_of(execution_id, &ended)
    }

    /// Says where on a cluster an execution is.
    pub fn set_place(&self, execution_id: &str, place: &str) -> Result<(), Error> {
        let placed = Entry::Place {
            execution: execution_id.to_owned(),
            place: place.to_owned(),
        };
        self.record_of(execution_id, &placed)
    }

    /// Writes a stage of a run, over what was there.
    pub fn upsert_stage(&self, stage: &StageRecord) -> Result<(), Error> {
        self.upsert_stages(std::slice::from_ref(stage))
    }

    /// Writes many stages of one run at once, as a run that has just been planned does.
    pub fn upsert_stages(&self, stages: &[StageRecord]) -> Result<(), Error> {
        let Some(first) = stages.first() else {
            return Ok(());
        };
        self.record(&first.run_id, &Entry::Stages(stages.to_vec()))
    }

    /// Says how a stage of a run stands and why, and leaves all else as it was written.
    pub fn set_stage_outcome(&self, stage: &StageRecord) -> Result<(), Error> {
        let outcome = Entry::Outcome {
            stage: stage.name.clone(),
            outcome: stage.outcome,
            reason: stage.reason.clone(),
        };
        self.record(&stage.run_id, &outcome)
    }

    /// Records the flattened settings of a run: `(name, value, is it a default)`.
    pub fn insert_params(
        &self,
        run_id: &str,
        params: &[(String, String, bool)],
    ) -> Result<(), Error> {
        self.record(run_id, &Entry::Params(params.to_vec()))
    }

    /// Writes a batch of numbers; of two for the same step the later one stays.
    pub fn append_metrics(&self, rows: &[MetricRow]) -> Result<(), Error> {
        rows.chunk_by(|one, next| one.execution_id == next.execution_id)
            .try_for_each(|rows| {
                let execution = &rows[0].execution_id;
                self.record_of(execution, &Entry::numbers(execution, rows))
            })
    }

    /// Forgets the numbers after `step` and the final ones, as an execution that goes on from a
    /// checkpoint must, and its samples after `step`.
    pub fn cut_metrics_after(&self, execution_id: &str, step: u64) -> Result<(), Error> {
        let cut = Entry::Cut {
            execution: execution_id.to_owned(),
            after_step: step,
        };
        self.record_of(execution_id, &cut)
    }

    /// Copies the numbers and samples of one execution to another, which goes on where it stopped.
    /// Each is then whole, in its own run's journal too: how far the first came stays with the run
    /// that it was of.
    pub fn copy_metrics(&self, from_execution: &str, to_execution: &str) -> Result<(), Error> {
        let copies = self.write(|rows| -> Result<Vec<Entry>, Failure> {
            let mut lines = history::numbers(rows, from_execution)?;
            lines.extend(history::samples(rows, from_execution)?);
            Ok(lines)
        })?;
        for mut copy in copies {
            match &mut copy {
                Entry::Numbers { execution, curves } => {
                    to_execution.clone_into(execution);
                    curves.retain(|curve| !is_load(&curve.name));
                }
                Entry::Samples { execution, .. } => to_execution.clone_into(execution),
                _ => {}
            }
            self.record_of(to_execution, &copy)?;
        }
        Ok(())
    }

    /// Records texts that a model wrote: `(step, prompt, text)`.
    pub fn append_samples(
        &self,
        execution_id: &str,
        samples: &[(Option<u64>, String, String)],
        at: Millis,
    ) -> Result<(), Error> {
        let written = Entry::Samples {
            execution: execution_id.to_owned(),
            at,
            samples: samples.to_vec(),
        };
        self.record_of(execution_id, &written)
    }

    pub fn append_event(
        &self,
        run_id: &str,
        stage: Option<&str>,
        level: Level,
        message: &str,
        at: Millis,
    ) -> Result<(), Error> {
        let event = Entry::Event {
            stage: stage.map(str::to_owned),
            level,
            message: message.to_owned(),
            at,
        };
        self.record(run_id, &event)
    }
}
