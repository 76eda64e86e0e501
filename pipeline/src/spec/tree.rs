//! The experiment file as data in which every value remembers where it was written.
//!
//! `extends`, `vars` and `-S` edit this tree, so after all edits each value still
//! points into the file (or the `-S` text) that its author has to change, and a
//! relative path still knows the folder that it counts from.

use std::{ops::Range, path::PathBuf, sync::Arc};

use serde_json::{Number, Value};

/// A text that values come from: an experiment file, or what followed `-S`.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in messages.
    pub title: String,
    pub text: String,
    /// The folder that its relative paths count from.
    pub dir: PathBuf,
}

/// Some bytes of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub source: Arc<Source>,
    pub range: Range<usize>,
}

impl Place {
    /// Returns the line and column, both counted from 1, in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let mut start = self.range.start.min(self.source.text.len());
        while !self.source.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.source.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) data: Data,
    pub(crate) place: Place,
    /// The source whose folder a relative path counts from: `place.source`, except for
    /// a path that begins with a variable from another file.
    pub(crate) home: Arc<Source>,
}

#[derive(Debug, Clone)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Map),
    /// A value that cannot be had (an unknown variable), which has been said: nothing
    /// more is to be said about it.
    Broken,
}

/// Entries in the order written. Looked up by walking it: an author's maps are short.
#[derive(Debug, Clone, Default)]
pub(crate) struct Map(pub(crate) Vec<Entry>);

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn new(data: Data, place: Place) -> Self {
        let home = place.source.clone();
        Self { data, place, home }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.data, Data::Broken)
    }

    /// Whether this or anything in it is broken.
    pub(crate) fn has_broken(&self) -> bool {
        match &self.data {
            Data::List(items) => items.iter().any(Node::has_broken),
            Data::Map(map) => map.0.iter().any(|entry| entry.node.has_broken()),
            _ => self.is_broken(),
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the sort of this value in a word, for messages.
    pub(crate) fn sort(&self) -> &'static str {
        match &self.data {
            Data::Null | Data::Broken => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(number) if number.is_f64() => "a number",
            Data::Number(number) if number.is_i64() && !number.is_u64() => "a negative number",
            Data::Number(_) => "a whole number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match &self.data {
            Data::Null | Data::Broken => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(number) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => items.iter().map(Node::to_value).collect(),
            Data::Map(map) => {
                let entries = map.0.iter();
                entries
                    .map(|entry| (entry.name.clone(), entry.node.to_value()))
                    .collect()
            }
        }
    }
}

impl Map {
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        let found = self.0.iter_mut().find(|entry| entry.name == name);
        found.map(|entry| &mut entry.node)
    }

    /// Puts `entry` where one of its name stood, or at the end.
    pub(crate) fn insert(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => self.0.push(entry),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Entry> {
        let idx = self.0.iter().position(|entry| entry.name == name)?;
        Some(self.0.remove(idx))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }
}
