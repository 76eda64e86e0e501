//! Text that came from outside, made fit to stand in a page.
//!
//! One function for text and attributes, one for data in a script; there is no third way in. The
//! page's own policy would stop a script that slipped through, but none is to get that far.

use std::borrow::Cow;

use crate::{block::Tone, text::clean_lines};

/// Returns text as HTML: nothing in it a tag, an entity or the end of an attribute.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    let cleaned = clean_lines(text);
    let is_markup = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'' | '`');
    if !cleaned.contains(is_markup) {
        return cleaned;
    }
    let mut escaped = String::with_capacity(cleaned.len() + 16);
    for c in cleaned.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '`' => escaped.push_str("&#96;"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Returns a name as HTML that a narrow screen may break behind its dots and underscores.
pub(super) fn breakable(name: &str) -> String {
    escaped(name).replace('_', "_<wbr>").replace('.', ".<wbr>")
}

/// Returns a word as a CSS class: letters only.
pub(super) fn class_of_word(word: &str) -> String {
    word.chars().filter(char::is_ascii_lowercase).collect()
}

pub(super) fn class_of_tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain | Tone::Series(_) => "",
        Tone::Strong => "strong",
        Tone::Quiet => "quiet",
        Tone::Good => "good",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
        Tone::Best => "best",
    }
}

/// Returns JSON that no HTML parser takes for anything but text: `<`, `>` and `&` are spelt out.
pub(super) fn script_json(json: &str) -> String {
    let cleaned = clean_lines(json);
    let mut safe = String::with_capacity(cleaned.len());
    for c in cleaned.chars() {
        match c {
            '<' | '>' | '&' => safe.push_str(&format!("\\u{:04x}", c as u32)),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_becomes_text() {
        assert_eq!(
            escaped("<b a='\"'>&\x1b\u{202e}"),
            "&lt;b a=&#39;&quot;&#39;&gt;&amp;␛\u{fffd}"
        );
        assert_eq!(
            script_json("\"</script><!--\""),
            "\"\\u003c/script\\u003e\\u003c!--\""
        );
    }

    proptest! {
        #[test]
        fn data_survives_its_way_into_a_script(text in "\\PC*|[<>&\"'\\\\/a\u{2028}]*") {
            let json = script_json(&serde_json::to_string(&text).unwrap());
            prop_assert!(!json.contains(['<', '>', '&']));
            let expected = clean_lines(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), expected.as_ref());
        }
    }
}
