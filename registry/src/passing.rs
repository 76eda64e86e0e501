//! A run's history on its way from one home to another.
//!
//! It travels as the lines of its journal, so whatever a run remembers arrives: settings, curves, samples,
//! what people said of it. Nobody is believed who hands it over: lines that speak of anything but this run and its
//! own executions are refused, since a line is carried out on whatever it names. A run that is known here and done
//! stays as it is; one that broke off is taken as others brought it to its end. Either way nothing that is known
//! here is lost to a copy that knows less.

use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, Transaction};

use crate::{
    Error, Level, Millis, Registry, Run, Status,
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

    /// Takes a history that another home gave. Of a run that is known, and had not ended well when it was taken or
    /// when it broke off here, one that ended well says more.
    pub fn take_history(&self, text: &[u8]) -> Result<Taken, Error> {
        let (run_id, lines) = journal::read_whole(text).ok_or_else(not_one_run)?;
        let known = match self.run(&run_id) {
            Ok(run) if run.status == Status::Running || run.status == Status::Done => {
                return Ok(Taken::Known(run.name));
            }
            Ok(run) => Some(run.name),
            Err(Error::UnknownRun { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(name) = &known
            && !ended_well(&lines)
        {
            return Ok(Taken::Known(name.clone()));
        }
        self.write(|rows| {
            check(rows, &run_id, &lines)?;
            let mut here = history_of(rows, &run_id)?;
            let tags = match (here.first(), &known) {
                (Some(Entry::Begun(begun)), Some(_)) => begun.run.tags.clone(),
                _ => Vec::new(),
            };
            if known.is_none() {
                // Whoever removed it threw away what was said of it.
                here.retain(|line| execution_of(line).is_some());
            }
            let mut lines = with_what_is_known_here(lines, here);
            let Some(Entry::Begun(begun)) = lines.first_mut() else {
                return Err(Failure::Other(not_one_run()));
            };
            settle(rows, begun)?;
            let is_new = |tag: &String| !begun.run.tags.contains(tag);
            let tags: Vec<String> = tags.into_iter().filter(is_new).collect();
            begun.run.tags.extend(tags);
            let (name, at) = (begun.run.name.clone(), begun.run.started_at);
            lines.push(Entry::Event {
                stage: None,
                level: Level::Info,
                message: CAME.to_owned(),
                at,
            });
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

    /// Whether a run was carried out somewhere else, so that nobody here has read what it does.
    pub fn came_from_elsewhere(&self, run_id: &str) -> Result<bool, Error> {
        let said = "SELECT message FROM events WHERE run_id = ?1 AND message = ?2";
        let said: Vec<String> = self.list(said, [run_id, CAME], |row| row.get(0))?;
        Ok(!said.is_empty())
    }

    /// The run that a history is of, if it is one.
    #[must_use]
    pub fn run_of_history(text: &[u8]) -> Option<String> {
        journal::read_whole(text).map(|(run_id, _)| run_id)
    }
}

/// What is written into the history of a run that was taken.
const CAME: &str = "its history came from another home";

/// The last moment that a time may be, at the end of the year 9999.
const TIME_MAX: Millis = 253_402_300_799_999;

fn ended_well(lines: &[Entry]) -> bool {
    let status = lines.iter().rev().find_map(|line| match line {
        Entry::Status { status, .. } => Some(*status),
        _ => None,
    });
    status == Some(Status::Done)
}

/// Puts in what is known here of the run's executions where that is more than what came: whoever was given their
/// artifacts before, or goes on showing them though the run was removed, loses no number. Notes stay too.
fn with_what_is_known_here(came: Vec<Entry>, here: Vec<Entry>) -> Vec<Entry> {
    let (own, notes): (Vec<Entry>, Vec<Entry>) = here
        .into_iter()
        .filter(|line| execution_of(line).is_some() || matches!(line, Entry::Note { .. }))
        .partition(|line| execution_of(line).is_some());
    let mut worth: HashMap<String, [(bool, usize); 2]> = HashMap::new();
    for (side, lines) in [(0, &came), (1, &own)] {
        for line in lines {
            let Some(execution) = execution_of(line) else {
                continue;
            };
            let worth = &mut worth.entry(execution.to_owned()).or_default()[side];
            match line {
                Entry::Ended { .. } => worth.0 = true,
                Entry::Numbers { curves, .. } => {
                    worth.1 += curves.iter().map(|curve| curve.points.len()).sum::<usize>();
                }
                _ => {}
            }
        }
    }
    let is_better_here = |line: &Entry| {
        let worth = execution_of(line).and_then(|execution| worth.get(execution));
        worth.is_some_and(|[came, here]| here > came)
    };
    let mut lines: Vec<Entry> = came
        .into_iter()
        .filter(|line| !is_better_here(line))
        .collect();
    lines.extend(own.into_iter().filter(is_better_here));
    let is_new = |note: &Entry| !lines.contains(note);
    let notes: Vec<Entry> = notes.into_iter().filter(is_new).collect();
    lines.extend(notes);
    lines
}

/// The execution that a line is of.
fn execution_of(line: &Entry) -> Option<&str> {
    match line {
        Entry::Execution(execution) => Some(&execution.id),
        Entry::Place { execution, .. }
        | Entry::Ended { execution, .. }
        | Entry::Numbers { execution, .. }
        | Entry::Cut { execution, .. }
        | Entry::Samples { execution, .. } => Some(execution),
        _ => None,
    }
}

fn not_one_run() -> Error {
    Error::NoHistory("it is not the history of one run")
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
            Entry::Begun(begun) => n == 0 && is_id(run_id) && is_sound(run_id, &begun.run),
            Entry::Stages(stages) => stages.iter().all(|stage| stage.run_id == run_id),
            Entry::Execution(execution) => {
                let id = &execution.id;
                ours.insert(id.clone());
                execution.run_id == run_id && is_id(id) && !is_of_another(rows, id, run_id)?
            }
            Entry::Progress(rows) => rows.iter().all(|row| ours.contains(&row.execution_id)),
            // Whoever gave it has thrown it away.
            Entry::Removed { .. } => false,
            _ => execution_of(line).is_none_or(|execution| ours.contains(execution)),
        };
        if !is_of_run || !times(line).all(|at| (0..=TIME_MAX).contains(&at)) {
            return Err(not_one_run().into());
        }
    }
    Ok(())
}

/// Files are named by a run's name.
fn is_sound(run_id: &str, run: &Run) -> bool {
    run.id == run_id && is_id(&run.name)
}

fn times(line: &Entry) -> impl Iterator<Item = Millis> {
    let mut times = Vec::new();
    match line {
        Entry::Begun(begun) => {
            times.push(begun.run.started_at);
            times.extend(begun.run.ended_at);
        }
        Entry::Status { ended_at, .. } => times.extend(*ended_at),
        Entry::Execution(execution) => times.push(execution.started_at),
        Entry::Ended { end, .. } => times.push(end.ended_at),
        Entry::Numbers { curves, .. } => {
            let points = curves.iter().flat_map(|curve| &curve.points);
            times.extend(points.map(|point| point.2));
        }
        Entry::Progress(rows) => times.extend(rows.iter().map(|row| row.at)),
        Entry::Samples { at, .. } | Entry::Event { at, .. } | Entry::Note { at, .. } => {
            times.push(*at);
        }
        _ => {}
    }
    times.into_iter()
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
