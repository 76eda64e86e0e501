//! Run names one can say: `brave-otter-7f3a`.
//!
//! A name is a function of the run's uuid, so that a run that could not be recorded still has one.
//! The words carry the memory and the four digits the difference: together 268 million names.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{NoContext, Timestamp, Uuid};

/// 64 words each, so that six bits choose one without favour.
const ADJECTIVES: [&str; 64] = [
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cosy",
    "crisp", "curious", "daring", "deft", "eager", "early", "easy", "fair", "fond", "fresh",
    "gentle", "glad", "golden", "grand", "green", "happy", "hardy", "honest", "humble", "jolly",
    "keen", "kind", "light", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild",
    "neat", "nimble", "noble", "patient", "plain", "proud", "quick", "quiet", "rapid", "ready",
    "royal", "sage", "sharp", "shy", "silver", "sleek", "smart", "snug", "solid", "spry", "steady",
    "sunny", "swift", "witty",
];

const ANIMALS: [&str; 64] = [
    "ant", "badger", "bear", "beaver", "bee", "bison", "camel", "cat", "crab", "crane", "crow",
    "deer", "dingo", "dove", "duck", "eagle", "egret", "elk", "falcon", "ferret", "finch", "fox",
    "frog", "gecko", "goat", "goose", "hare", "hawk", "heron", "horse", "ibex", "jackal", "jay",
    "koala", "lark", "lemur", "lion", "llama", "lynx", "magpie", "marten", "mole", "moose", "moth",
    "mouse", "newt", "otter", "owl", "panda", "puma", "quail", "rabbit", "raven", "robin", "seal",
    "shrew", "sloth", "snail", "stork", "swan", "tapir", "tiger", "toad", "wren",
];

/// A new id for a run or an execution: a uuid of version 7, which sorts by time as far as the clock
/// can be trusted.
#[must_use]
pub fn new_id() -> String {
    id_at(SystemTime::now()).to_string()
}

/// A name that no other file has.
pub(crate) fn unique() -> String {
    id_at(SystemTime::now()).simple().to_string()
}

/// `Uuid::now_v7` panics under a clock that stands before 1970.
fn id_at(now: SystemTime) -> Uuid {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos());
    Uuid::new_v7(time)
}

/// The name of the run with this id.
#[must_use]
pub fn run_name(id: &str) -> String {
    longer_run_name(id, 4)
}

/// The same name with more digits, for the run whose name another one has already.
pub(crate) fn longer_run_name(id: &str, n_digits: usize) -> String {
    let digest = blake3::hash(id.as_bytes());
    let bytes = digest.as_bytes();
    let adjective = ADJECTIVES[usize::from(bytes[0] % 64)];
    let animal = ANIMALS[usize::from(bytes[1] % 64)];
    let digits = &digest.to_hex()[4..4 + n_digits];
    format!("{adjective}-{animal}-{digits}")
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn a_name_is_two_words_and_four_digits() {
        insta::assert_snapshot!(run_name("0197c0de-0000-7000-8000-000000000000"), @"jolly-swan-e307");
        assert_eq!(
            ADJECTIVES
                .iter()
                .chain(&ANIMALS)
                .collect::<HashSet<_>>()
                .len(),
            128
        );
    }

    #[test]
    fn a_clock_before_1970_still_gives_every_run_its_own_id() {
        let now = UNIX_EPOCH - Duration::from_secs(86_400);
        let ids: HashSet<Uuid> = (0..1000).map(|_| id_at(now)).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn a_thousand_runs_hardly_ever_share_a_name() {
        let names: HashSet<String> = (0..1000).map(|i| run_name(&format!("run {i}"))).collect();
        assert_eq!(names.len(), 1000);
    }
}
