//! All chunks of all files, in order.

use tinylm_pipeline::StageError;

use super::{chunk::Chunk, gathered::Gathered, settings::NormalizeSettings, source::Source};

pub(super) struct Chunks<'a> {
    sources: &'a [Source],
    settings: &'a NormalizeSettings,
    assistant: Option<&'a str>,
    source_idx: usize,
    /// How many rows may still come.
    rows_left: u64,
    open: Option<Gathered>,
    /// Files of which several lists were read, with the names of those.
    merged: Vec<(usize, Vec<String>)>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(
        sources: &'a [Source],
        settings: &'a NormalizeSettings,
        assistant: Option<&'a str>,
    ) -> Self {
        Self {
            sources,
            settings,
            assistant,
            source_idx: 0,
            rows_left: settings.max_rows.unwrap_or(u64::MAX),
            open: None,
            merged: Vec::new(),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<(usize, Chunk)>, StageError> {
        while self.rows_left > 0
            && let Some(source) = self.sources.get(self.source_idx)
        {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => Gathered::open(source, self.settings, self.assistant)?,
            };
            if let Some(mut chunk) = open.next()? {
                chunk.rows.truncate(self.rows_left);
                self.rows_left -= chunk.rows.len();
                self.open = Some(open);
                return Ok(Some((self.source_idx, chunk)));
            }
            if open.lists().len() > 1 {
                self.merged.push((self.source_idx, open.lists().to_vec()));
            }
            self.source_idx += 1;
        }
        Ok(None)
    }

    /// Says of which files more than one list was read.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.merged.iter().map(|(source_idx, lists)| {
            let file = &self.sources[*source_idx].file;
            let lists: Vec<String> = lists.iter().map(|list| format!("`{list}`")).collect();
            format!(
                "`{file}` holds the lists {}, and all their rows are read as one: to hold one back, \
                 put each in a file of its own",
                lists.join(", ")
            )
        })
    }
}
