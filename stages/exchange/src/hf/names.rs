//! The tensors of each class under its own names.

use std::collections::BTreeMap;

use tinylm_model::config::ModelConfig;

use super::choice::Class;
use crate::layout::Tensor;

/// The tensors of a class that a model of this shape has been fitted to.
pub(super) fn tensors(class: Class, config: &ModelConfig) -> BTreeMap<String, Tensor> {
    let mut list = List {
        config,
        tensors: BTreeMap::new(),
        head: class.head(),
    };
    match class {
        Class::Gpt2 => list.gpt2("wte", "wpe", Some("ln_f")),
        Class::OpenaiGpt => list.gpt2("tokens_embed", "positions_embed", None),
        Class::Ctrl => list.ctrl(),
        Class::Opt => list.opt(),
        Class::GptNeox => list.gpt_neox(),
        Class::Llama | Class::StableLm => list.llama(["gate_proj", "up_proj", "down_proj"]),
        Class::Arcee => list.llama(["", "up_proj", "down_proj"]),
        Class::Starcoder2 => list.llama(["", "c_fc", "c_proj"]),
        Class::Tinylm => {
            for parameter in config.parameters() {
                list.put(&parameter.name, Tensor::of(config, &parameter.name));
            }
        }
    }
    list.tensors
}

struct List<'a> {
    config: &'a ModelConfig,
    tensors: BTreeMap<String, Tensor>,
    head: &'static str,
}

