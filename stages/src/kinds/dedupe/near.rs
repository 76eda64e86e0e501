//! Documents that say nearly the same.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufWriter, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use tinylm_pipeline::{At, StageError};

use super::{
    exact::{self, Key, Keys},
    minhash::MinHash,
    settings::DedupeSettings,
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
pub(super) const MEASURED_AT_ONCE: usize = 1 << 16;

/// A later document and an earlier one, by number.
type Pair = (u32, u32);

/// Finds exact repetitions, then those that overlap by the threshold.
pub(super) fn find(
    documents: &Documents,
    settings: &DedupeSettings,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    let minhash = MinHash::new(settings.permutations, settings.threshold);
    let bands = sign(documents, &minhash, settings.ngram, work, dropped)?;
    let pairs = propose(bands, work, dropped)?;
    if pairs.is_empty() {
        return Ok(());
    }
    let (folder, wanted) = (work.scratch.path(), wanted(&pairs, documents)?);
    Grams::write(folder, documents, &wanted, settings.ngram, work)?;
    let grams = Grams::open(folder)?;
    measure(
        &mut pairs.reader()?,
        &grams,
        settings.threshold,
        work,
        dropped,
    )
}

/// The signatures of one row group: a key and bands for each document.
#[derive(Default)]
pub(super) struct Signed {
    pub(super) keys: Vec<Key>,
    bands: Vec<u64>,
    /// Whether a document has bands at all: one without words has none.
    has_bands: Vec<bool>,
}

impl Signed {
    pub(super) fn of(rows: &Rows, minhash: &MinHash, ngram: usize) -> Self {
        let mut signed = Self::of_keys(rows);
        let (mut ngrams, mut grams, mut signature) = (Ngrams::default(), Vec::new(), Vec::new());
        for document in rows.iter() {
            ngrams.of(&document, ngram, &mut grams);
            signed.has_bands.push(!grams.is_empty());
            if !grams.is_empty() {
                minhash.sign(&grams, &mut signature);
                signed.bands.extend(minhash.bands(&signature));
            }
        }
        signed
    }

    /// Keys without bands.
    pub(super) fn of_keys(rows: &Rows) -> Self {
        Self {
            keys: exact::keys_of(rows),
            ..Self::default()
        }
    }

    /// Returns each band in two halves with its document's number behind it, where the first has this one.
    pub(super) fn bands(&self, first_row: u32, n_bands: usize) -> impl Iterator<Item = [u32; 3]> {
        let numbers = (first_row..).zip(&self.has_bands);
        let numbers = numbers.filter_map(|(number, has_bands)| has_bands.then_some(number));
        let of_documents = numbers.zip(self.bands.chunks_exact(n_bands));
        of_documents.flat_map(|(number, bands)| {
            let halves = move |band: &u64| [(*band >> 32) as u32, *band as u32, number];
            bands.iter().map(halves)
        })
    }
}

/// Reads all documents, drops exact repetitions and returns the bands, each in two halves
/// with its document's number behind it.
fn sign<'a>(
    documents: &Documents,
    minhash: &MinHash,
    ngram: usize,
    work: &'a Work,
    dropped: &mut Dropped,
) -> Result<Sorter<'a, 3>, StageError> {
    let mut keys = Keys::new(work.sorter("keys", 1, 8));
    let mut bands = work.sorter("bands", 1, 2);
    let sign_group = |_: &RowGroup, rows: Rows| Ok(Signed::of(&rows, minhash, ngram));
    work.each_group(documents, "signing", sign_group, |group, signed| {
        keys.add(group, &signed.keys)?;
        let mut of_group = signed.bands(group.first_row as u32, minhash.n_bands());
        of_group.try_for_each(|band| bands.push(band))
    })?;
    keys.resolve(dropped)?;
    Ok(bands)
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
        for earlier in same.before((high, low), later) {
            pairs.push([later, earlier])?;
        }
        same.add(later);
    }
    Ok(pairs.sorted())
}

/// Those that a document is compared with in a band.
pub(super) struct SameBand<D> {
    band: (u32, u32),
    first: Vec<D>,
    near: VecDeque<D>,
}

