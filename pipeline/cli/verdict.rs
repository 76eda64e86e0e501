//! What was made once beside what is made now: the same, close to it, or not, and where they part.
//!
//! The same bytes are the same. Other bytes may still be the same result, as where another kernel adds in another
//! order: then the numbers decide, those at the end within a tolerance, and the curves say from where on.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use serde_json::{Value, json};
use tinylm_registry::{Artifact, FileEntry, load::is_load};

/// The numbers of one execution: final ones, and curves by name.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) last: BTreeMap<String, f64>,
    pub(crate) curves: BTreeMap<String, BTreeMap<u64, f64>>,
}

/// What became of one stage.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Same,
    /// Other bytes, numbers within the tolerance.
    Close(String),
    Differs(String),
    /// It could not be made, or there is nothing to hold it against.
    Unmade(String),
}

/// A stage that was made then, and what became of it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) stage: String,
    /// What it made then; empty where that was nothing.
    pub(crate) artifact: String,
    pub(crate) verdict: Verdict,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        let (verdict, note) = (self.verdict.word(), self.verdict.note());
        json!({"stage": self.stage, "artifact": self.artifact, "verdict": verdict, "note": note})
    }
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Close(_) => "close",
            Self::Differs(_) => "differs",
            Self::Unmade(_) => "unmade",
        }
    }

    pub(crate) fn note(&self) -> &str {
        match self {
            Self::Same => "",
            Self::Close(note) | Self::Differs(note) | Self::Unmade(note) => note,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Same | Self::Close(_))
    }
}

/// Holds the numbers of the same bytes against what was told of them.
pub(crate) fn same_bytes(then: &Numbers, now: &Numbers) -> Verdict {
    let told = then.last.iter().filter(|(name, _)| is_result(name));
    let other = told.filter_map(|(name, then)| {
        let now = now.last.get(name)?;
        (distance(*then, *now) > 1e-9).then_some((name, then, now))
    });
    match other.into_iter().next() {
        None => Verdict::Same,
        Some((name, then, now)) => Verdict::Differs(format!(
            "its bytes are the same, and `{name}` is {} where {} is recorded",
            short(*now),
            short(*then)
        )),
    }
}

/// Holds other bytes against those of then, by their numbers; `files` says where the files part.
pub(crate) fn by_numbers(then: &Numbers, now: &Numbers, tolerance: f64, files: String) -> Verdict {
    let compared = then.last.iter().filter(|(name, _)| is_result(name));
    let pairs = compared.filter_map(|(name, then)| {
        let now = now.last.get(name)?;
        Some((name, *then, *now, distance(*then, *now)))
    });
    let worst = pairs.max_by(|a, b| a.3.total_cmp(&b.3));
    let parting = parting(then, now).map_or(String::new(), |(name, step)| {
        format!("; `{name}` parts at step {step}")
    });
    match worst {
        // Nothing was counted or measured: only the bytes can tell.
        None => Verdict::Differs(format!("{files}{parting}")),
        Some((_, _, _, worst)) if worst == 0.0 && !has_measured(then) => {
            Verdict::Differs(format!("{files}{parting}"))
        }
        Some((name, then, now, worst)) => {
            let told = match worst == 0.0 {
                true => "all its numbers are the same".to_owned(),
                false => format!("`{name}` is {} and was {}", short(now), short(then)),
            };
            match worst <= tolerance {
                true => Verdict::Close(format!("{told}{parting}")),
                false => Verdict::Differs(format!("{told}{parting}; {files}")),
            }
        }
    }
}

/// Whether there is a number that would show that another model came out; counts of documents and bytes do not.
fn has_measured(numbers: &Numbers) -> bool {
    numbers
        .last
        .iter()
        .any(|(name, value)| is_result(name) && value.fract() != 0.0)
}

/// The first step at which a curve is not what it was.
fn parting(then: &Numbers, now: &Numbers) -> Option<(String, u64)> {
    let curves = then.curves.iter().filter(|(name, _)| is_result(name));
    let parted = curves.filter_map(|(name, then)| {
        let now = now.curves.get(name)?;
        let is_other = |(step, value): &(&u64, &f64)| {
            now.get(step)
                .is_some_and(|now| distance(**value, *now) > 0.0)
        };
        let (step, _) = then.iter().find(is_other)?;
        Some((name.clone(), *step))
    });
    parted.min_by_key(|(_, step)| *step)
}

/// Times and speeds tell of the machine.
fn is_result(name: &str) -> bool {
    let is_of_time =
        name.ends_with("seconds") || name.contains("per_second") || name == "peak_share";
    !is_of_time && !is_load(name)
}

