//! A tokenizer's steps, taken one by one.
//!
//! The crate takes the same steps in the same order in its `encode_into`. They are taken
//! here for three reasons: its reader refuses to run a `Split` on a pattern of one's own,
//! though its regex engine is in the build; SentencePiece's table of normalisations looks
//! up every character, and most texts have hardly one that it changes; and the buffers,
//! with the words that were seen before, are kept by whoever encodes instead of being
//! handed out for every text.

use std::{borrow::Cow, sync::Mutex};

use serde_json::Value;
use tokenizers::{
    pipeline::{
        Model, PipelineModel, PipelineNormalizer, PipelinePatternMatcher, PipelinePreTokenizer,
        PipelineToken, PipelineTokenizer, PreTokenizer, PreTokenizerScratch, Segment, Span,
        SpecialSegmentIterator, normalize_all,
    },
    pre_tokenizers::{
        sequence::PipelineSequence,
        split::{Search, Split, SplitPattern},
    },
};

pub(super) struct Steps {
    pipeline: PipelineTokenizer,
    pre_tokenizer: PipelinePreTokenizer,
    /// Which ASCII characters the first normalizer leaves alone, where it is a table.
    kept: Option<[bool; 256]>,
    /// Whether some added token is no special one: those are looked for in every text.
    has_plain_added: bool,
    spare: Mutex<Vec<Buffers>>,
}

/// The buffers of one thread.
pub(super) struct Buffers {
    model: <PipelineModel as Model>::Scratch,
    split: PreTokenizerScratch,
    spans: Vec<Span>,
}

impl Steps {
    /// `json` is what `pipeline` was read from.
    pub(super) fn new(pipeline: PipelineTokenizer, json: &Value) -> Result<Self, String> {
        let normalizers = pipeline.get_normalizers();
        let kept = match normalizers.first() {
            Some(PipelineNormalizer::Precompiled(_)) => Some(kept(&normalizers[..1])?),
            _ => None,
        };
        let mut added = json["added_tokens"].as_array().into_iter().flatten();
        Ok(Self {
            pre_tokenizer: with_patterns(pipeline.get_pre_tokenizer())?,
            kept,
            has_plain_added: added.any(|token| token["special"] != true),
            spare: Mutex::new(Vec::new()),
            pipeline,
        })
    }

    pub(super) fn pipeline(&self) -> &PipelineTokenizer {
        &self.pipeline
    }

    pub(super) fn take_buffers(&self) -> Buffers {
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop());
        spare.unwrap_or_else(|| Buffers {
            model: self.pipeline.get_model().init_scratch(),
            split: PreTokenizerScratch::default(),
            spans: Vec::new(),
        })
    }

    pub(super) fn give_back(&self, buffers: Buffers) {
        if let Ok(mut spare) = self.spare.lock() {
            spare.push(buffers);
        }
    }

    /// Appends the ids of a text in which special tokens are ordinary text.
    pub(super) fn encode(
        &self,
        text: &str,
        buffers: &mut Buffers,
        output: &mut Vec<PipelineToken>,
    ) -> Result<(), String> {
        if !self.has_plain_added {
            return self.words(&self.normalized(text, 0)?, buffers, output);
        }
        for segment in self.segments(text, false) {
            let (text, at) = match segment {
                Segment::Text { text, input_offset } => (text, input_offset),
                Segment::SpecialToken(id) => {
                    output.push(id.into());
                    continue;
                }
            };
            for segment in self.segments(&self.normalized(text, at)?, true) {
                match segment {
                    Segment::Text { text, .. } => self.words(text, buffers, output)?,
                    Segment::SpecialToken(id) => output.push(id.into()),
                }
            }
        }
        Ok(())
    }

    fn segments<'t>(
        &self,
        text: &'t str,
        is_normalized: bool,
    ) -> SpecialSegmentIterator<'t, '_, impl PipelinePatternMatcher> {
        let added = self.pipeline.get_added_vocabulary();
        SpecialSegmentIterator::new(text, added, is_normalized, true)
    }

    /// Cuts a normalized text into words and those into tokens.
    fn words(
        &self,
        text: &str,
        buffers: &mut Buffers,
        output: &mut Vec<PipelineToken>,
    ) -> Result<(), String> {
        // Places in a text are 32-bit numbers.
        if u32::try_from(text.len()).is_err() {
            return Err("it is longer than 4 GB".to_owned());
        }
        let Buffers {
            model,
            split,
            spans,
        } = buffers;
        spans.clear();
        let cut = self.pre_tokenizer.pre_tokenize(text, split, spans);
        cut.map_err(|error| error.to_string())?;
        output.reserve(spans.len());
        let tokens = self.pipeline.get_model();
        tokens
            .tokenize_spans(text, spans, model, output)
            .map_err(|error| error.to_string())
    }

    /// Returns what the normalizers make of a text that begins at `at`.
    fn normalized<'t>(&self, text: &'t str, at: usize) -> Result<Cow<'t, str>, String> {
        let normalizers = self.pipeline.get_normalizers();
        let Some(kept) = &self.kept else {
            return normalize(normalizers, text, at);
        };
        let (table, others) = normalizers.split_at(1);
        match by_table(table, kept, text)? {
            Cow::Borrowed(text) => normalize(others, text, at),
            Cow::Owned(text) => Ok(Cow::Owned(normalize(others, &text, at)?.into_owned())),
        }
    }
}

