//! The registry's schema, as the list of steps that lead to it.
//!
//! `user_version` counts the steps a file has taken. A step that has been released is never edited:
//! a file that took it would not take the edit.

use rusqlite::{Connection, Transaction};

const STEPS: [&str; 5] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// The version of the schema that this program reads and writes.
pub(crate) const VERSION: u32 = STEPS.len() as u32;

pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// From this version on every run has a journal.
pub(crate) const FIRST_WITH_JOURNALS: u32 = 5;

/// Takes the steps that a file lacks which has `taken` some.
pub(crate) fn take_steps(transaction: &Transaction<'_>, taken: u32) -> rusqlite::Result<()> {
    for step in STEPS.iter().skip(taken as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION.max(taken))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::{Home, Registry};

    /// The registry as the first version wrote it.
    fn first_version(path: &std::path::Path) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(super::STEPS[0]).unwrap();
        connection
            .execute_batch(
                "INSERT INTO runs VALUES ('0197', 'calm-fox-0001', 'tiny', 'tiny.yaml', 'name: tiny',
                   '{}', 7, 'done', 1000, 2000, '{}', 'cpu', NULL, NULL, '0.1.0', 'tinylm run', NULL, NULL);
                 INSERT INTO stages VALUES
                   ('0197', 'base', 0, 'pretrain', 'made', 'k', 'e', 'a', NULL, '{}', '{}');
                 INSERT INTO metrics VALUES ('e', 'loss', 1, 3.0, NULL, 10), ('e', 'loss', 2, NULL, 'nan', 20),
                   ('e', 'loss', 2, 2.5, NULL, 30), ('e', 'loss', NULL, 2.0, NULL, 40), ('e', 'lr', 1, 0.1, NULL, 10);
                 PRAGMA user_version = 1;",
            )
            .unwrap();
    }

    #[test]
    fn a_registry_of_the_first_version_keeps_all_it_knew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        first_version(&path);
        let registry = Registry::open(&Home::at(folder.path())).unwrap();
        let run = registry.find_run("calm").unwrap();
        assert_eq!((run.id.as_str(), run.seed), ("0197", Some(7)));
        let points = registry.metric_series("e", "loss", 100).unwrap().points;
        let values: Vec<(u64, f64)> = points
            .iter()
            .map(|point| (point.step, point.value))
            .collect();
        assert_eq!(values, [(1, 3.0), (2, 2.5)]);
        let last: Vec<(String, f64)> = registry
            .final_metrics("0197")
            .unwrap()
            .into_iter()
            .map(|metric| (metric.name, metric.value))
            .collect();
        assert_eq!(last, [("loss".to_owned(), 2.0), ("lr".to_owned(), 0.1)]);
        drop(registry);
        Registry::open(&Home::at(folder.path()))
            .unwrap()
            .verify()
            .unwrap();
    }

    #[test]
    fn the_metrics_view_reads_and_takes_rows_as_the_table_did() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&Home::at(folder.path())).unwrap();
        let insert = "INSERT INTO metrics (execution_id, name, step, value, special, at)
            VALUES ('e', 'loss', NULL, 2.0, NULL, 1), ('e', 'loss', 3, NULL, 'inf', 1)";
        registry.connection.execute(insert, []).unwrap();
        let select = "SELECT name || ' ' || ifnull(step, 'final') || ' ' || ifnull(value, special)
            FROM metrics WHERE execution_id = 'e' ORDER BY step";
        assert_eq!(
            registry.texts(select).unwrap(),
            ["loss final 2.0", "loss 3 inf"]
        );
    }

    #[test]
    fn eight_threads_migrate_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        first_version(&path);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Registry::open(&Home::at(folder.path())).unwrap());
            }
        });
        assert_eq!(
            Registry::open(&Home::at(folder.path()))
                .unwrap()
                .find_run("@last")
                .unwrap()
                .id,
            "0197"
        );
    }
}
