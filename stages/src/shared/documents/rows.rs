//! Documents in memory, column by column.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, ListArray, RecordBatch, StringArray, StructArray,
    cast::AsArray,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use tinylm_pipeline::StageError;

use super::{
    columns::{message_fields, message_item, schema},
    document::{Contents, Digest, Document, Turns},
};
use crate::shared::template::Role;

#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    ids: Vec<u8>,
    groups: Vec<u8>,
    sources: Texts,
    /// Whether each row is a raw text.
    are_texts: Vec<bool>,
    /// The raw texts; empty where a row is a dialogue.
    texts: Texts,
    roles: Vec<Role>,
    contents: Texts,
    /// Where each row's turns end.
    turn_ends: Vec<i32>,
}

/// Strings end to end.
#[derive(Debug, Clone, Default)]
struct Texts {
    text: String,
    ends: Vec<i32>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        // A row group holds some megabytes, a row at most `row_bytes_max` more.
        self.ends.push(self.text.len() as i32);
    }

    /// Takes over a column's memory, or copies what others hold on to as well.
    fn of(column: ArrayRef) -> Option<Self> {
        let array = column.as_string_opt::<i32>()?.clone();
        drop(column);
        let (offsets, bytes, _) = array.into_parts();
        if offsets[0] != 0 {
            return None;
        }
        let copied = |bytes: Buffer| bytes.as_slice().to_vec();
        let bytes = bytes.into_vec().unwrap_or_else(copied);
        Some(Self {
            text: String::from_utf8(bytes).ok()?,
            ends: offsets[1..].to_vec(),
        })
    }

    /// Copies a column, with `place` before each text.
    fn behind(place: &str, array: &StringArray) -> Self {
        let mut texts = Self::default();
        for text in array.iter().flatten() {
            texts.text.push_str(place);
            texts.push(text);
        }
        texts
    }

    fn get(&self, idx: usize) -> &str {
        &self.text[start(&self.ends, idx) as usize..self.ends[idx] as usize]
    }

    fn array(self, nulls: Option<NullBuffer>) -> StringArray {
        let offsets = OffsetBuffer::new(offsets(&self.ends));
        let bytes = Buffer::from_vec(self.text.into_bytes());
        StringArray::new(offsets, bytes, nulls)
    }
}

/// Returns where the stretch at `idx` begins.
fn start(ends: &[i32], idx: usize) -> i32 {
    idx.checked_sub(1).map_or(0, |before| ends[before])
}

