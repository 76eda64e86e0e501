//! Drops documents that repeat earlier ones, or that an evaluation set holds.
//!
//! Contents are compared, never tags or a system prompt. Two documents are the same
//! (`exact`) when the same roles say the same things, ignoring case and spacing; they are
//! nearly the same (`minhash`) when the sets of their n-grams of words overlap by
//! `threshold`, measured on the sets themselves: MinHash only proposes whom to measure.
//! The first one is always kept, and a document is only dropped in favour of one that is
//! kept, so nothing disappears because something like it disappeared.
//!
//! The corpus is read twice or three times rather than held: first for keys, then, for
//! those few that were proposed, for n-grams, and at last to write what is kept. Keys go
//! to disk when they outgrow `memory_mb`. Which bytes come out depends neither on that
//! nor on the number of threads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use serde_json::json;
use tinylm_pipeline::{
    At, Metrics, NoSettings, Role as InputRole, Roles, SettingError, Stage, StageError, StageIo,
    choices, settings,
};

use crate::{
    documents::{Digest, Documents, DocumentsWriter, RowGroup, Rows},
    parallel::in_order,
    tokenizer::write_json,
};

mod contamination;
mod exact;
mod minhash;
mod near;
mod report;
mod spill;
mod words;

use report::DuplicatesWriter;

pub struct Dedupe;

choices! {
    /// How documents are compared with each other.
    pub enum Method {
        /// The same words in the same roles, ignoring case and spacing.
        Exact = "exact",
        /// Besides, n-grams of words that overlap by `threshold`.
        Minhash = "minhash",
        /// Not at all: only `evaluation` is looked at.
        Contamination = "contamination",
    }
}

settings! {
    /// Drops documents that repeat earlier ones.
    pub struct DedupeSettings {
        /// How documents are compared.
        pub method: Method = Method::Exact,
        /// The share of n-grams (Jaccard) from which two documents are nearly the same.
        pub threshold: f64 = 0.8,
        /// Words in an n-gram; a shorter document is one n-gram.
        pub ngram: usize = 5,
        /// Hash functions of a signature: more find more of the pairs at the threshold.
        pub permutations: usize = 112,
        /// Words in an n-gram that no training document may share with an evaluation set.
        pub contamination_ngram: usize = 13,
        /// Keys beyond this many megabytes are kept on disk; changes nothing but time.
        pub memory_mb: usize = 512,
    }
}

const ROLES: &[InputRole] = &[
    InputRole::many("documents", "what is deduplicated"),
    InputRole {
        name: "evaluation",
        about: "documents that must not occur in what is kept",
        required: false,
        many: true,
    },
];

impl Stage for Dedupe {
    type Settings = DedupeSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "dedupe";
    const ABOUT: &'static str =
        "drops documents that repeat earlier ones, or that an evaluation set holds";
    const REVISION: u32 = 1;
    const ROLES: Roles = Roles::Fixed(ROLES);

    fn canonical(settings: DedupeSettings) -> Result<DedupeSettings, SettingError> {
        check(&settings)?;
        Ok(settings)
    }

    fn run(settings: &DedupeSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        let documents = open(io, "documents")?;
        let evaluation = match io.inputs("evaluation").is_empty() {
            true if settings.method == Method::Contamination => return Err(nothing_to_avoid()),
            true => None,
            false => Some(open(io, "evaluation")?),
        };
        if documents.n_documents() > u64::from(u32::MAX) {
            return Err(StageError::new("there are more than 4,294,967,295 documents").is_final());
        }
        let work = Work::new(settings, io)?;
        let mut dropped = Dropped::default();
        if let Some(evaluation) = &evaluation {
            contamination::find(&documents, evaluation, &work, &mut dropped)?;
        }
        match settings.method {
            Method::Contamination => {}
            Method::Exact => exact::find(&documents, &work, &mut dropped)?,
            Method::Minhash => near::find(&documents, &work, &mut dropped)?,
        }
        write(&documents, &dropped, settings, &work)
    }
}

fn check(settings: &DedupeSettings) -> Result<(), SettingError> {
    if !(settings.threshold > 0.0 && settings.threshold <= 1.0) {
        return Err(SettingError::new(
            "threshold",
            "must be above 0 and at most 1",
        ));
    }
    for (name, n) in [
        ("ngram", settings.ngram),
        ("contamination_ngram", settings.contamination_ngram),
    ] {
        if !(1..=100).contains(&n) {
            return Err(SettingError::new(name, "must be from 1 to 100"));
        }
    }
    if !(8..=1024).contains(&settings.permutations) {
        return Err(SettingError::new("permutations", "must be from 8 to 1024"));
    }
    if settings.memory_mb == 0 {
        return Err(SettingError::new("memory_mb", "must be at least 1"));
    }
    Ok(())
}

fn nothing_to_avoid() -> StageError {
    StageError::new("`method: contamination` needs an evaluation set")
        .help("give the stage `inputs: { documents: .., evaluation: .. }`")
        .is_final()
}

fn open(io: &StageIo, role: &str) -> Result<Documents, StageError> {
    let inputs = io.inputs(role);
    let folders: Vec<&Path> = inputs.iter().map(|input| input.path.as_path()).collect();
    Documents::open(&folders)
}

