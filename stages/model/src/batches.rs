//! Turns a split into batches: which tokens stand in which row, and what counts.
//!
//! A row is a list of pieces. A piece is a stretch of one document that is read
//! from position 0 and never sees another piece of its row, so which documents share
//! a row changes nothing but speed. That is why rows are packed once and only their
//! order changes from epoch to epoch, and why every epoch has the same number of
//! steps, known before the first.
//!
//! A piece of n tokens has n - 1 places: its last token is predicted but predicts
//! nothing. Places left over in a row weigh nothing and see only themselves.

mod rows;
mod settings;

use std::ops::Range;

use crate::{
    engine::Batch,
    order::{Purpose, permutation, random_below},
    shards::Split,
    tree::share,
};

pub use rows::Coverage;
pub use settings::{BatchError, BatchSettings, Batching, LongDocuments, LossOn};

use rows::{Piece, Rows, best_fit, check_stream, cut, n_sliding, pairs};

/// The batches of one split.
#[derive(Debug)]
pub struct Batches<'a> {
    split: &'a Split,
    settings: BatchSettings,
    seed: u64,
    rows: Rows,
    coverage: Coverage,
    /// Places in a row of every batch; padded batches are as long as their longest row.
    len: usize,
    /// The epoch whose order was asked for last, and that order.
    order: (u64, Vec<u32>),
}

/// A batch, and for each place the role of the token to be predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationBatch {
    pub batch: Batch,
    pub roles: Vec<u8>,
}

impl<'a> Batches<'a> {
    /// Lays out the rows that training reads.
    pub fn new(split: &'a Split, settings: &BatchSettings, seed: u64) -> Result<Self, BatchError> {
        Self::lay_out(split, settings, seed, true)
    }

    /// Lays out the fixed rows that validation reads: no more than `n_rows_max`, spread
    /// evenly over the split, always in the same order whatever the seed.
    pub fn for_evaluation(
        split: &'a Split,
        settings: &BatchSettings,
        n_rows_max: usize,
    ) -> Result<Self, BatchError> {
        let batching = match settings.batching {
            Batching::Windows => Batching::Sliding,
            other => other,
        };
        let settings = BatchSettings {
            batching,
            stride: settings.context,
            ..settings.clone()
        };
        let mut batches = Self::lay_out(split, &settings, 0, false)?;
        let n_rows = batches.rows.len();
        let n_kept = n_rows.min(n_rows_max.max(1));
        batches.order.1 = (0..n_kept)
            .map(|idx| (idx * n_rows / n_kept) as u32)
            .collect();
        Ok(batches)
    }

    fn lay_out(
        split: &'a Split,
        settings: &BatchSettings,
        seed: u64,
        shuffle: bool,
    ) -> Result<Self, BatchError> {
        settings.check()?;
        let mut coverage = Coverage {
            documents: split.documents().len() as u64,
            ..Coverage::default()
        };
        let rows = match settings.batching {
            _ if settings.pairs => pairs(split, settings, &mut coverage)?,
            Batching::Packed | Batching::Padded => {
                let mut pieces = cut(split, settings, &mut coverage)?;
                if shuffle {
                    let order = permutation(pieces.len(), seed, Purpose::Packing, 0);
                    pieces = order.iter().map(|&idx| pieces[idx as usize]).collect();
                }
                match settings.batching {
                    Batching::Packed => best_fit(&pieces, settings.context),
                    _ => Rows::Packed {
                        ends: (1..=pieces.len() as u32).collect(),
                        pieces,
                    },
                }
            }
            Batching::Windows => Rows::Windows {
                n_rows: (split.n_tokens() as usize).div_ceil(settings.context),
            },
            Batching::Sliding => Rows::Sliding {
                n_rows: n_sliding(split.n_tokens(), settings.context, settings.stride),
                stride: settings.stride as u64,
            },
        };
        if let Rows::Windows { .. } | Rows::Sliding { .. } = rows {
            check_stream(split, settings)?;
        }
        let mut batches = Self {
            split,
            settings: settings.clone(),
            seed,
            rows,
            coverage,
            len: settings.context.min(split.n_tokens() as usize - 1),
            order: (u64::MAX, Vec::new()),
        };
        batches.measure();
        Ok(batches)
    }

