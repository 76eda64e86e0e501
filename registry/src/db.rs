//! Opening the registry: one SQLite file, written to by many processes at once.
//!
//! Write-ahead logging lets readers and one writer work side by side; every write is a `BEGIN
//! IMMEDIATE` transaction behind a busy timeout, so that two writers queue instead of failing. A
//! new file is made under another name, complete with schema and logging mode, and then renamed;
//! so nobody ever meets a half-made one, and a file of no length is damage and not a fresh start.
//!
//! SQLite notices damage where it happens to look. So before opening, the lengths in the headers are
//! held against the files, because a log cut short would otherwise be taken for a shorter history.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};

use crate::{Error, Lock, files, migrations};

/// How long a writer queues behind others before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A log shorter than this is left for the next process to read: cheaper than two flushes now.
const LOG_BYTES_MAX: u64 = 512 * 1024;

/// An open registry. One thread uses it at a time; open another for another thread.
#[derive(Debug)]
pub struct Registry {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    /// Numbers of the series met so far.
    pub(crate) series: RefCell<HashMap<(String, String), i64>>,
    read_only: bool,
}

impl Registry {
    /// Opens the registry at `path` for reading and writing; makes or migrates it if needed.
    pub fn open(path: &Path) -> Result<Registry, Error> {
        if !exists(path)? {
            create(path)?;
        }
        check_files(path)?;
        let mut registry = Registry::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, "")?;
        let found = registry.version()?;
        refuse_newer(path, found)?;
        if found < migrations::VERSION {
            let _lock = lock(path)?;
            let migrated = migrations::migrate(&mut registry.connection);
            migrated.map_err(|error| Error::sql(path, error))?;
        }
        Ok(registry)
    }

    /// Opens the registry to read from it; nothing if there is none. Writes nothing itself, so it
    /// serves a user without rights; but an older one is migrated where that is allowed.
    pub fn open_to_read(path: &Path) -> Result<Option<Registry>, Error> {
        if !exists(path)? {
            return Ok(None);
        }
        if is_writable(path) {
            return Registry::open(path).map(Some);
        }
        check_files(path)?;
        let registry = Registry::connect_read_only(path)?;
        let found = registry.version()?;
        refuse_newer(path, found)?;
        if found < migrations::VERSION {
            let path = path.to_owned();
            return Err(Error::Older { path, found });
        }
        Ok(Some(registry))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every page: the damage that `open` cannot see.
    pub fn verify(&self) -> Result<(), Error> {
        let what: String = self
            .connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        if what == "ok" {
            return Ok(());
        }
        let path = self.path.clone();
        Err(Error::Damaged { path, what })
    }

    pub(crate) fn error(&self, source: rusqlite::Error) -> Error {
        Error::sql(&self.path, source)
    }

    /// Carries out `write` as one transaction.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let value = write(&transaction)?;
                transaction.commit()?;
                Ok(value)
            })
            .map_err(|error| {
                // Numbers given out in a transaction that failed belong to nobody.
                self.series.borrow_mut().clear();
                self.error(error)
            })
    }

    /// Another connection to the same file, for another thread to read from.
    pub(crate) fn reader(&self) -> Result<Registry, Error> {
        if self.read_only {
            return Registry::connect_read_only(&self.path);
        }
        Registry::connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE, "")
    }

    /// The folder of lock files that stands beside the registry.
    pub(crate) fn locks(&self) -> PathBuf {
        files::parent(&self.path).join("locks")
    }

    fn version(&self) -> Result<u32, Error> {
        migrations::version(&self.connection).map_err(|error| self.error(error))
    }

    fn connect_read_only(path: &Path) -> Result<Registry, Error> {
        let registry = Registry::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, "")?;
        if registry.version().is_ok() || log_bytes(path) > 0 {
            return Ok(registry);
        }
        // Without a log there is nothing to share, and SQLite may be told that nobody writes.
        Registry::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, "?immutable=1")
    }

    fn connect(path: &Path, flags: OpenFlags, options: &str) -> Result<Registry, Error> {
        let uri = format!("file:{}{options}", escaped(path)?);
        let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(uri, flags)
            .and_then(|connection| configure(&connection).map(|()| connection))
            .map_err(|error| Error::sql(path, error))?;
        Ok(Registry {
            connection,
            path: path.to_owned(),
            series: RefCell::default(),
            read_only: flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY),
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if !self.read_only && log_bytes(&self.path) < LOG_BYTES_MAX {
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            // Failing to keep the log costs a flush.
            let _ = self.connection.set_db_config(keep, true);
        }
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A power cut may take back the last moments of history, never damage it.
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;")
}

fn create(path: &Path) -> Result<(), Error> {
    let _lock = lock(path)?;
    if exists(path)? {
        return Ok(());
    }
    // A log whose database was deleted would be played back into the new one.
    files::remove_file(&beside(path, "-wal"))?;
    files::remove_file(&beside(path, "-shm"))?;
    let fresh = beside(path, &format!(".{}.new", uuid::Uuid::now_v7().simple()));
    let made = make(&fresh).map_err(|error| Error::sql(path, error));
    let moved = made.and_then(|()| files::rename(&fresh, path));
    if moved.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    moved
}

fn make(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    migrations::migrate(&mut connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| error)
}

/// The lock for what only one process may do: making and migrating.
fn lock(path: &Path) -> Result<Lock, Error> {
    let never = AtomicBool::new(false);
    let lock_path = files::parent(path).join("locks/registry");
    let lock = Lock::wait_exclusive(&lock_path, "making the registry", &never, |_| {})?;
    lock.ok_or_else(|| Error::Busy { path: path.into() })
}

fn refuse_newer(path: &Path, found: u32) -> Result<(), Error> {
    if found <= migrations::VERSION {
        return Ok(());
    }
    Err(Error::Newer {
        path: path.to_owned(),
        found,
        known: migrations::VERSION,
    })
}

/// Refuses a database or a log that is plainly not what SQLite left there.
fn check_files(path: &Path) -> Result<(), Error> {
    check_database(path)?;
    let mut doubt = None;
    // A writer at work may be caught between two of its writes, but not three times.
    for pause_ms in [0, 20, 100] {
        thread::sleep(Duration::from_millis(pause_ms));
        doubt = log_damage(path);
        if doubt.is_none() {
            return Ok(());
        }
    }
    match doubt {
        Some(what) => Err(Error::Damaged {
            path: beside(path, "-wal"),
            what,
        }),
        None => Ok(()),
    }
}

fn check_database(path: &Path) -> Result<(), Error> {
    let damaged = |what: String| Error::Damaged {
        path: path.to_owned(),
        what,
    };
    let read = |error| Error::io("read", path, error);
    let mut file = File::open(path).map_err(read)?;
    let bytes = file.metadata().map_err(read)?.len();
    let mut header = [0; 100];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(damaged(format!("it has been cut to {bytes} bytes")));
        }
        result => result.map_err(read)?,
    }
    if &header[..16] != b"SQLite format 3\0" {
        return Err(damaged("it is not an SQLite file".into()));
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let expected = page_bytes * u64::from(big_endian(&header, 28));
    // While pages wait in the log, SQLite may have been killed halfway through copying them.
    if bytes < expected && (log_bytes(path) == 0 || !is_sound(path)) {
        return Err(damaged(format!(
            "it has been cut from {expected} to {bytes} bytes"
        )));
    }
    Ok(())
}

