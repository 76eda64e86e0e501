//! Brings data in from one place: the hub, an address, Kaggle, this machine, or the
//! experiment file itself.
//!
//! What arrives is what the key promised, or the stage fails: sizes and digests are
//! checked against the pin (or, for local files, against the digest in the key) before
//! a file is put into the artifact, and nothing half-done is ever put there. What was
//! received before an interruption waits in the checkpoint folder, and the next
//! attempt asks only for the rest.
//!
//! Compressed files and archives are opened here rather than where they are read, so
//! that every later stage sees plain files.

mod hub;
mod kaggle;
mod local;
mod net;
mod sample;
mod unpack;
mod url;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tinylm_pipeline::{
    Content, LocalPath, Metrics, NoSettings, Outside, Pin, Remote, Roles, SettingError, Stage,
    StageError, StageIo, choices, settings,
};

pub(crate) use hub::{Repo, fetch_repo_files, hub_remote, resolve_repo};
pub(crate) use net::Net;
use sample::Sampler;

pub struct Download;

choices! {
    /// What sort of repository on the hub.
    pub enum RepoKind {
        Dataset = "dataset",
        Model = "model",
    }
}

settings! {
    /// Where the data is.
    #[exclusive("hub", "url", "kaggle", "path", "rows")]
    pub struct DownloadSettings {
        /// A repository on the Hugging Face hub: `owner/name`.
        pub hub: Option<String> = None,
        /// Whether `hub` names a dataset or a model.
        pub repo: RepoKind = RepoKind::Dataset,
        /// A branch, tag or commit of the repository.
        pub revision: String = "main".to_owned(),
        /// Globs of the files to take from `hub` or `path`; without any, all that look like data.
        pub files: Vec<String> = Vec::new(),
        /// An address on the web.
        pub url: Option<String> = None,
        /// The digest that the bytes behind `url` must have.
        pub sha256: Option<String> = None,
        /// The same as a blake3 digest.
        pub blake3: Option<String> = None,
        /// A dataset on Kaggle, `owner/name`; your own key is needed.
        pub kaggle: Option<String> = None,
        /// A file, folder or glob on this machine.
        pub path: Option<LocalPath> = None,
        /// The data itself, one row an item.
        pub rows: Option<Vec<Value>> = None,
        /// Stop after so many rows, where the format allows.
        pub max_samples: Option<u64> = None,
        /// Whether `.gz`, `.zst`, `.zip` and `.tar` files are opened.
        pub open: bool = true,
        /// An archive that would grow past this many bytes is refused.
        pub opened_bytes_max: u64 = 64 << 30,
    }
}

impl DownloadSettings {
    fn n_sources(&self) -> usize {
        let given = [
            self.hub.is_some(),
            self.url.is_some(),
            self.kaggle.is_some(),
            self.path.is_some(),
            self.rows.is_some(),
        ];
        given.iter().filter(|given| **given).count()
    }

    fn repo(&self) -> Option<Repo> {
        Some(Repo {
            kind: self.repo,
            name: self.hub.clone()?,
            revision: self.revision.clone(),
            files: self.files.clone(),
        })
    }
}

impl Stage for Download {
    type Settings = DownloadSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "download";
    const ABOUT: &'static str = "brings data in: hub, address, Kaggle, local files or inline rows";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Files;
    const ROLES: Roles = Roles::Fixed(&[]);

    fn canonical(settings: DownloadSettings) -> Result<DownloadSettings, SettingError> {
        if settings.n_sources() != 1 {
            let message = "exactly one of `hub`, `url`, `kaggle`, `path` and `rows` must be given";
            return Err(SettingError::new("hub", message));
        }
        for (name, digest) in [("sha256", &settings.sha256), ("blake3", &settings.blake3)] {
            if let Some(digest) = digest {
                check_digest(name, digest, settings.url.is_some())?;
            }
        }
        if !settings.files.is_empty() && settings.hub.is_none() && settings.path.is_none() {
            let error =
                SettingError::new("files", "only `hub` and `path` have files to choose from");
            return Err(error.help("`normalize` has a setting `files` too"));
        }
        for (idx, glob) in settings.files.iter().enumerate() {
            if let Err(error) = glob::Pattern::new(glob) {
                return Err(SettingError::new(format!("files.{idx}"), error.to_string()));
            }
        }
        if let Some(name) = settings.hub.as_ref().or(settings.kaggle.as_ref()) {
            let place = if settings.hub.is_some() {
                "hub"
            } else {
                "kaggle"
            };
            check_name(place, name, settings.hub.is_some())?;
        }
        Ok(settings)
    }

    fn remotes(settings: &DownloadSettings) -> Vec<Remote> {
        let hub = settings
            .repo()
            .map(|repo| hub_remote(&repo, &["hub", "repo", "revision"]));
        let url = settings.url.as_deref().map(url::remote);
        let kaggle = settings.kaggle.as_deref().map(kaggle::remote);
        [hub, url, kaggle].into_iter().flatten().collect()
    }

    fn resolve(
        settings: &DownloadSettings,
        _remote: &Remote,
        outside: &Outside,
    ) -> Result<Pin, StageError> {
        resolve(settings, &Net::new(outside)?)
    }

