//! The `.tinylm` folder and where everything in it stands.
//!
//! Only this file knows the layout. A home carries a version, so that a newer one is refused by
//! name and an older one is brought up to date in place instead of being silently misread.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Digest, Error, Lock, Place, names};

/// The layout this program writes.
const VERSION: u32 = 1;

/// Where a home lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    /// The registry, where it stands outside.
    registry: Option<PathBuf>,
}

impl Home {
    /// The nearest `.tinylm` folder at or above `start`.
    #[must_use]
    pub fn find(start: &Path) -> Option<Home> {
        start
            .ancestors()
            .map(|folder| folder.join(".tinylm"))
            .find(|root| root.is_dir())
            .map(Home::at)
    }

    /// The home at `root`, which need not exist yet.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Home {
        Home {
            root: root.into(),
            registry: None,
        }
    }

    /// The same home, shared with other machines: its registry stands in a folder of this one.
    #[must_use]
    pub fn shared(mut self, folder: &Path) -> Home {
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let name = Digest::of_bytes(root.as_os_str().as_encoded_bytes());
        self.registry = Some(folder.join(format!("{}.sqlite", name.short())));
        self
    }

    /// Returns whether other machines may write here too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.registry.is_some()
    }

    /// Makes the folder if needed, and refuses one that a newer tinylm laid out.
    pub fn create(&self) -> Result<(), Error> {
        match self.check() {
            Ok(VERSION) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        self.locks().create_folder()?;
        let never = std::sync::atomic::AtomicBool::new(false);
        let _lock = Lock::wait_exclusive(&self.home_lock(), "laying out", &never, |_| {})?;
        if self.check()? != VERSION {
            // Another machine would go on not seeing them for a while if it looked before they are there.
            self.artifacts().create_folder()?;
            self.keys().create_folder()?;
            // Keeps the home out of a repository that did not think of it.
            self.place(".gitignore").write_atomic(b"*\n")?;
            let version = format!("{VERSION}\n");
            self.version_path().write_atomic(version.as_bytes())?;
        }
        Ok(())
    }

    /// The version of the layout, 0 when the folder has none yet. Paths in it go through JSON and
    /// SQLite, so one that is not UTF-8 is refused.
    pub fn check(&self) -> Result<u32, Error> {
        if self.root.to_str().is_none() {
            let path = self.root.clone();
            return Err(Error::NotUtf8 { path });
        }
        let path = self.version_path();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            text => text.map_err(|error| Error::io("read", &path, error))?,
        };
        // A version that cannot be read was torn by a crash while it was first written.
        let found = text.trim().parse().unwrap_or(0);
        if found > VERSION {
            return Err(Error::Newer {
                path: self.root.clone(),
                found,
                known: VERSION,
            });
        }
        Ok(found)
    }

    /// Returns whether this user can write here; asked of the kernel by trying.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.root.is_dir() && self.probe().is_ok()
    }

    /// Fails where nothing may be written. A full disk is not that: `gc` has to work on one.
    pub fn refuse_read_only(&self) -> Result<(), Error> {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self.probe() {
            Err(Error::Io { source, .. })
                if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem) =>
            {
                let path = self.root.clone();
                Err(Error::ReadOnly { path })
            }
            _ => Ok(()),
        }
    }

    fn probe(&self) -> Result<(), Error> {
        let probe = self.place(&format!(".{}.probe", names::unique()));
        probe.create_file().and_then(|_| probe.remove())
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, inside: &str) -> Place {
        Place::new(&self.root, inside)
    }

    /// The registry: in the home, or on this machine's own disk if the home is shared.
    #[must_use]
    pub fn registry_path(&self) -> PathBuf {
        self.registry.clone().unwrap_or_else(|| self.own_registry())
    }

    /// The registry that stands in the home itself.
    pub(crate) fn own_registry(&self) -> PathBuf {
        self.root.join("registry.sqlite")
    }

    /// Says that other machines use the home too.
    pub(crate) fn shared_mark(&self) -> Place {
        self.place("shared")
    }

    /// Flushes all that was written to the home's file system.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let root = fs::File::open(&self.root);
        root.and_then(|root| Ok(rustix::fs::syncfs(&root)?))
            .map_err(|error| Error::io("flush", &self.root, error))
    }

    /// The folders of all runs' journals.
    pub(crate) fn runs(&self) -> Place {
        self.place("runs")
    }

    /// The journals of one run.
    pub(crate) fn journals(&self, run_id: &str) -> Place {
        self.runs().below(run_id)
    }

    #[must_use]
    pub fn stat_cache_path(&self) -> Place {
        self.place("stat-cache.json")
    }

    #[must_use]
    pub fn artifacts(&self) -> Place {
        self.place("store/artifacts")
    }

    /// The folder of one artifact; its files stand in `files` below it.
    #[must_use]
    pub fn artifact_dir(&self, digest: &Digest) -> Place {
        fan_out(&self.artifacts(), digest, "")
    }

    /// The folder that holds the files of one artifact as they were written.
    #[must_use]
    pub fn artifact_files(&self, digest: &Digest) -> Place {
        self.artifact_dir(digest).below("files")
    }

    /// Where artifacts are put together, and where they go to be deleted.
    #[must_use]
    pub fn staging(&self) -> Place {
        self.place("store/staging")
    }

    #[must_use]
    pub fn keys(&self) -> Place {
        self.place("store/keys")
    }

    #[must_use]
    pub fn key_path(&self, key: &Digest) -> Place {
        fan_out(&self.keys(), key, ".json")
    }

    #[must_use]
    pub fn work(&self) -> Place {
        self.place("work")
    }

    /// Jobs of a cluster that carry out many light stages.
    #[must_use]
    pub fn pools(&self) -> Place {
        self.place("pools")
    }

    #[must_use]
    pub fn work_dir(&self, key: &Digest) -> Place {
        self.work().below(key.to_string())
    }

    /// The folders of attempts that are jobs of a cluster, perhaps still at work.
    pub fn jobs(&self) -> Result<Vec<Place>, Error> {
        let mut jobs = Vec::new();
        for key in self.work().list()? {
            let attempts = key.list().unwrap_or_default();
            jobs.extend(
                attempts
                    .into_iter()
                    .filter(|attempt| attempt.join("job.json").is_file()),
            );
        }
        Ok(jobs)
    }

    /// The folder of one attempt; a stage writes to `out` below it.
    #[must_use]
    pub fn attempt_dir(&self, key: &Digest, attempt: &str) -> Place {
        self.work_dir(key).below(attempt)
    }

    #[must_use]
    pub fn checkpoints_dir(&self, key: &Digest) -> Place {
        self.work_dir(key).below("checkpoints")
    }

    #[must_use]
    pub fn logs(&self) -> Place {
        self.place("logs")
    }

    /// The output of a stage during one execution.
    #[must_use]
    pub fn log_path(&self, execution_id: &str) -> Place {
        self.logs().below(format!("{execution_id}.log"))
    }

    #[must_use]
    pub fn locks(&self) -> Place {
        self.place("locks")
    }

    /// Held while a key is being made.
    #[must_use]
    pub fn key_lock(&self, key: &Digest) -> Place {
        self.locks().below(format!("key-{key}"))
    }

    /// Held for the moment in which an artifact is put in place.
    #[must_use]
    pub fn artifact_lock(&self, digest: &Digest) -> Place {
        self.locks().below(format!("artifact-{digest}"))
    }

    /// Held by the one heavy stage on a device, such as `cpu` or `cuda:0`.
    #[must_use]
    pub fn device_lock(&self, device: &str) -> Place {
        self.locks()
            .below(format!("device-{}", device.replace(['/', ':'], "-")))
    }

    /// Keys whose artifacts are still to be given to the remote of this name, a file each.
    #[must_use]
    pub fn pushes(&self, remote: &str) -> Place {
        self.place("pushes").below(remote)
    }

    /// Held while a key's artifact is being given to a remote.
    #[must_use]
    pub fn push_lock(&self, key: &Digest) -> Place {
        self.locks().below(format!("push-{key}"))
    }

    /// Held by the process that carries out a run: free means dead.
    #[must_use]
    pub fn run_lock(&self, run_id: &str) -> Place {
        run_lock(&self.locks(), run_id)
    }

    /// A file that asks the process of a run to stop, as its terminal would.
    #[must_use]
    pub(crate) fn stop_wish(&self, run_id: &str) -> Place {
        self.locks().below(format!("stop-{run_id}"))
    }

    /// Held shared by runs, exclusively by `gc`.
    #[must_use]
    pub fn store_lock(&self) -> Place {
        self.locks().below("store")
    }

    /// Held while the registry is made or brought up to date.
    pub(crate) fn registry_lock(&self) -> Place {
        match self.registry.as_deref().and_then(Path::parent) {
            Some(folder) => Place::new(folder, &format!("{}.lock", self.registry_name())),
            None => self.locks().below("registry"),
        }
    }

    fn registry_name(&self) -> String {
        let name = self.registry_path();
        let name = name.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn home_lock(&self) -> Place {
        self.locks().below("home")
    }

    fn version_path(&self) -> Place {
        self.place("version")
    }
}

