//! Where an existing tokenizer is taken from: the hub, or this machine.

use std::fs;

use serde_json::Value;
use tinylm_pipeline::{At, LocalFile, LocalPath, StageError, StageIo, settings};

use crate::shared::{
    hub::{Repo, fetch_repo_files},
    tokens::assemble::{NamedFile, assemble, is_of_use},
};

settings! {
    /// Where an existing tokenizer is.
    #[exclusive("hub", "path")]
    pub struct Pretrained {
        /// A repository on the hub, such as `t5-small` or `gpt2`.
        pub hub: Option<String> = None,
        /// Its branch, tag or commit.
        pub revision: Option<String> = None,
        /// A `tokenizer.json`, a SentencePiece `.model` (its own pieces alone: T5's hundred extra ids are in its `tokenizer.json`), or a folder with either or with `vocab.json` and `merges.txt`.
        pub path: Option<LocalPath> = None,
    }
}

impl Pretrained {
    /// Returns the repository that it names, and the files of it that may be of use.
    pub(super) fn repo(&self) -> Option<Repo> {
        let revision = self.revision.as_deref().unwrap_or("main");
        let files = ["tokenizer.json", "vocab.json", "merges.txt", "*.model"];
        Some(Repo::model(self.hub.as_deref()?, revision, &files))
    }

    /// Returns what the stage was given as a `tokenizer.json` in the released form.
    pub(super) fn read(&self, io: &StageIo) -> Result<Value, StageError> {
        match self.repo() {
            Some(repo) => assemble(&fetched(&repo, io)?),
            None => assemble(&local(io)?),
        }
    }
}

fn fetched(repo: &Repo, io: &StageIo) -> Result<Vec<NamedFile>, StageError> {
    let folder = io.checkpoints().join("hub");
    let mut named = Vec::new();
    for name in fetch_repo_files(repo, io, &folder)? {
        let path = folder.join(&name);
        named.push((name, fs::read(&path).at(&path)?));
    }
    Ok(named)
}

fn local(io: &StageIo) -> Result<Vec<NamedFile>, StageError> {
    let files = io.local_files("pretrained.path");
    // One file that is named by itself is meant, whatever it is called.
    let is_meant = |file: &&LocalFile| files.len() == 1 || is_of_use(&file.name);
    let wanted: Vec<&LocalFile> = files.iter().copied().filter(is_meant).collect();
    let wanted = wanted.into_iter();
    wanted
        .map(|file| Ok((file.name.clone(), file.read()?)))
        .collect()
}
