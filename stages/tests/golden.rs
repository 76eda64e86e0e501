//! The bytes that each kind makes of a fixture.
//!
//! A digest that moves means that the same recipe now makes other bytes: raise the
//! kind's `REVISION`, or everything that was made before is taken for what would be
//! made now.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tinylm_pipeline::{Stage, testing::StageTest};
use tinylm_stages::{
    binarize::Binarize, dedupe::Dedupe, download::Download, normalize::Normalize,
    tokenizer::TokenizerStage,
};

/// Returns the revision, and each file with its digest.
fn golden<S: Stage>(test: &StageTest, settings: &str) -> String {
    let outcome = test.run::<S>(settings).unwrap();
    let mut lines = vec![format!("{} {}", S::KIND, S::REVISION)];
    let mut names: Vec<_> = fs::read_dir(&outcome.out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        let digest = blake3::hash(&fs::read(outcome.out.join(&name)).unwrap()).to_hex();
        lines.push(format!("{name} {}", &digest[..16]));
    }
    lines.join("\n")
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
    let pairs = "{rejects_max: 0.5, pairs: sliding, template: start-end}";
    let pairs = golden::<Normalize>(&test, pairs);
    insta::assert_snapshot!(format!("{whole}\n{pairs}"), @r"
    normalize 2
    documents-00000.parquet 03a372d18cbc50e3
    rejected.parquet c8ebe50bc80d402f
    stats.json 9cd8c144cdfec7c8
    normalize 2
    documents-00000.parquet 3674b18df4e3fa29
    rejected.parquet c8ebe50bc80d402f
    stats.json 049d7451d77c3f88
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
    dedupe 2
    documents-00000.parquet 7ea6b616c915e8a2
    duplicates.parquet 1e82a81a581dfc1f
    stats.json e87e4be5bd79a954
    dedupe 2
    documents-00000.parquet 7ea6b616c915e8a2
    duplicates.parquet 1e82a81a581dfc1f
    stats.json 5261dc5b0e891305
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
    tokenizer 2
    chat_template.jinja e746bbb77ac74603
    generation.json 0f50630b9d8a5021
    stats.json 0046f2b318cd63df
    tokenizer.json 0b4bf79029cef8b8
    tokenizer 2
    chat_template.jinja e746bbb77ac74603
    generation.json 053f530d6a8a5239
    stats.json 5205bc262483c0ac
    tokenizer.json c090327644938261
    tokenizer 2
    chat_template.jinja e746bbb77ac74603
    generation.json 748fa0eebf6e3232
    stats.json c51fa34173c0c282
    tokenizer.json 5747364706dfc61f
    tokenizer 2
    chat_template.jinja e746bbb77ac74603
    generation.json b567f69f62409a15
    stats.json d0f09b9b4d340234
    tokenizer.json 8515135b3acb5ffd
    tokenizer 2
    chat_template.jinja e746bbb77ac74603
    generation.json 2efa472a2cd54b22
    stats.json 65160077837f4a7e
    tokenizer.json eb527a7ddb7907e1
    ");
}

#[test]
fn binarize() {
    let dir = tempfile::tempdir().unwrap();
    let documents = documents(dir.path());
    let test = StageTest::new(dir.path()).input("documents", &documents);
    let tokenizer = test.run::<TokenizerStage>("{vocab_size: 300}").unwrap().out;
    let test = test.input("tokenizer", &tokenizer);
    insta::assert_snapshot!(golden::<Binarize>(&test, "{validation: 0.2}"), @"
    binarize 2
    chat_template.jinja e746bbb77ac74603
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