impl List<'_> {
    fn put(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// Gives weight and bias of a part another name, where the model has them.
    fn part(&mut self, from: &str, name: &str, lay: impl Fn(Tensor) -> Tensor) {
        for sort in ["weight", "bias"] {
            let tensor = Tensor::of(self.config, &format!("{from}.{sort}"));
            if !tensor.shape.is_empty() {
                self.put(&format!("{name}.{sort}"), lay(tensor));
            }
        }
    }

    fn same(&mut self, from: &str, name: &str) {
        self.part(from, name, |tensor| tensor);
    }

    /// The head, unless it is the embedding.
    fn head(&mut self) {
        self.same("head", self.head);
    }

    /// Queries, keys and values as parts of their own.
    fn attention(&mut self, layer: usize, names: [String; 3], lay: impl Fn(Tensor) -> Tensor) {
        let (d, d_kv) = (self.config.d_model, self.config.d_kv());
        let ranges = [0..d, d..d + d_kv, d + d_kv..d + 2 * d_kv];
        for (name, range) in names.iter().zip(ranges) {
            let from = format!("blocks.{layer}.qkv");
            let config = self.config;
            self.part(&from, name, |tensor| {
                lay(tensor.turned_first(config).rows(range.clone()))
            });
        }
    }

    fn gpt2(&mut self, embed: &str, positions: &str, norm: Option<&str>) {
        self.same("embed", &format!("transformer.{embed}"));
        self.same("positions", &format!("transformer.{positions}"));
        for i in 0..self.config.n_layers {
            let (from, to) = (format!("blocks.{i}"), format!("transformer.h.{i}"));
            for (part, name) in [
                ("norm1", "ln_1"),
                ("norm2", "ln_2"),
                ("qkv", "attn.c_attn"),
                ("proj", "attn.c_proj"),
                ("up", "mlp.c_fc"),
                ("down", "mlp.c_proj"),
            ] {
                let name = format!("{to}.{name}");
                self.part(&format!("{from}.{part}"), &name, Tensor::transposed);
            }
        }
        if let Some(norm) = norm {
            self.same("norm", &format!("transformer.{norm}"));
        }
        self.head();
    }

    /// CTRL's positions are all sines and then all cosines, so its stream has that order.
    fn ctrl(&mut self) {
        self.part("embed", "transformer.w", Tensor::even_columns_first);
        self.part("norm", "transformer.layernorm", Tensor::even_rows_first);
        for i in 0..self.config.n_layers {
            let (from, to) = (format!("blocks.{i}"), format!("transformer.h.{i}"));
            let from = |part: &str| format!("{from}.{part}");
            let to = |part: &str| format!("{to}.{part}");
            self.part(&from("norm1"), &to("layernorm1"), Tensor::even_rows_first);
            self.part(&from("norm2"), &to("layernorm2"), Tensor::even_rows_first);
            let names = ["Wq", "Wk", "Wv"].map(|name| to(&format!("multi_head_attention.{name}")));
            self.attention(i, names, reading_evens_first);
            let dense = to("multi_head_attention.dense");
            self.part(&from("proj"), &dense, Tensor::even_rows_first);
            self.part(&from("up"), &to("ffn.0"), reading_evens_first);
            self.part(&from("down"), &to("ffn.2"), Tensor::even_rows_first);
        }
        self.part("head", self.head, reading_evens_first);
    }

    /// OPT's table of positions has two rows in front that belong to no position.
    fn opt(&mut self) {
        let decoder = "model.decoder";
        self.same("embed", &format!("{decoder}.embed_tokens"));
        let behind = |tensor: Tensor| tensor.behind_zeros(2);
        self.part("positions", &format!("{decoder}.embed_positions"), behind);
        for i in 0..self.config.n_layers {
            let to = |part: &str| format!("{decoder}.layers.{i}.{part}");
            self.attention(i, projections(&to("self_attn")), |tensor| tensor);
            for (part, name) in [
                ("norm1", "self_attn_layer_norm"),
                ("norm2", "final_layer_norm"),
                ("proj", "self_attn.out_proj"),
                ("up", "fc1"),
                ("down", "fc2"),
            ] {
                self.same(&format!("blocks.{i}.{part}"), &to(name));
            }
        }
        self.head();
    }

    fn gpt_neox(&mut self) {
        self.same("embed", "gpt_neox.embed_in");
        let n_heads = self.config.n_heads;
        for i in 0..self.config.n_layers {
            let to = |part: &str| format!("gpt_neox.layers.{i}.{part}");
            let qkv = to("attention.query_key_value");
            let config = self.config;
            let by_head = |tensor: Tensor| tensor.turned_first(config).parts_by_head(n_heads);
            self.part(&format!("blocks.{i}.qkv"), &qkv, by_head);
            for (part, name) in [
                ("norm1", "input_layernorm"),
                ("norm2", "post_attention_layernorm"),
                ("proj", "attention.dense"),
                ("up", "mlp.dense_h_to_4h"),
                ("down", "mlp.dense_4h_to_h"),
            ] {
                self.same(&format!("blocks.{i}.{part}"), &to(name));
            }
        }
        self.same("norm", "gpt_neox.final_layer_norm");
        self.head();
    }

    /// Llama's names, with others for the parts of the MLP: gate, up and down.
    fn llama(&mut self, [gate, up, down]: [&str; 3]) {
        self.same("embed", "model.embed_tokens");
        for i in 0..self.config.n_layers {
            let to = |part: &str| format!("model.layers.{i}.{part}");
            self.attention(i, projections(&to("self_attn")), |tensor| tensor);
            for (part, name) in [
                ("norm1", "input_layernorm"),
                ("norm2", "post_attention_layernorm"),
                ("proj", "self_attn.o_proj"),
                ("gate", &format!("mlp.{gate}")),
                ("up", &format!("mlp.{up}")),
                ("down", &format!("mlp.{down}")),
            ] {
                self.same(&format!("blocks.{i}.{part}"), &to(name));
            }
        }
        self.same("norm", "model.norm");
        self.head();
    }
}

fn projections(attention: &str) -> [String; 3] {
    ["q", "k", "v"].map(|part| format!("{attention}.{part}_proj"))
}

/// A weight whose inputs are the stream; its bias stays.
fn reading_evens_first(tensor: Tensor) -> Tensor {
    match tensor.shape.len() {
        2 => tensor.even_columns_first(),
        _ => tensor,
    }
}
