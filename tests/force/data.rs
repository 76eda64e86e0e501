//! Data files with something wrong in them: rows are rejected or the file is named in an error.

use std::{fs, path::Path};

use crate::{
    archives,
    attack::{Clock, Dice, artifact, assert_told, damaged, files_below, project, run, tinylm},
};

const ODD: [&[u8]; 14] = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\r",
    b"\n\n",
    b"[[[[[[[[[[[[",
    b"{\"text\":",
    b"1e999",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
];

const JSONL: &[u8] = br#"{"text": "one two three"}
{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
{"text": "four five six"}
"#;
const CSV: &[u8] = b"prompt,response\n\"a, b\",\"c \"\"d\"\"\"\ne,f\n";
const JSON: &[u8] = br#"[{"text": "one"}, {"text": "two"}]"#;
const TEXT: &[u8] = b"To be, or not to be.\n\nThat is the question.\n";

/// Sound files of every format, by their names.
fn sound(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut sound: Vec<(String, Vec<u8>)> = [
        ("a.jsonl", JSONL),
        ("a.csv", CSV),
        ("a.json", JSON),
        ("a.txt", TEXT),
        ("a.tsv", b"a\tb\nc\td\n".as_slice()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
    .into();
    sound.extend(archives::sound("a.txt", TEXT));
    sound.extend(archives::sound("a.csv", CSV));
    // Documents are Parquet.
    run(folder, &["--until", "normalize"], "the experiment itself");
    for path in files_below(&artifact(folder, "normalize")) {
        if path.extension().is_some_and(|ending| ending == "parquet") {
            sound.push(("a.parquet".to_owned(), fs::read(path).unwrap()));
        }
    }
    sound
}

const READ: &str = "
stages:
  download: { kind: download, with: { path: broken } }
  normalize: { kind: normalize, inputs: [download] }
";

#[test]
fn a_broken_data_file_is_rejected_or_named() {
    let project = project();
    let sound = sound(project.path());
    assert!(sound.iter().any(|(name, _)| name == "a.parquet"));
    fs::write(project.path().join("read.yaml"), READ).unwrap();
    let (mut dice, clock) = (Dice::new("data"), Clock::start());
    let (mut n_attacks, mut n_read) = (0, 0);
    while clock.goes_on() {
        let (name, bytes) = dice.pick::<(String, Vec<u8>)>(&sound).clone();
        let broken = damaged(&mut dice, &bytes, &ODD);
        // Packed behind the damage, so that its checksums say nothing.
        let (name, broken) = match dice.below(4) {
            0 => (format!("{name}.gz"), archives::gzip(&broken)),
            _ => (name, broken),
        };
        let folder = project.path().join("broken");
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(&name), &broken).unwrap();
        let output = tinylm(project.path(), &["run", "read.yaml"]);
        if output.status.code() == Some(101) || !matches!(output.status.code(), Some(0..=2)) {
            fs::write(std::env::temp_dir().join(&name), &broken).unwrap();
        }
        assert_told(
            &output,
            &format!("a broken {name}, kept in the folder for temporary files"),
        );
        n_attacks += 1;
        n_read += usize::from(output.status.success());
    }
    println!("data: {n_attacks} files, {n_read} of them read");
}
