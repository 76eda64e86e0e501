//! Artifacts of other artifacts' files.

use super::*;

fn link(name: &str, from: Digest, file: &str) -> Link {
    let (name, file) = (name.to_owned(), file.to_owned());
    Link { name, from, file }
}

/// Two parts, looked at long after they were made, and what they add up to.
fn gathered(fixture: &Fixture) -> ([Digest; 2], Digest) {
    let parts = [("x.txt", "one"), ("x.txt", "two")].map(|file| fixture.commit(&[file]));
    thread::sleep(Duration::from_millis(2100));
    parts.iter().for_each(|part| fixture.assert_whole(part));
    let links = [
        link("one.txt", parts[0], "x.txt"),
        link("deep/two.txt", parts[1], "x.txt"),
    ];
    let out = fixture.out(&[("own.txt", "three")]);
    let gathered = fixture.store.gather(&out, &links).unwrap();
    (parts, gathered.digest)
}

#[test]
fn what_is_gathered_is_what_a_stage_would_have_written() {
    let fixture = Fixture::new();
    let (_, gathered) = gathered(&fixture);
    let files = [
        ("one.txt", "one"),
        ("deep/two.txt", "two"),
        ("own.txt", "three"),
    ];
    let written = Fixture::new().commit(&files);
    assert_eq!(gathered, written);
    fixture.assert_whole(&gathered);
}

#[test]
fn files_that_artifacts_share_are_neither_copied_nor_read_again() {
    let fixture = Fixture::new();
    let (parts, gathered) = gathered(&fixture);
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let (ours, theirs) = (
        fixture.path(&gathered, "one.txt"),
        fixture.path(&parts[0], "x.txt"),
    );
    assert_eq!(inode(ours), inode(theirs));
    assert_eq!(fixture.store.usage().unwrap().bytes, 3 + 3 + 5);
    // The links have moved no stat that anybody goes by.
    for digest in parts.iter().chain([&gathered]) {
        let root = fixture.store.home.artifact_dir(digest);
        let manifest = Manifest::read(&root, digest).unwrap();
        let names = manifest.files().filter(|file| file.path != "own.txt");
        for file in names {
            let known = manifest.files.iter().find(|known| known.entry == *file);
            let known = known.unwrap();
            let now = stat(&fixture.path(digest, &file.path)).unwrap();
            assert!(known.settled && known.stat() == now, "{}", file.path);
        }
    }
}

#[test]
fn the_whole_outlives_its_parts() {
    let fixture = Fixture::new();
    let (parts, gathered) = gathered(&fixture);
    parts
        .iter()
        .for_each(|part| fixture.store.remove(part).unwrap());
    fixture.assert_whole(&gathered);
    let text = fs::read_to_string(fixture.path(&gathered, "deep/two.txt")).unwrap();
    assert_eq!(text, "two");
}

#[test]
fn nothing_is_gathered_of_a_part_that_is_damaged_or_gone() {
    let fixture = Fixture::new();
    let part = fixture.commit(&[("x.txt", "one")]);
    let gather = |file: &str| {
        let links = [link("one.txt", part, file)];
        fixture.store.gather(&fixture.out(&[]), &links)
    };
    assert!(gather("y.txt").is_err());
    fs::write(fixture.path(&part, "x.txt"), "two").unwrap();
    assert!(gather("x.txt").is_err());
    fs::remove_file(fixture.path(&part, "x.txt")).unwrap();
    symlink("/etc/hosts", fixture.path(&part, "x.txt")).unwrap();
    assert!(gather("x.txt").is_err());
}

#[test]
fn a_file_is_not_read_again_because_others_that_share_it_come_and_go() {
    let fixture = Fixture::new();
    let (parts, first) = gathered(&fixture);
    let links = [link("other.txt", parts[0], "x.txt")];
    let second = fixture.store.gather(&fixture.out(&[]), &links).unwrap();
    fixture.store.remove(&second.digest).unwrap();
    for (digest, file) in [(parts[0], "x.txt"), (first, "one.txt")] {
        fixture.assert_whole(&digest);
        let root = fixture.store.home.artifact_dir(&digest);
        let manifest = Manifest::read(&root, &digest).unwrap();
        let known = manifest.files.iter().find(|known| known.entry.path == file);
        // What is read anew so soon after a change would not be settled.
        assert!(known.unwrap().settled, "{file}");
        assert_eq!(
            known.unwrap().stat(),
            stat(&fixture.path(&digest, file)).unwrap()
        );
    }
    fs::write(fixture.path(&first, "one.txt"), "two").unwrap();
    assert_eq!(fixture.damage(&first), "one.txt has other contents");
    assert_eq!(fixture.damage(&parts[0]), "x.txt has other contents");
}
