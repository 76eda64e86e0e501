//! Expectations of bytes: their length and digests, as a pin, a hub or the author says.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use tinylm_pipeline::{At, StageError};

/// Known of a body beforehand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Expected {
    pub(crate) bytes: Option<u64>,
    pub(crate) digests: Vec<(Algorithm, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Blake3,
    Sha256,
    /// Git's digest of a file: SHA-1 with the length in front.
    Git,
}

/// Checks a whole body; one that is wrong is not kept.
pub(crate) fn verify(path: &Path, expected: &Expected, name: &str) -> Result<(), StageError> {
    let Err(error) = check(path, expected, name) else {
        return Ok(());
    };
    fs::remove_file(path).at(path)?;
    Err(error)
}

/// `verify` that leaves the file alone.
pub(crate) fn check(path: &Path, expected: &Expected, name: &str) -> Result<(), StageError> {
    let n_bytes = fs::metadata(path).at(path)?.len();
    if expected.bytes.is_some_and(|bytes| bytes != n_bytes) {
        let bytes = expected.bytes.unwrap_or_default();
        let message = format!("`{name}` has {n_bytes} bytes where {bytes} were promised");
        return Err(wrong(message));
    }
    for (algorithm, wanted) in &expected.digests {
        let found = algorithm.digest(path)?;
        if !found.eq_ignore_ascii_case(wanted) {
            let algorithm = algorithm.name();
            return Err(wrong(format!(
                "`{name}` has the {algorithm} digest {found}, not {wanted}"
            )));
        }
    }
    Ok(())
}

fn wrong(message: String) -> StageError {
    StageError::new(message)
        .help("what lies there has changed: `tinylm update` takes it as it is now")
        .is_final()
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Git => "git",
        }
    }

    pub(crate) fn digest(self, path: &Path) -> Result<String, StageError> {
        match self {
            Self::Blake3 => Ok(crate::shared::files::digest(path)?.to_hex().to_string()),
            Self::Sha256 => read_into(path, Sha256::new()),
            Self::Git => {
                let n_bytes = fs::metadata(path).at(path)?.len();
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {n_bytes}\0"));
                read_into(path, hasher)
            }
        }
    }
}

fn read_into<D: Digest>(path: &Path, mut hasher: D) -> Result<String, StageError> {
    let mut file = File::open(path).at(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n_read = file.read(&mut buffer).at(path)?;
        if n_read == 0 {
            break;
        }
        hasher.update(&buffer[..n_read]);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