fn distance(then: f64, now: f64) -> f64 {
    match then == now || (then.is_nan() && now.is_nan()) {
        true => 0.0,
        false => {
            let distance = (then - now).abs() / then.abs().max(now.abs());
            if distance.is_nan() {
                f64::INFINITY
            } else {
                distance
            }
        }
    }
}

/// Enough digits to see the difference that a tolerance is about.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-4..1e7).contains(&size) => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.4e}"),
    }
}

/// Where the files of two artifacts part, in words. Folders are told where both are at hand.
pub(crate) fn files(then: &[FileEntry], now: &Artifact, folders: Option<(&Path, &Path)>) -> String {
    for old in then {
        let Some(new) = now.files.iter().find(|new| new.path == old.path) else {
            return format!("`{}` is not there any more", old.path);
        };
        if new.digest != old.digest {
            let place = folders.and_then(|(then, now)| {
                first_difference(&then.join(&old.path), &now.join(&new.path))
            });
            return match place {
                Some(place) => format!("`{}` differs from {place} on", old.path),
                None => format!("`{}` differs", old.path),
            };
        }
    }
    let is_new = |new: &&FileEntry| !then.iter().any(|old| old.path == new.path);
    match now.files.iter().find(is_new) {
        Some(new) => format!("`{}` is there as well", new.path),
        None => "its bytes differ".to_owned(),
    }
}

/// The line, or in what is no text the byte, from which on two files differ.
fn first_difference(a: &Path, b: &Path) -> Option<String> {
    let open = |path: &Path| Some(BufReader::new(File::open(path).ok()?).bytes());
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut line, mut byte, mut is_text) = (1_u64, 0_u64, true);
    loop {
        let (a, b) = (a.next(), b.next());
        let (a, b) = (a.transpose().ok()?, b.transpose().ok()?);
        if a != b {
            return Some(match is_text {
                true => format!("line {line}"),
                false => format!("byte {byte}"),
            });
        }
        match a? {
            b'\n' => line += 1,
            0 => is_text = false,
            _ => {}
        }
        byte += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(last: &[(&str, f64)], loss: &[f64]) -> Numbers {
        let points = loss
            .iter()
            .enumerate()
            .map(|(step, loss)| (step as u64 + 1, *loss));
        Numbers {
            last: last
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
            curves: BTreeMap::from([("loss".to_owned(), points.collect())]),
        }
    }

    fn verdict(then: &Numbers, now: &Numbers) -> Verdict {
        by_numbers(then, now, 0.01, "`weights` differs".to_owned())
    }

    #[test]
    fn numbers_within_the_tolerance_are_close_and_the_curve_says_where_they_part() {
        let then = numbers(&[("loss", 2.0), ("seconds", 5.0)], &[3.0, 2.5, 2.0]);
        let now = numbers(&[("loss", 2.01), ("seconds", 50.0)], &[3.0, 2.51, 2.01]);
        let note = "`loss` is 2.01 and was 2; `loss` parts at step 2";
        assert_eq!(verdict(&then, &now), Verdict::Close(note.to_owned()));
        let far = numbers(&[("loss", 2.1)], &[3.0, 2.51, 2.1]);
        let note = "`loss` is 2.1 and was 2; `loss` parts at step 2; `weights` differs";
        assert_eq!(verdict(&then, &far), Verdict::Differs(note.to_owned()));
    }

    #[test]
    fn counts_alone_do_not_make_other_bytes_close() {
        let then = numbers(&[("documents", 100.0)], &[]);
        assert_eq!(
            verdict(&then, &then),
            Verdict::Differs("`weights` differs".to_owned())
        );
        let nothing = numbers(&[], &[]);
        assert!(!verdict(&nothing, &nothing).is_good());
    }

    #[test]
    fn what_is_no_number_is_close_to_nothing_but_itself() {
        let nan = numbers(&[("loss", f64::NAN), ("entropy", 0.5)], &[]);
        let one = numbers(&[("loss", 1.0), ("entropy", 0.5)], &[]);
        assert!(!verdict(&nan, &one).is_good());
        assert!(!verdict(&one, &nan).is_good());
        assert!(verdict(&nan, &nan).is_good());
    }

    #[test]
    fn files_part_at_a_line_or_a_byte() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let at = |a: &[u8], b: &[u8]| first_difference(&write("a", a), &write("b", b));
        assert_eq!(at(b"one\ntwo\n", b"one\nthree\n").unwrap(), "line 2");
        assert_eq!(at(b"one\n", b"one\ntwo\n").unwrap(), "line 2");
        assert_eq!(at(b"\0\0\x01", b"\0\0\x02").unwrap(), "byte 2");
        assert_eq!(at(b"same", b"same"), None);
    }
}
