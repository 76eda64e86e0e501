//! Opening a file that a person named, which must be a plain one.
//!
//! A pipe without a writer, or a device, would be read for ever.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::Path,
};

/// Opens a plain file; anything else is an error that says what it is.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?.file_type();
    if found.is_file() {
        return File::open(path);
    }
    let what = match found {
        found if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a file")))
}

/// Reads a plain file whole.
pub fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_plain_file_is_opened_and_anything_else_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        assert_eq!(read_plain(&path("file")).unwrap(), b"text");

        let _socket = UnixListener::bind(path("socket")).unwrap();
        let said = |path: &Path| open_plain(path).unwrap_err().to_string();
        assert_eq!(said(&path("socket")), "it is a socket, not a file");
        assert_eq!(said(Path::new("/dev/zero")), "it is a device, not a file");
        let error = open_plain(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
