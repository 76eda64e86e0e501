//! Attention over the tokens that a sequence has been fed, whose keys and values stay on the device.
//!
//! Not the attention of training, which sees whole rows at once: here each token looks back alone. So its
//! numbers depend neither on what is read beside it nor on how its text is cut into passes.

use std::rc::Rc;

use super::launcher::{Arg, HeadsArg, Numbers};
use super::memory::{Buf, Device};
use crate::config::ModelConfig;
use crate::ops::Result;

/// Where the keys and values of each row's sequence are, in one pass.
pub(crate) struct Cached {
    addresses: Buf,
    context: i32,
}

/// Warps of a block, of which each looks at every so manieth group of keys.
const WARPS: usize = 4;

impl Cached {
    /// Numbers that one sequence takes: of every layer and head a key and a value for each position.
    pub(crate) fn n_floats(config: &ModelConfig) -> usize {
        config.n_layers * 2 * config.d_kv() * config.context
    }

    /// Takes the address of a row's sequence for each row.
    pub(crate) fn new(device: &Rc<Device>, addresses: &[u64], context: usize) -> Result<Self> {
        let halves: Vec<u32> = addresses
            .iter()
            .flat_map(|address| [*address as u32, (*address >> 32) as u32])
            .collect();
        Ok(Cached {
            addresses: device.upload(Numbers::U32(&halves))?,
            context: context as i32,
        })
    }

    /// Keeps the keys and values of these tokens, and lets each look at those up to its own.
    pub(crate) fn attend(
        &self,
        device: &Rc<Device>,
        (qkv, positions, n_rows): (&Buf, &Buf, usize),
        heads: HeadsArg,
        layer: usize,
    ) -> Result<Buf> {
        let (n_heads, d_head) = (heads.n_heads as usize, heads.d_head as usize);
        let out = device.floats(n_rows * n_heads * d_head)?;
        let of = [
            self.addresses.at(),
            qkv.at(),
            positions.at(),
            Arg::Heads(heads),
            Arg::Int(layer as i32),
            Arg::Int(self.context),
        ];
        device.rows("remember", n_rows, &of)?;
        let args = [&[out.at()], &of[..]].concat();
        let shared_bytes = 4 * (d_head + WARPS * (d_head + 2));
        let grid = [n_heads, n_rows, 1];
        device.launch(
            "attend_cached",
            grid,
            32 * WARPS as u32,
            shared_bytes,
            &args,
        )?;
        Ok(out)
    }
}
