//! Reads a SentencePiece `.model` file into the parts of a `tokenizer.json`.
//!
//! The file is a protocol buffer. Only what changes ids is read: the pieces, the kind of
//! model, the normaliser's table and its flags.
//!
//! The ids are those of the file. What a library adds when it loads one is not in it, nor
//! that it would: transformers gives a T5 model a hundred extra ids, so tokens that are added
//! begin at 32100 with T5's `tokenizer.json` and at 32000 with its `spiece.model`.

use serde_json::{Map, Value, json};

use super::json::{added_token, bpe_json, pieces_decoder};
use crate::shared::base64;

/// The two kinds whose ids the crate can give; the others (`word`, `char`) nobody ships.
const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

const PIECE_NORMAL: u64 = 1;
const PIECE_UNKNOWN: u64 = 2;
const PIECE_CONTROL: u64 = 3;
const PIECE_USER_DEFINED: u64 = 4;
const PIECE_BYTE: u64 = 6;

/// The parts of a `.model` that change ids.
#[derive(Debug, Default)]
struct Model {
    pieces: Vec<Piece>,
    kind: u64,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

#[derive(Debug, Default)]
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// Returns a `tokenizer.json` in the released form, or what is wrong with the file.
pub(crate) fn to_json(bytes: &[u8]) -> Result<Value, String> {
    parse(bytes)
        .ok_or("it is not a SentencePiece model")?
        .json()
}

/// How a model of another file treats the spaces and characters of a text.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    pub(crate) is_unigram: bool,
    /// A space stands before every text.
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
    /// The table of normalisations.
    pub(crate) charsmap: Vec<u8>,
}

/// Returns the `tokenizer.json` of a model in another file: its pieces with their scores and kinds.
pub(crate) fn json_of(
    pieces: impl Iterator<Item = (String, f32, u64)>,
    manner: Manner,
) -> Result<Value, String> {
    let pieces = pieces.map(|(text, score, kind)| Piece { text, score, kind });
    let model = Model {
        pieces: pieces.collect(),
        kind: if manner.is_unigram { UNIGRAM } else { BPE },
        charsmap: manner.charsmap,
        add_dummy_prefix: manner.add_dummy_prefix,
        remove_extra_whitespaces: manner.remove_extra_whitespaces,
        escape_whitespaces: true,
    };
    model.json()
}

impl Model {
    fn json(&self) -> Result<Value, String> {
        if self.pieces.is_empty() {
            return Err("it has no pieces".to_owned());
        }
        if !self.escape_whitespaces {
            return Err("it does not mark spaces, which cannot be done here".to_owned());
        }
        let json_model = match self.kind {
            UNIGRAM => self.unigram(),
            BPE => self.bpe(),
            other => {
                return Err(format!(
                    "its model has the kind {other}, not unigram or bpe"
                ));
            }
        };
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": self.normalizer(),
            "pre_tokenizer": self.pre_tokenizer(),
            "post_processor": null,
            "decoder": self.decoder(),
            "model": json_model,
        }))
    }

    fn unknown_id(&self) -> Option<usize> {
        self.pieces
            .iter()
            .position(|piece| piece.kind == PIECE_UNKNOWN)
    }

    fn has_bytes(&self) -> bool {
        self.pieces.iter().any(|piece| piece.kind == PIECE_BYTE)
    }

    fn unigram(&self) -> Value {
        let vocab: Vec<(&str, f64)> = self
            .pieces
            .iter()
            .map(|piece| (piece.text.as_str(), f64::from(piece.score)))
            .collect();
        json!({
            "type": "Unigram",
            "unk_id": self.unknown_id(),
            "vocab": vocab,
            "byte_fallback": self.has_bytes(),
        })
    }

    /// A BPE model holds no merges, only scores that fall in the order of learning: a
    /// piece comes from each pair that makes it up, and the better one's merge ranks first.
    fn bpe(&self) -> Value {
        let ids: std::collections::HashMap<&str, usize> = self
            .pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (piece.text.as_str(), id))
            .collect();
        let mut merges: Vec<(f32, usize, usize, [&str; 2])> = Vec::new();
        for piece in self
            .pieces
            .iter()
            .filter(|piece| piece.kind == PIECE_NORMAL)
        {
            for (at, _) in piece.text.char_indices().skip(1) {
                let (left, right) = piece.text.split_at(at);
                if let (Some(&a), Some(&b)) = (ids.get(left), ids.get(right)) {
                    merges.push((piece.score, a, b, [left, right]));
                }
            }
        }
        merges.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        let pairs: Vec<[&str; 2]> = merges.into_iter().map(|(_, _, _, pair)| pair).collect();
        let vocab: Map<String, Value> = self
            .pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (piece.text.clone(), Value::from(id)))
            .collect();
        let unknown = self.unknown_id().map(|id| self.pieces[id].text.as_str());
        let mut model = bpe_json(vocab, json!(pairs), unknown);
        model["byte_fallback"] = Value::Bool(self.has_bytes());
        model
    }

    fn added_tokens(&self) -> Vec<Value> {
        let pieces = self.pieces.iter().enumerate();
        let added = pieces.filter(|(_, piece)| {
            matches!(
                piece.kind,
                PIECE_UNKNOWN | PIECE_CONTROL | PIECE_USER_DEFINED
            )
        });
        added
            .map(|(id, piece)| {
                added_token(id as u32, &piece.text, piece.kind != PIECE_USER_DEFINED)
            })
            .collect()
    }

    fn normalizer(&self) -> Value {
        let mut members = Vec::new();
        if !self.charsmap.is_empty() {
            members.push(json!({
                "type": "Precompiled",
                "precompiled_charsmap": base64::encoded(&self.charsmap),
            }));
        }
        if self.remove_extra_whitespaces {
            // Spaces alone: a `Strip` would take away line ends, which SentencePiece keeps.
            for (pattern, content) in [(r"\A +| +\z", ""), (" {2,}", " ")] {
                let pattern = json!({"Regex": pattern});
                members.push(json!({"type": "Replace", "pattern": pattern, "content": content}));
            }
        }
        if members.is_empty() {
            return Value::Null;
        }
        json!({"type": "Sequence", "normalizers": members})
    }

    fn pre_tokenizer(&self) -> Value {
        json!({
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": self.prepend_scheme(),
            "split": true,
        })
    }

    fn prepend_scheme(&self) -> &'static str {
        if self.add_dummy_prefix {
            "always"
        } else {
            "never"
        }
    }

    fn decoder(&self) -> Value {
        let mut decoder = pieces_decoder();
        decoder["decoders"][1]["prepend_scheme"] = Value::from(self.prepend_scheme());
        decoder
    }
}

