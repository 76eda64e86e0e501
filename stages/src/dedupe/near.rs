//! Documents that say nearly the same.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use rayon::prelude::*;
use tinylm_pipeline::{At, StageError};

use super::{
    Dropped, Verdict, Why, Work,
    exact::{self, Key, Keys},
    minhash::MinHash,
    spill::Buckets,
    words::{Ngrams, jaccard},
};
use crate::{
    documents::{Documents, RowGroup, Rows},
    threads,
};

/// In a band shared by more documents than this, each is compared with the first so many
/// and with so many before it: what everyone shares tells little.
const GROUP_NEAR: usize = 32;

/// A band's number and a document's, big-endian.
const BAND_LEN: usize = 12;
/// Two documents' numbers, the later one first, big-endian.
const PAIR_LEN: usize = 8;

type Pair = (u32, u32);

/// Finds exact repetitions, then those that overlap by the threshold.
pub(super) fn find(
    documents: &Documents,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    let minhash = MinHash::new(work.settings.permutations, work.settings.threshold);
    let bands = sign(documents, &minhash, work, dropped)?;
    let mut pairs = propose(bands, documents, work, dropped)?;
    let mut wanted = Wanted::new(documents.n_documents());
    let mut by_later = Vec::new();
    for bucket in 0..pairs.len() {
        let mut found: Vec<[u8; PAIR_LEN]> = pairs.take(bucket)?;
        found.sort_unstable();
        found.dedup();
        let found: Vec<Pair> = found.iter().map(pair).collect();
        found.iter().for_each(|&(later, earlier)| {
            wanted.add(later);
            wanted.add(earlier);
        });
        by_later.push(found);
    }
    let grams = Grams::read(documents, &wanted, work)?;
    let pool = threads::pool(work.io)?;
    for pairs in by_later {
        pool.install(|| measure(&pairs, &grams, work, dropped))?;
    }
    Ok(())
}

/// What one row group gives: a key and bands for each document.
struct Signed {
    keys: Vec<Key>,
    bands: Vec<u64>,
    /// Whether a document has bands at all: one without words has none.
    has_bands: Vec<bool>,
}

