//! Cleaning and bounds, all off until they are asked for.
//!
//! Cleaning changes what is said, bounds decide what is kept; both look at contents
//! alone and need no language. Ids are taken before any of this, so that turning a
//! setting moves no document across a split.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use tinylm_pipeline::settings;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::words;

settings! {
    /// What is changed in contents.
    pub struct Cleaning {
        /// Unicode's composed form (NFC).
        pub nfc: bool = false,
        /// Repairs UTF-8 that was once read as Windows-1252: `â€™`.
        pub mojibake: bool = false,
        /// Drops control and invisible characters; line ends become one newline.
        pub control: bool = false,
        /// Trims, and leaves one space or at most one blank line between words.
        pub whitespace: bool = false,
        /// DailyDialog's spacing and apostrophes: `don ’ t stop .` becomes `don't stop.`
        pub dailydialog: bool = false,
        /// The forty-one form: lower case, spaces around punctuation.
        pub spaced: bool = false,
        /// Cuts Project Gutenberg's header and licence off.
        pub gutenberg: bool = false,
        /// Words and what stands in their place, whatever their case: `{luna: assistant}`.
        pub words: BTreeMap<String, String> = BTreeMap::new() => neutral BTreeMap::<String, String>::new(),
    }
}

impl Cleaning {
    pub(crate) const OFF: Self = Self {
        nfc: false,
        mojibake: false,
        control: false,
        whitespace: false,
        dailydialog: false,
        spaced: false,
        gutenberg: false,
        words: BTreeMap::new(),
    };

    /// Returns a content cleaned; the order is from bytes to words.
    pub(crate) fn clean<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        let mut text = text;
        for (on, step) in [
            (
                self.gutenberg,
                without_licence as fn(&str) -> Option<String>,
            ),
            (self.mojibake, repaired),
            (self.nfc, composed),
            (self.control, without_control),
        ] {
            text = changed(on, step, text);
        }
        if let Some(replaced) = words::replaced(&text, &self.words) {
            text = Cow::Owned(replaced);
        }
        for (on, step) in [
            (self.dailydialog, unspaced as fn(&str) -> Option<String>),
            (self.spaced, spaced),
            (self.whitespace, tidied),
        ] {
            text = changed(on, step, text);
        }
        text
    }
}

fn changed<'a>(on: bool, step: fn(&str) -> Option<String>, text: Cow<'a, str>) -> Cow<'a, str> {
    match on.then(|| step(&text)).flatten() {
        Some(changed) => Cow::Owned(changed),
        None => text,
    }
}

settings! {
    /// What is kept, by length and by look.
    pub struct Bounds {
        /// The fewest characters of content a document may have.
        pub chars_min: Option<u64> = None,
        /// The most characters of content.
        pub chars_max: Option<u64> = None,
        /// The fewest turns of a dialogue.
        pub turns_min: Option<u64> = None,
        /// The most turns.
        pub turns_max: Option<u64> = None,
        /// The largest share of characters that are neither letters, digits nor spaces.
        pub symbols_max: Option<f64> = None,
        /// The largest share of words that stand in a three-word sequence seen before in the document.
        pub repetition_max: Option<f64> = None,
    }
}

impl Bounds {
    pub(crate) const OFF: Self = Self {
        chars_min: None,
        chars_max: None,
        turns_min: None,
        turns_max: None,
        symbols_max: None,
        repetition_max: None,
    };

    /// Returns which bound a document breaks. `n_turns` is `None` for raw text.
    pub(crate) fn broken(&self, n_turns: Option<usize>, contents: &[&str]) -> Option<String> {
        if *self == Self::OFF {
            return None;
        }
        self.turns_broken(n_turns)
            .or_else(|| self.chars_broken(contents))
            .or_else(|| self.look_broken(contents))
    }

    fn turns_broken(&self, n_turns: Option<usize>) -> Option<String> {
        let n_turns = n_turns? as u64;
        if self.turns_min.is_some_and(|min| n_turns < min) {
            return Some("fewer turns than `turns_min`".to_owned());
        }
        let over = self.turns_max.is_some_and(|max| n_turns > max);
        over.then(|| "more turns than `turns_max`".to_owned())
    }

