//! Each kind's result from a fixture: bytes, and of the kinds that train and speak, numbers.
//!
//! A digest or a number that moves means that the same recipe now makes something else:
//! raise the kind's `REVISION`, or everything that was made before is taken for what would
//! be made now.
//!
//! Kernel sets add in different orders, so losses may differ by `TOLERANCE` from those
//! written down here. A change of what is computed (an operation, a start value, a random
//! number, the order of the data) moves them by more.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use tinylm_model::{
    config::{ModelConfig, Preset},
    engine::Tensor,
    kernels,
    weights::write_tensors,
};
use tinylm_pipeline::{
    Event, Stage,
    testing::{Outcome, StageTest},
};
use tinylm_stages::kinds::{
    binarize::Binarize, dedupe::Dedupe, download::Download, evaluate::Evaluate, export::Export,
    finetune::Finetune, normalize::Normalize, pretrain::Pretrain, sample::Sample,
    tokenizer::TokenizerStage,
};

const TOLERANCE: f64 = 1e-3;

/// Returns the revision, and each file with its digest.
fn golden<S: Stage>(test: &StageTest, settings: &str) -> String {
    let outcome = test.run::<S>(settings).unwrap();
    let mut lines = vec![format!("{} {}", S::KIND, S::REVISION)];
    for name in names(&outcome.out) {
        let digest = blake3::hash(&fs::read(outcome.out.join(&name)).unwrap()).to_hex();
        lines.push(format!("{name} {}", &digest[..16]));
    }
    lines.join("\n")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const ROWS: &str = r#"rows: [
    {messages: [{role: system, content: be kind}, {role: user, content: hi}, {role: bot, content: ho}]},
    {messages: [{role: user, content: how are you}, {role: assistant, content: fine}, {role: user, content: bye}]},
    {messages: [{role: nobody, content: boo}]}
]"#;

fn downloaded(dir: &Path) -> PathBuf {
    StageTest::new(dir).run::<Download>(ROWS).unwrap().out
}

#[test]
fn download() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(golden::<Download>(&StageTest::new(dir.path()), ROWS), @r"
    download 1
    rows.jsonl 461ef06f40f9a2ba
    ");
}

