//! That parts drop what the whole would, and that what was found stays found.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;
use tinylm_pipeline::{
    Kind, Metrics,
    recipe::{Recipe, key},
    settings::with_defaults,
    testing::{PartsTest, StageTest},
};

use super::super::Dedupe;
use crate::shared::{
    documents::{Contents, Digest, Documents},
    template::Role,
    testing::Corpus,
};

/// Numbers as random as a test needs.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn words(&mut self, n: usize) -> String {
        let words = (0..n).map(|_| format!("w{}", self.below(5_000)));
        words.collect::<Vec<String>>().join(" ")
    }
}

type File = Vec<String>;

/// Several artifacts of several files.
#[derive(Clone)]
struct Sources {
    artifacts: Vec<Vec<File>>,
    evaluation: Vec<File>,
}

/// Returns a text as a document; of some kinds of text a dialogue is made.
fn push(corpus: &mut Corpus, text: &str) {
    match text.split_once(" // ") {
        Some((asked, said)) => corpus.dialogue(&[(Role::User, asked), (Role::Assistant, said)]),
        None => corpus.text(text),
    }
}

fn write_artifact(files: &[File], folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (idx, file) in files.iter().enumerate() {
        let mut corpus = Corpus::new();
        file.iter().for_each(|text| push(&mut corpus, text));
        let one = folder.with_extension("one");
        corpus.write(&one);
        let name = format!("documents-{idx:05}.parquet");
        fs::rename(one.join("documents-00000.parquet"), folder.join(name)).unwrap();
    }
}

impl Sources {
    /// Files in which much is said again, in the same words or nearly so, in the same file or another.
    fn random(seed: u64) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd));
        let evaluation: Vec<File> = (0..2)
            .map(|_| (0..6).map(|n| random.words(5 + 9 * n)).collect())
            .collect();
        let mut said: Vec<String> = vec![random.words(60)];
        let mut artifacts = Vec::new();
        for n_files in [5, 1, 6] {
            let mut files: Vec<File> = Vec::new();
            for _ in 0..n_files {
                let n_texts = 25 + random.below(20);
                let file = (0..n_texts).map(|_| text(&mut random, &said, &evaluation));
                let file: File = file.collect();
                said.extend(file.iter().cloned());
                files.push(file);
            }
            artifacts.push(files);
        }
        // A whole file twice in an artifact, and once more in another.
        let twice = artifacts[0][2].clone();
        artifacts[0].push(twice.clone());
        artifacts[2].insert(3, twice);
        Self {
            artifacts,
            evaluation,
        }
    }

    fn artifact(&self, test: &PartsTest, dir: &Path, files: &[File]) -> super::Digest {
        let folder = dir.join(format!("given-{}", self.artifacts.len() + files.len()));
        fs::remove_dir_all(&folder).ok();
        write_artifact(files, &folder);
        test.artifact(&folder)
    }

    /// Lets a test have these as its inputs.
    fn give(&self, test: &mut PartsTest, dir: &Path, is_evaluated: bool) {
        test.inputs.clear();
        for files in &self.artifacts {
            let digest = self.artifact(test, dir, files);
            test.inputs.push(("documents".to_owned(), digest));
        }
        if is_evaluated {
            let digest = self.artifact(test, dir, &self.evaluation);
            test.inputs.push(("evaluation".to_owned(), digest));
        }
    }

    fn at_once(&self, settings: &str, is_evaluated: bool) -> Deduped {
        let dir = TempDir::new().unwrap();
        let mut test = StageTest::new(dir.path());
        for (idx, files) in self.artifacts.iter().enumerate() {
            let folder = dir.path().join(format!("documents-{idx}"));
            write_artifact(files, &folder);
            test = test.input("documents", &folder);
        }
        if is_evaluated {
            let folder = dir.path().join("evaluation");
            write_artifact(&self.evaluation, &folder);
            test = test.input("evaluation", &folder);
        }
        let outcome = test.run::<Dedupe>(&format!("{{{settings}}}")).unwrap();
        Deduped::read(&outcome.out, outcome.metrics)
    }

    fn in_parts(&self, settings: &str, is_evaluated: bool) -> (Deduped, Vec<String>) {
        let dir = TempDir::new().unwrap();
        let mut test = PartsTest::new(dir.path(), super::KINDS);
        self.give(&mut test, dir.path(), is_evaluated);
        let (path, metrics) = test.conduct::<Dedupe>(&format!("{{{settings}}}")).unwrap();
        (Deduped::read(&path, metrics), test.made())
    }
}

