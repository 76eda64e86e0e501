//! The registry as an index of the journals: writing a line to both, and reading what others wrote.
//!
//! A line is appended and carried out within one transaction, so that all processes of a machine
//! write in turn and each row says from which line it is. Killed in between, the line stands and the
//! row does not: whoever writes to that run next reads it first. Where the home is shared, other
//! machines write lines too, and this registry reads on whenever it is opened or asked for news.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{OptionalExtension, Transaction, params};

use crate::{
    Error, Place, Registry,
    db::Failure,
    entry::Entry,
    history::history_of,
    journal::{self, Journal, Position},
};

/// How often a reader who asks for news looks at the journals of others.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// And how often at those of runs that have ended: somebody may resume one, or say something of it.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(20);

/// Runs that are read in one transaction.
const RUNS_AT_ONCE: usize = 20;

/// How often progress is told to other machines.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Registry {
    /// Writes a line into the journal of a run, and carries it out.
    pub(crate) fn record(&self, run_id: &str, entry: &Entry) -> Result<(), Error> {
        self.write(|rows| self.record_in(rows, run_id, entry))
    }

    /// Writes a line about an execution, into the journal of the run that it is of. Numbers of an
    /// execution that no run has are nobody's history, and have no journal to stand in.
    pub(crate) fn record_of(&self, execution_id: &str, entry: &Entry) -> Result<(), Error> {
        self.write(|rows| match self.run_of(rows, execution_id)? {
            Some(run_id) => self.record_in(rows, &run_id, entry),
            None => Ok(entry.apply(rows, "", &mut self.memory.borrow_mut().series)?),
        })
    }

    pub(crate) fn record_in(
        &self,
        rows: &Transaction<'_>,
        run_id: &str,
        entry: &Entry,
    ) -> Result<(), Failure> {
        let name = match entry.place_among_words() {
            None => journal::DRIVER.to_owned(),
            Some(_) => journal::words_file(),
        };
        if let Entry::Execution(execution) = entry {
            let mut memory = self.memory.borrow_mut();
            memory.runs.insert(execution.id.clone(), run_id.to_owned());
        }
        let (mut journal, bytes) = self.opened(rows, run_id, &name)?;
        let before = position(rows, run_id, &name)?;
        let is_torn = before.bytes != bytes;
        let (start, end) = journal.append(entry, is_torn)?;
        let known = (run_id.to_owned(), name.clone());
        self.memory.borrow_mut().journals.insert(known, journal);
        if is_torn || start != before.bytes {
            return self.read_run(rows, run_id);
        }
        entry.apply(rows, run_id, &mut self.memory.borrow_mut().series)?;
        let after = Position {
            bytes: end,
            lines: before.lines + 1,
            ..before
        };
        Ok(set_position(rows, run_id, &name, &after)?)
    }

    /// A journal of which all whole lines have been read, to be added to.
    fn opened(
        &self,
        rows: &Transaction<'_>,
        run_id: &str,
        name: &str,
    ) -> Result<(Journal, u64), Failure> {
        let known = (run_id.to_owned(), name.to_owned());
        let journal = self.memory.borrow_mut().journals.remove(&known);
        let (journal, bytes) = match journal.and_then(|known| Some((known.bytes()?, known))) {
            Some((bytes, journal)) => (journal, bytes),
            None => self.open_journal(rows, run_id, name)?,
        };
        if position(rows, run_id, name)?.bytes == bytes {
            return Ok((journal, bytes));
        }
        self.read_run(rows, run_id)?;
        let read = position(rows, run_id, name)?;
        let place = self.home.journals(run_id).below(name);
        if read.bytes <= bytes && journal::mark_of(&place).as_ref() == Some(&read.mark) {
            return Ok((journal, bytes));
        }
        // Cut short by a power cut, or damaged where it begins: here more is known than there.
        self.write_anew(rows, run_id)?;
        self.open_journal(rows, run_id, name)
    }

    /// Opens a journal of a run. One that is not there is made: with all that is known of the run, if
    /// it is the driver's.
    fn open_journal(
        &self,
        rows: &Transaction<'_>,
        run_id: &str,
        name: &str,
    ) -> Result<(Journal, u64), Failure> {
        let place = self.home.journals(run_id).below(name);
        // Another machine's file may stay unseen under its name, and is there in a list.
        match place.is_listed()? {
            true => {}
            false if name == journal::DRIVER => self.write_anew(rows, run_id)?,
            false => {
                let made = journal::make(&place, run_id, &[])?;
                set_position(rows, run_id, name, &made)?;
            }
        }
        let journal = Journal::open(&place)?;
        let bytes = journal.bytes().unwrap_or(0);
        Ok((journal, bytes))
    }

    /// The place that something which is said of a run takes among all that was said.
    pub(crate) fn next_word(rows: &Transaction<'_>, run_id: &str) -> rusqlite::Result<u64> {
        let lines = "SELECT ifnull(sum(lines), 0) FROM journals WHERE run_id = ?1";
        let lines: i64 = rows.query_row(lines, [run_id], |row| row.get(0))?;
        Ok(lines as u64)
    }

    fn run_of(
        &self,
        rows: &Transaction<'_>,
        execution_id: &str,
    ) -> rusqlite::Result<Option<String>> {
        if let Some(run_id) = self.memory.borrow().runs.get(execution_id) {
            return Ok(Some(run_id.clone()));
        }
        let run_id: Option<String> = rows
            .prepare_cached("SELECT run_id FROM executions WHERE id = ?1")?
            .query_row([execution_id], |row| row.get(0))
            .optional()?;
        if let Some(run_id) = &run_id {
            let mut memory = self.memory.borrow_mut();
            memory.runs.insert(execution_id.to_owned(), run_id.clone());
        }
        Ok(run_id)
    }

    /// Reads what other machines have written since this was last done, if the home is shared: of all
    /// runs, or of those that are not known to have ended.
    pub(crate) fn read_news(&self, of_all: bool) -> Result<(), Error> {
        if !self.home.is_shared() {
            return Ok(());
        }
        let is_over = |at: Option<Instant>, every| at.is_none_or(|at| at.elapsed() >= every);
        let (looked, looked_at_all) = {
            let memory = self.memory.borrow();
            (memory.looked, memory.looked_at_all)
        };
        let of_all = of_all || is_over(looked_at_all, LOOK_AT_ALL_EVERY);
        if !of_all && !is_over(looked, LOOK_EVERY) {
            return Ok(());
        }
        let now = Some(Instant::now());
        self.memory.borrow_mut().looked = now;
        if of_all {
            self.memory.borrow_mut().looked_at_all = now;
        }
        let ended: HashSet<String> = match of_all {
            true => HashSet::new(),
            false => self
                .texts("SELECT id FROM runs WHERE status <> 'running'")?
                .into_iter()
                .collect(),
        };
        let mut gone: HashSet<String> = match of_all {
            true => self.texts("SELECT id FROM runs")?.into_iter().collect(),
            false => HashSet::new(),
        };
        let mut behind = Vec::new();
        for folder in self.home.runs().list()? {
            let Some(run_id) = run_id_of(&folder) else {
                continue;
            };
            gone.remove(run_id);
            if !ended.contains(run_id) && self.is_behind(run_id, &folder)? {
                behind.push(folder);
            }
        }
        if behind.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.write(|rows| {
            let mut gone = gone.iter();
            gone.try_for_each(|run_id| self.forget_run(rows, run_id))
        })?;
        // Others of this machine write in between.
        let runs = Registry::in_order(&behind);
        runs.chunks(RUNS_AT_ONCE)
            .try_for_each(|runs| self.write(|rows| self.read_runs(rows, runs)))
    }

    /// Reads on in the journals of one run, of which more may stand there than here.
    pub fn catch_up(&self, run_id: &str) -> Result<(), Error> {
        self.write(|rows| self.read_run(rows, run_id))
    }

    /// Returns whether it is time to tell other machines how far the work is.
    pub(crate) fn is_time_to_tell(&self) -> bool {
        let told = &mut self.memory.borrow_mut().told;
        let is_time = told.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_time {
            *told = Some(Instant::now());
        }
        is_time
    }

    /// Runs in the order in which they were recorded.
    fn in_order(folders: &[Place]) -> Vec<String> {
        let known = folders.iter().filter_map(|folder| {
            let run_id = run_id_of(folder)?.to_owned();
            Some((order_of(folder), run_id))
        });
        let mut runs: Vec<(i64, String)> = known.collect();
        runs.sort();
        runs.into_iter().map(|(_, run_id)| run_id).collect()
    }

    /// Reads on in the journals of some runs. One that cannot be read, because it is somebody else's or
    /// of a newer version, is passed over and told of; the others are no worse for it.
    fn read_runs(&self, rows: &Transaction<'_>, run_ids: &[String]) -> Result<(), Failure> {
        for run_id in run_ids {
            rows.execute_batch("SAVEPOINT one_run")?;
            match self.read_run(rows, run_id) {
                Ok(()) => rows.execute_batch("RELEASE one_run")?,
                Err(Failure::Other(error)) if error.is_of_one_file() => {
                    rows.execute_batch("ROLLBACK TO one_run; RELEASE one_run")?;
                    let mut memory = self.memory.borrow_mut();
                    memory.series.clear();
                    memory.faults.push(error.to_string());
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// What is wrong with journals that could not be read since this registry was opened.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.memory.borrow().faults.clone()
    }

    /// Writes a journal for each run of which more is known here than there: it has none, or one that
    /// lost its end to a power cut.
    fn write_missing(&self, rows: &Transaction<'_>) -> Result<(), Failure> {
        for run_id in run_ids(rows)? {
            if self.knows_more(rows, &run_id)? {
                self.write_anew(rows, &run_id)?;
            }
        }
        Ok(())
    }

    /// Returns whether more of a run stands here than in its journal.
    fn knows_more(&self, rows: &Transaction<'_>, run_id: &str) -> Result<bool, Failure> {
        let journal = self.home.journals(run_id).below(journal::DRIVER);
        if !journal.is_listed()? {
            return Ok(true);
        }
        let known = position(rows, run_id, journal::DRIVER)?;
        Ok(match journal::mark_of(&journal) {
            None => true,
            Some(mark) if mark == known.mark => bytes_of(&journal) < known.bytes,
            // Written anew elsewhere.
            Some(_) => false,
        })
    }

    /// Writes journals for a registry of before there were any. It may be an old backup, whose runs have
    /// journals that know more; or an earlier attempt may have left some that are not whole.
    pub(crate) fn begin_journals(&self, rows: &Transaction<'_>) -> Result<(), Failure> {
        let runs = run_ids(rows)?;
        if runs.is_empty() {
            return Ok(());
        }
        for run_id in runs {
            let journal = self.home.journals(&run_id).below(journal::DRIVER);
            let ours = journal::text(&history_of(rows, &run_id)?);
            if !journal.is_listed()? || journal::is_beginning_of(&journal, &ours) {
                self.write_anew(rows, &run_id)?;
            } else {
                self.forget_run(rows, &run_id)?;
                self.read_run(rows, &run_id)?;
            }
        }
        // From here on the rows are taken for what the journals say.
        Ok(self.home.sync()?)
    }

    /// Makes all rows again from the journals; where more is known here than there, that is written first.
    pub fn rebuild(&self) -> Result<(), Error> {
        self.write(|rows| {
            let folders = self.home.runs().list()?;
            self.read_runs(rows, &Registry::in_order(&folders))?;
            self.write_missing(rows)?;
            for table in TABLES.iter().chain(&["journals"]) {
                rows.execute(&format!("DELETE FROM {table}"), [])?;
            }
            self.memory.borrow_mut().series.clear();
            self.read_runs(rows, &Registry::in_order(&self.home.runs().list()?))
        })
    }

    /// How many lines of journals nobody could read.
    pub fn unread_lines(&self) -> Result<u64, Error> {
        let unread = "SELECT ifnull(sum(unread), 0) FROM journals";
        let unread: Vec<i64> = self.list(unread, [], |row| row.get(0))?;
        Ok(unread.into_iter().sum::<i64>() as u64)
    }

    /// How many runs have journals that say more than stands here, as after a registry's log was cut.
    pub fn unread_runs(&self) -> Result<usize, Error> {
        let mut n = 0;
        for folder in self.home.runs().list()? {
            let Some(run_id) = run_id_of(&folder) else {
                continue;
            };
            let known = self.lengths(run_id)?;
            let says_more = |file: &Place| {
                let read = known.get(name_of(file)).copied().unwrap_or(0);
                journal::has_lines_after(file, read)
            };
            n += usize::from(journals_in(&folder)?.iter().any(says_more));
        }
        Ok(n)
    }

    /// Reads all journals there are, into a registry that holds nothing yet of them.
    pub(crate) fn read_all(&self) -> Result<(), Error> {
        let runs = Registry::in_order(&self.home.runs().list()?);
        self.write(|rows| self.read_runs(rows, &runs))
    }

    /// How far each journal of a run has been read.
    fn lengths(&self, run_id: &str) -> Result<HashMap<String, u64>, Error> {
        let known = self.list(
            "SELECT file, bytes FROM journals WHERE run_id = ?1",
            [run_id],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64)),
        )?;
        Ok(known.into_iter().collect())
    }

    fn is_behind(&self, run_id: &str, folder: &Place) -> Result<bool, Error> {
        let known = self.lengths(run_id)?;
        let is_news = |file: &Place| known.get(name_of(file)).copied() != Some(bytes_of(file));
        match journals_in(folder) {
            Ok(files) => Ok(files.iter().any(is_news)),
            // Told of when it is read.
            Err(_) => Ok(true),
        }
    }

    /// Reads on in the journals of one run. If one of them has been written anew, all is read anew.
    pub(crate) fn read_run(&self, rows: &Transaction<'_>, run_id: &str) -> Result<(), Failure> {
        let files = journals_in(&self.home.journals(run_id))?;
        let is_new = position(rows, run_id, journal::DRIVER)?.mark.is_empty();
        if self.read_files(rows, run_id, &files, is_new)? {
            return Ok(());
        }
        self.forget_run(rows, run_id)?;
        self.read_files(rows, run_id, &files, true)?;
        Ok(())
    }

    /// Returns whether that is all there is to do: not if a file is not the one that was read before, or if
    /// words came that may belong before others.
    fn read_files(
        &self,
        rows: &Transaction<'_>,
        run_id: &str,
        files: &[Place],
        is_new: bool,
    ) -> Result<bool, Failure> {
        let mut words = Vec::new();
        let speakers = files.iter().filter(|file| name_of(file) != journal::DRIVER);
        let several_speak = speakers.count() > 1;
        for file in files {
            let name = name_of(file);
            let from = position(rows, run_id, name)?;
            let is_driver = name == journal::DRIVER;
            let read = journal::read_on(file, &from, |entry| {
                if !is_driver {
                    words.push(entry);
                    return Ok(());
                }
                self.apply(rows, run_id, &entry)
            })?;
            match read {
                None => return Ok(false),
                Some(to) if to == from => {}
                Some(to) => set_position(rows, run_id, name, &to)?,
            }
        }
        if !is_new && several_speak && !words.is_empty() {
            return Ok(false);
        }
        words.sort_by_key(Entry::place_among_words);
        for word in &words {
            self.apply(rows, run_id, word)?;
        }
        Ok(true)
    }

    fn apply(&self, rows: &Transaction<'_>, run_id: &str, entry: &Entry) -> Result<(), Error> {
        let series = &mut self.memory.borrow_mut().series;
        let applied = entry.apply(rows, run_id, series);
        applied.map_err(|error| self.error(error))
    }

    /// Writes a run's journal anew from what is known of it, and takes its other journals away.
    pub(crate) fn write_anew(&self, rows: &Transaction<'_>, run_id: &str) -> Result<(), Failure> {
        let folder = self.home.journals(run_id);
        let made = journal::make(
            &folder.below(journal::DRIVER),
            run_id,
            &history_of(rows, run_id)?,
        )?;
        for file in journals_in(&folder)? {
            if name_of(&file) != journal::DRIVER {
                file.remove()?;
            }
        }
        rows.execute("DELETE FROM journals WHERE run_id = ?1", [run_id])?;
        Ok(set_position(rows, run_id, journal::DRIVER, &made)?)
    }

    /// Takes all rows of a run out: its journals are about to be read anew, or are gone.
    pub(crate) fn forget_run(&self, rows: &Transaction<'_>, run_id: &str) -> Result<(), Failure> {
        self.memory.borrow_mut().series.clear();
        const OF_RUN: &str = "(SELECT id FROM executions WHERE run_id = ?1)";
        for delete in [
            format!(
                "DELETE FROM points WHERE series_id IN (SELECT id FROM series WHERE execution_id IN {OF_RUN})"
            ),
            format!("DELETE FROM series WHERE execution_id IN {OF_RUN}"),
            format!("DELETE FROM samples WHERE execution_id IN {OF_RUN}"),
            format!("DELETE FROM progress WHERE execution_id IN {OF_RUN}"),
            "DELETE FROM executions WHERE run_id = ?1".to_owned(),
            "DELETE FROM stages WHERE run_id = ?1".to_owned(),
            "DELETE FROM params WHERE run_id = ?1".to_owned(),
            "DELETE FROM events WHERE run_id = ?1".to_owned(),
            "DELETE FROM tags WHERE run_id = ?1".to_owned(),
            "DELETE FROM notes WHERE run_id = ?1".to_owned(),
            "DELETE FROM runs WHERE id = ?1".to_owned(),
            "DELETE FROM journals WHERE run_id = ?1".to_owned(),
        ] {
            rows.prepare_cached(&delete)?.execute([run_id])?;
        }
        Ok(())
    }
}

