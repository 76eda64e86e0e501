//! Texts with case and spacing evened out, and the share that two documents have in common.

/// Appends `text` with case and spacing evened out: no space at either end, one between any
/// two words.
pub(super) fn even_out(text: &str, evened: &mut Vec<u8>) {
    let start = evened.len();
    // Lower case takes at most half as many bytes again.
    evened.resize(start + text.len() + text.len().div_ceil(2), 0);
    let mut out = Evened {
        places: &mut evened[start..],
        n: 0,
        is_behind_space: true,
    };
    let mut at = 0;
    while at < text.len() {
        let chunk = text.as_bytes()[at..].first_chunk();
        let n_even = chunk.map_or(0, |chunk| out.put_even(chunk));
        at += n_even;
        if n_even == CHUNK_BYTES {
            continue;
        }
        // Something else follows; letters that are not ASCII seldom come alone.
        for c in text[at..].chars() {
            out.put(c);
            at += c.len_utf8();
            if c.is_ascii() {
                break;
            }
        }
    }
    let n = out.n - usize::from(out.n > 0 && out.is_behind_space);
    evened.truncate(start + n);
}

const CHUNK_BYTES: usize = 16;

/// Where evened text goes.
struct Evened<'a> {
    /// There is room for all that will come.
    places: &'a mut [u8],
    n: usize,
    /// The last thing put was a space, or nothing was put.
    is_behind_space: bool,
}

impl Evened<'_> {
    /// Puts the start of a chunk that is even but for case, mostly all of it, and returns
    /// its length. Written so that the compiler makes vectors of it.
    fn put_even(&mut self, chunk: &[u8; CHUNK_BYTES]) -> usize {
        let spaces = flags(chunk, |byte| byte == b' ');
        let behind_spaces = spaces << 8 | u128::from(self.is_behind_space);
        let odd = flags(chunk, |byte| !byte.is_ascii() | is_tab_or_line_end(byte));
        let n_even = (odd | spaces & behind_spaces).trailing_zeros() as usize / 8;
        // Bytes written too many are written over.
        let places = &mut self.places[self.n..self.n + CHUNK_BYTES];
        places.copy_from_slice(&chunk.map(|byte| byte.to_ascii_lowercase()));
        self.n += n_even;
        if let Some(last) = n_even.checked_sub(1) {
            self.is_behind_space = chunk[last] == b' ';
        }
        n_even
    }

    fn put(&mut self, c: char) {
        let is_space = c.is_whitespace();
        if is_space {
            // Of several, each is written over the one before it.
            self.places[self.n] = b' ';
            self.n += usize::from(!self.is_behind_space);
        } else if c.is_ascii() {
            self.places[self.n] = c.to_ascii_lowercase() as u8;
            self.n += 1;
        } else {
            for lower in c.to_lowercase() {
                self.n += lower.encode_utf8(&mut self.places[self.n..]).len();
            }
        }
        self.is_behind_space = is_space;
    }
}

/// Returns a byte of one or zero for each byte, in order.
fn flags(chunk: &[u8; CHUNK_BYTES], is_set: impl Fn(u8) -> bool) -> u128 {
    u128::from_le_bytes(chunk.map(|byte| u8::from(is_set(byte))))
}

fn is_tab_or_line_end(byte: u8) -> bool {
    byte.wrapping_sub(b'\t') < 5
}

/// Returns the share of n-grams that two sorted sets have in common.
pub(super) fn jaccard(a: &[u64], b: &[u64]) -> f32 {
    let (mut i, mut j, mut common) = (0, 0, 0_usize);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    let all = a.len() + b.len() - common;
    if all == 0 {
        1.0
    } else {
        common as f32 / all as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_spacing_are_evened_out_and_nothing_else() {
        let evened = |text: &str| {
            let mut evened = Vec::new();
            even_out(text, &mut evened);
            String::from_utf8(evened).unwrap()
        };
        assert_eq!(evened("  The\tCat \n Été "), "the cat été");
        let pieces = [
            "A", "The Cat", " ", "  ", "\t", "\r\n", "\u{b}", "É", "\u{a0}", "\u{85}", "Ⱥ",
        ];
        let long = "Twenty-one LETTERS, and more";
        let n_pieces = pieces.len();
        for n in 0..n_pieces.pow(3) {
            let [a, b, c] =
                [n / n_pieces.pow(2), n / n_pieces, n].map(|idx| pieces[idx % n_pieces]);
            for text in [format!("{a}{b}{c}"), format!("{a}{long}{b}{long}{c}")] {
                let words = text.split_whitespace();
                let words: Vec<String> = words.map(str::to_lowercase).collect();
                assert_eq!(evened(&text), words.join(" "), "{text:?}");
            }
        }
        assert_eq!(evened(""), "");
        assert_ne!(evened("1+1"), evened("1-1"));
    }

    #[test]
    fn jaccard_is_the_common_share() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[1], &[2]), 0.0);
        assert_eq!(jaccard(&[7, 9], &[7, 9]), 1.0);
    }
}
