//! A place inside the home, which no link can lead out of.
//!
//! A stage may run any program with all the rights of whoever started it, and such a program may
//! leave a link where a folder of the home was. `remove_dir_all` on a path looks at no link but the
//! last, so it would delete what stands behind the first. Here everything that is made or removed
//! is reached from the home's own folder, one name at a time and by handles; a link on the way is
//! an error that names it. The home itself may be reached through links: those are the user's.
//!
//! Reading needs no such care, so a [`Place`] is a [`Path`] to whoever only reads.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    ops::Deref,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use crate::{Error, files, names};

/// A folder or file inside a home, whether or not it is there yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    root: PathBuf,
    path: PathBuf,
}

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Place {
    pub(crate) fn new(root: &Path, inside: &str) -> Place {
        let root = root.to_owned();
        let path = root.join(inside);
        Place { root, path }
    }

    /// The place of this name inside this one.
    #[must_use]
    pub fn below(&self, name: impl AsRef<OsStr>) -> Place {
        Place {
            root: self.root.clone(),
            path: self.path.join(name.as_ref()),
        }
    }

    /// The place that this one is in; the home is in itself.
    #[must_use]
    pub fn parent(&self) -> Place {
        let parent = self.path.parent().filter(|_| self.path != self.root);
        Place {
            root: self.root.clone(),
            path: parent.unwrap_or(&self.path).to_owned(),
        }
    }

    /// Makes this folder, and those that it is in.
    pub fn create_folder(&self) -> Result<(), Error> {
        self.folder(true).map(drop)
    }

    /// Lets nobody but the owner look into this folder, which is made if it is not there.
    pub fn make_private(&self) -> Result<(), Error> {
        let folder = self.folder(true)?;
        rustix::fs::fchmod(&folder, Mode::RWXU).map_err(|errno| self.error("protect", errno))
    }

    /// Fails unless this is a folder that no link leads to.
    pub fn reach(&self) -> Result<(), Error> {
        self.folder(false).map(drop)
    }

    /// Removes whatever stands here, with all that is in it. A link goes, and what it leads to
    /// stays. That nothing is here is fine.
    pub fn remove(&self) -> Result<(), Error> {
        let Some((folder, name)) = self.found("remove")? else {
            return Ok(());
        };
        remove_at(folder.as_fd(), name).map_err(|errno| self.error("remove", errno))
    }

    /// Removes this folder if nothing is in it.
    pub(crate) fn remove_if_empty(&self) {
        if let Ok(Some((folder, name))) = self.found("remove") {
            // A folder that still holds something stays, as it should.
            let _ = rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR);
        }
    }

    /// Makes a file that is not there yet.
    pub fn create_file(&self) -> Result<File, Error> {
        self.open("create", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a file for reading and writing, and makes it where it is not there.
    pub fn open_or_create(&self) -> Result<File, Error> {
        self.open("open", OFlags::RDWR | OFlags::CREATE)
    }

    /// Opens a file that is there, to add to its end.
    pub(crate) fn open_to_append(&self) -> Result<File, Error> {
        self.open("open", OFlags::WRONLY | OFlags::APPEND)
    }

    /// Moves this to another place of the same home, over a file that is there.
    pub(crate) fn move_to(&self, to: &Place) -> Result<(), Error> {
        let target = to.parent().folder(true)?;
        let Some((folder, name)) = self.found("move")? else {
            return Err(self.error("move", Errno::NOENT));
        };
        rustix::fs::renameat(&folder, name, &target, to.name()?).map_err(|errno| match errno {
            Errno::XDEV => Error::OtherFileSystem {
                from: self.path.clone(),
                to: to.path.clone(),
            },
            errno => to.error("move a file to", errno),
        })
    }

    /// Replaces the file here by `bytes`: temporary file, fsync, rename, fsync of the folder.
    pub fn write_atomic(&self, bytes: &[u8]) -> Result<(), Error> {
        self.replace_with(bytes, true)?;
        self.parent().sync_folder()
    }

    /// As [`Place::write_atomic`] but not flushed to the disk: for what a crash may take back.
    pub fn replace(&self, bytes: &[u8]) -> Result<(), Error> {
        self.replace_with(bytes, false)
    }

    fn replace_with(&self, bytes: &[u8], flush: bool) -> Result<(), Error> {
        self.parent().create_folder()?;
        let name = format!(".{}.new", names::unique());
        let temporary = self.parent().below(name);
        let mut file = temporary.create_file()?;
        let written = file
            .write_all(bytes)
            .and_then(|()| if flush { file.sync_all() } else { Ok(()) });
        written
            .map_err(|error| Error::io_of("write", self, Some(bytes.len() as u64), error))
            .and_then(|()| temporary.move_to(self))
            // The error that made us give up matters more than one of the removal.
            .inspect_err(|_| drop(temporary.remove()))
    }

    /// Makes a file with these bytes unless there is one; returns whether it did. The file comes whole:
    /// of many who try, on any machine, one has made it.
    pub fn link_new(&self, bytes: &[u8]) -> Result<bool, Error> {
        let folder = self.parent().folder(true)?;
        let temporary = self.parent().below(format!(".{}.new", names::unique()));
        temporary.replace(bytes)?;
        let linked = rustix::fs::linkat(
            &folder,
            temporary.name()?,
            &folder,
            self.name()?,
            AtFlags::empty(),
        );
        let is_ours = match linked {
            Ok(()) => Ok(true),
            // The answer to a link may be lost on its way over a network: then there are two names.
            Err(_) if fs::metadata(&temporary).is_ok_and(|file| file.nlink() == 2) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            // No links on this file system: the next best thing, whole a moment later.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                self.create_with(bytes)
            }
            Err(errno) => Err(self.error("make", errno)),
        };
        temporary.remove()?;
        is_ours
    }

    /// Gives this file a second name at `to`, where nothing may stand; returns false where the file system
    /// has no such links, or the file has as many as it can.
    pub(crate) fn link_to(&self, to: &Place) -> Result<bool, Error> {
        let target = to.parent().folder(true)?;
        let Some((folder, name)) = self.found("link")? else {
            return Err(self.error("link", Errno::NOENT));
        };
        match rustix::fs::linkat(&folder, name, &target, to.name()?, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV) => {
                Ok(false)
            }
            Err(errno) => Err(to.error("make", errno)),
        }
    }

    fn create_with(&self, bytes: &[u8]) -> Result<bool, Error> {
        match self.create_file() {
            Ok(mut file) => file
                .write_all(bytes)
                .map(|()| true)
                .map_err(|error| Error::io("write", self, error)),
            Err(_) if fs::symlink_metadata(self).is_ok() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Flushes a folder's list of names, without which a rename may not survive a power cut.
    pub(crate) fn sync_folder(&self) -> Result<(), Error> {
        files::sync_file(self)
    }

    /// Returns whether the folder that this is in lists it.
    pub(crate) fn is_listed(&self) -> Result<bool, Error> {
        Ok(self.parent().list()?.contains(self))
    }

    /// Returns whether the folders from the home down to this one list each other, and the last of them this;
    /// what they list is found from then on.
    ///
    /// On a shared file system a name that was looked up before it existed goes on being absent for a while, and
    /// so does all below it. Some forget that when the folder is listed; others only when they are asked to make
    /// what is there.
    pub(crate) fn is_found(&self) -> Result<bool, Error> {
        let mut folder = Place {
            root: self.root.clone(),
            path: self.root.clone(),
        };
        for name in self.names()? {
            let next = folder.below(name);
            if !next.is_listed()? {
                return Ok(false);
            }
            next.look_anew()?;
            folder = next;
        }
        Ok(true)
    }

    /// Has the file system ask its server for a name that is listed and yet not found.
    fn look_anew(&self) -> Result<(), Error> {
        if self.symlink_metadata().is_ok() {
            return Ok(());
        }
        let (folder, name) = (self.parent().folder(false)?, self.name()?);
        if rustix::fs::mkdirat(&folder, name, Mode::RWXU).is_ok() {
            // It was removed since it was listed.
            let _ = rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR);
        }
        Ok(())
    }

    /// The entries of this folder, in order of the names; none when it is not there.
    pub fn list(&self) -> Result<Vec<Place>, Error> {
        let paths = match self.folder(false) {
            Ok(_) => files::list_folder(self)?,
            Err(error) if error.is_absence() => Vec::new(),
            Err(error) => return Err(error),
        };
        let here = |path| Place {
            root: self.root.clone(),
            path,
        };
        Ok(paths.into_iter().map(here).collect())
    }

    fn open(&self, action: &'static str, flags: OFlags) -> Result<File, Error> {
        let folder = self.parent().folder(true)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = self.name()?;
        let open = || rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o666));
        let opened = open().or_else(|errno| match errno {
            // Another machine removed a file that this one remembers; asked to remove it, it forgets.
            Errno::NOENT if flags.contains(OFlags::CREATE) => {
                let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
                open()
            }
            errno => Err(errno),
        });
        opened
            .map(File::from)
            .map_err(|errno| self.error(action, errno))
    }

    /// A handle on the folder that this is in, and its name there; nothing if it is not there.
    fn found(&self, action: &'static str) -> Result<Option<(OwnedFd, &OsStr)>, Error> {
        let folder = match self.parent().folder(false) {
            Ok(folder) => folder,
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = self.name()?;
        match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(Some((folder, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(action, errno)),
        }
    }

    /// A handle on this folder, reached name by name from the home.
    fn folder(&self, create: bool) -> Result<OwnedFd, Error> {
        if create {
            fs::create_dir_all(&self.root)
                .map_err(|error| Error::io("create", &self.root, error))?;
        }
        let mut folder = open_folder(rustix::fs::CWD, self.root.as_os_str(), OFlags::empty())
            .map_err(|errno| Error::io("open", &self.root, errno.into()))?;
        let mut path = self.root.clone();
        for name in self.names()? {
            path.push(name);
            folder = step(folder.as_fd(), name, &path, create)?;
        }
        Ok(folder)
    }

    fn name(&self) -> Result<&OsStr, Error> {
        self.names()?.pop().ok_or_else(|| self.outside())
    }

    /// The names from the home to here; a path that leads elsewhere has none.
    fn names(&self) -> Result<Vec<&OsStr>, Error> {
        let inside = self.path.strip_prefix(&self.root).ok();
        let names = inside.map(|inside| {
            inside.components().map(|part| match part {
                Component::Normal(name) => Some(name),
                _ => None,
            })
        });
        let names = names.and_then(|names| names.collect::<Option<Vec<_>>>());
        names.ok_or_else(|| self.outside())
    }

    fn outside(&self) -> Error {
        let path = self.path.clone();
        Error::OutsideHome { path }
    }

    fn error(&self, action: &'static str, errno: Errno) -> Error {
        if errno == Errno::LOOP {
            let path = self.path.clone();
            return Error::LinkInHome { path };
        }
        Error::io(action, self, errno.into())
    }
}

/// Goes from a folder into one that is in it, and not through a link.
fn step(folder: BorrowedFd, name: &OsStr, path: &Path, create: bool) -> Result<OwnedFd, Error> {
    let inner = match open_folder(folder, name, OFlags::NOFOLLOW) {
        Err(Errno::NOENT) if create => make_folder(folder, name),
        Ok(inner) if create && is_gone(&inner) => {
            // Asked to remove what is gone, the file system forgets it.
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR);
            make_folder(folder, name)
        }
        inner => inner,
    };
    inner.map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP if path.is_symlink() => Error::LinkInHome {
            path: path.to_owned(),
        },
        errno => Error::io(if create { "create" } else { "open" }, path, errno.into()),
    })
}