/// All that is read out of journals.
const TABLES: [&str; 11] = [
    "points",
    "series",
    "samples",
    "progress",
    "executions",
    "stages",
    "params",
    "events",
    "tags",
    "notes",
    "runs",
];

fn run_ids(rows: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    let select = "SELECT id FROM runs UNION SELECT run_id FROM executions";
    let mut select = rows.prepare(select)?;
    select.query_map([], |row| row.get(0))?.collect()
}

fn position(rows: &Transaction<'_>, run_id: &str, file: &str) -> rusqlite::Result<Position> {
    let select = "SELECT mark, bytes, lines, unread FROM journals WHERE run_id = ?1 AND file = ?2";
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(|n| n as u64);
    let known = rows
        .prepare_cached(select)?
        .query_row([run_id, file], |row| {
            Ok(Position {
                mark: row.get(0)?,
                bytes: number(row, 1)?,
                lines: number(row, 2)?,
                unread: number(row, 3)?,
            })
        })
        .optional()?;
    Ok(known.unwrap_or_default())
}

fn set_position(
    rows: &Transaction<'_>,
    run_id: &str,
    file: &str,
    position: &Position,
) -> rusqlite::Result<()> {
    rows.prepare_cached("INSERT OR REPLACE INTO journals VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            run_id,
            file,
            position.mark,
            position.bytes as i64,
            position.lines as i64,
            position.unread as i64,
        ])
        .map(drop)
}

/// The journals in the folder of a run: the driver's, then those of words.
fn journals_in(folder: &Place) -> Result<Vec<Place>, Error> {
    let mut files = folder.list()?;
    files.retain(|file| name_of(file).ends_with(".jsonl") && !name_of(file).starts_with('.'));
    files.sort_by_key(|file| name_of(file) != journal::DRIVER);
    Ok(files)
}

fn bytes_of(file: &Place) -> u64 {
    std::fs::metadata(file).map_or(0, |about| about.len())
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("")
}

fn run_id_of(folder: &Place) -> Option<&str> {
    Some(name_of(folder)).filter(|name| !name.is_empty() && !name.starts_with('.'))
}

fn order_of(folder: &Place) -> i64 {
    match journal::first_entry(&folder.below(journal::DRIVER)) {
        Some(Entry::Begun(begun)) => begun.order,
        _ => i64::MAX,
    }
}

#[cfg(test)]
mod tests;