fn text(random: &mut Random, said: &[String], evaluation: &[File]) -> String {
    let earlier = said[random.below(said.len())].clone();
    match random.below(12) {
        0 | 1 => earlier,
        2 => earlier.to_uppercase().replace(' ', "  "),
        // Nearly the same as an earlier one, which may be nearly the same as an earlier one.
        3..=5 => {
            let mut words: Vec<&str> = earlier.split(' ').collect();
            let at = random.below(words.len());
            words[at] = "other";
            words.join(" ")
        }
        6 => format!("{earlier} and {}", random.words(4)),
        // What so many say that it is not compared with all of them.
        7 => {
            let word = |idx: usize| match idx == random.below(50) {
                true => "own".to_owned(),
                false => format!("shared{idx}"),
            };
            (0..50).map(word).collect::<Vec<String>>().join(" ")
        }
        8 => {
            let held = &evaluation[random.below(2)];
            let held = &held[random.below(held.len())];
            format!("{} {held} {}", random.words(8), random.words(8))
        }
        9 => ["", "... !", "Short one", "two"][random.below(4)].to_owned(),
        10 => format!("{} // {}", random.words(9), random.words(30)),
        _ => random.words(70),
    }
}

/// One document: all of its columns.
type Row = (Digest, Digest, String, bool, Vec<(Option<Role>, String)>);

/// What came out, whichever files it stands in.
#[derive(Debug, PartialEq)]
struct Deduped {
    rows: Vec<Row>,
    duplicates: String,
    stats: String,
    metrics: Metrics,
}

impl Deduped {
    fn read(folder: &Path, metrics: Metrics) -> Self {
        let mut rows = Vec::new();
        for group in Documents::open(&[folder]).unwrap().row_groups() {
            for document in group.read().unwrap().iter() {
                let contents = document.contents.iter();
                let contents = contents.map(|(role, text)| (role, text.to_owned()));
                rows.push((
                    document.id,
                    document.group,
                    document.source.to_owned(),
                    matches!(document.contents, Contents::Text(_)),
                    contents.collect(),
                ));
            }
        }
        let lists = files(folder)
            .into_iter()
            .filter(|(name, _)| name.starts_with("duplicates"));
        let lists = lists.map(|(_, bytes)| String::from_utf8(bytes).unwrap());
        Self {
            rows,
            duplicates: lists.collect(),
            stats: fs::read_to_string(folder.join("stats.json")).unwrap(),
            metrics,
        }
    }
}

/// Every file of an artifact, which is what its digest is of.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let named = paths.into_iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(path).unwrap())
    });
    named.collect()
}

