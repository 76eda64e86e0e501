//! The few coarse operations that a transformer is made of.
//!
//! The model is written once against this trait. `plain` is its definition, in dfdx's own
//! operations on any dfdx device; `fused` is what people run on a CPU. The cut is where
//! fusing pays: each operation reads and writes its activations once, and keeps for the
//! backward pass only what it must.

use crate::config::{ModelConfig, Precision};
use crate::engine::{Batch, EngineError, Pass, Score};
use crate::noise::{Dropout, Mask, Place};

pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// Known to every operation of one pass.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) batch: &'a Batch,
    pub(crate) precision: Precision,
    /// `None` outside training: nothing is dropped and nothing smoothed.
    pub(crate) training: Option<Training>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Training {
    pub(crate) pass: Pass,
    pub(crate) dropout: Dropout,
    pub(crate) label_smoothing: f32,
}

impl Scene<'_> {
    pub(crate) fn n_tokens(&self) -> usize {
        self.batch.n_rows * self.batch.len
    }

    pub(crate) fn mask(&self, place: Place) -> Option<Mask> {
        let Training { pass, dropout, .. } = self.training?;
        let rate = match place {
            Place::Embedding => dropout.embedding,
            Place::Attention(_) => dropout.attention,
            Place::AfterAttention(_) | Place::AfterMlp(_) => dropout.residual,
            Place::Mlp(_) => dropout.mlp,
        };
        Mask::new(rate, place, pass, self.batch)
    }

    pub(crate) fn smoothing(&self) -> f32 {
        self.training
            .map_or(0.0, |training| training.label_smoothing)
    }

    /// One more than the largest position in the batch.
    pub(crate) fn n_positions(&self) -> usize {
        self.batch
            .positions
            .iter()
            .max()
            .map_or(0, |&p| usize::from(p) + 1)
    }
}

/// The step after a linear map.
pub(crate) enum Then<'a, T> {
    Nothing,
    /// The config's activation, then dropout at this place.
    Activate(Place),
    /// Dropout at this place, then the residual stream is added.
    Add(&'a T, Place),
}

/// Values are matrices of one row per token, or weights as stored (vectors are one row).
pub(crate) trait Ops {
    type T: Clone;

    /// Looks up tokens, scales, adds positions, drops.
    fn embed(&mut self, table: &Self::T, positions: Option<&Self::T>) -> Result<Self::T>;

    fn norm(&mut self, x: &Self::T, gain: &Self::T, bias: Option<&Self::T>) -> Result<Self::T>;

    /// `x weight^T + bias`, and what follows.
    fn linear(
        &mut self,
        x: &Self::T,
        weight: &Self::T,
        bias: Option<&Self::T>,
        then: Then<Self::T>,
    ) -> Result<Self::T>;

    /// `silu(gate) * up`, then dropout at this place.
    fn gate(&mut self, gate: &Self::T, up: &Self::T, place: Place) -> Result<Self::T>;

    /// Attention inside documents, with rotary positions if the config has them.
    fn attention(&mut self, qkv: &Self::T, place: Place) -> Result<Self::T>;
}

/// The operation that a pass over a batch with targets ends in.
pub(crate) trait Judge: Ops {
    /// The weighted sum of cross-entropies of the head's logits; ends the pass.
    fn loss(&mut self, x: &Self::T, weight: &Self::T, bias: Option<&Self::T>) -> Result<f64>;

    /// How well each target is predicted.
    fn scores(
        &mut self,
        x: &Self::T,
        weight: &Self::T,
        bias: Option<&Self::T>,
    ) -> Result<Vec<Score>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_dropout_is_that_of_its_places_and_no_others() {
        let batch = Batch {
            n_rows: 1,
            len: 2,
            ..Batch::default()
        };
        let config = crate::bigram::config(3);
        let masked = |dropout| {
            let training = Training {
                pass: Pass { seed: 1, step: 1 },
                dropout,
                label_smoothing: 0.0,
            };
            let scene = Scene {
                config: &config,
                batch: &batch,
                precision: Precision::F32,
                training: Some(training),
            };
            let places = [
                Place::Embedding,
                Place::Attention(1),
                Place::AfterAttention(1),
                Place::Mlp(1),
                Place::AfterMlp(1),
            ];
            places.map(|place| scene.mask(place).is_some())
        };
        let (none, rate) = (Dropout::default(), 0.5);
        let embedding = Dropout {
            embedding: rate,
            ..none
        };
        let attention = Dropout {
            attention: rate,
            ..none
        };
        let residual = Dropout {
            residual: rate,
            ..none
        };
        let mlp = Dropout { mlp: rate, ..none };
        assert_eq!(masked(none), [false; 5]);
        assert_eq!(masked(embedding), [true, false, false, false, false]);
        assert_eq!(masked(attention), [false, true, false, false, false]);
        assert_eq!(masked(residual), [false, false, true, false, true]);
        assert_eq!(masked(mlp), [false, false, false, true, false]);
    }
}
