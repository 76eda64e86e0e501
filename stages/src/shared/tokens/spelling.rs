//! Names of special tokens written in ordinary ids, for texts that hold them.

use std::collections::BTreeMap;

pub(super) struct Spelling {
    pub(super) name: String,
    pub(super) ids: Option<Vec<u32>>,
}

impl Spelling {
    /// That of an id which stands for what is left out.
    pub(super) fn nothing() -> Self {
        let ids = Some(Vec::new());
        Self {
            name: String::new(),
            ids,
        }
    }
}

/// A set of 16-bit ids, one bit each.
pub(super) struct IdSet(pub(super) [u64; 1024]);

impl IdSet {
    pub(super) fn insert(&mut self, id: u32) {
        self.0[id as usize >> 6] |= 1 << (id & 63);
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.0[id as usize >> 6 & 1023] >> (id & 63) & 1 == 1
    }
}

/// Writes names that stand for themselves in ordinary ids.
pub(super) struct Speller<'a> {
    pub(super) ids: &'a BTreeMap<&'a str, u32>,
    pub(super) reserved: &'a IdSet,
    pub(super) unknown_id: Option<u32>,
    pub(super) byte_level: bool,
}

impl Speller<'_> {
    pub(super) fn spell(&self, name: &str) -> Option<Vec<u32>> {
        let mut spelt = Vec::new();
        for c in name.chars() {
            match self.character(c) {
                Some(ids) => spelt.extend(ids),
                None => spelt.push(self.unknown_id?),
            }
        }
        Some(spelt)
    }

    fn character(&self, c: char) -> Option<Vec<u32>> {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        if self.byte_level {
            let bytes = text.bytes().map(|byte| byte_level_char(byte).to_string());
            return bytes.map(|token| self.ordinary(&token)).collect();
        }
        if let Some(id) = self.ordinary(text) {
            return Some(vec![id]);
        }
        let bytes = text.bytes().map(|byte| format!("<0x{byte:02X}>"));
        bytes.map(|token| self.ordinary(&token)).collect()
    }

    fn ordinary(&self, token: &str) -> Option<u32> {
        let id = self.ids.get(token).copied();
        id.filter(|&id| !self.reserved.contains(id))
    }
}

/// Returns the character that stands for a byte in a byte-level vocabulary: itself where
/// it can be seen, else one from 256 upwards, in order.
pub fn byte_level_char(byte: u8) -> char {
    let hidden_before = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => return char::from(byte),
        0..=0x20 => u32::from(byte),
        0x7f..=0xa0 => u32::from(byte) - 0x7f + 0x21,
        0xad => 0x43,
    };
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}
