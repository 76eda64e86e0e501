//! Training with an adapter: its settings, and what they make of a model.
//!
//! All but the adapter stays as it is, with one exception: a tensor that got new rows (the embedding
//! and the head, where the shards have new tokens) is trained itself, since new rows that nothing
//! trains are the usual way in which an adapter teaches a model nothing.

use tinylm_model::{
    EngineSettings,
    adapter::{Adapter, Projection},
    config::ModelConfig,
    engine::Engine,
    folder::TrainedAdapter,
    surgery::grown,
};
use tinylm_pipeline::{
    StageError, StageIo,
    settings::{Choice as _, SettingError},
};

use super::settings::{AdapterSettings, FinetuneSettings, OptimizerStateName};
use crate::shared::training::{TrainSettings, explained};

/// Refuses what contradicts an adapter, and puts the names of matrices in order.
pub(super) fn check(settings: &mut FinetuneSettings) -> Result<(), SettingError> {
    let Some(adapter) = &mut settings.adapter else {
        return Ok(());
    };
    let help = "leave it out: an adapter starts anew, and is not gone on with";
    if settings.keep_optimizer {
        return Err(SettingError::new("keep_optimizer", "excludes `adapter`").help(help));
    }
    if settings.optimizer_state == OptimizerStateName::Keep {
        return Err(SettingError::new("optimizer_state", "excludes `adapter`").help(help));
    }
    if adapter.rank == 0 {
        return Err(SettingError::new("adapter.rank", "must be at least 1"));
    }
    if !(adapter.alpha > 0.0 && adapter.alpha <= 1e6) {
        return Err(SettingError::new(
            "adapter.alpha",
            "must be above 0 and at most 1e6",
        ));
    }
    let all = Projection::ALL.iter().copied();
    adapter.on = all.filter(|one| adapter.on.contains(one)).collect();
    match adapter.on.is_empty() {
        true => {
            Err(SettingError::new("adapter.on", "names no matrix").help("leave it out for all"))
        }
        false => Ok(()),
    }
}

/// What of a model is trained.
pub(super) struct Plan {
    pub(super) frozen: Vec<String>,
    pub(super) adapter: Option<TrainedAdapter>,
    settings: Option<Adapter>,
}

impl Plan {
    /// Plans the training of a model of shape `to`, some tensors of which are frozen in any case.
    pub(super) fn new(
        settings: Option<&AdapterSettings>,
        from: &ModelConfig,
        to: &ModelConfig,
        mut frozen: Vec<String>,
    ) -> Result<Self, StageError> {
        let Some(settings) = settings else {
            return Ok(Self {
                frozen,
                adapter: None,
                settings: None,
            });
        };
        if settings.rank > to.d_model {
            let (rank, width) = (settings.rank, to.d_model);
            let message = format!("`adapter.rank` is {rank}, and the model is {width} wide");
            return Err(StageError::new(message)
                .help("a rank of 4 to 64 is usual")
                .is_final());
        }
        let adapter = Adapter {
            rank: settings.rank,
            alpha: settings.alpha as f32,
            on: settings.on.clone(),
        };
        let grown = grown(from, to);
        let (mut on, mut whole) = (Vec::new(), Vec::new());
        for name in to.parameters().into_iter().map(|parameter| parameter.name) {
            match &name {
                name if frozen.contains(name) => (),
                name if adapter.is_on(name) => on.push(name.clone()),
                name if grown.contains(name) => whole.push(name.clone()),
                _ => frozen.push(name),
            }
        }
        if on.is_empty() {
            return Err(nothing_to_adapt(settings));
        }
        Ok(Self {
            frozen,
            adapter: Some(TrainedAdapter {
                rank: adapter.rank,
                alpha: adapter.alpha,
                on,
                whole,
            }),
            settings: Some(adapter),
        })
    }

    pub(super) fn engine_settings(&self, train: &TrainSettings) -> EngineSettings {
        EngineSettings {
            frozen: self.frozen.clone(),
            adapter: self.settings.clone(),
            ..train.engine_settings()
        }
    }

    /// Says how much is trained. Returns it where that is not the whole model.
    pub(super) fn tell(
        &self,
        engine: &dyn Engine,
        io: &StageIo,
    ) -> Result<Option<usize>, StageError> {
        let Some(adapter) = &self.adapter else {
            return Ok(None);
        };
        let config = engine.config();
        let n = engine
            .settings()
            .n_trained(config)
            .map_err(|error| explained(&error))?;
        let also = match &adapter.whole[..] {
            [] => String::new(),
            whole => format!(
                ", and `{}` themselves, which have new rows",
                whole.join("`, `")
            ),
        };
        let (rank, n_all) = (adapter.rank, config.n_params());
        let n_matrices = adapter.on.len();
        io.info(format!(
            "{n} numbers are trained, where the model has {n_all}: adapters of rank {rank} on {n_matrices} matrices{also}"
        ));
        Ok(Some(n))
    }
}

fn nothing_to_adapt(settings: &AdapterSettings) -> StageError {
    let names: Vec<&str> = settings.on.iter().map(|one| one.word()).collect();
    let message = format!(
        "`adapter.on` names `{}`, and the model has nothing of the kind that is not frozen",
        names.join("`, `")
    );
    StageError::new(message)
        .help("leave `adapter.on` out for all of them")
        .is_final()
}
