//! Secrets in addresses: a password before an `@`, a token or a signature behind a `?`.
//!
//! They stand in the experiment file, if they must, and go to the server that they are for.
//! Whatever is written down or said has [`MASK`] in their place. Only parameters whose names tell
//! are masked: any other may say which file is meant, and two files must not share a pin. A secret
//! may be spelt with percent signs, whole addresses within addresses too.

use std::ops::Range;

/// In place of a secret.
pub const MASK: &str = "[secret]";

/// Shorter ones are masked where an address shows them, but not wherever else they may stand.
const TELLING_LEN: usize = 6;

/// Returns a text with the secrets of every address in it masked.
pub fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for span in spans(text) {
        masked.push_str(&text[done..span.start]);
        masked.push_str(MASK);
        done = span.end;
    }
    masked + &text[done..]
}

/// The same with a text as long as before, so that whoever points into it still points right.
pub fn starred(text: &str) -> String {
    let mut starred = text.to_owned();
    for span in spans(text) {
        starred.replace_range(span.clone(), &"*".repeat(span.len()));
    }
    starred
}

/// Returns the other spellings of a secret: as an address has it, and as it is meant.
pub fn spellings(secret: &str) -> Vec<String> {
    let (meant, _) = decoded(secret);
    let encoded = |digits: fn(u8) -> String| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let bytes = meant.bytes().map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => digits(byte),
        });
        bytes.collect::<String>()
    };
    let upper = encoded(|byte| format!("%{byte:02X}"));
    let lower = encoded(|byte| format!("%{byte:02x}"));
    let mut spellings = vec![meant, upper, lower];
    spellings.retain(|spelling| spelling != secret);
    spellings.dedup();
    spellings
}

