//! Tasks against sums of single logits, worked out here once more, and what is said of wrong files.

use std::{fs, path::Path, sync::Arc};

use serde_json::{Value, json};
use tempfile::TempDir;
use tinylm_model::{
    config::ReadPrecision,
    generate::{Model, Session},
};
use tinylm_pipeline::{StageError, testing::StageTest};

use super::super::Evaluate;
use crate::shared::{
    speak::fixture::{END_OF_TEXT, config, tensors, write_model},
    testing::Corpus,
};

fn project(files: &[(&str, &[Value])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(&dir.path().join("model"), &config());
    fs::create_dir(dir.path().join("tasks")).unwrap();
    for (name, rows) in files {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(dir.path().join("tasks").join(name), lines).unwrap();
    }
    dir
}

/// The figures, and the lines of the examples.
fn measured(dir: &Path, settings: &str) -> Result<(Value, Vec<Value>), StageError> {
    let mut test = StageTest::new(dir)
        .input("model", &dir.join("model"))
        .input("tasks", &dir.join("tasks"));
    if dir.join("training").exists() {
        test = test.input("training", &dir.join("training"));
    }
    let outcome = test.run::<Evaluate>(settings)?;
    let read = |name: &str| fs::read_to_string(outcome.out.join(name)).unwrap();
    let lines = read("tasks.jsonl");
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    Ok((
        serde_json::from_str(&read("evaluation.json")).unwrap(),
        lines.collect(),
    ))
}

/// The log-probabilities of tokens from a place on, each by the logits behind those before it.
fn log_probabilities(ids: &[u16], from: usize) -> Vec<f64> {
    let model = Model::from_tensors(config(), &tensors(&config()), ReadPrecision::F32).unwrap();
    let mut session = Session::new(Arc::new(model), 1);
    let places = from..ids.len();
    places
        .map(|place| {
            let logits = session.hold(&ids[..place]).unwrap();
            let all: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            f64::from(logits[usize::from(ids[place])]) - all.ln()
        })
        .collect()
}

/// The tokenizer of the fixture has a token a byte.
fn bytes(text: &str) -> Vec<u16> {
    text.bytes().map(u16::from).collect()
}

fn sum(text: &str, from: usize) -> f64 {
    log_probabilities(&bytes(text), from).iter().sum()
}

fn mean(text: &str, from: usize) -> f64 {
    sum(text, from) / (text.len() - from) as f64
}

#[track_caller]
fn told(line: &Value, wanted: &[f64]) {
    let answers = line["answers"].as_array().unwrap();
    assert_eq!(answers.len(), wanted.len(), "{line}");
    for (answer, wanted) in answers.iter().zip(wanted) {
        let found = answer["log_probability"].as_f64().unwrap();
        assert!((found - wanted).abs() < 1e-4, "{found}, not {wanted}");
    }
}

fn best(values: &[f64]) -> usize {
    (0..values.len())
        .max_by(|a, b| values[*a].total_cmp(&values[*b]))
        .unwrap()
}

#[test]
fn a_choice_is_judged_by_the_sum_by_characters_and_by_where_the_prompts_part() {
    let choices = ["cat naps", "car", "cow"];
    let row = json!({ "query": "the", "choices": choices, "gold": 1 });
    let dir = project(&[("pets.jsonl", &[row])]);
    let (figures, lines) = measured(dir.path(), "").unwrap();
    let texts = choices.map(|choice| format!("the {choice}"));
    // lm-evaluation-harness: all behind the context, the space included.
    let sums = [0, 1, 2].map(|idx| sum(&texts[idx], 3));
    told(&lines[0], &sums);
    let by_chars = [0, 1, 2].map(|idx| sums[idx] / choices[idx].len() as f64);
    // CORE: from the first byte that is not the same in all.
    let means = texts.each_ref().map(|text| mean(text, 5));
    assert_eq!(lines[0]["right"], json!(best(&sums) == 1));
    assert_eq!(lines[0]["right_by_characters"], json!(best(&by_chars) == 1));
    assert_eq!(lines[0]["right_by_mean"], json!(best(&means) == 1));
    let share = f64::from(u8::from(best(&means) == 1));
    let centred = (share - 1.0 / 3.0) / (2.0 / 3.0);
    let found = figures["by_task"]["pets"]["centred"].as_f64().unwrap();
    assert!((found - centred).abs() < 1e-12);
    assert_eq!(figures["core"].as_f64(), Some(found));
}

#[test]
fn a_schema_is_judged_by_the_end_that_its_contexts_share() {
    let contexts = ["he saw the cat so", "he saw the dog so"];
    let row = json!({ "context_options": contexts, "continuation": "it ran.", "gold": 0 });
    let dir = project(&[("who.jsonl", &[row])]);
    let (_, lines) = measured(dir.path(), "").unwrap();
    let texts = contexts.map(|context| format!("{context} it ran."));
    told(
        &lines[0],
        &texts.each_ref().map(|text| sum(text, contexts[0].len())),
    );
    // What they share begins behind `cat` and `dog`.
    let means = texts
        .each_ref()
        .map(|text| mean(text, "he saw the cat".len()));
    assert_eq!(lines[0]["right"], json!(best(&means) == 0));
}

/// A letter, and the byte that the model finds likeliest behind it, where that can be written.
fn likeliest() -> (char, char) {
    let model = Model::from_tensors(config(), &tensors(&config()), ReadPrecision::F32).unwrap();
    let mut session = Session::new(Arc::new(model), 1);
    let mut behind = |letter: char| {
        let logits = session.hold(&bytes(&letter.to_string())).unwrap();
        best(&logits.iter().map(|x| f64::from(*x)).collect::<Vec<_>>())
    };
    let letters = ('a'..='z').chain('A'..='Z');
    let mut found = letters.filter_map(|letter| {
        let byte = u8::try_from(behind(letter)).ok()?;
        byte.is_ascii_graphic()
            .then_some((letter, char::from(byte)))
    });
    found
        .next()
        .expect("one of 52 letters has a printable byte behind it")
}

#[test]
fn a_continuation_is_right_when_each_token_is_the_likeliest() {
    let (letter, likeliest) = likeliest();
    let other = if likeliest == 'z' { 'y' } else { 'z' };
    let rows = [
        json!({ "context": letter, "continuation": likeliest }),
        // Space around a context is no part of it.
        json!({ "context": format!(" {letter} \n"), "continuation": likeliest }),
        json!({ "context": letter, "continuation": other }),
        json!({ "context": letter, "continuation": format!("{likeliest}{likeliest}{other}{other}") }),
    ];
    let dir = project(&[("last.jsonl", &rows)]);
    let (figures, lines) = measured(dir.path(), "{ delimiters: { last: '' } }").unwrap();
    let mut log_probability = 0.0;
    for line in &lines {
        let text = line["example"].as_str().unwrap();
        told(line, &[sum(text, 1)]);
        log_probability += sum(text, 1);
        let is_likeliest = text == format!("{letter}{likeliest}");
        assert!(line["right"] == json!(true) || !is_likeliest, "{line}");
        assert!(
            line["right"] == json!(false) || !text.ends_with(other),
            "{line}"
        );
    }
    let figures = &figures["by_task"]["last"];
    assert_eq!(figures["acc"], json!(0.5));
    let perplexity = figures["perplexity"].as_f64().unwrap();
    assert!((perplexity.ln() + log_probability / 4.0).abs() < 1e-4);
}

#[test]
fn of_a_pair_the_sentence_that_is_possible_must_be_the_more_probable() {
    let row = json!({ "sentence_good": "I am.", "sentence_bad": "I are." });
    let dir = project(&[("verbs.jsonl", &[row])]);
    let (figures, lines) = measured(dir.path(), "").unwrap();
    let whole = |text: &str| {
        let ids = [vec![END_OF_TEXT], bytes(text)].concat();
        log_probabilities(&ids, 1).iter().sum::<f64>()
    };
    let sums = [whole("I am."), whole("I are.")];
    told(&lines[0], &sums);
    let acc = f64::from(u8::from(sums[0] > sums[1]));
    assert_eq!(figures["minimal_pairs"].as_f64(), Some(acc));
    assert!(figures.get("core").is_none());
}

#[test]
fn a_prompt_that_does_not_fit_loses_its_beginning_and_is_counted() {
    let long = "x".repeat(100);
    let rows = [
        json!({ "context": long, "continuation": "y" }),
        json!({ "context": "short", "continuation": "y" }),
    ];
    let dir = project(&[("long.jsonl", &rows)]);
    let (figures, lines) = measured(dir.path(), "").unwrap();
    assert_eq!(figures["by_task"]["long"]["cropped"], json!(1));
    let cropped = lines
        .iter()
        .find(|line| line["cropped"] == json!(1))
        .unwrap();
    // The context of the fixture is 64, so that 65 tokens are read to predict the last.
    let kept = format!("{} y", "x".repeat(63));
    told(cropped, &[sum(&kept, 63)]);
}

#[test]
fn solved_examples_stand_before_a_question_and_never_itself() {
    let rows: Vec<Value> = (0..6)
        .map(|n| json!({ "context": format!("n{n}"), "continuation": format!("{n}") }))
        .collect();
    let dir = project(&[("count.jsonl", &rows)]);
    let settings = "{ shots: { count: 2 }, delimiters: { count: ' is ' } }";
    let (_, lines) = measured(dir.path(), settings).unwrap();
    let solved: Vec<&str> = lines
        .iter()
        .map(|line| line["example"].as_str().unwrap())
        .collect();
    for (at, line) in lines.iter().enumerate() {
        let others: Vec<&str> = solved
            .iter()
            .copied()
            .filter(|other| *other != solved[at])
            .collect();
        let wanted = line["answers"][0]["log_probability"].as_f64().unwrap();
        // Whichever two it was: one order of two others gives this figure.
        let is_one = others.iter().any(|a| {
            others.iter().filter(|b| *b != a).any(|b| {
                let text = format!("{a}\n\n{b}\n\n{}", solved[at]);
                (sum(&text, text.len() - 2) - wanted).abs() < 1e-4
            })
        });
        assert!(is_one, "{line}");
    }
}

#[test]
fn examples_that_training_saw_are_counted() {
    let told_in_training =
        "one two three four five six seven eight nine ten eleven twelve thirteen";
    let rows = [
        json!({ "sentence_good": told_in_training, "sentence_bad": "no" }),
        json!({ "sentence_good": "something that nobody has ever said to it", "sentence_bad": "no" }),
    ];
    let dir = project(&[("seen.jsonl", &rows)]);
    let mut corpus = Corpus::new();
    corpus.text(&format!("And so: {told_in_training}, and on."));
    corpus.write(&dir.path().join("training"));
    let (figures, lines) = measured(dir.path(), "").unwrap();
    assert_eq!(figures["by_task"]["seen"]["in_training"], json!(1));
    let seen = lines
        .iter()
        .find(|line| line["in_training"] == json!(true))
        .unwrap();
    assert_eq!(seen["example"], told_in_training);
}

#[test]
fn settings_of_tasks_without_tasks_are_refused() {
    let dir = project(&[]);
    let text = dir.path().join("a.txt");
    fs::write(&text, "some text").unwrap();
    let test = StageTest::new(dir.path())
        .input("model", &dir.path().join("model"))
        .local_file("file", &text);
    let error = test
        .run::<Evaluate>("{ file: a.txt, examples: 3 }")
        .unwrap_err();
    assert_eq!(
        error.message,
        "`examples` is about tasks, and nothing fills the input `tasks`"
    );
}

#[test]
fn wrong_files_and_names_are_told_by_their_place() {
    let good = json!({ "context": "a", "continuation": "b" });
    let pair = json!({ "sentence_good": "a", "sentence_bad": "b" });
    let choice = json!({ "query": "a", "choices": ["b", "c"], "gold": 2 });
    let said = |rows: &[Value], settings: &str| {
        let dir = project(&[("copa.jsonl", rows)]);
        let error = measured(dir.path(), settings).unwrap_err();
        assert!(error.is_final, "{error}");
        match error.help {
            Some(help) => format!("{}; {help}", error.message),
            None => error.message,
        }
    };
    let told = [
        said(&[good.clone(), pair], ""),
        said(&[choice], ""),
        said(&[json!({ "question": "a" })], ""),
        said(&[], ""),
        said(std::slice::from_ref(&good), "{ tasks: [coppa] }"),
        said(std::slice::from_ref(&good), "{ baselines: { piqa: 0.5 } }"),
        said(&[good], "{ shots: { copa: 1 } }"),
    ];
    insta::assert_snapshot!(told.join("\n"), @"
    `copa.jsonl`, line 2: is minimal pairs, and the lines before are language modelling
    `copa.jsonl`, line 1: `gold` is no whole number below 2
    `copa.jsonl`, line 1: has the columns of no task: `query`, `choices`, `gold`; `context_options`, `continuation`, `gold`; `context`, `continuation`; or `sentence_good`, `sentence_bad`
    `copa.jsonl` has no examples
    the input `tasks` has no `coppa.jsonl`; did you mean `copa`?
    the input `tasks` has no `piqa.jsonl`; it has `copa`
    `copa` asks for 1 solved examples before each one, and has 1 in all; `shots: { copa: 0 }` asks without
    ");
}
