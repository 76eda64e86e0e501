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

mod arrivals;
mod cut;
mod hub;
mod hub_parts;
mod kaggle;
mod local;
mod parts;
mod sample;
mod settings;
mod unpack;
mod url;

use std::path::Path;

use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Kind, Metrics, NoSettings, Outside, Pin, Remote, Roles,
    SettingError, Stage, StageError, StageIo,
    parts::{Collection, Conductor},
};

use crate::shared::{
    hub::{hub_remote, resolve_repo},
    net::Net,
};
use arrivals::Arrivals;
use sample::Sampler;
pub use settings::DownloadSettings;
use settings::REVISION;
pub(crate) use unpack::is_packed;

pub struct Download;

/// The kinds of its parts.
pub(super) const PARTS: &[Kind] = &[
    Kind::of::<parts::DownloadPart>(),
    Kind::of::<hub_parts::HubPart>(),
];

impl Stage for Download {
    type Settings = DownloadSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "download";
    const ABOUT: &'static str = "brings data in: hub, address, Kaggle, local files or inline rows";
    const REVISION: u32 = REVISION;
    const MAKES: Content = Content::Files;
    const METRICS: &'static [Key] = &[
        (
            "files",
            "Files that were brought, those out of archives among them.",
        ),
        ("bytes", "Their bytes."),
    ];
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
        if settings.partition.is_some() {
            check_partition(&settings)?;
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
        resolve(settings, &settings.net(outside)?)
    }

    fn forecast(settings: &DownloadSettings, _: &FindInput) -> Option<Forecast> {
        let rows = settings.rows.as_ref()?.iter();
        let bytes = rows.map(|row| row.to_string().len() as u64).sum();
        Some(Forecast::Texts { bytes })
    }

    fn run(
        settings: &DownloadSettings,
        _watch: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        run(settings, io, || settings.net(io.outside()))
    }

    fn is_in_parts(settings: &DownloadSettings) -> bool {
        settings.partition.is_some()
    }

    fn conduct(
        settings: &DownloadSettings,
        conductor: &dyn Conductor,
    ) -> Result<Collection, StageError> {
        let Some(size) = settings.partition else {
            return Err(StageError::new("these settings ask for no parts"));
        };
        match settings.repo() {
            Some(repo) => hub_parts::conduct(&repo, size, settings, conductor),
            None => parts::conduct(size, settings, conductor),
        }
    }
}

/// Of `path` and `hub` all files are known by name and digest before any is read; behind an address is
/// one file, and of Kaggle's nothing is known but a version.
fn check_partition(settings: &DownloadSettings) -> Result<(), SettingError> {
    if settings.path.is_none() && settings.hub.is_none() {
        let message = "only the files of `path` and `hub` are brought in parts";
        return Err(SettingError::new("partition", message)
            .help("`normalize` has the setting too, for whatever was brought"));
    }
    if settings.max_samples.is_some() {
        let message = "counts rows from the start of the corpus, which parts do not know of";
        return Err(SettingError::new("max_samples", message).help("leave out `partition`"));
    }
    Ok(())
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
        kaggle::fetch(name, &net()?, &arrived, &mut sampler)?;
    }
    sampler.report(io);
    let (n_files, n_bytes) = folder_size(io.out())?;
    if n_files == 0 {
        return Err(local::nothing_taken(&settings.files));
    }
    Ok(Metrics::default()
        .count("files", n_files)
        .count("bytes", n_bytes))
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

#[cfg(test)]
mod tests_parts;
