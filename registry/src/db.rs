//! Opening the registry: one SQLite file, written to by many processes of one machine at once.
//!
//! It stands in the home, and where machines share the home, on each machine's own disk: locks of
//! SQLite do not reach another machine. What is lost of it is read again from the journals.
//!
//! Write-ahead logging lets readers and one writer work side by side; every write is a `BEGIN
//! IMMEDIATE` transaction behind a busy handler, so that two writers queue instead of failing. A
//! new file is made under another name, complete with schema and logging mode, and then renamed;
//! so nobody ever meets a half-made one, and a file of no length is damage and not a fresh start.
//!
//! This is history and nothing depends on it, so `open` notices only the damage that is free to
//! notice: what SQLite reports, and a file shorter than it should be. [`Registry::verify`] reads
//! every page.

use std::{
    cell::RefCell,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};

use crate::{Error, Home, Lock, Place, files, memory::Memory, migrations, names, sql};

/// The pause between two looks at a lock that another process holds, after some shorter ones.
const PAUSE_MS: u64 = 25;

/// A writer queues behind others for about ten seconds before it gives up.
const TRIES_MAX: i32 = 400;

/// And half a second once its process has been told to stop.
const HURRIED_TRIES_MAX: i32 = 20;

/// Whether this process has been told to stop. One for all registries, as signals are.
static IS_HURRIED: AtomicBool = AtomicBool::new(false);

/// A log shorter than this is left for the next process to read: cheaper than two flushes now.
const LOG_BYTES_MAX: u64 = 512 * 1024;

/// An open registry. One thread uses it at a time; open another for another thread.
#[derive(Debug)]
pub struct Registry {
    pub(crate) connection: Connection,
    pub(crate) home: Home,
    path: PathBuf,
    pub(crate) memory: RefCell<Memory>,
    read_only: bool,
}

