//! Who is dropped, in whose favour, and that nothing else is.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use proptest::prelude::*;
use tempfile::TempDir;
use tinylm_pipeline::testing::{Outcome, StageTest};

use super::*;
use crate::shared::{hex::hex, template::Role, testing::Corpus};

fn test(corpus: &Corpus) -> (TempDir, StageTest) {
    let dir = TempDir::new().unwrap();
    corpus.write(&dir.path().join("documents"));
    let test = StageTest::new(dir.path()).input("documents", &dir.path().join("documents"));
    (dir, test)
}

/// The texts of what is kept.
fn kept(outcome: &Outcome) -> Vec<String> {
    let documents = Documents::open(&[&outcome.out]).unwrap();
    let mut texts = Vec::new();
    for group in documents.row_groups() {
        for document in group.read().unwrap().iter() {
            let contents = document.contents.iter().map(|(_, text)| text);
            texts.push(contents.collect::<Vec<&str>>().join("\n"));
        }
    }
    texts
}

fn dedupe(texts: &[&str], settings: &str) -> Vec<String> {
    let mut corpus = Corpus::new();
    texts.iter().for_each(|text| corpus.text(text));
    let (_dir, test) = test(&corpus);
    kept(&test.run::<Dedupe>(settings).unwrap())
}

/// The dropped documents: `(id, kept id, similarity, reason)`.
fn duplicates(outcome: &Outcome) -> Vec<(String, String, f32, String)> {
    let text = fs::read_to_string(outcome.out.join("duplicates.jsonl")).unwrap();
    let rows = text.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |name: &str| row[name].as_str().unwrap().to_owned();
        let similarity = row["similarity"].as_f64().unwrap() as f32;
        (word("id"), word("kept_id"), similarity, word("reason"))
    });
    rows.collect()
}

#[test]
fn the_first_of_those_that_say_the_same_is_kept() {
    let texts = [
        "A cat sat.",
        "a  CAT\nsat.",
        "A cat sat!",
        "",
        "A cat sat.",
        "",
    ];
    assert_eq!(dedupe(&texts, "{}"), ["A cat sat.", "A cat sat!", ""]);
}

#[test]
fn system_prompts_are_not_compared_and_roles_are() {
    let mut corpus = Corpus::new();
    let said = [(Role::User, "hi"), (Role::Assistant, "hello")];
    corpus.dialogue(&said);
    corpus.dialogue(&[(Role::System, "Be kind."), said[0], said[1]]);
    corpus.dialogue(&[(Role::Assistant, "hi"), (Role::User, "hello")]);
    corpus.dialogue(&[(Role::User, "hi hello")]);
    let (_dir, test) = test(&corpus);
    let outcome = test.run::<Dedupe>("{}").unwrap();
    assert_eq!(kept(&outcome).len(), 3);
    assert_eq!(outcome.metrics.get("exact_duplicates"), Some(1.0));
}

#[test]
fn the_report_names_who_was_kept() {
    let mut corpus = Corpus::new();
    for text in ["one", "two", "ONE", "Two", "one "] {
        corpus.text(text);
    }
    let (_dir, test) = test(&corpus);
    let outcome = test.run::<Dedupe>("{}").unwrap();
    let documents = Documents::open(&[&outcome.out]).unwrap();
    let rows = documents.row_groups()[0].read().unwrap();
    let listed = duplicates(&outcome);
    let kept: Vec<&str> = listed.iter().map(|(_, kept, ..)| kept.as_str()).collect();
    let (one, two) = (hex(&rows.get(0).id), hex(&rows.get(1).id));
    assert_eq!(kept, [&one, &two, &one]);
    assert!(
        listed
            .iter()
            .all(|(.., similarity, reason)| *similarity == 1.0 && reason == "exact")
    );
}

/// A text of `n` words that depends on `seed`, with the last `changed` words changed.
fn words(seed: u32, n: u32, changed: u32) -> String {
    let word = |idx: u32| {
        let salt = if idx >= n - changed { 7 } else { 0 };
        format!("w{}", (seed * 1000 + idx * 31 + salt) % 9973)
    };
    (0..n).map(word).collect::<Vec<String>>().join(" ")
}

