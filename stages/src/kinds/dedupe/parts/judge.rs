//! What becomes of each document, in the order of the corpus.
//!
//! One task, since a document is only dropped in favour of one that is kept, and whether that is so is settled by
//! those before it. It reads what was found and no documents, and holds one bit a document of all parts and the
//! places of slices.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tinylm_pipeline::{Content, Metrics, Roles, Stage, StageError, StageIo, parts::Digest};

use super::{
    super::{
        exact::says_the_same,
        records::Records,
        spill::{BUFFER_BYTES, Numbers, Sorter, Table},
        verdict::Why,
        work::Work,
    },
    given::{SAME, SIGNED, hidden, unnamed},
    measure::NEAR,
    names::{self, Places},
    same::REPEATS,
    sign::{CONTAMINATED, CONTAMINATED_LEN, Index},
    sliced::{Sliced, SlicedWriter},
};
use crate::shared::threads;

/// The role of what was measured.
pub(super) const MEASURED: &str = "measured";

/// Row, why, the part of the one that is kept, its row there, similarity; by part. What an evaluation set holds
/// has its own part, and the place in that part's list of such.
pub(super) const VERDICTS: &str = "verdicts";
pub(super) const VERDICT_LEN: usize = 5;
/// Parts of those that are kept; by part.
pub(super) const KEPT: &str = "kept";

const NAMED: usize = 2;

pub(super) struct Judge;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JudgeSettings {}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JudgeWatch {
    /// All parts, in order.
    pub(super) names: Vec<Digest>,
    /// The numbers of those that something was measured of.
    pub(super) measured: Vec<u32>,
    pub(super) memory_mb: usize,
}

hidden!(JudgeSettings, JudgeWatch);

impl Stage for Judge {
    type Settings = JudgeSettings;
    type Watch = JudgeWatch;

    const KIND: &'static str = "dedupe-judge";
    const ABOUT: &'static str = "which documents of all parts are dropped, and in whose favour";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const ROLES: Roles = Roles::Any;

    fn run(_: &JudgeSettings, watch: &JudgeWatch, io: &StageIo) -> Result<Metrics, StageError> {
        threads::pool(io)?.install(|| judge(watch, io))
    }
}

fn judge(watch: &JudgeWatch, io: &StageIo) -> Result<Metrics, StageError> {
    let work = Work::new(watch.memory_mb, io)?;
    let found = Found::open(watch, &work)?;
    let mut dropped = Vec::new();
    let mut verdicts = SlicedWriter::<VERDICT_LEN, NAMED>::create(io.out(), VERDICTS)?;
    let mut kept_parts = SlicedWriter::<1, 0>::create(io.out(), KEPT)?;
    let (mut n_dropped, n_parts) = (0, watch.names.len() as u64);
    for (part, input) in (0..).zip(io.inputs(SIGNED)) {
        io.progress_note(u64::from(part), Some(n_parts), "parts", Some("judging"))?;
        dropped.push(Numbers::none_of(Index::read(&input.path)?.documents));
        let candidates = found.candidates(part)?.sorted();
        let mut candidates = candidates.reader()?;
        let contaminated: Table<{ 4 * CONTAMINATED_LEN }> = Table::open(&input.path, CONTAMINATED)?;
        let mut kept_in = BTreeSet::new();
        while let Some(candidate) = candidates.next()? {
            let [row, why, kept_part, kept, _] = candidate;
            let is_near = why == Why::Near as u32;
            let is_kept = !is_near || !dropped[kept_part as usize].contains(kept);
            if !is_kept || !dropped[part as usize].insert(row) {
                continue;
            }
            let mut name = *watch.names[kept_part as usize].as_bytes();
            if why == Why::Contamination as u32 {
                name.copy_from_slice(&contaminated.get(kept)?[8..]);
            }
            verdicts.push((part, 0), candidate, Some(&name))?;
            kept_in.insert(kept_part);
            n_dropped += 1;
        }
        for kept_part in kept_in {
            kept_parts.push((part, 0), [kept_part], None)?;
        }
    }
    verdicts.finish()?;
    kept_parts.finish()?;
    names::write(io.out(), &watch.names)?;
    Ok(Metrics::default().count("dropped", n_dropped))
}

