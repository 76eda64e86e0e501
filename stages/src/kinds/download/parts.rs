//! The user's own files in parts: those that are in the store already are not copied again, and large ones of
//! JSON lines are cut.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tinylm_pipeline::{
    Content, LocalFile, Metrics, Roles, Stage, StageError, StageIo,
    parts::{Collection, Conductor, Digest, FileEntry, Link, Part, Whole},
    settings::plain,
};

use super::{
    arrivals::Arrivals,
    cut::cut_large,
    local::{self, held_twice, nothing_taken},
    sample::Sampler,
    settings::{DownloadSettings, REVISION},
};
use crate::shared::partition::{self, Partition, Places};

/// One part of `download`.
pub(super) struct DownloadPart;

impl Stage for DownloadPart {
    type Settings = DownloadSettings;
    type Watch = Places;

    const KIND: &'static str = "download-part";
    const ABOUT: &'static str = "brings some of the user's own files in";
    const REVISION: u32 = REVISION;
    const MAKES: Content = Content::Files;
    const ROLES: Roles = Roles::Fixed(&[]);

    fn run(settings: &DownloadSettings, _: &Places, io: &StageIo) -> Result<Metrics, StageError> {
        let arrived = Arrivals::new(settings, io)?;
        local::copy_files(&arrived, &mut Sampler::new(None))?;
        if let Some(size) = settings.partition {
            cut_large(io, size)?;
        }
        Ok(Metrics::default())
    }
}

pub(super) fn conduct(
    size: Partition,
    settings: &DownloadSettings,
    conductor: &dyn Conductor,
) -> Result<Collection, StageError> {
    let files = conductor.local_files("path");
    let files = local::chosen(files.iter().collect(), &settings.files);
    let keyed = plain(&DownloadSettings {
        path: None,
        files: Vec::new(),
        ..settings.clone()
    });
    let all = [as_artifact(&files)?];
    let parts = partition::parts(&all, |_| true, size)?;
    let by_name = files.iter().map(|file| (file.name.as_str(), *file));
    let by_name: HashMap<&str, &LocalFile> = by_name.collect();
    let parts = parts.iter().zip(0..).map(|(entries, n)| {
        let files = entries
            .iter()
            .filter_map(|one| by_name.get(one.entry.path.as_str()));
        part(files.copied().cloned(), n, &keyed)
    });
    let parts: Vec<Part> = parts.collect();
    let made = conductor.make("copying", &parts)?;
    let collection = gathered(&made)?;
    match collection.files.is_empty() {
        true => Err(nothing_taken(&settings.files)),
        false => Ok(collection),
    }
}

/// The user's files as an artifact would list them, so that parts are made of both by one rule.
fn as_artifact(files: &[&LocalFile]) -> Result<Whole, StageError> {
    let entry = |file: &&LocalFile| {
        let digest: Result<Digest, _> = file.digest.parse();
        let digest = digest.map_err(|_| StageError::new("a file of the user's has no digest"))?;
        Ok(FileEntry {
            path: file.name.clone(),
            bytes: file.bytes,
            digest,
        })
    };
    Ok(Whole {
        digest: Digest::of_bytes(b""),
        path: std::path::PathBuf::new(),
        files: files.iter().map(entry).collect::<Result<_, StageError>>()?,
        metrics: Metrics::default(),
    })
}

fn part(files: impl Iterator<Item = LocalFile>, n: usize, settings: &Value) -> Part {
    Part {
        name: format!("part-{n:05}"),
        kind: DownloadPart::KIND,
        settings: settings.clone(),
        watch: plain(&Places::default()),
        // The key has each file's name and digest.
        of: Digest::of_bytes(b""),
        reads: Vec::new(),
        local_files: files.collect(),
    }
}

/// All files of the parts under their own names.
pub(super) fn gathered(parts: &[Whole]) -> Result<Collection, StageError> {
    let mut collection = Collection::default();
    let (mut names, mut n_bytes) = (HashSet::new(), 0);
    for part in parts {
        for file in &part.files {
            if !names.insert(file.path.as_str()) {
                return Err(held_twice(&file.path));
            }
            n_bytes += file.bytes;
            collection.files.push(Link {
                name: file.path.clone(),
                from: part.digest,
                file: file.path.clone(),
            });
        }
    }
    collection.metrics = Metrics::default()
        .count("files", names.len() as u64)
        .count("bytes", n_bytes);
    Ok(collection)
}
