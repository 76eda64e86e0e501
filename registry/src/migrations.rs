//! The registry's schema, as the list of steps that lead to it.
//!
//! `user_version` counts the steps a file has taken. A step that has been released is never edited:
//! a file that took it would not take the edit.

use rusqlite::Connection;

const STEPS: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// The version of the schema that this program reads and writes.
pub(crate) const VERSION: u32 = STEPS.len() as u32;

pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Takes the steps that are missing, all or none.
pub(crate) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let behavior = rusqlite::TransactionBehavior::Exclusive;
    let transaction = connection.transaction_with_behavior(behavior)?;
    // Read again: another process may have been here before our transaction began.
    let taken = version(&transaction)? as usize;
    for step in STEPS.iter().skip(taken) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION.max(taken as u32))?;
    transaction.commit()
}
