//! The name of some bytes: blake3, 32 bytes, written as 64 hex digits.
//!
//! A large file is hashed as blake3's tree: each thread reads its own quarter-megabyte pieces with
//! `pread` and hashes them while they are still in its cache. The obvious other thing, a memory
//! map, was rejected because a file that shrinks while it is mapped kills the process with SIGBUS,
//! and a user's file may shrink at any moment.

use std::{cell::RefCell, fmt, fs::File, io, os::unix::fs::FileExt, path::Path, str::FromStr};

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Error;

/// A power of two, so that every full piece is a whole subtree of blake3.
const PIECE: u64 = 256 * 1024;

/// The blake3 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first eight hex digits, enough to tell digests apart by eye.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Digest(hash.into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest of 64 hex digits")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Lower case only: one digest has one spelling, because it is also a file name.
    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let error = || ParseDigestError(text.to_owned());
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(error());
        }
        blake3::Hash::from_hex(text)
            .map(Digest::from)
            .map_err(|_| error())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The digest and length of the file at `path`, hashed on all cores when it is large.
pub fn hash_file(path: &Path) -> Result<(Digest, u64), Error> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let bytes = file
        .metadata()
        .map_err(|error| Error::io("read", path, error))?
        .len();
    match hash_open_file(&file, bytes) {
        Ok(digest) => Ok((digest, bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::ChangedWhileRead { path: path.into() })
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn hash_open_file(file: &File, bytes: u64) -> io::Result<Digest> {
    if bytes <= PIECE {
        return read_piece(file, 0, bytes, Digest::of_bytes);
    }
    let (left, right) = halves(file, 0, bytes)?;
    Ok(hazmat::merge_subtrees_root(&left, &right, Mode::Hash).into())
}

fn halves(file: &File, offset: u64, bytes: u64) -> io::Result<(ChainingValue, ChainingValue)> {
    let left_bytes = hazmat::left_subtree_len(bytes);
    let (left, right) = rayon::join(
        || subtree(file, offset, left_bytes),
        || subtree(file, offset + left_bytes, bytes - left_bytes),
    );
    Ok((left?, right?))
}

fn subtree(file: &File, offset: u64, bytes: u64) -> io::Result<ChainingValue> {
    if bytes <= PIECE {
        return read_piece(file, offset, bytes, |piece| {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(offset).update(piece);
            hasher.finalize_non_root()
        });
    }
    let (left, right) = halves(file, offset, bytes)?;
    Ok(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
}

/// Reads a piece into the thread's own buffer: a new one each time costs as much as the hashing.
fn read_piece<T>(
    file: &File,
    offset: u64,
    bytes: u64,
    hash: impl FnOnce(&[u8]) -> T,
) -> io::Result<T> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        file.read_exact_at(&mut buffer[..bytes], offset)?;
        Ok(hash(&buffer[..bytes]))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn hashed(bytes: &[u8]) -> Digest {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, bytes).unwrap();
        let (digest, length) = hash_file(&path).unwrap();
        assert_eq!(length, bytes.len() as u64);
        digest
    }

    #[test]
    fn a_file_hashes_as_its_bytes_do_at_every_length_around_a_piece() {
        let piece = PIECE as usize;
        let bytes: Vec<u8> = (0..3 * piece + 7).map(|i| (i * 31 % 251) as u8).collect();
        for length in [
            0,
            1,
            1024,
            piece - 1,
            piece,
            piece + 1,
            2 * piece,
            2 * piece + 1,
            3 * piece,
            bytes.len(),
        ] {
            assert_eq!(
                hashed(&bytes[..length]),
                Digest::of_bytes(&bytes[..length]),
                "{length}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = hash_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "could not open `/no/such/file`");
    }

    proptest! {
        #[test]
        fn a_digest_reads_back_from_what_it_prints(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
            prop_assert!(digest.to_string().starts_with(&digest.short()));
        }

        #[test]
        fn nothing_but_64_lower_case_hex_digits_is_a_digest(text in "[0-9a-fA-Fg ]{0,66}") {
            let fits = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            prop_assert_eq!(text.parse::<Digest>().is_ok(), fits);
        }
    }
}
