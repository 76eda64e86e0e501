//! The passes over the documents: what they share, in memory and on disk.

use std::path::{Path, PathBuf};

use tinylm_pipeline::{At, StageError, StageIo};

use super::spill::Sorter;
use crate::shared::{
    documents::{Documents, RowGroup, Rows},
    parallel::in_order,
};

/// Shared by all passes.
pub(super) struct Work<'a> {
    pub(super) io: &'a StageIo<'a>,
    memory_mb: usize,
    /// A folder for what does not fit into memory; emptied at the start and at the end.
    pub(super) scratch: Scratch,
}

/// A folder that goes when it is dropped. It lies beside the checkpoints, never in the artifact.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left over, it is emptied by the next attempt.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(memory_mb: usize, io: &'a StageIo<'a>) -> Result<Self, StageError> {
        let path = io.checkpoints().join("dedupe-scratch");
        if path.exists() {
            std::fs::remove_dir_all(&path).at(&path)?;
        }
        std::fs::create_dir_all(&path).at(&path)?;
        let scratch = Scratch(path);
        Ok(Self {
            io,
            memory_mb,
            scratch,
        })
    }

    /// Returns a share of the memory in bytes. What is held at one time adds up to the
    /// whole: verdicts an eighth; of an evaluation set a half and an eighth; for `exact` a
    /// half; for `minhash` an eighth, a half and a quarter.
    pub(super) fn memory(&self, part: usize, of: usize) -> usize {
        (self.memory_mb << 20) / of * part
    }

    /// Returns what sorts records in such a share.
    pub(super) fn sorter<const N: usize>(
        &self,
        name: &'static str,
        part: usize,
        of: usize,
    ) -> Sorter<'_, N> {
        let cancel = self.io.cancel_flag();
        Sorter::new(self.scratch.path(), name, self.memory(part, of), cancel)
    }

    /// Reads row groups on all threads and hands what `work` makes of each to `take` in order.
    pub(super) fn each_group<R: Send>(
        &self,
        documents: &Documents,
        note: &str,
        work: impl Fn(&RowGroup, Rows) -> Result<R, StageError> + Sync,
        take: impl FnMut(&RowGroup, R) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        self.each_group_wanted(documents, note, |_| true, work, take)
    }

    /// The same, without reading the row groups that are not wanted; they come without rows.
    pub(super) fn each_group_wanted<R: Send>(
        &self,
        documents: &Documents,
        note: &str,
        is_wanted: impl Fn(&RowGroup) -> bool + Sync,
        work: impl Fn(&RowGroup, Rows) -> Result<R, StageError> + Sync,
        take: impl FnMut(&RowGroup, R) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let nothing = |_: &RowGroup| Ok(());
        let read = |group: &RowGroup| match is_wanted(group) {
            true => group.read(),
            false => Ok(Rows::default()),
        };
        let work = |group: &RowGroup, ()| work(group, read(group)?);
        self.in_turn(documents, note, nothing, work, take)
    }

    /// The same with something of one's own for each group, asked for in order.
    pub(super) fn each_group_with<T: Send, R: Send>(
        &self,
        documents: &Documents,
        note: &str,
        give: impl FnMut(&RowGroup) -> Result<T, StageError>,
        work: impl Fn(&RowGroup, Rows, T) -> Result<R, StageError> + Sync,
        take: impl FnMut(&RowGroup, R) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let work = |group: &RowGroup, given| work(group, group.read()?, given);
        self.in_turn(documents, note, give, work, take)
    }

    fn in_turn<T: Send, R: Send>(
        &self,
        documents: &Documents,
        note: &str,
        mut give: impl FnMut(&RowGroup) -> Result<T, StageError>,
        work: impl Fn(&RowGroup, T) -> Result<R, StageError> + Sync,
        mut take: impl FnMut(&RowGroup, R) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let mut groups = documents.row_groups().iter();
        let total = Some(documents.n_documents());
        in_order(
            self.io.threads(),
            |(group, _): &(&RowGroup, T)| group.content_bytes(),
            || {
                let next = groups.next();
                next.map(|group| Ok((group, give(group)?))).transpose()
            },
            |(group, given)| match self.io.is_cancelled() {
                true => Err(StageError::cancelled()),
                false => Ok((group, work(group, given)?)),
            },
            |(group, result)| {
                let done = group.first_row + group.n_rows as u64;
                self.io
                    .progress_note(done, total, "documents", Some(note))?;
                take(group, result)
            },
        )
    }
}
