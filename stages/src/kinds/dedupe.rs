//! Drops documents that repeat earlier ones, or that an evaluation set holds.
//!
//! Contents are compared, never tags or a system prompt. Two documents are the same
//! (`exact`) when the same roles say the same things, ignoring case and spacing; they are
//! nearly the same (`minhash`) when the sets of their n-grams of words overlap by
//! `threshold`, measured on the sets themselves: MinHash only proposes whom to measure.
//! The first one is always kept, and a document is only dropped in favour of one that is
//! kept, so nothing disappears because something like it disappeared.
//!
//! The corpus is never held. `exact` reads it once, as long as the keys of its documents
//! fit into memory; otherwise it is read twice or three times: first for keys, then, for
//! those few that were proposed, for n-grams, and at last to write what is kept. All that
//! grows with it (keys, bands, pairs, verdicts) goes to disk when it outgrows `memory_mb`;
//! besides, there are the row groups at work and two bits a document. Which bytes come out
//! depends neither on that nor on the number of threads.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::json;
use tinylm_pipeline::{
    At, Content, Metrics, NoSettings, Role as InputRole, Roles, SettingError, Stage, StageError,
    StageIo, choices, settings,
};

use crate::shared::{
    documents::{Digest, Documents, DocumentsWriter, Encoded, Encoder, RowGroup, Rows},
    json::write_json,
    parallel::{Turns, in_order},
    shown, threads,
};

mod contamination;
mod exact;
mod minhash;
mod near;
mod report;
mod spill;
mod words;

use exact::Seen;
use report::DuplicatesWriter;
use spill::{Numbers, Reader, Sorter, Table};

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
        /// What is remembered of the corpus beyond this many megabytes is kept on disk; changes nothing but time.
        pub memory_mb: usize = 512,
    }
}

const ROLES: &[InputRole] = &[
    InputRole::many("documents", "what is deduplicated").takes(&[Content::Documents]),
    InputRole::many(
        "evaluation",
        "documents that must not occur in what is kept",
    )
    .optional()
    .takes(&[Content::Documents]),
];

impl Stage for Dedupe {
    type Settings = DedupeSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "dedupe";
    const ABOUT: &'static str =
        "drops documents that repeat earlier ones, or that an evaluation set holds";
    const REVISION: u32 = 3;
    const MAKES: Content = Content::Documents;
    const ROLES: Roles = Roles::Fixed(ROLES);

    fn canonical(settings: DedupeSettings) -> Result<DedupeSettings, SettingError> {
        check(&settings)?;
        Ok(settings)
    }

    fn show(artifact: &Path) -> Result<Vec<String>, StageError> {
        let mut lines = shown::first_documents(artifact)?;
        lines.extend(report::shown(artifact)?);
        Ok(lines)
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
        let pool = threads::pool(io)?;
        pool.install(|| dedupe(&documents, evaluation.as_ref(), settings, io))
    }
}

