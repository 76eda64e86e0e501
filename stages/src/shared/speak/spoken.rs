//! Ids that become text while they come, and the texts at which an answer stops.

use crate::shared::tokens::{DecodeStream, Tokenizer, TokensError};

/// Ids that become text as they come: whole characters, and nothing that may become a stop text.
pub struct Spoken<'a> {
    stream: DecodeStream<'a>,
    held_back: HeldBack<'a>,
}

impl<'a> Spoken<'a> {
    pub fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Spoken<'a> {
        Spoken {
            stream: tokenizer.decode_stream(),
            held_back: HeldBack::new(stops),
        }
    }

    /// Takes one id and returns what can be said now.
    pub fn push(&mut self, id: u16) -> Result<String, TokensError> {
        let piece = self.stream.push(u32::from(id))?;
        Ok(self.held_back.push(&piece))
    }

    /// Whether a stop text has come.
    pub fn is_stopped(&self) -> bool {
        self.held_back.stopped
    }

    pub fn finish(mut self) -> Result<Finished, TokensError> {
        let mut rest = self.held_back.push(&self.stream.finish()?);
        rest.push_str(&self.held_back.finish());
        Ok(Finished {
            text: self.held_back.text,
            rest,
            is_stopped: self.held_back.stopped,
        })
    }
}

pub struct Finished {
    /// All that was said.
    pub text: String,
    /// The end of it that was held back.
    pub rest: String,
    /// Whether a stop text has come, which half a character at the very end may be a part of.
    pub is_stopped: bool,
}

/// Text on its way out: what could be the beginning of a stop text waits.
struct HeldBack<'a> {
    stops: &'a [String],
    /// Everything that has gone out.
    text: String,
    waiting: String,
    stopped: bool,
}

impl<'a> HeldBack<'a> {
    fn new(stops: &'a [String]) -> HeldBack<'a> {
        HeldBack {
            stops,
            text: String::new(),
            waiting: String::new(),
            stopped: false,
        }
    }

    /// Returns what can go out now.
    fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.waiting.push_str(piece);
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        let found = stops
            .clone()
            .filter_map(|stop| self.waiting.find(stop))
            .min();
        if let Some(at) = found {
            self.stopped = true;
            self.waiting.truncate(at);
            return self.finish();
        }
        let longest = stops
            .map(|stop| overlap(&self.waiting, stop))
            .max()
            .unwrap_or(0);
        let kept = self.waiting.split_off(self.waiting.len() - longest);
        let out = std::mem::replace(&mut self.waiting, kept);
        self.text.push_str(&out);
        out
    }

    fn finish(&mut self) -> String {
        let out = std::mem::take(&mut self.waiting);
        self.text.push_str(&out);
        out
    }
}

/// Length of the longest end of `text` with which `stop` begins.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, c)| at + c.len_utf8());
    let short = ends.take_while(|len| *len < stop.len() && *len <= text.len());
    let fitting = short.filter(|len| text.ends_with(&stop[..*len]));
    fitting.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut held_back = HeldBack::new(&stops);
        let mut parts: Vec<String> = pieces.iter().map(|piece| held_back.push(piece)).collect();
        parts.push(held_back.finish());
        assert_eq!(parts.concat(), held_back.text);
        (parts, held_back.text)
    }

    #[test]
    fn what_could_become_a_stop_text_waits() {
        let (parts, _) = out(&["\nUser:"], &["fine", " .\n", "Us", "ers are", " fine"]);
        assert_eq!(parts, ["fine", " .", "", "\nUsers are", " fine", ""]);
    }

    #[test]
    fn a_stop_text_ends_and_is_left_out() {
        let (_, text) = out(&["\nUser:", "##"], &["fine .\nUs", "er: and", " you"]);
        assert_eq!(text, "fine .");
        let (_, text) = out(&["##", "\nUser:"], &["a#", "b##c\nUser:"]);
        assert_eq!(text, "a#b");
        let (_, text) = out(&[], &["a", "b"]);
        assert_eq!(text, "ab");
        let (_, text) = out(&["é!"], &["caf", "é", "!x"]);
        assert_eq!(text, "caf");
    }

    #[test]
    fn an_end_that_only_might_have_been_a_stop_goes_out() {
        let (parts, _) = out(&["abc"], &["xab"]);
        assert_eq!(parts, ["x", "ab"]);
    }
}
