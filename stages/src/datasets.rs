//! The datasets that are known by name: how large, under what terms, of what shape,
//! and the line that brings each into an experiment.
//!
//! Nothing depends on this list: any other dataset of these shapes works the same. It
//! is what `tinylm datasets` prints.

/// A dataset one may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Dataset {
    pub name: &'static str,
    pub about: &'static str,
    /// As far as it is known; in words, because sources differ.
    pub size: &'static str,
    pub licence: &'static str,
    /// The `format` that it is recognised as.
    pub shape: &'static str,
    /// To be pasted under `stages:`.
    pub line: &'static str,
}

/// Returns under what terms a dataset of the hub stands, as far as it is known.
pub fn licence_of(hub: &str) -> Option<&'static str> {
    let mut known = DATASETS
        .iter()
        .filter(|dataset| dataset.licence != ON_ITS_PAGE);
    let is_meant = |line: &str| {
        let name = line.split("hub: ").nth(1).unwrap_or_default();
        name.split([',', ' ', '}']).next() == Some(hub)
    };
    known
        .find(|dataset| is_meant(dataset.line))
        .map(|dataset| dataset.licence)
}

const ON_ITS_PAGE: &str = "licence on its page";

const DATASETS: [Dataset; 21] = [
    Dataset {
        name: "claude-multiround-30k",
        about: "long dialogues with an assistant",
        size: "197 MB, 32,170 dialogues",
        licence: ON_ITS_PAGE,
        shape: "messages",
        line: "data: { kind: download, with: { hub: dim/norquinal_claude_multiround_chat_30k } }",
    },
    Dataset {
        name: "puffin",
        about: "dialogues with an assistant",
        size: "14 MB, 3,000 dialogues",
        licence: "Apache-2.0",
        shape: "messages",
        line: "data: { kind: download, with: { hub: LDJnr/Puffin } }",
    },
    Dataset {
        name: "customer-support",
        about: "made-up customer support",
        size: "about 100 dialogues",
        licence: ON_ITS_PAGE,
        shape: "messages",
        line: "data: { kind: download, with: { hub: argilla/synthetic-sft-customer-support-multi-turn } }",
    },
    Dataset {
        name: "multiwoz",
        about: "booking of hotels, trains and tables",
        size: "10,000 dialogues",
        licence: "Apache-2.0; gated",
        shape: "dialogstudio",
        line: "data: { kind: download, with: { hub: Salesforce/dialogstudio, files: [\"task_oriented/MULTIWOZ2_2/*\"] } }",
    },
    Dataset {
        name: "tinystories",
        about: "stories in the words of a small child",
        size: "1 GB, 2.1 million stories",
        licence: "CDLA-Sharing-1.0",
        shape: "text",
        line: "data: { kind: download, with: { hub: roneneldan/TinyStories, files: [\"data/*.parquet\"] } }",
    },
    Dataset {
        name: "dailydialog",
        about: "everyday dialogues written by learners of English",
        size: "7 MB, 13,118 dialogues",
        licence: "CC BY-NC-SA 4.0",
        shape: "utterances",
        line: "data: { kind: download, with: { hub: roskoN/dailydialog } }",
    },
    Dataset {
        name: "dailydialog-li2017",
        about: "the same, from its authors' page on the hub",
        size: "7 MB, 13,118 dialogues",
        licence: "CC BY-NC-SA 4.0",
        shape: "utterances",
        line: "data: { kind: download, with: { hub: li2017dailydialog/daily_dialog } }",
    },
    Dataset {
        name: "dailydialog-deeppavlov",
        about: "the same, as DeepPavlov publishes it",
        size: "7 MB, 13,118 dialogues",
        licence: "CC BY-NC-SA 4.0",
        shape: "utterances",
        line: "data: { kind: download, with: { hub: DeepPavlov/daily_dialog } }",
    },
    Dataset {
        name: "dailydialog-zip",
        about: "the same, as the zip of text files that its authors published",
        size: "7 MB, 13,118 dialogues",
        licence: "CC BY-NC-SA 4.0",
        shape: "eou",
        line: "data: { kind: download, with: { path: dailydialog.zip } }",
    },
    Dataset {
        name: "everyday-conversations",
        about: "short made-up dialogues about everyday things",
        size: "2,379 dialogues",
        licence: "Apache-2.0",
        shape: "messages",
        line: "data: { kind: download, with: { hub: HuggingFaceTB/everyday-conversations-llama3.1-2k, files: [\"data/train_sft*\"] } }",
    },
    Dataset {
        name: "tinychat",
        about: "simple made-up conversations",
        size: "745 MB, 1 million conversations",
        licence: ON_ITS_PAGE,
        shape: "inst",
        line: "data: { kind: download, with: { hub: starhopp3r/TinyChat } }",
    },
    Dataset {
        name: "conv-ai-2",
        about: "people and bots about themselves; the hub's convai-challenge/conv_ai_2",
        size: "3,495 dialogues",
        licence: ON_ITS_PAGE,
        shape: "conv-ai-2",
        line: "data: { kind: download, with: { url: \"https://github.com/DeepPavlov/convai/raw/master/2018/data/summer_wild_evaluation_dialogs.json\" } }",
    },
    Dataset {
        name: "conv-ai-3",
        about: "questions that clarify; the hub's convai-challenge/conv_ai_3",
        size: "9,176 rows",
        licence: ON_ITS_PAGE,
        shape: "clariq",
        line: "data: { kind: download, with: { url: \"https://github.com/aliannejadi/ClariQ/raw/master/data/train.tsv\" } }",
    },
    Dataset {
        name: "conv-ai",
        about: "people and bots on a paragraph; the hub's convai-challenge/conv_ai",
        size: "2,778 dialogues",
        licence: ON_ITS_PAGE,
        shape: "conv-ai",
        line: "data: { kind: download, with: { url: \"https://github.com/DeepPavlov/convai/raw/master/2017/data/train_full.json\" } }",
    },
    Dataset {
        name: "general-conversation",
        about: "mixed prompts and responses, in the columns `text` and `response`",
        size: "1.1 MB",
        licence: ON_ITS_PAGE,
        shape: "pairs",
        line: "data: { kind: download, with: { hub: cosmosai471/General_Conversation_Mixed_Dataset } }",
    },
    Dataset {
        name: "simple-dialogs",
        about: "what one says and what the other answers",
        size: "244 kB, 3,725 pairs",
        licence: "no licence stated",
        shape: "pairs",
        line: "data: { kind: download, with: { kaggle: grafstor/simple-dialogs-for-chatbot } }",
    },
    Dataset {
        name: "small-talk",
        about: "small talk, each dialogue written by itself, by a language model; ships with the project",
        size: "385 kB, 2,276 dialogues",
        licence: "MIT",
        shape: "speakers",
        line: "data: { kind: download, with: { path: ../data/smalltalk.txt } }",
    },
    Dataset {
        name: "chit-chat",
        about: "small talk from templates and word lists; ships with the project",
        size: "248 kB, 1,000 dialogues",
        licence: "MIT",
        shape: "messages",
        line: "data: { kind: download, with: { path: ../data/chitchat.jsonl } }",
    },
    Dataset {
        name: "whatsapp",
        about: "a chat of yours, as the app exports it without media; `assistant: NAME` says who is to be learnt",
        size: "yours",
        licence: "yours, and that of those who talk",
        shape: "whatsapp",
        line: "data: { kind: download, with: { path: \"WhatsApp Chat with *.txt\" } }",
    },
    Dataset {
        name: "tiny-shakespeare",
        about: "plays, as one text",
        size: "1.1 MB",
        licence: "public domain",
        shape: "text",
        line: "data: { kind: download, with: { url: \"https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt\" } }",
    },
    Dataset {
        name: "gutenberg",
        about: "a book of Project Gutenberg; cut its licence off with `clean: { gutenberg: true }`",
        size: "some 100 kB a book",
        licence: "public domain in the USA",
        shape: "text",
        line: "data: { kind: download, with: { url: \"https://www.gutenberg.org/cache/epub/11/pg11.txt\" } }",
    },
];

