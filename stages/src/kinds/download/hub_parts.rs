//! A repository of the hub in parts: of a new commit only those files are fetched that are other ones.
//!
//! A part's key has the names and the hub's own digests of its files and neither the repository nor the
//! commit, which say where they were found and not what they are.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinylm_pipeline::{
    Content, Metrics, Roles, Stage, StageError, StageIo,
    parts::{Collection, Conductor, Digest, FileEntry, Part, Whole},
    settings::{Setting, Settings, plain},
};

use super::{
    arrivals::Arrivals,
    cut::cut_large,
    hub,
    parts::gathered,
    sample::Sampler,
    settings::{DownloadSettings, REVISION},
};
use crate::shared::{
    hub::{Held, Pinned, Repo, RepoFile, RepoKind, hub_remote},
    partition::{self, Partition},
};

/// Some files of a repository.
pub(super) struct HubPart;

/// Where the files of a part are: what it is told beside its key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Found {
    repo: String,
    is_model: bool,
    revision: String,
    commit: String,
    files: Vec<Value>,
}

impl Settings for Found {
    const EXCLUSIVE: &'static [&'static [&'static str]] = &[];

    fn list() -> Vec<Setting> {
        Vec::new()
    }
}

impl Stage for HubPart {
    type Settings = DownloadSettings;
    type Watch = Found;

    const KIND: &'static str = "download-hub-part";
    const ABOUT: &'static str = "brings some files of a repository in";
    const REVISION: u32 = REVISION;
    const MAKES: Content = Content::Files;
    const ROLES: Roles = Roles::Fixed(&[]);

    fn run(
        settings: &DownloadSettings,
        found: &Found,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let repo = Repo {
            kind: match found.is_model {
                true => RepoKind::Model,
                false => RepoKind::Dataset,
            },
            name: found.repo.clone(),
            revision: found.revision.clone(),
            files: Vec::new(),
        };
        let net = settings.net(io.outside())?;
        let held = Held {
            commit: found.commit.clone(),
            files: found.files.iter().filter_map(RepoFile::from_json).collect(),
            warning: None,
        };
        let pinned = Pinned::holding(&repo, &net, io, held);
        let arrived = Arrivals::new(settings, io)?;
        hub::bring(&pinned, &arrived, &mut Sampler::new(None))?;
        if let Some(size) = settings.partition {
            cut_large(io, size)?;
        }
        Ok(Metrics::default())
    }
}

pub(super) fn conduct(
    repo: &Repo,
    size: Partition,
    settings: &DownloadSettings,
    conductor: &dyn Conductor,
) -> Result<Collection, StageError> {
    let pin = conductor.pin(&hub_remote(repo, &[]).id);
    let net = settings.net(conductor.outside())?;
    let held = Held::of(repo, pin.as_ref(), &net)?;
    if let Some(warning) = &held.warning {
        conductor.warn(warning);
    }
    let keyed = plain(&DownloadSettings {
        hub: None,
        files: Vec::new(),
        ..settings.clone()
    });
    let all = [as_artifact(&held.files)];
    let parts = partition::parts(&all, |_| true, size)?;
    let mut files = held.files.iter();
    let parts = parts.iter().zip(0..).map(|(entries, n)| {
        let files: Vec<Value> = files
            .by_ref()
            .take(entries.len())
            .map(RepoFile::to_json)
            .collect();
        Part {
            name: format!("part-{n:05}"),
            kind: HubPart::KIND,
            settings: keyed.clone(),
            of: Digest::of_bytes(Value::from(files.clone()).to_string().as_bytes()),
            watch: plain(&Found {
                repo: repo.name.clone(),
                is_model: repo.kind == RepoKind::Model,
                revision: repo.revision.clone(),
                commit: held.commit.clone(),
                files,
            }),
            reads: Vec::new(),
            local_files: Vec::new(),
        }
    });
    let parts: Vec<Part> = parts.collect();
    gathered(&conductor.make("fetching", &parts)?)
}

/// The repository's files as an artifact would list them, so that parts are made of both by one rule.
fn as_artifact(files: &[RepoFile]) -> Whole {
    let entry = |file: &RepoFile| FileEntry {
        path: file.name.clone(),
        bytes: file.expected.bytes.unwrap_or(0),
        // The hub's digests are of several sorts and lengths.
        digest: Digest::of_bytes(file.to_json().to_string().as_bytes()),
    };
    Whole {
        digest: Digest::of_bytes(b""),
        path: std::path::PathBuf::new(),
        files: files.iter().map(entry).collect(),
        metrics: Metrics::default(),
    }
}
