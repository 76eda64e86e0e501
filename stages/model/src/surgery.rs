//! Changes to a trained model before it is trained further: a larger vocabulary, more
//! or fewer positions, tensors that stay as they are.
//!
//! The model keeps its knowledge to the bit. A new token starts as the mean of the old
//! ones, which makes it unremarkable rather than loud: a random start would give it a
//! logit of its own in every context. New positions repeat the old ones from the
//! beginning, which keeps what is near in order, and training tells them apart.

use serde::Serialize;

use crate::{
    config::{ModelConfig, Positions},
    engine::{Tensor, Tensors},
};

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SurgeryError {
    #[error("the tokenizer has {to} tokens, and the model was trained with {from}")]
    SmallerVocabulary { from: usize, to: usize },
    #[error("`{0}` of the model cannot be changed by further training")]
    OtherShape(String),
    #[error("`{0}` is missing from the model's weights")]
    MissingTensor(String),
    #[error("the model has {n_layers} blocks, and `freeze.blocks` is {asked}")]
    FreezeBlocks { asked: usize, n_layers: usize },
}

impl SurgeryError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::SmallerVocabulary { .. } => {
                "use the model's own tokenizer, or one that adds tokens to it"
            }
            Self::OtherShape(_) => "leave it out, or pretrain a new model",
            Self::MissingTensor(_) => {
                "give a whole model: its `model.safetensors` and `tinylm.json`"
            }
            Self::FreezeBlocks { .. } => "freeze no more blocks than there are",
        }
    }
}

/// Tensors that further training leaves as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freeze {
    /// Token and position embeddings; a tied head with them.
    pub embeddings: bool,
    /// The first so many blocks.
    pub blocks: usize,
}

/// The start of a tensor's new rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewRows {
    Mean,
    Zero,
    Repeat,
}

/// Fits trained weights to a config that has more tokens, or more or fewer positions.
pub fn adapt_weights(
    weights: &mut Tensors,
    from: &ModelConfig,
    to: &ModelConfig,
) -> Result<(), SurgeryError> {
    check(from, to)?;
    for (name, rows) in resized(from, to) {
        let tensor = weights.get_mut(name);
        let tensor = tensor.ok_or_else(|| SurgeryError::MissingTensor(name.to_owned()))?;
        let new = match name {
            "positions.weight" => NewRows::Repeat,
            _ => NewRows::Mean,
        };
        resize(tensor, rows, new);
    }
    Ok(())
}

/// Fits moments to the weights that `adapt_weights` made: new rows have no history.
pub fn adapt_optimizer(
    optimizer: &mut Tensors,
    from: &ModelConfig,
    to: &ModelConfig,
) -> Result<(), SurgeryError> {
    check(from, to)?;
    for (name, rows) in resized(from, to) {
        let suffix = format!(".{name}");
        for (_, moment) in optimizer
            .iter_mut()
            .filter(|(key, _)| key.ends_with(&suffix))
        {
            resize(moment, rows, NewRows::Zero);
        }
    }
    Ok(())
}

/// Names of the tensors that stay as they are.
pub fn frozen(config: &ModelConfig, freeze: Freeze) -> Result<Vec<String>, SurgeryError> {
    let (asked, n_layers) = (freeze.blocks, config.n_layers);
    if asked > n_layers {
        return Err(SurgeryError::FreezeBlocks { asked, n_layers });
    }
    let in_frozen_block = |name: &str| {
        let block = name
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'));
        let block = block.and_then(|(number, _)| number.parse::<usize>().ok());
        block.is_some_and(|number| number < freeze.blocks)
    };
    let is_embedding = |name: &str| name == "embed.weight" || name == "positions.weight";
    let names = config
        .parameters()
        .into_iter()
        .map(|parameter| parameter.name);
    let frozen = |name: &String| in_frozen_block(name) || freeze.embeddings && is_embedding(name);
    Ok(names.filter(frozen).collect())
}

/// Names of the tensors that get new rows.
pub fn grown(from: &ModelConfig, to: &ModelConfig) -> Vec<String> {
    let resized = resized(from, to).into_iter();
    let grown =
        resized.filter(|(name, _)| *name != "positions.weight" || to.context > from.context);
    grown.map(|(name, _)| name.to_owned()).collect()
}

/// Tensors whose first dimension changes, and to what.
fn resized(from: &ModelConfig, to: &ModelConfig) -> Vec<(&'static str, usize)> {
    let mut resized = Vec::new();
    if from.vocab_size != to.vocab_size {
        resized.push(("embed.weight", to.vocab_size));
        if !to.tied {
            resized.push(("head.weight", to.vocab_size));
        }
        if to.bias.head {
            resized.push(("head.bias", to.vocab_size));
        }
    }
    if from.context != to.context && to.positions == Positions::Learned {
        resized.push(("positions.weight", to.context));
    }
    resized
}

fn check(from: &ModelConfig, to: &ModelConfig) -> Result<(), SurgeryError> {
    let (old, new) = (from.vocab_size, to.vocab_size);
    if new < old {
        return Err(SurgeryError::SmallerVocabulary { from: old, to: new });
    }
    let same = ModelConfig {
        vocab_size: to.vocab_size,
        context: to.context,
        ..from.clone()
    };
    match first_difference(&same, to) {
        None => Ok(()),
        Some(name) => Err(SurgeryError::OtherShape(name)),
    }
}

