//! What a job's death means: whether another submission may do better, and what to say of it.

use super::folder::Submission;
use crate::{
    error::StageError,
    resources::{Resources, Span},
};

/// Why a submission is over without having done its work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Death {
    OutOfMemory(Option<StageError>),
    OutOfTime,
    /// The machine or the cluster took it away.
    Taken(String),
    Cancelled,
    /// The stage's process died, and its job saw it.
    OfItself(StageError),
    /// `sbatch`'s answer was lost, and no such job came into being.
    NeverSubmitted,
    /// It is gone and left no word; this is what the scheduler says.
    Silent(String),
}

/// What follows from a death.
pub(crate) enum Fate {
    /// Another submission, with these resources, and a sentence for the run.
    Again(Resources, String),
    Over(StageError),
}

/// Submissions that a cluster may take away before the run hears of it as a failure.
const TAKEN_MAX: u32 = 10;

/// Whether a state of the scheduler means that the job is or will be at work. A word that a later
/// Slurm may add counts as alive: to wait is the lesser mistake.
pub(crate) fn is_alive(state: &str) -> bool {
    const DEAD: [&str; 11] = [
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "OUT_OF_MEMORY",
        "NODE_FAIL",
        "BOOT_FAIL",
        "DEADLINE",
        "PREEMPTED",
        "REVOKED",
        "LAUNCH_FAILED",
    ];
    !DEAD.contains(&state)
}

impl Death {
    /// The stage's process died; the scheduler may know why.
    pub(crate) fn of_its_own(error: StageError, state: Option<&str>) -> Self {
        match state {
            Some("OUT_OF_MEMORY") => Self::OutOfMemory(Some(error)),
            _ => Self::OfItself(error),
        }
    }

    pub(crate) fn taken_for_another() -> Self {
        Self::Taken("its node was taken for another job".to_owned())
    }

    /// What a dead job's state says of its death, and its own output where the state says nothing.
    pub(crate) fn of_state(state: &str, tail: &str) -> Self {
        match state {
            // Where memory is watched by polling, the watcher says so only there.
            "FAILED" | "CANCELLED"
                if tail.contains("xceeded memory limit")
                    || tail.contains("xceeded job memory limit") =>
            {
                Self::OutOfMemory(None)
            }
            "OUT_OF_MEMORY" => Self::OutOfMemory(None),
            "TIMEOUT" | "DEADLINE" => Self::OutOfTime,
            "NODE_FAIL" | "BOOT_FAIL" => Self::Taken("its node was lost".to_owned()),
            "PREEMPTED" | "REVOKED" => Self::taken_for_another(),
            "LAUNCH_FAILED" => Self::Taken("its node could not start it".to_owned()),
            "CANCELLED" => Self::Cancelled,
            state => Self::Silent(format!("the scheduler calls it {state}; {tail}")),
        }
    }

    /// `has_advanced` says whether the submission left a checkpoint that was not there before it.
    pub(crate) fn fate(self, submission: &Submission, has_advanced: bool) -> Fate {
        let asked = &submission.resources;
        match self {
            Self::OutOfMemory(error) => match asked.memory.and_then(Span::after_want) {
                Some(more) => Fate::Again(
                    Resources {
                        memory: Some(more),
                        ..asked.clone()
                    },
                    format!("it ran out of memory; submitted again with {}", more.from),
                ),
                None => Fate::Over(out_of_memory(asked, error)),
            },
            Self::OutOfTime if has_advanced => Fate::Again(
                asked.clone(),
                "its time was up; submitted again from its last checkpoint".to_owned(),
            ),
            Self::OutOfTime => match asked.time.and_then(Span::after_want) {
                Some(more) => Fate::Again(
                    Resources {
                        time: Some(more),
                        ..asked.clone()
                    },
                    format!("its time was up; submitted again with {}", more.from),
                ),
                None => Fate::Over(out_of_time(asked)),
            },
            Self::Taken(why) if submission.number < TAKEN_MAX || has_advanced => {
                Fate::Again(asked.clone(), format!("{why}; submitted again"))
            }
            Self::Taken(why) => Fate::Over(
                StageError::new(format!("its job was lost {} times", submission.number))
                    .cause(why)
                    .help("ask those who run the cluster, then go on with `tinylm resume`"),
            ),
            Self::Cancelled => Fate::Over(StageError::cancelled()),
            Self::OfItself(error) => Fate::Over(error),
            Self::NeverSubmitted => Fate::Again(
                asked.clone(),
                "the scheduler did not take it; submitted again".to_owned(),
            ),
            Self::Silent(why) => Fate::Over(
                StageError::new("its job ended without a word").cause(why.trim_end_matches("; ")),
            ),
        }
    }
}

fn out_of_memory(asked: &Resources, error: Option<StageError>) -> StageError {
    let amount = asked
        .memory
        .map_or("the memory of its job".to_owned(), |memory| {
            memory.from.to_string()
        });
    let told = StageError::new(format!("it ran out of memory ({amount})"))
        .help("set more under `resources: { memory: ... }`, or a span such as `32G..128G`")
        .is_final();
    match error {
        Some(error) => told.cause(error),
        None => told,
    }
}

fn out_of_time(asked: &Resources) -> StageError {
    let amount = asked
        .time
        .map_or("of its job".to_owned(), |time| format!("of {}", time.from));
    StageError::new(format!(
        "the time {amount} was up, and it had saved nothing to go on from"
    ))
    .help("set more under `resources: { time: ... }`, or a span such as `4h..24h`")
    .is_final()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(number: u32, memory: &str) -> Submission {
        let resources = Resources {
            memory: Span::read(memory),
            time: Span::read("1h..4h"),
            ..Resources::default()
        };
        Submission {
            number,
            resources,
            pool: None,
            task: None,
            id: None,
        }
    }

    fn again(death: Death, number: u32, has_advanced: bool) -> Option<(String, String)> {
        match death.fate(&submission(number, "1G..2G"), has_advanced) {
            Fate::Again(resources, _) => Some((
                resources.memory.unwrap().from.to_string(),
                resources.time.unwrap().from.to_string(),
            )),
            Fate::Over(_) => None,
        }
    }

    #[test]
    fn want_of_memory_or_time_asks_for_twice_as_much_and_a_checkpoint_for_no_more() {
        let pair = |memory: &str, time: &str| Some((memory.to_owned(), time.to_owned()));
        assert_eq!(again(Death::OutOfMemory(None), 1, false), pair("2G", "1h"));
        assert_eq!(again(Death::OutOfTime, 1, false), pair("1G", "2h"));
        assert_eq!(again(Death::OutOfTime, 1, true), pair("1G", "1h"));
    }

    #[test]
    fn a_lost_node_is_not_the_stages_fault_but_does_not_go_on_for_ever() {
        let lost = || Death::of_state("NODE_FAIL", "");
        assert!(again(lost(), 1, false).is_some());
        assert!(again(lost(), TAKEN_MAX, false).is_none());
        assert!(again(lost(), TAKEN_MAX, true).is_some());
    }

    #[test]
    fn a_state_that_nobody_knows_yet_is_alive() {
        assert!(is_alive("RUNNING") && is_alive("COMPLETING") && is_alive("SOMETHING_NEW"));
        assert!(!is_alive("NODE_FAIL"));
    }
}
