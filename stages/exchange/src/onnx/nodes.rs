//! The operations of a trace as those of ONNX.

use tinylm_model::{
    config::{Activation, ModelConfig, Norm},
    trace::{Operation, Step, trace},
};

use super::{
    attention::Attention,
    graph::{Attribute, Graph},
    ports::{IDS, POSITIONS, ports},
};
use crate::layout::Tensor;

/// Returns the graph of a model whose positions, where they are added, are a table.
pub(super) fn graph(config: &ModelConfig) -> Graph {
    let mut graph = Graph::default();
    ports(&mut graph, config);
    let attention = Attention::new(&mut graph, config);
    let mut translator = Translator {
        config,
        graph,
        attention,
    };
    for step in trace(config) {
        translator.step(step);
    }
    translator.graph
}

struct Translator<'a> {
    config: &'a ModelConfig,
    graph: Graph,
    attention: Attention,
}

impl Translator<'_> {
    fn step(&mut self, step: Step) {
        let made = match step.operation {
            Operation::Embed { table, positions } => self.embed(&table, positions.as_deref()),
            Operation::Norm { x, gain, bias } => self.norm(&x, &gain, bias.as_deref()),
            Operation::Linear { x, weight, bias } => self.linear(&x, &weight, bias.as_deref()),
            Operation::Activate { x } => self.activate(&x),
            Operation::Gate { gate, up } => {
                let gate = self.silu(&gate);
                self.graph.add("Mul", &[&gate, &up])
            }
            Operation::Add { x, to } => self.graph.add("Add", &[&to, &x]),
            Operation::Attention { qkv } => self.attention.next(&mut self.graph, self.config, &qkv),
        };
        // The last node is the step's own, and its value gets the step's name.
        if let Some(node) = self.graph.nodes.last_mut() {
            debug_assert_eq!(node.outputs, [made]);
            node.outputs = vec![step.makes];
        }
    }

    /// A tensor as it is.
    fn tensor(&mut self, name: &str) {
        let tensor = Tensor::of(self.config, name);
        self.graph.tensors.insert(name.to_owned(), tensor);
    }

    fn embed(&mut self, table: &str, positions: Option<&str>) -> String {
        self.tensor(table);
        let mut x = self.graph.add("Gather", &[table, IDS]);
        if self.config.embed_scale != 1.0 {
            let scale = self.graph.float(self.config.embed_scale);
            x = self.graph.add("Mul", &[&x, &scale]);
        }
        if let Some(positions) = positions {
            self.tensor(positions);
            let added = self.graph.add("Gather", &[positions, POSITIONS]);
            x = self.graph.add("Add", &[&x, &added]);
        }
        x
    }

    fn norm(&mut self, x: &str, gain: &str, bias: Option<&str>) -> String {
        [Some(gain), bias]
            .into_iter()
            .flatten()
            .for_each(|name| self.tensor(name));
        let epsilon = self.config.norm_eps;
        if self.config.norm == Norm::Layer {
            let inputs: Vec<&str> = [x, gain].into_iter().chain(bias).collect();
            let attributes = vec![
                ("axis", Attribute::Int(-1)),
                ("epsilon", Attribute::Float(epsilon)),
            ];
            return self.graph.with("LayerNormalization", &inputs, attributes);
        }
        let g = &mut self.graph;
        let squares = g.add("Mul", &[x, x]);
        let axes = vec![("axes", Attribute::Ints(vec![-1]))];
        let mean = g.with("ReduceMean", &[&squares], axes);
        let epsilon = g.float(epsilon);
        let mean = g.add("Add", &[&mean, &epsilon]);
        let root = g.add("Sqrt", &[&mean]);
        let normed = g.add("Div", &[x, &root]);
        g.add("Mul", &[&normed, gain])
    }

    /// A matrix lies in the file as it is multiplied, but for one that tokens are looked up in too.
    fn linear(&mut self, x: &str, weight: &str, bias: Option<&str>) -> String {
        let product = if self.graph.tensors.contains_key(weight) {
            let turned = self.graph.transposed(weight, &[1, 0]);
            self.graph.add("MatMul", &[x, &turned])
        } else {
            let turned = Tensor::of(self.config, weight).transposed();
            self.graph.tensors.insert(weight.to_owned(), turned);
            self.graph.add("MatMul", &[x, weight])
        };
        match bias {
            None => product,
            Some(bias) => {
                self.tensor(bias);
                self.graph.add("Add", &[&product, bias])
            }
        }
    }

    fn activate(&mut self, x: &str) -> String {
        match self.config.activation {
            Activation::Relu => self.graph.add("Relu", &[x]),
            Activation::Silu | Activation::Swiglu => self.silu(x),
            Activation::Gelu => {
                let root = self.graph.float(std::f32::consts::SQRT_2);
                let scaled = self.graph.add("Div", &[x, &root]);
                let bend = self.graph.add("Erf", &[&scaled]);
                self.gelu(x, &bend)
            }
            Activation::GeluTanh => {
                let cubic = self.cubic(x);
                let bend = self.graph.add("Tanh", &[&cubic]);
                self.gelu(x, &bend)
            }
        }
    }

    fn silu(&mut self, x: &str) -> String {
        let share = self.graph.add("Sigmoid", &[x]);
        self.graph.add("Mul", &[x, &share])
    }

    /// `x / 2 * (1 + bend)`
    fn gelu(&mut self, x: &str, bend: &str) -> String {
        let (half, one) = (self.graph.float(0.5), self.graph.float(1.0));
        let bend = self.graph.add("Add", &[bend, &one]);
        let half = self.graph.add("Mul", &[x, &half]);
        self.graph.add("Mul", &[&half, &bend])
    }

    /// `sqrt(2 / pi) * (x + 0.044715 x^3)`
    fn cubic(&mut self, x: &str) -> String {
        let root = (2.0 / std::f64::consts::PI).sqrt() as f32;
        let (root, small) = (self.graph.float(root), self.graph.float(0.044_715));
        let square = self.graph.add("Mul", &[x, x]);
        let cube = self.graph.add("Mul", &[&square, x]);
        let cube = self.graph.add("Mul", &[&cube, &small]);
        let sum = self.graph.add("Add", &[x, &cube]);
        self.graph.add("Mul", &[&sum, &root])
    }
}
