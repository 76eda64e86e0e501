//! Downloads of what is on this machine or written inline.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tinylm_pipeline::testing::{Outcome, StageTest};

use super::*;

fn files(folder: &Path) -> Vec<(String, String)> {
    let files = crate::shared::files::files_below(folder).unwrap();
    files
        .into_iter()
        .map(|(name, path)| {
            (
                name,
                String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned(),
            )
        })
        .collect()
}

fn local(dir: &TempDir, path: &Path, settings: &str) -> Result<Outcome, StageError> {
    let test = StageTest::new(dir.path()).local_file("path", path);
    test.run::<Download>(&format!("path: x\n{settings}"))
}

fn file(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        // Set by hand: the crate would refuse a path that leaves the folder.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn inline_rows_become_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let test = StageTest::new(dir.path());
    let outcome = test
        .run::<Download>("rows: [hello, {prompt: a, response: b}]")
        .unwrap();
    let wanted = "{\"text\":\"hello\"}\n{\"prompt\":\"a\",\"response\":\"b\"}\n";
    assert_eq!(
        files(&outcome.out),
        [("rows.jsonl".to_owned(), wanted.to_owned())]
    );
}

#[test]
fn a_local_file_is_copied_and_the_original_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.txt", b"to be");
    let outcome = local(&dir, &path, "").unwrap();
    assert_eq!(
        files(&outcome.out),
        [("a.txt".to_owned(), "to be".to_owned())]
    );
    assert_eq!(fs::read(&path).unwrap(), b"to be");
    assert_eq!(outcome.metrics.get("bytes"), Some(5.0));
}

#[test]
fn a_file_that_changed_since_it_was_hashed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.txt", b"to be");
    let test = StageTest::new(dir.path()).local_file("path", &path);
    fs::write(&path, "or not").unwrap();
    let error = test.run::<Download>("path: x").unwrap_err();
    assert!(
        error.message.contains("changed while it was read"),
        "{error}"
    );
    assert_eq!(files(&dir.path().join("out-download")), []);
}

#[test]
fn exactly_one_source_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let test = StageTest::new(dir.path());
    for settings in ["{}", "{url: 'http://x', rows: [a]}"] {
        let error = test.run::<Download>(settings).unwrap_err();
        assert!(error.message.contains("exactly one"), "{error}");
    }
    let error = test.run::<Download>("hub: ../x").unwrap_err();
    assert!(error.message.contains("no name of a repository"), "{error}");
    let error = test
        .run::<Download>("{url: 'http://x', sha256: abc}")
        .unwrap_err();
    assert!(error.message.contains("64"), "{error}");
}

/// `{}` and a line's end.
const BZIP2: &[u8] = b"BZh91AY&SYW\xc8\xde\x96\x00\x00\x00\xc0\x80\x00\x10\x00\x0a \x00!\x98\x19\x84aw$S\x85\x09\x05|\x8d\xe9`";
const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x02{}\x0a\x00\x00c\xa1\x8a\xe0\xb5\x03i:\x00\x01\x1b\x03\x0b/\xb9\x10\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";

#[test]
fn packed_files_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, wanted) in [
        ("a.jsonl.gz", gzip(b"{}\n"), "a.jsonl"),
        (
            "a.txt.zst",
            zstd::encode_all(&b"{}\n"[..], 1).unwrap(),
            "a.txt",
        ),
        ("a.txt.bz2", BZIP2.to_vec(), "a.txt"),
        ("a.csv.xz", XZ.to_vec(), "a.csv"),
        (
            "a.zip",
            zip(&[("in/b.txt", b"{}\n"), ("__MACOSX/x", b"")]),
            "in/b.txt",
        ),
        ("a.tar.gz", gzip(&tar(&[("in/c.txt", b"{}\n")])), "in/c.txt"),
        ("a.tgz", gzip(&tar(&[("./d.txt", b"{}\n")])), "d.txt"),
    ] {
        let path = file(&dir, name, &bytes);
        let outcome = local(&dir, &path, "").unwrap();
        assert_eq!(
            files(&outcome.out),
            [(wanted.to_owned(), "{}\n".to_owned())],
            "{name}"
        );
        let outcome = local(&dir, &path, "open: false").unwrap();
        assert_eq!(files(&outcome.out)[0].0, name);
    }
}

