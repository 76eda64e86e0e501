//! A graph while it is built: operations, the constants they are told, tensors of the model.

use std::collections::BTreeMap;

use crate::layout::Tensor;

#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) nodes: Vec<Node>,
    /// Each stands here once; its name is its place.
    pub(super) constants: Vec<Constant>,
    /// The model's, by the names that the graph has for them.
    pub(super) tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) operation: &'static str,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

#[derive(Debug, PartialEq)]
pub(super) enum Constant {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

/// A value that is fed or read.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) sort: Sort,
    pub(super) shape: Vec<Dimension>,
}

/// What the numbers of a tensor are, as the format counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    F32 = 1,
    I64 = 7,
    Bool = 9,
}

#[derive(Debug)]
pub(super) enum Dimension {
    Fixed(usize),
    /// Known when the graph runs.
    Named(&'static str),
}

pub(super) fn constant_name(idx: usize) -> String {
    format!("constant.{idx}")
}

impl Graph {
    /// Adds an operation and returns its value, which gets a name of its own.
    pub(super) fn add(&mut self, operation: &'static str, inputs: &[&str]) -> String {
        self.with(operation, inputs, Vec::new())
    }

    pub(super) fn with(
        &mut self,
        operation: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let name = format!("{}.{}", operation.to_lowercase(), self.nodes.len());
        self.put(operation, inputs, attributes, vec![name.clone()]);
        name
    }

    /// Adds an operation whose values have these names.
    pub(super) fn put(
        &mut self,
        operation: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
        outputs: Vec<String>,
    ) {
        let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
        self.nodes.push(Node {
            operation,
            inputs,
            outputs,
            attributes,
        });
    }

    pub(super) fn constant(&mut self, constant: Constant) -> String {
        let known = self.constants.iter().position(|known| *known == constant);
        constant_name(known.unwrap_or_else(|| {
            self.constants.push(constant);
            self.constants.len() - 1
        }))
    }

    pub(super) fn float(&mut self, x: f32) -> String {
        self.constant(Constant::Float(x))
    }

    pub(super) fn ints(&mut self, numbers: &[i64]) -> String {
        self.constant(Constant::Ints(numbers.to_vec()))
    }

    /// Brings a value into another shape: 0 stays as it is, -1 is what is left.
    pub(super) fn reshaped(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.add("Reshape", &[x, &shape])
    }

    pub(super) fn transposed(&mut self, x: &str, order: &[i64]) -> String {
        let order = Attribute::Ints(order.to_vec());
        self.with("Transpose", &[x], vec![("perm", order)])
    }

    pub(super) fn unsqueezed(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.ints(axes);
        self.add("Unsqueeze", &[x, &axes])
    }

    /// Cuts the last dimension into parts of these widths.
    pub(super) fn split<const N: usize>(&mut self, x: &str, widths: [usize; N]) -> [String; N] {
        let idx = self.nodes.len();
        let names: [String; N] = std::array::from_fn(|part| format!("split.{idx}.{part}"));
        let widths = self.ints(&widths.map(|n| n as i64));
        let axis = vec![("axis", Attribute::Int(-1))];
        self.put("Split", &[x, &widths], axis, names.to_vec());
        names
    }
}