/// How many parts of each kind there are among these.
fn counts(made: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in made {
        let kind = name.split('-').next().unwrap();
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// Asks for parts of each file, of a few and of all, with little memory and with much.
#[track_caller]
fn assert_parts_drop_the_same(settings: &str, is_evaluated: bool) {
    for seed in 0..2 {
        let sources = Sources::random(seed);
        let whole = sources.at_once(settings, is_evaluated);
        assert!(!whole.rows.is_empty() && !whole.duplicates.is_empty());
        // Two files may be one part under two names: the same, nothing of which is kept for the other.
        for (partition, memory_mb, n_parts) in
            [("1", 1, 13..=14), ("20KB", 512, 2..=13), ("1GB", 1, 1..=1)]
        {
            let settings = format!("{settings}, partition: {partition}, memory_mb: {memory_mb}");
            let (parts, made) = sources.in_parts(&settings, is_evaluated);
            assert!(parts == whole, "seed {seed}: {settings}");
            let n_filtered = counts(&made)["filter"];
            assert!(n_parts.contains(&n_filtered), "{settings}: {n_filtered}");
        }
    }
}

#[test]
fn parts_drop_what_says_the_same_as_the_whole_would() {
    assert_parts_drop_the_same("method: exact", false);
}

#[test]
fn parts_drop_what_says_nearly_the_same_as_the_whole_would() {
    assert_parts_drop_the_same("method: minhash, threshold: 0.7", false);
}

#[test]
fn parts_drop_what_an_evaluation_set_holds_as_the_whole_would() {
    assert_parts_drop_the_same("method: contamination", true);
    assert_parts_drop_the_same("method: exact, contamination_ngram: 8", true);
    assert_parts_drop_the_same("method: minhash, threshold: 0.6", true);
}

#[test]
fn the_random_corpus_has_all_that_can_be_dropped() {
    for seed in 0..4 {
        let settings = "method: minhash, threshold: 0.7";
        let whole = Sources::random(seed).at_once(settings, true);
        for name in ["exact_duplicates", "near_duplicates", "contaminated"] {
            assert!(whole.metrics.get(name) > Some(20.0), "{name}: {seed}");
        }
        let are_of_artifact = |n: usize| {
            let start = format!("{n}/");
            whole.rows.iter().any(|row| row.2.starts_with(&start))
        };
        assert!((1..4).all(are_of_artifact));
    }
}

#[test]
fn how_many_tasks_compare_all_parts_makes_no_difference() {
    // Bands of 512 permutations, and the keys of as many documents, are more than a megabyte holds.
    let mut sources = Sources::random(7);
    let many = (0..3).map(|file| {
        let text = |n: u32| format!("Number {}", (n + file * 900) * 7 % 9_973);
        (0..6_000).map(text).collect::<File>()
    });
    sources.artifacts[1].extend(many);
    let settings = "method: minhash, threshold: 0.7, permutations: 512";
    let whole = sources.at_once(settings, false);
    let mut n_tasks = Vec::new();
    for memory_mb in [1, 512] {
        let settings = format!("{settings}, partition: 1, memory_mb: {memory_mb}");
        let (parts, made) = sources.in_parts(&settings, false);
        assert!(parts == whole, "{memory_mb}");
        let counts = counts(&made);
        n_tasks.push((counts["same"], counts["propose"]));
    }
    assert!(n_tasks[0].0 > 1 && n_tasks[0].1 > 16, "{n_tasks:?}");
    assert_eq!(n_tasks[1], (1, 1));
}

/// Files of texts that have nothing in common, but for one that file 3 nearly repeats of file 1, and one that
/// file 4 repeats of it.
fn related() -> Sources {
    let mut random = Random(5);
    let file = |_| (0..12).map(|_| random.words(60)).collect();
    let mut files: Vec<File> = (0..6).map(file).collect();
    files[3][5] = format!("{} more", files[1][0]);
    files[4][6] = files[1][1].clone();
    let second = files.split_off(3);
    Sources {
        artifacts: vec![files, second],
        evaluation: Vec::new(),
    }
}

const NEAR: &str = "method: minhash, partition: 1";

/// A corpus that is deduplicated again and again, as its files come and go.
struct Growing {
    dir: TempDir,
    test: PartsTest,
    settings: String,
}

impl Growing {
    fn new(settings: &str) -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            test: PartsTest::new(dir.path(), super::KINDS),
            dir,
            settings: settings.to_owned(),
        }
    }

    /// Returns the names of the parts that were made. What comes out is what comes out of nothing.
    #[track_caller]
    fn now(&mut self, sources: &Sources) -> Vec<String> {
        let settings = format!("{{{}}}", self.settings);
        let mut artifacts = Vec::new();
        let scratch = TempDir::new().unwrap();
        let mut from_nothing = PartsTest::new(scratch.path(), super::KINDS);
        let is_evaluated = !sources.evaluation.is_empty();
        sources.give(&mut self.test, self.dir.path(), is_evaluated);
        sources.give(&mut from_nothing, scratch.path(), is_evaluated);
        for test in [&self.test, &from_nothing] {
            let (path, metrics) = test.conduct::<Dedupe>(&settings).unwrap();
            artifacts.push((files(&path), metrics));
        }
        assert!(artifacts[0] == artifacts[1]);
        self.test.made()
    }
}

#[track_caller]
fn assert_made(made: &[String], wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<&str, usize> = wanted.iter().copied().collect();
    assert_eq!(counts(made), wanted, "{made:?}");
}

/// What is made whenever anything else is to be compared.
const OVER_ALL: [(&str, usize); 3] = [("same", 1), ("propose", 1), ("judge", 1)];

#[track_caller]
fn assert_made_besides(made: &[String], wanted: &[(&str, usize)]) {
    assert_made(made, &[&OVER_ALL, wanted].concat());
}

#[test]
fn what_is_there_is_not_made_again() {
    let mut growing = Growing::new(NEAR);
    let made = growing.now(&related());
    let wanted = [("sign", 6), ("grams", 2), ("measure", 1), ("filter", 6)];
    assert_made_besides(&made, &wanted);
    assert!(made.contains(&"measure-00003".to_owned()));
    assert_made(&growing.now(&related()), &[]);
}

