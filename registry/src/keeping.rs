//! A person's words about a run afterwards: tags, notes, and that it may go.

use rusqlite::Transaction;

use crate::{Error, Millis, Registry, db::Failure, entry::Entry};

/// Characters of the longest tag: more of them is a note.
const TAG_MAX: usize = 64;

/// Takes a word for a tag, or says why it is none: it stands in tables, in line with others.
pub fn tag(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a tag has at least one character".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("a tag is one line, without control characters".to_owned());
    }
    match text.chars().count() <= TAG_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a tag has at most {TAG_MAX} characters; `tinylm note` takes more"
        )),
    }
}

impl Registry {
    pub fn add_tag(&self, run_id: &str, tag: &str) -> Result<(), Error> {
        let tag = tag.to_owned();
        self.say(run_id, |n| Entry::Tag { tag, n })
    }

    /// Returns whether the run had the tag.
    pub fn remove_tag(&self, run_id: &str, tag: &str) -> Result<bool, Error> {
        let had_it = self.tags(run_id)?.iter().any(|known| known == tag);
        if had_it {
            let tag = tag.to_owned();
            self.say(run_id, |n| Entry::Untag { tag, n })?;
        }
        Ok(had_it)
    }

    pub fn add_note(&self, run_id: &str, text: &str, at: Millis) -> Result<(), Error> {
        let text = text.to_owned();
        self.say(run_id, |n| Entry::Note { text, at, n })
    }

    /// Takes a run out of every listing; what only it needs goes with the next `gc`.
    pub fn remove_run(&self, run_id: &str, at: Millis) -> Result<(), Error> {
        self.say(run_id, |n| Entry::Removed { at, n })
    }

    fn say(&self, run_id: &str, word: impl FnOnce(u64) -> Entry) -> Result<(), Error> {
        self.write(|rows| -> Result<(), Failure> {
            let n = Registry::next_word(rows, run_id)?;
            self.record_in(rows, run_id, &word(n))
        })
    }

    /// Deletes the rows of removed runs. Their line in `runs` stays, without its texts, so that
    /// their artifacts are known to be nobody's; executions that other runs read stay too. Their
    /// journals are written anew with what is left.
    pub(crate) fn forget_removed(&self) -> Result<(), Error> {
        self.write(|rows| -> Result<(), Failure> {
            let shorter = shorter_runs(rows)?;
            self.memory.borrow_mut().series.clear();
            rows.execute_batch(&format!(
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
            ))?;
            shorter
                .iter()
                .try_for_each(|run_id| self.write_anew(rows, run_id))
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

/// The removed runs of which there is something left to forget.
fn shorter_runs(rows: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    let select = format!(
        "SELECT id FROM runs WHERE removed_at IS NOT NULL AND text <> ''
         UNION SELECT run_id FROM executions WHERE id IN ({FORGOTTEN})"
    );
    let mut select = rows.prepare(&select)?;
    select.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_short_word() {
        assert_eq!(tag(" best so far ").as_deref(), Ok("best so far"));
        assert!(tag(&"é".repeat(64)).is_ok());
        for text in ["", "  ", "a\nb", "a\u{1b}[31mred", &"x".repeat(65)] {
            assert!(tag(text).unwrap_err().starts_with("a tag "), "{text:?}");
        }
    }
}
