//! Normalize in parts: files read in tasks of their own, and counts added up.
//!
//! Three things must not follow from which files share a part, or a corpus that grows would change what it
//! was before: a document's source is its own file, not the first of many; whose turns are the assistant's
//! has to be said where people talk; and there is neither `max_rows` nor `max_documents`, which count from
//! the start. Too many rejected rows fail the whole stage and never a part.

use serde_json::Value;
use tinylm_pipeline::{
    At, Content, Kind, Metrics, Role as InputRole, Roles, Stage, StageError, StageIo,
    parts::{Collection, Conductor, Digest, FileEntry, Part, Whole},
    settings::plain,
};

use super::{
    casting, doubts,
    files::{self, Wanted},
    outcome::Outcome,
    rejected,
    run::{REVISION, Run, STATS},
    settings::NormalizeSettings,
};
use crate::shared::{
    documents::holds_documents,
    json::{json_text, write_json},
    partition::{self, FILES, File, Places},
};

/// What a part found, beside its documents.
const OUTCOME: &str = "outcome.json";

pub(super) const KINDS: &[Kind] = &[Kind::of::<NormalizePart>()];

/// One part of `normalize`.
pub(super) struct NormalizePart;

impl Stage for NormalizePart {
    type Settings = NormalizeSettings;
    type Watch = Places;

    const KIND: &'static str = "normalize-part";
    const ABOUT: &'static str = "turns some files of a corpus into documents";
    const REVISION: u32 = REVISION;
    const MAKES: Content = Content::Documents;
    const ROLES: Roles = Roles::Fixed(&[InputRole::many(FILES, "where the files are")]);

    fn run(
        settings: &NormalizeSettings,
        places: &Places,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let sources = files::sources_of_part(settings, io, &places.named(io))?;
        doubts::look(settings, io, &sources)?;
        let assistant = casting::assistant_of_part(settings, &sources)?;
        let mut run = Run::new(settings, io, &sources, assistant)?;
        run.go()?;
        let outcome = run.finish()?;
        let json = serde_json::to_value(&outcome);
        let json = json.map_err(|error| StageError::new(error.to_string()))?;
        write_json(&io.out().join(OUTCOME), &json)?;
        Ok(Metrics::default())
    }
}

pub(super) fn conduct(
    settings: &NormalizeSettings,
    conductor: &dyn Conductor,
) -> Result<Collection, StageError> {
    let Some(size) = settings.partition else {
        return Err(StageError::new("these settings ask for no parts"));
    };
    let inputs = conductor.inputs("sources")?;
    let wanted = Wanted::new(settings);
    let is_wanted = |entry: &FileEntry| wanted.takes(&entry.path) && entry.bytes > 0;
    let parts = partition::parts(&inputs, is_wanted, size)?;
    if parts.is_empty() {
        return Err(files::nothing_in(&inputs, &wanted));
    }
    let keyed = keyed(settings);
    let parts: Vec<Part> = parts
        .iter()
        .zip(0..)
        .map(|(files, n)| part(files, n, &keyed))
        .collect();
    let made = conductor.make("normalizing", &parts)?;
    let mut collection = Collection::default();
    let mut outcome = Outcome::default();
    for (n, whole) in made.iter().enumerate() {
        outcome.add(read(whole)?);
        partition::collect(&mut collection, whole, n, |name| {
            holds_documents(name) || name == rejected::NAME
        });
    }
    outcome.check(settings.rejects_max)?;
    conductor.note(&outcome.summary());
    collection
        .own
        .push((STATS.to_owned(), json_text(&outcome.stats())));
    collection.metrics = outcome.metrics();
    Ok(collection)
}

/// The settings that a part's bytes depend on.
fn keyed(settings: &NormalizeSettings) -> Value {
    plain(&NormalizeSettings {
        partition: None,
        files: Vec::new(),
        rejects_max: 1.0,
        ..settings.clone()
    })
}

fn part(files: &[File], n: usize, settings: &Value) -> Part {
    let (places, artifacts) = Places::of(files);
    Part {
        name: format!("part-{n:05}"),
        kind: NormalizePart::KIND,
        settings: settings.clone(),
        watch: plain(&places),
        of: named(files),
        reads: vec![(FILES.to_owned(), artifacts)],
        local_files: Vec::new(),
    }
}

/// Stands for the files with their names, which documents name as their sources.
fn named(files: &[File]) -> Digest {
    let mut text = partition::digest(files).to_string();
    for file in files {
        text.push('\n');
        text.push_str(&file.entry.path);
    }
    Digest::of_bytes(text.as_bytes())
}

fn read(whole: &Whole) -> Result<Outcome, StageError> {
    let path = whole.path.join(OUTCOME);
    let bytes = std::fs::read(&path).at(&path)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())))
}