/// Returns every dataset that is known by name.
pub fn datasets() -> &'static [Dataset] {
    &DATASETS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;
    use tinylm_pipeline::{Settings, Stage, kind::typed, settings::with_defaults};

    use super::*;
    use crate::kinds::download::{Download, DownloadSettings};
    use crate::kinds::normalize::shapes::Format;

    #[test]
    fn every_dataset_of_the_five_systems_is_known() {
        let lines: Vec<&str> = datasets().iter().map(|dataset| dataset.line).collect();
        for origin in [
            "dim/norquinal_claude_multiround_chat_30k",
            "LDJnr/Puffin",
            "argilla/synthetic-sft-customer-support-multi-turn",
            "Salesforce/dialogstudio",
            "roneneldan/TinyStories",
            "li2017dailydialog/daily_dialog",
            "roskoN/dailydialog",
            "DeepPavlov/daily_dialog",
            "dailydialog.zip",
            "HuggingFaceTB/everyday-conversations-llama3.1-2k",
            "starhopp3r/TinyChat",
            "convai/raw/master/2018",
            "aliannejadi/ClariQ",
            "convai/raw/master/2017",
            "cosmosai471/General_Conversation_Mixed_Dataset",
            "grafstor/simple-dialogs-for-chatbot",
            "smalltalk.txt",
            "chitchat.jsonl",
            "tinyshakespeare",
            "gutenberg.org",
        ] {
            assert!(lines.iter().any(|line| line.contains(origin)), "{origin}");
        }
    }

    #[test]
    fn every_line_can_be_pasted() {
        let mut names = HashSet::new();
        for dataset in datasets() {
            assert!(names.insert(dataset.name), "{} stands twice", dataset.name);
            let line: Value = serde_yaml::from_str(dataset.line).unwrap();
            let stage = &line["data"];
            assert_eq!(stage["kind"], Download::KIND);
            let settings = with_defaults(&DownloadSettings::list(), &stage["with"]);
            Download::canonical(typed(&settings).unwrap()).unwrap();
            let shape = Value::String(dataset.shape.to_owned());
            serde_json::from_value::<Format>(shape).unwrap();
        }
    }
}