    fn chars_broken(&self, contents: &[&str]) -> Option<String> {
        if self.chars_min.is_none() && self.chars_max.is_none() {
            return None;
        }
        let n_chars: u64 = contents
            .iter()
            .map(|text| text.chars().count() as u64)
            .sum();
        if self.chars_min.is_some_and(|min| n_chars < min) {
            return Some("shorter than `chars_min`".to_owned());
        }
        let over = self.chars_max.is_some_and(|max| n_chars > max);
        over.then(|| "longer than `chars_max`".to_owned())
    }

    fn look_broken(&self, contents: &[&str]) -> Option<String> {
        if self
            .symbols_max
            .is_some_and(|max| symbol_share(contents) > max)
        {
            return Some("more symbols than `symbols_max`".to_owned());
        }
        let over = self
            .repetition_max
            .is_some_and(|max| repeated_share(contents) > max);
        over.then(|| "more repetition than `repetition_max`".to_owned())
    }
}

fn symbol_share(contents: &[&str]) -> f64 {
    let (mut n_symbols, mut n_chars) = (0_u64, 0_u64);
    for c in contents.iter().flat_map(|text| text.chars()) {
        n_chars += 1;
        n_symbols += u64::from(!c.is_alphanumeric() && !c.is_whitespace());
    }
    n_symbols as f64 / n_chars.max(1) as f64
}

fn repeated_share(contents: &[&str]) -> f64 {
    let words: Vec<&str> = contents
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    let mut seen: HashMap<&[&str], ()> = HashMap::with_capacity(words.len());
    let mut n_repeated = 0_usize;
    for window in words.windows(3) {
        n_repeated += usize::from(seen.insert(window, ()).is_some());
    }
    n_repeated as f64 / words.len().saturating_sub(2).max(1) as f64
}

/// Returns the text between Gutenberg's own marks.
fn without_licence(text: &str) -> Option<String> {
    let start = mark(text, "*** START OF").or_else(|| mark(text, "***START OF"));
    let body = start.map_or(text, |(_, after)| &text[after..]);
    let end = mark(body, "*** END OF")
        .or_else(|| mark(body, "***END OF"))
        .or_else(|| mark(body, "End of the Project Gutenberg"))
        .or_else(|| mark(body, "End of Project Gutenberg"));
    if start.is_none() && end.is_none() {
        return None;
    }
    let body = end.map_or(body, |(before, _)| &body[..before]);
    Some(body.trim().to_owned())
}

/// Returns where the line with a mark begins and where the next one does.
fn mark(text: &str, what: &str) -> Option<(usize, usize)> {
    let at = text.find(what)?;
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline + 1);
    Some((start, end))
}

fn composed(text: &str) -> Option<String> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => None,
        _ => Some(text.nfc().collect()),
    }
}

/// Repairs each run of characters beyond ASCII that, taken as Windows-1252 bytes, is UTF-8.
fn repaired(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| !c.is_ascii()) {
        out.push_str(&rest[..start]);
        let run = &rest[start..];
        let end = run.find(|c: char| c.is_ascii()).unwrap_or(run.len());
        match as_utf8(&run[..end]) {
            Some(fixed) => out.push_str(&fixed),
            None => out.push_str(&run[..end]),
        }
        rest = &run[end..];
    }
    out.push_str(rest);
    Some(out)
}

fn as_utf8(run: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = run.chars().map(windows_1252).collect();
    String::from_utf8(bytes?).ok()
}

fn windows_1252(c: char) -> Option<u8> {
    /// What Windows-1252 has from 0x80 to 0x9f where Latin-1 has controls.
    const HIGH: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    if let Some(idx) = HIGH.chars().position(|high| high == c) {
        return Some(0x80 + idx as u8);
    }
    u8::try_from(u32::from(c)).ok()
}

fn without_control(text: &str) -> Option<String> {
    let is_clean = text
        .bytes()
        .all(|byte| byte == b'\n' || byte == b'\t' || (0x20..0x7f).contains(&byte));
    if is_clean {
        return None;
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let invisible = |c: &char| {
        matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}'
        )
    };
    Some(
        text.chars()
            .filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || invisible(c)))
            .collect(),
    )
}

fn tidied(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut n_blank = 0;
    for line in text.trim().lines() {
        let words = line.split_whitespace();
        let start = out.len();
        for word in words {
            if out.len() > start {
                out.push(' ');
            } else if n_blank > 0 {
                out.push_str(if n_blank > 1 { "\n\n" } else { "\n" });
                n_blank = 0;
            }
            out.push_str(word);
        }
        n_blank += 1;
    }
    Some(out)
}

