//! A corpus of many files in parts: the same documents, and a file more costs a part.

use std::path::PathBuf;

use tinylm_pipeline::{parts::Digest, testing::PartsTest};

use super::*;

/// Files of dialogues, by their names.
struct Files {
    dir: TempDir,
    test: PartsTest,
}

impl Files {
    fn new(n: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let test = PartsTest::new(dir.path(), PARTS);
        let this = Self { dir, test };
        (0..n).for_each(|n| this.write(n, 20 + n % 7));
        this
    }

    fn path(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("in/talk-{n:02}.jsonl"))
    }

    /// A file of so many dialogues, the last row of which is none.
    fn write(&self, n: usize, n_rows: usize) {
        let rows = (0..n_rows).map(|row| {
            format!(r#"{{"prompt": "question {row} of {n}", "response": "answer {row}"}}"#)
        });
        let rows: Vec<String> = rows.chain(["{".to_owned()]).collect();
        fs::write(self.path(n), rows.join("\n")).unwrap();
    }

    fn conduct(&mut self, settings: &str) -> Result<PathBuf, StageError> {
        let artifact = self.test.artifact(&self.dir.path().join("in"));
        self.test.inputs = vec![("sources".to_owned(), artifact)];
        let (folder, _) = self.test.conduct::<Normalize>(settings)?;
        Ok(folder)
    }
}

/// All that is written of each document.
fn rows(folder: &Path) -> Vec<String> {
    let documents = Documents::open(&[folder]).unwrap();
    let read = |group: &crate::shared::documents::RowGroup| {
        let rows = group.read().unwrap();
        rows.iter()
            .map(|row| {
                format!(
                    "{:?} {:?} {} {}",
                    row.id,
                    row.group,
                    row.source,
                    said(row.contents)
                )
            })
            .collect::<Vec<_>>()
    };
    documents.row_groups().iter().flat_map(read).collect()
}

fn lines_of(folder: &Path, word: &str) -> String {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(word)
        })
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn documents_and_counts_are_the_same_in_any_number_of_parts() {
    let mut files = Files::new(12);
    let many = files.conduct("{partition: 1}").unwrap();
    assert_eq!(files.test.made().len(), 12);
    let some = files.conduct("{partition: 3KB}").unwrap();
    assert!((2..12).contains(&files.test.made().len()));
    let one = files.conduct("{partition: 1TB}").unwrap();
    assert_eq!(files.test.made().len(), 1);
    assert_eq!(rows(&one).len(), 271);
    for other in [&many, &some] {
        assert!(rows(other) == rows(&one));
        for word in ["rejected", "stats"] {
            assert_eq!(lines_of(other, word), lines_of(&one, word));
        }
    }
}

#[test]
fn only_the_parts_of_files_that_changed_are_made() {
    let mut files = Files::new(12);
    let first = files.conduct("{partition: 1}").unwrap();
    files.test.made();
    files.write(12, 9);
    let appended = files.conduct("{partition: 1}").unwrap();
    assert_eq!(files.test.made(), ["part-00012"]);
    assert!(rows(&appended).starts_with(&rows(&first)));
    files.write(5, 3);
    files.conduct("{partition: 1}").unwrap();
    assert_eq!(files.test.made(), ["part-00005"]);
    fs::remove_file(files.path(0)).unwrap();
    let now = files.conduct("{partition: 1}").unwrap();
    assert_eq!(files.test.made(), [""; 0]);
    // From scratch, and so to the bit.
    let digest = |folder: &Path| -> Digest { files.test.artifact(folder) };
    let scratch = {
        let dir = tempfile::tempdir().unwrap();
        let test = PartsTest::new(dir.path(), PARTS);
        let artifact = test.artifact(&files.dir.path().join("in"));
        let test = test.input("sources", artifact);
        let (folder, _) = test.conduct::<Normalize>("{partition: 1}").unwrap();
        digest(&folder)
    };
    assert_eq!(digest(&now), scratch);
}

#[test]
fn too_much_that_is_rejected_fails_the_whole_and_no_part() {
    let mut files = Files::new(3);
    fs::write(files.path(3), "{\n{\n{\n{\n").unwrap();
    let settings = "{partition: 1, format: pairs, rejects_max: 0.05}";
    let error = files.conduct(settings).unwrap_err();
    assert_eq!(error.message, "7 of 70 rows were rejected");
    assert_eq!(files.test.made().len(), 4);
    files.conduct(&settings.replace("0.05", "0.2")).unwrap();
    assert_eq!(files.test.made(), [""; 0]);
}

#[test]
fn nothing_is_chosen_that_another_file_would_change() {
    let mut files = Files::new(1);
    for counted in ["max_documents", "max_rows"] {
        let error = files
            .conduct(&format!("{{partition: 1, {counted}: 3}}"))
            .unwrap_err();
        assert!(error.to_string().contains(counted), "{error}");
    }
    fs::remove_file(files.path(0)).unwrap();
    let chat = "12.03.24, 10:00 - Ann: hello\n12.03.24, 10:01 - Bob: hello\n";
    fs::write(files.dir.path().join("in/chat.txt"), chat).unwrap();
    let error = files.conduct("{partition: 1}").unwrap_err();
    assert_eq!(error.help.unwrap(), "name the person: `assistant: NAME`");
    let named = files.conduct("{partition: 1, assistant: Bob}").unwrap();
    assert_eq!(rows(&named).len(), 1);
}