impl<D> Default for SameBand<D> {
    fn default() -> Self {
        Self {
            band: (0, 0),
            first: Vec::new(),
            near: VecDeque::new(),
        }
    }
}

impl<D: Copy + PartialEq> SameBand<D> {
    /// Returns those that `later` is compared with in this band.
    pub(super) fn before(&mut self, band: (u32, u32), later: D) -> impl Iterator<Item = D> {
        if band != self.band {
            self.band = band;
            self.first.clear();
            self.near.clear();
        }
        let before = self.first.iter().chain(&self.near).copied();
        // Two bands of one document may be the same number by chance.
        before.filter(move |earlier| *earlier != later)
    }

    pub(super) fn add(&mut self, document: D) {
        if self.first.len() < GROUP_NEAR {
            self.first.push(document);
            return;
        }
        if self.near.len() == GROUP_NEAR {
            self.near.pop_front();
        }
        self.near.push_back(document);
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
    threshold: f64,
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
            .map(|pairs| similar(pairs, settled, grams, threshold, work, dropped.numbers()))
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
    threshold: f64,
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
        if let Some(similarity) = overlap(&later, &grams.of(pair.1)?, threshold) {
            similar.push((pair, similarity));
            if pair.1 < settled {
                break;
            }
        }
    }
    Ok(similar)
}

/// Returns the share of n-grams that two documents have in common, if it is enough.
pub(super) fn overlap(later: &[u64], earlier: &[u64], threshold: f64) -> Option<f32> {
    let similarity = jaccard(later, earlier);
    (similarity >= threshold as f32).then_some(similarity)
}

/// Returns the numbers of a row group's documents.
fn group_rows(group: &RowGroup) -> Range<u32> {
    let first_row = group.first_row as u32;
    first_row..first_row + group.n_rows as u32
}

/// Where a set of n-grams begins in the file (eight bytes) and how many there are (four).
const PLACE_LEN: usize = 12;
const GRAMS: &str = "grams";
const PLACES: &str = "places";

/// The sorted n-grams of proposed documents, in a file.
pub(super) struct Grams {
    path: PathBuf,
    file: File,
    places: Table<PLACE_LEN>,
}

impl Grams {
    /// Writes those of the documents that are wanted into a folder.
    pub(super) fn write(
        folder: &Path,
        documents: &Documents,
        wanted: &Numbers,
        ngram: usize,
        work: &Work,
    ) -> Result<(), StageError> {
        let path = folder.join(GRAMS);
        let mut file = BufWriter::new(File::create_new(&path).at(&path)?);
        let mut places: Table<PLACE_LEN> = Table::create(folder, PLACES)?;
        let mut offset: u64 = 0;
        let is_wanted = |group: &RowGroup| group_rows(group).any(|number| wanted.contains(number));
        let grams_of_group = |group: &RowGroup, rows: Rows| {
            let mut sets: Vec<Vec<u64>> = vec![Vec::new(); group.n_rows];
            let mut ngrams = Ngrams::default();
            let documents = group_rows(group).zip(rows.iter());
            for ((number, document), grams) in documents.zip(&mut sets) {
                if wanted.contains(number) {
                    ngrams.of(&document, ngram, grams);
                    grams.sort_unstable();
                    grams.dedup();
                }
            }
            Ok(sets)
        };
        work.each_group_wanted(
            documents,
            "reading proposed pairs",
            is_wanted,
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
        file.flush().at(&path)
    }

    pub(super) fn open(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join(GRAMS);
        Ok(Self {
            file: File::open(&path).at(&path)?,
            path,
            places: Table::open(folder, PLACES)?,
        })
    }

    pub(super) fn of(&self, number: u32) -> Result<Vec<u64>, StageError> {
        let [a, b, c, d, e, f, g, h, count @ ..] = self.places.get(number)?;
        let offset = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let mut bytes = vec![0; 8 * u32::from_le_bytes(count) as usize];
        self.file.read_exact_at(&mut bytes, offset).at(&self.path)?;
        let (grams, _) = bytes.as_chunks();
        Ok(grams.iter().map(|gram| u64::from_le_bytes(*gram)).collect())
    }
}
