//! The user's own files in parts.

use std::{fs, path::Path};

use tinylm_pipeline::{LocalFile, StageError, testing::PartsTest};

use super::{Download, PARTS};

/// Files of the user's own, and a home for their parts.
struct Files {
    dir: tempfile::TempDir,
    test: PartsTest,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let test = PartsTest::new(dir.path(), PARTS);
        Self { dir, test }
    }

    fn write(&mut self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        let file = LocalFile {
            setting: "path".to_owned(),
            name: name.to_owned(),
            path,
            bytes: text.len() as u64,
            digest: blake3::hash(text.as_bytes()).to_string(),
        };
        self.test.local_files.retain(|known| known.name != name);
        self.test.local_files.push(file);
        self.test.local_files.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// What the artifact holds, by name.
    fn brought(&self, settings: &str) -> Result<Vec<(String, String)>, StageError> {
        let (folder, _) = self.test.conduct::<Download>(settings)?;
        Ok(contents(&folder))
    }
}

fn contents(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().to_str().unwrap().to_owned();
        (name, fs::read_to_string(entry.path()).unwrap())
    };
    let mut contents: Vec<_> = entries.map(read).collect();
    contents.sort();
    contents
}

fn lines(range: std::ops::Range<usize>) -> String {
    range
        .map(|n| format!("{{\"text\": \"line {n}\"}}\n"))
        .collect()
}

#[test]
fn only_files_that_are_new_are_copied() {
    let mut files = Files::new();
    for name in ["a.txt", "b.txt", "c.txt"] {
        files.write(name, name);
    }
    let settings = "{path: ., partition: 1}";
    assert_eq!(files.brought(settings).unwrap().len(), 3);
    assert_eq!(files.test.made().len(), 3);
    files.write("d.txt", "d");
    files.write("a.txt", "another");
    let brought = files.brought(settings).unwrap();
    assert_eq!(files.test.made(), ["part-00000", "part-00003"]);
    assert_eq!(brought[0], ("a.txt".to_owned(), "another".to_owned()));
    assert_eq!(brought.len(), 4);
}

#[test]
fn a_large_file_is_cut_behind_lines_and_what_comes_to_it_changes_the_last_piece() {
    let mut files = Files::new();
    let settings = "{path: ., partition: 1KB}";
    files.write("talk.jsonl", &lines(0..500));
    files.write("small.jsonl", &lines(0..3));
    let before = files.brought(settings).unwrap();
    assert_eq!(before[0], ("small.jsonl".to_owned(), lines(0..3)));
    let pieces = &before[1..];
    assert!((5..40).contains(&pieces.len()), "{}", pieces.len());
    assert_eq!(pieces[0].0, "talk-00000.jsonl");
    let all: String = pieces.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(all, lines(0..500));
    assert!(
        pieces
            .iter()
            .all(|(_, text)| text.ends_with('\n') && text.len() <= 4_100)
    );

    files.write("talk.jsonl", &lines(0..520));
    let after = files.brought(settings).unwrap();
    let same = after
        .iter()
        .zip(&before)
        .filter(|(after, before)| after == before);
    assert!(same.count() >= before.len() - 1);
    // A line less at the start costs the first piece, though all that is behind it has moved.
    files.write("talk.jsonl", &lines(1..520));
    let texts = |pieces: &[(String, String)]| -> Vec<String> {
        pieces.iter().map(|(_, text)| text.clone()).collect()
    };
    let (moved, after) = (texts(&files.brought(settings).unwrap()), texts(&after));
    let new = moved.iter().filter(|text| !after.contains(text));
    assert!(new.count() <= 2);
}

#[test]
fn two_files_that_would_be_one_are_refused() {
    let mut files = Files::new();
    files.write("talk.jsonl", &lines(0..500));
    files.write("talk-00000.jsonl", "{}\n");
    let error = files.brought("{path: ., partition: 1KB}").unwrap_err();
    assert_eq!(error.message, "two of the files hold a `talk-00000.jsonl`");
}
