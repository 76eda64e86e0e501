//! Binarize in parts: documents encoded in tasks of their own, and one `shards.json` for all their files.
//!
//! A document's place in the stream of tokens is what it would be in one piece, so training, which reads
//! the files as one stream, takes the same steps on them. Sources are numbered within a part, and
//! `shards.json` says for each file which those are.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tinylm_model::shards::{INDEX_NAME, ShardFile, SplitIndex};
use tinylm_pipeline::{
    At, Content, Kind, Metrics, Role as InputRole, Roles, Stage, StageError, StageIo,
    parts::{Collection, Conductor, Digest, FileEntry, Link, Part, Whole},
    settings::{Setting, Settings, plain},
};

use super::{
    corpus::{Done, REVISION, SPLIT_ROLES, Told, check_role, finished, run_corpus},
    settings::BinarizeSettings,
    split::{NAMES, Splits, TRAIN},
    stats::Stats,
};
use crate::shared::{
    documents::{Documents, holds_documents},
    json::{json_text, write_json},
    partition::{self, FILES, File, Partition, Places},
    threads,
    tokens::{TOKENIZER_NAMES, Tokenizer},
};

/// What a part wrote, beside its tokens.
const INDEX: &str = "part.json";

pub(super) const KINDS: &[Kind] = &[Kind::of::<BinarizePart>()];

/// One part of `binarize`.
pub(super) struct BinarizePart;

/// Where a part's documents are, and where they belong.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Where {
    places: Places,
    /// The split that takes all of them, where they are of an official one.
    official: Option<usize>,
}

impl Settings for Where {
    const EXCLUSIVE: &'static [&'static [&'static str]] = &[];

    fn list() -> Vec<Setting> {
        Vec::new()
    }
}

/// What a part holds.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    sources: Vec<String>,
    splits: BTreeMap<String, SplitIndex>,
    stats: Stats,
}

impl Stage for BinarizePart {
    type Settings = BinarizeSettings;
    type Watch = Where;

    const KIND: &'static str = "binarize-part";
    const ABOUT: &'static str = "turns some documents of a corpus into shards";
    const REVISION: u32 = REVISION;
    const MAKES: Content = Content::Shards;
    const ROLES: Roles = Roles::Fixed(&[
        InputRole::many(FILES, "where the documents are"),
        InputRole::one("tokenizer", "what they are encoded with"),
    ]);

    fn run(
        settings: &BinarizeSettings,
        is_where: &Where,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let tokenizer = Tokenizer::load(&io.input("tokenizer")?.path)
            .map_err(|error| StageError::new(error.to_string()).is_final())?;
        let files = is_where.places.named(io).into_iter();
        let documents = Documents::of_files(files.map(|file| (file.path, file.place)))?;
        let splits = match is_where.official {
            Some(official) => Splits::whole(official),
            None => Splits::new(settings.validation, settings.test, &documents, io)?,
        };
        let mut done = Done::new(settings, io);
        let total = documents.n_documents();
        let encode = || {
            run_corpus(
                &documents, splits, settings, &tokenizer, &mut done, total, io,
            )
        };
        threads::pool(io)?.install(encode)?;
        let Done { writers, stats } = done;
        let (sources, splits) = writers.finish()?;
        let held = Held {
            sources,
            splits,
            stats,
        };
        write_json(&io.out().join(INDEX), &json!(held))?;
        Ok(Metrics::default())
    }
}