pub(crate) fn run_lock(locks: &Place, run_id: &str) -> Place {
    locks.below(format!("run-{run_id}"))
}

pub(crate) fn run_claim(locks: &Place, run_id: &str) -> Place {
    locks.below("runs").below(format!("{run_id}.json"))
}

/// `ab/cdef...` below `root`, so that no folder grows beyond what is pleasant to list.
fn fan_out(root: &Place, digest: &Digest, suffix: &str) -> Place {
    let hex = digest.to_string();
    let (first, rest) = hex.split_at(2);
    root.below(first).below(format!("{rest}{suffix}"))
}

/// The digest that [`fan_out`] put at `path`.
pub(crate) fn digest_at(path: &Path, suffix: &str) -> Option<Digest> {
    let first = path.parent()?.file_name()?.to_str()?;
    let rest = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    format!("{first}{rest}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_from_any_folder_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(Home::find(&deep), None);
        let home = Home::at(folder.path().join(".tinylm"));
        home.create().unwrap();
        assert_eq!(Home::find(&deep), Some(home));
    }

    #[test]
    fn a_newer_home_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        home.create().unwrap();
        fs::write(home.version_path(), "7\n").unwrap();
        let error = home.create().unwrap_err();
        assert!(error.is_damage());
        let root = folder.path().display();
        assert_eq!(
            error.to_string(),
            format!("`{root}` has format 7, and this tinylm knows up to {VERSION}")
        );
    }

    #[test]
    fn a_path_gives_its_digest_back() {
        let home = Home::at("/home");
        let digest = Digest::of_bytes(b"x");
        assert_eq!(digest_at(&home.key_path(&digest), ".json"), Some(digest));
        assert_eq!(digest_at(&home.artifact_dir(&digest), ""), Some(digest));
    }
}
