//! Stages that are made again and again, on any number of threads: one recipe, one artifact.

use std::fs;

use crate::attack::{Clock, Dice, artifacts, run};

const ALGORITHMS: [&str; 5] = [
    "byte-level-bpe",
    "sentencepiece-bpe",
    "unigram",
    "wordpiece",
    "word-level",
];

/// Every kind, and every way in which some of them compute; the names of its stages besides.
fn experiment(dice: &mut Dice) -> (String, Vec<String>) {
    let mut stages = vec![
        (
            "download".to_owned(),
            format!("kind: download, with: {{ rows: [{}] }}", rows(dice)),
        ),
        (
            "normalize".to_owned(),
            "kind: normalize, inputs: [download]".to_owned(),
        ),
    ];
    for method in ["exact", "minhash"] {
        let stage = format!("kind: dedupe, inputs: [normalize], with: {{ method: {method} }}");
        stages.push((method.to_owned(), stage));
    }
    for algorithm in ALGORITHMS {
        let with = format!("{{ algorithm: {algorithm}, vocab_size: 500, min_frequency: 1 }}");
        let stage = format!("kind: tokenizer, inputs: [exact], with: {with}");
        stages.push((algorithm.to_owned(), stage));
        let inputs = format!("{{ documents: minhash, tokenizer: {algorithm} }}");
        let stage = format!("kind: binarize, inputs: {inputs}, with: {{ validation: 0.2 }}");
        stages.push((format!("{algorithm}-shards"), stage));
    }
    let train = "{ steps: 4, batch: 8, lr: 1e-3, validate_every: 2 }";
    let model = "{ preset: mini, d_model: 32, n_heads: 2, n_layers: 2, d_ff: 64, context: 32 }";
    for (name, stage) in [
        ("pretrain", format!("kind: pretrain, inputs: [unigram-shards], with: {{ model: {model}, train: {train} }}")),
        ("finetune", format!("kind: finetune, inputs: {{ model: pretrain, shards: unigram-shards }}, with: {{ train: {train} }}")),
        ("evaluate", "kind: evaluate, inputs: { model: finetune, documents: exact }, with: { tokens: 300, continuations: 2, max_tokens: 4 }".to_owned()),
        ("sample", "kind: sample, inputs: [finetune], with: { prompts: [one], max_tokens: 8, temperature: 0.8 }".to_owned()),
        ("command", "kind: command, inputs: [sample], with: { run: [sh, -c, 'sort {in.sample}/samples.jsonl > {out}/x'], outputs: [x] }".to_owned()),
    ] {
        stages.push((name.to_owned(), stage));
    }
    let lines = stages
        .iter()
        .map(|(name, stage)| format!("  {name}: {{ {stage} }}\n"));
    let text = format!("stages:\n{}", lines.collect::<String>());
    (text, stages.into_iter().map(|(name, _)| name).collect())
}

/// Few words, many characters that stand only once: what ties and dropped characters come from.
fn rows(dice: &mut Dice) -> String {
    let row = |dice: &mut Dice| {
        let word = |dice: &mut Dice| match dice.below(6) {
            0 => {
                char::from_u32(0x391 + dice.below(900) as u32).map_or("x".to_owned(), String::from)
            }
            _ => (*dice.pick(&["one", "two", "three", "kamiro", "shuten", "lovi"])).to_owned(),
        };
        let words: Vec<String> = (0..3 + dice.below(12)).map(|_| word(dice)).collect();
        format!("{{ text: '{}' }}", words.join(" "))
    };
    let rows: Vec<String> = (0..60).map(|_| row(dice)).collect();
    rows.join(", ")
}

#[test]
fn a_stage_that_is_forced_makes_the_same_bytes() {
    let project = tempfile::tempdir().unwrap();
    let (mut dice, clock) = (Dice::new("forced"), Clock::start());
    let (text, stages) = experiment(&mut dice);
    fs::write(project.path().join("all.yaml"), text).unwrap();
    let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
    run(project.path(), &[], "the experiment itself");
    let wanted = artifacts(project.path(), &stages);
    let forced: Vec<&str> = stages.iter().flat_map(|stage| ["--force", stage]).collect();
    let mut n_runs = 0;
    while n_runs == 0 || clock.goes_on() {
        let threads = (1 + dice.below(4)).to_string();
        run(
            project.path(),
            &[&forced[..], &["--threads", &threads]].concat(),
            "a forced run",
        );
        let made = artifacts(project.path(), &stages);
        for (stage, (made, wanted)) in stages.iter().zip(made.iter().zip(&wanted)) {
            assert_eq!(made, wanted, "{stage} on {threads} threads");
        }
        n_runs += 1;
    }
    println!("forced: {n_runs} runs of {} stages", stages.len());
}
