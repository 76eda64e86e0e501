//! One attempt at a stage: a folder, a job, and an artifact if it worked.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;
use tinylm_registry::{Digest, KeyRecord, Link, Place};

use crate::{
    commit::{Draft, Told},
    context::Sources,
    error::StageError,
    event::{Event, joined},
    executor::{Job, JobId},
    follow::{Done, Follow},
    io::{Assignment, Input, Ranks},
    metrics::Metrics,
    observe::{Execution, Happened},
    order::Order,
    usage::Usage,
    work::{Work, absolute},
};

pub(crate) struct Attempt<'a> {
    pub(crate) work: &'a Work<'a>,
    pub(crate) sources: &'a Sources,
    pub(crate) execution: Execution,
}

/// The result of an attempt that worked.
pub(crate) struct Made {
    pub(crate) artifact: Digest,
    pub(crate) bytes: u64,
    pub(crate) execution_id: String,
    pub(crate) metrics: Metrics,
}

/// How an attempt came out, and the pause before another one where there will be one.
pub(crate) type Tried = (Result<Made, StageError>, Option<Duration>);

impl Attempt<'_> {
    /// Carries the attempt out, or goes on listening to the job that is at it already. The outer
    /// error is ours (no room for a folder), the inner one the stage's; `again` says of that one
    /// whether and when another attempt follows.
    pub(crate) fn carry_out(
        &self,
        job: Option<JobId>,
        again: &dyn Fn(&StageError) -> Option<Duration>,
    ) -> Result<Tried, StageError> {
        let started = Instant::now();
        let folder = self.begin()?;
        let assignment = self.assignment(&folder)?;
        let job = match job {
            Some(job) => job,
            None => self.submit(&folder, &self.log(), &assignment)?,
        };
        let (done, usage, origin) = self.listen(job);
        let result = self.commit(&folder, &assignment, done, origin.clone(), started);
        Ok(self.end(&folder, result, usage, origin.as_ref(), again))
    }

    /// Makes the folder, and tells that the attempt begins.
    pub(crate) fn begin(&self) -> Result<Place, StageError> {
        let folder = self.folder()?;
        self.see(&Happened::Started(&self.execution));
        // Written before there is anything to give, so that no moment of a kill can lose it.
        let pusher = self.work.runner.context.pusher.as_ref();
        pusher.inspect(|pusher| pusher.owe(&self.execution.key));
        Ok(folder)
    }

    /// Tidies up, gives what was made to the remote store, and tells how it came out.
    pub(crate) fn end(
        &self,
        folder: &Place,
        result: Result<KeyRecord, StageError>,
        usage: Usage,
        origin: Option<&Value>,
        again: &dyn Fn(&StageError) -> Option<Duration>,
    ) -> Tried {
        let result = result.map(made);
        self.clean_up(folder, &self.log(), result.is_ok());
        match (self.work.runner.context.pusher.as_ref(), &result) {
            (Some(pusher), Ok(_)) => pusher.push(&self.execution.key),
            (Some(pusher), Err(_)) => pusher.forgive(&self.execution.key),
            (None, _) => {}
        }
        let pause = result.as_ref().err().and_then(again);
        self.tell_end(&result, usage, origin, pause);
        (result, pause)
    }

    /// Makes files of parts, and those in the folder, the answer to the key.
    pub(crate) fn gather(
        &self,
        folder: &Place,
        links: &[Link],
        parts: Vec<Digest>,
        told: Told,
    ) -> Result<KeyRecord, StageError> {
        let home = &self.work.runner.context.home;
        let draft = self.draft();
        draft.check_inputs(home, &self.assignment(folder)?.inputs)?;
        draft.gather(home, &folder.below("out"), links, parts, told)
    }

    fn log(&self) -> Place {
        self.work.runner.context.home.log_path(&self.execution.id)
    }

    fn submit(
        &self,
        folder: &Place,
        log: &Place,
        assignment: &Assignment,
    ) -> Result<JobId, StageError> {
        let stage = self.work.stage;
        self.work.runner.executor.submit(&Job {
            order: Order {
                kind: stage.kind.name.to_owned(),
                settings: stage.with.clone(),
                watch: stage.watch.clone(),
                assignment: assignment.clone(),
            },
            draft: self.draft(),
            resources: stage.resources.clone(),
            is_light: !stage.kind.heavy && stage.resources.is_empty(),
            home: self.work.runner.context.home.clone(),
            work: self.work.folder(&self.execution.key)?,
            folder: folder.clone(),
            log: log.clone(),
            together: self.work.together.clone(),
        })
    }

    fn draft(&self) -> Draft {
        let (execution, options) = (&self.execution, self.work.runner.options);
        Draft {
            key: execution.key,
            kind: execution.kind.to_owned(),
            recipe: execution.recipe.clone(),
            run_id: options.run_id.clone(),
            run_name: options.run_name.clone(),
            stage: execution.stage.clone(),
            execution_id: execution.id.clone(),
            host: options.host.clone(),
            device: execution.device.to_string(),
        }
    }

    /// Passes on what the stage says until it ends; keeps where its bytes came from.
    fn listen(&self, job: JobId) -> (Result<Done, StageError>, Usage, Option<Value>) {
        let mut origin = None;
        let mut on_event = |event: Event| {
            if let Event::Origin { origin: told } = &event {
                origin = Some(joined(origin.take(), told));
            }
            self.see(&Happened::Said {
                stage: &self.work.stage.name,
                execution_id: &self.execution.id,
                event: &event,
            });
        };
        let follow = Follow::new(self.work.desk, job, self.work.stage.timeout);
        let (result, usage) = follow.until_over(&|| self.work.wish(), &mut on_event);
        (result, usage, origin)
    }

    fn see(&self, happened: &Happened) {
        self.work.runner.observer.see(happened);
    }

    fn folder(&self) -> Result<Place, StageError> {
        let home = &self.work.runner.context.home;
        let folder = home.attempt_dir(&self.execution.key, &self.execution.id);
        for inner in [
            folder.below("out"),
            home.checkpoints_dir(&self.execution.key),
        ] {
            inner.create_folder()?;
        }
        Ok(folder)
    }

    fn assignment(&self, folder: &Place) -> Result<Assignment, StageError> {
        let mut inputs = Vec::new();
        for ((role, names), (_, digests)) in self.work.stage.inputs.iter().zip(&self.work.inputs) {
            for (name, digest) in names.iter().zip(digests) {
                inputs.push(Input {
                    role: role.clone(),
                    stage: name.clone(),
                    path: absolute(&self.work.runner.context.store.files(digest))?,
                    digest: digest.to_string(),
                });
            }
        }
        Ok(Assignment {
            inputs,
            local_files: self.sources.local_files.clone(),
            pins: self.sources.pins.clone(),
            out: absolute(&folder.join("out"))?,
            checkpoints: absolute(
                &self
                    .work
                    .runner
                    .context
                    .home
                    .checkpoints_dir(&self.execution.key),
            )?,
            seed: self.work.stage.seed,
            threads: self.work.n_threads,
            device: self.execution.device,
            ranks: Ranks {
                each: self.work.stage.resources.ranks.unwrap_or(1) as usize,
                ..Ranks::default()
            },
        })
    }

    /// Makes the outputs the answer to the key, if the work was done and still counts.
    fn commit(
        &self,
        folder: &Place,
        assignment: &Assignment,
        done: Result<Done, StageError>,
        origin: Option<Value>,
        started: Instant,
    ) -> Result<KeyRecord, StageError> {
        let metrics = match done {
            Ok(Done::Committed(record)) => return Ok(*record),
            Ok(Done::Outputs(metrics)) => Ok(metrics),
            Err(error) => Err(error),
        };
        let home = &self.work.runner.context.home;
        let draft = self.draft();
        draft.check_inputs(home, &assignment.inputs)?;
        let told = Told {
            metrics: metrics?,
            origin,
            took: started.elapsed(),
        };
        draft.commit(home, &folder.below("out"), told)
    }

    /// Removes what the attempt needed only while it ran. What cannot be removed is `gc`'s.
    fn clean_up(&self, folder: &Place, log: &Place, is_made: bool) {
        if is_made {
            self.work
                .runner
                .context
                .home
                .work_dir(&self.execution.key)
                .remove()
                .ok();
        } else {
            folder.remove().ok();
        }
        if fs::metadata(log).is_ok_and(|log| log.len() == 0) {
            log.remove().ok();
        }
    }

    fn tell_end(
        &self,
        result: &Result<Made, StageError>,
        usage: Usage,
        origin: Option<&Value>,
        pause: Option<Duration>,
    ) {
        let nothing = Metrics::default();
        self.see(&Happened::Ended {
            execution: &self.execution,
            result: result.as_ref().map(|made| made.artifact),
            usage,
            metrics: result.as_ref().map_or(&nothing, |made| &made.metrics),
            origin,
            retry_in_seconds: pause.map(|pause| pause.as_secs()),
        });
    }
}

fn made(record: KeyRecord) -> Made {
    Made {
        artifact: record.artifact,
        bytes: record.artifact_bytes,
        execution_id: record.execution_id,
        metrics: Metrics(record.metrics),
    }
}
