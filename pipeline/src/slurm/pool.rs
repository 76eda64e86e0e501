//! One allocation for many light stages.
//!
//! A stage of seconds would wait in the queue for minutes, five times in a row. So the first light
//! stage of a run brings a pool: a job that carries out whatever orders are laid into its folder, and
//! ends once it had nothing to do for a while. Each order is a job's folder as any other, so a stage in
//! a pool is followed, stopped and adopted like one alone; only whether it lives is the pool's to say.
//!
//! Who takes an order has linked its mark into place: the pool, or a driver that finds the pool closed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tinylm_registry::{Home, Place, names};

use super::{
    commands::{self, Submitted},
    folder::{mark, read, unwritable},
    node,
    site::Asked,
};
use crate::{error::StageError, threads};

/// How often a pool looks for orders.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An order for a pool: a job's folder, by its submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) folder: PathBuf,
    pub(crate) submission: u32,
}

/// A pool as its driver sees it.
pub(crate) struct Pool {
    place: Place,
    pub(crate) mark: String,
    pub(crate) id: Option<String>,
    n_orders: usize,
}

impl Pool {
    /// Submits a new pool.
    pub(crate) fn submit(home: &Home, asked: &Asked) -> Result<Self, StageError> {
        let name = names::new_id();
        let place = home.pools().below(&name);
        place.create_folder()?;
        home.logs().create_folder()?;
        let mark = mark(&format!("pool-{name}"), 1);
        let mut flags =
            commands::usual_flags("light stages", &mark, &home.logs().join("pool-%j.out"));
        flags.extend(commands::asked(&asked.site.resources));
        flags.push(commands::early(
            &asked.site,
            asked.site.resources.time.map(|time| time.from),
        ));
        flags.extend(asked.site.options.iter().cloned());
        let words = format!(
            "exec-pool {} {}",
            commands::quoted(&place.display().to_string()),
            asked.site.linger.0.as_secs()
        );
        let script = commands::script(&asked.site, &asked.program, &words);
        let id = match commands::submit(&flags, &script) {
            Submitted::Job(id) => Some(id),
            Submitted::Unknown(_) => None,
            Submitted::Refused(why) => return Err(commands::refused(why)),
        };
        Ok(Self {
            place,
            mark,
            id,
            n_orders: 0,
        })
    }

    /// Lays an order into the pool; returns whether the pool is there to take it.
    pub(crate) fn takes(&mut self, folder: &Place, submission: u32) -> Result<bool, StageError> {
        self.n_orders += 1;
        let name = format!("{:06}-{}", self.n_orders, names::new_id());
        let entry = Entry {
            folder: folder.to_path_buf(),
            submission,
        };
        let place = self.place.below("in").below(format!("{name}.json"));
        let text = serde_json::to_vec(&entry).map_err(|error| unwritable(&place, &error))?;
        if is_closed(&self.place)? {
            return Ok(false);
        }
        place.write_atomic(&text)?;
        // One that closed meanwhile may have seen the order or not: the mark decides.
        Ok(!is_closed(&self.place)? || !mark_taken(&self.place, &name, b"driver")?)
    }

    /// Nothing more will come: a pool that is idle may end at once.
    pub(crate) fn dismiss(&self) {
        if let Some(id) = &self.id {
            commands::scancel(id, true);
        }
        self.place.below("dismissed").write_atomic(b"").ok();
    }
}

fn has(place: &Place, name: &str) -> Result<bool, StageError> {
    let names = place.list()?;
    Ok(names
        .iter()
        .any(|one| one.file_name().is_some_and(|known| known == name)))
}

/// A pool that has ended has taken its folder with it.
fn is_closed(pool: &Place) -> Result<bool, StageError> {
    Ok(has(pool, "closed")?
        || !has(
            &pool.parent(),
            &pool.file_name().unwrap_or_default().to_string_lossy(),
        )?)
}

fn mark_taken(pool: &Place, name: &str, by: &[u8]) -> Result<bool, StageError> {
    Ok(pool.below("taken").below(name).link_new(by)?)
}

