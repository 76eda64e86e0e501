//! Text that is still coming, broken between words where the terminal ends.
//!
//! A terminal breaks a line wherever its last column is. Whoever wants whole words has to hold
//! back the one that is coming, for what follows it may not fit any more.

use tinylm_reports::width;

/// A line in the making.
pub(crate) struct Wrap {
    columns: usize,
    /// Columns in use.
    used: usize,
    spaces: String,
    word: String,
}

impl Wrap {
    /// Begins at the left edge.
    pub(crate) fn new(columns: usize) -> Wrap {
        Wrap {
            columns: columns.max(20),
            used: 0,
            spaces: String::new(),
            word: String::new(),
        }
    }

    /// Returns what can be printed now.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let mut out = String::new();
        for c in piece.chars() {
            match c {
                '\n' => {
                    self.end_word(&mut out);
                    out.push('\n');
                    self.spaces.clear();
                    self.used = 0;
                }
                c if c.is_whitespace() => {
                    self.end_word(&mut out);
                    self.spaces.push(c);
                }
                c => {
                    self.word.push(c);
                    // No line is long enough for it: there is nothing to wait for.
                    if width(&self.word) >= self.columns {
                        self.end_word(&mut out);
                    }
                }
            }
        }
        out
    }

    /// Returns what was held back.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        self.end_word(&mut out);
        out
    }

    fn end_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let columns = width(&self.word);
        if self.used > 0 && self.used + width(&self.spaces) + columns > self.columns {
            out.push('\n');
            self.used = 0;
            self.spaces.clear();
        }
        self.used += width(&self.spaces) + columns;
        out.push_str(&std::mem::take(&mut self.spaces));
        out.push_str(&std::mem::take(&mut self.word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(pieces: &[&str]) -> String {
        let mut wrap = Wrap::new(20);
        let mut text: String = pieces.iter().map(|piece| wrap.push(piece)).collect();
        text.push_str(&wrap.finish());
        text
    }

    #[test]
    fn words_stay_whole_however_they_come() {
        let text = "the quick brown fox jumps over the lazy dog";
        let lines = "the quick brown fox\njumps over the lazy\ndog";
        assert_eq!(wrapped(&[text]), lines);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(wrapped(&letters), lines);
    }

    #[test]
    fn lines_and_indents_of_the_text_stay_and_what_is_too_long_is_cut() {
        assert_eq!(wrapped(&["a\n  b c \nd"]), "a\n  b c\nd");
        let long = "x".repeat(45);
        let parts = ["x".repeat(20), "x".repeat(20), "x".repeat(5)].join("\n");
        assert_eq!(wrapped(&[&long]), parts);
        assert_eq!(
            wrapped(&["漢字漢字漢字漢字 漢字漢字"]),
            "漢字漢字漢字漢字\n漢字漢字"
        );
    }
}