    /// Counts rows and places, and shortens rows that nothing would ever fill.
    fn measure(&mut self) {
        self.coverage.rows = self.rows.len() as u64;
        if let Rows::Packed { pieces, .. } = &self.rows {
            self.coverage.places = pieces.iter().map(|piece| u64::from(piece.len)).sum();
            let rows = 0..self.rows.len() as u32;
            self.len = rows.map(|row| self.row_len(0, row)).max().unwrap_or(0);
        } else {
            self.coverage.places = self.coverage.rows * self.len as u64;
        }
    }

    /// Steps in an epoch; the last one may have fewer rows than the others.
    pub fn n_per_epoch(&self) -> u64 {
        self.rows.len().div_ceil(self.settings.batch) as u64
    }

    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Tokens that one step reads, padding not counted.
    pub fn n_tokens(&mut self, step: u64) -> u64 {
        let (epoch, rows) = self.rows_of(step);
        let rows = self.order.1[rows].iter();
        rows.map(|&row| self.row_len(epoch, row) as u64).sum()
    }

    /// The micro-batches of one step, of at most `micro_batch` rows each. `step` counts
    /// from 0 through all epochs.
    pub fn step(&mut self, step: u64, micro_batch: usize) -> Vec<Batch> {
        let (epoch, rows) = self.rows_of(step);
        self.batches(epoch, rows, micro_batch)
    }

    /// The same, of rows that are divided into leaves of equal size, as near as may be; no more
    /// leaves than rows.
    pub fn leaves(&mut self, step: u64, n_leaves: usize, micro_batch: usize) -> Vec<Vec<Batch>> {
        let (epoch, rows) = self.rows_of(step);
        let n_leaves = n_leaves.clamp(1, rows.len().max(1));
        let leaf = |leaf| {
            let share = share(rows.len(), leaf, n_leaves);
            let share = rows.start + share.start..rows.start + share.end;
            self.batches_of(epoch, &rows, share, micro_batch)
        };
        (0..n_leaves).map(leaf).collect()
    }

    /// The epoch of a step, and which of that epoch's rows the step reads.
    fn rows_of(&mut self, step: u64) -> (u64, Range<usize>) {
        let (epoch, batch_idx) = (step / self.n_per_epoch(), step % self.n_per_epoch());
        if self.order.0 != epoch {
            self.order = (epoch, self.epoch_order(epoch));
        }
        let from = batch_idx as usize * self.settings.batch;
        (
            epoch,
            from..(from + self.settings.batch).min(self.order.1.len()),
        )
    }

    /// Rows laid out, in whatever order.
    pub(crate) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows that a step reads, in their order.
    pub(crate) fn rows_of_step(&mut self, step: u64) -> Vec<u32> {
        let (_, rows) = self.rows_of(step);
        self.order.1[rows].to_vec()
    }

    /// Rows of an evaluation.
    pub(crate) fn n_evaluated(&self) -> usize {
        self.order.1.len()
    }

    /// The rows of an evaluation, in their order.
    pub(crate) fn evaluated(&self) -> &[u32] {
        &self.order.1
    }

    /// One row alone, of rows that are the same in each epoch.
    pub(crate) fn alone(&self, row: u32) -> Batch {
        self.batch(0, &[row], self.row_len(0, row), 0)
    }