/// Carries out the orders of a pool until there were none for `linger`; the job of `exec-pool`.
pub fn exec_pool(program: &Path, folder: &Path, linger: Duration) -> Result<(), StageError> {
    let place = pool_at(folder)?;
    let at_work = Arc::new(AtomicUsize::new(0));
    let is_told_to_end = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&is_told_to_end)).ok();
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&is_told_to_end)).ok();
    let mut seen = Vec::new();
    let mut idle_since = Instant::now();
    loop {
        for (name, entry) in orders(&place, &mut seen)? {
            // A pool that was started anew takes again what it took before: done is done.
            if !mark_taken(&place, &name, b"pool")? && !is_ours(&place, &name)? {
                continue;
            }
            begin(program, entry, &at_work)?;
        }
        if at_work.load(Ordering::Relaxed) > 0 {
            idle_since = Instant::now();
        }
        let is_ending = is_told_to_end.load(Ordering::Relaxed) || has(&place, "dismissed")?;
        let is_idle = at_work.load(Ordering::Relaxed) == 0;
        if is_idle && (is_ending || idle_since.elapsed() >= linger) {
            if has(&place, "closed")? {
                break;
            }
            // Whatever was laid in before the door closed is still taken: one more round.
            place.below("closed").write_atomic(b"")?;
            continue;
        }
        thread::sleep(LOOK_EVERY);
    }
    if !is_told_to_end.load(Ordering::Relaxed) {
        place.remove()?;
    }
    Ok(())
}

fn begin(program: &Path, entry: Entry, at_work: &Arc<AtomicUsize>) -> Result<(), StageError> {
    let turn = Turn::of(at_work);
    let program = program.to_owned();
    let carry_out = move || {
        let _turn = turn;
        // What it came to stands in its own last word; a folder that is gone is nobody's any more.
        node::exec_job(&program, &entry.folder, entry.submission).ok();
    };
    let thread = threads::spawn(carry_out);
    thread
        .map(drop)
        .map_err(|error| StageError::no_thread(&error))
}

/// One stage at work, counted until its thread is gone, however that ends.
struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn of(at_work: &Arc<AtomicUsize>) -> Self {
        at_work.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(at_work))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The orders that were not there when this was last asked.
fn orders(pool: &Place, seen: &mut Vec<String>) -> Result<Vec<(String, Entry)>, StageError> {
    let mut new = Vec::new();
    for place in pool.below("in").list()? {
        let name = place
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || seen.contains(&name) {
            continue;
        }
        seen.push(name.clone());
        new.push((name, read(&place)?));
    }
    Ok(new)
}

fn is_ours(pool: &Place, name: &str) -> Result<bool, StageError> {
    let place = pool.below("taken").below(name);
    let by = std::fs::read(&place).map_err(|error| StageError::io(&place, &error))?;
    Ok(by == b"pool")
}

pub(crate) fn pool_at(folder: &Path) -> Result<Place, StageError> {
    let parts = || Some((folder.parent()?.parent()?, folder.file_name()?));
    let (root, name) =
        parts().ok_or_else(|| StageError::new(format!("`{}` is no pool", folder.display())))?;
    let home = Home::at(root);
    home.check()?;
    Ok(home.pools().below(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> (tempfile::TempDir, Home, Pool) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        home.create().unwrap();
        let place = home.pools().below("p");
        place.create_folder().unwrap();
        let pool = Pool {
            place,
            mark: String::new(),
            id: None,
            n_orders: 0,
        };
        (dir, home, pool)
    }

    #[test]
    fn an_order_is_taken_by_the_pool_or_by_its_driver_and_never_by_both() {
        let (_dir, home, mut pool) = pool();
        let job = home.work().below("k").below("e");
        assert!(pool.takes(&job, 1).unwrap(), "an open pool takes it");
        let mut seen = Vec::new();
        let found = orders(&pool.place, &mut seen).unwrap();
        assert_eq!(found[0].1.submission, 1);
        assert!(mark_taken(&pool.place, &found[0].0, b"pool").unwrap());
        assert!(orders(&pool.place, &mut seen).unwrap().is_empty());
        assert!(is_ours(&pool.place, &found[0].0).unwrap());

        pool.place.below("closed").write_atomic(b"").unwrap();
        assert!(!pool.takes(&job, 2).unwrap(), "a closed one does not");
        assert!(
            orders(&pool.place, &mut seen).unwrap().is_empty(),
            "nor would it find it"
        );
        pool.place.remove().unwrap();
        assert!(!pool.takes(&job, 3).unwrap(), "one that is gone neither");
    }

    #[test]
    fn a_pool_that_has_nothing_to_do_ends_and_leaves_nothing() {
        let (_dir, _home, pool) = pool();
        let folder = std::path::absolute(&pool.place).unwrap();
        exec_pool(Path::new("/bin/false"), &folder, Duration::from_millis(10)).unwrap();
        assert!(!folder.exists());
    }
}
