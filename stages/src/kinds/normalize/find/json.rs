//! Rows that are JSON values: of an array, of the arrays in an object, or one after the other.

use memchr::memchr2;

use super::found::{Finder, Found, Search, white_space};

/// A value of which the first bytes have been looked at.
#[derive(Default)]
struct Value {
    depth: usize,
    in_string: bool,
}

impl Value {
    /// Returns where the value that `bytes` begin with ends.
    fn end(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Option<usize> {
        let mut idx = *looked_at;
        loop {
            if self.in_string {
                match string_end(bytes, idx) {
                    Ok(end) if self.depth == 0 => return Some(end),
                    Ok(end) => (idx, self.in_string) = (end, false),
                    Err(end) => {
                        *looked_at = end;
                        return None;
                    }
                }
            }
            match bytes.get(idx) {
                None => break,
                Some(b'"') => self.in_string = true,
                Some(b'{' | b'[') => self.depth += 1,
                Some(b'}' | b']') if self.depth <= 1 => return Some(idx + self.depth),
                Some(b'}' | b']') => self.depth -= 1,
                Some(b',' | b' ' | b'\n' | b'\r' | b'\t') if self.depth == 0 => return Some(idx),
                Some(_) => {}
            }
            idx += 1;
        }
        *looked_at = idx;
        (at_end && self.depth == 0).then_some(idx)
    }
}

/// Returns where the JSON value that `bytes` begin with ends, if it does.
pub(crate) fn value_end(bytes: &[u8]) -> Option<usize> {
    Value::default().end(bytes, false, &mut 0)
}

/// Returns where a string ends of which `from` is some place in its content, or else where to go on
/// once there are more bytes.
pub(crate) fn string_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut idx = from;
    while let Some(n_bytes) = bytes.get(idx..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        idx += n_bytes;
        if bytes[idx] == b'"' {
            return Ok(idx + 1);
        }
        idx += 2;
    }
    Err(idx.max(bytes.len()))
}

/// Finds values one after the other, or those in a document: the elements of an array or of the
/// arrays in an object, and the maps in one.
#[derive(Default)]
pub(crate) struct Json {
    place: Place,
    value: Value,
    is_row: bool,
    /// The last key of an object.
    key: String,
    lists: Vec<String>,
}

/// So many lists of an object are named.
const LISTS_NAMED: usize = 8;
/// So many bytes of a key are kept.
const KEY_BYTES: usize = 64;

/// Where the next value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Among values that are in no document.
    Values,
    #[default]
    Start,
    Array {
        in_object: bool,
    },
    /// Before a key.
    Object,
    /// Behind a key.
    Key,
    /// Behind its colon.
    Member,
    End,
}

const CUT_SHORT: &str = "the JSON ends before it is closed";

impl Json {
    pub(crate) fn values() -> Self {
        Self {
            place: Place::Values,
            ..Self::default()
        }
    }

    /// Returns where one gets behind a byte; `None` where a value begins with it.
    fn step(&self, first: u8) -> Result<Option<Place>, &'static str> {
        Ok(match (self.place, first) {
            (Place::Start, b'[') => Some(Place::Array { in_object: false }),
            (Place::Start, b'{') => Some(Place::Object),
            (Place::Start, _) => return Err("neither a JSON array nor an object"),
            (Place::End, _) => return Err("there is something behind the JSON"),
            (Place::Array { in_object: true }, b']') => Some(Place::Object),
            (Place::Array { in_object: false }, b']') | (Place::Object, b'}') => Some(Place::End),
            (Place::Array { .. }, b'}') => return Err("a bracket closes what is not open"),
            (Place::Object, b'"') => None,
            (Place::Object, _) => return Err("an object has a key that is no text"),
            (Place::Key, b':') => Some(Place::Member),
            (Place::Key, _) => return Err("a key has no value"),
            (Place::Member, b'[') => Some(Place::Array { in_object: true }),
            (Place::Array { .. } | Place::Member | Place::Values, _) => None,
        })
    }

    /// Returns what there is before the next value, if that does not begin here.
    fn before_value(&mut self, bytes: &[u8], at_end: bool) -> Result<Option<Found>, &'static str> {
        let is_gap = |byte: &&u8| byte.is_ascii_whitespace() || **byte == b',';
        let next = match self.place {
            Place::Key | Place::Member => white_space(bytes),
            _ => bytes.iter().take_while(is_gap).count(),
        };
        if next > 0 {
            return Ok(Some(Found::Nothing { next }));
        }
        let Some(first) = bytes.first() else {
            let is_whole = matches!(self.place, Place::Values | Place::Start | Place::End);
            return match at_end && !is_whole {
                true => Err(CUT_SHORT),
                false => Ok(Some(Found::More)),
            };
        };
        if let Some(place) = self.step(*first)? {
            let is_list = place == Place::Array { in_object: true };
            if is_list && self.lists.len() < LISTS_NAMED {
                self.lists.push(self.key.clone());
            }
            self.place = place;
            return Ok(Some(Found::Nothing { next: 1 }));
        }
        // A map in an object is a row; whatever else is there says something about the file.
        self.is_row = match self.place {
            Place::Member => *first == b'{',
            place => place != Place::Object,
        };
        self.value = Value::default();
        Ok(None)
    }
}

impl Finder for Json {
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search {
        if *looked_at == 0
            && let Some(before) = self.before_value(bytes, at_end)?
        {
            return Ok(before);
        }
        let end = match (self.value.end(bytes, at_end, looked_at), self.place) {
            (Some(end), _) => end,
            (None, _) if !at_end => return Ok(Found::More),
            (None, Place::Values) => bytes.len(),
            (None, Place::Array { .. }) => return Err("the JSON ends inside a row"),
            (None, _) => return Err(CUT_SHORT),
        };
        if self.place == Place::Object {
            let key = bytes[..end.min(KEY_BYTES)].trim_ascii();
            let key = key.strip_prefix(b"\"").unwrap_or(key);
            let key = key.strip_suffix(b"\"").unwrap_or(key);
            self.key = String::from_utf8_lossy(key).into_owned();
        }
        self.place = match self.place {
            Place::Object => Place::Key,
            Place::Member => Place::Object,
            place => place,
        };
        // A bracket that closes nothing, or a comma in the place of a value, is passed over.
        let next = end.max(1);
        Ok(match self.is_row {
            true => Found::Row { end: next, next },
            false => Found::Nothing { next },
        })
    }

    fn lists(&self) -> &[String] {
        &self.lists
    }
}
