//! Shards are read whole, and every damage is named.

use insta::assert_snapshot;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    testing::{text, write},
    *,
};

/// Two files, three documents: `1 2 3 | 4 5 || 6 7 8 9`.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let files = [
        vec![text(&[1, 2, 3]), text(&[4, 5])],
        vec![text(&[6, 7, 8, 9])],
    ];
    write(folder.path(), 10, &[("train", &files)]);
    folder
}

/// The message of opening after `damage`, with the folder's name taken out.
#[track_caller]
fn complaint(damage: impl FnOnce(&Path)) -> String {
    let folder = folder();
    damage(folder.path());
    let opened = Shards::open(folder.path()).and_then(|shards| shards.split("train"));
    let place = format!("{}/", folder.path().display());
    opened.unwrap_err().to_string().replace(&place, "")
}

/// Replaces a word of `shards.json`.
fn claim(folder: &Path, was: &str, now: &str) {
    let path = folder.join("shards.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(was), "{text}");
    fs::write(path, text.replacen(was, now, 1)).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn documents_of_all_files_form_one_stream() {
    let folder = folder();
    let split = Shards::open(folder.path()).unwrap().split("train").unwrap();
    let documents: Vec<Vec<u16>> = split
        .documents()
        .iter()
        .map(|document| split.tokens(document).ids().collect())
        .collect();
    assert_eq!(documents, [vec![1, 2, 3], vec![4, 5], vec![6, 7, 8, 9]]);
    assert_eq!((split.n_tokens(), split.n_targets()), (9, 9));
    let holders: Vec<usize> = (0..9).map(|offset| split.document_at(offset)).collect();
    assert_eq!(holders, [0, 0, 0, 1, 1, 2, 2, 2, 2]);
    assert_eq!(split.stretch(6, 2).ids().collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn every_kind_of_damage_is_named() {
    let complaints = [
        complaint(|f| fs::remove_file(f.join("shards.json")).unwrap()),
        complaint(|f| fs::write(f.join("shards.json"), "{").unwrap()),
        complaint(|f| fs::remove_file(f.join("train-00001.roles")).unwrap()),
        complaint(|f| edit(&f.join("train-00000.bin"), |b| b.truncate(7))),
        complaint(|f| edit(&f.join("train-00001.roles"), |b| b.truncate(3))),
        complaint(|f| edit(&f.join("train-00000.idx"), |b| b.truncate(14))),
        complaint(|f| edit(&f.join("train-00000.idx"), |b| b[0] = 1)),
        complaint(|f| edit(&f.join("train-00000.idx"), |b| b[14] = 0)),
        complaint(|f| edit(&f.join("train-00000.idx"), |b| b[14] = 5)),
        complaint(|f| edit(&f.join("train-00000.idx"), |b| b[26] = 1)),
        complaint(|f| edit(&f.join("train-00001.bin"), |b| b[2] = 10)),
        complaint(|f| edit(&f.join("train-00001.roles"), |b| b[2] = 0x84)),
        complaint(|f| edit(&f.join("train-00001.roles"), |b| b[2] = 0)),
        complaint(|f| claim(f, r#""tokens":5"#, r#""tokens":9223372036854775813"#)),
        complaint(|f| claim(f, "train-00000.bin", "../train-00000.bin")),
        complaint(|f| claim(f, "train-00000.bin", "/etc/passwd")),
    ];
    assert_snapshot!(complaints.join("\n"), @"
    cannot read `shards.json`
    cannot parse `shards.json`
    cannot read `train-00001.roles`
    `train-00000.bin` has 7 bytes and must have 10 (as many as shards.json says)
    `train-00001.roles` has 3 bytes and must have 4 (as many as shards.json says)
    `train-00000.idx` has 14 bytes and must have 28 (as many as shards.json says)
    `train-00000.idx` lists document 0 at token 1, which is not the start of the file
    `train-00000.idx` lists document 1 at token 0, which is not after the one before it
    `train-00000.idx` lists document 1 at token 5, which is past the end of the tokens
    `train-00000.idx` gives document 1 the source 1, and there are 1
    `train-00001.bin` holds id 10 at token 1, and the vocabulary has 10
    `train-00001.roles` holds the unknown role 4 at token 2
    `shards.json` counts 9 targets in `train`, and its files hold 8
    `train-00000.bin` has 10 bytes and must have 18446744073709551615 (as many as shards.json says)
    shards.json names `../train-00000.bin`, which is no file of its folder
    shards.json names `/etc/passwd`, which is no file of its folder
    ");
}

#[test]
fn a_split_without_documents_is_refused_with_a_remedy() {
    let folder = TempDir::new().unwrap();
    let files = [vec![text(&[1, 2])]];
    write(folder.path(), 10, &[("train", &files), ("test", &[vec![]])]);
    let shards = Shards::open(folder.path()).unwrap();
    let complaint = shards.split("test").unwrap_err();
    let other = shards.split("validation").unwrap_err();
    let said = format!("{complaint}\n{}\n{other}", complaint.help());
    assert_snapshot!(said, @"
    the shards have no `test` documents
    set a larger `test` in the `binarize` stage, or give it more documents
    the shards have no `validation` documents
    ");
}

proptest! {
    #[test]
    fn a_record_survives_encoding(start: u64, bytes: u32, source: u16) {
        let record = DocumentRecord { start, bytes, source };
        prop_assert_eq!(DocumentRecord::decode(record.encode()), record);
    }
}
