//! Attention with a cache: queries of the new tokens on the keys and values of all.
//!
//! Heads that share keys are multiplied as more rows of one head, so everything has four dimensions
//! and nothing is repeated.

use tinylm_model::config::{ModelConfig, Positions};

use super::{
    graph::{Attribute, Constant, Graph, Sort},
    ports::{IDS, MASK, POSITIONS, past, present},
};
use crate::layout::Tensor;

/// The table of cosines and sines, a row for each position.
pub(super) const ROTATIONS: &str = "rotations";

/// Values that all layers share.
pub(super) struct Attention {
    /// Added to scores: a very low number where a key is not seen.
    hidden: String,
    /// Cosines and sines of the new tokens' positions, of models that turn.
    turns: Option<[String; 2]>,
    n_before: usize,
}

impl Attention {
    pub(super) fn new(graph: &mut Graph, config: &ModelConfig) -> Attention {
        Attention {
            hidden: hidden(graph),
            turns: (config.positions == Positions::Rope).then(|| turns(graph, config)),
            n_before: 0,
        }
    }

    /// The next layer's.
    pub(super) fn next(&mut self, graph: &mut Graph, c: &ModelConfig, qkv: &str) -> String {
        let layer = self.n_before;
        self.n_before += 1;
        let [q, k, v] = graph.split(qkv, [c.d_model, c.d_kv(), c.d_kv()]);
        let q = heads(graph, &q, c.n_heads, c.d_head());
        let k = heads(graph, &k, c.n_kv_heads, c.d_head());
        let v = heads(graph, &v, c.n_kv_heads, c.d_head());
        let (q, k) = (self.turned(graph, c, q), self.turned(graph, c, k));
        let k = extended(graph, layer, "key", &k);
        let v = extended(graph, layer, "value", &v);
        let factor = graph.float(1.0 / (c.d_head() as f32).sqrt());
        let q = graph.add("Mul", &[&q, &factor]);
        let k = graph.transposed(&k, &[0, 1, 3, 2]);
        let scores = shared(graph, c, &q, &k);
        let scores = graph.add("Add", &[&scores, &self.hidden]);
        let shares = graph.with("Softmax", &[&scores], vec![("axis", Attribute::Int(-1))]);
        let mixed = shared(graph, c, &shares, &v);
        let mixed = graph.transposed(&mixed, &[0, 2, 1, 3]);
        graph.reshaped(&mixed, &[0, 0, c.d_model as i64])
    }

    fn turned(&self, graph: &mut Graph, c: &ModelConfig, x: String) -> String {
        let Some([cosines, sines]) = &self.turns else {
            return x;
        };
        let half = c.d_head() / 2;
        let [low, high] = graph.split(&x, [half, half]);
        let mut product = |a: &str, b: &str| graph.add("Mul", &[a, b]);
        let (low_cosine, high_sine) = (product(&low, cosines), product(&high, sines));
        let (high_cosine, low_sine) = (product(&high, cosines), product(&low, sines));
        let low = graph.add("Sub", &[&low_cosine, &high_sine]);
        let high = graph.add("Add", &[&high_cosine, &low_sine]);
        let axis = vec![("axis", Attribute::Int(-1))];
        graph.with("Concat", &[&low, &high], axis)
    }
}

/// A new token sees itself and what stands before it, but for what the mask leaves out. Where it
/// sees nothing, as filling before a text does, low and not infinite numbers keep its row finite.
fn hidden(graph: &mut Graph) -> String {
    let (n_new, n_all) = (length(graph, IDS), length(graph, MASK));
    let n_past = graph.add("Sub", &[&n_all, &n_new]);
    let (zero, one) = (
        graph.constant(Constant::Int(0)),
        graph.constant(Constant::Int(1)),
    );
    let keys = graph.add("Range", &[&zero, &n_all, &one]);
    let rows = graph.add("Range", &[&n_past, &n_all, &one]);
    let rows = graph.unsqueezed(&rows, &[1]);
    let is_before = graph.add("LessOrEqual", &[&keys, &rows]);
    let bool = Attribute::Int(Sort::Bool as i64);
    let is_token = graph.with("Cast", &[MASK], vec![("to", bool)]);
    let is_token = graph.unsqueezed(&is_token, &[1, 2]);
    let is_seen = graph.add("And", &[&is_before, &is_token]);
    let (nothing, low) = (graph.float(0.0), graph.float(f32::MIN));
    graph.add("Where", &[&is_seen, &nothing, &low])
}

/// The second dimension of an input.
fn length(graph: &mut Graph, input: &str) -> String {
    let range = vec![("start", Attribute::Int(1)), ("end", Attribute::Int(2))];
    let length = graph.with("Shape", &[input], range);
    graph.add("Squeeze", &[&length])
}

fn turns(graph: &mut Graph, c: &ModelConfig) -> [String; 2] {
    let table = Tensor::new(ROTATIONS, vec![c.context, c.d_head()]);
    graph.tensors.insert(ROTATIONS.to_owned(), table);
    let turns = graph.add("Gather", &[ROTATIONS, POSITIONS]);
    let turns = graph.unsqueezed(&turns, &[1]);
    graph.split(&turns, [c.d_head() / 2; 2])
}

/// `(batch, tokens, heads * width)` as `(batch, heads, tokens, width)`
fn heads(graph: &mut Graph, x: &str, n: usize, width: usize) -> String {
    let parted = graph.reshaped(x, &[0, 0, n as i64, width as i64]);
    graph.transposed(&parted, &[0, 2, 1, 3])
}

/// What is remembered, and the new behind it.
fn extended(graph: &mut Graph, layer: usize, what: &str, new: &str) -> String {
    let (past, present) = (past(layer, what), present(layer, what));
    let axis = vec![("axis", Attribute::Int(2))];
    graph.put("Concat", &[&past, new], axis, vec![present.clone()]);
    present
}

/// The product of each head of queries, or of their shares, with the head of keys or values that it
/// reads: the heads that read one are rows of one head.
fn shared(graph: &mut Graph, c: &ModelConfig, x: &str, y: &str) -> String {
    if c.n_heads == c.n_kv_heads {
        return graph.add("MatMul", &[x, y]);
    }
    let x = graph.reshaped(x, &[0, c.n_kv_heads as i64, -1, 0]);
    let product = graph.add("MatMul", &[&x, y]);
    graph.reshaped(&product, &[0, c.n_heads as i64, -1, 0])
}