fn first_difference(one: &impl Serialize, two: &impl Serialize) -> Option<String> {
    let [one, two] = [serde_json::to_value(one), serde_json::to_value(two)];
    let (one, two) = (one.ok()?, two.ok()?);
    let names = one.as_object()?.keys();
    let mut different = names.filter(|name| one.get(name) != two.get(name));
    different.next().cloned()
}

fn resize(tensor: &mut Tensor, rows: usize, new: NewRows) {
    let [old_rows, rest @ ..] = &tensor.shape[..] else {
        return;
    };
    let (old_rows, width) = (*old_rows, rest.iter().product::<usize>());
    let fill = mean_row(&tensor.data, old_rows, width);
    tensor.data.truncate(rows * width);
    for row in old_rows..rows {
        match new {
            NewRows::Mean => tensor.data.extend_from_slice(&fill),
            NewRows::Zero => tensor.data.extend(std::iter::repeat_n(0.0, width)),
            NewRows::Repeat => {
                let from = row % old_rows.max(1) * width;
                tensor.data.extend_from_within(from..from + width);
            }
        }
    }
    tensor.shape[0] = rows;
}

fn mean_row(data: &[f32], n_rows: usize, width: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; width];
    for row in data.chunks_exact(width.max(1)) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let n_rows = n_rows.max(1) as f64;
    sums.into_iter().map(|sum| (sum / n_rows) as f32).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::bigram::config;

    fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
        let (shape, data) = (shape.to_vec(), data.to_vec());
        Tensor { shape, data }
    }

    /// Three tokens of width two, two positions, an untied head with a bias.
    fn trained() -> (ModelConfig, Tensors) {
        let mut config = config(3);
        config.context = 2;
        config.tied = false;
        config.bias.head = true;
        let rows = tensor(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let weights = [
            ("embed.weight", rows.clone()),
            ("head.weight", rows),
            ("head.bias", tensor(&[3], &[0.0, 1.0, 2.0])),
            ("positions.weight", tensor(&[2, 2], &[7.0, 8.0, 9.0, 10.0])),
            ("norm.weight", tensor(&[2], &[1.0, 1.0])),
        ];
        let weights = weights.map(|(name, tensor)| (name.to_owned(), tensor));
        (config, Tensors::from(weights))
    }

    #[test]
    fn new_tokens_are_the_mean_and_old_ones_stay() {
        let (from, before) = trained();
        let mut to = from.clone();
        to.vocab_size = 5;
        let mut weights = before.clone();
        adapt_weights(&mut weights, &from, &to).unwrap();
        let rows = tensor(&[5, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 3.0, 4.0, 3.0, 4.0]);
        assert_eq!(weights["embed.weight"], rows);
        assert_eq!(weights["head.weight"], rows);
        assert_eq!(
            weights["head.bias"],
            tensor(&[5], &[0.0, 1.0, 2.0, 1.0, 1.0])
        );
        assert_eq!(weights["positions.weight"], before["positions.weight"]);
        assert_eq!(weights["norm.weight"], before["norm.weight"]);
    }

    #[test]
    fn positions_are_sliced_or_repeated() {
        let (from, before) = trained();
        let positions = |context| {
            let mut to = from.clone();
            to.context = context;
            let mut weights = before.clone();
            adapt_weights(&mut weights, &from, &to).unwrap();
            weights["positions.weight"].clone()
        };
        assert_eq!(positions(1), tensor(&[1, 2], &[7.0, 8.0]));
        let long = tensor(
            &[5, 2],
            &[7.0, 8.0, 9.0, 10.0, 7.0, 8.0, 9.0, 10.0, 7.0, 8.0],
        );
        assert_eq!(positions(5), long);
    }

    #[test]
    fn the_moments_of_new_tokens_are_zero() {
        let (from, _) = trained();
        let mut to = from.clone();
        to.vocab_size = 4;
        let moment = tensor(&[3, 1], &[1.0, 2.0, 3.0]);
        let mut moments = Tensors::from([("adam.m.embed.weight".to_owned(), moment)]);
        adapt_optimizer(&mut moments, &from, &to).unwrap();
        assert_eq!(
            moments["adam.m.embed.weight"],
            tensor(&[4, 1], &[1.0, 2.0, 3.0, 0.0])
        );
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        let (from, weights) = trained();
        let refusal = |change: &dyn Fn(&mut ModelConfig)| {
            let mut to = from.clone();
            change(&mut to);
            adapt_weights(&mut weights.clone(), &from, &to)
                .unwrap_err()
                .to_string()
        };
        let refusals = [
            refusal(&|to| to.vocab_size = 2),
            refusal(&|to| to.d_ff = 8),
            refusal(&|to| to.positions = Positions::Rope),
        ];
        assert_snapshot!(refusals.join("\n"), @"
        the tokenizer has 2 tokens, and the model was trained with 3
        `d_ff` of the model cannot be changed by further training
        `positions` of the model cannot be changed by further training
        ");
    }

    #[test]
    fn frozen_tensors_are_named() {
        let mut config = config(3);
        config.n_layers = 12;
        let freeze = |embeddings, blocks| frozen(&config, Freeze { embeddings, blocks });
        assert_eq!(
            freeze(true, 0).unwrap(),
            ["embed.weight", "positions.weight"]
        );
        let first = freeze(false, 2).unwrap();
        assert!(
            first
                .iter()
                .all(|name| name.starts_with("blocks.0.") || name.starts_with("blocks.1."))
        );
        assert_eq!(first.len(), 2 * 6);
        let error = freeze(false, 13).unwrap_err();
        assert_snapshot!(error, @"the model has 12 blocks, and `freeze.blocks` is 13");
    }
}