fn dedupe(
    documents: &Documents,
    evaluation: Option<&Documents>,
    settings: &DedupeSettings,
    io: &StageIo,
) -> Result<Metrics, StageError> {
    let work = Work::new(settings, io)?;
    let mut dropped = Dropped::new(documents, &work);
    let evaluation_ids = match evaluation {
        Some(evaluation) => {
            let ids = contamination::find(documents, evaluation, &work, &mut dropped)?;
            Some(ids)
        }
        None => None,
    };
    let mut seen = None;
    match settings.method {
        Method::Contamination => {}
        Method::Exact => {
            seen = Seen::with_room(documents, work.memory(1, 2));
            if seen.is_none() {
                exact::find(documents, &work, &mut dropped)?;
            }
        }
        Method::Minhash => near::find(documents, &work, &mut dropped)?,
    }
    write(documents, dropped, seen, evaluation_ids.as_ref(), &work)
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

    /// Returns a share of the memory in bytes. What is held at one time adds up to the
    /// whole: verdicts an eighth; of an evaluation set a half and an eighth; for `exact` a
    /// half; for `minhash` an eighth, a half and a quarter.
    fn memory(&self, part: usize, of: usize) -> usize {
        (self.settings.memory_mb << 20) / of * part
    }

    /// Returns what sorts records in such a share.
    fn sorter<const N: usize>(&self, name: &'static str, part: usize, of: usize) -> Sorter<'_, N> {
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
        let nothing = |_: &RowGroup| Ok(());
        let work = |group: &RowGroup, rows, ()| work(group, rows);
        self.each_group_with(documents, note, nothing, work, take)
    }

    /// The same with something of one's own for each group, asked for in order.
    fn each_group_with<T: Send, R: Send>(
        &self,
        documents: &Documents,
        note: &str,
        mut give: impl FnMut(&RowGroup) -> Result<T, StageError>,
        work: impl Fn(&RowGroup, Rows, T) -> Result<R, StageError> + Sync,
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
                false => Ok((group, work(group, group.read()?, given)?)),
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

impl Why {
    const ALL: [Self; 3] = [Self::Exact, Self::Near, Self::Contamination];
}

/// Documents to drop, each with its first verdict.
pub(super) struct Dropped<'a> {
    numbers: Numbers,
    /// Number, reason, the document that is kept, similarity.
    verdicts: Sorter<'a, 4>,
}

impl<'a> Dropped<'a> {
    fn new(documents: &Documents, work: &'a Work) -> Self {
        Self {
            numbers: Numbers::none_of(documents.n_documents()),
            verdicts: work.sorter("verdicts", 1, 8),
        }
    }

    pub(super) fn add(&mut self, document: u32, verdict: Verdict) -> Result<(), StageError> {
        if !self.numbers.insert(document) {
            return Ok(());
        }
        let Verdict {
            why,
            kept,
            similarity,
        } = verdict;
        self.verdicts
            .push([document, why as u32, kept, similarity.to_bits()])
    }

    pub(super) fn contains(&self, document: u32) -> bool {
        self.numbers.contains(document)
    }

    fn numbers(&self) -> &Numbers {
        &self.numbers
    }
}

/// The verdicts of one row group after the other.
struct Verdicts<'a> {
    reader: Reader<'a, 4>,
    next: Option<[u32; 4]>,
}

impl<'a> Verdicts<'a> {
    fn new(mut reader: Reader<'a, 4>) -> Result<Self, StageError> {
        let next = reader.next()?;
        Ok(Self { reader, next })
    }

    /// Returns those of the next group, with their place in it.
    fn of_group(&mut self, group: &RowGroup) -> Result<Vec<(usize, Verdict)>, StageError> {
        let first = group.first_row;
        let mut of_group = Vec::new();
        while let Some([number, why, kept, similarity]) = self.next
            && u64::from(number) < first + group.n_rows as u64
        {
            let verdict = Verdict {
                why: Why::ALL[why as usize],
                kept,
                similarity: f32::from_bits(similarity),
            };
            of_group.push(((u64::from(number) - first) as usize, verdict));
            self.next = self.reader.next()?;
        }
        Ok(of_group)
    }
}

/// What is left of a row group.
struct Filtered {
    encoded: Encoded,
    /// The ids of all its documents.
    ids: Vec<Digest>,
    verdicts: Vec<(usize, Verdict)>,
}

fn filter(
    rows: Rows,
    verdicts: Vec<(usize, Verdict)>,
    encoder: &Encoder,
) -> Result<Filtered, StageError> {
    let ids = rows.iter().map(|document| document.id).collect();
    let kept = match verdicts.is_empty() {
        true => rows,
        false => without(&rows, &verdicts),
    };
    Ok(Filtered {
        encoded: encoder.encode(kept)?,
        ids,
        verdicts,
    })
}

/// Writes what is kept, group by group, and the list of what is not; with `seen`,
/// documents that say the same are only found here.
fn write(
    documents: &Documents,
    dropped: Dropped,
    seen: Option<Seen>,
    evaluation_ids: Option<&Table<32>>,
    work: &Work,
) -> Result<Metrics, StageError> {
    let io = work.io;
    let mut writer = DocumentsWriter::create(io.out());
    let mut duplicates = DuplicatesWriter::create(&io.out().join(report::NAME))?;
    let encoder = writer.encoder();
    let verdicts = dropped.verdicts.sorted();
    let mut verdicts = Verdicts::new(verdicts.reader()?)?;
    // Ids are only looked up where something is dropped.
    let mut ids: Option<Table<32>> = match seen.is_some() || verdicts.next.is_some() {
        true => Some(Table::create(work.scratch.path(), "ids")?),
        false => None,
    };
    let mut n_dropped = [0; Why::ALL.len()];
    let (seen, turns) = (seen.map(Mutex::new), Turns::default());
    work.each_group_with(
        documents,
        "writing",
        |group| Ok((verdicts.of_group(group)?, turns.give())),
        |group, rows, (mut verdicts, turn)| {
            if let Some(seen) = &seen {
                let keys = exact::keys_of(&rows);
                verdicts = turn.take(|| {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.judge(group, &keys, verdicts)
                });
            }
            filter(rows, verdicts, &encoder)
        },
        |_, filtered| {
            for (_, verdict) in &filtered.verdicts {
                n_dropped[verdict.why as usize] += 1;
            }
            if let Some(ids) = &mut ids {
                // What is kept stands before what is dropped for it, so its id is known then.
                ids.append(&filtered.ids)?;
                let ids = &*ids;
                for (row, verdict) in &filtered.verdicts {
                    let table = match verdict.why {
                        Why::Contamination => evaluation_ids.unwrap_or(ids),
                        Why::Exact | Why::Near => ids,
                    };
                    duplicates.push(filtered.ids[*row], table.get(verdict.kept)?, verdict)?;
                }
            }
            writer.push_encoded(filtered.encoded)
        },
    )?;
    duplicates.finish()?;
    let written = writer.finish()?;
    let counts = [
        ("documents_read", documents.n_documents()),
        ("documents_kept", written.n_documents),
        ("exact_duplicates", n_dropped[Why::Exact as usize]),
        ("near_duplicates", n_dropped[Why::Near as usize]),
        ("contaminated", n_dropped[Why::Contamination as usize]),
    ];
    let mut stats = json!({"method": work.settings.method, "bytes_kept": written.n_bytes});
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
    kept.reserve_for(rows);
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