#[test]
fn archives_in_an_archive_are_opened_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let inner = zip(&[("deep.txt", b"x")]);
    let path = file(
        &dir,
        "a.zip",
        &zip(&[("train.zip", &inner), ("b.txt", b"y")]),
    );
    let outcome = local(&dir, &path, "").unwrap();
    let names: Vec<String> = files(&outcome.out)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["b.txt", "deep.txt"]);

    let mut nested = inner;
    for _ in 0..4 {
        nested = zip(&[("again.zip", &nested)]);
    }
    let path = file(&dir, "b.zip", &nested);
    assert!(local(&dir, &path, "").is_err());
}

#[test]
fn files_of_one_name_from_two_archives_are_both_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (train, test) = (zip(&[("a.txt", b"1")]), zip(&[("a.txt", b"2")]));
    let both = zip(&[("train.zip", &train), ("test.zip", &test)]);
    let outcome = local(&dir, &file(&dir, "all.zip", &both), "").unwrap();
    let found = files(&outcome.out);
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(found, [("a.txt", "1"), ("test/a.txt", "2")]);

    let often = ["1", "2", "3", "4"].map(|text| ("a.txt", text.as_bytes()));
    let twice = tar(&often);
    let error = local(&dir, &file(&dir, "twice.tar", &twice), "").unwrap_err();
    assert!(error.message.contains("`a.txt` is there twice"), "{error}");
}

#[test]
fn a_zip_that_lists_a_name_twice_is_refused_and_not_read_in_part() {
    let dir = tempfile::tempdir().unwrap();
    // The writer refuses a name that it knows, so another one is made the same afterwards.
    let mut bytes = zip(&[("a.txt", b"1"), ("b.txt", b"2")]);
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b"b.txt" {
            bytes[at] = b'a';
        }
    }
    let error = local(&dir, &file(&dir, "a.zip", &bytes), "").unwrap_err();
    assert!(error.message.contains("lists a file twice"), "{error}");
}

#[test]
fn a_long_zip_that_lists_a_name_twice_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..66_000).map(|n| format!("{n:05}.txt")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b""[..])).collect();
    let bytes = zip(&entries);
    let text = memchr::memmem::find_iter(&bytes, "65999.txt").collect::<Vec<usize>>();
    let mut twice = bytes.clone();
    for at in text {
        twice[at..at + 5].copy_from_slice(b"00000");
    }
    let error = local(&dir, &file(&dir, "a.zip", &twice), "").unwrap_err();
    assert!(error.message.contains("lists a file twice"), "{error}");
}

#[test]
fn a_file_in_the_place_of_a_folder_or_beside_its_packed_self_is_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let packed = gzip(b"2");
    let entries: [(&str, &[u8]); 4] = [
        ("a.txt", b"1"),
        ("a.txt.gz", &packed),
        ("b", b"3"),
        ("b/c.txt", b"4"),
    ];
    let outcome = local(&dir, &file(&dir, "all.tar", &tar(&entries)), "").unwrap();
    let found = files(&outcome.out);
    let found: Vec<String> = found
        .iter()
        .map(|(name, text)| format!("{name} {text}"))
        .collect();
    assert_eq!(
        found,
        ["a.txt 1", "a.txt.gz/a.txt 2", "all/b/c.txt 4", "b 3"]
    );

    let test = StageTest::new(dir.path())
        .local_file("path", &file(&dir, "a.zip", &zip(&[("b.txt", b"1")])))
        .local_file("path", &file(&dir, "b.txt", b"2"));
    let error = test.run::<Download>("path: x").unwrap_err();
    assert!(error.message.contains("`b.txt` comes twice"), "{error}");
}