fn normalize<'t>(
    normalizers: &[PipelineNormalizer],
    text: &'t str,
    at: usize,
) -> Result<Cow<'t, str>, String> {
    normalize_all(normalizers, text, at).map_err(|error| error.to_string())
}

/// Returns which ASCII characters a table keeps. A return is looked at with what follows
/// it: with a newline it is one character.
fn kept(table: &[PipelineNormalizer]) -> Result<[bool; 256], String> {
    let mut kept = [false; 256];
    for byte in (0..128_u8).filter(|byte| *byte != b'\r') {
        let character = char::from(byte).to_string();
        kept[usize::from(byte)] = normalize(table, &character, 0)? == character;
    }
    Ok(kept)
}

/// Applies a table to the parts of a text that it may change, each with one character
/// before it, which it may belong to. Between two ASCII characters that are kept there is
/// always a boundary, so a part can begin and end there.
fn by_table<'t>(
    table: &[PipelineNormalizer],
    kept: &[bool; 256],
    text: &'t str,
) -> Result<Cow<'t, str>, String> {
    let bytes = text.as_bytes();
    let is_kept = |at: usize| kept[usize::from(bytes[at])];
    let mut changed: Option<String> = None;
    let mut done = 0;
    while let Some(next) = (done..bytes.len()).find(|at| !is_kept(*at)) {
        let start = next.saturating_sub(1).max(done);
        let mut end = next + 1;
        while end < bytes.len() && !(is_kept(end - 1) && is_kept(end)) {
            end += 1;
        }
        let changed = changed.get_or_insert_with(|| String::with_capacity(text.len()));
        changed.push_str(&text[done..start]);
        changed.push_str(&normalize(table, &text[start..end], 0)?);
        done = end;
    }
    Ok(match changed {
        None => Cow::Borrowed(text),
        Some(changed) => Cow::Owned(changed + &text[done..]),
    })
}

/// Returns a pre-tokenizer that runs every pattern, also those that the crate's reader
/// leaves without a regex engine.
fn with_patterns(pre_tokenizer: &PipelinePreTokenizer) -> Result<PipelinePreTokenizer, String> {
    match pre_tokenizer {
        PipelinePreTokenizer::Split(split) if matches!(split.search, Search::Unavailable) => {
            let pattern = match &split.pattern {
                SplitPattern::String(text) | SplitPattern::Regex(text) => text,
            };
            let with_engine = Split::new(split.pattern.clone(), split.behavior, split.invert);
            with_engine
                .map(PipelinePreTokenizer::Split)
                .map_err(|error| format!("its `Split` on `{pattern}` cannot be run: {error}"))
        }
        PipelinePreTokenizer::Sequence(sequence) => {
            let members = sequence.pre_tokenizers().iter().map(with_patterns);
            let members = members.collect::<Result<_, String>>()?;
            Ok(PipelinePreTokenizer::Sequence(PipelineSequence::new(
                members,
            )))
        }
        other => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    fn table() -> (PipelineTokenizer, [bool; 256]) {
        let path = "tests/fixtures/tokens/unigram-table.json";
        let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let fixture: Value = serde_json::from_slice(&bytes).unwrap();
        let mut json = serde_json::from_str(fixture["tokenizer"].as_str().unwrap()).unwrap();
        tokenizers::canonicalize_value(&mut json).unwrap();
        let pipeline = tokenizers::from_json(&json.to_string()).unwrap();
        let kept = kept(&pipeline.get_normalizers()[..1]).unwrap();
        (pipeline, kept)
    }

    #[test]
    fn what_a_table_changes_is_known() {
        let (_, kept) = table();
        let changed: Vec<u8> = (0..128).filter(|byte| !kept[usize::from(*byte)]).collect();
        assert_eq!(changed, b"\x07\t\n\r");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_table_changes_the_same_where_it_is_looked_up_and_everywhere(
            text in "([a-z ]{0,4}|\r\n?|\n|\t|e\u{301}|[äa]\u{308}|…|ﬁ|\\PC){0,12}"
        ) {
            thread_local! {
                static TABLE: (PipelineTokenizer, [bool; 256]) = table();
            }
            TABLE.with(|(pipeline, kept)| {
                let table = &pipeline.get_normalizers()[..1];
                let everywhere = normalize(table, &text, 0).unwrap();
                assert_eq!(by_table(table, kept, &text).unwrap(), everywhere);
            });
        }
    }
}