fn make_folder(folder: BorrowedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => open_folder(folder, name, OFlags::NOFOLLOW),
        Err(errno) => Err(errno),
    }
}

/// Returns whether a folder is remembered by a shared file system although another machine has removed it.
fn is_gone(folder: &OwnedFd) -> bool {
    #[cfg(target_os = "linux")]
    let asked = {
        use rustix::fs::StatxFlags;
        let of_the_server = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        rustix::fs::statx(folder, "", of_the_server, StatxFlags::NLINK).map(drop)
    };
    #[cfg(not(target_os = "linux"))]
    let asked = rustix::fs::fstat(folder).map(drop);
    matches!(asked, Err(Errno::NOENT | Errno::STALE))
}

fn open_folder(folder: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// Removes what stands under a name in a folder, with all that is in it.
fn remove_at(folder: BorrowedFd, name: &OsStr) -> Result<(), Errno> {
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    let removed = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        // Opened as no link, so that nobody can put one there between the look and the step.
        let inner = open_folder(folder, name, OFlags::NOFOLLOW)?;
        empty(inner.as_fd())?;
        rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)
    } else {
        rustix::fs::unlinkat(folder, name, AtFlags::empty())
    };
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn empty(folder: BorrowedFd) -> Result<(), Errno> {
    // Listed before anything goes, since a list that changes while it is read may skip names.
    let names: Vec<_> = Dir::read_from(folder)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<Result<_, _>>()?;
    for name in names {
        if !matches!(name.to_bytes(), b"." | b"..") {
            use std::os::unix::ffi::OsStrExt;
            remove_at(folder, OsStr::from_bytes(name.to_bytes()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        home: PathBuf,
        precious: PathBuf,
    }

    impl Fixture {
        /// A home beside something that is not its own.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (home, precious) = (folder.path().join("home"), folder.path().join("precious"));
            fs::create_dir_all(home.join("work")).unwrap();
            for inner in ["inner", "checkpoints", "out"] {
                fs::create_dir_all(precious.join(inner)).unwrap();
                fs::write(precious.join(inner).join("kept.txt"), "kept").unwrap();
            }
            Fixture {
                _folder: folder,
                home,
                precious,
            }
        }

        fn place(&self, inside: &str) -> Place {
            Place::new(&self.home, inside)
        }

        fn assert_precious(&self) {
            let mut names: Vec<_> = fs::read_dir(&self.precious)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["checkpoints", "inner", "out"]);
            for name in names {
                let inner = fs::read_dir(self.precious.join(name)).unwrap();
                assert_eq!(inner.count(), 1);
            }
        }
    }

    #[test]
    fn nothing_is_made_or_removed_behind_a_link() {
        let fixture = Fixture::new();
        let link = fixture.place("work/key");
        symlink(&fixture.precious, &*link).unwrap();
        let refused = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::LinkInHome { .. }), "{error}");
            assert!(error.to_string().contains("work/key` is a link"), "{error}");
            fixture.assert_precious();
        };
        refused(link.create_folder());
        refused(link.below("attempt").below("out").create_folder());
        refused(link.below("checkpoints").remove());
        refused(link.below("inner").below("kept.txt").remove());
        refused(link.below("new.txt").create_file().map(drop));
        refused(link.below("lock").open_or_create().map(drop));
        refused(link.below("new.txt").write_atomic(b"new"));
        refused(link.below("inner").move_to(&fixture.place("work/inner")));
        refused(link.list().map(drop));
        fs::write(fixture.home.join("file"), "").unwrap();
        refused(fixture.place("file").move_to(&link.below("inner")));
        link.below("inner").remove_if_empty();
        fixture.assert_precious();
    }

    #[test]
    fn a_link_is_removed_as_the_link_that_it_is() {
        let fixture = Fixture::new();
        let folder = fixture.place("work/a");
        folder.below("b").create_folder().unwrap();
        symlink(&fixture.precious, folder.join("b/link")).unwrap();
        symlink(fixture.precious.join("inner"), folder.join("link")).unwrap();
        folder.remove().unwrap();
        assert!(!folder.exists());
        folder.remove().unwrap();
        let link = fixture.place("link");
        symlink(&fixture.precious, &*link).unwrap();
        link.remove().unwrap();
        assert!(!link.is_symlink());
        fixture.assert_precious();
    }

    #[test]
    fn a_file_that_is_a_link_is_replaced_and_never_written_through() {
        let fixture = Fixture::new();
        let kept = fixture.precious.join("inner/kept.txt");
        let link = fixture.place("link");
        symlink(&kept, &*link).unwrap();
        assert!(link.create_file().is_err());
        assert!(link.open_or_create().is_err());
        link.write_atomic(b"new").unwrap();
        assert!(!link.is_symlink());
        assert_eq!(fs::read(&*link).unwrap(), b"new");
        assert_eq!(fs::read(&kept).unwrap(), b"kept");
    }

    #[test]
    fn the_home_itself_may_be_behind_a_link_and_names_never_lead_out_of_it() {
        let fixture = Fixture::new();
        let link = fixture.home.with_file_name("linked");
        symlink(&fixture.home, &link).unwrap();
        let place = Place::new(&link, "work").below("key");
        place.create_folder().unwrap();
        assert!(fixture.home.join("work/key").is_dir());
        for outside in ["../precious", "work/../../precious/inner", "/tmp"] {
            let error = Place::new(&fixture.home, outside).remove().unwrap_err();
            assert!(matches!(error, Error::OutsideHome { .. }), "{error}");
        }
        fixture.assert_precious();
        // Removing the home by mistake is not possible either.
        assert!(fixture.place("").remove().is_err());
        assert!(fixture.home.is_dir());
    }
}