/// All that was found, to be read part by part.
struct Found<'a> {
    watch: &'a JudgeWatch,
    work: &'a Work<'a>,
    places: Places,
    same: Vec<SameOfSome>,
}

/// Exact repetitions in some buckets.
struct SameOfSome {
    repeats: Sliced<3>,
    /// The number among all parts of each of its own.
    ours: Vec<u32>,
}

impl<'a> Found<'a> {
    fn open(watch: &'a JudgeWatch, work: &'a Work) -> Result<Self, StageError> {
        let places = Places::of(&watch.names);
        let mut same = Vec::new();
        for input in work.io.inputs(SAME) {
            let ours = places.of_others(&names::read(&input.path)?).into_iter();
            let ours: Option<Vec<u32>> = ours.collect();
            same.push(SameOfSome {
                repeats: Sliced::open(&input.path, REPEATS)?,
                ours: ours.ok_or_else(|| unnamed(&input.path))?,
            });
        }
        Ok(Self {
            watch,
            work,
            places,
            same,
        })
    }

    /// Returns all verdicts that documents of a part may get, each document's in the order of whom it would be
    /// dropped for.
    fn candidates(&self, part: u32) -> Result<Sorter<'a, VERDICT_LEN>, StageError> {
        let mut candidates = self.work.sorter("candidates", 1, 1);
        self.contaminated(part, &mut candidates)?;
        self.repeats(part, &mut candidates)?;
        self.near(part, &mut candidates)?;
        Ok(candidates)
    }

    fn contaminated(
        &self,
        part: u32,
        candidates: &mut Sorter<VERDICT_LEN>,
    ) -> Result<(), StageError> {
        let inputs = self.work.io.inputs(SIGNED);
        let path = inputs[part as usize].path.join(CONTAMINATED);
        let mut records = Records::<CONTAMINATED_LEN>::open_all(&path, BUFFER_BYTES)?;
        for place in 0.. {
            let Some([row, similarity, ..]) = records.next()? else {
                break;
            };
            candidates.push([row, Why::Contamination as u32, part, place, similarity])?;
        }
        Ok(())
    }

    fn repeats(&self, part: u32, candidates: &mut Sorter<VERDICT_LEN>) -> Result<(), StageError> {
        for same in &self.same {
            let Ok(theirs) = same.ours.binary_search(&part) else {
                continue;
            };
            let slices = same.repeats.of_part(theirs as u32);
            let mut records = same.repeats.read(slices)?;
            while let Some([row, first_part, first_row]) = records.next()? {
                let first_part = same.ours[first_part as usize];
                let verdict = says_the_same(());
                let similarity = verdict.similarity.to_bits();
                candidates.push([row, verdict.why as u32, first_part, first_row, similarity])?;
            }
        }
        Ok(())
    }

    fn near(&self, part: u32, candidates: &mut Sorter<VERDICT_LEN>) -> Result<(), StageError> {
        let Ok(idx) = self.watch.measured.binary_search(&part) else {
            return Ok(());
        };
        let path = &self.work.io.inputs(MEASURED)[idx].path;
        let names = names::read(path)?;
        let parts: Vec<Option<u32>> = names.iter().map(|name| self.places.first(name)).collect();
        let mut records = Records::<4>::open_all(&path.join(NEAR), BUFFER_BYTES)?;
        while let Some([row, earlier_part, earlier, similarity]) = records.next()? {
            let earlier_part = parts[earlier_part as usize].ok_or_else(|| unnamed(path))?;
            candidates.push([row, Why::Near as u32, earlier_part, earlier, similarity])?;
        }
        Ok(())
    }
}