#[test]
fn a_file_that_is_appended_costs_itself() {
    let (mut growing, mut sources) = (Growing::new(NEAR), related());
    growing.now(&sources);
    let mut random = Random(11);
    sources.artifacts[1].push(vec![random.words(60)]);
    let made = growing.now(&sources);
    assert_made_besides(&made, &[("sign", 1), ("filter", 1)]);
    // This one nearly repeats something of file 0.
    let repeated = format!("{} more", sources.artifacts[0][0][3]);
    sources.artifacts[1].push(vec![random.words(60), repeated]);
    let made = growing.now(&sources);
    let wanted = [("sign", 1), ("grams", 2), ("measure", 1), ("filter", 1)];
    assert_made_besides(&made, &wanted);
    assert!(made.contains(&"grams-00000".to_owned()) && made.contains(&"measure-00007".to_owned()));
}

#[test]
fn a_file_that_is_changed_costs_itself_and_those_that_repeat_it() {
    let (mut growing, mut sources) = (Growing::new(NEAR), related());
    growing.now(&sources);
    let mut random = Random(13);
    sources.artifacts[0][2][7] = random.words(60);
    let made = growing.now(&sources);
    assert_made_besides(&made, &[("sign", 1), ("filter", 1)]);
    sources.artifacts[0][1][7] = random.words(60);
    let made = growing.now(&sources);
    let wanted = [("sign", 1), ("grams", 1), ("measure", 1), ("filter", 3)];
    assert_made_besides(&made, &wanted);
    let filtered = made.iter().filter(|name| name.starts_with("filter"));
    assert!(filtered.eq(["filter-00001", "filter-00003", "filter-00004"]));
}

#[test]
fn a_file_that_is_removed_costs_those_that_repeat_it() {
    let (mut growing, mut sources) = (Growing::new(NEAR), related());
    growing.now(&sources);
    sources.artifacts[0].remove(2);
    assert_made(&growing.now(&sources), &OVER_ALL);
    sources.artifacts[0].remove(1);
    let made = growing.now(&sources);
    assert_made_besides(&made, &[("filter", 2)]);
    // And what is back again costs nothing.
    assert_made(&growing.now(&related()), &[]);
    // One that nobody repeats stood before those that do.
    sources = related();
    sources.artifacts[0].remove(0);
    assert_made(&growing.now(&sources), &OVER_ALL);
}

#[test]
fn a_file_that_moves_to_another_artifact_is_only_written_again() {
    let (mut growing, mut sources) = (Growing::new(NEAR), related());
    growing.now(&sources);
    let moved = sources.artifacts[0].remove(2);
    sources.artifacts[1].insert(0, moved);
    assert_made(&growing.now(&sources), &[("filter", 1)]);
}

#[test]
fn an_evaluation_set_that_holds_nothing_more_costs_signatures() {
    let (mut growing, mut sources) = (Growing::new(NEAR), related());
    sources.evaluation = vec![vec![sources.artifacts[1][2][4].clone()]];
    growing.now(&sources);
    sources.evaluation.push(vec![Random(17).words(60)]);
    assert_made(&growing.now(&sources), &[("sign", 6)]);
    // Another document that holds the same is another answer to the question why.
    let held = sources.evaluation[0][0].clone();
    sources.evaluation.insert(0, vec![format!("{held} indeed")]);
    let made = growing.now(&sources);
    let filtered = made.iter().filter(|name| name.starts_with("filter"));
    assert!(filtered.eq(["filter-00005"]), "{made:?}");
}

#[test]
fn neither_memory_nor_the_number_of_tasks_makes_anything_be_measured_or_written_again() {
    let sources = Sources::random(3);
    let settings = "method: minhash, threshold: 0.7, permutations: 1024, partition: 1";
    let mut growing = Growing::new(&format!("{settings}, memory_mb: 512"));
    growing.now(&sources);
    growing.settings = format!("{settings}, memory_mb: 1");
    let made = growing.now(&sources);
    let counts = counts(&made);
    assert!(counts["propose"] > 1);
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&"propose"]);
}

#[test]
fn few_documents_are_compared_in_few_buckets() {
    let text = |n: u32| format!("Number {n}");
    let files = (0..3).map(|file| (0..20_000).map(|n| text(file * 20_000 + n)).collect());
    let mut sources = Sources {
        artifacts: vec![files.collect()],
        evaluation: Vec::new(),
    };
    let mut growing = Growing::new("partition: 1, memory_mb: 1");
    let made = growing.now(&sources);
    assert_made(
        &made,
        &[("sign", 3), ("same", 4), ("judge", 1), ("filter", 3)],
    );
    sources.artifacts[0].push(vec![text(7)]);
    let made = growing.now(&sources);
    assert_made(
        &made,
        &[("sign", 1), ("same", 1), ("judge", 1), ("filter", 1)],
    );
}

