//! One pass of a few tokens through the model, by all threads of a team together.
//!
//! Tokens may be of several sequences: a row's numbers are the same to the bit whatever else is
//! in the pass (in bf16 only as long as the number of rows chooses the same kernel).
//!
//! Every thread runs the same function from embedding to logits and takes its part of
//! each operation; barriers stand where one needs what the others wrote. Prompts and
//! single tokens go the same way and differ in the number of rows only.

use std::ops::Range;

use super::{
    model::Packed,
    pass::{Part, Pass},
    product::{Operand, grid},
    scratch::Scratch,
    team::{Member, Team},
    weights::{Block, NormWeights},
};
use crate::{
    config::{NormAt, Positions},
    kernels::{
        loss::score,
        rows::{activate_in_place, gate_in_place, norm_row},
        tile::LANES,
    },
};

/// Most tokens of one pass; longer prompts take several.
pub(crate) const PASS_ROWS: usize = 264;

/// A model with what a session needs to run passes through it.
pub(crate) struct Machine<'a> {
    pub(crate) model: &'a Packed,
    pub(crate) team: &'a mut Team,
    pub(crate) scratch: &'a mut Scratch,
}

impl Machine<'_> {
    /// Reads parts of sequences and leaves the logits of the rows `heads` (counted over all
    /// parts) in the scratch, one after the other.
    ///
    /// The caller has checked the ids and that the caches have room.
    pub(crate) fn pass(&mut self, parts: &mut [Part<'_>], heads: Vec<usize>) {
        let n_threads = self.team.n_threads();
        let n_rows = parts.iter().map(|part| part.tokens.len()).sum();
        self.scratch
            .make_room(&self.model.sizes, n_rows, heads.len(), n_threads);
        let pass = Pass::new(self.model, self.scratch, heads).of(parts);
        self.team.run(|member| {
            // SAFETY: each thread writes only its own part of each slab between two
            // barriers, and reads of others' parts stand behind a barrier.
            unsafe {
                pass.blocks(member);
                pass.head(member);
            }
        });
    }

    /// Scores the targets of the rows `heads` of the pass before.
    pub(crate) fn score(&mut self, heads: Range<usize>, targets: &[u16]) {
        assert_eq!(heads.len(), targets.len());
        let n_threads = self.team.n_threads();
        self.scratch
            .make_room(&self.model.sizes, heads.end, heads.len(), n_threads);
        let pass = Pass::new(self.model, self.scratch, heads.collect());
        self.team.run(|member| {
            // SAFETY: as in `pass`.
            unsafe {
                pass.head(member);
                member.barrier();
                pass.scores(member, targets);
            }
        });
    }
}

