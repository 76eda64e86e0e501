//! Stories of one store: what is committed, damaged, healed and removed.

use std::{
    fs::{File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{contents::stat, manifest::MANIFEST, *};

mod gather;

struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join(".tinylm"));
        home.create().unwrap();
        let store = Store::new(home);
        Fixture { folder, store }
    }

    /// A folder that a stage has just written.
    fn out(&self, files: &[(&str, &str)]) -> Place {
        let name = names::unique();
        let out = self.store.home.work().below(name);
        out.create_folder().unwrap();
        for (path, text) in files {
            let path = out.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        out
    }

    fn commit(&self, files: &[(&str, &str)]) -> Digest {
        self.store.commit(&self.out(files)).unwrap().digest
    }

    fn path(&self, digest: &Digest, path: &str) -> PathBuf {
        self.store.files(digest).join(path)
    }

    #[track_caller]
    fn assert_whole(&self, digest: &Digest) {
        let condition = self.store.condition(digest).unwrap();
        assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
    }

    #[track_caller]
    fn damage(&self, digest: &Digest) -> String {
        match self.store.condition(digest).unwrap() {
            Condition::Damaged { path, what } => {
                let path = path.strip_prefix(self.store.files(digest)).unwrap();
                format!("{} {what}", path.display())
            }
            other => panic!("{other:?}"),
        }
    }

    fn leftovers(&self) -> Vec<Place> {
        self.store.home.staging().list().unwrap()
    }
}

const FILES: &[(&str, &str)] = &[("a.txt", "one"), ("a/b.txt", "two"), ("a b\nc", "")];

#[test]
fn what_is_committed_is_found_and_the_folder_has_moved() {
    let fixture = Fixture::new();
    let out = fixture.out(FILES);
    let artifact = fixture.store.commit(&out).unwrap();
    assert!(!out.exists());
    assert_eq!(artifact.bytes, 6);
    let paths: Vec<&str> = artifact
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    assert_eq!(paths, ["a b\nc", "a.txt", "a/b.txt"]);
    assert_eq!(
        fs::read_to_string(fixture.path(&artifact.digest, "a/b.txt")).unwrap(),
        "two"
    );
    match fixture.store.condition(&artifact.digest).unwrap() {
        Condition::Whole(manifest) => assert_eq!(manifest.artifact(), artifact),
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.store.list().unwrap(), [artifact.digest]);
    let usage = fixture.store.usage().unwrap();
    assert_eq!((usage.n_artifacts, usage.bytes), (1, 6));
    assert_eq!(fixture.leftovers(), [] as [Place; 0]);
}

#[test]
fn the_digest_of_an_artifact_never_changes() {
    let fixture = Fixture::new();
    let digest = fixture.commit(FILES);
    insta::assert_snapshot!(digest, @"12fb6a1ce2293689a749d02a72f02f7ab9f4ea4f1ab47a147fe1c2e5422dffbd");
}

#[test]
fn the_same_bytes_are_kept_once_even_when_committed_at_once() {
    let fixture = Fixture::new();
    let outs: Vec<Place> = (0..8).map(|_| fixture.out(FILES)).collect();
    let digests: Vec<Digest> = thread::scope(|scope| {
        let commits: Vec<_> = outs
            .iter()
            .map(|out| scope.spawn(|| fixture.store.commit(out).unwrap().digest))
            .collect();
        commits
            .into_iter()
            .map(|commit| commit.join().unwrap())
            .collect()
    });
    assert_eq!(fixture.store.list().unwrap(), [digests[0]]);
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert!(outs.iter().all(|out| !out.exists()));
    assert_eq!(fixture.leftovers(), [] as [Place; 0]);
    fixture.assert_whole(&digests[0]);
}

#[test]
fn what_another_machine_moves_in_between_look_and_move_stays_if_it_is_whole() {
    let fixture = Fixture::new();
    // Without the lock, which reaches no other machine.
    let late = || {
        let out = fixture.out(FILES);
        let manifest = read_contents(&scan(&out).unwrap(), true).unwrap();
        let staged = fixture.store.new_staged();
        assemble(&staged, &out, &manifest).unwrap();
        (staged, manifest.digest)
    };
    let file = |digest| fs::metadata(fixture.path(digest, "a.txt")).unwrap().ino();
    let (staged, digest) = late();
    assert_eq!(fixture.commit(FILES), digest);
    let theirs = file(&digest);
    fixture.store.settle(&staged, &digest).unwrap();
    assert_eq!(file(&digest), theirs);

    let (staged, _) = late();
    let ours = fs::metadata(staged.join(super::FILES).join("a.txt")).unwrap();
    fs::remove_file(fixture.path(&digest, "a/b.txt")).unwrap();
    fixture.store.settle(&staged, &digest).unwrap();
    assert_eq!(file(&digest), ours.ino());
    fixture.assert_whole(&digest);
    assert_eq!(fixture.leftovers(), [] as [Place; 0]);
}