/// Returns a text without percent signs, and where each of its bytes, and its end, stood before.
fn decoded(text: &str) -> (String, Vec<usize>) {
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < text.len() {
        let digits = text.as_bytes()[at..].strip_prefix(b"%");
        let digits = digits.and_then(|rest| str::from_utf8(rest.get(..2)?).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        places.push(at);
        bytes.push(byte.unwrap_or(text.as_bytes()[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    places.push(text.len());
    String::from_utf8(bytes).map_or_else(|_| (text.to_owned(), Vec::new()), |text| (text, places))
}

/// The secrets of all addresses in a text, to be masked elsewhere too: a variable may hold one.
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn of(text: &str) -> Self {
        let secrets = spans(text).into_iter().map(|span| text[span].to_owned());
        let parts = secrets.flat_map(|secret| match secret.split_once(':') {
            Some((_, password)) => vec![password.to_owned(), secret],
            None => vec![secret],
        });
        let all = parts.flat_map(|part| [spellings(&part), vec![part]].concat());
        Self(all.filter(|part| part.len() >= TELLING_LEN).collect())
    }

    pub fn into_vec(self) -> Vec<String> {
        self.0
    }

    pub fn mask(&self, text: &str) -> String {
        let masked = masked(text);
        let secrets = self.0.iter();
        secrets.fold(masked, |text, secret| text.replace(secret, MASK))
    }
}

/// Where secrets stand in a text, in order.
fn spans(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let ends = |c: char| c.is_whitespace() || "\"'`<>\\|".contains(c);
        let end = text[start..].find(ends).map_or(text.len(), |n| start + n);
        let mut address = &text[start..end];
        while !address.ends_with(MASK)
            && let Some(shorter) = address.strip_suffix([',', '}', ']', ')'])
        {
            address = shorter;
        }
        in_address(address, start, &mut spans);
        from = end;
    }
    spans
}

/// `address` is what stands behind the `://`, at `start` of its text.
fn in_address(address: &str, start: usize, spans: &mut Vec<Range<usize>>) {
    let host_end = address.find(['/', '?', '#']).unwrap_or(address.len());
    if let Some(user_end) = address[..host_end].rfind('@') {
        let user = &address[..user_end];
        let password = user.split_once(':').map_or(user, |(_, password)| password);
        if is_written_out(password) {
            spans.push(start..start + user_end);
        }
    }
    let mut at = host_end;
    for part in address[host_end..].split_inclusive(['?', '&', '#', ';']) {
        let parameter = part.trim_end_matches(['?', '&', '#', ';']);
        if let Some((name, value)) = parameter.split_once('=') {
            let value_at = at + start + name.len() + 1;
            if !is_secret(&decoded(name).0) {
                in_value(value, value_at, spans);
            } else if is_written_out(value) {
                spans.push(value_at..value_at + value.len());
            }
        }
        at += part.len();
    }
}

/// The secrets in a value that is an address, or the end of one, spelt with percent signs.
fn in_value(value: &str, start: usize, spans_found: &mut Vec<Range<usize>>) {
    /// Before a path that stands alone.
    const HOST: &str = "://x/?";
    let (meant, places) = decoded(value);
    if meant == value {
        return;
    }
    let (before, inner) = match spans(&meant) {
        none if none.is_empty() => (HOST.len(), spans(&format!("{HOST}{meant}"))),
        inner => (0, inner),
    };
    let place = |at: usize| start + places[at - before];
    spans_found.extend(inner.iter().map(|span| place(span.start)..place(span.end)));
}

/// Whether a value is more than the name of a variable that holds it.
fn is_written_out(value: &str) -> bool {
    let is_variable = value.starts_with("${") || value.starts_with("{env.") || value == MASK;
    !value.is_empty() && !is_variable
}

/// Whether a parameter or variable of this name holds what is nobody else's business.
pub fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 11] = [
        "token",
        "signature",
        "secret",
        "passw",
        "pwd",
        "oauth",
        "authorization",
        "credential",
        "session",
        "policy",
        "keypair",
    ];
    const WHOLE: [&str; 7] = ["sig", "auth", "pw", "pass", "jwt", "sas", "code"];
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    PARTS.iter().any(|part| name.contains(part))
        || WHOLE.contains(&&*name)
        || name.ends_with("key")
        || name.ends_with("keyid")
        || name.starts_with("xamz")
        || name.starts_with("xgoog")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_all_else_stays() {
        let masked = |address: &str| masked(address);
        for (address, shown) in [
            ("https://x.org/a?b=1#c", "https://x.org/a?b=1#c"),
            ("https://me:pw@x.org/a@b", "https://[secret]@x.org/a@b"),
            ("https://ghp_1@x.org", "https://[secret]@x.org"),
            (
                "https://x/?file=3&token=a&x=y",
                "https://x/?file=3&token=[secret]&x=y",
            ),
            (
                "https://x/a?X-Amz-Signature=1f&X-Amz-Date=2",
                "https://x/a?X-Amz-Signature=[secret]&X-Amz-Date=[secret]",
            ),
            ("https://x/a?sig=q%2F&sv=1", "https://x/a?sig=[secret]&sv=1"),
            (
                "https://x/a#access_token=q",
                "https://x/a#access_token=[secret]",
            ),
            ("https://x/a?api_key=${key}", "https://x/a?api_key=${key}"),
            (
                "https://me:{env.PW}@x/a?key={env.K}",
                "https://me:{env.PW}@x/a?key={env.K}",
            ),
            (
                "https://x/?to%6ben=abc&a=%41",
                "https://x/?to%6ben=[secret]&a=%41",
            ),
            (
                "https://x/?next=https%3A%2F%2Fme%3Apw%40y%2F&n=2",
                "https://x/?next=https%3A%2F%2F[secret]%40y%2F&n=2",
            ),
            (
                "https://x/?next=%2Fa%3Ftoken%3Dabc&file=a%20b",
                "https://x/?next=%2Fa%3Ftoken%3D[secret]&file=a%20b",
            ),
            (
                "{ url: https://x/?key=abc, sha256: 1 }",
                "{ url: https://x/?key=[secret], sha256: 1 }",
            ),
            ("no address: me:pw@x?token=1", "no address: me:pw@x?token=1"),
        ] {
            assert_eq!(masked(address), shown);
            assert_eq!(masked(shown), shown, "masked twice");
        }
    }

    #[test]
    fn a_secret_of_an_address_is_masked_wherever_else_it_stands() {
        let secrets = Secrets::of(r#"{"url":"https://me:hunter22@x/?token=abcdef&key=1"}"#);
        let text = "vars: { token: abcdef, password: hunter22, n: 1 }";
        let masked = "vars: { token: [secret], password: [secret], n: 1 }";
        assert_eq!(secrets.mask(text), masked);
    }

    #[test]
    fn a_secret_is_masked_in_every_spelling() {
        let secrets = Secrets::of("https://me:p%40ss/word@x/?token=ab%2fcd%2Bef");
        for spelling in ["ab/cd+ef", "ab%2Fcd%2Bef", "ab%2fcd%2bef", "ab%2fcd%2Bef"] {
            assert_eq!(
                secrets.mask(&format!("is {spelling}.")),
                "is [secret].",
                "{spelling}"
            );
        }
        assert_eq!(spellings("plain"), [""; 0]);
    }

    #[test]
    fn what_is_starred_is_as_long_as_before() {
        let text = "url: https://me:pässword@x/?token=abc # remark";
        let starred = starred(text);
        assert_eq!(starred, "url: https://************@x/?token=*** # remark");
        assert_eq!(starred.len(), text.len());
    }
}
