//! How far executions are, for whoever looks on from outside.
//!
//! The driver of a run draws its own bar; everybody else asks here. One row for each execution that
//! goes on, written over in place and taken away at its end: progress is no history.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use crate::{Error, Millis, Registry};

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    pub execution_id: String,
    pub done: u64,
    pub total: Option<u64>,
    pub unit: String,
    /// The part of the work that is under way.
    pub note: Option<String>,
    /// Where its first word of this execution stood, and when: the pace goes from there.
    pub from_done: u64,
    pub from_at: Millis,
    /// Used by its process so far.
    pub cpu_seconds: Option<f64>,
    /// Held by its process now.
    pub memory_bytes: Option<u64>,
    pub at: Millis,
}

impl Progress {
    /// Returns how many seconds are left at the pace so far.
    pub fn seconds_left(&self) -> Option<f64> {
        let done = self
            .done
            .checked_sub(self.from_done)
            .filter(|done| *done > 0)?;
        let left = self.total?.checked_sub(self.done)?;
        let seconds = (self.at - self.from_at).max(0) as f64 / 1e3;
        Some(left as f64 * seconds / done as f64)
    }
}

impl Registry {
    pub fn set_progress<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a Progress>,
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO progress VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            for row in rows {
                insert.execute(params![
                    row.execution_id,
                    row.done as i64,
                    row.total.map(|total| total as i64),
                    row.unit,
                    row.note,
                    row.from_done as i64,
                    row.from_at,
                    row.cpu_seconds,
                    row.memory_bytes.map(|bytes| bytes as i64),
                    row.at,
                ])?;
            }
            Ok(())
        })
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
    use crate::recorder::Finished;

    #[test]
    fn progress_is_written_over_and_gone_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("registry.sqlite")).unwrap();
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
