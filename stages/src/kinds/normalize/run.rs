//! The pass over the files: rows found, made documents on all threads, and written in order.

use tinylm_pipeline::{StageError, StageIo};

use super::{
    chunk::Chunk,
    chunks::Chunks,
    outcome::{FileOutcome, Outcome},
    rejected::Rejections,
    rows::{Documents, Made, Recipe, Tally},
    settings::NormalizeSettings,
    source::Source,
};
use crate::shared::{documents::DocumentsWriter, parallel::in_order};

/// Of the whole as of its parts.
pub(super) const REVISION: u32 = 6;

/// The file of counts.
pub(super) const STATS: &str = "stats.json";

/// One pass over all sources.
pub(super) struct Run<'a> {
    settings: &'a NormalizeSettings,
    io: &'a StageIo<'a>,
    sources: &'a [Source],
    assistant: Option<String>,
    writer: Option<DocumentsWriter>,
    rejections: Rejections,
    tallies: Vec<Tally>,
    bytes_total: u64,
    n_left: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        settings: &'a NormalizeSettings,
        io: &'a StageIo<'a>,
        sources: &'a [Source],
        assistant: Option<String>,
    ) -> Result<Self, StageError> {
        Ok(Self {
            settings,
            io,
            sources,
            assistant,
            writer: Some(DocumentsWriter::create(io.out())),
            rejections: Rejections::create(io.out())?,
            tallies: vec![Tally::default(); sources.len()],
            bytes_total: sources.iter().map(|source| source.bytes).sum(),
            n_left: settings.max_documents.unwrap_or(u64::MAX),
        })
    }

    pub(super) fn go(&mut self) -> Result<(), StageError> {
        let (settings, sources) = (self.settings, self.sources);
        let assistant = self.assistant.clone();
        let mut writer = self
            .writer
            .take()
            .ok_or_else(|| StageError::new("the documents are closed"))?;
        let encoder = writer.encoder();
        let recipe = Recipe::new(settings);
        let enough = std::cell::Cell::new(false);
        let mut chunks = Chunks::new(sources, settings, assistant.as_deref());
        let outcome = in_order(
            self.io.threads(),
            |(_, chunk): &(usize, Chunk)| chunk.weight(),
            || {
                if enough.get() {
                    return Ok(None);
                }
                chunks.next()
            },
            |(source_idx, chunk)| recipe.make(&sources[source_idx], source_idx, chunk, &encoder),
            |made| {
                self.take(made, &mut writer)?;
                enough.set(self.n_left == 0);
                Ok(())
            },
        );
        self.writer = Some(writer);
        for warning in chunks.warnings() {
            self.io.warn(warning);
        }
        outcome
    }

    /// Takes what became of one chunk, unless there is enough already.
    fn take(&mut self, made: Made, writer: &mut DocumentsWriter) -> Result<(), StageError> {
        if self.n_left == 0 {
            return Ok(());
        }
        let before = self.bytes_before(made.source_idx);
        self.io
            .progress(before + made.position, Some(self.bytes_total), "bytes")?;
        let source = &self.sources[made.source_idx];
        for rejection in &made.rejected {
            self.rejections.push(source, rejection)?;
        }
        let mut tally = made.tally;
        tally.documents = 0;
        for documents in made.documents {
            tally.documents += match documents {
                Documents::Encoded(encoded) => {
                    let n_rows = encoded.n_rows as u64;
                    writer.push_encoded(encoded)?;
                    n_rows
                }
                Documents::Rows(rows) => {
                    let left = self.n_left - tally.documents;
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                    for row in rows.iter().take(wanted) {
                        writer.push(&row)?;
                    }
                    rows.len().min(wanted) as u64
                }
            };
        }
        self.n_left -= tally.documents;
        self.tallies[made.source_idx].add(&tally);
        Ok(())
    }

    fn bytes_before(&self, source_idx: usize) -> u64 {
        self.sources[..source_idx]
            .iter()
            .map(|source| source.bytes)
            .sum()
    }

    /// Closes the files, and says what became of the rows.
    pub(super) fn finish(self) -> Result<Outcome, StageError> {
        let files = self.sources.iter().zip(&self.tallies);
        let mut outcome = Outcome {
            files: files
                .map(|(source, tally)| FileOutcome::of(source, *tally))
                .collect(),
            examples: self.rejections.examples(),
            unwanted: self.rejections.unwanted(),
            ..Outcome::default()
        };
        let Some(writer) = self.writer else {
            return Err(StageError::new("the documents are closed"));
        };
        outcome.wrote(writer.finish()?);
        self.rejections.finish()?;
        Ok(outcome)
    }
}