#[test]
fn normalize() {
    let dir = tempfile::tempdir().unwrap();
    let test = StageTest::new(dir.path()).input("sources", &downloaded(dir.path()));
    let whole = golden::<Normalize>(&test, "rejects_max: 0.5");
    let pairs = "{rejects_max: 0.5, pairs: sliding}";
    let pairs = golden::<Normalize>(&test, pairs);
    insta::assert_snapshot!(format!("{whole}\n{pairs}"), @"
    normalize 6
    documents-00000.parquet 778e1b7b4d33ee0b
    rejected.jsonl 94d0f31ab789ecff
    stats.json 9eba25d9ed61bdb2
    normalize 6
    documents-00000.parquet ae9cc14f72a024a5
    rejected.jsonl 94d0f31ab789ecff
    stats.json bc07fa04c845ea6f
    ");
}

/// Documents of our own with words to learn from, some of them twice.
fn documents(dir: &Path) -> PathBuf {
    let said = |n: usize| {
        let words = ["river", "winter", "house", "small", "great", "why"];
        format!("the {} {} runs {n} times", words[n % 6], words[n % 5])
    };
    let rows: Vec<String> = (0..40)
        .map(|n| {
            let (user, assistant) = (said(n % 30), said(n % 30 + 7));
            format!("{{prompt: {user}, response: {assistant}}}")
        })
        .collect();
    let rows = format!("rows: [{}]", rows.join(", "));
    let out = StageTest::new(dir).run::<Download>(&rows).unwrap().out;
    let test = StageTest::new(dir).input("sources", &out);
    test.run::<Normalize>("{}").unwrap().out
}

#[test]
fn dedupe() {
    let dir = tempfile::tempdir().unwrap();
    let test = StageTest::new(dir.path()).input("documents", &documents(dir.path()));
    let exact = golden::<Dedupe>(&test, "{}");
    let near = golden::<Dedupe>(&test, "{method: minhash, threshold: 0.5, ngram: 2}");
    insta::assert_snapshot!(format!("{exact}\n{near}"), @"
    dedupe 3
    documents-00000.parquet 9dbfd16fd00ba50c
    duplicates.jsonl fc62b35374bedf3a
    stats.json 253755c130b69c6d
    dedupe 3
    documents-00000.parquet 9dbfd16fd00ba50c
    duplicates.jsonl fc62b35374bedf3a
    stats.json fc14d17697169965
    ");
}

#[test]
fn tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let test = StageTest::new(dir.path()).input("documents", &documents(dir.path()));
    let algorithms = [
        "byte-level-bpe",
        "sentencepiece-bpe",
        "unigram",
        "wordpiece",
        "word-level",
    ];
    let digests = algorithms.map(|algorithm| {
        let settings = format!("{{algorithm: {algorithm}, vocab_size: 310, min_frequency: 1}}");
        golden::<TokenizerStage>(&test, &settings)
    });
    insta::assert_snapshot!(digests.join("\n"), @"
    tokenizer 4
    chat_template.jinja c52771359d5a6bce
    generation.json 0f50630b9d8a5021
    stats.json 0046f2b318cd63df
    tokenizer.json 0b4bf79029cef8b8
    tokenizer 4
    chat_template.jinja 1f3aa4df3bbdf0de
    generation.json 053f530d6a8a5239
    stats.json 5205bc262483c0ac
    tokenizer.json c090327644938261
    tokenizer 4
    chat_template.jinja 1f3aa4df3bbdf0de
    generation.json 748fa0eebf6e3232
    stats.json c51fa34173c0c282
    tokenizer.json 5747364706dfc61f
    tokenizer 4
    chat_template.jinja c52771359d5a6bce
    generation.json b567f69f62409a15
    stats.json d0f09b9b4d340234
    tokenizer.json 8515135b3acb5ffd
    tokenizer 4
    chat_template.jinja c52771359d5a6bce
    generation.json 2efa472a2cd54b22
    stats.json 65160077837f4a7e
    tokenizer.json eb527a7ddb7907e1
    ");
}

/// Shards of those documents, with their tokenizer.
fn shards(dir: &Path) -> StageTest {
    let documents = documents(dir);
    let test = StageTest::new(dir).input("documents", &documents);
    let tokenizer = test.run::<TokenizerStage>("{vocab_size: 300}").unwrap().out;
    test.input("tokenizer", &tokenizer)
}

#[test]
fn binarize() {
    let dir = tempfile::tempdir().unwrap();
    let test = shards(dir.path());
    insta::assert_snapshot!(golden::<Binarize>(&test, "{validation: 0.2}"), @"
    binarize 3
    chat_template.jinja c52771359d5a6bce
    generation.json 26473d545d7919f3
    shards.json f94a725f5bc2f2a2
    tokenizer.json 095927fdf87e2fe6
    train-00000.bin c29bd36e6b1e92fb
    train-00000.idx 8a89112d332a4e39
    train-00000.roles b5e3518f47aee66b
    validation-00000.bin be393f5252d02671
    validation-00000.idx 2b11ae84eef6ec0c
    validation-00000.roles 0aa5ac62edc1c7c1
    ");
}

/// Trains on those shards with everything that draws numbers: start values, order, dropout.
fn pretrained(dir: &Path) -> (StageTest, Outcome) {
    // A filter such as `kernels=avx2` matches no test and names a kernel set.
    if let Some(set) = env::args().find_map(|arg| arg.strip_prefix("kernels=").map(str::to_owned)) {
        kernels::choose(&set).unwrap();
    }
    let binarized = shards(dir).run::<Binarize>("{validation: 0.2}");
    let test = StageTest::new(dir).input("shards", &binarized.unwrap().out);
    let settings = "
model: { preset: mini, context: 96, d_model: 32, n_layers: 2, n_heads: 2 }
train: { steps: 40, batch: 8, micro_batch: 4, lr: 5e-3, dropout: 0.05, validate_every: 20 }
keep_optimizer: true
";
    let outcome = test.run::<Pretrain>(settings).unwrap();
    (test, outcome)
}

/// A kind's revision, the files it wrote, and losses on the way and on the validation documents.
fn course<S: Stage>(outcome: &Outcome) -> (String, Vec<f64>) {
    let text = fs::read(outcome.out.join("training.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let losses = report["curve"]["loss"].as_array().unwrap().iter();
    let every_fifth = losses.skip(4).step_by(5).map(|point| &point[1]);
    let validations = report["curve"]["validation"].as_array().unwrap().iter();
    let numbers = every_fifth.chain(validations.map(|point| &point["loss"]));
    let numbers = numbers.map(|number| number.as_f64().unwrap()).collect();
    (revision_and_files::<S>(outcome), numbers)
}

fn revision_and_files<S: Stage>(outcome: &Outcome) -> String {
    format!(
        "{} {}: {}",
        S::KIND,
        S::REVISION,
        names(&outcome.out).join(" ")
    )
}

#[track_caller]
fn assert_near(found: &[f64], written_down: &[f64]) {
    let is_near = |(found, written): (&f64, &f64)| (found - written).abs() < TOLERANCE;
    let is_same_length = found.len() == written_down.len();
    assert!(
        is_same_length && found.iter().zip(written_down).all(is_near),
        "the same recipe computes other numbers: raise the `REVISION` and write down {found:.5?}"
    );
}

#[test]
fn pretrain() {
    let dir = tempfile::tempdir().unwrap();
    let (_, outcome) = pretrained(dir.path());
    let (files, losses) = course::<Pretrain>(&outcome);
    insta::assert_snapshot!(files, @"pretrain 1: chat_template.jinja generation.json last.safetensors model.safetensors optimizer.safetensors tinylm.json tokenizer.json training.json");
    assert_near(
        &losses,
        &[
            4.05744, 2.83017, 2.07813, 1.70489, 1.38732, 1.25201, 1.23039, 1.22045, 2.19694,
            1.85582,
        ],
    );
}

#[test]
fn finetune() {
    let dir = tempfile::tempdir().unwrap();
    let (test, pretrained) = pretrained(dir.path());
    let settings = "
context: 128
optimizer_state: keep
freeze: { blocks: 1 }
train: { steps: 10, batch: 8, micro_batch: 4, lr: 1e-3, batching: padded, validate_every: 5 }
";
    let test = test.input("model", &pretrained.out);
    let tuned = test.run::<Finetune>(settings).unwrap();
    let (files, losses) = course::<Finetune>(&tuned);
    insta::assert_snapshot!(files, @"finetune 1: chat_template.jinja generation.json last.safetensors model.safetensors tinylm.json tokenizer.json training.json");
    assert_near(&losses, &[1.14916, 1.09568, 1.81396, 1.79903]);
}

#[test]
fn evaluate() {
    let dir = tempfile::tempdir().unwrap();
    let (test, pretrained) = pretrained(dir.path());
    let test = test.input("model", &pretrained.out);
    let measured = test.run::<Evaluate>("{}").unwrap();
    insta::assert_snapshot!(revision_and_files::<Evaluate>(&measured), @"evaluate 4: documents.jsonl evaluation.json");
    let names = [
        "loss",
        "accuracy_top5",
        "bits_per_byte",
        "by_role.assistant.loss",
    ];
    let numbers = names.map(|name| measured.metrics.get(name).unwrap());
    assert_near(&numbers, &[1.85582, 0.85897, 0.73020, 1.85582]);
}

#[test]
fn sample() {
    let dir = tempfile::tempdir().unwrap();
    let (_, pretrained) = pretrained(dir.path());
    let test = StageTest::new(dir.path()).input("model", &pretrained.out);
    let settings = "{prompts: [the river winter runs 3 times], temperature: 0, max_tokens: 24}";
    let said = test.run::<Sample>(settings).unwrap();
    let answers = said.events.iter().filter_map(|event| match event {
        Event::Sample { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let answers: Vec<&str> = answers.collect();
    let golden = format!(
        "{}\n{}",
        revision_and_files::<Sample>(&said),
        answers.join("\n")
    );
    insta::assert_snapshot!(golden, @"
    sample 2: samples.jsonl samples.md
    the small river runs 11 times
    ");
}

/// A model of numbers that every machine has alike, with the tokenizer of the shards.
fn model(dir: &Path) -> PathBuf {
    let test = StageTest::new(dir).input("documents", &documents(dir));
    let out = test.run::<TokenizerStage>("{vocab_size: 300}").unwrap().out;
    let mut config = ModelConfig {
        context: 16,
        d_model: 8,
        n_layers: 1,
        d_ff: 16,
        ..Preset::Mini.config(303)
    };
    config.bias.head = true;
    let parameters = config.parameters().into_iter();
    let tensors = parameters.map(|parameter| {
        let data = (0..parameter.n()).map(|idx| (idx * 37 % 101) as f32 / 128.0 - 0.4);
        let (shape, data) = (parameter.shape.clone(), data.collect());
        (parameter.name, Tensor { shape, data })
    });
    write_tensors(&out.join("model.safetensors"), &tensors.collect()).unwrap();
    fs::write(
        out.join("tinylm.json"),
        serde_json::to_vec(&config).unwrap(),
    )
    .unwrap();
    out
}

#[test]
fn export() {
    let dir = tempfile::tempdir().unwrap();
    let test = StageTest::new(dir.path()).input("model", &model(dir.path()));
    let test = test.input("documents", &dir.path().join("out-normalize"));
    insta::assert_snapshot!(golden::<Export>(&test, "{}"), @"
    export 1
    README.md 5f509396e173bc4f
    chat_template.jinja 6a0777db41f1dc0a
    config.json 17e3aeb612f8f5de
    generation_config.json 8a72d0c2693bf3b4
    model.safetensors fe561a8a5ab71d09
    special_tokens_map.json 6e60d5f8cc501304
    tokenizer.json 095927fdf87e2fe6
    tokenizer_config.json 473a472ea2df54d8
    ");
}

/// A process has one set, so each gets a process: this program again.
#[test]
fn every_kernel_set_of_this_cpu_makes_these() {
    for set in kernels::supported() {
        let mut again = Command::new(env::current_exe().unwrap());
        again.args(["pretrain", "finetune", "evaluate", "sample", "--exact"]);
        let output = again.arg(format!("kernels={set}")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{set}:\n{said}");
        assert!(said.contains("4 passed"), "{set}:\n{said}");
    }
}
