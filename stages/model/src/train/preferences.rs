//! A training on pairs of answers: the reference's sums, found once, and its steps and validations.

use super::error::TrainError;
use crate::{
    batches::Batches,
    checkpoint::Checkpoints,
    dpo::{Dpo, Reference, Rewards, Sums, sums},
    engine::{Batch, Engine, EngineError, Pass},
    validation::Validation,
};

/// The reference's sums, beside the checkpoints. They can be found again at any time, since an engine
/// holds the reference until a checkpoint is taken up.
const NAME: &str = "reference.json";

pub(super) struct Preferences {
    dpo: Dpo,
    reference: Reference,
}

impl Preferences {
    /// Reads the sums of all rows, or has `engine` find them; `None` when `keep_going` says no.
    pub(super) fn find(
        dpo: Dpo,
        engine: &mut dyn Engine,
        (train, validation): (&Batches<'_>, Option<&Batches<'_>>),
        checkpoints: &Checkpoints,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, TrainError> {
        let n_validation = validation.map_or(0, |batches| batches.evaluated().len());
        let fits = |known: &Reference| {
            (known.train.len(), known.validation.len()) == (train.n_rows(), n_validation)
        };
        let kept = checkpoints.kept(NAME)?.unwrap_or_default();
        if let Some(reference) = serde_json::from_slice(&kept).ok().filter(fits) {
            return Ok(Some(Self { dpo, reference }));
        }
        let all: Vec<u32> = (0..train.n_rows() as u32).collect();
        let Some(train) = sums_of(engine, train, &all, keep_going)? else {
            return Ok(None);
        };
        let validation = match validation {
            None => Some(Vec::new()),
            Some(batches) => sums_of(engine, batches, batches.evaluated(), keep_going)?,
        };
        let Some(validation) = validation else {
            return Ok(None);
        };
        let reference = Reference { train, validation };
        let text = serde_json::to_vec(&reference).map_err(TrainError::State)?;
        checkpoints.keep(NAME, &text)?;
        Ok(Some(Self { dpo, reference }))
    }

    /// Adds to the gradients of a micro-batch of a step that reads these rows.
    pub(super) fn accumulate(
        &self,
        engine: &mut dyn Engine,
        batch: Batch,
        pass: Pass,
        rows: &[u32],
        rewards: &mut Rewards,
    ) -> Result<(), EngineError> {
        let rows = &rows[batch.row_offset..batch.row_offset + batch.n_rows];
        let reference = rows.iter().map(|&row| self.reference.train[row as usize]);
        self.dpo.accumulate(engine, batch, pass, reference, rewards)
    }

    /// As `validation::validate`, of pairs.
    pub(super) fn validate(
        &self,
        engine: &mut dyn Engine,
        batches: &Batches<'_>,
        micro_batch: usize,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Validation>, EngineError> {
        let mut rewards = Rewards::default();
        let mut reference = self.reference.validation.iter().copied();
        for read in batches.evaluation(micro_batch) {
            if !keep_going() {
                return Ok(None);
            }
            for (now, reference) in sums(engine, &read.batch)?.into_iter().zip(&mut reference) {
                self.dpo.judge(now, reference, &mut rewards);
            }
        }
        Ok(Some(Validation {
            all: rewards.loss(),
            rewards,
            ..Validation::default()
        }))
    }
}

/// Row by row, so that the sums do not depend on how many are computed at a time.
fn sums_of(
    engine: &mut dyn Engine,
    batches: &Batches<'_>,
    rows: &[u32],
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<Sums>>, EngineError> {
    let mut found = Vec::with_capacity(rows.len());
    for &row in rows {
        if !keep_going() {
            return Ok(None);
        }
        found.extend(sums(engine, &batches.alone(row))?);
    }
    Ok(Some(found))
}
