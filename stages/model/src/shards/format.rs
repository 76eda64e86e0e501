//! The files of a shards folder, as they lie on the disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of the file that describes a shards folder.
pub const INDEX_NAME: &str = "shards.json";
/// The one version of the format so far.
pub const VERSION: u32 = 1;

/// Raw text, and tags outside any turn.
pub const ROLE_TEXT: u8 = 0;
pub const ROLE_SYSTEM: u8 = 1;
pub const ROLE_USER: u8 = 2;
pub const ROLE_ASSISTANT: u8 = 3;
/// The name of each role in metrics and reports, indexed by role.
pub const ROLE_NAMES: [&str; 4] = ["text", "system", "user", "assistant"];
/// Set on a token that is to be predicted.
pub const TARGET: u8 = 0x80;
/// The bits of a `roles` byte that hold the role.
pub const ROLE_MASK: u8 = 0x7f;

/// The contents of `shards.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardsIndex {
    pub version: u32,
    pub vocab_size: usize,
    /// Names that records' `source` counts into.
    pub sources: Vec<String>,
    pub template: Option<String>,
    /// `train`, `validation`, `test`; a split without documents may be left out.
    pub splits: BTreeMap<String, SplitIndex>,
    /// Documents come in pairs: an answer, and a worse one to the same prompt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pairs: bool,
    #[serde(default)]
    pub stats: serde_json::Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SplitIndex {
    pub tokens: u64,
    pub documents: u64,
    /// Tokens whose `TARGET` bit is set.
    pub targets: u64,
    pub files: Vec<ShardFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardFile {
    /// Name of the `.bin` file; its neighbours differ in the extension only.
    pub name: String,
    pub tokens: u64,
    pub documents: u64,
    /// What its records' sources stand for, where it counts its own: places in the list of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<u32>>,
}

/// One record of an `.idx` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRecord {
    /// Offset of the first token in its file, counted in tokens.
    pub start: u64,
    /// Bytes of content, special tokens excluded: what bits per byte divide by.
    pub bytes: u32,
    pub source: u16,
}

impl DocumentRecord {
    /// Length of an encoded record.
    pub const LEN: usize = 14;

    pub fn encode(self) -> [u8; Self::LEN] {
        let mut record = [0; Self::LEN];
        record[..8].copy_from_slice(&self.start.to_le_bytes());
        record[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        record[12..].copy_from_slice(&self.source.to_le_bytes());
        record
    }

    pub fn decode(record: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = record;
        Self {
            start: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            bytes: u32::from_le_bytes([i, j, k, l]),
            source: u16::from_le_bytes([m, n]),
        }
    }
}
