//! Documents that say nearly the same.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use rayon::prelude::*;
use tinylm_pipeline::{At, StageError};

use super::{
    exact::{self, Key, Keys},
    minhash::MinHash,
    spill::{Numbers, Reader, Sorted, Sorter, Table},
    verdict::{Dropped, Verdict, Why},
    words::jaccard,
    work::Work,
};
use crate::shared::{
    documents::{Documents, RowGroup, Rows},
    ngrams::Ngrams,
};

/// In a band shared by more documents than this, each is compared with the first so many
/// and with so many before it: what everyone shares tells little.
const GROUP_NEAR: usize = 32;
/// So many pairs are measured at once on all threads.
const MEASURED_AT_ONCE: usize = 1 << 16;

/// A later document and an earlier one, by number.
type Pair = (u32, u32);

/// Finds exact repetitions, then those that overlap by the threshold.
pub(super) fn find(
    documents: &Documents,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    let minhash = MinHash::new(work.settings.permutations, work.settings.threshold);
    let bands = sign(documents, &minhash, work, dropped)?;
    let pairs = propose(bands, work, dropped)?;
    if pairs.is_empty() {
        return Ok(());
    }
    let grams = Grams::read(documents, &wanted(&pairs, documents)?, work)?;
    measure(&mut pairs.reader()?, &grams, work, dropped)
}

/// The signatures of one row group: a key and bands for each document.
struct Signed {
    keys: Vec<Key>,
    bands: Vec<u64>,
    /// Whether a document has bands at all: one without words has none.
    has_bands: Vec<bool>,
}

/// Reads all documents, drops exact repetitions and returns the bands, each in two halves
/// with its document's number behind it.
fn sign<'a>(
    documents: &Documents,
    minhash: &MinHash,
    work: &'a Work,
    dropped: &mut Dropped,
) -> Result<Sorter<'a, 3>, StageError> {
    let mut keys = Keys::new(work.sorter("keys", 1, 8));
    let mut bands = work.sorter("bands", 1, 2);
    let sign_group = |_: &RowGroup, rows: Rows| {
        let mut signed = Signed {
            keys: exact::keys_of(&rows),
            bands: Vec::new(),
            has_bands: Vec::new(),
        };
        let (mut ngrams, mut grams, mut signature) = (Ngrams::default(), Vec::new(), Vec::new());
        for document in rows.iter() {
            ngrams.of(&document, work.settings.ngram, &mut grams);
            signed.has_bands.push(!grams.is_empty());
            if !grams.is_empty() {
                minhash.sign(&grams, &mut signature);
                signed.bands.extend(minhash.bands(&signature));
            }
        }
        Ok(signed)
    };
    work.each_group(documents, "signing", sign_group, |group, signed| {
        keys.add(group, &signed.keys)?;
        let mut of_documents = signed.bands.chunks_exact(minhash.n_bands());
        for (number, has_bands) in (group.first_row as u32..).zip(signed.has_bands) {
            let of_document = of_documents.next_if(has_bands);
            for &band in of_document.unwrap_or_default() {
                bands.push([(band >> 32) as u32, band as u32, number])?;
            }
        }
        Ok(())
    })?;
    keys.resolve(dropped)?;
    Ok(bands)
}

trait NextIf: Iterator {
    fn next_if(&mut self, wanted: bool) -> Option<Self::Item>;
}

impl<I: Iterator> NextIf for I {
    fn next_if(&mut self, wanted: bool) -> Option<I::Item> {
        wanted.then(|| self.next()).flatten()
    }
}

/// Returns the pairs that share a band, by the later document; one may be there twice.
fn propose<'a>(
    bands: Sorter<'a, 3>,
    work: &'a Work,
    dropped: &Dropped,
) -> Result<Sorted<'a, 2>, StageError> {
    work.io
        .progress_note(0, None, "", Some("proposing pairs"))?;
    let bands = bands.sorted();
    let mut bands = bands.reader()?;
    let mut pairs = work.sorter("pairs", 1, 4);
    let mut same = SameBand::default();
    while let Some([high, low, later]) = bands.next()? {
        if dropped.contains(later) {
            continue;
        }
        same.turn_to((high, low));
        for &earlier in same.first.iter().chain(&same.near) {
            // Two bands of one document may be the same number by chance.
            if earlier != later {
                pairs.push([later, earlier])?;
            }
        }
        same.add(later);
    }
    Ok(pairs.sorted())
}

/// Those that a document is compared with in a band.
#[derive(Default)]
struct SameBand {
    band: (u32, u32),
    first: Vec<u32>,
    near: VecDeque<u32>,
}

impl SameBand {
    fn turn_to(&mut self, band: (u32, u32)) {
        if band != self.band {
            self.band = band;
            self.first.clear();
            self.near.clear();
        }
    }

    fn add(&mut self, number: u32) {
        if self.first.len() < GROUP_NEAR {
            self.first.push(number);
            return;
        }
        if self.near.len() == GROUP_NEAR {
            self.near.pop_front();
        }
        self.near.push_back(number);
    }
}