#[test]
fn nearly_the_same_is_dropped_and_half_the_same_is_not() {
    let texts = [
        words(1, 100, 0),
        words(1, 100, 8),
        words(1, 100, 50),
        words(2, 100, 0),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(
        dedupe(&texts, "{method: minhash}"),
        [texts[0], texts[2], texts[3]]
    );
    assert_eq!(dedupe(&texts, "{method: exact}").len(), 4);
    let strict = dedupe(&texts, "{method: minhash, threshold: 0.95}");
    assert_eq!(strict.len(), 4);
}

#[test]
fn a_document_is_only_dropped_for_one_that_is_kept() {
    // Each is like the one before it, and the last is not like the first.
    let chain: Vec<String> = (0..5).map(|n| words(3, 120, n * 9)).collect();
    let texts: Vec<&str> = chain.iter().map(String::as_str).collect();
    let kept = dedupe(&texts, "{method: minhash, threshold: 0.8}");
    let sets: Vec<BTreeSet<String>> = kept.iter().map(|text| shingles(text)).collect();
    assert!(kept.len() > 1 && kept.len() < 5, "{}", kept.len());
    for (idx, later) in sets.iter().enumerate() {
        assert!(
            sets[..idx]
                .iter()
                .all(|earlier| overlap(earlier, later) < 0.8)
        );
    }
}

fn shingles(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text.split(' ').collect();
    words.windows(5).map(|words| words.join(" ")).collect()
}

fn overlap(a: &BTreeSet<String>, b: &BTreeSet<String>) -> f64 {
    let common = a.intersection(b).count() as f64;
    common / (a.len() + b.len()) as f64 / (1.0 - common / (a.len() + b.len()) as f64)
}

/// 400 texts of which many are changed copies of others.
fn copies() -> Corpus {
    let mut corpus = Corpus::new();
    for n in 0..400_u32 {
        corpus.text(&words(n % 90, 60, (n / 90) * 3));
    }
    corpus
}

#[test]
fn almost_all_pairs_that_overlap_are_found_and_no_others() {
    let (_dir, test) = test(&copies());
    let outcome = test
        .run::<Dedupe>("{method: minhash, threshold: 0.7}")
        .unwrap();
    let kept: Vec<BTreeSet<String>> = kept(&outcome).iter().map(|text| shingles(text)).collect();
    let mut missed = 0;
    for (idx, later) in kept.iter().enumerate() {
        missed += usize::from(
            kept[..idx]
                .iter()
                .any(|earlier| overlap(earlier, later) >= 0.7),
        );
    }
    let listed = duplicates(&outcome);
    assert!(listed.len() > 150, "{}", listed.len());
    assert!(
        missed * 20 <= listed.len(),
        "missed {missed} of {}",
        listed.len()
    );
    assert!(listed.iter().all(|(.., similarity, _)| *similarity >= 0.7));
}

/// Every file of an artifact.
fn files(outcome: &Outcome) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(&outcome.out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                fs::read(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn neither_threads_nor_memory_change_what_is_kept() {
    let (dir, mut test) = test(&copies());
    let mut outputs = Vec::new();
    for (threads, memory_mb) in [(1, 512), (3, 512), (2, 1)] {
        test.threads = threads;
        let settings = format!("{{method: minhash, threshold: 0.7, memory_mb: {memory_mb}}}");
        outputs.push(files(&test.run::<Dedupe>(&settings).unwrap()));
    }
    assert_eq!(outputs[0].len(), 3);
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    let scratch = dir.path().join("checkpoints-dedupe/dedupe-scratch");
    assert!(!scratch.exists());
}

/// Row groups of several artifacts, each text followed by one that says the same sooner or
/// later, often in another group: what is kept is what keeping a list of them would keep.
#[test]
fn what_stands_in_other_row_groups_is_compared_too() {
    let texts: Vec<String> = (0..600_u32)
        .map(|n| match n % 3 {
            0 => format!("Text  {}", n * n % 101),
            _ => format!("text {}", n * n % 997),
        })
        .collect();
    let dir = TempDir::new().unwrap();
    let mut test = StageTest::new(dir.path());
    let mut ids = Vec::new();
    for (idx, some) in texts.chunks(97).enumerate() {
        let mut corpus = Corpus::new();
        some.iter().for_each(|text| corpus.text(text));
        let folder = dir.path().join(format!("documents-{idx}"));
        corpus.write(&folder);
        let documents = Documents::open(&[&folder]).unwrap();
        let rows = documents.row_groups()[0].read().unwrap();
        ids.extend(rows.iter().map(|document| hex(&document.id)));
        test = test.input("documents", &folder);
    }
    let (mut seen, mut first, mut repeated) = (HashMap::new(), Vec::new(), Vec::new());
    for (text, id) in texts.iter().zip(&ids) {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        match seen.get(&words) {
            Some(kept_id) => repeated.push((id, *kept_id)),
            None => {
                seen.insert(words, id);
                first.push(text.clone());
            }
        }
    }
    assert!(first.len() > 200 && repeated.len() > 200);
    for settings in [
        "{method: exact}",
        "{method: minhash, threshold: 1}",
        "{method: minhash, threshold: 1, memory_mb: 1}",
    ] {
        for threads in [1, 3] {
            test.threads = threads;
            let outcome = test.run::<Dedupe>(settings).unwrap();
            assert_eq!(kept(&outcome), first, "{settings}");
            let listed = duplicates(&outcome);
            let listed = listed
                .iter()
                .map(|(id, kept, ..)| (id.as_str(), kept.as_str()));
            assert!(
                listed.eq(repeated
                    .iter()
                    .map(|(id, kept)| (id.as_str(), kept.as_str()))),
                "{settings}"
            );
        }
    }
}

/// More documents than have room in one megabyte, many of which say the same, with an
/// evaluation set that holds the first of some.
#[test]
fn reading_once_and_reading_twice_drop_the_same() {
    let n_texts = 16_000_u64;
    let mut corpus = Corpus::new();
    for n in 0..n_texts {
        corpus.text(&format!("Number {}", n * n % 9973));
    }
    let mut evaluation = Corpus::new();
    (0..50).for_each(|n: u64| evaluation.text(&format!("number {}", n * n)));
    let (dir, mut test) = test(&corpus);
    let documents = Documents::open(&[&dir.path().join("documents")]).unwrap();
    assert!(Seen::with_room(&documents, 256 << 20).is_some());
    assert!(Seen::with_room(&documents, 512 << 10).is_none());
    let mut outputs = Vec::new();
    for (threads, memory_mb) in [(1, 512), (3, 512), (2, 1)] {
        test.threads = threads;
        let settings = format!("{{memory_mb: {memory_mb}}}");
        outputs.push(files(&test.run::<Dedupe>(&settings).unwrap()));
    }
    assert!(outputs.iter().all(|output| *output == outputs[0]));

    let folder = dir.path().join("evaluation");
    evaluation.write(&folder);
    let test = test.input("evaluation", &folder);
    let [once, twice] = [512, 1].map(|memory_mb| {
        let settings = format!("{{memory_mb: {memory_mb}}}");
        test.run::<Dedupe>(&settings).unwrap()
    });
    assert!(files(&once) == files(&twice));
    assert!(once.metrics.get("contaminated") > Some(50.0));
    assert!(once.metrics.get("exact_duplicates") > Some(5_000.0));
}

/// Texts that are all a little like each other: every band is shared by many, and every
/// document stands in hundreds of pairs.
fn alike(n_texts: u32) -> Corpus {
    let mut corpus = Corpus::new();
    for n in 0..n_texts {
        let word = |idx: u32| match idx == n % 50 {
            true => format!("own{n}"),
            false => format!("shared{}", idx % 50),
        };
        let text: Vec<String> = (0..50).map(word).collect();
        corpus.text(&text.join(" "));
    }
    corpus
}

#[test]
fn a_corpus_that_proposes_more_pairs_than_fit_into_memory_gives_the_same() {
    let (_dir, test) = test(&alike(400));
    let [large, small] = [512, 1].map(|memory_mb| {
        let settings = format!("{{method: minhash, threshold: 0.7, memory_mb: {memory_mb}}}");
        test.run::<Dedupe>(&settings).unwrap()
    });
    assert_eq!(files(&large), files(&small));
    let n_near = large.metrics.get("near_duplicates").unwrap();
    assert!(
        n_near < 900.0,
        "pairs were measured, {n_near} of them in vain"
    );
}

/// Stops in the midst of sorting: when the first run is on disk.
#[test]
fn it_can_be_interrupted_in_the_midst_of_pairs() {
    let (dir, test) = test(&alike(400));
    let scratch = dir.path().join("checkpoints-dedupe/dedupe-scratch");
    let (cancel, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    let stopped = thread::scope(|scope| {
        scope.spawn(|| {
            let begun = || scratch.join("pairs-0").exists() || is_done.load(Ordering::Relaxed);
            while !begun() {
                thread::sleep(Duration::from_millis(1));
            }
            cancel.store(true, Ordering::Relaxed);
        });
        let settings = "{method: minhash, threshold: 0.7, memory_mb: 1}";
        let stopped = test.run_watched::<Dedupe>(settings, "{}", &cancel);
        is_done.store(true, Ordering::Relaxed);
        stopped
    });
    assert!(stopped.unwrap_err().cancelled);
    assert!(!scratch.exists());
}

#[test]
fn an_evaluation_set_that_does_not_fit_into_memory_drops_the_same() {
    // Some 15,000 n-grams in the evaluation set, where one megabyte holds some 13,000.
    let text = |n: u32| -> String { (0..400).map(|idx| format!("t{n}w{idx} ")).collect() };
    let mut evaluation = Corpus::new();
    (0..40).for_each(|n| evaluation.text(&text(n)));
    let mut corpus = Corpus::new();
    (0..40).for_each(|n| corpus.text(&format!("{} {}", text(n + 20), text(n + 45))));
    let (dir, test) = test(&corpus);
    let folder = dir.path().join("evaluation");
    evaluation.write(&folder);
    let test = test.input("evaluation", &folder);
    let [large, small] = [512, 1].map(|memory_mb| {
        let settings = format!("{{method: contamination, memory_mb: {memory_mb}}}");
        test.run::<Dedupe>(&settings).unwrap()
    });
    assert_eq!(large.metrics.get("contaminated"), Some(20.0));
    assert_eq!(files(&large), files(&small));
}

#[test]
fn what_an_evaluation_set_holds_is_dropped() {
    let held =
        "the quick brown fox jumps over the lazy dog while seven wizards brew strong potions";
    let mut corpus = Corpus::new();
    corpus.text(&format!("Before. {held}. And after."));
    corpus.text("the quick brown fox jumps over the lazy dog");
    corpus.text("Short one!");
    corpus.text("short two");
    let mut evaluation = Corpus::new();
    evaluation.dialogue(&[(Role::User, held), (Role::Assistant, "yes")]);
    evaluation.dialogue(&[(Role::User, "short"), (Role::Assistant, "one")]);
    let (dir, test) = test(&corpus);
    let folder = dir.path().join("evaluation");
    evaluation.write(&folder);
    let complaint = test.run::<Dedupe>("{method: contamination}").unwrap_err();
    assert!(complaint.message.contains("needs an evaluation set"));
    let test = test.input("evaluation", &folder);
    for settings in ["{}", "{method: contamination}", "{method: minhash}"] {
        let outcome = test.run::<Dedupe>(settings).unwrap();
        assert_eq!(
            kept(&outcome),
            ["the quick brown fox jumps over the lazy dog", "short two"]
        );
        assert_eq!(outcome.metrics.get("contaminated"), Some(2.0));
        assert!(
            duplicates(&outcome)
                .iter()
                .all(|(.., reason)| reason == "contamination")
        );
    }
}

#[test]
fn it_stops_when_told_to() {
    let (_dir, test) = test(&copies());
    let stopped = test.run_watched::<Dedupe>("{method: minhash}", "{}", &AtomicBool::new(true));
    assert!(stopped.unwrap_err().cancelled);
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let (_dir, test) = test(&Corpus::new());
    for bad in [
        "threshold: 0",
        "threshold: 1.1",
        "ngram: 0",
        "permutations: 4",
        "memory_mb: 0",
    ] {
        assert!(test.run::<Dedupe>(&format!("{{{bad}}}")).is_err(), "{bad}");
    }
    let outcome = test.run::<Dedupe>("{}").unwrap();
    assert!(kept(&outcome).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_longer_corpus_only_appends(
        texts in proptest::collection::vec("[ab ]{0,6}", 1..30),
        n in 1_usize..30,
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let before = dedupe(&texts[..n.min(texts.len())], "{}");
        let after = dedupe(&texts, "{}");
        prop_assert!(after.starts_with(&before));
    }
}
