//! Removing what no run needs.
//!
//! Kept are the artifacts that every run which has not been removed made or found, the parts of which
//! these are made, and the checkpoints of stages that such a run did not finish. A key record counts as its run's even if
//! the run was killed before it could write down the stage: `resume` must find it. What was
//! made by a run that the registry has never heard of is kept as well: a lost registry must not
//! turn into a lost store.
//!
//! Runs hold the store's lock shared for as long as they live and `gc` holds it exclusively, so
//! neither sees the other's half-done work. A key record goes before its artifact, and an artifact
//! goes with one rename before it is deleted: killed anywhere, what is left is sound.

use std::collections::HashSet;

use serde::Serialize;

use crate::{Digest, Error, Home, Lock, Place, Registry, Store, files, keys, locks};

/// Everything that goes, or went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub items: Vec<Item>,
    /// Kept only because the registry does not know the run that made it.
    pub n_unknown: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub what: What,
    #[serde(serialize_with = "as_path")]
    pub path: Place,
    pub bytes: u64,
    /// The run and stage that it came from, where that is known.
    pub from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Key,
    Artifact,
    Checkpoints,
    Attempt,
    Log,
    /// Remains of a killed commit or removal.
    Leftover,
}

fn as_path<S: serde::Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    place.to_path_buf().serialize(serializer)
}