    fn run(
        settings: &DownloadSettings,
        _watch: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        run(settings, io, || Net::new(io.outside()))
    }
}

fn resolve(settings: &DownloadSettings, net: &Net) -> Result<Pin, StageError> {
    if let Some(repo) = settings.repo() {
        return resolve_repo(&repo, net);
    }
    if let Some(url) = &settings.url {
        return url::resolve(url, settings, net);
    }
    match &settings.kaggle {
        Some(name) => kaggle::resolve(name, net),
        None => Err(StageError::new("nothing outside this machine is named").is_final()),
    }
}

/// `net` is only made where something must be asked of the network.
fn run(
    settings: &DownloadSettings,
    io: &StageIo,
    net: impl Fn() -> Result<Net, StageError>,
) -> Result<Metrics, StageError> {
    let mut sampler = Sampler::new(settings.max_samples);
    let arrived = Arrivals::new(settings, io)?;
    if let Some(rows) = &settings.rows {
        local::write_rows(rows, &arrived, &mut sampler)?;
    } else if settings.path.is_some() {
        local::copy_files(&arrived, &mut sampler)?;
    } else if let Some(repo) = settings.repo() {
        hub::fetch(&repo, &net()?, &arrived, &mut sampler)?;
    } else if let Some(url) = &settings.url {
        url::fetch(url, settings, &net()?, &arrived, &mut sampler)?;
    } else if let Some(name) = &settings.kaggle {
        kaggle::fetch(name, settings, &net()?, &arrived, &mut sampler)?;
    }
    sampler.report(io);
    let (n_files, n_bytes) = folder_size(io.out())?;
    if n_files == 0 {
        return Err(nothing_taken(&settings.files));
    }
    Ok(Metrics::default()
        .count("files", n_files)
        .count("bytes", n_bytes))
}

fn nothing_taken(globs: &[String]) -> StageError {
    let (message, help) = match globs {
        [] => (
            "there is not one file to take".to_owned(),
            "what `path`, the archive or the repository holds is empty",
        ),
        globs => (
            format!("no file fits `files`: {}", globs.join(", ")),
            "`files: []` takes every file",
        ),
    };
    StageError::new(message).help(help).is_final()
}

/// Where files arrive, and where they stand while they are not whole.
struct Arrivals<'a> {
    io: &'a StageIo<'a>,
    settings: &'a DownloadSettings,
}

impl<'a> Arrivals<'a> {
    fn new(settings: &'a DownloadSettings, io: &'a StageIo<'a>) -> Result<Self, StageError> {
        Ok(Self { io, settings })
    }

    /// Returns where a file may grow before it is whole.
    fn partial(&self, identity: &str) -> PathBuf {
        let digest = blake3::hash(identity.as_bytes()).to_hex();
        self.io
            .checkpoints()
            .join(format!("{}.part", &digest[..32]))
    }

    /// Puts a whole file, which is moved, into the artifact under a name that somebody else chose.
    fn put(&self, whole: &Path, name: &str, sampler: &mut Sampler) -> Result<(), StageError> {
        self.put_as(whole, &unpack::safe_name(name)?, sampler)
    }

    /// The same under a name that cannot lead out of its folder: opened where it is an archive.
    fn put_as(&self, whole: &Path, name: &str, sampler: &mut Sampler) -> Result<(), StageError> {
        let mut limits = unpack::Limits::new(self.settings.opened_bytes_max);
        if self.settings.open && unpack::is_packed(name) {
            unpack::open(whole, name, self.io, &mut limits, sampler)?;
            return remove(whole);
        }
        sampler.place(whole, &self.io.out().join(name))
    }
}

fn remove(path: &Path) -> Result<(), StageError> {
    std::fs::remove_file(path).map_err(|error| StageError::io(path, &error))
}

fn check_digest(name: &str, digest: &str, is_for_url: bool) -> Result<(), SettingError> {
    if !is_for_url {
        return Err(SettingError::new(
            name,
            "only what `url` names has an expected digest",
        ));
    }
    let is_hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        Ok(())
    } else {
        Err(SettingError::new(name, "a digest is 64 hexadecimal digits"))
    }
}

/// `gpt2` and `t5-small` have no owner on the hub; on Kaggle every dataset has one.
fn check_name(place: &str, name: &str, owner_may_lack: bool) -> Result<(), SettingError> {
    let parts: Vec<&str> = name.split('/').collect();
    let fits = parts.len() == 2 || (parts.len() == 1 && owner_may_lack);
    let is_part = |part: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && *part != "." && *part != ".." && part.chars().all(plain)
    };
    if fits && parts.iter().all(is_part) {
        Ok(())
    } else {
        let error = SettingError::new(place, format!("`{name}` is no name of a repository"));
        Err(error.help("write `owner/name`, as in the address of its page"))
    }
}

fn folder_size(folder: &Path) -> Result<(u64, u64), StageError> {
    let (mut n_files, mut n_bytes) = (0, 0);
    for (_, path) in crate::shared::files::files_below(folder)? {
        n_files += 1;
        n_bytes += std::fs::metadata(&path)
            .map_err(|error| StageError::io(&path, &error))?
            .len();
    }
    Ok((n_files, n_bytes))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod tests_network;