/// Reads all documents, drops exact repetitions and returns the bands.
fn sign(
    documents: &Documents,
    minhash: &MinHash,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<Buckets<BAND_LEN>, StageError> {
    let mut keys = Keys::new(documents, work);
    let n_records = documents.n_documents() * minhash.n_bands() as u64;
    let (folder, memory) = (work.scratch.path(), work.memory() / 2);
    let mut bands: Buckets<BAND_LEN> = Buckets::new(folder, "bands", n_records, memory);
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
                let mut record = [0; BAND_LEN];
                record[..8].copy_from_slice(&band.to_be_bytes());
                record[8..].copy_from_slice(&number.to_be_bytes());
                bands.push(bands.bucket_of(band), record)?;
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

/// Returns the pairs that share a band, by the later document.
fn propose(
    mut bands: Buckets<BAND_LEN>,
    documents: &Documents,
    work: &Work,
    dropped: &Dropped,
) -> Result<Buckets<PAIR_LEN>, StageError> {
    let n_documents = documents.n_documents().max(1);
    let (folder, memory) = (work.scratch.path(), work.memory() / 4);
    let mut pairs: Buckets<PAIR_LEN> = Buckets::new(folder, "pairs", 4 * n_documents, memory);
    let n_buckets = pairs.len() as u64;
    for bucket in 0..bands.len() {
        if work.io.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let mut records = bands.take(bucket)?;
        records.sort_unstable();
        for same in records.chunk_by(|a, b| a[..8] == b[..8]) {
            let numbers: Vec<u32> = same
                .iter()
                .map(|[.., a, b, c, d]| u32::from_be_bytes([*a, *b, *c, *d]))
                .filter(|number| !dropped.contains(*number))
                .collect();
            for (idx, &later) in numbers.iter().enumerate().skip(1) {
                let near = idx.saturating_sub(GROUP_NEAR).max(GROUP_NEAR.min(idx));
                let first = numbers[..idx.min(GROUP_NEAR)].iter();
                for &earlier in first.chain(&numbers[near..idx]) {
                    let mut record = [0; PAIR_LEN];
                    record[..4].copy_from_slice(&later.to_be_bytes());
                    record[4..].copy_from_slice(&earlier.to_be_bytes());
                    // In the order of the later document, not spread.
                    let bucket = u64::from(later) * n_buckets / n_documents;
                    pairs.push(bucket as usize, record)?;
                }
            }
        }
    }
    Ok(pairs)
}

fn pair(record: &[u8; PAIR_LEN]) -> Pair {
    let [a, b, c, d, e, f, g, h] = *record;
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

/// Measures pairs, sorted by the later document, and drops the later of those that
/// overlap enough, in favour of the first one that is kept.
fn measure(
    pairs: &[Pair],
    grams: &Grams,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    const AT_ONCE: usize = 1 << 16;
    let threshold = work.settings.threshold as f32;
    for pairs in pairs.chunks(AT_ONCE) {
        work.io.progress_note(0, None, "", Some("measuring"))?;
        let open: Vec<Pair> = pairs
            .iter()
            .copied()
            .filter(|(_, earlier)| !dropped.contains(*earlier))
            .collect();
        let same_later: Vec<&[Pair]> = open.chunk_by(|a, b| a.0 == b.0).collect();
        let measured: Vec<Vec<(Pair, f32)>> = same_later
            .par_iter()
            .map(|pairs| grams.similar(pairs, threshold))
            .collect::<Result<_, StageError>>()?;
        for ((later, earlier), similarity) in measured.into_iter().flatten() {
            if !dropped.contains(earlier) {
                let verdict = Verdict {
                    why: Why::Near,
                    kept: earlier,
                    similarity,
                };
                dropped.add(later, verdict);
            }
        }
    }
    Ok(())
}

/// A set of document numbers, one bit each.
struct Wanted(Vec<u64>);

impl Wanted {
    fn new(n_documents: u64) -> Self {
        Self(vec![0; n_documents as usize / 64 + 1])
    }

    fn add(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    fn contains(&self, number: u32) -> bool {
        self.0[number as usize / 64] >> (number % 64) & 1 == 1
    }
}

/// The sorted n-grams of proposed documents, in a file.
struct Grams {
    path: PathBuf,
    file: File,
    /// Number, offset and count, by number.
    places: Vec<(u32, u64, u32)>,
}

impl Grams {
    fn read(documents: &Documents, wanted: &Wanted, work: &Work) -> Result<Self, StageError> {
        let path = work.scratch.path().join("grams");
        let mut file = BufWriter::new(File::create_new(&path).at(&path)?);
        let mut places = Vec::new();
        let mut offset = 0;
        let grams_of_group = |group: &RowGroup, rows: Rows| {
            let mut sets: Vec<(u32, Vec<u64>)> = Vec::new();
            let mut ngrams = Ngrams::default();
            for (number, document) in (group.first_row as u32..).zip(rows.iter()) {
                if wanted.contains(number) {
                    let mut grams = Vec::new();
                    ngrams.of(&document, work.settings.ngram, &mut grams);
                    grams.sort_unstable();
                    grams.dedup();
                    sets.push((number, grams));
                }
            }
            Ok(sets)
        };
        work.each_group(
            documents,
            "reading proposed pairs",
            grams_of_group,
            |_, sets| {
                for (number, grams) in sets {
                    let bytes: Vec<u8> = grams.iter().flat_map(|gram| gram.to_le_bytes()).collect();
                    file.write_all(&bytes).at(&path)?;
                    places.push((number, offset, grams.len() as u32));
                    offset += bytes.len() as u64;
                }
                Ok(())
            },
        )?;
        file.flush().at(&path)?;
        let file = File::open(&path).at(&path)?;
        Ok(Self { path, file, places })
    }

    fn of(&self, number: u32) -> Result<Vec<u64>, StageError> {
        let Ok(idx) = self.places.binary_search_by_key(&number, |place| place.0) else {
            return Ok(Vec::new());
        };
        let (_, offset, count) = self.places[idx];
        let mut bytes = vec![0; 8 * count as usize];
        self.file.read_exact_at(&mut bytes, offset).at(&self.path)?;
        let (grams, _) = bytes.as_chunks();
        Ok(grams.iter().map(|gram| u64::from_le_bytes(*gram)).collect())
    }

    /// Returns those of `pairs`, which share their later document, that overlap enough.
    fn similar(&self, pairs: &[Pair], threshold: f32) -> Result<Vec<(Pair, f32)>, StageError> {
        let mut similar = Vec::new();
        let Some((later, _)) = pairs.first() else {
            return Ok(similar);
        };
        let later = self.of(*later)?;
        for &pair in pairs {
            let similarity = jaccard(&later, &self.of(pair.1)?);
            if similarity >= threshold {
                similar.push((pair, similarity));
            }
        }
        Ok(similar)
    }
}