#[test]
fn parts_of_several_files_keep_what_was_found_as_files_come_and_go() {
    for seed in 0..2 {
        let mut sources = Sources::random(seed);
        let mut growing = Growing::new(
            "method: minhash, threshold: 0.7, contamination_ngram: 8, partition: 20KB",
        );
        let n_signed = counts(&growing.now(&sources))["sign"];
        assert!(n_signed > 2);
        let more = Sources::random(seed + 100).artifacts;
        sources.artifacts[2].push(more[0][0].clone());
        let appended = counts(&growing.now(&sources))["sign"];
        sources.artifacts[0][3] = more[0][1].clone();
        let changed = counts(&growing.now(&sources))["sign"];
        sources.artifacts[2].remove(1);
        let removed = counts(&growing.now(&sources)).get("sign").copied();
        let most = appended.max(changed).max(removed.unwrap_or_default());
        assert!(most <= 2, "{appended}, {changed}, {removed:?}");
    }
}

#[test]
fn a_part_of_which_nothing_is_kept_has_a_file_without_rows() {
    let mut sources = related();
    sources.artifacts[1] = vec![sources.artifacts[0][0].clone(), Vec::new()];
    let mut growing = Growing::new("partition: 1");
    growing.now(&sources);
    let (path, metrics) = growing.test.conduct::<Dedupe>("{partition: 1}").unwrap();
    let names: Vec<String> = files(&path).into_iter().map(|(name, _)| name).collect();
    let documents = (0..5).map(|part| format!("documents-{part:05}-00000.parquet"));
    let duplicates = (0..5).map(|part| format!("duplicates-{part:05}.jsonl"));
    let wanted = documents.chain(duplicates).chain(["stats.json".to_owned()]);
    assert!(names.into_iter().eq(wanted));
    assert_eq!(metrics.get("documents_kept"), Some(36.0));
}

#[test]
fn duplicates_of_parts_are_shown() {
    let dir = TempDir::new().unwrap();
    let mut test = PartsTest::new(dir.path(), super::KINDS);
    related().give(&mut test, dir.path(), false);
    let (path, _) = test.conduct::<Dedupe>(&format!("{{{NEAR}}}")).unwrap();
    let shown = <Dedupe as tinylm_pipeline::Stage>::show(&path).unwrap();
    assert!(shown.contains(&"dropped (all are in `duplicates-*.jsonl`):".to_owned()));
    let reasons = shown.iter().filter(|line| line.contains("% the same as"));
    assert_eq!(reasons.count(), 2);
}

#[test]
fn complaints_are_those_of_the_whole() {
    let dir = TempDir::new().unwrap();
    let mut test = PartsTest::new(dir.path(), super::KINDS);
    related().give(&mut test, dir.path(), false);
    let settings = "{method: contamination, partition: 1}";
    let error = test.conduct::<Dedupe>(settings).unwrap_err();
    assert!(error.message.contains("needs an evaluation set"));
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("other.txt"), "no documents").unwrap();
    let test = PartsTest::new(&dir.path().join("other"), super::KINDS);
    let digest = test.artifact(&empty);
    let test = test.input("documents", digest);
    let error = test.conduct::<Dedupe>("{partition: 1}").unwrap_err();
    assert!(error.message.contains("holds no documents"), "{error}");
    let emptied = Sources {
        artifacts: vec![vec![vec!["held by it".to_owned()]]],
        evaluation: vec![vec!["Held by it!".to_owned()]],
    };
    let mut growing = Growing::new("method: contamination, partition: 1");
    growing.now(&emptied);
    assert_eq!(growing.test.said(), ["no document is kept"]);
}

#[test]
fn a_corpus_that_is_not_made_in_parts_has_the_key_that_it_had() {
    let kind = Kind::of::<Dedupe>();
    let with = with_defaults(&(kind.settings)(), &Value::Null);
    let mut before = with.clone();
    let partition = before.as_object_mut().unwrap().remove("partition");
    assert_eq!(partition, Some(Value::Null));
    let key = |settings: &Value| {
        key(&Recipe {
            kind: &kind,
            settings,
            seed: 1,
            inputs: &[],
            local_files: &[],
            pins: &[],
            places: &[],
        })
    };
    assert_eq!(key(&with), key(&before));
}
