//! Claims: the right to do something, held also against processes of other machines.
//!
//! A lock of the kernel dies with its holder, but on many shared file systems it reaches no further
//! than its own machine. A claim is a file that is linked into place, which has one winner wherever it
//! is tried from. What it lacks is that it goes when its holder does; so it names its holder, and a
//! holder that is known to be gone loses it. Known means the process's own identity, seen from the
//! machine that it is of; a clock, or a long silence, never is. A holder on a machine that cannot be
//! seen from here is waited for and named.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Home, Place, home, names};

/// How often a claim that somebody else holds is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A claim held until it is dropped.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    holder: Holder,
}

/// Whoever has a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// For those who wait.
    pub note: String,
    /// No two claims share it.
    nonce: String,
    /// The name of its machine.
    pub host: String,
    /// The machine's identity, and that of its kernel since it was started.
    machine: String,
    boot: String,
    /// The numbers of processes mean something only among processes of one space.
    space: String,
    pid: u32,
    /// A number is given again; with the moment of its start it is not.
    started: u64,
    /// Whose process it is: a scheduler may tell of nobody's jobs but one's own.
    #[serde(default)]
    user: Option<u32>,
    /// The scheduler's job that the process is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// Whoever asks for a claim: for those who will wait, and the scheduler's job that it is in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claimant<'a> {
    pub note: &'a str,
    pub job: Option<&'a str>,
}

/// Whether a holder lives, as far as can be known from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Alive,
    Dead,
    /// It is of a machine that cannot be seen from here.
    Unknown,
}

