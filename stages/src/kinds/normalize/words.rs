//! Words that are put in the place of others, as a name that a corpus gives its assistant.
//!
//! Whole words only, whatever their case: a name stands inside other words too. A longer one comes first, so that
//! `luna ai` is not `luna` and a rest.

use std::collections::BTreeMap;

/// Returns a text with its words replaced, unless it has none of them.
pub(super) fn replaced(text: &str, words: &BTreeMap<String, String>) -> Option<String> {
    let named = words.iter().filter(|(word, _)| !word.is_empty());
    let mut longest_first: Vec<(&String, &String)> = named.collect();
    longest_first.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let is_start = is_edge(text[..at].chars().next_back(), Some(c));
        let found = longest_first.iter().find_map(|(word, by)| {
            let end = at + length_of(word, &text[at..])?;
            let is_end = is_edge(word.chars().next_back(), text[end..].chars().next());
            (is_start && is_end).then_some((end, *by))
        });
        match found {
            Some((end, by)) => {
                out.push_str(&text[copied..at]);
                out.push_str(by);
                (copied, at) = (end, end);
            }
            None => at += c.len_utf8(),
        }
    }
    (copied > 0).then(|| {
        out.push_str(&text[copied..]);
        out
    })
}

/// Whether a word may begin or end between two characters: not between two that are of one.
fn is_edge(before: Option<char>, after: Option<char>) -> bool {
    let is_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !(is_of_word(before) && is_of_word(after))
}

/// How many bytes of a text are this word, if it begins with it.
fn length_of(word: &str, text: &str) -> Option<usize> {
    let mut wanted = word.chars().flat_map(char::to_lowercase).peekable();
    for (at, c) in text.char_indices() {
        if wanted.peek().is_none() {
            return Some(at);
        }
        for lower in c.to_lowercase() {
            if wanted.next() != Some(lower) {
                return None;
            }
        }
    }
    wanted.peek().is_none().then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(words: &[(&str, &str)], text: &str) -> Option<String> {
        let words = words
            .iter()
            .map(|(word, by)| ((*word).to_owned(), (*by).to_owned()));
        replaced(text, &words.collect())
    }

    #[test]
    fn a_name_goes_whatever_its_case_and_other_words_stay() {
        let luna = [("luna", "assistant")];
        let text = "I am Luna. LUNA's lunar, a-luna_b, luna";
        let expected = "I am assistant. assistant's lunar, a-luna_b, assistant";
        assert_eq!(by(&luna, text).unwrap(), expected);
        for text in ["", "lunatic", "falluna", "Lunaé"] {
            assert_eq!(by(&luna, text), None, "{text}");
        }
    }

    #[test]
    fn the_longest_comes_first_and_what_was_put_there_is_not_read_again() {
        let words = [
            ("luna", "luna ai"),
            ("luna ai", "the model"),
            ("STRASSE", "way"),
        ];
        assert_eq!(by(&words, "luna, Luna AI").unwrap(), "luna ai, the model");
        assert_eq!(by(&words, "eine Strasse").unwrap(), "eine way");
        assert_eq!(
            by(&[("ÖL", "oil")], "öl und Ölberg").unwrap(),
            "oil und Ölberg"
        );
        assert_eq!(
            by(&[("c++", "rust")], "C++ and c+++").unwrap(),
            "rust and rust+"
        );
        assert_eq!(by(&[("", "x")], "a b"), None, "nothing is no word");
    }
}
