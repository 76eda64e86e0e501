//! The sort of file system that a folder is on, and whether other machines may see it too.

use std::path::Path;

use crate::{Error, Home};

/// A file system by name, as far as its kernel's number is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    pub name: String,
    /// Made to be used by several machines.
    pub is_shared: bool,
}

/// Number, name, and whether machines share it.
const SORTS: [(i64, &str, bool); 16] = [
    (0xEF53, "ext4", false),
    (0x5846_5342, "xfs", false),
    (0x9123_683E, "btrfs", false),
    (0xF2F5_2010, "f2fs", false),
    (0x2FC1_2FC1, "zfs", false),
    (0x0102_1994, "tmpfs", false),
    (0x794C_7630, "overlay", false),
    (0x6969, "nfs", true),
    (0x0BD0_0BD0, "lustre", true),
    (0x4750_4653, "gpfs", true),
    (0x1983_0326, "beegfs", true),
    (0x00C3_6400, "ceph", true),
    (0xFF53_4D42, "cifs", true),
    (0xFE53_4D42, "smb2", true),
    (0x0102_1997, "9p", true),
    (0x6573_5546, "fuse", true),
];

impl FileSystem {
    /// The file system of a folder, or of the nearest above that is there.
    #[must_use]
    pub fn of(folder: &Path) -> Option<FileSystem> {
        let there = folder.ancestors().find(|folder| folder.exists())?;
        let found = rustix::fs::statfs(there).ok()?;
        // Where the kernel's number is signed, its upper half may be all ones.
        let sort = found.f_type & 0xFFFF_FFFF;
        let known = SORTS.iter().find(|(known, ..)| *known == sort);
        Some(match known {
            Some((_, name, is_shared)) => FileSystem {
                name: (*name).to_owned(),
                is_shared: *is_shared,
            },
            None => FileSystem {
                name: format!("file system {sort:#x}"),
                is_shared: false,
            },
        })
    }
}

impl Home {
    /// Returns whether other machines may write here: it is on such a file system, or somebody who
    /// sees it through one was here before.
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        self.shared_mark().exists()
            || FileSystem::of(self.root()).is_some_and(|system| system.is_shared)
    }

    /// Tells whoever opens the home without such a file system in between, on the machine whose disk
    /// it is, that others write here too.
    pub(crate) fn mark_shared(&self) -> Result<(), Error> {
        let mark = self.shared_mark();
        if mark.exists() {
            return Ok(());
        }
        mark.replace(b"Other machines write here: each keeps its registry on its own disk.\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_the_file_system_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let there = FileSystem::of(folder.path());
        assert!(there.is_some());
        assert_eq!(FileSystem::of(&folder.path().join("not/yet")), there);
    }

    #[test]
    fn a_home_that_was_shared_once_is_taken_for_shared_from_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        home.mark_shared().unwrap();
        assert!(home.may_be_shared());
    }
}