impl Claim {
    /// Returns the claim, or whoever has it. One whose holder is known to be dead is taken over.
    pub fn take(
        place: &Place,
        who: Claimant,
        judge: &dyn Fn(&Holder) -> Life,
    ) -> Result<Result<Claim, Box<Holder>>, Error> {
        let holder = Holder::me(who);
        let text = serde_json::to_vec(&holder).unwrap_or_default();
        loop {
            // Looked for first: whoever waits looks often, and should not write as often.
            if let Some(other) = holder_at(place)? {
                if judge(&other) != Life::Dead {
                    return Ok(Err(Box::new(other)));
                }
                bury(place, &other)?;
            }
            if place.link_new(&text)? {
                return Ok(Ok(Claim {
                    place: place.clone(),
                    holder,
                }));
            }
            // Another was quicker, and perhaps is not to be seen from here yet.
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the claim; `on_wait` is told of its holder, again whenever that changes. Returns
    /// nothing once `cancelled` is set.
    pub fn wait(
        place: &Place,
        who: Claimant,
        judge: &dyn Fn(&Holder) -> Life,
        cancelled: &AtomicBool,
        mut on_wait: impl FnMut(&Holder),
    ) -> Result<Option<Claim>, Error> {
        let mut told = None;
        while !cancelled.load(Ordering::Relaxed) {
            match Claim::take(place, who, judge)? {
                Ok(claim) => return Ok(Some(claim)),
                Err(holder) if told.as_ref() == Some(&holder) => {}
                Err(holder) => {
                    on_wait(&holder);
                    told = Some(holder);
                }
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The folder may have gone with what was claimed, and the name may be another's by now.
        if matches!(holder_at(&self.place), Ok(Some(holder)) if holder == self.holder) {
            let _ = self.place.remove();
        }
        self.place.parent().remove_if_empty();
    }
}

impl Holder {
    fn me(who: Claimant) -> Holder {
        let text = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let pid = std::process::id();
        Holder {
            note: who.note.to_owned(),
            nonce: names::unique(),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            machine: text("/etc/machine-id"),
            boot: text("/proc/sys/kernel/random/boot_id"),
            space: space_of("self"),
            pid,
            started: started(pid).unwrap_or_default(),
            user: Some(rustix::process::getuid().as_raw()),
            job: who.job.map(str::to_owned),
        }
    }

    /// Whether it lives, as far as its own identity tells.
    #[must_use]
    pub fn life(&self) -> Life {
        let me = Holder::me(Claimant::default());
        if self.boot == me.boot && !self.boot.is_empty() {
            return match self.space == me.space {
                true if started(self.pid) == Some(self.started) => Life::Alive,
                true => Life::Dead,
                false => Life::Unknown,
            };
        }
        // The same machine, started anew: nothing of then is left.
        let is_here = self.host == me.host && self.machine == me.machine && !me.machine.is_empty();
        if is_here { Life::Dead } else { Life::Unknown }
    }

    /// Whether it is of the user that this process is of.
    #[must_use]
    pub fn is_of_this_user(&self) -> bool {
        self.user == Some(rustix::process::getuid().as_raw())
    }

    /// Whom others wait for, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.life(), &self.job) {
            (Life::Unknown, Some(job)) if self.is_of_this_user() => {
                format!("{} in job {job} on {}", self.note, self.host)
            }
            (Life::Unknown, Some(job)) => format!(
                "{} in job {job} on {}, of which nothing is known here (if it is gone for good: `tinylm gc --abandoned`)",
                self.note, self.host
            ),
            (Life::Unknown, None) => format!(
                "{} on {}, which cannot be seen from here (if it is gone for good: `tinylm gc --abandoned`)",
                self.note, self.host
            ),
            _ => self.note.clone(),
        }
    }
}

impl Home {
    /// The claim on making what belongs to a key.
    #[must_use]
    pub fn key_claim(&self, key: &crate::Digest) -> Place {
        self.work_dir(key).below("claim.json")
    }

    /// The claim of whoever carries out a run.
    #[must_use]
    pub fn run_claim(&self, run_id: &str) -> Place {
        home::run_claim(&self.locks(), run_id)
    }

    fn run_claims(&self) -> Place {
        self.locks().below("runs")
    }

    /// Whoever carries out a run, unless nobody does.
    pub fn holder_of_run(&self, run_id: &str) -> Result<Option<Holder>, Error> {
        holder_at(&self.run_claim(run_id))
    }

    /// Gives back what this process has claimed: it is about to end without dropping anything.
    pub fn give_claims_back(&self) {
        let me = Holder::me(Claimant::default());
        let is_mine = |holder: &Holder| {
            (&holder.boot, &holder.space, holder.pid, holder.started)
                == (&me.boot, &me.space, me.pid, me.started)
        };
        for (place, holder) in self.claims().unwrap_or_default() {
            if is_mine(&holder) {
                // What stays is known to be a dead process's on this machine, and waited for on others.
                let _ = place.remove();
            }
        }
    }

    /// All claims whose holders are not known to be dead: those of runs and of keys.
    pub fn claims(&self) -> Result<Vec<(Place, Holder)>, Error> {
        // A link is no folder of ours, and what it leads to holds no claim.
        let keys = self
            .work()
            .list()?
            .into_iter()
            .filter(|key| !key.is_symlink());
        let of_keys = keys.map(|key| key.below("claim.json"));
        let of_runs = self.run_claims().list()?.into_iter();
        let mut found = Vec::new();
        for place in of_runs.chain(of_keys).filter(is_claim) {
            if let Some(holder) = holder_at(&place)?.filter(|holder| holder.life() != Life::Dead) {
                found.push((place, holder));
            }
        }
        Ok(found)
    }
}

/// Whoever holds the claim at a place, unless nobody does.
pub fn holder_at(place: &Place) -> Result<Option<Holder>, Error> {
    // Another machine's file may stay unseen under its name for as long as this one remembers that
    // there was none; a list of the folder tells.
    if !place.is_listed()? {
        return Ok(None);
    }
    let text = match fs::read(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| Error::io("read", place, error))?,
    };
    // Linked whole, so what cannot be read is of a later version or damaged: not ours to break.
    Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|_| {
        Holder {
            note: format!("somebody whose claim `{}` cannot be read", place.display()),
            nonce: String::new(),
            host: "a machine that is not known".to_owned(),
            machine: String::new(),
            boot: String::new(),
            space: String::new(),
            pid: 0,
            started: 0,
            user: None,
            job: None,
        }
    })))
}

/// Whether somebody may hold the claim at a place.
pub(crate) fn may_live(place: &Place) -> bool {
    let holder = holder_at(place);
    holder.map_or(true, |holder| {
        holder.is_some_and(|holder| holder.life() != Life::Dead)
    })
}

/// Temporary files of a link that is being made are none.
fn is_claim(place: &Place) -> bool {
    place
        .file_name()
        .is_some_and(|name| !name.to_string_lossy().starts_with('.'))
}

/// Takes a dead holder's claim away. Of two who do so at once, one may find that what it took is a
/// living one's: it gives it back.
fn bury(place: &Place, dead: &Holder) -> Result<(), Error> {
    let grave = place.parent().below(format!(".{}.claim", names::unique()));
    if place.move_to(&grave).is_err() {
        return Ok(());
    }
    if holder_at(&grave)?.is_some_and(|buried| buried != *dead) {
        return grave.move_to(place);
    }
    grave.remove()
}

