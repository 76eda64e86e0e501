//! Graphs that hold together for every setting, and files that can be taken apart again. What they
//! compute is held against onnxruntime by `stages/benches/onnx_peer.py`.

use std::{collections::BTreeSet, fs};

use insta::assert_snapshot;
use tempfile::TempDir;
use tinylm_model::{
    config::{Activation, Norm, NormAt, Positions, Preset},
    engine::Tensors,
};
use tinylm_settings::Choice;

use super::{
    graph::{Dimension, Port, constant_name},
    *,
};
use crate::{
    layout::Tensor,
    testing::{small, tensors},
};

/// Presets, and some that have what none of them has.
fn models() -> Vec<ModelConfig> {
    let presets = Preset::ALL.iter().map(|&preset| small(preset));
    let odd = ModelConfig {
        positions: Positions::Rope,
        norm: Norm::Rms,
        norm_at: NormAt::Post,
        activation: Activation::Silu,
        n_kv_heads: 3,
        embed_scale: 2.0,
        bias: small(Preset::FortyOne).bias,
        ..small(Preset::Tinylm)
    };
    let activations = Activation::ALL.iter().map(|&activation| ModelConfig {
        activation,
        tied: true,
        ..small(Preset::Mini)
    });
    let pythia = ModelConfig {
        positions: Positions::Rope,
        rope_share: 1.0 / 3.0,
        parallel: true,
        ..small(Preset::Mini)
    };
    presets.chain([odd, pythia]).chain(activations).collect()
}

fn export(config: &ModelConfig) -> Export<'_> {
    config.check().unwrap();
    Export::of(config.clone(), tensors(config))
}

#[test]
fn what_is_read_was_made_before_and_nothing_is_made_twice_or_in_vain() {
    for config in models() {
        let graph = export(&config).graph;
        let constants = (0..graph.constants.len()).map(constant_name);
        let fed = graph.inputs.iter().map(|port| port.name.clone());
        let tensors = graph.tensors.keys().cloned();
        let mut known = BTreeSet::new();
        let mut put = |name: String| assert!(known.insert(name.clone()), "{name}");
        constants.chain(fed).chain(tensors).for_each(&mut put);
        let mut read: BTreeSet<String> = BTreeSet::new();
        for node in &graph.nodes {
            for input in &node.inputs {
                assert!(known.contains(input), "{input} of {node:?}");
                read.insert(input.clone());
            }
            for output in &node.outputs {
                assert!(known.insert(output.clone()), "{output}");
            }
        }
        for port in &graph.outputs {
            assert!(known.contains(&port.name), "{}", port.name);
            read.insert(port.name.clone());
        }
        let in_vain: Vec<&String> = known.difference(&read).collect();
        assert!(in_vain.is_empty(), "{in_vain:?} of {config:?}");
    }
}

#[test]
fn every_tensor_of_a_model_is_in_its_graph_and_computed_tables_besides() {
    for config in models() {
        let graph = export(&config).graph;
        let model = config.parameters().into_iter();
        let mut expected: BTreeSet<String> = model.map(|parameter| parameter.name).collect();
        match config.positions {
            Positions::Learned => false,
            Positions::Sinusoidal => expected.insert("positions.weight".to_owned()),
            Positions::Rope => expected.insert(ROTATIONS.to_owned()),
        };
        let found: BTreeSet<String> = graph.tensors.into_keys().collect();
        assert_eq!(found, expected);
    }
}

fn told(port: &Port) -> String {
    let shape = port.shape.iter().map(|dimension| match dimension {
        Dimension::Fixed(n) => n.to_string(),
        Dimension::Named(name) => (*name).to_owned(),
    });
    let shape: Vec<String> = shape.collect();
    format!("{} {:?} [{}]", port.name, port.sort, shape.join(", "))
}