pub(super) fn conduct(
    settings: &BinarizeSettings,
    conductor: &dyn Conductor,
) -> Result<Collection, StageError> {
    let Some(size) = settings.partition else {
        return Err(StageError::new("these settings ask for no parts"));
    };
    let inputs = conductor.inputs("tokenizer")?;
    let Some(tokenizer) = inputs.first() else {
        return Err(StageError::new("nothing fills the role `tokenizer`").is_final());
    };
    let parts = parts(settings, conductor, tokenizer, size)?;
    let made = conductor.make("encoding", &parts)?;
    let mut collection = Collection::default();
    let mut all = Gathered::default();
    for (n, whole) in made.iter().enumerate() {
        partition::collect(&mut collection, whole, n, |name| name != INDEX);
        all.add(read(whole)?, n);
    }
    for name in TOKENIZER_NAMES {
        collection.files.push(Link {
            name: name.to_owned(),
            from: tokenizer.digest,
            file: name.to_owned(),
        });
    }
    let tokenizer = Tokenizer::load(&tokenizer.path)
        .map_err(|error| StageError::new(error.to_string()).is_final())?;
    let has_validation = !conductor.inputs("validation")?.is_empty();
    let Gathered {
        sources,
        splits,
        stats,
        ..
    } = all;
    let written = (sources, splits);
    let (index, told) = finished(written, &stats, settings, &tokenizer, has_validation)?;
    for told in told {
        match told {
            Told::Note(note) => conductor.note(note),
            Told::Warning(warning) => conductor.warn(&warning),
        }
    }
    collection
        .own
        .push((INDEX_NAME.to_owned(), json_text(&json!(index))));
    collection.metrics = stats.metrics(&index);
    Ok(collection)
}

/// The parts of all splits, those of the documents that are split first.
fn parts(
    settings: &BinarizeSettings,
    conductor: &dyn Conductor,
    tokenizer: &Whole,
    size: Partition,
) -> Result<Vec<Part>, StageError> {
    let keyed = plain(&BinarizeSettings {
        partition: None,
        rejected_max: 1.0,
        ..settings.clone()
    });
    let mut parts = Vec::new();
    for (split, role) in SPLIT_ROLES.into_iter().enumerate() {
        let inputs = conductor.inputs(role)?;
        check_role(role, split, !inputs.is_empty(), settings)?;
        let official = (split != TRAIN).then_some(split);
        let of_documents = |entry: &FileEntry| holds_documents(&entry.path);
        for files in partition::parts(&inputs, of_documents, size)? {
            let (places, artifacts) = Places::of(&files);
            parts.push(Part {
                name: format!("part-{:05}", parts.len()),
                kind: BinarizePart::KIND,
                settings: keyed.clone(),
                watch: plain(&Where { places, official }),
                of: of(&files, official, tokenizer),
                reads: vec![
                    (FILES.to_owned(), artifacts),
                    ("tokenizer".to_owned(), vec![tokenizer.digest]),
                ],
                local_files: Vec::new(),
            });
        }
    }
    Ok(parts)
}

fn of(files: &[File], official: Option<usize>, tokenizer: &Whole) -> Digest {
    let split = Digest::of_bytes(official.map_or("", |split| NAMES[split]).as_bytes());
    partition::digest_of_all([&partition::digest(files), &split, &tokenizer.digest])
}

fn read(whole: &Whole) -> Result<Held, StageError> {
    let path = whole.path.join(INDEX);
    let bytes = std::fs::read(&path).at(&path)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())))
}

/// What all parts hold together.
#[derive(Default)]
struct Gathered {
    sources: Vec<String>,
    /// Their places in the list, of which there may be more than a part can count.
    numbers: HashMap<String, u32>,
    splits: BTreeMap<String, SplitIndex>,
    stats: Stats,
}

impl Gathered {
    fn add(&mut self, part: Held, number: usize) {
        let names = part.sources.iter();
        let sources: Vec<u32> = names.map(|name| self.source(name)).collect();
        for (name, split) in part.splits {
            let all = self.splits.entry(name).or_default();
            all.tokens += split.tokens;
            all.documents += split.documents;
            all.targets += split.targets;
            all.files
                .extend(split.files.into_iter().map(|file| ShardFile {
                    name: partition::name_of_part(&file.name, number),
                    sources: Some(sources.clone()),
                    ..file
                }));
        }
        self.stats.merge(part.stats);
    }

    fn source(&mut self, name: &str) -> u32 {
        let next = self.sources.len() as u32;
        let known = self.numbers.entry(name.to_owned());
        *known.or_insert_with(|| {
            self.sources.push(name.to_owned());
            next
        })
    }
}