/// What all passes share.
pub(super) struct Work<'a> {
    pub(super) settings: &'a DedupeSettings,
    pub(super) io: &'a StageIo<'a>,
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
    fn new(settings: &'a DedupeSettings, io: &'a StageIo<'a>) -> Result<Self, StageError> {
        let path = io.checkpoints().join("dedupe-scratch");
        if path.exists() {
            std::fs::remove_dir_all(&path).at(&path)?;
        }
        std::fs::create_dir_all(&path).at(&path)?;
        let scratch = Scratch(path);
        Ok(Self {
            settings,
            io,
            scratch,
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.settings.memory_mb << 20
    }

    /// Reads row groups on all threads and hands what `work` makes of each to `take` in order.
    pub(super) fn each_group<R: Send>(
        &self,
        documents: &Documents,
        note: &str,
        work: impl Fn(&RowGroup, Rows) -> Result<R, StageError> + Sync,
        mut take: impl FnMut(&RowGroup, R) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let mut groups = documents.row_groups().iter();
        let total = Some(documents.n_documents());
        in_order(
            self.io.threads(),
            || Ok(groups.next()),
            |group| match self.io.is_cancelled() {
                true => Err(StageError::cancelled()),
                false => Ok((group, work(group, group.read()?)?)),
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

/// Why a document is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    pub(super) why: Why,
    /// The number of the document that is kept in its place, or of the evaluation
    /// document that it repeats.
    pub(super) kept: u32,
    pub(super) similarity: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Exact,
    Near,
    Contamination,
}

/// Documents to drop, by number: some 20 bytes each.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    verdicts: BTreeMap<u32, Verdict>,
    /// The ids of the evaluation documents that verdicts name.
    pub(super) evaluation_ids: Vec<Digest>,
}

impl Dropped {
    pub(super) fn add(&mut self, document: u32, verdict: Verdict) {
        self.verdicts.entry(document).or_insert(verdict);
    }

    pub(super) fn contains(&self, document: u32) -> bool {
        self.verdicts.contains_key(&document)
    }

    fn count(&self, why: Why) -> u64 {
        self.verdicts
            .values()
            .filter(|verdict| verdict.why == why)
            .count() as u64
    }

    /// Those of one row group, with their place in it.
    fn of_group(&self, group: &RowGroup) -> Vec<(usize, Verdict)> {
        let first = group.first_row as u32;
        let range = self.verdicts.range(first..first + group.n_rows as u32);
        range
            .map(|(n, verdict)| ((n - first) as usize, *verdict))
            .collect()
    }

    /// The numbers of documents in whose place others are dropped.
    fn kept_numbers(&self) -> BTreeSet<u32> {
        let of_corpus = |verdict: &&Verdict| verdict.why != Why::Contamination;
        self.verdicts
            .values()
            .filter(of_corpus)
            .map(|verdict| verdict.kept)
            .collect()
    }
}

/// Writes what is kept, group by group, and the list of what is not.
fn write(
    documents: &Documents,
    dropped: &Dropped,
    settings: &DedupeSettings,
    work: &Work,
) -> Result<Metrics, StageError> {
    let io = work.io;
    let mut writer = DocumentsWriter::create(io.out(), documents.template())?;
    let mut duplicates = DuplicatesWriter::create(&io.out().join("duplicates.parquet"))?;
    let encoder = writer.encoder();
    let kept = dropped.kept_numbers();
    let filter = |group: &RowGroup, rows: Rows| {
        let verdicts = dropped.of_group(group);
        let first = group.first_row as u32;
        let listed: Vec<(Digest, Verdict)> = verdicts
            .iter()
            .map(|(row, verdict)| (rows.get(*row).id, *verdict))
            .collect();
        let kept_ids: Vec<(u32, Digest)> = kept
            .range(first..first + rows.len() as u32)
            .map(|&number| (number, rows.get((number - first) as usize).id))
            .collect();
        let kept_rows = match verdicts.is_empty() {
            true => rows,
            false => without(&rows, &verdicts),
        };
        Ok((encoder.encode(kept_rows)?, listed, kept_ids))
    };
    let mut known: HashMap<u32, Digest> = HashMap::new();
    work.each_group(documents, "writing", filter, |_, (encoded, listed, ids)| {
        known.extend(ids);
        for (id, verdict) in listed {
            let kept = match verdict.why {
                Why::Contamination => dropped.evaluation_ids[verdict.kept as usize],
                // It stands before what is dropped for it, so its id has been seen.
                Why::Exact | Why::Near => known.get(&verdict.kept).copied().unwrap_or_default(),
            };
            duplicates.push(id, kept, &verdict)?;
        }
        writer.push_encoded(encoded).map(|_| ())
    })?;
    duplicates.finish()?;
    let written = writer.finish()?;
    let counts = [
        ("documents_read", documents.n_documents()),
        ("documents_kept", written.n_documents),
        ("exact_duplicates", dropped.count(Why::Exact)),
        ("near_duplicates", dropped.count(Why::Near)),
        ("contaminated", dropped.count(Why::Contamination)),
    ];
    let mut stats = json!({"method": settings.method, "bytes_kept": written.n_bytes});
    let mut metrics = Metrics::default();
    for (name, count) in counts {
        stats[name] = json!(count);
        metrics = metrics.count(name, count);
    }
    write_json(&io.out().join("stats.json"), &stats)?;
    if written.n_documents == 0 && documents.n_documents() > 0 {
        io.warn("no document is kept");
    }
    Ok(metrics)
}

fn without(rows: &Rows, verdicts: &[(usize, Verdict)]) -> Rows {
    let mut kept = Rows::default();
    let mut dropped = verdicts.iter().map(|(row, _)| *row).peekable();
    for (row, document) in rows.iter().enumerate() {
        match dropped.next_if_eq(&row) {
            Some(_) => {}
            None => kept.push(&document),
        }
    }
    kept
}

#[cfg(test)]
mod tests;
