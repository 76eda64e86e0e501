//! A small document behind a line that holds its digest, so that a wrong byte is noticed.
//!
//! The digest guards against accidents only: whoever may write keys may say what they please of
//! them, short of bytes that are not what their digest says.

use serde::{Serialize, de::DeserializeOwned};
use tinylm_registry::Digest;

use crate::fault::Fault;

const HEAD: &str = "tinylm remote";
const VERSION: u32 = 1;

/// The longest document that is read.
pub(crate) const BYTES_MAX: u64 = 4 << 20;

pub(crate) fn write(value: &impl Serialize) -> Result<Vec<u8>, Fault> {
    let json = serde_json::to_vec(value).map_err(|error| Fault::Here(error.to_string()))?;
    let digest = Digest::of_bytes(&json);
    let mut text = format!("{HEAD} {VERSION} {digest}\n").into_bytes();
    text.extend(json);
    Ok(text)
}

pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let wrong = |what: &str| Fault::Wrong(what.to_owned());
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, json) = bytes.split_at(end.ok_or_else(|| wrong("is torn"))?);
    let (json, head) = (&json[1..], str::from_utf8(head).unwrap_or_default());
    let rest = head
        .strip_prefix(HEAD)
        .and_then(|rest| rest.trim_start().split_once(' '));
    let (version, digest) = rest.ok_or_else(|| wrong("is torn"))?;
    match version.parse() {
        Ok(VERSION) => {}
        Ok(0_u32) | Err(_) => return Err(wrong("is torn")),
        Ok(_) => return Err(wrong("is of a newer tinylm")),
    }
    if digest.parse::<Digest>().ok() != Some(Digest::of_bytes(json)) {
        return Err(wrong("has other contents than its first line says"));
    }
    serde_json::from_slice(json).map_err(|_| wrong("cannot be understood"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_wrong_byte_is_noticed() {
        let whole = write(&vec!["a", "b"]).unwrap();
        assert_eq!(read::<Vec<String>>(&whole).unwrap(), ["a", "b"]);
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(read::<Vec<String>>(&wrong).is_err(), "byte {at}");
            assert!(read::<Vec<String>>(&whole[..at]).is_err(), "cut at {at}");
        }
        let newer = String::from_utf8(whole)
            .unwrap()
            .replace("remote 1 ", "remote 2 ");
        let error = read::<Vec<String>>(newer.as_bytes()).unwrap_err();
        assert_eq!(error, Fault::Wrong("is of a newer tinylm".to_owned()));
    }
}
