//! Secrets in addresses: a password before an `@`, a token or a signature behind a `?`.
//!
//! They stand in the experiment file, if they must, and go to the server that they are for.
//! Whatever is written down or said has [`MASK`] in their place. Only parameters whose names tell
//! are masked: any other may say which file is meant, and two files must not share a pin.

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

/// The secrets of all addresses in a text, to be masked elsewhere too: a variable may hold one.
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn of(text: &str) -> Self {
        let secrets = spans(text).into_iter().map(|span| text[span].to_owned());
        let parts = secrets.flat_map(|secret| match secret.split_once(':') {
            Some((_, password)) => vec![password.to_owned(), secret],
            None => vec![secret],
        });
        Self(parts.filter(|part| part.len() >= TELLING_LEN).collect())
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
        if let Some((name, value)) = parameter.split_once('=')
            && is_secret(name)
            && is_written_out(value)
        {
            spans.push(at + start + name.len() + 1..at + start + parameter.len());
        }
        at += part.len();
    }
}

/// Whether a value is more than the name of a variable that holds it.
fn is_written_out(value: &str) -> bool {
    let is_variable = value.starts_with("${") || value.starts_with("{env.") || value == MASK;
    !value.is_empty() && !is_variable
}

/// Whether a parameter of this name holds what is nobody else's business.
fn is_secret(name: &str) -> bool {
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
}