impl Plan {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

/// Lists exactly what [`sweep`] would remove.
pub fn plan(home: &Home, registry: &Registry) -> Result<Plan, Error> {
    let roots = Roots::read(registry)?;
    let mut plan = Plan::default();
    plan_store(home, &roots, &mut plan)?;
    plan_work(home, &roots, &mut plan)?;
    for execution_id in registry.forgotten_executions()? {
        let log = home.log_path(&execution_id);
        if log.exists() {
            plan.add(What::Log, log, None);
        }
    }
    // A pool without a job has nothing to do: whoever sweeps has seen that there is none.
    for folder in [home.staging(), home.pools()] {
        for path in folder.list()? {
            plan.add(What::Leftover, path, None);
        }
    }
    Ok(plan)
}

/// Removes what no run needs and returns it. `_store` is the exclusive lock on
/// [`Home::store_lock`], which no run can hold at the same time.
pub fn sweep(home: &Home, registry: &Registry, _store: &Lock) -> Result<Plan, Error> {
    // The lock may have been waited for, and other machines at work meanwhile.
    registry.read_news(true)?;
    let plan = plan(home, registry)?;
    let store = Store::new(home.clone());
    for item in &plan.items {
        match item.what {
            What::Artifact => match crate::home::digest_at(&item.path, "") {
                Some(digest) => store.remove(&digest)?,
                None => item.path.remove()?,
            },
            _ => item.path.remove()?,
        }
        item.path.parent().remove_if_empty();
    }
    registry.forget_removed()?;
    tidy_locks(home)?;
    Ok(plan)
}

/// Digests that must stay by the registry, in hex.
struct Roots {
    artifacts: HashSet<String>,
    keys: HashSet<String>,
    runs: HashSet<String>,
    /// Keys that a run can still go on with.
    unfinished: HashSet<String>,
    known_runs: HashSet<String>,
    known_keys: HashSet<String>,
}

impl Roots {
    fn read(registry: &Registry) -> Result<Roots, Error> {
        let set = |select: &str| Ok::<_, Error>(registry.texts(select)?.into_iter().collect());
        Ok(Roots {
            artifacts: set(
                "SELECT DISTINCT artifact FROM stages JOIN runs ON runs.id = run_id
                 WHERE removed_at IS NULL AND artifact IS NOT NULL",
            )?,
            keys: set(
                "SELECT DISTINCT key FROM stages JOIN runs ON runs.id = run_id
                 WHERE removed_at IS NULL AND key IS NOT NULL",
            )?,
            runs: set("SELECT id FROM runs WHERE removed_at IS NULL")?,
            unfinished: set(
                "SELECT DISTINCT key FROM stages JOIN runs ON runs.id = run_id
                 WHERE removed_at IS NULL AND key IS NOT NULL AND outcome NOT IN ('hit', 'made')",
            )?,
            known_runs: set("SELECT id FROM runs")?,
            known_keys: set("SELECT DISTINCT key FROM executions UNION
                 SELECT DISTINCT key FROM stages WHERE key IS NOT NULL")?,
        })
    }
}

fn plan_store(home: &Home, roots: &Roots, plan: &mut Plan) -> Result<(), Error> {
    let store = Store::new(home.clone());
    let mut kept: HashSet<Digest> = HashSet::new();
    let (mut records, mut parts) = (Vec::new(), HashSet::new());
    for key in keys::list_keys(home)? {
        let record = keys::read_key(home, &key)?;
        if let Some(record) = &record {
            let is_root = roots.artifacts.contains(&record.artifact.to_string())
                || roots.keys.contains(&key.to_string())
                || roots.runs.contains(&record.run_id);
            let is_unknown = !roots.known_runs.contains(&record.run_id);
            plan.n_unknown += u64::from(is_unknown && !is_root);
            if is_root || is_unknown {
                kept.insert(record.artifact);
                parts.extend(record.parts.iter().copied());
            }
        }
        records.push((key, record));
    }
    let is_part = |(key, _): &&(Digest, Option<keys::KeyRecord>)| parts.contains(key);
    let of_parts = records.iter().filter(is_part);
    kept.extend(of_parts.filter_map(|(_, record)| Some(record.as_ref()?.artifact)));
    for (key, record) in &records {
        let from = record
            .as_ref()
            .map(|record| format!("{}/{}", record.run_name, record.stage));
        if record
            .as_ref()
            .is_none_or(|record| !kept.contains(&record.artifact))
        {
            plan.add(What::Key, home.key_path(key), from);
        }
    }
    for digest in store.list()? {
        if kept.contains(&digest) || roots.artifacts.contains(&digest.to_string()) {
            continue;
        }
        let maker = records.iter().flat_map(|(_, record)| record);
        let maker = maker.into_iter().find(|record| record.artifact == digest);
        plan.items.push(Item {
            what: What::Artifact,
            path: home.artifact_dir(&digest),
            bytes: store.bytes(&digest),
            from: maker.map(|record| format!("{}/{}", record.run_name, record.stage)),
        });
    }
    Ok(())
}

fn plan_work(home: &Home, roots: &Roots, plan: &mut Plan) -> Result<(), Error> {
    for folder in home.work().list()? {
        // A link that a program put there goes as a link: its target is not ours.
        if folder.is_symlink() {
            plan.add(What::Attempt, folder, None);
            continue;
        }
        let key = folder.file_name().and_then(|name| name.to_str());
        let digest = key.and_then(|key| key.parse::<Digest>().ok());
        if digest.is_some_and(|key| is_being_made(home, &key)) {
            continue;
        }
        let is_needed =
            |key: &str| roots.unfinished.contains(key) || !roots.known_keys.contains(key);
        let is_made = |key: &Digest| keys::read_key(home, key).is_ok_and(|made| made.is_some());
        for path in folder.list()? {
            let is_checkpoints = path.file_name().is_some_and(|name| name == "checkpoints");
            match key.zip(digest) {
                Some((key, digest)) if is_checkpoints => {
                    if !is_needed(key) || is_made(&digest) {
                        plan.add(What::Checkpoints, path, None);
                    }
                }
                // Nobody runs, so no attempt is under way.
                _ => plan.add(What::Attempt, path, None),
            }
        }
    }
    Ok(())
}

/// Only a list that is made while a run goes on (`--dry-run`) can meet one.
fn is_being_made(home: &Home, key: &Digest) -> bool {
    locks::holder(&home.key_lock(key)).is_ok_and(|holder| holder.is_some())
}

/// Removes the lock files of the dead: whoever gets a lock removes its file as it lets go.
fn tidy_locks(home: &Home) -> Result<(), Error> {
    for path in home.locks().list()? {
        drop(Lock::try_exclusive(&path, "tidying"));
    }
    Ok(())
}

impl Plan {
    fn add(&mut self, what: What, path: Place, from: Option<String>) {
        let bytes = files::folder_bytes(&path);
        self.items.push(Item {
            what,
            path,
            bytes,
            from,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        Condition, KeyRecord,
        keys::tests::record,
        records::{NewExecution, StageRecord},
        rows::{Run, RunSource},
        words::{Outcome, Status},
    };

    struct Fixture {
        _folder: tempfile::TempDir,
        home: Home,
        registry: Registry,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::at(folder.path());
            home.create().unwrap();
            let registry = Registry::open(&home).unwrap();
            Fixture {
                _folder: folder,
                home,
                registry,
            }
        }

        /// Lets a run make an artifact that holds `text`, and keep checkpoints of another stage.
        fn run(&self, run_id: &str, text: &str, is_known: bool) -> Digest {
            let key = Digest::of_bytes(format!("key {text}").as_bytes());
            let out = self.home.attempt_dir(&key, "1").below("out");
            fs::create_dir_all(&out).unwrap();
            fs::write(out.join("text"), text).unwrap();
            let artifact = Store::new(self.home.clone()).commit(&out).unwrap().digest;
            keys::write_key(&self.home, &record(key, artifact, run_id)).unwrap();
            let unfinished = Digest::of_bytes(format!("unfinished {run_id}").as_bytes());
            let checkpoints = self.home.checkpoints_dir(&unfinished);
            fs::create_dir_all(&checkpoints).unwrap();
            fs::write(checkpoints.join("step-10"), "weights").unwrap();
            if is_known {
                self.record(run_id, "made", Outcome::Made, key, Some(artifact));
                self.record(run_id, "unfinished", Outcome::Running, unfinished, None);
            }
            artifact
        }

        fn record(
            &self,
            run_id: &str,
            stage: &str,
            outcome: Outcome,
            key: Digest,
            artifact: Option<Digest>,
        ) {
            let run = Run {
                id: run_id.into(),
                ..Run::default()
            };
            self.registry
                .insert_run(&run, &RunSource::default())
                .unwrap();
            let execution = NewExecution {
                id: format!("{run_id} {stage}"),
                run_id: run_id.into(),
                key: key.to_string(),
                ..NewExecution::default()
            };
            self.registry.insert_execution(&execution).unwrap();
            let row = StageRecord {
                run_id: run_id.into(),
                name: stage.into(),
                outcome,
                key: Some(key),
                execution_id: Some(execution.id),
                artifact,
                ..StageRecord::default()
            };
            self.registry.upsert_stage(&row).unwrap();
        }

        fn sweep(&self) -> Vec<What> {
            let planned = plan(&self.home, &self.registry).unwrap();
            let lock = Lock::try_exclusive(&self.home.store_lock(), "gc")
                .unwrap()
                .unwrap();
            let swept = sweep(&self.home, &self.registry, &lock).unwrap();
            assert_eq!(swept, planned);
            assert!(swept.items.iter().all(|item| !item.path.exists()));
            let mut whats: Vec<What> = swept.items.iter().map(|item| item.what).collect();
            whats.sort();
            whats
        }

        fn condition(&self, artifact: &Digest) -> Condition {
            Store::new(self.home.clone()).condition(artifact).unwrap()
        }
    }

    #[test]
    fn what_a_run_needs_stays_until_the_run_is_removed() {
        let fixture = Fixture::new();
        let (a, b) = (fixture.run("a", "one", true), fixture.run("b", "two", true));
        assert_eq!(fixture.sweep(), [What::Attempt, What::Attempt]);
        assert_eq!(fixture.sweep(), []);
        fixture.registry.remove_run("a", 1).unwrap();
        assert_eq!(
            fixture.sweep(),
            [What::Key, What::Artifact, What::Checkpoints]
        );
        assert_eq!(fixture.condition(&a), Condition::Missing);
        assert!(matches!(fixture.condition(&b), Condition::Whole(_)));
        assert_eq!(fixture.sweep(), []);
        assert_eq!(fixture.registry.executions("a").unwrap(), []);
        assert_eq!(fixture.registry.executions("b").unwrap().len(), 2);
    }

    #[test]
    fn an_artifact_that_another_run_hit_stays_with_its_execution() {
        let fixture = Fixture::new();
        let artifact = fixture.run("a", "one", true);
        let key = Digest::of_bytes(b"key one");
        fixture.record("b", "hit", Outcome::Hit, key, Some(artifact));
        let row = StageRecord {
            run_id: "b".into(),
            name: "hit".into(),
            outcome: Outcome::Hit,
            key: Some(key),
            execution_id: Some("a made".into()),
            artifact: Some(artifact),
            ..StageRecord::default()
        };
        fixture.registry.upsert_stage(&row).unwrap();
        fixture.registry.remove_run("a", 1).unwrap();
        assert_eq!(fixture.sweep(), [What::Checkpoints, What::Attempt]);
        assert!(matches!(fixture.condition(&artifact), Condition::Whole(_)));
        assert!(fixture.registry.execution("a made").unwrap().is_some());
        assert!(
            fixture
                .registry
                .execution("a unfinished")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_link_among_the_work_goes_and_what_it_leads_to_stays() {
        let fixture = Fixture::new();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir(elsewhere.path().join("inner")).unwrap();
        fs::write(elsewhere.path().join("precious"), "").unwrap();
        fs::create_dir_all(fixture.home.work().join("key")).unwrap();
        for link in ["link", "key/link"] {
            let link = fixture.home.work().join(link);
            std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
        }
        assert_eq!(fixture.sweep(), [What::Attempt, What::Attempt]);
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_was_made_by_a_run_killed_before_it_could_say_so_stays() {
        let fixture = Fixture::new();
        let artifact = fixture.run("a", "one", false);
        let run = Run {
            id: "a".into(),
            ..Run::default()
        };
        fixture
            .registry
            .insert_run(&run, &RunSource::default())
            .unwrap();
        assert_eq!(plan(&fixture.home, &fixture.registry).unwrap().n_unknown, 0);
        assert_eq!(fixture.sweep(), [What::Attempt]);
        assert!(matches!(fixture.condition(&artifact), Condition::Whole(_)));
    }

    #[test]
    fn a_list_made_during_a_run_leaves_out_what_is_under_way() {
        let fixture = Fixture::new();
        fixture.run("a", "one", true);
        let lock = fixture.home.key_lock(&Digest::of_bytes(b"key one"));
        let lock = Lock::try_exclusive(&lock, "calm-fox").unwrap().unwrap();
        assert_eq!(plan(&fixture.home, &fixture.registry).unwrap().items, []);
        drop(lock);
        assert_eq!(
            plan(&fixture.home, &fixture.registry).unwrap().items.len(),
            1
        );
    }

    #[test]
    fn logs_and_locks_of_the_dead_go_too() {
        let fixture = Fixture::new();
        fixture.run("a", "one", true);
        fixture.run("b", "two", true);
        let logs = ["a made", "b made"].map(|id| fixture.home.log_path(id));
        fs::create_dir_all(fixture.home.logs()).unwrap();
        logs.iter().for_each(|log| fs::write(log, "said").unwrap());
        fs::write(fixture.home.run_lock("dead"), "process 1").unwrap();
        fixture.registry.remove_run("a", 1).unwrap();
        assert!(fixture.sweep().contains(&What::Log));
        assert_eq!(logs.map(|log| log.exists()), [false, true]);
        assert_eq!(fixture.home.locks().list().unwrap(), [] as [Place; 0]);
    }

    #[test]
    fn a_lost_registry_does_not_lose_the_store() {
        let fixture = Fixture::new();
        let artifact = fixture.run("a", "one", false);
        assert_eq!(plan(&fixture.home, &fixture.registry).unwrap().n_unknown, 1);
        assert_eq!(fixture.sweep(), [What::Attempt]);
        assert!(matches!(fixture.condition(&artifact), Condition::Whole(_)));
    }

    #[test]
    fn parts_stay_as_long_as_what_is_made_of_them_whoever_made_them() {
        let fixture = Fixture::new();
        let part = fixture.run("a", "one", true);
        let whole = fixture.run("b", "two", true);
        let key = Digest::of_bytes(b"key two");
        let of_parts = KeyRecord {
            parts: vec![Digest::of_bytes(b"key one")],
            ..record(key, whole, "b")
        };
        keys::write_key(&fixture.home, &of_parts).unwrap();
        fixture.registry.remove_run("a", 1).unwrap();
        fixture.sweep();
        assert!(matches!(fixture.condition(&part), Condition::Whole(_)));
        fixture.registry.remove_run("b", 1).unwrap();
        fixture.sweep();
        assert_eq!(fixture.condition(&part), Condition::Missing);
    }

    #[test]
    fn checkpoints_go_once_their_stage_is_made_and_leftovers_always() {
        let fixture = Fixture::new();
        fixture.run("a", "one", true);
        let key = Digest::of_bytes(b"key one");
        fs::create_dir_all(fixture.home.checkpoints_dir(&key)).unwrap();
        fs::create_dir_all(fixture.home.staging().join("killed/files")).unwrap();
        let swept = fixture.sweep();
        assert_eq!(swept, [What::Checkpoints, What::Attempt, What::Leftover]);
        fixture
            .registry
            .set_run_status("a", Status::Done, Some(2))
            .unwrap();
        assert_eq!(fixture.sweep(), []);
    }

    #[test]
    fn gc_and_a_run_keep_each_other_out() {
        let fixture = Fixture::new();
        let run = Lock::try_shared(&fixture.home.store_lock(), "calm-fox")
            .unwrap()
            .unwrap();
        assert!(
            Lock::try_exclusive(&fixture.home.store_lock(), "gc")
                .unwrap()
                .is_none()
        );
        drop(run);
        let gc = Lock::try_exclusive(&fixture.home.store_lock(), "gc")
            .unwrap()
            .unwrap();
        assert!(
            Lock::try_shared(&fixture.home.store_lock(), "calm-fox")
                .unwrap()
                .is_none()
        );
        drop(gc);
    }
}