fn is_closing(c: char) -> bool {
    matches!(c, '.' | ',' | '!' | '?' | ';' | ':' | '%' | ')')
}

/// Joins what DailyDialog's tokenizer took apart.
fn unspaced(text: &str) -> Option<String> {
    const ENDINGS: [&str; 7] = ["s", "t", "m", "d", "re", "ve", "ll"];
    let text = text.replace(['’', '‘'], "'");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut out = String::with_capacity(text.len());
    let mut glued = true;
    for (idx, word) in words.iter().enumerate() {
        let next = words
            .get(idx + 1)
            .map_or("", |next| next.trim_end_matches(is_closing));
        let is_apostrophe = *word == "'" && ENDINGS.contains(&next.to_lowercase().as_str());
        if !(glued || is_apostrophe || word.starts_with(is_closing)) {
            out.push(' ');
        }
        out.push_str(word);
        glued = is_apostrophe;
    }
    Some(out)
}

/// Lower case, with a space on either side of punctuation.
fn spaced(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_alphanumeric() || c.is_whitespace() || matches!(c, '\'' | '-' | '’') {
            out.extend(c.to_lowercase());
        } else {
            out.extend([' ', c, ' ']);
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, set: impl Fn(&mut Cleaning)) -> String {
        let mut cleaning = Cleaning::OFF;
        set(&mut cleaning);
        cleaning.clean(Cow::Borrowed(text)).into_owned()
    }

    #[test]
    fn nothing_is_changed_unless_asked() {
        let text = " don ’ t â€™ \u{7} e\u{301} ";
        assert!(
            matches!(Cleaning::OFF.clean(Cow::Borrowed(text)), Cow::Borrowed(same) if same == text)
        );
    }

    #[test]
    fn words_are_replaced_before_their_case_is_lost() {
        let text = changed("I'm LUNA!", |cleaning| {
            cleaning.spaced = true;
            cleaning.words = BTreeMap::from([("Luna".to_owned(), "Your Friend".to_owned())]);
        });
        assert_eq!(text, "i'm your friend !");
    }

    #[test]
    fn each_step_does_what_it_says() {
        assert_eq!(changed("e\u{301}", |on| on.nfc = true), "é");
        assert_eq!(
            changed("itâ€™s a cafÃ©, né?", |on| on.mojibake = true),
            "it’s a café, né?"
        );
        assert_eq!(
            changed("a\r\nb\u{7}\u{feff}c\td", |on| on.control = true),
            "a\nbc\td"
        );
        assert_eq!(
            changed("  a  b \n\n\n\n c\nd ", |on| on.whitespace = true),
            "a b\n\nc\nd"
        );
        assert_eq!(
            changed("I don ’ t know , it ' s fine . Really ?", |on| on
                .dailydialog =
                true),
            "I don't know, it's fine. Really?"
        );
        assert_eq!(
            changed("How are you?Fine.", |on| on.spaced = true),
            "how are you ? fine ."
        );
    }

    #[test]
    fn a_licence_is_cut_off_both_ends() {
        let book = "Project Gutenberg\n*** START OF THIS BOOK ***\n\nTo be.\n\n*** END OF THIS BOOK ***\nTerms";
        assert_eq!(changed(book, |on| on.gutenberg = true), "To be.");
        assert_eq!(changed("To be.", |on| on.gutenberg = true), "To be.");
    }

    #[test]
    fn bounds_name_the_setting_that_is_broken() {
        let broken = |bounds: Bounds, text: &str| bounds.broken(Some(2), &[text]);
        let bounds = || Bounds::OFF;
        assert_eq!(broken(bounds(), ""), None);
        let short = Bounds {
            chars_min: Some(3),
            ..bounds()
        };
        assert!(broken(short.clone(), "éé").unwrap().contains("chars_min"));
        assert_eq!(broken(short, "ééé"), None);
        let noisy = Bounds {
            symbols_max: Some(0.4),
            ..bounds()
        };
        assert!(broken(noisy, "a#$%").unwrap().contains("symbols_max"));
        let dull = Bounds {
            repetition_max: Some(0.5),
            ..bounds()
        };
        assert!(
            broken(dull.clone(), "no no no no no no no")
                .unwrap()
                .contains("repetition_max")
        );
        assert_eq!(broken(dull, "the quick brown fox jumps"), None);
        let long = Bounds {
            turns_max: Some(1),
            ..bounds()
        };
        assert!(broken(long, "x").unwrap().contains("turns_max"));
    }
}