#[test]
fn any_change_is_named_and_a_commit_of_the_same_bytes_heals_it() {
    let fixture = Fixture::new();
    let digest = fixture.commit(FILES);
    type Change = fn(&Path);
    let changes: [(Change, &str); 7] = [
        (
            |root| symlink("/etc/hosts", root.join("a/link")).unwrap(),
            "a/link is a symbolic link",
        ),
        (
            |root| fs::write(root.join("a.txt"), "on").unwrap(),
            "a.txt has 2 bytes instead of 3",
        ),
        (
            |root| fs::write(root.join("a.txt"), "eno").unwrap(),
            "a.txt has other contents",
        ),
        (
            |root| fs::remove_file(root.join("a/b.txt")).unwrap(),
            "a/b.txt is missing",
        ),
        (
            |root| fs::remove_dir_all(root.join("a")).unwrap(),
            "a/b.txt is missing",
        ),
        (
            |root| fs::write(root.join("a/c.txt"), "new").unwrap(),
            "a/c.txt was added",
        ),
        (
            |root| {
                fs::remove_file(root.join("a.txt")).unwrap();
                symlink("/etc/hosts", root.join("a.txt")).unwrap();
            },
            "a.txt is no longer a file",
        ),
    ];
    for (change, what) in changes {
        fixture.assert_whole(&digest);
        change(&fixture.store.files(&digest));
        assert_eq!(fixture.damage(&digest), what);
        assert_eq!(fixture.commit(FILES), digest);
    }
    fixture.assert_whole(&digest);
    assert_eq!(fixture.leftovers(), [] as [Place; 0]);
}

#[test]
fn a_settled_artifact_is_not_read_but_a_restored_mtime_fools_nobody() {
    let fixture = Fixture::new();
    let digest = fixture.commit(FILES);
    thread::sleep(Duration::from_millis(2100));
    fixture.assert_whole(&digest);
    let root = fixture.store.home.artifact_dir(&digest);
    let manifest = Manifest::read(&root, &digest).unwrap();
    assert!(manifest.files.iter().all(|known| known.settled));
    assert!(manifest.folders.iter().all(|known| known.settled));
    assert!(matches!(
        look(&root.join(super::FILES), &manifest).unwrap(),
        Look::Same
    ));

    let path = fixture.path(&digest, "a.txt");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "eno").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified))
        .unwrap();
    assert_eq!(fixture.damage(&digest), "a.txt has other contents");
}

#[test]
fn a_touch_or_a_lost_manifest_harms_nothing() {
    let fixture = Fixture::new();
    let digest = fixture.commit(FILES);
    let file = File::options()
        .write(true)
        .open(fixture.path(&digest, "a.txt"))
        .unwrap();
    file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH))
        .unwrap();
    fixture.assert_whole(&digest);

    let manifest = fixture.store.home.artifact_dir(&digest).join(MANIFEST);
    fs::remove_file(&manifest).unwrap();
    fixture.assert_whole(&digest);
    assert!(manifest.exists());
    fs::write(&manifest, "{ torn").unwrap();
    fixture.assert_whole(&digest);

    fs::remove_file(&manifest).unwrap();
    fs::write(fixture.path(&digest, "a.txt"), "eno").unwrap();
    assert_eq!(
        fixture.damage(&digest),
        " has neither a manifest nor the contents of its name"
    );
}

#[test]
fn verify_finds_rot_that_no_stat_shows() {
    let fixture = Fixture::new();
    let digest = fixture.commit(FILES);
    let path = fixture.path(&digest, "a.txt");
    fs::write(&path, "eno").unwrap();
    // A manifest that believes the rotten file, as if the disk had changed it behind our back.
    let root = fixture.store.home.artifact_dir(&digest);
    let mut manifest = Manifest::read(&root, &digest).unwrap();
    let stat = stat(&path).unwrap();
    let known = manifest
        .files
        .iter_mut()
        .find(|known| known.entry.path == "a.txt")
        .unwrap();
    (known.mtime_ns, known.ctime_ns, known.inode) = (stat.mtime_ns, stat.ctime_ns, stat.inode);
    manifest
        .files
        .iter_mut()
        .for_each(|known| known.settled = true);
    manifest.write(&root, false).unwrap();
    fixture.assert_whole(&digest);
    match fixture.store.verify(&digest).unwrap() {
        Condition::Damaged { path: found, what } => {
            assert_eq!((found, what.as_str()), (path, "has other contents"));
        }
        other => panic!("{other:?}"),
    }
    // From then on it is no hit, until it has been made anew.
    let found = fixture.store.condition(&digest).unwrap();
    assert!(matches!(found, Condition::Damaged { .. }), "{found:?}");
    assert_eq!(fixture.commit(FILES), digest);
    fixture.assert_whole(&digest);
}

