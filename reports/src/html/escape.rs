//! Text that came from outside, made fit to stand in a page.
//!
//! One function for text and attributes, one for data in a script; there is no third way in. The
//! page's own policy would stop a script that slipped through, but none is to get that far.

use std::borrow::Cow;

/// Returns text as HTML: nothing in it a tag, an entity or the end of an attribute.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text
        .chars()
        .any(|c| matches!(c, '&' | '<' | '>' | '"' | '\'' | '`') || is_hidden(c))
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '`' => escaped.push_str("&#96;"),
            c if is_hidden(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Returns a name as HTML that a narrow screen may break behind its dots and underscores.
pub(super) fn breakable(name: &str) -> String {
    escaped(name).replace('_', "_<wbr>").replace('.', ".<wbr>")
}

/// Control characters, and marks that turn the direction of what follows.
fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => true,
        c => c.is_control(),
    }
}

/// Returns JSON that no HTML parser takes for anything but text: `<`, `>` and `&` are spelt out.
pub(super) fn script_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", c as u32))
            }
            c if is_hidden(c) => safe.push('\u{fffd}'),
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
            "&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{fffd}\u{fffd}"
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
            let expected: String = text.chars().map(|c| if c >= ' ' && is_hidden(c) { '\u{fffd}' } else { c }).collect();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), expected);
        }
    }
}
