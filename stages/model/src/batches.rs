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

use std::collections::BTreeSet;

use serde::Serialize;
use tinylm_settings::choices;

use crate::{
    engine::Batch,
    order::{Purpose, permutation, random_below},
    shards::Split,
};

/// The cut of rows from documents, and of steps from rows.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSettings {
    pub batching: Batching,
    /// Tokens between the starts of two `sliding` windows; nothing else reads it.
    pub stride: usize,
    /// Places in a row.
    pub context: usize,
    /// Rows in a step.
    pub batch: usize,
    pub long_documents: LongDocuments,
    pub loss_on: LossOn,
}

choices! {
    /// How rows are cut from documents.
    pub enum Batching {
        /// Several documents a row, as full as best fit gets them.
        Packed = "packed",
        /// One document a row.
        Padded = "padded",
        /// Stretches of the token stream at random places, as many as cover it once an epoch.
        Windows = "windows",
        /// Stretches of the token stream that start every `stride` tokens.
        Sliding = "sliding",
    }
}

choices! {
    /// What packing and padding do with a document of more than `context` places.
    pub enum LongDocuments {
        /// Further pieces, each read from position 0.
        Split = "split",
        /// The end is left out.
        Crop = "crop",
    }
}

choices! {
    /// Which tokens are learned.
    pub enum LossOn {
        /// Tokens that `binarize` marked: what the assistant says, or all of a raw text.
        Targets = "targets",
        All = "all",
    }
}

/// What became of the documents, for the log and for `training.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Coverage {
    pub documents: u64,
    /// Documents of a single token, which predict nothing.
    pub documents_too_short: u64,
    /// Documents longer than the context.
    pub documents_long: u64,
    /// Tokens that cropping left out.
    pub tokens_cropped: u64,
    /// Pieces without any token that counts in the loss, left out.
    pub pieces_without_target: u64,
    pub rows: u64,
    /// Places in use, of `rows * context`.
    pub places: u64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("no token of these documents counts in the loss")]
    AllMasked,
    #[error("every document is a single token, which leaves nothing to predict")]
    NothingToPredict,
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    #[error(
        "`stride` is {stride}, and more than `context` ({context}): tokens in between would never be read"
    )]
    Stride { stride: usize, context: usize },
    #[error("`context` is {0}, and positions are counted up to 65,535")]
    Context(usize),
}

impl BatchError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::AllMasked => {
                "set `loss_on: all`, or mark what is to be learned in `normalize` and `binarize`"
            }
            Self::NothingToPredict => "give `binarize` longer documents",
            Self::Zero(_) => "set it to a positive number",
            Self::Stride { .. } => "set `stride` to at most `context`",
            Self::Context(_) => "set a shorter `context`",
        }
    }
}

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

/// Places `start..start + len` of the stream, each predicting the token after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    start: u64,
    len: u32,
}

#[derive(Debug)]
enum Rows {
    /// Row `i` is `pieces[ends[i - 1]..ends[i]]`.
    Packed { pieces: Vec<Piece>, ends: Vec<u32> },
    /// Row `i` starts at token `i * stride`, or early enough to be full.
    Sliding { n_rows: usize, stride: u64 },
    /// Row `i` of an epoch starts anywhere.
    Windows { n_rows: usize },
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
        check(settings)?;
        let mut coverage = Coverage {
            documents: split.documents().len() as u64,
            ..Coverage::default()
        };
        let rows = match settings.batching {
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

    /// The epoch of a step, and which of that epoch's rows the step reads.
    fn rows_of(&mut self, step: u64) -> (u64, std::ops::Range<usize>) {
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

    fn batches(&self, epoch: u64, rows: std::ops::Range<usize>, micro_batch: usize) -> Vec<Batch> {
        let rows = &self.order.1[rows];
        // All micro-batches of a step have one length, however the step is divided.
        let len = match self.settings.batching {
            Batching::Padded => rows.iter().map(|&row| self.row_len(epoch, row)).max(),
            _ => None,
        };
        let len = len.unwrap_or(self.len);
        rows.chunks(micro_batch.max(1))
            .enumerate()
            .map(|(idx, chunk)| self.batch(epoch, chunk, len, idx * micro_batch))
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

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Packed { ends, .. } => ends.len(),
            Self::Sliding { n_rows, .. } | Self::Windows { n_rows } => *n_rows,
        }
    }
}

fn check(settings: &BatchSettings) -> Result<(), BatchError> {
    let stride = match settings.batching {
        Batching::Sliding => settings.stride,
        _ => 1,
    };
    let positive = [
        ("context", settings.context),
        ("batch", settings.batch),
        ("stride", stride),
    ];
    if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
        return Err(BatchError::Zero(name));
    }
    if settings.context > usize::from(u16::MAX) {
        return Err(BatchError::Context(settings.context));
    }
    let context = settings.context;
    if stride > context {
        return Err(BatchError::Stride { stride, context });
    }
    Ok(())
}

