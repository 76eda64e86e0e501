//! Removing what no run needs.
//!
//! Kept are the artifacts of every run that has not been removed, and the checkpoints of stages
//! that such a run did not finish. What was made by a run that the registry has never heard of is
//! kept as well: a lost registry must not turn into a lost store.
//!
//! Runs hold the store's lock shared for as long as they live and `gc` holds it exclusively, so
//! neither sees the other's half-done work. A key record goes before its artifact, and an artifact
//! goes with one rename before it is deleted: killed anywhere, what is left is sound.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{Digest, Error, Home, Lock, Registry, Store, files, keys};

/// What goes, or what went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub items: Vec<Item>,
    /// What is kept only because the registry does not know the run that made it.
    pub n_unknown: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub what: What,
    pub path: PathBuf,
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
    /// What a killed commit or removal left behind.
    Leftover,
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
    for path in files::list_folder(&home.staging())? {
        plan.add(What::Leftover, path, None);
    }
    Ok(plan)
}

/// Removes what no run needs and returns it. `_store` is the exclusive lock on
/// [`Home::store_lock`], which no run can hold at the same time.
pub fn sweep(home: &Home, registry: &Registry, _store: &Lock) -> Result<Plan, Error> {
    let plan = plan(home, registry)?;
    let store = Store::new(home.clone());
    for item in &plan.items {
        match item.what {
            What::Key => files::remove_file(&item.path)?,
            What::Artifact => match crate::home::digest_at(&item.path, "") {
                Some(digest) => store.remove(&digest)?,
                None => files::remove_folder(&item.path)?,
            },
            What::Checkpoints | What::Attempt | What::Leftover => remove(&item.path)?,
        }
        // A folder that still holds something stays, as it should.
        let _ = std::fs::remove_dir(files::parent(&item.path));
    }
    registry.forget_removed()?;
    Ok(plan)
}

fn remove(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        files::remove_folder(path)
    } else {
        files::remove_file(path)
    }
}

/// What the registry says must stay, in hex.
struct Roots {
    artifacts: HashSet<String>,
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
    let mut records = Vec::new();
    for key in keys::list_keys(home)? {
        let record = keys::read_key(home, &key);
        if let Some(record) = &record {
            let is_root = roots.artifacts.contains(&record.artifact.to_string());
            let is_unknown = !roots.known_runs.contains(&record.run_id);
            plan.n_unknown += u64::from(is_unknown && !is_root);
            if is_root || is_unknown {
                kept.insert(record.artifact);
            }
        }
        records.push((key, record));
    }
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
    for folder in files::list_folder(&home.work())? {
        let key = folder.file_name().and_then(|name| name.to_str());
        let is_needed =
            |key: &str| roots.unfinished.contains(key) || !roots.known_keys.contains(key);
        let is_made = |key: &Digest| keys::read_key(home, key).is_some();
        for path in files::list_folder(&folder)? {
            let is_checkpoints = path.file_name().is_some_and(|name| name == "checkpoints");
            match key.and_then(|key| key.parse::<Digest>().ok().map(|digest| (key, digest))) {
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

impl Plan {
    fn add(&mut self, what: What, path: PathBuf, from: Option<String>) {
        let bytes = files::folder_bytes(&path);
        self.items.push(Item {
            what,
            path,
            bytes,
            from,
        });
    }
}
