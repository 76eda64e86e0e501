//! Small corpora for the tests of stages that read documents.

use std::{fs, path::Path};

use tinylm_pipeline::testing::StageTest;

use crate::kinds::tokenizer::TokenizerStage;
use crate::shared::{
    documents::{Digest, DocumentsWriter, Rows},
    template::Role,
};

/// Documents in memory.
#[derive(Default)]
pub(crate) struct Corpus {
    rows: Vec<Row>,
}

struct Row {
    group: Digest,
    source: &'static str,
    turns: Vec<(Role, String)>,
    text: Option<String>,
}

fn digest(text: &str) -> Digest {
    *blake3::hash(text.as_bytes()).as_bytes()
}

impl Corpus {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn dialogue(&mut self, turns: &[(Role, &str)]) {
        let turns: Vec<(Role, String)> = turns.iter().map(|(r, t)| (*r, (*t).to_owned())).collect();
        self.rows.push(Row {
            group: digest(&format!("{turns:?}")),
            source: "dialogues",
            turns,
            text: None,
        });
    }

    /// A prompt and a reply cut from a longer dialogue.
    pub(crate) fn pair_of_group(&mut self, group: usize, text: &str) {
        self.dialogue(&[(Role::User, text), (Role::Assistant, text)]);
        if let Some(row) = self.rows.last_mut() {
            row.group = digest(&format!("group {group}"));
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.rows.push(Row {
            group: digest(text),
            source: "texts",
            turns: Vec::new(),
            text: Some(text.to_owned()),
        });
    }

    /// Enough different words for any kind of vocabulary.
    pub(crate) fn more_words(&mut self) {
        for n in 0..60 {
            let text = format!(
                "the {n}th sentence names {} things and {} others",
                n * 37,
                n * 91
            );
            self.text(&text);
        }
    }

    pub(crate) fn write(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let mut rows = Rows::default();
        for row in &self.rows {
            let id = digest(&format!("{:?}{:?}", row.turns, row.text));
            match &row.text {
                Some(text) => rows.push_text(id, row.group, row.source, text),
                None => {
                    let turns = row.turns.iter().map(|(role, text)| (*role, text.as_str()));
                    rows.push_dialogue(id, row.group, row.source, turns);
                }
            }
        }
        let mut writer = DocumentsWriter::create(folder);
        for row in rows.iter() {
            writer.push(&row).unwrap();
        }
        writer.finish().unwrap();
    }
}

/// Trains on `dir/documents` into `dir/out-tokenizer`.
pub(crate) fn train_tokenizer(dir: &Path, settings: &str) {
    StageTest::new(dir)
        .input("documents", &dir.join("documents"))
        .run::<TokenizerStage>(settings)
        .unwrap();
}
