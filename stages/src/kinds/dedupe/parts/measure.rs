//! How much the documents of a part have in common with those earlier ones that were proposed.
//!
//! Every pair is measured, whatever becomes of its documents: that depends on other parts.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tinylm_pipeline::{Content, Metrics, Roles, Stage, StageError, StageIo, parts::Digest};

use super::{
    super::{
        near::{Grams, MEASURED_AT_ONCE, overlap},
        records::RecordsWriter,
        spill::{BUFFER_BYTES, Reader, Sorter},
        work::Work,
    },
    given::{PROPOSED, hidden, unnamed},
    names::{self, Places},
    propose::PAIRS,
    sliced::Sliced,
};
use crate::shared::threads;

/// The role of n-grams.
pub(super) const GRAMS: &str = "grams";
/// Row, the part of the earlier one, its row there, similarity.
pub(super) const NEAR: &str = "near";

pub(super) struct Measure;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MeasureSettings {
    pub(super) ngram: usize,
    pub(super) threshold: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MeasureWatch {
    pub(super) name: Digest,
    /// The parts that the pairs are of, as their n-grams are given. Sorted, so that a part's number is no
    /// matter of what else is in the corpus.
    pub(super) names: Vec<Digest>,
    pub(super) memory_mb: usize,
}

hidden!(MeasureSettings, MeasureWatch);

impl Stage for Measure {
    type Settings = MeasureSettings;
    type Watch = MeasureWatch;

    const KIND: &'static str = "dedupe-measure";
    const ABOUT: &'static str = "how much documents of a part have in common with earlier ones";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const ROLES: Roles = Roles::Any;

    fn run(
        settings: &MeasureSettings,
        watch: &MeasureWatch,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        threads::pool(io)?.install(|| measure(settings.threshold, watch, io))
    }
}

/// The earlier document's part and its row there, with the later document's row in between.
type Pair = [u32; 3];

fn measure(threshold: f64, watch: &MeasureWatch, io: &StageIo) -> Result<Metrics, StageError> {
    let work = Work::new(watch.memory_mb, io)?;
    let places = Places::of(&watch.names);
    let own = places.first(&watch.name).ok_or_else(|| unnamed(io.out()))?;
    let pairs = pairs(watch, &places, &work)?.sorted();
    let mut pairs = pairs.reader()?;
    let later = Later {
        grams: grams(own, io)?,
        threshold,
        io,
    };
    let mut near: Sorter<4> = work.sorter("near", 1, 4);
    let mut earlier: Option<(u32, Grams)> = None;
    loop {
        let some = some_pairs(&mut pairs)?;
        if some.is_empty() {
            break;
        }
        for of_part in some.chunk_by(|a, b| a[0] == b[0]) {
            let part = of_part[0][0];
            let open = match earlier.take() {
                Some((known, grams)) if known == part => grams,
                _ => grams(part, io)?,
            };
            for found in later.similar(of_part, &open)? {
                near.push(found)?;
            }
            earlier = Some((part, open));
        }
        io.progress_note(0, None, "", Some("measuring"))?;
    }
    let n_near = write(near, io)?;
    names::write(io.out(), &watch.names)?;
    Ok(Metrics::default().count("pairs", n_near))
}

fn grams(part: u32, io: &StageIo) -> Result<Grams, StageError> {
    let inputs = io.inputs(GRAMS);
    let input = inputs.get(part as usize);
    Grams::open(&input.ok_or_else(|| unnamed(io.out()))?.path)
}

/// Returns the pairs whose later document is in this part, by the earlier one's.
fn pairs<'a>(
    watch: &MeasureWatch,
    places: &Places,
    work: &'a Work,
) -> Result<Sorter<'a, 3>, StageError> {
    let mut pairs: Sorter<3> = work.sorter("pairs", 1, 2);
    for input in work.io.inputs(PROPOSED) {
        let names = names::read(&input.path)?;
        let Some(own) = (0..).zip(&names).find(|(_, name)| **name == watch.name) else {
            continue;
        };
        let sliced = Sliced::<3>::open(&input.path, PAIRS)?;
        let parts: Vec<Option<u32>> = names.iter().map(|name| places.first(name)).collect();
        let mut records = sliced.read(sliced.of_part(own.0))?;
        while let Some([row, part, first_row]) = records.next()? {
            let part = parts[part as usize].ok_or_else(|| unnamed(&input.path))?;
            pairs.push([part, row, first_row])?;
        }
    }
    Ok(pairs)
}

/// Returns the next pairs, each once.
fn some_pairs(pairs: &mut Reader<3>) -> Result<Vec<Pair>, StageError> {
    let mut some: Vec<Pair> = Vec::with_capacity(MEASURED_AT_ONCE);
    while some.len() < MEASURED_AT_ONCE {
        let Some(pair) = pairs.next()? else {
            break;
        };
        if some.last() != Some(&pair) {
            some.push(pair);
        }
    }
    Ok(some)
}

/// The later documents of all pairs.
struct Later<'a> {
    grams: Grams,
    threshold: f64,
    io: &'a StageIo<'a>,
}

impl Later<'_> {
    /// Returns those of the pairs, all with one part, that overlap enough, as they are written.
    fn similar(&self, pairs: &[Pair], earlier: &Grams) -> Result<Vec<[u32; 4]>, StageError> {
        let same_later: Vec<&[Pair]> = pairs.chunk_by(|a, b| a[1] == b[1]).collect();
        let similar: Vec<Vec<[u32; 4]>> = same_later
            .par_iter()
            .map(|pairs| self.similar_to_one(pairs, earlier))
            .collect::<Result<_, StageError>>()?;
        Ok(similar.concat())
    }

    fn similar_to_one(&self, pairs: &[Pair], earlier: &Grams) -> Result<Vec<[u32; 4]>, StageError> {
        let mut similar = Vec::new();
        let Some([_, row, _]) = pairs.first() else {
            return Ok(similar);
        };
        let later = self.grams.of(*row)?;
        for &[part, row, first_row] in pairs {
            if self.io.is_cancelled() {
                return Err(StageError::cancelled());
            }
            if let Some(similarity) = overlap(&later, &earlier.of(first_row)?, self.threshold) {
                similar.push([row, part, first_row, similarity.to_bits()]);
            }
        }
        Ok(similar)
    }
}

fn write(near: Sorter<4>, io: &StageIo) -> Result<u64, StageError> {
    let mut file = RecordsWriter::create(&io.out().join(NEAR), BUFFER_BYTES)?;
    let near = near.sorted();
    let mut near = near.reader()?;
    let mut n_near = 0;
    while let Some(record) = near.next()? {
        file.push(record)?;
        n_near += 1;
    }
    file.finish()?;
    Ok(n_near)
}
