//! What is kept of a part, and the list of what is not.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tinylm_pipeline::{Content, Metrics, NoSettings, Roles, Stage, StageError, StageIo};

use super::{
    super::{
        counts::Counts,
        filtered::filter,
        records::Records,
        report::{self, DuplicatesWriter},
        spill::Table,
        verdict::{Verdict, Why},
        work::Work,
    },
    given::{SIGNED, hidden, open_files, unnamed},
    judge::{VERDICT_LEN, VERDICTS},
    sign::{CONTAMINATED, CONTAMINATED_LEN, IDS},
    sliced::Sliced,
};
use crate::shared::{
    documents::{Digest, DocumentsWriter, RowGroup, Written},
    partition::Places,
    threads,
};

/// The role of the verdicts.
pub(super) const JUDGED: &str = "judged";

/// Of so many other parts ids are read at once, which bounds the files that are open.
const TABLES_MAX: usize = 64;

pub(super) struct Filter;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FilterWatch {
    pub(super) files: Places,
    /// The number of the part among those that were judged.
    pub(super) part: u32,
    /// The numbers of the parts whose signatures are given.
    pub(super) signed: Vec<u32>,
    pub(super) memory_mb: usize,
}

hidden!(FilterWatch);

impl Stage for Filter {
    type Settings = NoSettings;
    type Watch = FilterWatch;

    const KIND: &'static str = "dedupe-filter";
    const ABOUT: &'static str = "what `dedupe` keeps of a part";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Documents;
    const ROLES: Roles = Roles::Any;

    fn run(_: &NoSettings, watch: &FilterWatch, io: &StageIo) -> Result<Metrics, StageError> {
        let counts = threads::pool(io)?.install(|| write(watch, io))?;
        Ok(counts.metrics().count(BYTES_KEPT, counts.written.n_bytes))
    }
}

fn write(watch: &FilterWatch, io: &StageIo) -> Result<Counts, StageError> {
    let documents = open_files(&watch.files, io)?;
    let work = Work::new(watch.memory_mb, io)?;
    let mut writer = DocumentsWriter::create(io.out());
    let mut duplicates = DuplicatesWriter::create(&io.out().join(report::NAME))?;
    let encoder = writer.encoder();
    let mut verdicts = Verdicts::open(watch, io)?;
    let mut counts = Counts::default();
    work.each_group_with(
        &documents,
        "writing",
        |group| verdicts.of_group(group),
        |_, rows, verdicts| filter(rows, verdicts, &encoder),
        |_, filtered| {
            counts.add(&filtered.verdicts);
            for (row, verdict) in &filtered.verdicts {
                duplicates.push(filtered.ids[*row], verdict.kept, verdict)?;
            }
            writer.push_encoded(filtered.encoded)
        },
    )?;
    duplicates.finish()?;
    counts.written = writer.finish()?;
    counts.n_read = documents.n_documents();
    Ok(counts)
}

/// The verdicts of one row group after the other, each with the id of the document that is kept.
struct Verdicts<'a> {
    records: Records<VERDICT_LEN>,
    next: Option<[u32; VERDICT_LEN]>,
    ids: Ids<'a>,
}

impl<'a> Verdicts<'a> {
    fn open(watch: &'a FilterWatch, io: &'a StageIo) -> Result<Self, StageError> {
        let judged = &io.input(JUDGED)?.path;
        let sliced = Sliced::<VERDICT_LEN>::open(judged, VERDICTS)?;
        let mut records = sliced.read(sliced.of_part(watch.part))?;
        Ok(Self {
            next: records.next()?,
            records,
            ids: Ids {
                watch,
                io,
                open: HashMap::new(),
                evaluation: None,
            },
        })
    }

    fn of_group(&mut self, group: &RowGroup) -> Result<Vec<(usize, Verdict<Digest>)>, StageError> {
        let first = group.first_row;
        let mut of_group = Vec::new();
        while let Some([row, why, part, kept, similarity]) = self.next
            && u64::from(row) < first + group.n_rows as u64
        {
            let why = Why::ALL[why as usize];
            let kept = match why {
                Why::Contamination => self.ids.of_evaluation(part, kept)?,
                Why::Exact | Why::Near => self.ids.of(part, kept)?,
            };
            let verdict = Verdict {
                why,
                kept,
                similarity: f32::from_bits(similarity),
            };
            of_group.push(((u64::from(row) - first) as usize, verdict));
            self.next = self.records.next()?;
        }
        Ok(of_group)
    }
}

/// Ids of documents of any part.
struct Ids<'a> {
    watch: &'a FilterWatch,
    io: &'a StageIo<'a>,
    open: HashMap<u32, Table<32>>,
    evaluation: Option<Table<{ 4 * CONTAMINATED_LEN }>>,
}

impl Ids<'_> {
    fn of(&mut self, part: u32, row: u32) -> Result<Digest, StageError> {
        if !self.open.contains_key(&part) {
            if self.open.len() == TABLES_MAX {
                self.open.clear();
            }
            self.open.insert(part, self.table(part, IDS)?);
        }
        self.open[&part].get(row)
    }

    /// Returns the id of the evaluation document at a place of a part's list.
    fn of_evaluation(&mut self, part: u32, place: u32) -> Result<Digest, StageError> {
        let table = match self.evaluation.take() {
            Some(table) => table,
            None => self.table(part, CONTAMINATED)?,
        };
        let mut id = Digest::default();
        id.copy_from_slice(&table.get(place)?[8..]);
        self.evaluation = Some(table);
        Ok(id)
    }

    fn table<const LEN: usize>(&self, part: u32, name: &str) -> Result<Table<LEN>, StageError> {
        let signed = self.io.inputs(SIGNED);
        let place = self.watch.signed.iter().position(|known| *known == part);
        let input = place.and_then(|place| signed.get(place));
        Table::open(&input.ok_or_else(|| unnamed(self.io.out()))?.path, name)
    }
}

const BYTES_KEPT: &str = "bytes_kept";

/// Returns what the numbers of several parts add up to.
pub(super) fn all_of<'a>(metrics: impl Iterator<Item = &'a Metrics>) -> Counts {
    let mut counts = Counts::default();
    for metrics in metrics {
        let count = |name: &str| metrics.get(name).unwrap_or_default() as u64;
        counts.n_read += count("documents_read");
        counts.written = Written {
            n_documents: counts.written.n_documents + count("documents_kept"),
            n_bytes: counts.written.n_bytes + count(BYTES_KEPT),
            n_files: 0,
        };
        for (why, name) in [
            (Why::Exact, "exact_duplicates"),
            (Why::Near, "near_duplicates"),
            (Why::Contamination, "contaminated"),
        ] {
            counts.n_dropped[why as usize] += count(name);
        }
    }
    counts
}
