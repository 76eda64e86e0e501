//! Documents that say the same as an earlier one, among all parts, whose keys are in some buckets.
//!
//! The keys of a range of buckets are brought together and sorted. So many tasks are made that a range fits
//! into the memory as a rule; one that does not goes to disk, as everywhere.

use serde::{Deserialize, Serialize};
use tinylm_pipeline::{Content, Metrics, Roles, Stage, StageError, StageIo, parts::Digest};

use super::{
    super::{
        exact::FirstOfKey,
        records::Records,
        spill::{BUFFER_BYTES, Sorter},
        work::Work,
    },
    given::{Buckets, SIGNED, hidden},
    names,
    sign::{Index, KEYS, bucket, records_in},
    sliced::SlicedWriter,
};
use crate::shared::threads;

/// Row, the part of the first one, its row there; by part of the later one and bucket.
pub(super) const REPEATS: &str = "repeats";

/// Of a key in memory: the key, its part, its row.
pub(super) const RECORD_BYTES: u64 = 24;

pub(super) struct Same;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SameWatch {
    /// The parts that have such keys, in order.
    pub(super) names: Vec<Digest>,
    pub(super) memory_mb: usize,
}

hidden!(SameWatch);

impl Stage for Same {
    type Settings = Buckets;
    type Watch = SameWatch;

    const KIND: &'static str = "dedupe-same";
    const ABOUT: &'static str = "which documents say the same as those of all parts";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const ROLES: Roles = Roles::Any;

    fn run(buckets: &Buckets, watch: &SameWatch, io: &StageIo) -> Result<Metrics, StageError> {
        threads::pool(io)?.install(|| find(buckets, watch, io))
    }
}

fn find(buckets: &Buckets, watch: &SameWatch, io: &StageIo) -> Result<Metrics, StageError> {
    let work = Work::new(watch.memory_mb, io)?;
    let mut keys: Sorter<6> = work.sorter("keys", 1, 2);
    for (part, input) in (0..).zip(io.inputs(SIGNED)) {
        let range = records_in(&Index::read(&input.path)?.keys, buckets.range());
        let mut records = Records::open(&input.path.join(KEYS), BUFFER_BYTES, range)?;
        while let Some([a, b, c, d, row]) = records.next()? {
            keys.push([a, b, c, d, part, row])?;
        }
        io.progress_note(u64::from(part) + 1, None, "parts", Some("comparing"))?;
    }
    let keys = keys.sorted();
    let mut keys = keys.reader()?;
    let mut repeats: Sorter<5> = work.sorter("repeats", 1, 4);
    let mut first = FirstOfKey::default();
    while let Some([a, b, c, d, part, row]) = keys.next()? {
        if let Some((first_part, first_row)) = first.before([a, b, c, d], (part, row)) {
            repeats.push([part, bucket(a), row, first_part, first_row])?;
        }
    }
    write(repeats, &watch.names, io)
}

fn write(repeats: Sorter<5>, names: &[Digest], io: &StageIo) -> Result<Metrics, StageError> {
    let mut writer = SlicedWriter::<3, 1>::create(io.out(), REPEATS)?;
    let repeats = repeats.sorted();
    let mut repeats = repeats.reader()?;
    let mut n_repeats = 0;
    while let Some([part, bucket, row, first_part, first_row]) = repeats.next()? {
        let name = names[first_part as usize].as_bytes();
        writer.push((part, bucket), [row, first_part, first_row], Some(name))?;
        n_repeats += 1;
    }
    writer.finish()?;
    names::write(io.out(), names)?;
    Ok(Metrics::default().count("exact_duplicates", n_repeats))
}
