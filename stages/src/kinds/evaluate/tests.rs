//! Evaluation against numbers worked out by hand or from single logits.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use serde_json::{Value, json};
use tempfile::TempDir;
use tinylm_model::{
    config::{ModelConfig, ReadPrecision},
    engine::Tensor,
    generate::{Model, Session},
    shards::TARGET,
    weights::write_tensors,
};
use tinylm_pipeline::testing::StageTest;

use super::{windows::rolling_scores, *};
use crate::shared::{
    speak::fixture::{END_OF_TEXT, IM_END, config, dialogue, tensors, write_model, write_shards},
    template::Role,
    testing::Corpus,
};

fn session() -> Session {
    let model = Model::from_tensors(config(), &tensors(&config()), ReadPrecision::F32).unwrap();
    Session::new(Arc::new(model), 1)
}

fn documents() -> Vec<(u16, Vec<u16>, Vec<u8>)> {
    let texts = [
        ("hi", "hello there"),
        ("how are you ?", "fine . and you ?"),
        ("x", "y"),
    ];
    let documents = texts.iter().enumerate();
    documents
        .map(|(idx, (user, assistant))| {
            let (ids, roles) = dialogue(user, assistant);
            (idx as u16 % 2, ids, roles)
        })
        .collect()
}

fn project(documents: &[(u16, Vec<u16>, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(&dir.path().join("model"), &config());
    write_shards(&dir.path().join("shards"), "validation", documents);
    dir
}

fn evaluate(dir: &Path, settings: &str) -> Result<Value, StageError> {
    let test = StageTest::new(dir);
    let test = test
        .input("model", &dir.join("model"))
        .input("shards", &dir.join("shards"));
    let outcome = test.run::<Evaluate>(settings)?;
    let text = fs::read_to_string(outcome.out.join("evaluation.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(outcome.metrics.get("loss"), report["loss"].as_f64());
    Ok(report)
}

#[track_caller]
fn close(found: &Value, want: f64) {
    let found = found.as_f64().unwrap();
    assert!(
        (found - want).abs() < 1e-4 * want.abs().max(1.0),
        "{found}, not {want}"
    );
}

#[test]
fn numbers_are_those_of_the_definition() {
    let documents = documents();
    let dir = project(&documents);
    for (score, is_all) in [("targets", false), ("all", true)] {
        let settings = format!("{{score: {score}, continuations: 2, max_tokens: 4}}");
        let report = evaluate(dir.path(), &settings).unwrap();
        let mut session = session();
        let (mut sum, mut n, mut n_bytes, mut n_read) = (0.0, 0, 0, 0);
        for (_, ids, roles) in &documents {
            assert!(ids.len() <= 64, "each fits one window");
            session.truncate(0);
            for place in 1..ids.len() {
                let logits = session.feed(&ids[place - 1..place]).unwrap();
                let normal: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
                if is_all || roles[place] & TARGET != 0 {
                    sum += normal.ln() - f64::from(logits[usize::from(ids[place])]);
                    n += 1;
                    n_bytes += u32::from(ids[place] < 256);
                }
            }
            n_read += ids.len();
        }
        assert_eq!(report["tokens"], n);
        assert_eq!(report["tokens_read"], n_read);
        assert_eq!(report["bytes"], n_bytes);
        close(&report["loss"], sum / f64::from(n));
        close(&report["perplexity"], (sum / f64::from(n)).exp());
        close(
            &report["bits_per_byte"],
            sum / f64::from(n_bytes) / 2f64.ln(),
        );
        close(&report["byte_perplexity"], (sum / f64::from(n_bytes)).exp());
        let words = report["words"].as_f64().unwrap();
        close(&report["word_perplexity"], (sum / words).exp());
    }
}

/// A model for which what comes next does not depend on what stands before: these
/// tokens are so many times as likely as each other one.
fn write_biased_model(folder: &Path, likely: &[(u16, f32)]) {
    let mut config = ModelConfig {
        tied: false,
        ..config()
    };
    config.bias.head = true;
    write_model(folder, &config);
    let mut tensors = tensors(&config);
    tensors
        .values_mut()
        .for_each(|tensor| tensor.data.fill(0.0));
    let Tensor { data: bias, .. } = tensors.get_mut("head.bias").unwrap();
    for (id, times) in likely {
        bias[usize::from(*id)] = times.ln();
    }
    write_tensors(&folder.join("model.safetensors"), &tensors).unwrap();
}

#[test]
fn a_tiny_case_gives_what_one_works_out_by_hand() {
    let dir = project(&[]);
    let [a, b, c, d, e] = [b'a', b'b', b'c', b'd', b'e'].map(u16::from);
    let likely = [(a, 16.0), (b, 8.0), (c, 4.0), (d, 2.0), (e, 1.5)];
    write_biased_model(&dir.path().join("model"), &likely);
    // A text, `ab az` and its end, of which all but the first are predicted.
    let mut text: Vec<u16> = "ab az".bytes().map(u16::from).collect();
    text.push(END_OF_TEXT);
    let roles = vec![TARGET; text.len()];
    // A dialogue, of which `b` and the end of the turn are predicted.
    let (talk, talk_roles) = dialogue("c", "b");
    let documents = [(0, text, roles), (1, talk, talk_roles)];
    write_shards(&dir.path().join("shards"), "validation", &documents);
    let report = evaluate(dir.path(), "{continuations: 0}").unwrap();

    // All weights together, the 254 others with one each.
    let sum = 16.0 + 8.0 + 4.0 + 2.0 + 1.5 + 254.0_f64;
    // `b`, ` `, `a`, `z` and the end; `b` and the end.
    let of_text = 5.0 * sum.ln() - 8_f64.ln() - 16_f64.ln();
    let of_talk = 2.0 * sum.ln() - 8_f64.ln();
    let nll = of_text + of_talk;
    for (part, name, n, nll, first, first_five) in [
        ("by_source", "first", 5.0, of_text, 1.0, 2.0),
        ("by_source", "second", 2.0, of_talk, 0.0, 1.0),
        ("by_role", "text", 5.0, of_text, 1.0, 2.0),
        ("by_role", "assistant", 2.0, of_talk, 0.0, 1.0),
    ] {
        let sums = &report[part][name];
        close(&sums["tokens"], n);
        close(&sums["loss"], nll / n);
        close(&sums["perplexity"], (nll / n).exp());
        close(&sums["accuracy_top1"], first / n);
        close(&sums["accuracy_top5"], first_five / n);
    }
    // The five bytes of the text, its first included, and the one of the reply.
    let (n, n_bytes, n_words) = (7.0, 6.0, 3.0);
    for (name, value) in [
        ("documents", 2.0),
        ("tokens", n),
        ("bytes", n_bytes),
        ("words", n_words),
        ("loss", nll / n),
        ("perplexity", (nll / n).exp()),
        ("accuracy_top1", 1.0 / n),
        ("accuracy_top5", 3.0 / n),
        ("bits_per_byte", nll / 2_f64.ln() / n_bytes),
        ("byte_perplexity", (nll / n_bytes).exp()),
        ("word_perplexity", (nll / n_words).exp()),
    ] {
        close(&report[name], value);
    }
}

#[test]
fn generated_text_is_measured_by_its_ends_and_its_words() {
    let dir = project(&documents());
    for (says, end_rate, tokens_per_answer, distinct_1) in [
        // Nothing at all, three times.
        (IM_END, 1.0, 1.0, 0.0),
        // One word without an end, the same three times.
        (u16::from(b'a'), 0.0, 9.0, 1.0 / 3.0),
    ] {
        write_biased_model(&dir.path().join("model"), &[(says, 1e9)]);
        let report = evaluate(dir.path(), "{max_tokens: 9}").unwrap();
        let generated = &report["generated"];
        close(&generated["continuations"], 3.0);
        close(&generated["end_rate"], end_rate);
        close(&generated["tokens_per_answer"], tokens_per_answer);
        close(&generated["distinct_1"], distinct_1);
    }
}

#[test]
fn a_document_counts_the_same_alone_and_among_others_in_any_order() {
    let mut documents = documents();
    let dir = project(&documents);
    let whole = evaluate(dir.path(), "{}").unwrap();
    let n = |report: &Value| report["tokens"].as_f64().unwrap();
    let nll = |report: &Value| report["loss"].as_f64().unwrap() * n(report);
    let (mut n_alone, mut nll_alone) = (0.0, 0.0);
    for document in &documents {
        let one = std::slice::from_ref(document);
        write_shards(&dir.path().join("shards"), "validation", one);
        let report = evaluate(dir.path(), "{}").unwrap();
        n_alone += n(&report);
        nll_alone += nll(&report);
    }
    assert_eq!(n(&whole), n_alone);
    assert!((nll(&whole) - nll_alone).abs() < 1e-9 * nll_alone);
    documents.reverse();
    write_shards(&dir.path().join("shards"), "validation", &documents);
    let reversed = evaluate(dir.path(), "{}").unwrap();
    assert!((nll(&whole) - nll(&reversed)).abs() < 1e-9 * nll_alone);
}

#[test]
fn a_model_of_an_earlier_version_is_measured_alike() {
    let dir = project(&documents());
    let now = evaluate(dir.path(), "{}").unwrap();
    let file = |name: &str| dir.path().join("model").join(name);
    fs::rename(file("tinylm.json"), file("config.json")).unwrap();
    assert_eq!(evaluate(dir.path(), "{}").unwrap(), now);
}

#[test]
fn a_model_that_has_diverged_is_named_as_such() {
    let dir = project(&documents());
    let mut broken = tensors(&config());
    broken
        .values_mut()
        .for_each(|tensor| tensor.data.fill(f32::NAN));
    write_tensors(&dir.path().join("model/model.safetensors"), &broken).unwrap();
    let error = evaluate(dir.path(), "{continuations: 0}").unwrap_err();
    let message = "the model's loss is NaN: its weights have diverged";
    assert_eq!((error.message.as_str(), error.is_final), (message, true));
}

#[test]
fn int8_is_measured_beside_f32_and_says_what_it_costs() {
    let dir = project(&documents());
    let [exact, int8] = ["{}", "{precision: int8}"].map(|with| evaluate(dir.path(), with).unwrap());
    assert_eq!(exact.get("precision_cost"), None);
    assert_eq!(int8["f32_perplexity"], exact["perplexity"]);
    let [now, then] = [&int8, &exact].map(|report| report["perplexity"].as_f64().unwrap());
    assert_ne!(now, then);
    close(&int8["precision_cost"], now / then - 1.0);
}

#[test]
fn every_number_is_about_the_same_tokens() {
    let mut documents = documents();
    let mut raw: Vec<u16> = "once upon a time".bytes().map(u16::from).collect();
    raw.push(END_OF_TEXT);
    let roles = vec![TARGET; raw.len()];
    documents.push((1, raw, roles));
    let dir = project(&documents);
    // Of the replies and the raw text, and of the questions too.
    for (score, roles, n_words) in [
        ("targets", &["assistant", "text"][..], 2 + 5 + 1 + 4),
        ("all", &["assistant", "text", "user"], 3 + 9 + 2 + 4),
    ] {
        let report = evaluate(dir.path(), &format!("{{score: {score}}}")).unwrap();
        let number = |name: &str| report[name].as_f64().unwrap();
        let nll = number("loss") * number("tokens");
        for part in ["by_role", "by_source"] {
            let parts = report[part].as_object().unwrap();
            let of = |sums: &Value, name: &str| sums[name].as_f64().unwrap();
            let n: f64 = parts.values().map(|sums| of(sums, "tokens")).sum();
            let sum: f64 = parts
                .values()
                .map(|sums| of(sums, "tokens") * of(sums, "loss"))
                .sum();
            assert_eq!(n, number("tokens"), "{part}");
            close(&report["loss"], sum / n);
        }
        let names = |part: &str| -> BTreeSet<String> {
            report[part].as_object().unwrap().keys().cloned().collect()
        };
        assert!(names("by_role").iter().eq(roles));
        assert!(names("by_source").iter().eq(["first", "second"]));
        close(
            &json!(number("bits_per_byte") * number("bytes") * 2f64.ln()),
            nll,
        );
        close(
            &json!(number("byte_perplexity").ln() * number("bytes")),
            nll,
        );
        close(
            &json!(number("word_perplexity").ln() * number("words")),
            nll,
        );
        assert_eq!(report["words"], n_words);
        assert_eq!(report["generated"]["continuations"], 4);
    }
}

#[test]
fn without_targets_all_tokens_can_be_scored() {
    let dir = project(&[(0, vec![97, 98, 99], vec![0; 3])]);
    let error = evaluate(dir.path(), "{}").unwrap_err();
    assert_eq!(
        error.message,
        "there is no token to predict in what is read"
    );
    let report = evaluate(dir.path(), "{score: all, continuations: 0}").unwrap();
    assert_eq!(report["tokens"], 2);
    assert_eq!(report["bytes"], 3, "as in lm-eval, also of the first token");
}

#[test]
fn a_document_longer_than_the_context_is_scored_whole() {
    let ids: Vec<u16> = (0..150).map(|i| i * 31 % 256).collect();
    let roles = vec![0x80; ids.len()];
    let dir = project(&[(0, ids.clone(), roles)]);
    let report = evaluate(dir.path(), "{continuations: 0}").unwrap();
    assert_eq!(report["tokens"], 149);
    // Token 140 is in the last window, which reaches back over a whole context.
    let mut session = session();
    let scores = rolling_scores(&mut session, &ids, &|_| Ok(())).unwrap();
    let alone = session.score(&ids[85..140], 54, &ids[140..=140]).unwrap();
    assert!((scores[139].nll - alone[0].nll).abs() < 1e-4);
}

#[test]
fn unigram_perplexity_is_that_of_the_frequencies() {
    // Three targets a, one target b, and no training split: entropy of (3/4, 1/4).
    let dir = project(&[(0, vec![0, 97, 97, 97, 98], vec![0, 0x80, 0x80, 0x80, 0x80])]);
    let report = evaluate(dir.path(), "{continuations: 0}").unwrap();
    let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
    close(&report["unigram_perplexity"], entropy.exp());
}

#[test]
fn a_limit_reads_whole_documents_from_the_beginning() {
    let documents = documents();
    let first = documents[0].1.len();
    let dir = project(&documents);
    for (tokens, n) in [(1, 1), (first, 1), (first + 1, 1), (1_000_000, 3)] {
        let report = evaluate(
            dir.path(),
            &format!("{{tokens: {tokens}, continuations: 0}}"),
        )
        .unwrap();
        assert_eq!(report["documents"], n, "{tokens}");
    }
}

#[test]
fn a_file_and_documents_are_read_like_shards() {
    let dir = project(&documents());
    let path = dir.path().join("story.txt");
    fs::write(&path, "once upon a time").unwrap();
    let test = StageTest::new(dir.path()).input("model", &dir.path().join("model"));
    let read = test
        .clone()
        .local_file("file", &path)
        .run::<Evaluate>("{file: story.txt}")
        .unwrap();
    assert_eq!(read.metrics.get("bytes"), Some(16.0));
    // All but the first byte, and the end of the text.
    assert_eq!(read.metrics.get("tokens"), Some(16.0));
    assert_eq!(read.metrics.get("words"), Some(4.0));
    let changed = test.clone().local_file("file", &path);
    fs::write(&path, "another story").unwrap();
    let changed = changed.run::<Evaluate>("{file: story.txt}").unwrap_err();
    assert!(
        changed.message.contains("changed while it was read"),
        "{changed}"
    );

    let mut corpus = Corpus::new();
    corpus.dialogue(&[(Role::User, "hi"), (Role::Assistant, "hello there")]);
    corpus.write(&dir.path().join("documents"));
    let test = test.input("documents", &dir.path().join("documents"));
    let read = test.clone().run::<Evaluate>("{}").unwrap();
    write_shards(&dir.path().join("shards"), "validation", &documents()[..1]);
    let shards = evaluate(dir.path(), "{}").unwrap();
    assert_eq!(read.metrics.get("loss"), shards["loss"].as_f64());
    assert_eq!(
        read.metrics.get("word_perplexity"),
        shards["word_perplexity"].as_f64()
    );
    assert_eq!(read.metrics.get("words"), Some(2.0), "hello there");
    assert_eq!(read.metrics.get("bytes"), Some(11.0));
    let read = test.run::<Evaluate>("{score: all}").unwrap();
    assert_eq!(read.metrics.get("words"), Some(3.0), "hi hello there");
    assert_eq!(read.metrics.get("bytes"), Some(13.0));
}

#[test]
fn exactly_one_text_is_read() {
    let dir = project(&documents());
    let test = StageTest::new(dir.path()).input("model", &dir.path().join("model"));
    let error = test.run::<Evaluate>("{}").unwrap_err();
    assert_eq!(
        error.message,
        "a model is evaluated on one of `shards`, `documents` and `file`"
    );
}

#[test]
fn shards_of_another_tokenizer_are_refused() {
    let dir = project(&documents());
    let path = dir.path().join("shards/shards.json");
    let text = fs::read_to_string(&path).unwrap().replace("259", "300");
    fs::write(&path, text).unwrap();
    let error = evaluate(dir.path(), "{}").unwrap_err();
    assert_eq!(
        error.message,
        "the shards have a vocabulary of 300, the model's tokenizer one of 259"
    );
    let error = evaluate(dir.path(), "{split: test}").unwrap_err();
    assert!(error.is_final);
}

#[test]
fn the_losses_of_the_documents_add_up_to_the_whole() {
    let mut documents = documents();
    // A prompt that nobody answers is read, and nothing of it is scored.
    documents.push((0, vec![97, 98, 99], vec![0; 3]));
    // The same text twice has one digest.
    documents.push(documents[1].clone());
    let dir = project(&documents);
    let lines = || -> Vec<Value> {
        let path = dir.path().join("out-evaluate/documents.jsonl");
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    for settings in ["{continuations: 0}", "{continuations: 0, score: all}"] {
        let report = evaluate(dir.path(), settings).unwrap();
        let lines = lines();
        let sum =
            |name: &str| -> f64 { lines.iter().map(|line| line[name].as_f64().unwrap()).sum() };
        assert_eq!(report["documents"], lines.len());
        assert_eq!(report["tokens"].as_f64(), Some(sum("tokens")));
        assert_eq!(report["bytes"].as_f64(), Some(sum("bytes")));
        close(&report["loss"], sum("nats") / sum("tokens"));
        assert_eq!(lines[1], lines[4]);
        let digests: BTreeSet<&str> = lines
            .iter()
            .map(|line| line["digest"].as_str().unwrap())
            .collect();
        assert_eq!(digests.len(), 4);
    }
}
