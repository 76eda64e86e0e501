//! A value as data files hold them, borrowed from the line it was read from.
//!
//! Rows of JSON and rows of tables meet here, so that every shape is recognised once.
//! `serde_json::Value` would copy every string and keep the last of two equal keys in
//! silence; here two equal keys are an error, because nobody knows which was meant.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Cell<'a>>),
    Map(Vec<(Cow<'a, str>, Cell<'a>)>),
    /// What no shape can read, and what it is.
    Other(&'static str),
}

/// From here on keys are compared by digest rather than one by one.
const MANY_KEYS: usize = 16;

impl<'a> Cell<'a> {
    /// Returns one JSON value, or what is wrong with it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| format!("not UTF-8 at byte {} of the row", error.valid_up_to()))?;
        serde_json::from_str(text).map_err(|error| format!("not JSON: {}", without_line(&error)))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Cell<'a>> {
        let Self::Map(entries) = self else {
            return None;
        };
        let found = entries.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    /// `get` of a key whose value is there.
    pub(crate) fn filled(&self, key: &str) -> Option<&Cell<'a>> {
        self.get(key).filter(|value| **value != Self::Null)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Cell<'a>]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns how many bytes of text it holds.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(Self::n_bytes).sum(),
            Self::Map(entries) => entries.iter().map(|(_, value)| value.n_bytes()).sum(),
            _ => 0,
        }
    }

    /// Returns what it is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Other(what) => what,
        }
    }
}

pub(super) fn text_at<'a>(row: &'a Cell<'a>, key: &str) -> Result<&'a str, String> {
    let cell = row.get(key).ok_or_else(|| format!("has no `{key}`"))?;
    cell.text()
        .ok_or_else(|| format!("`{key}` is {}, not text", cell.kind()))
}

pub(super) fn first_of<'a, 'k>(
    row: &'a Cell<'a>,
    keys: &[&'k str],
) -> Option<(&'k str, &'a Cell<'a>)> {
    keys.iter().find_map(|key| Some((*key, row.get(key)?)))
}

pub(super) fn first_text<'a>(row: &'a Cell<'a>, keys: &[&str]) -> Result<&'a str, String> {
    match first_of(row, keys) {
        Some((key, _)) => text_at(row, key),
        None => Err(format!("has no `{}`", keys.first().unwrap_or(&"text"))),
    }
}

/// A row is one line: its column is enough.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} at byte {}", error.column()),
        None => text,
    }
}

impl<'de> Deserialize<'de> for Cell<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Number(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Cell<'de>, E> {
        Ok(Cell::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Number(value))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Cell::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell<'de>, A::Error> {
        let mut entries: Vec<(Cow<'de, str>, Cell<'de>)> = Vec::new();
        let mut known: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            if is_known(&entries, &mut known, key.clone()) {
                return Err(A::Error::custom(format_args!(
                    "the key `{key}` stands twice"
                )));
            }
            entries.push((key, value));
        }
        Ok(Cell::Map(entries))
    }
}

fn is_known<'a>(
    entries: &[(Cow<'a, str>, Cell<'a>)],
    known: &mut HashSet<Cow<'a, str>>,
    key: Cow<'a, str>,
) -> bool {
    if entries.len() < MANY_KEYS {
        return entries.iter().any(|(name, _)| *name == key);
    }
    if known.is_empty() {
        known.extend(entries.iter().map(|(name, _)| name.clone()));
    }
    !known.insert(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(bytes: &[u8]) -> String {
        Cell::parse(bytes).unwrap_err()
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let row = Cell::parse(br#"{"a": "plain", "b": "es\ncaped", "c": [1, null]}"#).unwrap();
        assert!(matches!(
            row.get("a"),
            Some(Cell::Text(Cow::Borrowed("plain")))
        ));
        assert!(matches!(row.get("b"), Some(Cell::Text(Cow::Owned(_)))));
        assert_eq!(row.get("c").unwrap().list().unwrap()[1], Cell::Null);
        assert_eq!(row.get("d"), None);
    }

    #[test]
    fn what_is_wrong_with_a_row_is_said() {
        insta::assert_snapshot!(wrong(b"{\"a\": \"\xff\"}"), @"not UTF-8 at byte 7 of the row");
        for (bytes, what) in [
            (&br#"{"a": "\ud800"}"#[..], "hex escape"),
            (br#"{"a": 1, "a": 2}"#, "`a` stands twice"),
            (br#"{"a": "#, "EOF"),
            (b"{\"a\": \"x\0y\"}", "control character"),
        ] {
            assert!(wrong(bytes).contains(what), "{}", wrong(bytes));
        }
    }

    #[test]
    fn two_equal_keys_are_found_among_many() {
        let keys: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
        let once = format!("{{{}}}", keys.join(","));
        let twice = format!("{{{},\"k3\":1}}", keys.join(","));
        assert!(Cell::parse(once.as_bytes()).is_ok());
        assert!(wrong(twice.as_bytes()).contains("`k3` stands twice"));
    }

    #[test]
    fn nesting_without_end_is_an_error_not_a_crash() {
        let deep = "[".repeat(100_000);
        assert!(wrong(deep.as_bytes()).contains("recursion"));
    }
}
