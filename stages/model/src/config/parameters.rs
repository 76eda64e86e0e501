//! The tensors of a model, and the arithmetic they cost.
//!
//! `parameters` is the one list of a model's tensors. The engine allocates from it, so
//! that what `plan -v` prints, what is stored and what is trained cannot differ.

use super::{Activation, ModelConfig, Norm, Positions};

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: Role,
}

/// The part a tensor plays, which decides its start value and how it is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Rows looked up by token or position.
    Embedding,
    /// A matrix inside a block: Muon's kind.
    Hidden,
    /// A hidden matrix whose output joins the residual stream.
    Residual,
    /// The matrix of an untied head.
    Head,
    /// The factors of a norm.
    Gain,
    Bias,
}

impl Parameter {
    pub fn n(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Role {
    /// Matrices are decayed; gains and biases are not.
    pub fn decays(self) -> bool {
        !matches!(self, Role::Gain | Role::Bias)
    }

    /// Returns whether Muon may update it: matrices inside blocks.
    pub fn is_hidden(self) -> bool {
        matches!(self, Role::Hidden | Role::Residual)
    }
}

impl ModelConfig {
    /// Returns every tensor of the model, in the order of a forward pass.
    pub fn parameters(&self) -> Vec<Parameter> {
        let (d, v, f) = (self.d_model, self.vocab_size, self.d_ff);
        let d_qkv = d + 2 * self.d_kv();
        let mut list = List(Vec::new());
        list.add("embed.weight", &[v, d], Role::Embedding);
        if self.positions == Positions::Learned {
            list.add("positions.weight", &[self.context, d], Role::Embedding);
        }
        for i in 0..self.n_layers {
            let at = |part: &str| format!("blocks.{i}.{part}");
            list.norm(&at("norm1"), self);
            list.linear(&at("qkv"), d_qkv, d, self.bias.qkv, Role::Hidden);
            list.linear(&at("proj"), d, d, self.bias.proj, Role::Residual);
            list.norm(&at("norm2"), self);
            if self.activation == Activation::Swiglu {
                list.linear(&at("gate"), f, d, self.bias.mlp, Role::Hidden);
            }
            list.linear(&at("up"), f, d, self.bias.mlp, Role::Hidden);
            list.linear(&at("down"), d, f, self.bias.mlp, Role::Residual);
        }
        if self.final_norm {
            list.norm("norm", self);
        }
        if !self.tied {
            list.add("head.weight", &[v, d], Role::Head);
        }
        if self.bias.head {
            list.add("head.bias", &[v], Role::Bias);
        }
        list.0
    }

    pub fn n_params(&self) -> usize {
        self.parameters().iter().map(Parameter::n).sum()
    }

    /// Floating-point operations of training on one token (forward and backward)
    /// in sequences of `len`, counting matrix products only.
    pub fn flops_per_token(&self, len: usize) -> u64 {
        let in_blocks: usize = self
            .parameters()
            .iter()
            .filter(|p| p.role.is_hidden())
            .map(Parameter::n)
            .sum();
        let head = self.vocab_size * self.d_model;
        // Forward, and twice that backward; a causal query sees half the keys on average.
        let attention = self.n_layers * self.d_model * len;
        6 * (in_blocks + head + attention) as u64
    }
}

struct List(Vec<Parameter>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role) {
        let (name, shape) = (name.into(), shape.to_vec());
        self.0.push(Parameter { name, shape, role });
    }

    fn linear(&mut self, name: &str, n_out: usize, n_in: usize, bias: bool, role: Role) {
        self.add(format!("{name}.weight"), &[n_out, n_in], role);
        if bias {
            self.add(format!("{name}.bias"), &[n_out], Role::Bias);
        }
    }

    fn norm(&mut self, name: &str, config: &ModelConfig) {
        self.add(format!("{name}.weight"), &[config.d_model], Role::Gain);
        if config.norm == Norm::Layer && config.bias.norm {
            self.add(format!("{name}.bias"), &[config.d_model], Role::Bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use tinylm_settings::Choice;

    use super::super::Preset;

    #[test]
    fn names_are_unique_and_shapes_add_up() {
        for &preset in Preset::ALL {
            let parameters = preset.config(300).parameters();
            let mut names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), parameters.len(), "{}", preset.word());
        }
    }

    #[test]
    fn a_tied_head_costs_arithmetic_but_no_parameters() {
        let mut config = Preset::Mini.config(8000);
        let untied = (config.n_params(), config.flops_per_token(128));
        config.tied = true;
        assert_eq!(config.n_params(), untied.0 - 8000 * 256);
        assert_eq!(config.flops_per_token(128), untied.1);
    }
}
