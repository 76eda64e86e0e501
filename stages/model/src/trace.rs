//! The forward pass written down: operations on named values, in order.
//!
//! For whoever lets another program compute the model. It is recorded while [`forward`] runs, so
//! there is no second description of the transformer that could differ from the first.

use crate::{
    config::ModelConfig,
    model::{Weights, forward},
    noise::Place,
    ops::{Ops, Result, Then},
};

/// The name of the last step's value.
pub const LOGITS: &str = "logits";

/// An operation and the name of the value that it makes; no two make the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub makes: String,
    pub operation: Operation,
}

/// An operation on values that earlier steps made and on tensors of the model, both by name.
/// What each computes is defined in [`config`](crate::config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Looks tokens up, scales them, adds positions.
    Embed {
        table: String,
        positions: Option<String>,
    },
    Norm {
        x: String,
        gain: String,
        bias: Option<String>,
    },
    /// `x weight^T + bias`.
    Linear {
        x: String,
        weight: String,
        bias: Option<String>,
    },
    /// The config's activation.
    Activate {
        x: String,
    },
    /// `silu(gate) * up`.
    Gate {
        gate: String,
        up: String,
    },
    Add {
        x: String,
        to: String,
    },
    /// The next layer's attention, with rotary positions if the config has them.
    Attention {
        qkv: String,
    },
}

/// Returns the steps from tokens to logits for a config that has been checked.
pub fn trace(config: &ModelConfig) -> Vec<Step> {
    let parameters = config.parameters();
    let find = |name: &str| {
        let mut known = parameters.iter();
        known.any(|p| p.name == name).then(|| name.to_owned())
    };
    let weights = Weights::find(config, find).expect("a config lists every tensor it needs");
    let mut trace = Trace(Vec::new());
    let x = forward(&mut trace, config, &weights).expect("nothing is computed that could fail");
    let (weight, bias) = weights.head();
    let (weight, bias) = (weight.clone(), bias.cloned());
    trace.step(LOGITS, Operation::Linear { x, weight, bias });
    trace.0
}

struct Trace(Vec<Step>);

impl Trace {
    fn step(&mut self, makes: impl Into<String>, operation: Operation) -> String {
        let makes = makes.into();
        let step = Step {
            makes: makes.clone(),
            operation,
        };
        self.0.push(step);
        makes
    }
}

impl Ops for Trace {
    type T = String;

    fn embed(&mut self, table: &String, positions: Option<&String>) -> Result<String> {
        let (table, positions) = (table.clone(), positions.cloned());
        Ok(self.step(part(&table), Operation::Embed { table, positions }))
    }

    fn norm(&mut self, x: &String, gain: &String, bias: Option<&String>) -> Result<String> {
        let (x, gain, bias) = (x.clone(), gain.clone(), bias.cloned());
        Ok(self.step(part(&gain), Operation::Norm { x, gain, bias }))
    }

    fn linear(
        &mut self,
        x: &String,
        weight: &String,
        bias: Option<&String>,
        then: Then<String>,
    ) -> Result<String> {
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.cloned());
        let x = self.step(part(&weight), Operation::Linear { x, weight, bias });
        Ok(match then {
            Then::Nothing => x,
            Then::Activate(_) => self.step(format!("{x}.active"), Operation::Activate { x }),
            Then::Add(to, _) => {
                let to = to.clone();
                self.step(format!("{x}.sum"), Operation::Add { x, to })
            }
        })
    }

    fn gate(&mut self, gate: &String, up: &String, _: Place) -> Result<String> {
        let (gate, up) = (gate.clone(), up.clone());
        let makes = format!("{}.gated", part(&gate));
        Ok(self.step(makes, Operation::Gate { gate, up }))
    }

    fn attention(&mut self, qkv: &String, _: Place) -> Result<String> {
        let qkv = qkv.clone();
        let makes = format!("{}.attention", part(&qkv));
        Ok(self.step(makes, Operation::Attention { qkv }))
    }
}

/// The part of the model that a tensor or a value belongs to: its name without the last word.
fn part(name: &str) -> String {
    name.rsplit_once('.')
        .map_or(name, |(part, _)| part)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tinylm_settings::Choice;

    use super::*;
    use crate::config::Preset;

    impl Operation {
        fn reads(&self) -> Vec<&String> {
            match self {
                Operation::Embed { table, positions } => [Some(table), positions.as_ref()]
                    .into_iter()
                    .flatten()
                    .collect(),
                Operation::Norm { x, gain, bias } => {
                    [x, gain].into_iter().chain(bias.as_ref()).collect()
                }
                Operation::Linear { x, weight, bias } => {
                    [x, weight].into_iter().chain(bias.as_ref()).collect()
                }
                Operation::Activate { x } | Operation::Attention { qkv: x } => vec![x],
                Operation::Gate { gate, up } => vec![gate, up],
                Operation::Add { x, to } => vec![x, to],
            }
        }
    }

    #[test]
    fn every_tensor_is_read_and_no_value_before_it_is_made_or_made_twice() {
        for &preset in Preset::ALL {
            let config = preset.config(50);
            let parameters = config.parameters().into_iter();
            let tensors: BTreeSet<String> = parameters.map(|p| p.name).collect();
            let (mut known, mut read) = (tensors.clone(), BTreeSet::new());
            for step in trace(&config) {
                for name in step.operation.reads() {
                    assert!(known.contains(name), "{}: {name}", preset.word());
                    read.insert(name.clone());
                }
                assert!(known.insert(step.makes.clone()), "{}", step.makes);
            }
            assert!(tensors.is_subset(&read), "{}", preset.word());
            assert!(known.contains(LOGITS));
        }
    }

    #[test]
    fn steps_stand_in_the_order_of_the_forward_pass() {
        let config = ModelConfig {
            n_layers: 1,
            ..Preset::LlamaTiny.config(50)
        };
        let makes: Vec<String> = trace(&config).into_iter().map(|s| s.makes).collect();
        insta::assert_snapshot!(makes.join("\n"), @"
        embed
        blocks.0.norm1
        blocks.0.qkv
        blocks.0.attention
        blocks.0.proj
        blocks.0.proj.sum
        blocks.0.norm2
        blocks.0.gate
        blocks.0.up
        blocks.0.gated
        blocks.0.down
        blocks.0.down.sum
        norm
        logits
        ");
    }
}