/// The moment at which a process started, in the kernel's ticks; nothing if there is none.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn space_of(process: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/pid"));
    link.map_or(String::new(), |link| link.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        (folder, home)
    }

    fn who(note: &str) -> Claimant<'_> {
        Claimant { note, job: None }
    }

    fn own(holder: &Holder) -> Life {
        holder.life()
    }

    #[test]
    fn one_of_many_gets_a_claim_and_the_others_hear_of_whom() {
        let (_folder, home) = home();
        let place = home.run_claim("r");
        let held: Vec<_> = thread::scope(|scope| {
            let takers = (0..8).map(|n| {
                let place = &place;
                scope.spawn(move || Claim::take(place, who(&format!("taker {n}")), &own).unwrap())
            });
            takers
                .collect::<Vec<_>>()
                .into_iter()
                .map(|taker| taker.join().unwrap())
                .collect()
        });
        let winners = held.iter().filter(|taken| taken.is_ok()).count();
        assert_eq!(winners, 1);
        let note = held
            .iter()
            .find_map(|taken| taken.as_ref().ok())
            .unwrap()
            .holder
            .note
            .clone();
        assert!(
            held.iter()
                .filter_map(|taken| taken.as_ref().err())
                .all(|holder| holder.note == note)
        );
        drop(held);
        assert!(!place.exists());
        assert!(home.claims().unwrap().is_empty());
    }

    #[test]
    fn a_dead_process_loses_its_claim_and_one_of_another_machine_does_not() {
        let (_folder, home) = home();
        let place = home.run_claim("r");
        let mut child = Command::new("true").spawn().unwrap();
        let dead = Holder {
            pid: child.id(),
            started: 1,
            ..Holder::me(who("dead"))
        };
        child.wait().unwrap();
        place.link_new(&serde_json::to_vec(&dead).unwrap()).unwrap();
        assert_eq!(dead.life(), Life::Dead);
        let claim = Claim::take(&place, who("next"), &own).unwrap().unwrap();
        drop(claim);

        let foreign = Holder {
            boot: "another".to_owned(),
            host: "node7".to_owned(),
            ..Holder::me(who("run x"))
        };
        place
            .link_new(&serde_json::to_vec(&foreign).unwrap())
            .unwrap();
        let holder = Claim::take(&place, who("next"), &own).unwrap().unwrap_err();
        assert!(
            holder
                .words()
                .starts_with("run x on node7, which cannot be seen"),
            "{}",
            holder.words()
        );
        assert_eq!(home.claims().unwrap().len(), 1);
        // Unless somebody who can see it says that it is gone.
        let claim = Claim::take(&place, who("next"), &|_| Life::Dead)
            .unwrap()
            .unwrap();
        drop(claim);

        let rebooted = Holder {
            boot: "before".to_owned(),
            ..Holder::me(who("run x"))
        };
        let is_named = !rebooted.machine.is_empty();
        assert_eq!(
            rebooted.life(),
            if is_named { Life::Dead } else { Life::Unknown }
        );
    }

    #[test]
    fn whoever_ends_without_dropping_anything_gives_back_its_claims_and_nobody_elses() {
        let (_folder, home) = home();
        let (ours, theirs) = (home.run_claim("ours"), home.run_claim("theirs"));
        std::mem::forget(Claim::take(&ours, who("ours"), &own).unwrap().unwrap());
        let foreign = Holder {
            boot: "another".to_owned(),
            host: "node7".to_owned(),
            ..Holder::me(who("theirs"))
        };
        let text = serde_json::to_vec(&foreign).unwrap();
        theirs.link_new(&text).unwrap();
        home.give_claims_back();
        let left = home.claims().unwrap().into_iter();
        assert_eq!(left.map(|(place, _)| place).collect::<Vec<_>>(), [theirs]);
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_waited_for() {
        let (_folder, home) = home();
        let place = home.run_claim("r");
        place.write_atomic(b"{ from the future").unwrap();
        let holder = Claim::take(&place, who("next"), &own).unwrap().unwrap_err();
        assert!(holder.note.contains("cannot be read"), "{}", holder.note);
    }

    #[test]
    fn a_claim_that_went_and_is_anothers_by_now_is_left_alone() {
        let (_folder, home) = home();
        let place = home.run_claim("r");
        let first = Claim::take(&place, who("first"), &own).unwrap().unwrap();
        place.remove().unwrap();
        let second = Claim::take(&place, who("second"), &own).unwrap().unwrap();
        drop(first);
        assert_eq!(holder_at(&place).unwrap().unwrap().note, "second");
        drop(second);
    }
}
