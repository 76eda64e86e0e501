//! The bytes of a file: settings, the tensors' places, the tensors.

use std::{io::Write, path::Path};

use tinylm_model::weights::{Source, WeightsError, write_file};

use super::numbers::Numbers;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// Tensors begin at multiples of this.
const ALIGNMENT: usize = 32;

/// The value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    Bytes(Vec<u8>),
}

impl Field {
    pub fn text(text: impl Into<String>) -> Field {
        Field::Text(text.into())
    }

    fn sort(&self) -> u32 {
        match self {
            Field::Bytes(_) => 0,
            Field::U32(_) => 4,
            Field::I32s(_) => 5,
            Field::F32(_) | Field::F32s(_) => 6,
            Field::Bool(_) => 7,
            Field::Text(_) | Field::Texts(_) => 8,
        }
    }

    /// The number of elements, of a list.
    fn n(&self) -> Option<usize> {
        match self {
            Field::Texts(list) => Some(list.len()),
            Field::F32s(list) => Some(list.len()),
            Field::I32s(list) => Some(list.len()),
            Field::Bytes(list) => Some(list.len()),
            _ => None,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        const LIST: u32 = 9;
        if let Some(n) = self.n() {
            out.extend(LIST.to_le_bytes());
            out.extend(self.sort().to_le_bytes());
            out.extend((n as u64).to_le_bytes());
        } else {
            out.extend(self.sort().to_le_bytes());
        }
        match self {
            Field::U32(x) => out.extend(x.to_le_bytes()),
            Field::F32(x) => out.extend(x.to_le_bytes()),
            Field::Bool(x) => out.push(u8::from(*x)),
            Field::Text(text) => put_text(text, out),
            Field::Texts(list) => list.iter().for_each(|text| put_text(text, out)),
            Field::F32s(list) => out.extend(list.iter().flat_map(|x| x.to_le_bytes())),
            Field::I32s(list) => out.extend(list.iter().flat_map(|x| x.to_le_bytes())),
            Field::Bytes(bytes) => out.extend(bytes),
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A tensor that is to be written.
pub(super) struct Planned<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) numbers: Numbers,
}

impl Planned<'_> {
    fn n(&self) -> usize {
        self.shape.iter().product()
    }

    fn n_bytes(&self) -> usize {
        self.numbers.n_bytes(self.n())
    }
}

/// Writes a file, a tensor at a time, and to the disk before it returns.
pub(super) fn file(
    path: &Path,
    fields: &[(String, Field)],
    tensors: &[Planned<'_>],
    source: &dyn Source,
) -> Result<(), WeightsError> {
    let shapes = tensors.iter().map(|tensor| (tensor.name, tensor.shape));
    let mut bytes = Vec::new();
    write_file(
        path,
        &head(fields, tensors),
        shapes,
        source,
        |out, idx, numbers| {
            bytes.clear();
            tensors[idx].numbers.put(numbers, &mut bytes);
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            out.write_all(&bytes)
        },
    )
}

/// Everything before the tensors' numbers.
fn head(fields: &[(String, Field)], tensors: &[Planned<'_>]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((fields.len() as u64).to_le_bytes());
    for (key, field) in fields {
        put_text(key, &mut head);
        field.put(&mut head);
    }
    let mut at = 0;
    for tensor in tensors {
        put_text(tensor.name, &mut head);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost comes first.
        for n in tensor.shape.iter().rev() {
            head.extend((*n as u64).to_le_bytes());
        }
        head.extend(tensor.numbers.sort().to_le_bytes());
        head.extend((at as u64).to_le_bytes());
        at += tensor.n_bytes().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    head
}