    /// The batches of an evaluation, of at most `micro_batch` rows each; see `for_evaluation`.
    pub fn evaluation(&self, micro_batch: usize) -> impl Iterator<Item = EvaluationBatch> + '_ {
        let micro_batch = micro_batch.max(1);
        let n_rows = self.order.1.len();
        (0..n_rows).step_by(micro_batch).flat_map(move |from| {
            let rows = from..(from + micro_batch).min(n_rows);
            let batches = self.batches(0, rows.clone(), micro_batch);
            let batches = batches.into_iter();
            batches.map(move |batch| self.labelled(batch, &self.order.1[rows.clone()]))
        })
    }

    fn labelled(&self, batch: Batch, rows: &[u32]) -> EvaluationBatch {
        let n_places = batch.n_rows * batch.len;
        let mut roles = vec![0; n_places];
        for (row_idx, &row) in rows.iter().enumerate() {
            let mut place = row_idx * batch.len;
            for piece in self.row(0, row) {
                let stretch = self.split.stretch(piece.start, piece.len as usize + 1);
                for idx in 1..stretch.len() {
                    roles[place] = stretch.role(idx);
                    place += 1;
                }
            }
        }
        EvaluationBatch { batch, roles }
    }

    /// Random windows need no order: each is drawn when it is read.
    fn epoch_order(&self, epoch: u64) -> Vec<u32> {
        match self.rows {
            Rows::Windows { n_rows } => (0..n_rows as u32).collect(),
            _ => permutation(self.rows.len(), self.seed, Purpose::Rows, epoch),
        }
    }

    fn batches(&self, epoch: u64, rows: Range<usize>, micro_batch: usize) -> Vec<Batch> {
        self.batches_of(epoch, &rows, rows.clone(), micro_batch)
    }

    /// The micro-batches of some of a step's rows.
    fn batches_of(
        &self,
        epoch: u64,
        step: &Range<usize>,
        rows: Range<usize>,
        micro_batch: usize,
    ) -> Vec<Batch> {
        let row_offset = rows.start - step.start;
        let all = &self.order.1[step.clone()];
        let rows = &self.order.1[rows];
        // All micro-batches of a step have one length, however the step is divided.
        let longest = || all.iter().map(|&row| self.row_len(epoch, row)).max();
        let len = match self.settings.batching {
            Batching::Padded => longest(),
            _ if self.settings.pairs => longest(),
            _ => None,
        };
        let len = len.unwrap_or(self.len);
        rows.chunks(micro_batch.max(1))
            .enumerate()
            .map(|(idx, chunk)| self.batch(epoch, chunk, len, row_offset + idx * micro_batch))
            .collect()
    }

    fn batch(&self, epoch: u64, rows: &[u32], len: usize, row_offset: usize) -> Batch {
        let n_places = rows.len() * len;
        let mut batch = Batch {
            n_rows: rows.len(),
            len,
            tokens: vec![0; n_places],
            targets: vec![0; n_places],
            weights: vec![0.0; n_places],
            positions: vec![0; n_places],
            starts: (0..n_places).map(|place| (place % len) as u16).collect(),
            row_offset,
        };
        for (row_idx, &row) in rows.iter().enumerate() {
            let mut start = 0;
            for piece in self.row(epoch, row) {
                self.fill(&mut batch, row_idx * len, start, piece);
                start += piece.len as usize;
            }
        }
        batch
    }

    /// Writes a piece at place `start` of the row that begins at place `row` of the batch.
    fn fill(&self, batch: &mut Batch, row: usize, start: usize, piece: Piece) {
        let stretch = self.split.stretch(piece.start, piece.len as usize + 1);
        for idx in 0..piece.len as usize {
            let place = row + start + idx;
            batch.tokens[place] = stretch.id(idx);
            batch.targets[place] = stretch.id(idx + 1);
            let counts = self.settings.loss_on == LossOn::All || stretch.is_target(idx + 1);
            batch.weights[place] = f32::from(u8::from(counts));
            batch.positions[place] = idx as u16;
            batch.starts[place] = start as u16;
        }
    }

    fn row(&self, epoch: u64, row: u32) -> Vec<Piece> {
        let n_starts = self.split.n_tokens() - self.len as u64;
        match &self.rows {
            Rows::Packed { pieces, ends } => {
                let row = row as usize;
                let from = row.checked_sub(1).map_or(0, |before| ends[before]);
                pieces[from as usize..ends[row] as usize].to_vec()
            }
            Rows::Sliding { stride, .. } => {
                self.window((u64::from(row) * stride).min(n_starts - 1))
            }
            Rows::Windows { .. } => {
                let purpose = Purpose::Windows;
                self.window(random_below(
                    n_starts,
                    self.seed,
                    purpose,
                    epoch,
                    row.into(),
                ))
            }
        }
    }

    /// The pieces of the stretch of `len + 1` tokens at `offset`, one for each document in it.
    fn window(&self, offset: u64) -> Vec<Piece> {
        let end = offset + self.len as u64 + 1;
        self.split.documents()[self.split.document_at(offset)..]
            .iter()
            .take_while(|document| document.start < end)
            .filter_map(|document| {
                let from = document.start.max(offset);
                let to = (document.start + u64::from(document.len)).min(end);
                let len = (to - from - 1) as u32;
                (len > 0).then_some(Piece { start: from, len })
            })
            .collect()
    }

    fn row_len(&self, epoch: u64, row: u32) -> usize {
        let lens = self.row(epoch, row).into_iter().map(|piece| piece.len);
        lens.sum::<u32>() as usize
    }
}

#[cfg(test)]
mod tests;
