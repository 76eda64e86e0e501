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
//!
//! With `partition` the same is found [in parts](parts), which are kept: a corpus that grows
//! by a file costs that file and what it has to be compared with.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Kind, Metrics, NoSettings, Role as InputRole, Roles,
    SettingError, Stage, StageError, StageIo,
    parts::{Collection, Conductor},
};

use crate::shared::{
    documents::{Documents, DocumentsWriter},
    json::write_json,
    parallel::Turns,
    shown, threads,
};

mod contamination;
mod counts;
mod exact;
mod filtered;
mod minhash;
mod near;
mod opened;
mod parts;
mod records;
mod report;
mod settings;
mod spill;
mod verdict;
mod words;
mod work;

use counts::{Counts, NONE_KEPT, STATS};
use exact::Seen;
use filtered::filter;
use opened::{check_number, nothing_to_avoid, open};
use report::DuplicatesWriter;
use settings::Method;
use spill::Table;
use verdict::{Dropped, Verdicts, Why};
use work::Work;

pub use settings::DedupeSettings;

pub struct Dedupe;

/// The kinds of its parts.
pub(super) const PARTS: &[Kind] = parts::KINDS;

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
    const METRICS: &'static [Key] = &[
        ("documents_read", "Documents that were read."),
        ("documents_kept", "Those that were kept."),
        ("exact_duplicates", "Those that repeat an earlier one."),
        ("near_duplicates", "Those that nearly do."),
        ("contaminated", "Those that an evaluation set holds."),
    ];
    const ROLES: Roles = Roles::Fixed(ROLES);

    fn canonical(settings: DedupeSettings) -> Result<DedupeSettings, SettingError> {
        check(&settings)?;
        Ok(settings)
    }

    fn is_in_parts(settings: &DedupeSettings) -> bool {
        settings.partition.is_some()
    }

    fn conduct(
        settings: &DedupeSettings,
        conductor: &dyn Conductor,
    ) -> Result<Collection, StageError> {
        parts::conduct(settings, conductor)
    }

    fn show(artifact: &Path) -> Result<Vec<String>, StageError> {
        let mut lines = shown::first_documents(artifact)?;
        lines.extend(report::shown(artifact)?);
        Ok(lines)
    }

    fn forecast(_: &DedupeSettings, input: &FindInput) -> Option<Forecast> {
        let bytes = input("documents").text_bytes()?;
        Some(Forecast::Texts { bytes })
    }

    fn run(settings: &DedupeSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        let documents = open(io, "documents")?;
        let evaluation = match io.inputs("evaluation").is_empty() {
            true if settings.method == Method::Contamination => return Err(nothing_to_avoid()),
            true => None,
            false => Some(open(io, "evaluation")?),
        };
        check_number(&documents)?;
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
    let work = Work::new(settings.memory_mb, io)?;
    let mut dropped = Dropped::new(documents, &work);
    let evaluation_ids = match evaluation {
        Some(evaluation) => {
            let ngram = settings.contamination_ngram;
            let ids = contamination::find(documents, evaluation, ngram, &work, &mut dropped)?;
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
        Method::Minhash => near::find(documents, settings, &work, &mut dropped)?,
    }
    let counts = write(documents, dropped, seen, evaluation_ids.as_ref(), &work)?;
    write_json(&io.out().join(STATS), &counts.stats(settings.method))?;
    if counts.are_all_dropped() {
        io.warn(NONE_KEPT);
    }
    Ok(counts.metrics())
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

/// Writes what is kept, group by group, and the list of what is not; with `seen`,
/// documents that say the same are only found here.
fn write(
    documents: &Documents,
    dropped: Dropped,
    seen: Option<Seen>,
    evaluation_ids: Option<&Table<32>>,
    work: &Work,
) -> Result<Counts, StageError> {
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
    let mut counts = Counts::default();
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
            counts.add(&filtered.verdicts);
            if let Some(ids) = &mut ids {
                // A kept document stands before those that are dropped for it, so its id is known then.
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
    counts.written = writer.finish()?;
    counts.n_read = documents.n_documents();
    Ok(counts)
}

#[cfg(test)]
mod tests;
