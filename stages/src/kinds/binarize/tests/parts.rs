//! Shards in parts: one stream of tokens, whatever the files.

use tinylm_model::shards::Split;
use tinylm_pipeline::testing::PartsTest;

use super::*;

/// Several folders of documents, and the tokenizer of all.
struct Parts {
    dir: TempDir,
    test: PartsTest,
}

impl Parts {
    fn new(n_folders: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let mut all = Corpus::new();
        (0..n_folders).for_each(|n| fill(&mut all, n));
        all.write(&dir.path().join("documents"));
        train_tokenizer(dir.path(), SMALL);
        let test = PartsTest::new(dir.path(), PARTS);
        Self { dir, test }
    }

    /// Takes these folders as one artifact of as many files.
    fn conduct(
        &mut self,
        folders: &[usize],
        settings: &str,
    ) -> Result<std::path::PathBuf, StageError> {
        let documents = self.dir.path().join("in");
        fs::remove_dir_all(&documents).ok();
        fs::create_dir(&documents).unwrap();
        for (idx, n) in folders.iter().enumerate() {
            let mut corpus = Corpus::new();
            fill(&mut corpus, *n);
            let folder = self.dir.path().join(format!("documents-{n}"));
            fs::remove_dir_all(&folder).ok();
            corpus.write(&folder);
            let from = folder.join("documents-00000.parquet");
            fs::rename(from, documents.join(format!("documents-{idx:05}.parquet"))).unwrap();
        }
        let (documents, tokenizer) = (
            self.test.artifact(&documents),
            self.test.artifact(&self.dir.path().join("out-tokenizer")),
        );
        self.test.inputs = vec![
            ("documents".to_owned(), documents),
            ("tokenizer".to_owned(), tokenizer),
        ];
        Ok(self.test.conduct::<Binarize>(settings)?.0)
    }

    fn whole(&self, settings: &str) -> std::path::PathBuf {
        let test = StageTest::new(self.dir.path())
            .input("documents", &self.dir.path().join("in"))
            .input("tokenizer", &self.dir.path().join("out-tokenizer"));
        test.run::<Binarize>(settings).unwrap().out
    }
}

fn fill(corpus: &mut Corpus, n: usize) {
    for row in 0..30 + n {
        let (question, answer) = (format!("what is {row} of {n}"), format!("it is {row}"));
        corpus.dialogue(&[
            (Role::User, question.as_str()),
            (Role::Assistant, answer.as_str()),
        ]);
        if row % 5 == 0 {
            corpus.text(&format!("a text, {row} of {n}"));
        }
    }
}

/// All that training and evaluation read of a split.
fn stream(folder: &Path, split: &str) -> Vec<(Vec<u16>, Vec<u8>, u32, String)> {
    let shards = Shards::open(folder).unwrap();
    let read: Split = shards.split(split).unwrap();
    let of_document = |document: &tinylm_model::shards::Document| {
        let tokens = read.tokens(document);
        let roles =
            (0..tokens.len()).map(|idx| tokens.role(idx) | u8::from(tokens.is_target(idx)) << 7);
        let source = &shards.index().sources[document.source as usize];
        (
            tokens.ids().collect(),
            roles.collect(),
            document.bytes,
            source.clone(),
        )
    };
    read.documents().iter().map(of_document).collect()
}

#[test]
fn the_stream_of_tokens_is_the_same_in_any_number_of_parts() {
    let mut parts = Parts::new(6);
    let all: Vec<usize> = (0..6).collect();
    let settings = "{validation: 0.1, test: 0.1, partition: 1}";
    let many = parts.conduct(&all, settings).unwrap();
    assert_eq!(parts.test.made().len(), 6);
    let one = parts
        .conduct(&all, &settings.replace("1}", "1TB}"))
        .unwrap();
    assert_eq!(parts.test.made().len(), 1);
    let whole = parts.whole(&settings.replace(", partition: 1", ""));
    for split in ["train", "validation", "test"] {
        assert!(stream(&many, split) == stream(&whole, split), "{split}");
        assert!(stream(&one, split) == stream(&whole, split), "{split}");
    }
    let stats = |folder: &Path| Shards::open(folder).unwrap().index().stats.clone();
    assert_eq!(stats(&many), stats(&whole));
}

#[test]
fn only_the_parts_of_documents_that_changed_are_made() {
    let mut parts = Parts::new(4);
    let settings = "{validation: 0.1, partition: 1}";
    parts.conduct(&[0, 1, 2], settings).unwrap();
    parts.test.made();
    parts.conduct(&[0, 1, 2, 3], settings).unwrap();
    assert_eq!(parts.test.made(), ["part-00003"]);
    parts.conduct(&[0, 3, 2], settings).unwrap();
    assert_eq!(parts.test.made(), [""; 0]);
}

#[test]
fn the_end_of_a_text_that_grows_cannot_be_held_back() {
    let mut parts = Parts::new(1);
    let error = parts
        .conduct(&[0], "{validation: {tail: 0.1}, partition: 1}")
        .unwrap_err();
    assert!(
        error.to_string().contains("moves with every file"),
        "{error}"
    );
}