/// A stream is read without cutting documents out of it, so only its whole can be useless.
fn check_stream(split: &Split, settings: &BatchSettings) -> Result<(), BatchError> {
    let mut documents = split.documents().iter();
    if documents.all(|document| document.len < 2) {
        return Err(BatchError::NothingToPredict);
    }
    let mut documents = split.documents().iter();
    let counts =
        documents.any(|document| counts(split, document.start, document.len - 1, settings.loss_on));
    if counts {
        Ok(())
    } else {
        Err(BatchError::AllMasked)
    }
}

/// The pieces of all documents that count, in document order.
fn cut(
    split: &Split,
    settings: &BatchSettings,
    coverage: &mut Coverage,
) -> Result<Vec<Piece>, BatchError> {
    let context = settings.context as u32;
    let mut pieces = Vec::with_capacity(split.documents().len());
    for document in split.documents() {
        let n_places = document.len - 1;
        coverage.documents_too_short += u64::from(n_places == 0);
        coverage.documents_long += u64::from(n_places > context);
        let n_kept = match settings.long_documents {
            LongDocuments::Split => n_places,
            LongDocuments::Crop => n_places.min(context),
        };
        coverage.tokens_cropped += u64::from(n_places - n_kept);
        for from in (0..n_kept).step_by(context as usize) {
            let start = document.start + u64::from(from);
            let len = context.min(n_kept - from);
            if counts(split, start, len, settings.loss_on) {
                pieces.push(Piece { start, len });
            } else {
                coverage.pieces_without_target += 1;
            }
        }
    }
    match pieces.is_empty() {
        false => Ok(pieces),
        true if coverage.pieces_without_target > 0 => Err(BatchError::AllMasked),
        true => Err(BatchError::NothingToPredict),
    }
}

/// Whether any of the `len` places at `start` predicts a token that counts.
fn counts(split: &Split, start: u64, len: u32, loss_on: LossOn) -> bool {
    let stretch = split.stretch(start, len as usize + 1);
    len > 0 && (loss_on == LossOn::All || (1..stretch.len()).any(|idx| stretch.is_target(idx)))
}

/// Puts each piece into the fullest row that still has room for it.
fn best_fit(pieces: &[Piece], context: usize) -> Rows {
    let mut rows: Vec<Vec<u32>> = Vec::new();
    // Rows by how much room they have; a set of the sizes in use finds the least that fits.
    let mut with_room: Vec<Vec<usize>> = vec![Vec::new(); context + 1];
    let mut rooms: BTreeSet<usize> = BTreeSet::new();
    for (piece_idx, piece) in pieces.iter().enumerate() {
        let len = piece.len as usize;
        let (row, room) = match rooms.range(len..).next().copied() {
            Some(room) => {
                let row = with_room[room].pop().unwrap_or_default();
                if with_room[room].is_empty() {
                    rooms.remove(&room);
                }
                (row, room)
            }
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, context)
            }
        };
        rows[row].push(piece_idx as u32);
        if room > len {
            with_room[room - len].push(row);
            rooms.insert(room - len);
        }
    }
    let in_rows = rows.iter().flatten();
    let mut end = 0;
    Rows::Packed {
        pieces: in_rows.map(|&idx| pieces[idx as usize]).collect(),
        ends: rows
            .iter()
            .map(|row| {
                end += row.len() as u32;
                end
            })
            .collect(),
    }
}