fn parse(bytes: &[u8]) -> Option<Model> {
    let mut model = Model {
        kind: UNIGRAM,
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        escape_whitespaces: true,
        ..Model::default()
    };
    for field in fields(bytes) {
        match field? {
            (1, Wire::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
            (2, Wire::Bytes(trainer)) => {
                for field in fields(trainer) {
                    if let (3, Wire::Number(kind)) = field? {
                        model.kind = kind;
                    }
                }
            }
            (3, Wire::Bytes(normalizer)) => {
                for field in fields(normalizer) {
                    match field? {
                        (2, Wire::Bytes(charsmap)) => model.charsmap = charsmap.to_vec(),
                        (3, Wire::Number(on)) => model.add_dummy_prefix = on != 0,
                        (4, Wire::Number(on)) => model.remove_extra_whitespaces = on != 0,
                        (5, Wire::Number(on)) => model.escape_whitespaces = on != 0,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(model)
}

fn parse_piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece {
        kind: PIECE_NORMAL,
        ..Piece::default()
    };
    for field in fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => piece.text = std::str::from_utf8(text).ok()?.to_owned(),
            (2, Wire::Fixed(bits)) => piece.score = f32::from_bits(bits),
            (3, Wire::Number(kind)) => piece.kind = kind,
            _ => {}
        }
    }
    Some(piece)
}

enum Wire<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
    Skipped,
}

/// Visits the fields of a message; `None` where the bytes are no message, and then no more.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Wire<'_>)>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.filter(|bytes| !bytes.is_empty())?;
        let field = take_field(bytes);
        rest = field.as_ref().map(|(_, _, rest)| *rest);
        Some(field.map(|(number, wire, _)| (number, wire)))
    })
}

fn take_field(bytes: &[u8]) -> Option<(u64, Wire<'_>, &[u8])> {
    let (key, rest) = take_number(bytes)?;
    let (wire, rest) = match key & 7 {
        0 => {
            let (number, rest) = take_number(rest)?;
            (Wire::Number(number), rest)
        }
        1 => (Wire::Skipped, rest.get(8..)?),
        2 => {
            let (len, rest) = take_number(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Wire::Bytes(bytes), rest)
        }
        5 => {
            let (bits, rest) = rest.split_first_chunk()?;
            (Wire::Fixed(u32::from_le_bytes(*bits)), rest)
        }
        _ => return None,
    };
    Some((key >> 3, wire, rest))
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (idx, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * idx as u32)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[idx + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, wire: u8, bytes: &[u8]) -> Vec<u8> {
        let mut message = vec![number << 3 | wire];
        if wire == 2 {
            message.push(bytes.len() as u8);
        }
        message.extend(bytes);
        message
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let body = [
            field(1, 2, text.as_bytes()),
            field(2, 5, &score.to_le_bytes()),
            field(3, 0, &[kind]),
        ];
        field(1, 2, &body.concat())
    }

    #[test]
    fn a_model_file_becomes_a_tokenizer() {
        let file = [
            piece("<unk>", 0.0, 2),
            piece("</s>", 0.0, 3),
            piece("▁a", -1.5, 1),
            piece("b", -2.0, 1),
            field(3, 2, &field(4, 0, &[0])),
        ]
        .concat();
        let json = to_json(&file).unwrap();
        assert_eq!(json["model"]["type"], "Unigram");
        assert_eq!(json["model"]["unk_id"], 0);
        assert_eq!(json["model"]["vocab"][2], json!(["▁a", -1.5]));
        assert_eq!(json["added_tokens"][1]["id"], 1);
        assert_eq!(json["normalizer"], Value::Null);
    }

    #[test]
    fn a_bpe_model_gets_its_merges_back_in_order() {
        let file = [
            piece("<unk>", 0.0, 2),
            piece("ab", -0.0, 1),
            piece("abc", -1.0, 1),
            piece("a", -2.0, 1),
            piece("b", -3.0, 1),
            piece("c", -4.0, 1),
            field(2, 2, &field(3, 0, &[2])),
        ]
        .concat();
        let json = to_json(&file).unwrap();
        assert_eq!(json["model"]["merges"], json!([["a", "b"], ["ab", "c"]]));
        assert_eq!(json["model"]["vocab"]["abc"], 2);
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        let file = [piece("<unk>", 0.0, 2), piece("word", -1.0, 1)].concat();
        for len in 1..file.len() {
            let whole_pieces = len == piece("<unk>", 0.0, 2).len();
            assert_eq!(to_json(&file[..len]).is_ok(), whole_pieces, "{len}");
        }
        assert!(to_json(b"").is_err());
        assert!(to_json(b"{\"version\": 1}").is_err());
    }
}
