//! Pairs of documents that share a band, among all parts, in some buckets of bands.
//!
//! Besides the bands, which are sorted as in `same`, one bit a document of all parts is held: whether it repeats
//! an earlier one and so is not compared any more.

use serde::{Deserialize, Serialize};
use tinylm_pipeline::{Content, Metrics, Roles, Stage, StageError, StageIo, parts::Digest};

use super::{
    super::{
        near::SameBand,
        records::Records,
        spill::{BUFFER_BYTES, Numbers, Sorter},
        work::Work,
    },
    given::{Buckets, SAME, SIGNED, hidden},
    names::{self, Places},
    same::REPEATS,
    sign::{BANDS, Index, bucket, records_in},
    sliced::{Sliced, SlicedWriter},
};
use crate::shared::threads;

/// Row, the part of the earlier one, its row there; by part of the later one and bucket. Each once.
pub(super) const PAIRS: &str = "pairs";
/// Row; by its part and the part of the later document of a pair it is in. Each once.
pub(super) const WANTED: &str = "wanted";

/// Of a band in memory: the band, its part, its row.
pub(super) const RECORD_BYTES: u64 = 16;

pub(super) struct Propose;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ProposeWatch {
    /// The parts that have such bands, in order.
    pub(super) names: Vec<Digest>,
    pub(super) memory_mb: usize,
}

hidden!(ProposeWatch);

impl Stage for Propose {
    type Settings = Buckets;
    type Watch = ProposeWatch;

    const KIND: &'static str = "dedupe-propose";
    const ABOUT: &'static str = "which documents may say nearly the same as those of all parts";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const ROLES: Roles = Roles::Any;

    fn run(buckets: &Buckets, watch: &ProposeWatch, io: &StageIo) -> Result<Metrics, StageError> {
        threads::pool(io)?.install(|| propose(buckets, watch, io))
    }
}

fn propose(buckets: &Buckets, watch: &ProposeWatch, io: &StageIo) -> Result<Metrics, StageError> {
    let work = Work::new(watch.memory_mb, io)?;
    let bands = bands(buckets, &work)?.sorted();
    let repeats = repeats(watch, io)?;
    let mut bands = bands.reader()?;
    let mut pairs: Sorter<5> = work.sorter("pairs", 1, 4);
    let mut wanted: Sorter<3> = work.sorter("wanted", 1, 4);
    let mut same = SameBand::default();
    while let Some([high, low, part, row]) = bands.next()? {
        if repeats[part as usize].contains(row) {
            continue;
        }
        let mut is_in_pair = false;
        for (first_part, first_row) in same.before((high, low), (part, row)) {
            pairs.push([part, bucket(high), row, first_part, first_row])?;
            wanted.push([first_part, part, first_row])?;
            is_in_pair = true;
        }
        if is_in_pair {
            wanted.push([part, part, row])?;
        }
        same.add((part, row));
    }
    let n_pairs = write_pairs(pairs, &watch.names, io)?;
    write_wanted(wanted, io)?;
    names::write(io.out(), &watch.names)?;
    Ok(Metrics::default().count("pairs", n_pairs))
}

fn bands<'a>(buckets: &Buckets, work: &'a Work) -> Result<Sorter<'a, 4>, StageError> {
    let mut bands: Sorter<4> = work.sorter("bands", 1, 2);
    for (part, input) in (0..).zip(work.io.inputs(SIGNED)) {
        let range = records_in(&Index::read(&input.path)?.bands, buckets.range());
        let mut records = Records::open(&input.path.join(BANDS), BUFFER_BYTES, range)?;
        while let Some([high, low, row]) = records.next()? {
            bands.push([high, low, part, row])?;
        }
        let n_parts = u64::from(part) + 1;
        work.io
            .progress_note(n_parts, None, "parts", Some("proposing pairs"))?;
    }
    Ok(bands)
}

/// Returns, part by part, the documents that repeat an earlier one.
fn repeats(watch: &ProposeWatch, io: &StageIo) -> Result<Vec<Numbers>, StageError> {
    let mut repeats = Vec::new();
    for input in io.inputs(SIGNED) {
        repeats.push(Numbers::none_of(Index::read(&input.path)?.documents));
    }
    let places = Places::of(&watch.names);
    for input in io.inputs(SAME) {
        let same = Sliced::<3>::open(&input.path, REPEATS)?;
        let parts = places.of_others(&names::read(&input.path)?);
        for (theirs, ours) in (0..).zip(parts) {
            let Some(ours) = ours else { continue };
            let mut records = same.read(same.of_part(theirs))?;
            while let Some([row, ..]) = records.next()? {
                repeats[ours as usize].insert(row);
            }
        }
    }
    Ok(repeats)
}

fn write_pairs(pairs: Sorter<5>, names: &[Digest], io: &StageIo) -> Result<u64, StageError> {
    let mut writer = SlicedWriter::<3, 1>::create(io.out(), PAIRS)?;
    let (mut n_pairs, mut last) = (0, None);
    let pairs = pairs.sorted();
    let mut pairs = pairs.reader()?;
    while let Some(pair) = pairs.next()? {
        if last.replace(pair) != Some(pair) {
            let [part, bucket, row, first_part, first_row] = pair;
            let name = names[first_part as usize].as_bytes();
            writer.push((part, bucket), [row, first_part, first_row], Some(name))?;
            n_pairs += 1;
        }
    }
    writer.finish()?;
    Ok(n_pairs)
}

fn write_wanted(wanted: Sorter<3>, io: &StageIo) -> Result<(), StageError> {
    let mut writer = SlicedWriter::<1, 1>::create(io.out(), WANTED)?;
    let mut last = None;
    let wanted = wanted.sorted();
    let mut wanted = wanted.reader()?;
    while let Some(document) = wanted.next()? {
        if last.replace(document) != Some(document) {
            let [part, for_part, row] = document;
            writer.push((part, for_part), [row], None)?;
        }
    }
    writer.finish()
}
