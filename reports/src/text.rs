//! Text that came from outside, made fit to be shown.
//!
//! Names, settings, notes and samples are other people's bytes: a model may well say `ESC ] 0 ;` one
//! day. Whatever a person is shown, on a terminal, in a page or in Markdown, goes through `clean` or
//! `clean_lines`, so that nothing can move the cursor, recolour the screen, turn a line around or
//! hide in it. Widths are counted as a terminal does: wide characters as two, combining ones as none.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

const ELLIPSIS: &str = "…";

/// Returns text for the inside of a line: ends of lines and tabs in it are spaces.
pub fn clean(text: &str) -> Cow<'_, str> {
    replaced(text, |c| match c {
        '\n' | '\r' | '\t' => ' ',
        c => visible(c),
    })
}

/// Returns text that may have several lines: ends of lines and tabs stay.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| match c {
        '\n' | '\t' => c,
        c => visible(c),
    })
}

/// Whether a character of a text is shown as something else than itself.
pub fn is_hidden(c: char) -> bool {
    !matches!(c, '\n' | '\t') && visible(c) != c
}

fn replaced(text: &str, by: impl Fn(char) -> char) -> Cow<'_, str> {
    if text.chars().all(|c| by(c) == c) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(by).collect())
}

/// Joiners stay what they are: emoji and Persian are written with them.
fn visible(c: char) -> char {
    match c {
        // The pictures of the ASCII control characters stand in their order at U+2400.
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        '\u{80}'..='\u{9f}' => '\u{fffd}',
        // Marks that turn the direction of what follows them.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            '\u{fffd}'
        }
        // Characters without width, which make two names look alike that are not.
        '\u{200b}'
        | '\u{2060}'..='\u{2065}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        '\u{2028}' | '\u{2029}' => ' ',
        _ => c,
    }
}

/// Returns the columns a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Returns the text cut to a number of columns, with an ellipsis where something went.
pub(crate) fn fitted(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    if columns == 0 {
        return Cow::Borrowed("");
    }
    let mut cut = taken(text, columns - 1).trim_end().to_owned();
    cut.push_str(ELLIPSIS);
    Cow::Owned(cut)
}

/// Returns the text with its middle cut out, for what is told apart by its end: paths, for one.
pub(crate) fn fitted_middle(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns || columns < 8 {
        return fitted(text, columns);
    }
    let head_columns = (columns - 1) / 3;
    let mut start = text.len();
    let mut left = columns - 1 - head_columns;
    for (idx, c) in text.char_indices().rev() {
        let Some(rest) = left.checked_sub(char_width(c)) else {
            break;
        };
        (start, left) = (idx, rest);
    }
    Cow::Owned(format!(
        "{}{ELLIPSIS}{}",
        taken(text, head_columns),
        &text[start..]
    ))
}

/// Returns the longest start of the text that takes at most that many columns.
fn taken(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (idx, c) in text.char_indices() {
        used += char_width(c);
        if used > columns {
            return &text[..idx];
        }
    }
    text
}

/// Breaks text into lines of at most that many columns, at spaces where it can.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let paragraph = clean(paragraph);
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let gap = usize::from(!line.is_empty());
            if width(&line) + gap + width(word) <= columns {
                if gap == 1 {
                    line.push(' ');
                }
                line.push_str(word);
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line = broken(word, columns, &mut lines);
        }
        lines.push(line);
    }
    lines
}

/// Cuts a word longer than a line into lines, and returns what is left of it.
fn broken(word: &str, columns: usize, lines: &mut Vec<String>) -> String {
    let mut rest = word;
    while width(rest) > columns {
        let head = taken(rest, columns);
        lines.push(head.to_owned());
        rest = &rest[head.len()..];
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_escape_sequence_is_shown_instead_of_obeyed() {
        assert_eq!(clean("a\x1b[31mb\u{202e}c\x07\x7f"), "a␛[31mb\u{fffd}c␇␡");
        assert_eq!(clean("a\tb\r\nc"), "a b  c");
        assert_eq!(clean_lines("a\tb\r\nc"), "a\tb␍\nc");
    }

    #[test]
    fn of_all_code_points_none_that_commands_turns_or_hides_is_left() {
        let turns_or_hides = |c: char| {
            let n = u32::from(c);
            let turns = matches!(n, 0x61c | 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069);
            turns
                || matches!(
                    n,
                    0x200b | 0x2028 | 0x2029 | 0x2060 | 0xfeff | 0xe0000..=0xe007f
                )
        };
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            let is_bad = c.is_control() || turns_or_hides(c);
            for one in clean(&text).chars() {
                assert!(
                    !one.is_control() && !turns_or_hides(one),
                    "U+{:04X}",
                    u32::from(c)
                );
            }
            let lines = clean_lines(&text);
            let is_kept = matches!(c, '\n' | '\t');
            assert!(
                is_kept
                    || !lines
                        .chars()
                        .any(|one| one.is_control() || turns_or_hides(one))
            );
            assert!(!is_kept || lines == text);
            // Characters that are harmless in every script stay.
            assert!(is_bad || is_hidden(c) || clean(&text) == text);
            assert!(is_bad || !c.is_alphanumeric() || clean(&text) == text);
        }
        assert_eq!(
            clean("👩\u{200d}🚀 می\u{200c}خواهم"),
            "👩\u{200d}🚀 می\u{200c}خواهم"
        );
    }

    #[test]
    fn a_long_text_is_cut_with_an_ellipsis() {
        assert_eq!(fitted("hello world", 8), "hello w…");
        assert_eq!(fitted("日本語のテキスト", 7), "日本語…");
        assert_eq!(
            fitted_middle("/a/very/long/path/to/data.jsonl", 16),
            "/a/ve…data.jsonl"
        );
    }

    #[test]
    fn words_wrap_and_long_ones_break() {
        assert_eq!(
            wrapped("how are you today\n\nabcdefghijkl", 8),
            ["how are", "you", "today", "", "abcdefgh", "ijkl"]
        );
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_asked(text in "\\PC{0,40}|[a-z 日\u{301}\x1b\n]{0,60}", columns in 0usize..30) {
            prop_assert!(width(&fitted(&clean(&text), columns)) <= columns);
            prop_assert!(width(&fitted_middle(&clean(&text), columns)) <= columns);
            for line in wrapped(&text, columns) {
                prop_assert!(width(&line) <= columns.max(2));
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
