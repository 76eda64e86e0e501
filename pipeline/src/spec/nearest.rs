//! The right name that a mistyped one is closest to.
//!
//! The distance counts insertions, deletions, replacements and swaps of neighbours,
//! because those are the slips of a hand. A hint that is far off is worse than none,
//! so a name may differ from what was written in a third of its characters at most.

use tinylm_registry::nearest::edits;

/// Returns the candidate that `name` was most likely meant to be; the first of several alike.
pub fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
) -> Option<&'a str> {
    let written: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let candidate = candidate.as_ref();
        let known: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let far = slips_max(written.len().max(known.len()));
        if slips_min(&written, &known) > far {
            continue;
        }
        let slips = edits(&written, &known);
        if slips <= far && best.is_none_or(|(least, _)| slips < least) {
            best = Some((slips, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// A third of the longer name, and one slip even in a name of two letters. Capped, so
/// that the work on absurdly long names stays small.
fn slips_max(len: usize) -> usize {
    if len <= 1 { 0 } else { (len / 3).clamp(1, 8) }
}

/// A quick lower bound: a slip mends one character, or the length by one.
fn slips_min(a: &[char], b: &[char]) -> usize {
    let letters = |name: &[char]| name.iter().fold(0u64, |set, c| set | 1 << (*c as u32 % 64));
    let (in_a, in_b) = (letters(a), letters(b));
    let only = |set: u64| set.count_ones() as usize;
    let lengths = a.len().abs_diff(b.len());
    lengths.max(only(in_a & !in_b)).max(only(in_b & !in_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised() {
        let names = ["unique", "tokens", "lr"];
        assert_eq!(nearest("unqiue", names), Some("unique"));
        assert_eq!(nearest("token", names), Some("tokens"));
        assert_eq!(nearest("LR", names), Some("lr"));
        assert_eq!(nearest("l", names), Some("lr"));
    }

    #[test]
    fn a_far_off_name_gets_no_hint() {
        assert_eq!(nearest("perplexity", ["unique", "tokens"]), None);
        assert_eq!(nearest("", ["a"]), None);
        assert_eq!(nearest("a", Vec::<String>::new().iter()), None);
    }
}