/// Every function here is run by all threads at once.
///
/// # Safety
///
/// Between two barriers a thread writes only rows, columns or heads of its own.
impl Pass<'_> {
    unsafe fn blocks(&self, member: &Member<'_>) {
        // SAFETY: see the type.
        unsafe {
            self.embed(member);
            for (idx, block) in self.model.weights.blocks.iter().enumerate() {
                match self.model.weights.config.parallel {
                    // The MLP's hidden numbers wait while attention is added to the stream they are of.
                    true => {
                        self.widen(member, block);
                        self.attention(member, idx, block);
                    }
                    false => {
                        self.attention(member, idx, block);
                        self.widen(member, block);
                    }
                }
                self.narrow(member, block);
            }
        }
    }

    unsafe fn embed(&self, member: &Member<'_>) {
        let c = &self.model.weights.config;
        let d = c.d_model;
        let own = member.part(self.tokens.len());
        for span in &self.spans {
            for row in span.among(&own) {
                // SAFETY: rows are this thread's.
                let x = unsafe { self.x.part(row * self.model.sizes.d, d) };
                let token = usize::from(self.tokens[row]);
                self.model.weights.look_up(token, x);
                if c.positions != Positions::Rope {
                    let position = &self.model.weights.positions[span.place(row) * d..][..d];
                    for (x, p) in x.iter_mut().zip(position) {
                        *x += p;
                    }
                }
            }
        }
    }

    /// `x += proj(attention(norm(x)))`, or `x = norm(x + proj(attention(x)))`.
    unsafe fn attention(&self, member: &Member<'_>, layer: usize, block: &Block) {
        let n = self.tokens.len();
        // SAFETY: see the type; barriers part what threads divide differently.
        unsafe {
            let input = self.branch_input(member, &block.norm1);
            self.linear(
                member,
                &block.qkv,
                input,
                n,
                &self.qkv,
                self.model.sizes.qkv,
                false,
            );
            member.barrier();
            self.remember(member, layer);
            member.barrier();
            self.attend(member, layer);
            member.barrier();
            let input = self.operand(member, &self.attended, self.model.sizes.d, 0..n);
            self.linear(
                member,
                &block.proj,
                input,
                n,
                &self.x,
                self.model.sizes.d,
                true,
            );
            member.barrier();
            self.branch_end(member, &block.norm1);
        }
    }

    /// The first half of the MLP, up to the activation.
    unsafe fn widen(&self, member: &Member<'_>, block: &Block) {
        let n = self.tokens.len();
        let ff = self.model.sizes.ff;
        // SAFETY: as in `attention`; the two linears divide their columns alike.
        unsafe {
            let input = self.branch_input(member, &block.norm2);
            if let Some(gate) = &block.gate {
                self.linear(member, gate, input, n, &self.gate, ff, false);
            }
            self.linear(member, &block.up, input, n, &self.up, ff, false);
            self.activate(member, block);
            member.barrier();
        }
    }

    /// The second half, added to the stream.
    unsafe fn narrow(&self, member: &Member<'_>, block: &Block) {
        let n = self.tokens.len();
        // SAFETY: as in `attention`.
        unsafe {
            let input = self.operand(member, &self.up, self.model.sizes.ff, 0..n);
            self.linear(
                member,
                &block.down,
                input,
                n,
                &self.x,
                self.model.sizes.d,
                true,
            );
            member.barrier();
            self.branch_end(member, &block.norm2);
        }
    }

    /// The input of a branch: the stream, normed before with `norm_at: pre`.
    unsafe fn branch_input(&self, member: &Member<'_>, norm: &NormWeights) -> Operand {
        let rows = 0..self.tokens.len();
        // SAFETY: norm and operand divide rows alike.
        unsafe {
            match self.model.weights.config.norm_at {
                NormAt::Pre => {
                    self.norm(member, norm);
                    self.operand(member, &self.normed, self.model.sizes.d, rows)
                }
                NormAt::Post => self.operand(member, &self.x, self.model.sizes.d, rows),
            }
        }
    }

    /// The norm behind a branch with `norm_at: post`.
    unsafe fn branch_end(&self, member: &Member<'_>, norm: &NormWeights) {
        if self.model.weights.config.norm_at == NormAt::Pre {
            return;
        }
        let d = self.model.weights.config.d_model;
        // SAFETY: rows are this thread's in both loops.
        unsafe {
            self.norm(member, norm);
            for row in member.part(self.tokens.len()) {
                let normed = self.normed.part(row * self.model.sizes.d, d);
                self.x
                    .part(row * self.model.sizes.d, d)
                    .copy_from_slice(normed);
            }
        }
        member.barrier();
    }

    /// Writes the norm of this thread's share of the rows.
    unsafe fn norm(&self, member: &Member<'_>, norm: &NormWeights) {
        let c = &self.model.weights.config;
        for row in member.part(self.tokens.len()) {
            let offset = row * self.model.sizes.d;
            // SAFETY: rows are this thread's.
            unsafe {
                let x = self.x.part(offset, c.d_model);
                let out = self.normed.part(offset, c.d_model);
                norm_row(c.norm, c.norm_eps, x, &norm.gain, &norm.bias, out);
            }
        }
    }

    /// Activates what this thread's `linear` of the same shape wrote.
    unsafe fn activate(&self, member: &Member<'_>, block: &Block) {
        let (panels, rows) = grid(member, block.up.n_panels, self.tokens.len());
        for row in rows {
            let from = row * self.model.sizes.ff + panels.start * LANES;
            let len = panels.len() * LANES;
            // SAFETY: the part that `linear` gave this thread.
            unsafe {
                let up = self.up.part(from, len);
                match block.gate {
                    Some(_) => gate_in_place(self.gate.part(from, len), up),
                    None => activate_in_place(self.model.weights.config.activation, up),
                }
            }
        }
    }

    /// Logits of the rows that are wanted, one after the other.
    unsafe fn head(&self, member: &Member<'_>) {
        let n = self.heads.len();
        if n == 0 {
            return;
        }
        let (c, stride) = (&self.model.weights.config, self.model.sizes.d);
        // SAFETY: see the type; a thread writes rows of its own.
        unsafe {
            for idx in member.part(n) {
                let x = self.x.part(self.heads[idx] * stride, c.d_model);
                let out = self.normed.part(idx * stride, c.d_model);
                match &self.model.weights.norm {
                    Some(norm) => norm_row(c.norm, c.norm_eps, x, &norm.gain, &norm.bias, out),
                    None => out.copy_from_slice(x),
                }
            }
            let input = self.operand(member, &self.normed, stride, 0..n);
            self.linear(
                member,
                &self.model.weights.head,
                input,
                n,
                &self.logits,
                self.model.sizes.vocab,
                false,
            );
        }
    }

    unsafe fn scores(&self, member: &Member<'_>, targets: &[u16]) {
        for row in member.part(targets.len()) {
            // SAFETY: rows are this thread's.
            unsafe {
                let logits = self.logits.part(
                    row * self.model.sizes.vocab,
                    self.model.weights.config.vocab_size,
                );
                self.scores.part(row, 1)[0] = score(logits, targets[row]);
            }
        }
    }
}
