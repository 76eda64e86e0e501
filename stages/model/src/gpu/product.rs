//! Products of matrices on the device: by a library where the launcher has one, by kernels otherwise, which cut
//! sums where there would be too few blocks.
//!
//! What follows a product is the kernels' either way, so that it is written down once. Products of rows, whose bits
//! depend on nothing beside them, are no library's: it promises that of no shape.

use std::rc::Rc;

use super::halves::{self, Halves};
use super::launcher::{After, Arg, Dropped, Product};
use super::memory::{Buf, Device};
use crate::config::Precision;
use crate::ops::Result;

/// How the two matrices lie; the sum runs over k.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Layout {
    /// (m, k) and (n, k).
    Nt,
    /// (m, k) and (k, n).
    Nn,
    /// (k, m) and (k, n).
    Tn,
}

/// Rows, columns, and how many are summed.
pub(crate) type Shape = (usize, usize, usize);

/// What `then` of `After` says.
pub(crate) const SET: i32 = 0;
pub(crate) const ADD: i32 = 1;
pub(crate) const ACTIVATE: i32 = 2;
pub(crate) const RESIDUAL: i32 = 3;

/// A mask that drops nothing.
pub(crate) const KEPT: Dropped = Dropped {
    key: 0,
    row_offset: 0,
    len: 1,
    below: 0,
    scale: 1.0,
};

/// A result that is set, or added to.
pub(crate) fn plainly(accumulate: bool) -> After {
    After {
        bias: 0,
        residual: 0,
        hidden: 0,
        dropped: KEPT,
        then: if accumulate { ADD } else { SET },
        activation: 0,
    }
}

/// How products of one precision are made on one device.
struct Way {
    /// By layout.
    kernels: [&'static str; 3],
    /// Side of the square that a block computes, and how much of k it holds at a time.
    side: usize,
    depth: usize,
    shared_bytes: usize,
    /// Whether the kernels round operands, where they are told so.
    round: Option<Arg>,
    /// What tiles of f16 need to know of both operands.
    halves: Option<Halves>,
}

impl Way {
    /// The one place where it is chosen.
    fn of(device: &Device, precision: Precision) -> Self {
        let has_tensor_cores = device.launcher.has_tensor_cores();
        let round = Arg::Int(i32::from(precision == Precision::Bf16));
        match precision {
            Precision::Bf16 if has_tensor_cores => Way {
                kernels: ["product_nt_bf16", "product_nn_bf16", "product_tn_bf16"],
                side: 128,
                depth: 32,
                shared_bytes: 2 * 2 * 4 * 24 * 128,
                round: None,
                halves: None,
            },
            Precision::F32 | Precision::Bf16 => Way {
                kernels: ["product_nt", "product_nn", "product_tn"],
                side: 64,
                depth: 16,
                shared_bytes: 2 * 16 * (64 + 4) * 4,
                round: (!has_tensor_cores).then_some(round),
                halves: None,
            },
        }
    }

    /// The same in tiles of f16 where the device has them: the same bits, of operands of so many numbers.
    fn in_halves(
        self,
        device: &Rc<Device>,
        operands: (Arg, Arg),
        ns: (usize, usize),
        precision: Precision,
    ) -> Result<Self> {
        let halves = Halves::of(device, operands, ns, precision)?;
        let kernels = match halves {
            Some(_) => halves::PRODUCTS,
            None => self.kernels,
        };
        Ok(Way {
            kernels,
            halves,
            ..self
        })
    }

