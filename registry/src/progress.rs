//! How far executions are, for whoever looks on from outside.
//!
//! The driver of a run draws its own bar; everybody else asks here. One row for each execution that
//! goes on, written over in place and taken away at its end: progress is no history, and stands in
//! a journal only where the home is shared, a line every ten seconds.

use rusqlite::OptionalExtension;

use crate::{
    Error, Registry,
    entry::{Entry, insert_progress},
    rows::Progress,
};

impl Registry {
    pub fn set_progress<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a Progress>,
    ) -> Result<(), Error> {
        let progress: Vec<Progress> = rows.into_iter().cloned().collect();
        match progress.first() {
            // Who looks on from another machine sees the journals alone.
            Some(first) if self.home.is_shared() && self.is_time_to_tell() => {
                let execution = first.execution_id.clone();
                self.record_of(&execution, &Entry::Progress(progress))
            }
            _ => self.write(|rows| {
                progress
                    .iter()
                    .try_for_each(|row| insert_progress(rows, row))
            }),
        }
    }

    /// How far an execution is; nothing of one that has ended or has not said.
    pub fn progress(&self, execution_id: &str) -> Result<Option<Progress>, Error> {
        let select = "SELECT execution_id, done, total, unit, note, from_done, from_at, cpu_seconds, memory_bytes, at
            FROM progress WHERE execution_id = ?1";
        self.connection
            .prepare_cached(select)
            .and_then(|mut select| {
                let row = select.query_row([execution_id], |row| {
                    Ok(Progress {
                        execution_id: row.get(0)?,
                        done: row.get::<_, i64>(1)? as u64,
                        total: row.get::<_, Option<i64>>(2)?.map(|total| total as u64),
                        unit: row.get(3)?,
                        note: row.get(4)?,
                        from_done: row.get::<_, i64>(5)? as u64,
                        from_at: row.get(6)?,
                        cpu_seconds: row.get(7)?,
                        memory_bytes: row.get::<_, Option<i64>>(8)?.map(|bytes| bytes as u64),
                        at: row.get(9)?,
                    })
                });
                row.optional()
            })
            .map_err(|error| self.error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Home, records::Finished};

    #[test]
    fn progress_is_written_over_and_gone_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&Home::at(folder.path())).unwrap();
        let half = Progress {
            execution_id: "e".to_owned(),
            done: 150,
            total: Some(200),
            unit: "steps".to_owned(),
            from_done: 100,
            from_at: 1_000,
            memory_bytes: Some(1 << 40),
            at: 11_000,
            ..Progress::default()
        };
        let first = Progress {
            done: 100,
            at: 1_000,
            ..half.clone()
        };
        assert_eq!(first.seconds_left(), None, "no pace yet");
        registry.set_progress([&first, &half]).unwrap();
        assert_eq!(registry.progress("e").unwrap(), Some(half.clone()));
        // Fifty steps in ten seconds, those before it went on not counted.
        assert_eq!(half.seconds_left(), Some(10.0));
        registry
            .finish_execution("e", &Finished::default())
            .unwrap();
        assert_eq!(registry.progress("e").unwrap(), None);
    }
}