/// Returns the documents that stand in any pair.
fn wanted(pairs: &Sorted<2>, documents: &Documents) -> Result<Numbers, StageError> {
    let mut wanted = Numbers::none_of(documents.n_documents());
    let mut pairs = pairs.reader()?;
    while let Some([later, earlier]) = pairs.next()? {
        wanted.insert(later);
        wanted.insert(earlier);
    }
    Ok(wanted)
}

/// Measures pairs in order and drops the later of those that overlap enough, in favour of
/// the first one that is kept.
fn measure(
    pairs: &mut Reader<2>,
    grams: &Grams,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    loop {
        work.io.progress_note(0, None, "", Some("measuring"))?;
        let some = some_pairs(pairs)?;
        let Some(&(settled, _)) = some.first() else {
            return Ok(());
        };
        let same_later: Vec<&[Pair]> = some.chunk_by(|a, b| a.0 == b.0).collect();
        let measured: Vec<Vec<(Pair, f32)>> = same_later
            .par_iter()
            .map(|pairs| similar(pairs, settled, grams, work, dropped.numbers()))
            .collect::<Result<_, StageError>>()?;
        for ((later, earlier), similarity) in measured.into_iter().flatten() {
            if !dropped.contains(earlier) {
                let verdict = Verdict {
                    why: Why::Near,
                    kept: earlier,
                    similarity,
                };
                dropped.add(later, verdict)?;
            }
        }
    }
}

/// Returns the next pairs, each once.
fn some_pairs(pairs: &mut Reader<2>) -> Result<Vec<Pair>, StageError> {
    let mut some: Vec<Pair> = Vec::with_capacity(MEASURED_AT_ONCE);
    while some.len() < MEASURED_AT_ONCE {
        let Some([later, earlier]) = pairs.next()? else {
            break;
        };
        if some.last() != Some(&(later, earlier)) {
            some.push((later, earlier));
        }
    }
    Ok(some)
}

/// Returns those of `pairs`, which share their later document, that overlap enough. What
/// becomes of the documents before `settled` is known; the first of them that is kept and
/// overlaps enough is the last pair to look at.
fn similar(
    pairs: &[Pair],
    settled: u32,
    grams: &Grams,
    work: &Work,
    dropped: &Numbers,
) -> Result<Vec<(Pair, f32)>, StageError> {
    let mut similar = Vec::new();
    let later = match pairs.first() {
        Some((later, _)) if !dropped.contains(*later) => grams.of(*later)?,
        _ => return Ok(similar),
    };
    for &pair in pairs {
        if work.io.is_cancelled() {
            return Err(StageError::cancelled());
        }
        if dropped.contains(pair.1) {
            continue;
        }
        let similarity = jaccard(&later, &grams.of(pair.1)?);
        if similarity >= work.settings.threshold as f32 {
            similar.push((pair, similarity));
            if pair.1 < settled {
                break;
            }
        }
    }
    Ok(similar)
}

/// Where a set of n-grams begins in the file (eight bytes) and how many there are (four).
const PLACE_LEN: usize = 12;

/// The sorted n-grams of proposed documents, in a file.
struct Grams {
    path: PathBuf,
    file: File,
    places: Table<PLACE_LEN>,
}

impl Grams {
    fn read(documents: &Documents, wanted: &Numbers, work: &Work) -> Result<Self, StageError> {
        let folder = work.scratch.path();
        let path = folder.join("grams");
        let mut file = BufWriter::new(File::create_new(&path).at(&path)?);
        let mut places = Table::create(folder, "places")?;
        let mut offset: u64 = 0;
        let grams_of_group = |group: &RowGroup, rows: Rows| {
            let mut sets: Vec<Vec<u64>> = Vec::with_capacity(rows.len());
            let mut ngrams = Ngrams::default();
            for (number, document) in (group.first_row as u32..).zip(rows.iter()) {
                let mut grams = Vec::new();
                if wanted.contains(number) {
                    ngrams.of(&document, work.settings.ngram, &mut grams);
                    grams.sort_unstable();
                    grams.dedup();
                }
                sets.push(grams);
            }
            Ok(sets)
        };
        work.each_group(
            documents,
            "reading proposed pairs",
            grams_of_group,
            |_, sets| {
                let mut of_group = Vec::with_capacity(sets.len());
                for grams in sets {
                    let mut place = [0; PLACE_LEN];
                    place[..8].copy_from_slice(&offset.to_le_bytes());
                    place[8..].copy_from_slice(&(grams.len() as u32).to_le_bytes());
                    of_group.push(place);
                    for gram in &grams {
                        file.write_all(&gram.to_le_bytes()).at(&path)?;
                    }
                    offset += 8 * grams.len() as u64;
                }
                places.append(&of_group)
            },
        )?;
        file.flush().at(&path)?;
        let file = File::open(&path).at(&path)?;
        Ok(Self { path, file, places })
    }

    fn of(&self, number: u32) -> Result<Vec<u64>, StageError> {
        let [a, b, c, d, e, f, g, h, count @ ..] = self.places.get(number)?;
        let offset = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let mut bytes = vec![0; 8 * u32::from_le_bytes(count) as usize];
        self.file.read_exact_at(&mut bytes, offset).at(&self.path)?;
        let (grams, _) = bytes.as_chunks();
        Ok(grams.iter().map(|gram| u64::from_le_bytes(*gram)).collect())
    }
}
