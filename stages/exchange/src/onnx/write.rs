//! The file of a graph: everything small first, then the model's tensors, each when its turn comes.
//!
//! The numbers of fields are those of `onnx.proto`. The length of the graph stands before it, so it
//! is counted from the shapes.

use std::{io::Write, path::Path};

use tinylm_model::weights::{Source, WeightsError, put_f32, write_file};

use super::{
    graph::{Attribute, Constant, Dimension, Graph, Node, Port, Sort, constant_name},
    proto::Message,
};

/// The version of the operations, the first with a layer norm, and of the format that came with it.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
const GRAPH: u64 = 7;
/// Fields of a graph and of a tensor.
const INITIALIZER: u64 = 5;
const RAW_DATA: u64 = 9;

pub(super) fn file(path: &Path, graph: &Graph, source: &dyn Source) -> Result<(), WeightsError> {
    let tensors = graph.tensors.iter();
    let heads: Vec<Message> = tensors
        .map(|(name, tensor)| {
            let n_bytes = 4 * tensor.n();
            let head = tensor_head(name, Sort::F32, &tensor.shape).announced(RAW_DATA, n_bytes);
            let n = head.as_bytes().len() + n_bytes;
            let field = Message::default().announced(INITIALIZER, n);
            field.then(&head)
        })
        .collect();
    let n_heads: usize = heads.iter().map(|head| head.as_bytes().len()).sum();
    let n_numbers: usize = graph.tensors.values().map(|tensor| 4 * tensor.n()).sum();
    let small = small(graph);
    let n = small.as_bytes().len() + n_heads + n_numbers;
    let head = model().announced(GRAPH, n).then(&small);
    let shapes = graph.tensors.iter();
    let shapes = shapes.map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()));
    write_file(
        path,
        head.as_bytes(),
        shapes,
        source,
        |out, idx, numbers| {
            out.write_all(heads[idx].as_bytes())?;
            put_f32(out, numbers)
        },
    )
}

/// All that stands before the graph.
fn model() -> Message {
    let operations = Message::default().text(1, "").int(2, OPSET);
    Message::default()
        .int(1, IR_VERSION)
        .text(2, "tinylm")
        .message(8, &operations)
}

/// A graph but for the model's tensors.
fn small(graph: &Graph) -> Message {
    let constants = graph.constants.iter().enumerate();
    Message::default()
        .messages(1, graph.nodes.iter().map(node))
        .text(2, "tinylm")
        .messages(
            INITIALIZER,
            constants.map(|(idx, known)| constant(idx, known)),
        )
        .messages(11, graph.inputs.iter().map(port))
        .messages(12, graph.outputs.iter().map(port))
}

fn node(node: &Node) -> Message {
    Message::default()
        .texts(1, &node.inputs)
        .texts(2, &node.outputs)
        .text(3, &node.outputs[0])
        .text(4, node.operation)
        .messages(
            5,
            node.attributes
                .iter()
                .map(|(name, value)| attribute(name, value)),
        )
}

fn attribute(name: &str, value: &Attribute) -> Message {
    const SORT: u64 = 20;
    let named = Message::default().text(1, name);
    match value {
        Attribute::Float(x) => named.float(2, *x).int(SORT, 1),
        Attribute::Int(x) => named.int(3, *x).int(SORT, 2),
        Attribute::Ints(list) => named.ints(8, list).int(SORT, 7),
    }
}

fn constant(idx: usize, constant: &Constant) -> Message {
    let (sort, shape, bytes) = match constant {
        Constant::Float(x) => (Sort::F32, vec![], x.to_le_bytes().to_vec()),
        Constant::Int(x) => (Sort::I64, vec![], x.to_le_bytes().to_vec()),
        Constant::Ints(list) => {
            let bytes = list.iter().flat_map(|x| x.to_le_bytes()).collect();
            (Sort::I64, vec![list.len()], bytes)
        }
    };
    tensor_head(&constant_name(idx), sort, &shape).bytes(RAW_DATA, &bytes)
}

fn tensor_head(name: &str, sort: Sort, shape: &[usize]) -> Message {
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Message::default()
        .ints(1, &shape)
        .int(2, sort as i64)
        .text(8, name)
}

fn port(port: &Port) -> Message {
    let dimensions = port.shape.iter().map(|dimension| match dimension {
        Dimension::Fixed(n) => Message::default().int(1, *n as i64),
        Dimension::Named(name) => Message::default().text(2, name),
    });
    let shape = Message::default().messages(1, dimensions);
    let tensor = Message::default()
        .int(1, port.sort as i64)
        .message(2, &shape);
    let sort = Message::default().message(1, &tensor);
    Message::default().text(1, &port.name).message(2, &sort)
}