fn is_sound(path: &Path) -> bool {
    let check = |registry: Registry| {
        let check = "PRAGMA quick_check(1)";
        registry
            .connection
            .query_row(check, [], |row| row.get::<_, String>(0))
            .ok()
    };
    let registry = Registry::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, "");
    registry.ok().and_then(check).as_deref() == Some("ok")
}

/// Compares the log with the shared index of it, which outlives the processes that wrote both.
fn log_damage(path: &Path) -> Option<String> {
    let index = read_start(&beside(path, "-shm"), 136).filter(|index| index.len() == 136)?;
    let native =
        |at: usize| u32::from_ne_bytes([index[at], index[at + 1], index[at + 2], index[at + 3]]);
    let (is_initialized, n_frames, n_copied) = (index[12] != 0, native(16), native(96));
    if !is_initialized || n_frames <= n_copied {
        return None;
    }
    let page_bytes = match u16::from_ne_bytes([index[14], index[15]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let log_path = beside(path, "-wal");
    let log = File::open(&log_path).ok();
    let bytes = log
        .as_ref()
        .and_then(|log| log.metadata().ok())
        .map_or(0, |log| log.len());
    let expected = 32 + u64::from(n_frames) * (24 + page_bytes);
    if bytes < expected {
        return Some(format!("it has been cut to {bytes} of {expected} bytes"));
    }
    let last_frame = expected - (24 + page_bytes);
    let (mut header, mut frame) = ([0; 32], [0; 24]);
    let log = log?;
    log.read_exact_at(&mut header, 0).ok()?;
    log.read_exact_at(&mut frame, last_frame).ok()?;
    // The salts name a generation of the log, the checksums run through all frames up to the last.
    let same_salts = header[16..24] == index[32..40] && frame[8..16] == index[32..40];
    let sums = [big_endian(&frame, 16), big_endian(&frame, 20)];
    if same_salts && sums == [native(24), native(28)] {
        return None;
    }
    Some("its contents are not what was written".into())
}

fn big_endian(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_start(path: &Path, bytes: u64) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)
        .ok()?
        .take(bytes)
        .read_to_end(&mut start)
        .ok()?;
    Some(start)
}

fn log_bytes(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists()
        .map_err(|error| Error::io("look for", path, error))
}

fn is_writable(path: &Path) -> bool {
    let access = rustix::fs::Access::WRITE_OK;
    [path, files::parent(path)]
        .iter()
        .all(|path| rustix::fs::access(*path, access).is_ok())
}

/// The path as SQLite's URI wants it.
fn escaped(path: &Path) -> Result<String, Error> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::NotUtf8 { path: path.into() })?;
    let text = text
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    // Two leading slashes would be read as a host.
    Ok(if text.starts_with('/') {
        format!("//{text}")
    } else {
        text
    })
}