    /// Into how many parts a sum is cut: a function of the shape alone, because it orders additions.
    fn n_chunks(&self, (m, n, k): Shape) -> usize {
        let n_blocks = m.div_ceil(self.side) * n.div_ceil(self.side);
        (BLOCKS / n_blocks).clamp(1, (k / CHUNK_MIN).max(1))
    }
}

/// Blocks that keep the largest GPU busy, and the sum that is worth a block.
const BLOCKS: usize = 264;
const CHUNK_MIN: usize = 256;

/// `a b`, as `after` says, into `to`.
pub(crate) fn product(
    device: &Rc<Device>,
    layout: Layout,
    operands: (Arg, Arg, Arg),
    shape: Shape,
    precision: Precision,
    after: After,
) -> Result<()> {
    if by_library(device, layout, operands, shape, precision, after)? {
        return Ok(());
    }
    let ((_, a, b), (m, n, k)) = (operands, shape);
    let way = Way::of(device, precision);
    let way = way.in_halves(device, (a, b), (m * k, n * k), precision)?;
    let n_chunks = match is_plain(&after) {
        true => way.n_chunks(shape),
        false => 1,
    };
    cut_product(device, way, (layout, n_chunks), operands, shape, after)
}

/// The same by a library, if it is to make products of this shape; what follows finds its result as a single part.
fn by_library(
    device: &Rc<Device>,
    layout: Layout,
    (to, a, b): (Arg, Arg, Arg),
    shape: Shape,
    precision: Precision,
    after: After,
) -> Result<bool> {
    let (Arg::At(at), Arg::At(a), Arg::At(b)) = (to, a, b) else {
        return Ok(false);
    };
    if !device.launcher.multiplies(shape) {
        return Ok(false);
    }
    let (m, n, k) = shape;
    let is_rounded = precision == Precision::Bf16;
    let halves = match is_rounded {
        true => Some([halves(device, a, m * k)?, halves(device, b, k * n)?]),
        false => None,
    };
    let part = match is_plain(&after) {
        true => None,
        false => Some(device.floats(m * n)?),
    };
    let [a, b] = halves
        .as_ref()
        .map_or([a, b], |halves| halves.each_ref().map(|x| x.address));
    let product = Product {
        to: part.as_ref().map_or(at, |part| part.address),
        a,
        b,
        shape,
        turned: [layout == Layout::Tn, layout == Layout::Nt],
        is_rounded,
        accumulate: part.is_none() && after.then == ADD,
    };
    let is_made = device.launcher.multiply(&product)?;
    if let (true, Some(part)) = (is_made, part) {
        let sizes = [1, m, n].map(|n| Arg::Int(n as i32));
        let args = [&[to, part.at()], &sizes[..], &[Arg::After(after)]].concat();
        device.each("finish_parts", m * n, &args)?;
    }
    Ok(is_made)
}

/// Rounds numbers to bf16, for a library that does not round as it reads.
fn halves(device: &Rc<Device>, from: u64, n: usize) -> Result<Buf> {
    let to = device.take(2 * n)?;
    let args = [to.at(), Arg::At(from), Arg::Long(n as u64)];
    device.each("halves", n, &args)?;
    Ok(to)
}

/// The same of rows of which each is summed as if it were alone, whatever else is multiplied beside it.
pub(crate) fn product_of_rows(
    device: &Rc<Device>,
    operands: (Arg, Arg, Arg),
    shape: Shape,
    precision: Precision,
    after: After,
) -> Result<()> {
    let (_, n, k) = shape;
    let way = Way::of(device, precision);
    let how = (Layout::Nt, way.n_chunks((1, n, k)));
    cut_product(device, way, how, operands, shape, after)
}

/// A result that needs nothing but its sum.
fn is_plain(after: &After) -> bool {
    [SET, ADD].contains(&after.then) && after.bias == 0
}

fn cut_product(
    device: &Rc<Device>,
    way: Way,
    (layout, n_chunks): (Layout, usize),
    (to, a, b): (Arg, Arg, Arg),
    (m, n, k): Shape,
    after: After,
) -> Result<()> {
    let [nt, nn, tn] = way.kernels;
    let kernel = match layout {
        Layout::Nt => nt,
        Layout::Nn => nn,
        Layout::Tn => tn,
    };
    let chunk = k.div_ceil(n_chunks).next_multiple_of(way.depth);
    let n_chunks = k.div_ceil(chunk);
    let parts: Option<Buf> = match n_chunks {
        1 => None,
        _ => Some(device.floats(n_chunks * m * n)?),
    };
    let out = parts.as_ref().map_or(to, Buf::at);
    let sizes = [m, n, k, chunk].map(|n| Arg::Int(n as i32));
    let [m_arg, n_arg, ..] = sizes;
    let mut args = vec![out, a, b];
    args.extend(sizes);
    args.extend(way.round);
    args.push(Arg::After(after));
    args.extend(way.halves.as_ref().map(Halves::at));
    let grid = [n.div_ceil(way.side), m.div_ceil(way.side), n_chunks];
    device.launch(kernel, grid, 256, way.shared_bytes, &args)?;
    match parts {
        None => Ok(()),
        Some(parts) if is_plain(&after) => {
            add_parts(device, to, &parts, n_chunks, after.then == ADD, m * n)
        }
        Some(parts) => {
            let n_parts = Arg::Int(n_chunks as i32);
            let args = [to, parts.at(), n_parts, m_arg, n_arg, Arg::After(after)];
            device.each("finish_parts", m * n, &args)
        }
    }
}

/// Adds parts of `n` numbers, one after the other.
pub(crate) fn add_parts(
    device: &Rc<Device>,
    to: Arg,
    parts: &Buf,
    n_parts: usize,
    accumulate: bool,
    n: usize,
) -> Result<()> {
    let args = [
        to,
        parts.at(),
        Arg::Int(n_parts as i32),
        Arg::Int(i32::from(accumulate)),
        Arg::Long(n as u64),
    ];
    device.each("add_parts", n, &args)
}
