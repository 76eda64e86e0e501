//! Which kernels of attention a head takes, and the shared memory of their tiles.
//!
//! A tile's size decides beside which scores a probability is rounded, so the choice hangs on the model, its precision
//! and the kind of GPU, and never on how a batch is cut.

use super::launcher::{Arg, HeadsArg};
use super::memory::Device;
use crate::engine::EngineError;
use crate::ops::Result;

/// Forward, backward over keys, and backward over queries.
type Names = [&'static str; 3];

/// On tensor cores, by the widest head.
const TENSOR: [(usize, Names); 2] = [
    (
        64,
        [
            "attend_64_bf16",
            "attend_keys_64_bf16",
            "attend_queries_64_bf16",
        ],
    ),
    (
        128,
        [
            "attend_128_bf16",
            "attend_keys_128_bf16",
            "attend_queries_128_bf16",
        ],
    ),
];

/// In f32 arithmetic, by the side of a tile.
const PLAIN: [(usize, Names); 2] = [
    (32, ["attend_32", "attend_keys_32", "attend_queries_32"]),
    (16, ["attend_16", "attend_keys_16", "attend_queries_16"]),
];

/// A kernel, and the shared memory that its tiles take.
#[derive(Clone, Copy)]
pub(crate) struct Tiled(&'static str, usize);

impl Tiled {
    pub(crate) fn launch(self, device: &Device, grid: [usize; 3], args: &[Arg]) -> Result<()> {
        device.launch(self.0, grid, 256, self.1, args)
    }
}

/// The kernels of attention for one width of heads.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    /// Queries, or keys, of a block.
    pub(crate) side: usize,
    pub(crate) forward: Tiled,
    pub(crate) keys: Tiled,
    pub(crate) queries: Tiled,
}

impl Tiles {
    /// Those on tensor cores in bf16; otherwise the largest that fit into a block's shared memory.
    pub(crate) fn of(device: &Device, heads: HeadsArg) -> Result<Self> {
        let (launcher, d_head) = (&device.launcher, heads.d_head as usize);
        let is_tensor = heads.round != 0 && launcher.has_tensor_cores();
        let narrowest = TENSOR.iter().find(|(width, _)| d_head <= *width);
        let tensor = narrowest.filter(|_| is_tensor);
        let tensor = tensor.map(|(width, names)| Tiles::tensor(*width, *names));
        let plain = PLAIN.map(|(side, names)| Tiles::plain(side, d_head, names));
        let mut all = tensor.into_iter().chain(plain);
        all.find(|tiles| tiles.most_bytes() <= launcher.shared_limit())
            .ok_or_else(|| {
                EngineError::Device(format!(
                    "heads of {d_head} numbers are too wide for this GPU; give the model more of them"
                ))
            })
    }

    fn most_bytes(&self) -> usize {
        self.forward.1.max(self.keys.1).max(self.queries.1)
    }

    /// As `attention.cu` lays them out.
    fn plain(side: usize, d_head: usize, [forward, keys, queries]: Names) -> Self {
        let backward_bytes = 4 * side * (4 * (d_head + 1) + 2 * d_head + 2 * (side + 1));
        Tiles {
            side,
            forward: Tiled(
                forward,
                4 * side * (3 * (d_head + 1) + d_head + side + 1 + 3),
            ),
            keys: Tiled(keys, backward_bytes),
            queries: Tiled(queries, backward_bytes),
        }
    }

    /// As `tensor_attention.cu` lays them out.
    fn tensor(width: usize, [forward, keys, queries]: Names) -> Self {
        let along = |n_rows: usize| 4 * n_rows * (width / 2 + 8);
        let across = |n_rows: usize| 4 * (n_rows / 2) * (width + 8);
        let (side, n_keys, n_queries, asked) = (128, 32, 2048 / width, 32);
        let of_queries = 2 * along(n_queries) + 2 * across(n_queries) + asked * n_queries;
        Tiles {
            side,
            forward: Tiled(forward, 2 * (along(n_keys) + across(n_keys))),
            keys: Tiled(keys, 2 * along(side) + of_queries),
            queries: Tiled(queries, 2 * (2 * along(n_keys) + across(n_keys))),
        }
    }
}
