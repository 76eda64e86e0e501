//! The work on one stage of one run, once everything that it reads is there.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use tinylm_registry::Digest;

use crate::{
    desk::Desk, error::StageError, executor::Together, parts::Part, runner::Runner,
    settings::Device, spec::StageSpec, wish::Wish,
};

pub(crate) struct Work<'a> {
    pub(crate) runner: &'a Runner<'a>,
    pub(crate) desk: &'a Desk<'a>,
    pub(crate) stage: &'a StageSpec,
    /// Set once another stage failed.
    pub(crate) stop: &'a AtomicBool,
    pub(crate) n_threads: usize,
    /// The contents of what it reads, role by role.
    pub(crate) inputs: Vec<(String, Vec<Digest>)>,
    /// The part of a stage that it is, if it is one.
    pub(crate) part: Option<&'a Part>,
    pub(crate) together: Option<Together>,
}

impl Work<'_> {
    pub(crate) fn wish(&self) -> Wish {
        self.runner.interrupt.wish(self.stop)
    }

    /// Returns what of its inputs is in the key.
    pub(crate) fn keyed(&self) -> Vec<(String, Vec<Digest>)> {
        self.part.map_or_else(|| self.inputs.clone(), Part::keyed)
    }

    /// Returns where this stage computes.
    pub(crate) fn device(&self) -> Device {
        let device = self.runner.options.device.of_stage(self.is_shared());
        self.stage.kind.device(device)
    }

    /// Whether several processes carry it out together.
    pub(crate) fn is_shared(&self) -> bool {
        let resources = &self.stage.resources;
        resources.ranks.max(resources.nodes).is_some_and(|n| n > 1)
    }

    /// Returns the folder of all attempts at a key.
    pub(crate) fn folder(&self, key: &Digest) -> Result<PathBuf, StageError> {
        absolute(&self.runner.context.home.work_dir(key))
    }

    pub(crate) fn forget_checkpoints(&self, key: &Digest) -> Result<(), StageError> {
        let checkpoints = self.runner.context.home.checkpoints_dir(key);
        checkpoints
            .remove()
            .map_err(|error| StageError::from(error).is_final())
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, StageError> {
    std::path::absolute(path).map_err(|error| StageError::io(path, &error))
}
