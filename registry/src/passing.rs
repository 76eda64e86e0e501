//! A run's history on its way from one home to another.
//!
//! It travels as the lines of its journal, so whatever a run remembers arrives: settings, curves, samples,
//! what people said of it. Nobody is believed who hands it over: lines that speak of anything but this run and its
//! own executions are refused, since a line is carried out on whatever it names. A run that is known already
//! stays as it is: what was said of it here is worth more than a copy.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Transaction};

use crate::{
    Error, Registry, Status,
    db::Failure,
    entry::{self, Begun, Entry},
    history::history_of,
    journal,
};

/// What became of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is known here, by this name.
    New(String),
    /// It was known here before, by this name.
    Known(String),
}

impl Registry {
    /// All that is known of a run that has ended, to be taken by another home; nothing of one that is
    /// unknown here or still at work.
    pub fn history(&self, run_id: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.run(run_id) {
            Ok(run) if run.status == Status::Running => return Ok(None),
            Ok(_) => {}
            Err(Error::UnknownRun { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let lines = || {
            let rows = self.connection.unchecked_transaction()?;
            history_of(&rows, run_id)
        };
        let lines = lines().map_err(|error| self.error(error))?;
        Ok(Some(journal::whole(run_id, &lines)))
    }

    /// Takes a history that another home gave.
    pub fn take_history(&self, text: &[u8]) -> Result<Taken, Error> {
        let (run_id, mut lines) = journal::read_whole(text).ok_or_else(not_one_run)?;
        self.write(|rows| {
            if let Some(name) = name_of(rows, &run_id)? {
                return Ok(Taken::Known(name));
            }
            check(rows, &run_id, &lines)?;
            let Some(Entry::Begun(begun)) = lines.first_mut() else {
                return Err(Failure::Other(not_one_run()));
            };
            settle(rows, begun)?;
            let name = begun.run.name.clone();
            // Executions of it may be known, whose artifacts came before; or it was removed here.
            self.forget_run(rows, &run_id)?;
            let folder = self.home.journals(&run_id);
            for file in folder.list()? {
                file.remove()?;
            }
            journal::make(&folder.below(journal::DRIVER), &run_id, &lines)?;
            self.read_run(rows, &run_id)?;
            Ok(Taken::New(name))
        })
    }
}

fn not_one_run() -> Error {
    Error::NoHistory("it is not the history of one run")
}

fn name_of(rows: &Transaction<'_>, run_id: &str) -> rusqlite::Result<Option<String>> {
    let name = "SELECT name FROM runs WHERE id = ?1 AND removed_at IS NULL";
    rows.query_row(name, [run_id], |row| row.get(0)).optional()
}

/// Gives a run its place and its name among those that are here.
fn settle(rows: &Transaction<'_>, begun: &mut Begun) -> rusqlite::Result<()> {
    let last = "SELECT ifnull(max(rowid), 0) FROM runs";
    begun.order = rows.query_row(last, [], |row| row.get::<_, i64>(0))? + 1;
    begun.run.name = entry::free_name(rows, &begun.run.id, &begun.run.name)?;
    Ok(())
}

/// Refuses lines that speak of anything but this run and executions of its own.
fn check(rows: &Transaction<'_>, run_id: &str, lines: &[Entry]) -> Result<(), Failure> {
    let mut ours = HashSet::new();
    for (n, line) in lines.iter().enumerate() {
        let is_of_run = match line {
            Entry::Begun(begun) => n == 0 && begun.run.id == run_id && is_id(run_id),
            Entry::Stages(stages) => stages.iter().all(|stage| stage.run_id == run_id),
            Entry::Execution(execution) => {
                let id = &execution.id;
                ours.insert(id.clone());
                execution.run_id == run_id && is_id(id) && !is_of_another(rows, id, run_id)?
            }
            Entry::Place { execution, .. }
            | Entry::Ended { execution, .. }
            | Entry::Numbers { execution, .. }
            | Entry::Cut { execution, .. }
            | Entry::Samples { execution, .. } => ours.contains(execution),
            Entry::Progress(rows) => rows.iter().all(|row| ours.contains(&row.execution_id)),
            // Whoever gave it has thrown it away.
            Entry::Removed { .. } => false,
            Entry::Again { .. }
            | Entry::Status { .. }
            | Entry::Params(_)
            | Entry::Outcome { .. }
            | Entry::Event { .. }
            | Entry::Tag { .. }
            | Entry::Untag { .. }
            | Entry::Note { .. } => true,
        };
        if !is_of_run {
            return Err(not_one_run().into());
        }
    }
    Ok(())
}

fn is_of_another(rows: &Transaction<'_>, execution: &str, run_id: &str) -> rusqlite::Result<bool> {
    let known = "SELECT run_id FROM executions WHERE id = ?1";
    let known = rows.query_row(known, [execution], |row| row.get::<_, String>(0));
    Ok(known.optional()?.is_some_and(|known| known != run_id))
}

/// Folders and logs are named by ids.
fn is_id(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=64).contains(&text.len()) && text.chars().all(is_letter)
}

#[cfg(test)]
mod tests;