/// Why a transaction was given up.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    Other(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl Registry {
    /// Opens the registry of a home for reading and writing; makes or migrates it if needed.
    pub fn open(home: &Home) -> Result<Registry, Error> {
        let path = home.registry_path();
        if !exists(&path)? {
            create(home)?;
        }
        let registry = Registry::connect(home, OpenFlags::SQLITE_OPEN_READ_WRITE, "")?;
        registry.refuse_cut()?;
        let found = registry.version()?;
        refuse_newer(&path, found)?;
        registry.refuse_read_only()?;
        // A backup that was put back may be up to date and yet in the other logging mode.
        if found < migrations::VERSION || !registry.logs_ahead()? {
            let _lock = lock(home)?;
            registry.migrate()?;
            log_ahead(&registry.connection).map_err(|error| registry.error(error))?;
        }
        if home.is_shared() {
            // A home that may only be read is marked by whoever writes to it.
            let _ = home.mark_shared();
        }
        registry.read_news(true)?;
        Ok(registry)
    }

    /// Opens the registry to read from it; nothing if there is none. Writes nothing itself, so it
    /// serves a user without rights; but an older one is migrated where that is allowed, and one that
    /// was lost is made again from the journals.
    pub fn open_to_read(home: &Home) -> Result<Option<Registry>, Error> {
        let path = home.registry_path();
        if !exists(&path)? {
            let can_be_made = home.is_shared() || home.is_writable();
            return match can_be_made && Registry::is_begun(home)? {
                true => Registry::open(home).map(Some),
                false => Ok(None),
            };
        }
        if is_writable(&path) {
            return Registry::open(home).map(Some);
        }
        let registry = Registry::connect_read_only(home)?;
        registry.refuse_cut()?;
        let found = registry.version()?;
        refuse_newer(&path, found)?;
        if found < migrations::VERSION {
            return Err(Error::Older { path, found });
        }
        Ok(Some(registry))
    }

    /// Returns whether anything has been recorded in a home.
    pub fn is_begun(home: &Home) -> Result<bool, Error> {
        Ok(exists(&home.registry_path())?
            || exists(&home.own_registry())?
            || !home.runs().list()?.is_empty())
    }

    /// From now on this process waits only a moment for what others hold: it has been told to stop.
    pub fn hurry() {
        IS_HURRIED.store(true, Ordering::Relaxed);
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
        sql::error(&self.path, source)
    }

    /// Carries out `write` as one transaction.
    pub(crate) fn write<T, E: Into<Failure>>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, Error> {
        self.transact(TransactionBehavior::Immediate, write)
    }

    fn transact<T, E: Into<Failure>>(
        &self,
        behavior: TransactionBehavior,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, Error> {
        let written = || -> Result<T, Failure> {
            let transaction = Transaction::new_unchecked(&self.connection, behavior)?;
            self.notice_others(&transaction)?;
            let value = write(&transaction).map_err(Into::into)?;
            transaction.commit()?;
            Ok(value)
        };
        written().map_err(|failure| {
            // Numbers given out in a transaction that failed belong to nobody.
            self.memory.borrow_mut().series.clear();
            match failure {
                Failure::Sql(error) => self.error(error),
                Failure::Other(error) => error,
            }
        })
    }

    /// Forgets the numbers of series if others have written: a registry that was made again gives them out
    /// anew.
    fn notice_others(&self, rows: &Transaction<'_>) -> rusqlite::Result<()> {
        let tide = rows
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let mut memory = self.memory.borrow_mut();
        if memory.tide != tide {
            memory.series.clear();
            memory.tide = tide;
        }
        Ok(())
    }

    /// Takes the steps of the schema that are missing, and writes journals for runs that were recorded
    /// before there were any: all or none.
    fn migrate(&self) -> Result<(), Error> {
        self.transact(
            TransactionBehavior::Exclusive,
            |rows| -> Result<(), Failure> {
                // Read again: another process may have been here before our transaction began.
                let taken = migrations::version(rows)?;
                migrations::take_steps(rows, taken)?;
                if taken < migrations::FIRST_WITH_JOURNALS {
                    self.begin_journals(rows)?;
                }
                Ok(())
            },
        )
    }

    /// Another connection to the same file, for another thread to read from.
    pub(crate) fn reader(&self) -> Result<Registry, Error> {
        if self.read_only {
            return Registry::connect_read_only(&self.home);
        }
        Registry::connect(&self.home, OpenFlags::SQLITE_OPEN_READ_WRITE, "")
    }

    /// The folder of lock files of the home.
    pub(crate) fn locks(&self) -> Place {
        self.home.locks()
    }

    fn version(&self) -> Result<u32, Error> {
        migrations::version(&self.connection).map_err(|error| self.error(error))
    }

    /// Refuses a file that ends before its last page. Only without a log: what is missing may wait
    /// there. A log goes once all of it has been copied, so the length is looked at after the log.
    fn refuse_cut(&self) -> Result<(), Error> {
        let number = |pragma: &str| -> Result<u64, Error> {
            let number = self
                .connection
                .query_row(pragma, [], |row| row.get::<_, u32>(0));
            number.map(u64::from).map_err(|error| self.error(error))
        };
        let expected = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
        if log_bytes(&self.path) > 0 {
            return Ok(());
        }
        let bytes = fs::metadata(&self.path).map_or(0, |file| file.len());
        if bytes >= expected {
            return Ok(());
        }
        Err(Error::Damaged {
            path: self.path.clone(),
            what: format!("it has been cut from {expected} to {bytes} bytes"),
        })
    }

    /// SQLite quietly opens a file without rights to write as one that is only read.
    fn refuse_read_only(&self) -> Result<(), Error> {
        match self.connection.is_readonly(rusqlite::MAIN_DB) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let denied = ErrorKind::PermissionDenied.into();
                Err(Error::io("write to", &self.path, denied))
            }
            Err(error) => Err(self.error(error)),
        }
    }

    fn logs_ahead(&self) -> Result<bool, Error> {
        let mode = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        let mode = self.connection.query_row("PRAGMA journal_mode", [], mode);
        mode.map(|mode| mode == "wal")
            .map_err(|error| self.error(error))
    }

    fn connect_read_only(home: &Home) -> Result<Registry, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let shared = Registry::connect(home, flags, "");
        match shared.and_then(|registry| registry.version().map(|_| registry)) {
            // Without a log there is nothing to share, and SQLite may be told that nobody writes.
            Err(_) if log_bytes(&home.registry_path()) == 0 => {
                Registry::connect(home, flags, "?immutable=1")
            }
            shared => shared,
        }
    }

    fn connect(home: &Home, flags: OpenFlags, options: &str) -> Result<Registry, Error> {
        Registry::connect_at(home, home.registry_path(), flags, options)
    }

    fn connect_at(
        home: &Home,
        path: PathBuf,
        flags: OpenFlags,
        options: &str,
    ) -> Result<Registry, Error> {
        let uri = format!("file:{}{options}", escaped(&path)?);
        let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(uri, flags)
            .and_then(|mut connection| configure(&mut connection).map(|()| connection))
            .map_err(|error| sql::error(&path, error))?;
        Ok(Registry {
            connection,
            home: home.clone(),
            path,
            memory: RefCell::default(),
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

fn configure(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(waits_on))?;
    connection.set_prepared_statement_cache_capacity(64);
    // A power cut may take back the last moments of history, never damage it.
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;")
}

/// Waits a little for another process's lock; returns whether to try again.
fn waits_on(n_tries: i32) -> bool {
    let tries_max = match IS_HURRIED.load(Ordering::Relaxed) {
        true => HURRIED_TRIES_MAX,
        false => TRIES_MAX,
    };
    let pause_ms = 1 << n_tries.clamp(0, 10);
    thread::sleep(Duration::from_millis(PAUSE_MS.min(pause_ms)));
    n_tries < tries_max
}

fn create(home: &Home) -> Result<(), Error> {
    let path = &home.registry_path();
    let _lock = lock(home)?;
    if exists(path)? {
        return Ok(());
    }
    // Of before the home was shared, or of before there were journals: opened, it writes them.
    if home.is_shared() && has_no_journals(home)? {
        drop(Registry::open(&Home::at(home.root()))?);
    }
    // A log whose database was deleted would be played back into the new one.
    remove_logs(path)?;
    let fresh = beside(path, &format!(".{}.new", names::unique()));
    let moved = make(home, &fresh)
        .and_then(|()| remove_logs(&fresh))
        .and_then(|()| files::sync_file(&fresh))
        .and_then(|()| files::rename(&fresh, path));
    if moved.is_err() {
        let _ = fs::remove_file(&fresh);
        let _ = remove_logs(&fresh);
    }
    moved
}

/// Returns whether a registry stands in a home that has not written journals yet, and can.
fn has_no_journals(home: &Home) -> Result<bool, Error> {
    let own = Home::at(home.root());
    if !exists(&own.registry_path())? || !is_writable(&own.registry_path()) {
        return Ok(false);
    }
    let found = Registry::connect_read_only(&own)?.version()?;
    Ok(found < migrations::FIRST_WITH_JOURNALS)
}

/// Makes a registry of all that the journals say, with nothing left in its log.
fn make(home: &Home, path: &Path) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let registry = Registry::connect_at(home, path.to_owned(), flags, "")?;
    let run = |batch: &str| {
        let done = registry.connection.execute_batch(batch);
        done.map_err(|error| registry.error(error))
    };
    // Flushed as a whole before it gets its name.
    run("PRAGMA synchronous = OFF")?;
    registry.migrate()?;
    registry.read_all()?;
    log_ahead(&registry.connection).map_err(|error| registry.error(error))?;
    run("PRAGMA wal_checkpoint(TRUNCATE)")
}

fn remove_logs(path: &Path) -> Result<(), Error> {
    files::remove_file(&beside(path, "-wal"))?;
    files::remove_file(&beside(path, "-shm"))
}

fn log_ahead(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")
}

/// The lock for what only one process may do: making and migrating.
fn lock(home: &Home) -> Result<Lock, Error> {
    let never = AtomicBool::new(false);
    let lock_path = home.registry_lock();
    let lock = Lock::wait_exclusive(&lock_path, "making the registry", &never, |_| {})?;
    let path = home.registry_path();
    lock.ok_or(Error::Busy { path })
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

fn log_bytes(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns whether there is a registry. An empty file is none that was ever made.
fn exists(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(file) if file.len() == 0 => Err(Error::Damaged {
            path: path.to_owned(),
            what: "it is empty".to_owned(),
        }),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look for", path, error)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MetricRow, Run, RunQuery, RunSource, names};

    struct Fixture {
        folder: tempfile::TempDir,
    }

    impl Fixture {
        /// A registry that holds one run with a thousand numbers.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let fixture = Fixture { folder };
            fixture.add_run(&fixture.open().unwrap());
            fixture
        }

        fn home(&self) -> Home {
            Home::at(self.folder.path())
        }

        fn path(&self) -> PathBuf {
            self.home().registry_path()
        }

        fn open(&self) -> Result<Registry, Error> {
            Registry::open(&self.home())
        }

        fn add_run(&self, registry: &Registry) {
            let id = names::new_id();
            let run = Run {
                id: id.clone(),
                ..Run::default()
            };
            registry.insert_run(&run, &RunSource::default()).unwrap();
            let rows: Vec<MetricRow> = (0..1000)
                .map(|step| MetricRow {
                    execution_id: id.clone(),
                    name: "loss".into(),
                    step: Some(step),
                    value: 1.0,
                    at: 1,
                })
                .collect();
            registry.append_metrics(&rows).unwrap();
        }

        fn n_runs(&self) -> usize {
            self.open()
                .unwrap()
                .runs(&RunQuery::default())
                .unwrap()
                .len()
        }

        #[track_caller]
        fn damage(&self) -> String {
            let error = self.open().unwrap_err();
            assert!(error.is_damage(), "{error}");
            let hint = error.hint().unwrap();
            assert!(hint.starts_with("move `"), "{hint}");
            error
                .to_string()
                .replace(&*self.folder.path().to_string_lossy(), "[HOME]")
        }
    }

    #[test]
    fn what_was_written_is_there_when_opened_again_and_opening_to_read_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        assert!(
            Registry::open_to_read(&Home::at(folder.path()))
                .unwrap()
                .is_none()
        );
        assert!(!path.exists());
        let fixture = Fixture::new();
        assert_eq!(fixture.n_runs(), 1);
        fixture.open().unwrap().verify().unwrap();
    }

    #[test]
    fn paths_with_odd_characters_work() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("a b?c#d%41\ne"));
        drop(Registry::open(&home).unwrap());
        assert!(home.registry_path().exists());
        assert!(Registry::open_to_read(&home).unwrap().is_some());
    }

    #[test]
    fn a_cut_or_foreign_database_says_what_to_do() {
        let fixture = Fixture::new();
        let whole = {
            // Everything in one file, so that no log can stand in for what is cut.
            let registry = fixture.open().unwrap();
            registry
                .connection
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
                .unwrap();
            fs::read(fixture.path()).unwrap()
        };
        let mut damages = Vec::new();
        for bytes in [0, 50, 4096, whole.len() / 2, whole.len() - 1] {
            fs::write(fixture.path(), &whole[..bytes]).unwrap();
            damages.push(fixture.damage());
        }
        fs::write(fixture.path(), "name,loss\n".repeat(20)).unwrap();
        damages.push(fixture.damage());
        fs::write(fixture.path(), &whole).unwrap();
        assert_eq!(fixture.n_runs(), 1);
        insta::assert_snapshot!(damages.join("\n"), @"
        the registry `[HOME]/registry.sqlite` is damaged: it is empty
        the registry `[HOME]/registry.sqlite` is damaged: database disk image is malformed
        the registry `[HOME]/registry.sqlite` is damaged: database disk image is malformed
        the registry `[HOME]/registry.sqlite` is damaged: database disk image is malformed
        the registry `[HOME]/registry.sqlite` is damaged: it has been cut from 135168 to 135167 bytes
        the registry `[HOME]/registry.sqlite` is damaged: file is not a database
        ");
    }

    #[test]
    fn a_log_cut_short_is_a_shorter_history_and_stays_writable() {
        let fixture = Fixture::new();
        let (path, log_path) = (fixture.path(), beside(&fixture.path(), "-wal"));
        let (whole, log) = (fs::read(&path).unwrap(), fs::read(&log_path).unwrap());
        assert!(log.len() > 10_000);
        for n_left in [0, 10, 32, log.len() / 2, log.len() - 1] {
            fs::write(&path, &whole).unwrap();
            fs::write(&log_path, &log[..n_left]).unwrap();
            let n_runs = fixture.n_runs();
            fixture.add_run(&fixture.open().unwrap());
            assert_eq!(fixture.n_runs(), n_runs + 1);
            fixture.open().unwrap().verify().unwrap();
        }
    }

    #[test]
    fn a_log_without_its_database_is_not_played_into_a_new_one() {
        let fixture = Fixture::new();
        assert!(log_bytes(&fixture.path()) > 0);
        fs::remove_file(fixture.path()).unwrap();
        fs::remove_dir_all(fixture.home().runs()).unwrap();
        assert_eq!(fixture.n_runs(), 0);
        fixture.open().unwrap().verify().unwrap();
    }

    #[test]
    fn a_newer_registry_is_refused_by_name() {
        let fixture = Fixture::new();
        let registry = fixture.open().unwrap();
        registry
            .connection
            .pragma_update(None, "user_version", 99)
            .unwrap();
        drop(registry);
        let error = fixture.open().unwrap_err();
        assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
        assert!(error.is_damage());
    }

    #[test]
    fn a_reader_is_not_blocked_by_a_writer_and_a_second_writer_waits() {
        let fixture = Fixture::new();
        let writer = fixture.open().unwrap();
        writer
            .write(|_| {
                assert_eq!(fixture.n_runs(), 1);
                Ok::<_, Error>(())
            })
            .unwrap();
        let home = fixture.home();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let registry = Registry::open(&home).unwrap();
                    for _ in 0..10 {
                        fixture.add_run(&registry);
                    }
                });
            }
        });
        assert_eq!(fixture.n_runs(), 81);
    }

    #[test]
    fn a_registry_that_cannot_be_written_to_can_be_read() {
        let fixture = Fixture::new();
        let registry = fixture.open().unwrap();
        // As a user without rights would find it: with a log by its side, and without.
        let reader = Registry::connect_read_only(&fixture.home()).unwrap();
        assert_eq!(reader.runs(&RunQuery::default()).unwrap().len(), 1);
        drop(reader);
        registry
            .connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        drop(registry);
        fs::remove_file(beside(&fixture.path(), "-wal")).unwrap();
        fs::remove_file(beside(&fixture.path(), "-shm")).unwrap();
        let uri = "?immutable=1";
        let reader = Registry::connect(&fixture.home(), OpenFlags::SQLITE_OPEN_READ_ONLY, uri);
        assert_eq!(reader.unwrap().runs(&RunQuery::default()).unwrap().len(), 1);
        assert!(!beside(&fixture.path(), "-wal").exists());
    }
}
