//! Data files with something wrong in them: rows are rejected or the file is named in an error.

use std::{fs, path::Path, process::Command};

use crate::attack::{
    Clock, Dice, artifact, assert_told, damaged, files_below, project, run, tinylm,
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
    for (name, bytes) in sound.clone() {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let line = "tar cf a.tar a.jsonl a.txt a.txt && tar czf a.tar.gz a.jsonl a.csv && gzip -k a.csv \
                && ln -s /etc/passwd link && tar cf link.tar link a.txt \
                && head -c 100000000 /dev/zero | gzip > bomb.txt.gz";
    let made = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .status();
    assert!(made.unwrap().success());
    for name in ["a.tar", "a.tar.gz", "a.csv.gz", "link.tar"] {
        sound.push((name.to_owned(), fs::read(folder.join(name)).unwrap()));
    }
    // Documents are Parquet.
    run(folder, &["--until", "normalize"], "the experiment itself");
    for path in files_below(&artifact(folder, "normalize")) {
        if path.extension().is_some_and(|ending| ending == "parquet") {
            sound.push(("a.parquet".to_owned(), fs::read(path).unwrap()));
        }
    }
    sound.push(("a.zip".to_owned(), zip("a.txt", TEXT)));
    sound
}

/// One file in a zip, as it is.
fn zip(name: &str, bytes: &[u8]) -> Vec<u8> {
    let short = |n: usize| (n as u16).to_le_bytes().to_vec();
    let long = |n: usize| (n as u32).to_le_bytes().to_vec();
    // The checksum is left wrong: damage is what this is for.
    let head = [
        vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        long(bytes.len()),
        long(bytes.len()),
        short(name.len()),
        short(0),
    ]
    .concat();
    let local = [b"PK\x03\x04", &*head, name.as_bytes(), bytes].concat();
    let central = [b"PK\x01\x02\x14\0", &*head, &[0; 14], name.as_bytes()].concat();
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec(),
        long(central.len()),
        long(local.len()),
        short(0),
    ];
    [local, central, end.concat()].concat()
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