/// Windows needed so that every token of the stream stands in one.
fn n_sliding(n_tokens: u64, context: usize, stride: usize) -> usize {
    let past_first = (n_tokens as usize).saturating_sub(context + 1);
    1 + past_first.div_ceil(stride)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::shards::{
        ROLE_ASSISTANT, ROLE_TEXT, ROLE_USER, Shards, TARGET,
        testing::{Tokens, text, write},
    };

    fn split(documents: &[Tokens]) -> Split {
        let folder = TempDir::new().unwrap();
        // Two files, so that the stream crosses from one to the other.
        let middle = documents.len() / 2;
        let files = [documents[..middle].to_vec(), documents[middle..].to_vec()];
        write(folder.path(), 4000, &[("train", &files)]);
        Shards::open(folder.path()).unwrap().split("train").unwrap()
    }

    fn settings(batching: Batching, context: usize, batch: usize) -> BatchSettings {
        BatchSettings {
            batching,
            stride: context.min(5),
            context,
            batch,
            long_documents: LongDocuments::Split,
            loss_on: LossOn::Targets,
        }
    }

    /// Document `d` of `len` tokens is `100 d, 100 d + 1, ...`: every pair is unique.
    fn documents(lens: &[usize]) -> Vec<Tokens> {
        let ids = |(d, &len): (usize, &usize)| {
            text(&Vec::from_iter((0..len).map(|i| (100 * d + i) as u16)))
        };
        lens.iter().enumerate().map(ids).collect()
    }

    /// The (input, target) pairs that count, and a check of all that must hold in any batch.
    fn pairs(batches: &[Batch]) -> Vec<(u16, u16)> {
        let mut pairs = Vec::new();
        for batch in batches {
            for place in 0..batch.n_rows * batch.len {
                let (start, t) = (usize::from(batch.starts[place]), place % batch.len);
                assert!(start <= t);
                if batch.weights[place] == 0.0 {
                    continue;
                }
                assert_eq!(usize::from(batch.positions[place]), t - start);
                for seen in place - (t - start)..place {
                    assert_eq!(batch.starts[seen], batch.starts[place]);
                    assert_eq!(batch.tokens[seen] / 100, batch.tokens[place] / 100);
                    assert_eq!(batch.targets[seen], batch.tokens[seen + 1]);
                }
                pairs.push((batch.tokens[place], batch.targets[place]));
            }
        }
        pairs
    }

    fn epoch(batches: &mut Batches<'_>, epoch: u64, micro_batch: usize) -> Vec<Batch> {
        let n = batches.n_per_epoch();
        (epoch * n..(epoch + 1) * n)
            .flat_map(|step| batches.step(step, micro_batch))
            .collect()
    }

    fn sorted(mut pairs: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
        pairs.sort_unstable();
        pairs
    }

    fn all_pairs(lens: &[usize]) -> Vec<(u16, u16)> {
        let pairs = |(d, &len): (usize, &usize)| {
            (1..len).map(move |i| ((100 * d + i - 1) as u16, (100 * d + i) as u16))
        };
        lens.iter().enumerate().flat_map(pairs).collect()
    }

    proptest! {
        #[test]
        fn an_epoch_predicts_every_token_of_every_document_once(
            lens in prop::collection::vec(1_usize..40, 2..10),
            context in 1_usize..24,
            batch in 1_usize..5,
            micro_batch in 1_usize..5,
            padded: bool,
        ) {
            prop_assume!(lens.iter().any(|&len| len > 1));
            let split = split(&documents(&lens));
            let batching = if padded { Batching::Padded } else { Batching::Packed };
            let settings = settings(batching, context, batch);
            let mut batches = Batches::new(&split, &settings, 7).unwrap();
            for epoch_idx in 0..2 {
                let read = sorted(pairs(&epoch(&mut batches, epoch_idx, micro_batch)));
                prop_assert_eq!(read, all_pairs(&lens));
            }
        }

        #[test]
        fn sliding_windows_leave_no_token_out(
            lens in prop::collection::vec(1_usize..40, 2..6),
            context in 1_usize..24,
            stride in 1_usize..24,
        ) {
            prop_assume!(lens.iter().any(|&len| len > 1));
            let split = split(&documents(&lens));
            let stride = stride.min(context);
            let settings = BatchSettings {
                stride,
                ..settings(Batching::Sliding, context, 3)
            };
            let mut batches = Batches::new(&split, &settings, 7).unwrap();
            let mut read = sorted(pairs(&epoch(&mut batches, 0, 2)));
            read.dedup();
            prop_assert_eq!(read, all_pairs(&lens));
        }

        #[test]
        fn a_step_is_the_same_however_it_is_divided(
            lens in prop::collection::vec(2_usize..20, 6..12),
            micro_batch in 1_usize..8,
            step in 0_u64..20,
            mode in 0_usize..4,
        ) {
            let split = split(&documents(&lens));
            let batching = [
                Batching::Packed,
                Batching::Padded,
                Batching::Windows,
                Batching::Sliding,
            ][mode];
            let settings = settings(batching, 16, 6);
            let whole = Batches::new(&split, &settings, 7).unwrap().step(step, 6);
            // Asked for out of order, as a resumed run does.
            let mut again = Batches::new(&split, &settings, 7).unwrap();
            again.step(step + 5, 6);
            let parts = again.step(step, micro_batch);
            let offsets: Vec<usize> = parts.iter().map(|part| part.row_offset).collect();
            let expected: Vec<usize> = (0..whole[0].n_rows).step_by(micro_batch).collect();
            prop_assert_eq!(offsets, expected);
            let joined: Vec<u16> = parts.iter().flat_map(|part| part.tokens.clone()).collect();
            prop_assert_eq!(joined, whole[0].tokens.clone());
        }
    }

    #[test]
    fn packing_fills_rows_and_padding_does_not() {
        let split = split(&documents(&[5, 5, 9, 3, 7, 13, 4, 2, 10]));
        let n_rows = |batching| {
            let batches = Batches::new(&split, &settings(batching, 16, 4), 7).unwrap();
            (batches.coverage().rows, batches.coverage().places)
        };
        assert_eq!(n_rows(Batching::Padded), (9, 49));
        let (n_packed, places) = n_rows(Batching::Packed);
        assert_eq!(places, 49);
        assert!(n_packed <= 5, "{n_packed} rows for 49 places in rows of 16");
    }

    #[test]
    fn random_windows_read_the_stream_and_do_not_cross_documents() {
        let lens = [30, 2, 50];
        let split = split(&documents(&lens));
        let settings = settings(Batching::Windows, 8, 4);
        let mut batches = Batches::new(&split, &settings, 7).unwrap();
        assert_eq!(batches.coverage().rows, 11);
        let [first, second] = [0, 1].map(|idx| pairs(&epoch(&mut batches, idx, 4)));
        let all = all_pairs(&lens);
        assert!(first.len() > 60 && first.iter().all(|pair| all.contains(pair)));
        assert_ne!(first, second);
    }

    #[test]
    fn long_documents_are_split_or_cropped_and_counted() {
        let split = split(&documents(&[25, 4]));
        let mut settings = settings(Batching::Packed, 10, 4);
        let whole = Batches::new(&split, &settings, 7).unwrap();
        assert_eq!(whole.coverage().tokens_cropped, 0);
        assert_eq!(
            (whole.coverage().documents_long, whole.coverage().places),
            (1, 27)
        );
        settings.long_documents = LongDocuments::Crop;
        let cropped = Batches::new(&split, &settings, 7).unwrap();
        assert_eq!(cropped.coverage().tokens_cropped, 14);
        assert_eq!(
            (cropped.coverage().documents_long, cropped.coverage().places),
            (1, 13)
        );
    }

    #[test]
    fn the_loss_is_on_targets_or_on_all() {
        let answer = vec![
            (1, ROLE_USER),
            (2, ROLE_USER),
            (3, ROLE_ASSISTANT | TARGET),
            (4, TARGET),
        ];
        let silent = vec![(5, ROLE_USER), (6, ROLE_USER)];
        let split = split(&[answer, silent.clone()]);
        let mut settings = settings(Batching::Padded, 10, 4);
        let weights = |settings: &BatchSettings| {
            let mut batches = Batches::new(&split, settings, 7).unwrap();
            let weights = batches.step(0, 4)[0].weights.clone();
            (weights, batches.coverage().pieces_without_target)
        };
        assert_eq!(weights(&settings), (vec![0.0, 1.0, 1.0], 1));
        settings.loss_on = LossOn::All;
        let (all, left_out) = weights(&settings);
        assert_eq!((all.iter().sum::<f32>(), left_out), (4.0, 0));
    }

    #[test]
    fn an_evaluation_knows_the_role_of_what_is_predicted() {
        let answer = vec![(1, ROLE_USER), (2, ROLE_ASSISTANT | TARGET), (3, TARGET)];
        let split = split(&[answer.clone(), answer]);
        let settings = settings(Batching::Packed, 5, 4);
        let batches = Batches::for_evaluation(&split, &settings, 10).unwrap();
        let read: Vec<EvaluationBatch> = batches.evaluation(4).collect();
        assert_eq!(
            read[0].roles,
            [ROLE_ASSISTANT, ROLE_TEXT, ROLE_ASSISTANT, ROLE_TEXT]
        );
    }

    #[test]
    fn data_that_teaches_nothing_is_refused() {
        let masked = split(&[vec![(1, ROLE_USER), (2, ROLE_USER)]]);
        let short = split(&[text(&[1]), text(&[2])]);
        for batching in [Batching::Packed, Batching::Windows] {
            let settings = settings(batching, 8, 2);
            let refusal = |split| Batches::new(split, &settings, 7).unwrap_err();
            assert_eq!(refusal(&masked), BatchError::AllMasked);
            assert_eq!(refusal(&short), BatchError::NothingToPredict);
        }
        let zero = Batches::new(&masked, &settings(Batching::Packed, 0, 2), 7);
        assert_eq!(zero.unwrap_err(), BatchError::Zero("context"));
    }

    #[test]
    fn validation_reads_a_fixed_spread_of_rows() {
        let lens = [9; 20];
        let split = split(&documents(&lens));
        let settings = settings(Batching::Padded, 8, 4);
        let some = Batches::for_evaluation(&split, &settings, 5).unwrap();
        let firsts: Vec<u16> = some
            .evaluation(2)
            .flat_map(|read| {
                let rows = read.batch.tokens.chunks(8);
                rows.map(|row| row[0]).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(firsts, [0, 400, 800, 1200, 1600]);
        let all = Batches::for_evaluation(&split, &settings, usize::MAX).unwrap();
        let read: Vec<Batch> = all.evaluation(3).map(|read| read.batch).collect();
        assert_eq!(sorted(pairs(&read)), all_pairs(&lens));
    }
}
