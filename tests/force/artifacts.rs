//! Artifacts that are wrong although their record agrees with their bytes: documents, tokenizers,
//! shards and models are read or refused, without a panic and without memory that only they claim.
//!
//! A program of the user's own makes them, so that no stat and no digest stands before the readers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::attack::{
    Clock, Dice, artifact, assert_told, bounded, damaged, files_below, odd_json, project, run,
};

const ODD: [&[u8]; 6] = [
    b"{",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"9999999999",
    b"-1",
    b"null",
];

/// A stage of the experiment, and what reads the like of its artifact.
const READ: [(&str, &str); 5] = [
    (
        "normalize",
        "
  a: { kind: dedupe, inputs: [own] }
  b: { kind: tokenizer, inputs: [own], with: { vocab_size: 300 } }
  c: { kind: binarize, inputs: { documents: own, tokenizer: tokenizer } }
  d: { kind: evaluate, inputs: { model: finetune, documents: own } }
",
    ),
    (
        "tokenizer",
        "
  a: { kind: binarize, inputs: { documents: dedupe, tokenizer: own } }
  b: { kind: tokenizer, with: { pretrained: { path: broken } } }
",
    ),
    (
        "binarize",
        "
  a: { kind: pretrain, inputs: [own], with: { model: { preset: mini, d_model: 16, n_heads: 2, n_layers: 1, d_ff: 16, context: 16 }, train: { steps: 1, batch: 1, lr: 1e-3 } } }
  b: { kind: evaluate, inputs: { model: finetune, shards: own } }
",
    ),
    ("pretrain", MODEL),
    ("finetune", MODEL),
];

const MODEL: &str = "
  a: { kind: sample, inputs: [own], with: { prompts: [one], max_tokens: 2 } }
  b: { kind: evaluate, inputs: { model: own, documents: dedupe } }
  c: { kind: finetune, inputs: { model: own, shards: binarize }, with: { optimizer_state: keep, train: { steps: 1, batch: 1, lr: 1e-3 } } }
  d: { kind: finetune, inputs: { shards: binarize }, with: { from: broken, train: { steps: 1, batch: 1, lr: 1e-3 } } }
";

/// The stage that makes an artifact of all that stands in the folder `broken`.
fn own(folder: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let copy = "for file in *; do [ $file = out ] || cp -r $file {out}; done";
    format!(
        "extends: all.yaml\nstages:\n  own: {{ kind: command, with: {{ run: [sh, -c, '{copy}'], outputs: [{}], files: [broken] }} }}",
        names.join(", ")
    )
}

/// Copies an artifact to the folder `broken` and breaks one of its files; returns its name.
pub(crate) fn break_one(dice: &mut Dice, sound: &Path, broken: &Path) -> PathBuf {
    fs::remove_dir_all(broken).ok();
    let files = files_below(sound);
    let hit = dice.pick::<PathBuf>(&files).clone();
    for path in &files {
        let bytes = fs::read(path).unwrap();
        let name = path.strip_prefix(sound).unwrap();
        let copy = broken.join(name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let bytes = match *path == hit {
            true => wrong(dice, &bytes),
            false => bytes,
        };
        fs::write(copy, bytes).unwrap();
    }
    hit.strip_prefix(sound).unwrap().to_owned()
}

/// Mostly what still has its form and says something else, since bytes at random are soon refused.
fn wrong(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    if dice.below(4) > 0 {
        if let Ok(mut json) = serde_json::from_slice::<Value>(bytes) {
            odd_json(dice, &mut json);
            return json.to_string().into_bytes();
        }
        if let Some(tensors) = odd_header(dice, bytes) {
            return tensors;
        }
    }
    damaged(dice, bytes, &ODD)
}

/// A safetensors file with something else in its header, which has the length that it says.
fn odd_header(dice: &mut Dice, bytes: &[u8]) -> Option<Vec<u8>> {
    let (len, rest) = bytes.split_at_checked(8)?;
    let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
    let (header, numbers) = rest.split_at_checked(len)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    odd_json(dice, &mut header);
    let header = header.to_string();
    let len = (header.len() as u64).to_le_bytes();
    Some([&len, header.as_bytes(), numbers].concat())
}

#[test]
fn a_wrong_artifact_is_read_or_refused_by_whoever_reads_it() {
    let project = project();
    let folder = project.path();
    run(folder, &[], "the experiment itself");
    let broken = folder.join("broken");
    let (mut dice, clock) = (Dice::new("artifacts"), Clock::start());
    let (mut n_attacks, mut n_refused) = (0, 0);
    while n_attacks == 0 || clock.goes_on() {
        let (stage, readers) = *dice.pick(&READ);
        let name = break_one(&mut dice, &artifact(folder, stage), &broken);
        let file = format!("{}{readers}", own(&broken));
        fs::write(folder.join("read.yaml"), file).unwrap();
        let what = format!("{} of {stage}, in {}", name.display(), folder.display());
        let sample = ["sample", "broken", "-p", "one", "--max-tokens", "2"];
        for args in [&["run", "read.yaml", "--keep-going"][..], &sample] {
            let output = bounded(folder, args).output().unwrap();
            n_refused += usize::from(!output.status.success());
            if std::panic::catch_unwind(|| assert_told(&output, &what)).is_err() {
                let kept = project.keep();
                panic!("a wrong {what}: kept in {}", kept.display());
            }
        }
        n_attacks += 1;
    }
    println!("artifacts: {n_attacks} artifacts, refused by {n_refused} of their readers' runs");
}
