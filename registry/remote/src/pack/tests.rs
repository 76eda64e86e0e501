//! Laws of packs, and hostile ones.

use std::fs;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A remote with some objects.
fn remote() -> tempfile::TempDir {
    let remote = folder();
    for (name, text) in [
        ("keys/ab/cd", "key"),
        ("blobs/01/23", "blob"),
        ("runs/calm-owl-1a2b", "run"),
    ] {
        let path = remote.path().join("v1").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    remote
}

fn packed(remote: &Path) -> Vec<u8> {
    let mut pack = Vec::new();
    write(
        &mut pack,
        &PackHead::new("calm-owl-1a2b", "talk", true),
        "name: talk\n",
        remote,
    )
    .unwrap();
    pack
}

/// A pack whose second file is made up.
fn forged(name: &str, kind: tar::EntryType, twice: bool) -> Vec<u8> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    let head = serde_json::to_vec(&PackHead::new("calm-owl-1a2b", "talk", true)).unwrap();
    append(&mut tar, Path::new(HEAD), head.len() as u64, &head[..]).unwrap();
    for _ in 0..=usize::from(twice) {
        let mut header = tar::Header::new_gnu();
        // Written by hand: the library would not.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(if kind.is_file() { 3 } else { 0 });
        if !kind.is_file() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(
            &header,
            if kind.is_file() {
                &b"abc"[..]
            } else {
                &b""[..]
            },
        )
        .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn what_is_packed_comes_out_as_it_was_and_the_same_is_the_same_bytes() {
    let (remote, out) = (remote(), folder());
    let pack = packed(remote.path());
    assert_eq!(pack, packed(remote.path()));
    let head = read(&pack[..], out.path()).unwrap();
    assert_eq!(head, PackHead::new("calm-owl-1a2b", "talk", true));
    let names = files_below(out.path(), Path::new("v1")).unwrap();
    assert_eq!(names, files_below(remote.path(), Path::new("v1")).unwrap());
    for name in names {
        let [a, b] = [&remote, &out].map(|folder| fs::read(folder.path().join(&name)).unwrap());
        assert_eq!(a, b, "{}", name.display());
    }
}

#[test]
fn nothing_leaves_the_folder_and_nothing_but_a_remotes_files_goes_in() {
    use tar::EntryType;
    for (name, kind, twice) in [
        ("../v1/keys/ab/cd", EntryType::Regular, false),
        ("v1/../../out", EntryType::Regular, false),
        ("/v1/keys/ab/cd", EntryType::Regular, false),
        ("v1/keys/ab/c.d", EntryType::Regular, false),
        ("v1/a/b/c/d", EntryType::Regular, false),
        ("other/ab", EntryType::Regular, false),
        ("v1/keys/ab/cd", EntryType::Symlink, false),
        ("v1/keys/ab/cd", EntryType::Link, false),
        ("v1/keys/ab/cd", EntryType::Fifo, false),
        ("v1/keys/ab/cd", EntryType::Regular, true),
    ] {
        let around = folder();
        let out = around.path().join("out");
        fs::create_dir(&out).unwrap();
        let error = read(&forged(name, kind, twice)[..], &out).unwrap_err();
        assert!(matches!(error, PackError::NotOne(_)), "{name}: {error}");
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1, "{name}");
    }
    read(
        &forged("v1/keys/ab/cd", EntryType::Regular, false)[..],
        folder().path(),
    )
    .unwrap();
}

#[test]
fn what_is_cut_short_damaged_or_something_else_is_said_to_be_so() {
    let pack = packed(remote().path());
    for cut in [0, 1, 10, pack.len() / 2, pack.len() - 4] {
        let error = read(&pack[..cut], folder().path()).unwrap_err();
        assert!(matches!(error, PackError::NotOne(_)), "{cut}: {error}");
    }
    let error = read(&b"PK\x03\x04 something else"[..], folder().path()).unwrap_err();
    assert!(
        error.to_string().starts_with("it is no pack of a run"),
        "{error}"
    );
}

#[test]
fn a_newer_pack_is_said_to_be_newer() {
    let newer = PackHead {
        tinylm_pack: 9,
        ..PackHead::new("r", "e", true)
    };
    let mut pack = Vec::new();
    write(&mut pack, &newer, "", remote().path()).unwrap();
    let error = read(&pack[..], folder().path()).unwrap_err();
    assert!(matches!(error, PackError::Newer(9)), "{error}");
}