fn offsets(ends: &[i32]) -> ScalarBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend_from_slice(ends);
    offsets.into()
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.turn_ends.len()
    }

    /// Makes room for as many rows, bytes and turns as another has: growing step by step
    /// would copy megabytes again and again.
    pub(crate) fn reserve_for(&mut self, other: &Self) {
        self.reserve_rows(other.len());
        self.texts.text.reserve(other.texts.text.len());
        self.roles.reserve(other.roles.len());
        self.contents.ends.reserve(other.roles.len());
        self.contents.text.reserve(other.contents.text.len());
    }

    pub(crate) fn reserve_texts(&mut self, n_bytes: usize) {
        self.texts.text.reserve(n_bytes);
    }

    pub(crate) fn reserve_contents(&mut self, n_bytes: usize) {
        self.contents.text.reserve(n_bytes);
    }

    pub(crate) fn reserve_rows(&mut self, n_rows: usize) {
        self.ids.reserve(32 * n_rows);
        self.groups.reserve(32 * n_rows);
        self.sources.ends.reserve(n_rows);
        self.are_texts.reserve(n_rows);
        self.texts.ends.reserve(n_rows);
        self.turn_ends.reserve(n_rows);
    }

    /// Returns the bytes of contents in it.
    pub(crate) fn n_bytes(&self) -> usize {
        self.texts.text.len() + self.contents.text.len()
    }

    pub(crate) fn push(&mut self, row: &Document) {
        match row.contents {
            Contents::Text(text) => self.push_text(row.id, row.group, row.source, text),
            Contents::Dialogue(turns) => {
                let shift = self.contents.text.len() as i32 - turns.start;
                self.contents.text.push_str(turns.text());
                let ends = turns.ends.iter().map(|end| end + shift);
                self.contents.ends.extend(ends);
                self.roles.extend_from_slice(turns.roles);
                self.close(row.id, row.group, row.source, "", false);
            }
        }
    }

    pub(crate) fn push_text(&mut self, id: Digest, group: Digest, source: &str, text: &str) {
        self.close(id, group, source, text, true);
    }

    pub(crate) fn push_dialogue<'t>(
        &mut self,
        id: Digest,
        group: Digest,
        source: &str,
        turns: impl IntoIterator<Item = (Role, &'t str)>,
    ) {
        for (role, content) in turns {
            self.roles.push(role);
            self.contents.push(content);
        }
        self.close(id, group, source, "", false);
    }

    /// Ends a row, whose turns are there.
    fn close(&mut self, id: Digest, group: Digest, source: &str, text: &str, is_text: bool) {
        self.ids.extend_from_slice(&id);
        self.groups.extend_from_slice(&group);
        self.sources.push(source);
        self.are_texts.push(is_text);
        self.texts.push(text);
        self.turn_ends.push(self.roles.len() as i32);
    }

    pub(crate) fn get(&self, idx: usize) -> Document<'_> {
        Document {
            id: digest_at(&self.ids, idx),
            group: digest_at(&self.groups, idx),
            source: self.sources.get(idx),
            contents: match self.are_texts[idx] {
                true => Contents::Text(self.texts.get(idx)),
                false => Contents::Dialogue(self.turns(idx)),
            },
        }
    }

    fn turns(&self, idx: usize) -> Turns<'_> {
        let first = start(&self.turn_ends, idx) as usize;
        let end = self.turn_ends[idx] as usize;
        Turns {
            roles: &self.roles[first..end],
            contents: &self.contents.text,
            start: start(&self.contents.ends, first),
            ends: &self.contents.ends[first..end],
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Document<'_>> {
        (0..self.len()).map(|idx| self.get(idx))
    }

    pub(super) fn into_batch(self) -> Result<RecordBatch, StageError> {
        let is_text = NullBuffer::from(self.are_texts);
        let is_dialogue = NullBuffer::new(!is_text.inner());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(messages(
                &self.roles,
                self.contents,
                &self.turn_ends,
                is_dialogue,
            )),
            Arc::new(self.texts.array(Some(is_text))),
            Arc::new(self.sources.array(None)),
            digests(self.ids),
            digests(self.groups),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| StageError::new(error.to_string()))
    }

    /// Takes over a batch, with `place` before each source; `None` where it does not hold
    /// what documents hold. Contents are by far the most of it: they stay where they are.
    pub(super) fn of_batch(batch: RecordBatch, place: Option<&str>) -> Option<Self> {
        let (_, columns, n_rows) = batch.into_parts();
        let [messages, texts, sources, ids, groups] = <[ArrayRef; 5]>::try_from(columns).ok()?;
        let are_texts: Vec<bool> = (0..n_rows).map(|idx| texts.is_valid(idx)).collect();
        let (roles, contents, turn_ends) = taken_apart(messages, &are_texts)?;
        Some(Self {
            ids: digest_bytes(&ids)?,
            groups: digest_bytes(&groups)?,
            sources: match place {
                Some(place) => Texts::behind(place, sources.as_string_opt::<i32>()?),
                None => Texts::of(sources)?,
            },
            are_texts,
            texts: Texts::of(texts)?,
            roles,
            contents,
            turn_ends,
        })
    }
}

fn messages(roles: &[Role], contents: Texts, ends: &[i32], valid: NullBuffer) -> ListArray {
    let roles = StringArray::from_iter_values(roles.iter().map(|role| role.name()));
    let columns: Vec<ArrayRef> = vec![Arc::new(roles), Arc::new(contents.array(None))];
    let structs = StructArray::new(message_fields(), columns, None);
    let offsets = OffsetBuffer::new(offsets(ends));
    ListArray::new(message_item(), offsets, Arc::new(structs), Some(valid))
}

/// Returns the roles and contents of a column of messages, and where each row's end. Rows
/// that are texts have none, and all others have a list.
fn taken_apart(messages: ArrayRef, are_texts: &[bool]) -> Option<(Vec<Role>, Texts, Vec<i32>)> {
    let list = messages.as_list_opt::<i32>()?.clone();
    drop(messages);
    let (_, offsets, values, valid) = list.into_parts();
    let is_dialogue = |row: usize| valid.as_ref().is_none_or(|valid| valid.is_valid(row));
    let mut rows = are_texts.iter().enumerate();
    if offsets[0] != 0 || rows.any(|(row, is_text)| *is_text == is_dialogue(row)) {
        return None;
    }
    let structs = values.as_struct_opt()?.clone();
    drop(values);
    let (_, columns, _) = structs.into_parts();
    let [roles, contents] = <[ArrayRef; 2]>::try_from(columns).ok()?;
    let roles = roles.as_string_opt::<i32>()?.iter();
    let roles = roles
        .map(|name| Role::named(name?))
        .collect::<Option<_>>()?;
    Some((roles, Texts::of(contents)?, offsets[1..].to_vec()))
}

fn digest_at(bytes: &[u8], idx: usize) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(&bytes[32 * idx..32 * (idx + 1)]);
    digest
}

fn digests(bytes: Vec<u8>) -> ArrayRef {
    Arc::new(FixedSizeBinaryArray::new(32, Buffer::from_vec(bytes), None))
}

fn digest_bytes(column: &ArrayRef) -> Option<Vec<u8>> {
    let array = column.as_fixed_size_binary_opt()?;
    (array.value_length() == 32).then(|| array.value_data().to_vec())
}
