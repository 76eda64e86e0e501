//! What is compared of one part: keys, bands, and what an evaluation set holds of it.
//!
//! Keys and bands are sorted, so that a range of values is a stretch of their file. What an evaluation set holds
//! has neither: it keeps nobody's place.

use std::{fs::File, io::BufReader, ops::Range, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tinylm_pipeline::{At, Content, Metrics, Roles, Stage, StageError, StageIo};

use super::{
    super::{
        contamination,
        minhash::MinHash,
        near::Signed,
        opened::{check_number, open},
        records::RecordsWriter,
        settings::Method,
        spill::{BUFFER_BYTES, Sorter, Table},
        verdict::Dropped,
        work::Work,
    },
    given::{hidden, open_files},
    sliced::words,
};
use crate::shared::{
    documents::{Digest, Documents, RowGroup, Rows},
    json::write_json,
    partition::Places,
    threads,
};

pub(super) const EVALUATION: &str = "evaluation";
/// The ids of all documents.
pub(super) const IDS: &str = "ids";
/// Key and row.
pub(super) const KEYS: &str = "keys";
/// Band and row.
pub(super) const BANDS: &str = "bands";
/// Row, similarity and the id of the evaluation document.
pub(super) const CONTAMINATED: &str = "contaminated";
pub(super) const CONTAMINATED_LEN: usize = 10;
const INDEX: &str = "index.json";

/// Keys, and bands, fall into so many buckets by their first bits.
pub(super) const N_BUCKETS: u32 = 256;

/// Returns the bucket of a key or a band that begins with these bits.
pub(super) fn bucket(first: u32) -> u32 {
    first >> 24
}

pub(super) struct Sign;

/// What decides over signatures, and nothing else: a threshold counts by the width of bands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SignSettings {
    pub(super) method: Method,
    pub(super) bands: Option<BandSettings>,
    pub(super) contamination_ngram: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BandSettings {
    pub(super) permutations: usize,
    pub(super) rows: usize,
    pub(super) ngram: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SignWatch {
    pub(super) files: Places,
    pub(super) memory_mb: usize,
}

hidden!(SignSettings, SignWatch);

impl Stage for Sign {
    type Settings = SignSettings;
    type Watch = SignWatch;

    const KIND: &'static str = "dedupe-sign";
    const ABOUT: &'static str = "what `dedupe` compares of a part";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const ROLES: Roles = Roles::Any;

    fn run(
        settings: &SignSettings,
        watch: &SignWatch,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let documents = open_files(&watch.files, io)?;
        check_number(&documents)?;
        threads::pool(io)?.install(|| sign(&documents, settings, watch.memory_mb, io))
    }
}

fn sign(
    documents: &Documents,
    settings: &SignSettings,
    memory_mb: usize,
    io: &StageIo,
) -> Result<Metrics, StageError> {
    let work = Work::new(memory_mb, io)?;
    let mut dropped = Dropped::new(documents, &work);
    let mut evaluation_ids = None;
    if let Some(ngram) = settings.contamination_ngram {
        let evaluation = open(io, EVALUATION)?;
        let ids = contamination::find(documents, &evaluation, ngram, &work, &mut dropped)?;
        evaluation_ids = Some(ids);
    }
    let [keys, bands] = write_signatures(documents, settings, &dropped, &work)?;
    write_contaminated(dropped, evaluation_ids.as_ref(), io)?;
    let index = json!({"documents": documents.n_documents(), "keys": keys, "bands": bands});
    write_json(&io.out().join(INDEX), &index)?;
    Ok(Metrics::default().count("documents", documents.n_documents()))
}

/// Writes ids, keys and bands; returns how many keys and bands there are in each bucket.
fn write_signatures(
    documents: &Documents,
    settings: &SignSettings,
    dropped: &Dropped,
    work: &Work,
) -> Result<[Vec<u64>; 2], StageError> {
    let minhash = settings.bands.as_ref().map(|bands| {
        let minhash = MinHash::of_rows(bands.permutations, bands.rows);
        (minhash, bands.ngram)
    });
    let n_bands = minhash.as_ref().map_or(1, |(minhash, _)| minhash.n_bands());
    let sign_group = |_: &RowGroup, rows: Rows| {
        let ids: Vec<Digest> = rows.iter().map(|document| document.id).collect();
        let signed = match (&minhash, settings.method) {
            (Some((minhash, ngram)), _) => Signed::of(&rows, minhash, *ngram),
            (None, Method::Contamination) => Signed::default(),
            (None, _) => Signed::of_keys(&rows),
        };
        Ok((ids, signed))
    };
    let mut ids = Table::create(work.io.out(), IDS)?;
    let mut keys: Sorter<5> = work.sorter("keys", 1, 4);
    let mut bands: Sorter<3> = work.sorter("bands", 1, 2);
    work.each_group(
        documents,
        "signing",
        sign_group,
        |group, (of_group, signed)| {
            let first_row = group.first_row as u32;
            ids.append(&of_group)?;
            for (row, [a, b, c, d]) in (first_row..).zip(&signed.keys) {
                if !dropped.contains(row) {
                    keys.push([*a, *b, *c, *d, row])?;
                }
            }
            let mut of_group = signed.bands(first_row, n_bands);
            of_group.try_for_each(|band| match dropped.contains(band[2]) {
                true => Ok(()),
                false => bands.push(band),
            })
        },
    )?;
    let out = work.io.out();
    Ok([
        write_sorted(keys, &out.join(KEYS))?,
        write_sorted(bands, &out.join(BANDS))?,
    ])
}

/// Returns how many records there are in each bucket.
fn write_sorted<const N: usize>(sorter: Sorter<N>, path: &Path) -> Result<Vec<u64>, StageError> {
    let sorted = sorter.sorted();
    let mut records = sorted.reader()?;
    let mut file = RecordsWriter::create(path, BUFFER_BYTES)?;
    let mut counts = vec![0; N_BUCKETS as usize];
    while let Some(record) = records.next()? {
        counts[bucket(record[0]) as usize] += 1;
        file.push(record)?;
    }
    file.finish()?;
    Ok(counts)
}

fn write_contaminated(
    dropped: Dropped,
    evaluation_ids: Option<&Table<32>>,
    io: &StageIo,
) -> Result<(), StageError> {
    let path = io.out().join(CONTAMINATED);
    let mut file = RecordsWriter::<CONTAMINATED_LEN>::create(&path, BUFFER_BYTES)?;
    let verdicts = dropped.verdicts.sorted();
    let mut verdicts = verdicts.reader()?;
    while let Some([row, _, evaluation, similarity]) = verdicts.next()? {
        if let Some(ids) = evaluation_ids {
            let [a, b, c, d, e, f, g, h] = words(&ids.get(evaluation)?);
            file.push([row, similarity, a, b, c, d, e, f, g, h])?;
        }
    }
    file.finish()
}

/// How much there is in an artifact of signatures, and where.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Index {
    pub(super) documents: u64,
    pub(super) keys: Vec<u64>,
    pub(super) bands: Vec<u64>,
}

impl Index {
    pub(super) fn read(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join(INDEX);
        let file = BufReader::new(File::open(&path).at(&path)?);
        serde_json::from_reader(file)
            .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())))
    }
}

/// Returns the numbers of the records that are in these buckets.
pub(super) fn records_in(counts: &[u64], buckets: Range<u32>) -> Range<u64> {
    let (start, end) = (buckets.start as usize, buckets.end as usize);
    let before: u64 = counts[..start].iter().sum();
    let inside: u64 = counts[start..end].iter().sum();
    before..before + inside
}
