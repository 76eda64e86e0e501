//! The settings of `normalize`.

use std::collections::BTreeMap;

use tinylm_pipeline::{choices, settings};

use super::{
    clean::{Bounds, Cleaning},
    columns::Columns,
    shapes::Format,
};
use crate::shared::partition::Partition;

choices! {
    /// What happens to system prompts.
    pub enum SystemPrompts {
        /// They stay as they are.
        Keep = "keep",
        /// `system_prompt` is added to dialogues that have none.
        Add = "add",
        /// They are left out.
        Remove = "remove",
    }
}

choices! {
    /// What becomes of a dialogue of many turns.
    pub enum Pairs {
        /// One document.
        Whole = "whole",
        /// A document for every two neighbouring turns.
        Sliding = "sliding",
        /// A document for every question with its answer.
        Exchanges = "exchanges",
    }
}

settings! {
    /// How rows become documents.
    pub struct NormalizeSettings {
        /// The shape of the rows.
        pub format: Format = Format::Auto,
        /// Columns by hand, where their names are not the usual ones.
        pub columns: Columns = Columns::NONE,
        /// Further names of roles: `{customer: user}`.
        pub roles: BTreeMap<String, String> = BTreeMap::new(),
        /// The person whose turns are the assistant's, in chats of persons; without it, who wrote most.
        pub assistant: Option<String> = None => neutral None,
        /// A silence of so many minutes ends a conversation of a chat, once the assistant has answered.
        #[range(1)]
        pub pause_minutes: u64 = 360 => neutral 360_u64,
        /// Globs of the files to read; without any, all that look like data.
        pub files: Vec<String> = Vec::new(),
        /// The encoding of files that are not UTF-8: `windows-1252`, `latin-1`, `utf-16` and others.
        pub encoding: String = "utf-8".to_owned() => neutral "utf-8".to_owned(),
        /// Whether CSV and TSV files open with names; without it, this is recognised.
        pub header: Option<bool> = None,
        /// What happens to system prompts.
        pub system: SystemPrompts = SystemPrompts::Keep,
        /// The prompt that `system: add` adds.
        pub system_prompt: Option<String> = None,
        /// What becomes of a dialogue of many turns.
        pub pairs: Pairs = Pairs::Whole,
        /// What is changed in contents.
        pub clean: Cleaning = Cleaning::OFF,
        /// What is kept, by length and by look.
        pub bounds: Bounds = Bounds::OFF,
        /// Stop after so many rows of the sources: dialogues, also where a row is a turn.
        #[range(1)]
        pub max_rows: Option<u64> = None => neutral None,
        /// Stop after so many documents: of one dialogue, `pairs` makes several.
        #[range(1)]
        pub max_documents: Option<u64> = None,
        /// The largest share of rows that may be rejected.
        #[range(0.0, 1.0)]
        pub rejects_max: f64 = 0.1,
        /// Files are read in parts of about so many bytes (`4GB`), and a file that comes to the corpus costs its part.
        pub partition: Option<Partition> = None => neutral None,
        /// A row longer than this is rejected and, but in Parquet, never held in memory.
        #[range(1, 1 << 27)]
        pub row_bytes_max: u64 = 16 << 20,
    }
}
