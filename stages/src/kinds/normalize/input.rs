//! The bytes of a file as UTF-8, whatever encoding they are in.
//!
//! Nothing is guessed: a byte that is none of the encoding that was named is an error, with its place.
//! Only the mark that opens a file of UTF-8 or UTF-16 is believed.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, WINDOWS_1252};
use tinylm_pipeline::{At, StageError};

/// The advice where bytes are not UTF-8.
pub(super) const HINT: &str = "where text is not UTF-8, say what it is: `encoding: windows-1252`, or `latin-1`, `utf-16` and others";

/// Returns an encoding by one of the names that it has on the web.
pub(super) fn encoding(name: &str) -> Option<&'static Encoding> {
    match name {
        "latin-1" => Some(WINDOWS_1252),
        name => Encoding::for_label_no_replacement(name.as_bytes()),
    }
}

pub(super) struct Input {
    path: PathBuf,
    file: File,
    encoding: &'static Encoding,
    /// For anything but UTF-8, whose rows are checked one by one.
    decoder: Option<Decoder>,
    /// How many bytes of the file were read.
    pub(super) n_read: u64,
}

impl Input {
    pub(super) fn open(path: &Path, encoding: &'static Encoding) -> Result<Self, StageError> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path).at(path)?,
            encoding,
            decoder: (encoding != UTF_8).then(|| encoding.new_decoder()),
            n_read: 0,
        })
    }

    /// Reads so many more bytes of the file behind what is in the buffer; returns whether it has no
    /// more.
    pub(super) fn read(&mut self, n_bytes: usize, to: &mut Vec<u8>) -> Result<bool, StageError> {
        let is_first = self.n_read == 0;
        let (before, mut encoded) = (to.len(), Vec::new());
        let bytes = match self.decoder {
            Some(_) => &mut encoded,
            None => &mut *to,
        };
        bytes.reserve(n_bytes);
        let n_read = (&mut self.file).take(n_bytes as u64).read_to_end(bytes);
        let n_read = n_read.at(&self.path)?;
        let at_end = n_read < n_bytes;
        if self.decoder.is_some() {
            self.decode(&encoded, at_end, to)?;
        } else if is_first {
            self.check_mark(to, before)?;
        }
        self.n_read += n_read as u64;
        Ok(at_end)
    }

    fn decode(&mut self, bytes: &[u8], at_end: bool, to: &mut Vec<u8>) -> Result<(), StageError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        let start = to.len();
        let longest = decoder.max_utf8_buffer_length_without_replacement(bytes.len());
        to.resize(start + longest.unwrap_or(4 * bytes.len() + 16), 0);
        let (result, n_read, n_written) =
            decoder.decode_to_utf8_without_replacement(bytes, &mut to[start..], at_end);
        to.truncate(start + n_written);
        match result {
            DecoderResult::InputEmpty => Ok(()),
            _ => {
                let at = self.n_read + n_read as u64;
                let name = self.encoding.name().to_ascii_lowercase();
                Err(self.error(&format!("is not {name} before byte {at}")))
            }
        }
    }

    /// Takes away the mark of UTF-8, and refuses that of UTF-16.
    fn check_mark(&self, bytes: &mut Vec<u8>, from: usize) -> Result<(), StageError> {
        match &bytes[from..] {
            [0xef, 0xbb, 0xbf, ..] => _ = bytes.drain(from..from + 3),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                let error = self.error("is UTF-16, not UTF-8");
                return Err(error.help("write `encoding: utf-16`"));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn error(&self, what: &str) -> StageError {
        StageError::new(format!("`{}`: {what}", self.path.display())).is_final()
    }
}