#[test]
fn a_tar_whose_headers_are_a_bomb_is_refused_before_they_are_held() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::XHeader,
    ];
    for (kind, n_headers) in kinds.into_iter().flat_map(|kind| [(kind, 1), (kind, 40)]) {
        let mut archive = tar::Builder::new(Vec::new());
        let remarks = vec![b'n'; (64 << 20) / n_headers];
        for _ in 0..n_headers {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("././@LongLink").unwrap();
            header.set_size(remarks.len() as u64);
            header.set_cksum();
            archive.append(&header, &remarks[..]).unwrap();
        }
        drop(remarks);
        let bytes = gzip(&archive.into_inner().unwrap());
        let error = local(&dir, &file(&dir, "a.tar.gz", &bytes), "").unwrap_err();
        assert!(
            error.message.contains("headers of an entry"),
            "{kind:?}: {error}"
        );
        assert_eq!(files(&dir.path().join("out-download")).len(), 0);
    }
}

#[test]
fn an_archive_of_ever_more_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // One that is passed over is counted too, else such an archive would be read for ever.
    let entries = tar(&[("in/a.DS_Store", b"")])[..512].repeat(1000);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..1001 {
        packed.write_all(&entries).unwrap();
    }
    let packed = packed.finish().unwrap();
    let error = local(&dir, &file(&dir, "a.tar.gz", &packed), "").unwrap_err();
    assert!(error.message.contains("more than 1000000 files"), "{error}");
}

#[test]
fn no_entry_leaves_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "../evil.txt",
        "/evil.txt",
        "a/../../evil.txt",
        "a/../..",
        "C:\\evil.txt",
        "C:/evil.txt",
    ] {
        for (archive, bytes) in [
            ("a.zip", zip(&[(name, b"x")])),
            ("a.tar", tar(&[(name, b"x")])),
        ] {
            let path = file(&dir, archive, &bytes);
            let error = local(&dir, &path, "").unwrap_err();
            assert!(
                error.message.contains("leads out of its folder"),
                "{name}: {error}"
            );
            assert!(error.is_final);
        }
    }
}

#[test]
fn an_odd_name_that_stays_in_the_folder_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    for (name, wanted) in [
        ("10:00.txt", "10:00.txt"),
        ("logs/a:b.txt", "logs/a:b.txt"),
        ("./a//b.txt", "a/b.txt"),
        ("...txt", "...txt"),
    ] {
        for (archive, bytes) in [
            ("a.zip", zip(&[(name, b"x")])),
            ("a.tar", tar(&[(name, b"x")])),
        ] {
            let path = file(&dir, archive, &bytes);
            let outcome = local(&dir, &path, "").unwrap();
            assert_eq!(files(&outcome.out)[0].0, wanted, "{archive}");
        }
    }
}

/// GitHub's archives, and those of `git archive`, open with an entry that holds the commit.
#[test]
fn a_header_for_a_whole_archive_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    let comment = b"52 comment=0123456789abcdef0123456789abcdef01234567\n";
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_path("pax_global_header").unwrap();
    header.set_size(comment.len() as u64);
    header.set_cksum();
    archive.append(&header, &comment[..]).unwrap();
    let mut bytes = archive.into_inner().unwrap();
    bytes.truncate(1024);
    bytes.extend(tar(&[("talk-main/a.txt", b"x")]));
    let path = file(&dir, "main.tar.gz", &gzip(&bytes));
    let outcome = local(&dir, &path, "").unwrap();
    let wanted = ("talk-main/a.txt".to_owned(), "x".to_owned());
    assert_eq!(files(&outcome.out), [wanted]);
}