#[test]
fn what_is_fed_and_read_has_the_names_that_other_programs_know() {
    let config = ModelConfig {
        n_layers: 1,
        ..small(Preset::LlamaTiny)
    };
    let Graph {
        inputs, outputs, ..
    } = export(&config).graph;
    let ports: Vec<String> = inputs.iter().chain(&outputs).map(told).collect();
    assert_snapshot!(ports.join("\n"), @"
    input_ids I64 [batch_size, sequence_length]
    attention_mask I64 [batch_size, past_sequence_length + sequence_length]
    position_ids I64 [batch_size, sequence_length]
    past_key_values.0.key F32 [batch_size, 2, past_sequence_length, 6]
    past_key_values.0.value F32 [batch_size, 2, past_sequence_length, 6]
    logits F32 [batch_size, sequence_length, 61]
    present.0.key F32 [batch_size, 2, past_sequence_length + sequence_length, 6]
    present.0.value F32 [batch_size, 2, past_sequence_length + sequence_length, 6]
    ");
}

#[test]
fn caches_are_sized_by_words_that_transformers_js_knows() {
    let config = small(Preset::LlamaTiny);
    let settings = export(&config).settings(Ids::default());
    let sizes = [
        "model_type",
        "num_hidden_layers",
        "num_key_value_heads",
        "head_dim",
    ];
    let sizes = sizes.map(|name| format!("{name} {}", settings[name]));
    assert_snapshot!(sizes.join("\n"), @r#"
    model_type "llama"
    num_hidden_layers 3
    num_key_value_heads 2
    head_dim 6
    "#);
    assert_eq!(settings["transformers.js_config"]["dtype"], "fp32");
}

/// A field of a message: its number, and its bytes or what it counts.
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// Takes a message apart.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if *byte < 0x80 {
                return value;
            }
        }
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let n_bytes = match tag & 7 {
            0 => {
                fields.push((tag >> 3, Value::Number(varint(&mut bytes))));
                continue;
            }
            2 => varint(&mut bytes) as usize,
            5 => 4,
            wire => panic!("{wire} is no wire type of ours"),
        };
        let (value, rest) = bytes.split_at(n_bytes);
        fields.push((tag >> 3, Value::Bytes(value)));
        bytes = rest;
    }
    fields
}

fn parts(message: &[u8], number: u64) -> Vec<&[u8]> {
    let fields = fields(message).into_iter();
    let parts = fields.filter_map(|(found, value)| match value {
        Value::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    });
    parts.collect()
}

fn numbers(message: &[u8], number: u64) -> Vec<u64> {
    let fields = fields(message).into_iter();
    let numbers = fields.filter_map(|(found, value)| match value {
        Value::Number(value) if found == number => Some(value),
        _ => None,
    });
    numbers.collect()
}

#[test]
fn a_file_comes_apart_into_the_graph_and_the_models_numbers() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.onnx");
    for config in models() {
        let ours = tensors(&config);
        let export = export(&config);
        export.write(&path).unwrap();
        let file = fs::read(&path).unwrap();
        assert_eq!(numbers(&file, 1), [8]);
        let [graph] = parts(&file, 7)[..] else {
            panic!("one graph");
        };
        assert_eq!(parts(graph, 1).len(), export.graph.nodes.len());
        assert_eq!(parts(graph, 11).len(), export.graph.inputs.len());
        assert_eq!(parts(graph, 12).len(), export.graph.outputs.len());
        let initializers = parts(graph, 5);
        let n_constants = export.graph.constants.len();
        assert_eq!(initializers.len(), n_constants + export.graph.tensors.len());
        for tensor in &initializers[n_constants..] {
            check_tensor(tensor, &ours);
        }
    }
}

/// A tensor of a file has as many numbers as its shape says, and they are the model's.
fn check_tensor(message: &[u8], ours: &Tensors) {
    let name = std::str::from_utf8(parts(message, 8)[0]).unwrap();
    let (raw, _) = parts(message, 9)[0].as_chunks();
    let found: Vec<f32> = raw.iter().map(|&word| f32::from_le_bytes(word)).collect();
    let shape: Vec<usize> = numbers(message, 1).iter().map(|&n| n as usize).collect();
    assert_eq!(found.len(), shape.iter().product::<usize>(), "{name}");
    let Some(tensor) = ours.get(name) else {
        return;
    };
    let is_looked_up = name.starts_with("embed") || name.starts_with("positions");
    let as_it_is = Tensor::new(name, tensor.shape.clone());
    let expected = match is_looked_up {
        true => as_it_is,
        false => as_it_is.transposed(),
    };
    assert_eq!(shape, expected.shape, "{name}");
    assert_eq!(
        found,
        &*expected.laid(Cow::Borrowed(&tensor.data)),
        "{name}"
    );
}