#[test]
fn nothing_behind_a_link_is_committed_or_changed() {
    let fixture = Fixture::new();
    let elsewhere = fixture.folder.path().join("elsewhere");
    let inner = elsewhere.join("out/inner");
    fs::create_dir_all(&inner).unwrap();
    fs::set_permissions(&inner, Permissions::from_mode(0o555)).unwrap();
    let attempt = fixture.store.home.work().below("attempt");
    attempt.parent().create_folder().unwrap();
    symlink(&elsewhere, &*attempt).unwrap();
    let error = fixture.store.commit(&attempt.below("out")).unwrap_err();
    assert!(matches!(error, Error::LinkInHome { .. }), "{error}");
    assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o555);
}

#[test]
fn what_an_artifact_cannot_hold_is_refused_by_name_and_left_alone() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::net::UnixListener};
    let fixture = Fixture::new();
    let error = |out: &Place| {
        let error = fixture.store.commit(out).unwrap_err().to_string();
        assert!(out.join("a.txt").exists());
        error.replace(&*out.to_string_lossy(), "OUT")
    };
    let linked = fixture.out(FILES);
    symlink("a.txt", linked.join("link")).unwrap();
    assert_eq!(
        error(&linked),
        "`OUT/link` is a symbolic link, which an artifact cannot hold"
    );
    let odd = fixture.out(FILES);
    let _socket = UnixListener::bind(odd.join("socket")).unwrap();
    assert_eq!(
        error(&odd),
        "`OUT/socket` is a socket, which an artifact cannot hold"
    );
    let unnamed = fixture.out(FILES);
    if fs::write(unnamed.join(OsStr::from_bytes(b"\xff")), "").is_ok() {
        assert_eq!(error(&unnamed), "the name of `OUT/\u{fffd}` is not UTF-8");
    }
    assert_eq!(fixture.store.list().unwrap(), []);
    let missing = fixture.store.home.work().below("nothing");
    assert!(fixture.store.commit(&missing).is_err());
    let file = fixture.out(FILES).below("a.txt");
    assert!(fixture.store.commit(&file).is_err());
}

#[test]
fn a_hard_link_is_copied_so_that_its_other_name_cannot_change_the_artifact() {
    let fixture = Fixture::new();
    let out = fixture.out(FILES);
    let users = fixture.folder.path().join("users.txt");
    fs::write(&users, "mine").unwrap();
    fs::hard_link(&users, out.join("mine.txt")).unwrap();
    let digest = fixture.store.commit(&out).unwrap().digest;
    fs::write(&users, "edit").unwrap();
    fixture.assert_whole(&digest);
    assert_eq!(
        fs::read_to_string(fixture.path(&digest, "mine.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn a_read_only_folder_can_be_removed_later_and_an_empty_artifact_can_be_lost() {
    let fixture = Fixture::new();
    let out = fixture.out(FILES);
    fs::set_permissions(out.join("a"), Permissions::from_mode(0o555)).unwrap();
    let digest = fixture.store.commit(&out).unwrap().digest;
    fixture.assert_whole(&digest);
    let mode = fs::metadata(fixture.path(&digest, "a")).unwrap().mode();
    assert_eq!(mode & 0o700, 0o700);

    let empty = fixture.commit(&[]);
    fixture.assert_whole(&empty);
    fs::remove_dir(fixture.store.files(&empty)).unwrap();
    assert_eq!(fixture.damage(&empty), " is missing");
    assert_eq!(fixture.commit(&[]), empty);
    fixture.assert_whole(&empty);
}

#[test]
fn a_failed_commit_leaves_the_work_where_it_was() {
    let fixture = Fixture::new();
    let out = fixture.out(FILES);
    let staging = fixture.store.home.staging();
    staging.parent().create_folder().unwrap();
    fs::write(&staging, "in the way").unwrap();
    let error = fixture.store.commit(&out).unwrap_err();
    assert!(error.to_string().contains("staging"), "{error}");
    assert!(out.join("a/b.txt").exists());
    fs::remove_file(&staging).unwrap();
    let digest = fixture.store.commit(&out).unwrap().digest;
    fixture.assert_whole(&digest);
}

#[test]
fn a_removed_artifact_is_missing_and_removing_it_again_is_fine() {
    let fixture = Fixture::new();
    let digest = fixture.commit(FILES);
    fixture.store.remove(&digest).unwrap();
    fixture.store.remove(&digest).unwrap();
    assert_eq!(
        fixture.store.condition(&digest).unwrap(),
        Condition::Missing
    );
    assert_eq!(fixture.leftovers(), [] as [Place; 0]);
}