#[test]
fn a_bomb_is_refused_by_growth_and_no_setting_is_blamed() {
    use std::io::Read;

    let dir = tempfile::tempdir().unwrap();
    let zeros = std::io::repeat(0).take(257 << 20);
    let path = file(&dir, "a.txt.zst", &zstd::encode_all(zeros, 1).unwrap());
    let error = local(&dir, &path, "").unwrap_err();
    insta::assert_snapshot!(format!("{error}: {}", error.help.as_deref().unwrap_or_default()), @"`a.txt.zst` grows to more than 500 times its size: if it is no bomb, open it yourself and name the folder with `path`");
    assert!(error.is_final);
}

#[test]
fn a_bomb_is_refused_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.txt.gz", &gzip(&vec![b'x'; 1 << 20]));
    let error = local(&dir, &path, "opened_bytes_max: 100000").unwrap_err();
    assert!(error.message.contains("grows past 100000 bytes"), "{error}");
    assert!(error.help.unwrap().contains("raise `opened_bytes_max`"));
}

#[test]
fn a_file_cut_short_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    // Noise, so that the compressed file is long enough to be cut in its middle.
    let noise: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec())
        .collect();
    let whole = gzip(&noise);
    for (name, bytes) in [
        ("a.txt.gz", whole[..whole.len() / 2].to_vec()),
        ("a.zip", zip(&[("b", b"x")])[..20].to_vec()),
        ("a.tar.gz", b"not gzip".to_vec()),
    ] {
        let path = file(&dir, name, &bytes);
        let error = local(&dir, &path, "").unwrap_err();
        assert!(error.message.contains(name), "{error}");
    }
}

#[test]
fn samples_are_cut_where_rows_can_be_counted() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "{}\n".repeat(10);
    let csv = "a,b\n1,\"x\ny\"\n2,z\n3,z\n";
    for (name, bytes, wanted) in [
        ("a.jsonl", rows.as_bytes().to_vec(), "{}\n{}\n"),
        ("a.csv", csv.into(), "a,b\n1,\"x\ny\"\n2,z\n"),
        ("a.jsonl.gz", gzip(rows.as_bytes()), "{}\n{}\n"),
        ("a.txt", b"one\ntwo\nthree\n".to_vec(), "one\ntwo\nthree\n"),
    ] {
        let path = file(&dir, name, &bytes);
        let outcome = local(&dir, &path, "max_samples: 2").unwrap();
        assert_eq!(files(&outcome.out)[0].1, wanted, "{name}");
    }
}

/// A Parquet file of so many rows of one number.
fn parquet(n_rows: i32) -> Vec<u8> {
    use std::sync::Arc;

    use arrow_array::{Int32Array, RecordBatch};

    let numbers = Arc::new(Int32Array::from_iter_values(0..n_rows));
    let batch = RecordBatch::try_from_iter([("n", numbers as _)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn files_that_samples_do_not_cut_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = |name: &str, bytes: &[u8]| {
        let path = file(&dir, name, bytes);
        let outcome = local(&dir, &path, "max_samples: 2").unwrap();
        let told = outcome.events.iter().filter_map(|event| match event {
            tinylm_pipeline::Event::Info { message } => Some(message.clone()),
            _ => None,
        });
        told.collect::<Vec<String>>().join("\n")
    };
    assert_eq!(told("a.jsonl", b"{}\n{}\n{}\n"), "");
    assert_eq!(told("two.parquet", &parquet(2)), "");
    insta::assert_snapshot!(told("a.parquet", &parquet(3)), @"`max_samples` does not cut Parquet files, which are taken whole: 3 rows are taken");
    insta::assert_snapshot!(told("a.txt", b"x"), @"`max_samples` does not cut 1 of the files: their rows cannot be counted here");
}

#[test]
fn a_stop_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.txt.gz", &gzip(b"x"));
    let test = StageTest::new(dir.path()).local_file("path", &path);
    let flag = std::sync::atomic::AtomicBool::new(true);
    let error = test
        .run_watched::<Download>("path: x", "{}", &flag)
        .unwrap_err();
    assert!(error.cancelled);
}
