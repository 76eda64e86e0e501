//! A person's words about a run afterwards: tags, notes, and that it may go.

use rusqlite::params;

use crate::{Error, Millis, Registry};

impl Registry {
    pub fn add_tag(&self, run_id: &str, tag: &str) -> Result<(), Error> {
        self.write(|transaction| {
            transaction.execute("INSERT OR IGNORE INTO tags VALUES (?1, ?2)", [run_id, tag])?;
            Ok(())
        })
    }

    /// Returns whether the run had the tag.
    pub fn remove_tag(&self, run_id: &str, tag: &str) -> Result<bool, Error> {
        self.write(|transaction| {
            let delete = "DELETE FROM tags WHERE run_id = ?1 AND tag = ?2";
            Ok(transaction.execute(delete, [run_id, tag])? > 0)
        })
    }

    pub fn add_note(&self, run_id: &str, text: &str, at: Millis) -> Result<(), Error> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO notes VALUES (?1, ?2, ?3)",
                params![run_id, at, text],
            )?;
            Ok(())
        })
    }

    /// Takes a run out of every listing; what only it needs goes with the next `gc`.
    pub fn remove_run(&self, run_id: &str, at: Millis) -> Result<(), Error> {
        self.write(|transaction| {
            let update = "UPDATE runs SET removed_at = ?2 WHERE id = ?1";
            transaction.execute(update, params![run_id, at])?;
            Ok(())
        })
    }

    /// Deletes the rows of removed runs. Their line in `runs` stays, without its texts, so that
    /// their artifacts are known to be nobody's; executions that other runs read stay too.
    pub(crate) fn forget_removed(&self) -> Result<(), Error> {
        self.write(|transaction| {
            self.series.borrow_mut().clear();
            transaction.execute_batch(&format!(
                "CREATE TEMP TABLE gone AS {FORGOTTEN};
                 DELETE FROM points WHERE series_id IN
                   (SELECT id FROM series WHERE execution_id IN (SELECT id FROM gone));
                 DELETE FROM series WHERE execution_id IN (SELECT id FROM gone);
                 DELETE FROM samples WHERE execution_id IN (SELECT id FROM gone);
                 DELETE FROM progress WHERE execution_id IN (SELECT id FROM gone);
                 DELETE FROM executions WHERE id IN (SELECT id FROM gone);
                 DROP TABLE gone;
                 DELETE FROM stages WHERE run_id IN (SELECT id FROM runs WHERE removed_at IS NOT NULL);
                 DELETE FROM params WHERE run_id IN (SELECT id FROM runs WHERE removed_at IS NOT NULL);
                 DELETE FROM events WHERE run_id IN (SELECT id FROM runs WHERE removed_at IS NOT NULL);
                 DELETE FROM tags WHERE run_id IN (SELECT id FROM runs WHERE removed_at IS NOT NULL);
                 DELETE FROM notes WHERE run_id IN (SELECT id FROM runs WHERE removed_at IS NOT NULL);
                 UPDATE runs SET text = '', resolved = '' WHERE removed_at IS NOT NULL;"
            ))
        })
    }

    /// The executions whose rows [`Registry::forget_removed`] would delete.
    pub(crate) fn forgotten_executions(&self) -> Result<Vec<String>, Error> {
        self.texts(FORGOTTEN)
    }
}

/// Executions of removed runs that no other run has found its artifact in.
const FORGOTTEN: &str = "SELECT id FROM executions
    WHERE run_id IN (SELECT id FROM runs WHERE removed_at IS NOT NULL) AND id NOT IN
      (SELECT execution_id FROM stages JOIN runs ON runs.id = run_id
       WHERE removed_at IS NULL AND execution_id IS NOT NULL)";
