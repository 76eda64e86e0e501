//! Pretraining and finetuning as stages, from shards to a model folder.

mod adapters;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use insta::assert_snapshot;
use serde_json::{Value, json};
use tempfile::TempDir;
use tinylm_model::config::Precision;
use tinylm_model::shards::{
    DocumentRecord, INDEX_NAME, ROLE_ASSISTANT, ShardFile, ShardsIndex, SplitIndex, TARGET, VERSION,
};
use tinylm_pipeline::{
    Device, Event, Kind, Stage, StageError,
    settings::{Settings, with_defaults},
    testing::{Outcome, StageTest},
};

use super::slow_bf16;
use crate::kinds::{finetune::Finetune, pretrain::Pretrain};
use crate::shared::speak::fixture;

const SMALL: &str = "
model: { preset: mini, context: 8, d_model: 16, n_layers: 1, n_heads: 2 }
train: { steps: 6, batch: 4, lr: 1e-2, validate_every: 3 }
";

/// A folder of shards in which each token follows from the one before.
fn shards(folder: &Path, tokens: &[&str]) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let mut splits = std::collections::BTreeMap::new();
    for (name, n_documents) in [("train", 24_u16), ("validation", 6)] {
        let (mut bin, mut idx, mut roles) = (Vec::new(), Vec::new(), Vec::new());
        for document in 0..n_documents {
            let start = roles.len() as u64;
            idx.extend(
                DocumentRecord {
                    start,
                    bytes: 6,
                    source: 0,
                }
                .encode(),
            );
            for token in 0..6 {
                let id = (document + 2 * token) % tokens.len() as u16;
                bin.extend(id.to_le_bytes());
                roles.push(ROLE_ASSISTANT | TARGET);
            }
        }
        let file = ShardFile {
            name: format!("{name}-00000.bin"),
            tokens: roles.len() as u64,
            documents: n_documents.into(),
            sources: None,
        };
        let path = folder.join(&file.name);
        fs::write(&path, bin).unwrap();
        fs::write(path.with_extension("idx"), idx).unwrap();
        fs::write(path.with_extension("roles"), &roles).unwrap();
        let split = SplitIndex {
            tokens: file.tokens,
            documents: file.documents,
            targets: file.tokens,
            files: vec![file],
        };
        splits.insert(name.to_owned(), split);
    }
    let index = ShardsIndex {
        version: VERSION,
        vocab_size: tokens.len(),
        sources: vec!["one".to_owned()],
        template: None,
        pairs: false,
        splits,
        stats: Value::Null,
    };
    fs::write(folder.join(INDEX_NAME), serde_json::to_vec(&index).unwrap()).unwrap();
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let tokenizer = json!({"model": {"type": "WordLevel", "vocab": vocab}, "added_tokens": []});
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    // Enough to be carried on, and too little to speak with.
    for name in ["chat_template.jinja", "generation.json"] {
        fs::write(folder.join(name), "{}").unwrap();
    }
    folder.to_owned()
}

const WORDS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        shards(&dir.path().join("shards"), &WORDS);
        Self { dir }
    }

    fn test(&self) -> StageTest {
        StageTest::new(self.dir.path()).input("shards", &self.dir.path().join("shards"))
    }

    fn pretrain(&self, settings: &str) -> Result<Outcome, StageError> {
        self.test().run::<Pretrain>(settings)
    }

    /// Finetunes what `pretrain` made, on shards with these words.
    fn finetune(&self, words: &[&str], settings: &str) -> Result<Outcome, StageError> {
        let folder = shards(&self.dir.path().join("other"), words);
        let test = StageTest::new(self.dir.path()).input("shards", &folder);
        test.input("model", &self.dir.path().join("out-pretrain"))
            .run::<Finetune>(settings)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    names(folder).into_iter().map(read).collect()
}

fn said(error: &StageError) -> String {
    let help = error.help.as_ref().map(|help| format!("\n  {help}"));
    format!("{}{}", error.message, help.unwrap_or_default())
}

/// Settings as they enter the key.
fn canonical<S: Stage>(settings: &str) -> Value {
    let given: Value = serde_yaml::from_str(settings).unwrap();
    (Kind::of::<S>().canonical)(&with_defaults(&S::Settings::list(), &given)).unwrap()
}

#[test]
fn a_model_folder_answers_on_its_own_and_two_runs_make_the_same_bytes() {
    let (one, two) = (Bench::new(), Bench::new());
    let [one, two] = [&one, &two].map(|bench| bench.pretrain(SMALL).unwrap());
    assert_eq!(
        names(&one.out),
        [
            "chat_template.jinja",
            "generation.json",
            "last.safetensors",
            "model.safetensors",
            "tinylm.json",
            "tokenizer.json",
            "training.json"
        ]
    );
    assert_eq!(bytes(&one.out), bytes(&two.out));
    assert_eq!(one.metrics.get("steps"), Some(6.0));
    assert!(one.metrics.get("best_validation_loss").unwrap() < 2.5);
    let told = |event: &Event| matches!(event, Event::Metric { name, step: Some(3), .. } if name == "validation_loss");
    assert!(one.events.iter().any(told));
}

#[test]
fn a_model_speaks_at_every_validation_and_that_changes_nothing() {
    let bench = Bench::new();
    let folder = shards(
        &bench.dir.path().join("shards"),
        &["a"; fixture::VOCAB_SIZE],
    );
    fixture::write_tokenizer(&folder, "chatml");
    let settings = SMALL.replace("context: 8", "context: 64");
    let watch = "{ samples: [hello, how are you], sample_tokens: 4 }";
    let run = |watch| {
        bench
            .test()
            .run_watched::<Pretrain>(&settings, watch, &AtomicBool::new(false))
    };
    let spoken = run(watch).unwrap();
    let told: Vec<(Option<u64>, &str)> = spoken
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Sample { step, prompt, .. } => Some((*step, prompt.as_str())),
            _ => None,
        })
        .collect();
    let (one, two) = ("hello", "how are you");
    assert_eq!(
        told,
        [
            (Some(3), one),
            (Some(3), two),
            (Some(6), one),
            (Some(6), two)
        ]
    );
    let with = bytes(&spoken.out);
    fs::remove_dir_all(bench.dir.path().join("checkpoints-pretrain")).unwrap();
    assert_eq!(bytes(&run("{}").unwrap().out), with);
}

#[test]
fn a_model_without_its_tokenizer_is_never_made() {
    for name in crate::shared::tokens::TOKENIZER_NAMES {
        let bench = Bench::new();
        fs::remove_file(bench.dir.path().join("shards").join(name)).unwrap();
        let error = bench.pretrain(SMALL).unwrap_err();
        assert!(error.message.contains(name), "{error}");
    }
}

#[test]
fn a_model_that_cannot_speak_is_told_of_once_and_trained_all_the_same() {
    let bench = Bench::new();
    let watch = "{ samples: [a b] }";
    let trained = bench
        .test()
        .run_watched::<Pretrain>(SMALL, watch, &AtomicBool::new(false));
    let events = trained.unwrap().events;
    let warnings = events
        .iter()
        .filter(|event| matches!(event, Event::Warning { .. }));
    assert_eq!(warnings.count(), 1, "{events:?}");
}

#[test]
fn a_cancelled_training_says_so_and_goes_on() {
    let bench = Bench::new();
    let cancelled = bench
        .test()
        .run_watched::<Pretrain>(SMALL, "{}", &AtomicBool::new(true));
    assert!(cancelled.unwrap_err().cancelled);
    let resumed = bench.pretrain(SMALL).unwrap();
    assert_eq!(
        bytes(&resumed.out),
        bytes(&Bench::new().pretrain(SMALL).unwrap().out)
    );
}

#[test]
fn a_preset_is_spelled_out_and_what_follows_from_a_field_follows() {
    let of = |model: &str| {
        let settings = format!("model: {model}\ntrain: {{}}");
        canonical::<Pretrain>(&settings)["model"].clone()
    };
    let small = of("{ preset: forty-one, d_model: 210, n_heads: 3 }");
    assert_eq!(small["d_ff"], 1000);
    assert_eq!(small["n_kv_heads"], 3);
    assert_eq!(small["embed_scale"], json!(14.491377));
    assert_eq!(small["norm_eps"], of("{ preset: forty-one }")["norm_eps"]);
    assert_eq!(
        small["bias"],
        json!({"norm": false, "qkv": true, "proj": true, "mlp": true, "head": true})
    );
    let spelled_out = format!("{small}");
    assert_eq!(of(&spelled_out), small);
}

/// A default that changes here changes the key of every experiment that leaves it out.
#[test]
fn a_recipe_says_everything_that_the_bytes_depend_on() {
    let recipe = canonical::<Pretrain>("{ model: { preset: mini }, train: { steps: 9 } }");
    let lines = recipe["train"].as_object().unwrap().iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    epochs = null
    steps = 9
    batch = 32
    micro_batch = "auto"
    leaves = null
    context = null
    batching = "packed"
    stride = null
    long_documents = "split"
    loss_on = "targets"
    lr = 0.001
    schedule = "cosine"
    warmup = "5%"
    floor = 0.0
    decay = "20%"
    optimizer = "adamw"
    betas = [0.9,0.95]
    momentum = 0.95
    weight_decay = 0.1
    clip = 1.0
    dropout = 0.0
    dropout_embedding = 0.0
    dropout_attention = 0.0
    dropout_residual = 0.0
    dropout_mlp = 0.0
    label_smoothing = 0.0
    precision = "f32"
    validate_every = null
    validate_rows = null
    patience = null
    on_non_finite = "stop"
    on_spike = "warn"
    spike_z = 6.0
    "#);
}

#[test]
fn a_cpu_where_bf16_gains_nothing_says_so() {
    let said = |precision, device, has_bf16| slow_bf16(precision, device, has_bf16).is_some();
    assert!(said(Precision::Bf16, Device::Cpu, false));
    assert!(!said(Precision::Bf16, Device::Cpu, true));
    assert!(!said(Precision::F32, Device::Cpu, false));
    assert!(!said(Precision::Bf16, Device::CUDA, false));
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let bench = Bench::new();
    let refusal = |train: &str| {
        let settings = format!("model: {{ preset: mini }}\ntrain: {train}");
        said(&bench.pretrain(&settings).unwrap_err())
    };
    let refusals = [
        refusal("{ epochs: 1, steps: 2 }"),
        refusal("{ lr: 1e9 }"),
        refusal("{ betas: [0.9] }"),
        refusal("{ dropout: 1 }"),
        refusal("{ stride: 4 }"),
        refusal("{ batching: sliding, stride: 129 }"),
        refusal("{ micro_batch: some }"),
        refusal("{ warmup: a lot }"),
        refusal("{ context: 4096 }"),
    ];
    assert_snapshot!(refusals.join("\n"), @r#"
    `train.steps`: excludes `epochs`
      leave one of them out
    `train.lr`: is 1000000000, and a learning rate is a number above 0 and at most 10
      set `lr` to a value such as 1e-3
    `train.betas`: must be two numbers, at least 0 and less than 1
    `train.dropout`: must be at least 0 and less than 1
    `train.stride`: is only for `batching: sliding`
    `train.stride`: is 129, and more than `context` (128): tokens in between would never be read
      set `stride` to at most `context`
    `train.micro_batch`: must be `auto` or a number of rows, not "some"
    `train.warmup`: `a lot` is neither a number nor a share such as `30%`
    `train.context` is 4096, and the model reads 128 tokens at most
      set `train.context` to at most 128, or give the model a longer context
    "#);
}

#[test]
fn a_model_too_large_for_memory_is_refused_before_it_is_made() {
    let bench = Bench::new();
    let settings = "
model: { preset: mini, d_model: 16384, n_layers: 1000 }
train: { steps: 1 }
";
    let refused = said(&bench.pretrain(settings).unwrap_err());
    assert!(
        refused.starts_with("training with 1 row at a time needs"),
        "{refused}"
    );
    assert!(
        refused.contains("set a smaller `d_model`, `d_ff` or `n_layers`"),
        "{refused}"
    );
}

#[test]
fn finetuning_goes_on_with_a_larger_vocabulary() {
    let bench = Bench::new();
    bench.pretrain(SMALL).unwrap();
    let words: Vec<&str> = WORDS.into_iter().chain(["new"]).collect();
    let tuned = bench
        .finetune(&words, "train: { steps: 3, batch: 4 }")
        .unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(tuned.out.join("tinylm.json")).unwrap()).unwrap();
    assert_eq!(config["vocab_size"], 10);
    assert_eq!(config["d_model"], 16);
}

#[test]
fn a_model_of_an_earlier_version_is_finetuned_to_the_same_bytes() {
    let bench = Bench::new();
    let made = bench.pretrain(SMALL).unwrap().out;
    let tune = "train: { steps: 2, batch: 4 }";
    let now = bytes(&bench.finetune(&WORDS, tune).unwrap().out);
    fs::remove_dir_all(bench.dir.path().join("checkpoints-finetune")).unwrap();
    fs::rename(made.join("tinylm.json"), made.join("config.json")).unwrap();
    assert_eq!(bytes(&bench.finetune(&WORDS, tune).unwrap().out), now);
}

#[test]
fn finetuning_keeps_what_was_learned_and_fits_it_to_more_tokens_and_positions() {
    let bench = Bench::new();
    let before = bench.pretrain(SMALL).unwrap().out;
    let read = |folder: &Path| {
        tinylm_model::weights::read_tensors(&folder.join("model.safetensors")).unwrap()
    };
    let before = read(&before);
    let words: Vec<&str> = WORDS.into_iter().chain(["new"]).collect();
    for context in [12, 5] {
        let settings = format!(
            "{{ context: {context}, freeze: {{ embeddings: true, blocks: 1 }}, train: {{ steps: 2, batch: 4 }} }}"
        );
        fs::remove_dir_all(bench.dir.path().join("checkpoints-finetune")).ok();
        let after = read(&bench.finetune(&words, &settings).unwrap().out);
        let (old, new) = (&before["embed.weight"].data, &after["embed.weight"].data);
        assert_eq!(after["embed.weight"].shape, [10, 16]);
        assert_eq!(new[..9 * 16], old[..]);
        let column: f32 = old.iter().skip(3).step_by(16).sum();
        assert!((new[9 * 16 + 3] - column / 9.0).abs() < 1e-6);
        let (old, new) = (&before["positions.weight"], &after["positions.weight"]);
        assert_eq!(new.shape, [context, 16]);
        let n_kept = new.data.len().min(old.data.len());
        assert_eq!(new.data[..n_kept], old.data[..n_kept]);
        assert_eq!(before["blocks.0.up.weight"], after["blocks.0.up.weight"]);
        assert_ne!(before["norm.weight"], after["norm.weight"]);
    }
}

#[test]
fn damaged_shards_are_refused_by_name_before_the_first_step() {
    let refusal = |change: &dyn Fn(&Path), settings: &str| {
        let bench = Bench::new();
        change(&bench.dir.path().join("shards"));
        let place = format!("{}/", bench.dir.path().display());
        let refused = bench.pretrain(settings).unwrap_err();
        let trained = bench
            .dir
            .path()
            .join("checkpoints-pretrain/step-0000000001");
        assert!(!trained.exists());
        said(&refused).replace(&place, "")
    };
    let cut = |name: &'static str| {
        move |shards: &Path| {
            let path = shards.join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        }
    };
    let without_validation = |shards: &Path| {
        let path = shards.join(INDEX_NAME);
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["splits"]
            .as_object_mut()
            .unwrap()
            .remove("validation");
        fs::write(&path, index.to_string()).unwrap();
    };
    let masked = |shards: &Path| {
        let path = shards.join("train-00000.roles");
        let n = fs::read(&path).unwrap().len();
        fs::write(&path, vec![ROLE_ASSISTANT; n]).unwrap();
        let path = shards.join(INDEX_NAME);
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["splits"]["train"]["targets"] = json!(0);
        fs::write(&path, index.to_string()).unwrap();
    };
    let refusals = [
        refusal(&cut("train-00000.bin"), SMALL),
        refusal(&cut("train-00000.roles"), SMALL),
        refusal(&without_validation, SMALL),
        refusal(&masked, SMALL),
    ];
    assert_snapshot!(refusals.join("\n"), @"
    `shards/train-00000.bin` has 283 bytes and must have 288 (as many as shards.json says)
      the shards are damaged or not tinylm's: make them again with `binarize`, and see `tinylm cache verify`
    `shards/train-00000.roles` has 139 bytes and must have 144 (as many as shards.json says)
      the shards are damaged or not tinylm's: make them again with `binarize`, and see `tinylm cache verify`
    the shards have no `validation` documents
      set a larger `validation` in the `binarize` stage, or give it more documents
    the `train` documents: no token of these documents counts in the loss
      set `loss_on: all`, or mark what is to be learned in `normalize` and `binarize`
    ");
}

#[test]
fn finetuning_begins_where_pretraining_ended() {
    let bench = Bench::new();
    let long = SMALL.replace("steps: 6", "steps: 60");
    let loss = bench
        .pretrain(&long)
        .unwrap()
        .metrics
        .get("best_validation_loss")
        .unwrap();
    let tuned = bench
        .finetune(&WORDS, "train: { steps: 1, lr: 1e-6, batch: 4 }")
        .unwrap();
    let after = tuned.metrics.get("best_validation_loss").unwrap();
    assert!((after - loss).abs() < 0.01, "{loss} before, {after} after");
}

#[test]
fn frozen_tensors_stay_and_kept_moments_go_on() {
    let bench = Bench::new();
    bench
        .pretrain(&format!("{SMALL}\nkeep_optimizer: true"))
        .unwrap();
    let settings = "
optimizer_state: keep
keep_optimizer: true
freeze: { embeddings: true }
train: { steps: 2, batch: 4, validate_every: 0 }
";
    let tuned = bench.finetune(&WORDS, settings).unwrap();
    let read = |folder: &Path| {
        tinylm_model::weights::read_tensors(&folder.join("last.safetensors")).unwrap()
    };
    let (before, after) = (
        read(&bench.dir.path().join("out-pretrain")),
        read(&tuned.out),
    );
    assert_eq!(before["embed.weight"], after["embed.weight"]);
    assert_eq!(before["positions.weight"], after["positions.weight"]);
    assert_ne!(before["blocks.0.qkv.weight"], after["blocks.0.qkv.weight"]);
    let report: Value =
        serde_json::from_slice(&fs::read(tuned.out.join("training.json")).unwrap()).unwrap();
    assert_eq!(
        (&report["steps"], &report["updates"]),
        (&json!(2), &json!(8))
    );
}

fn warnings(outcome: &Outcome) -> Vec<&str> {
    let events = outcome.events.iter();
    let warnings = events.filter_map(|event| match event {
        Event::Warning { message, .. } => Some(&**message),
        _ => None,
    });
    warnings.collect()
}

#[test]
fn kept_moments_that_do_not_fit_are_refused_with_the_setting_to_change() {
    let keep = "optimizer_state: keep\n";
    let refusal = |before: &str, now: &str| {
        let bench = Bench::new();
        bench
            .pretrain(&format!("{before}\nkeep_optimizer: true"))
            .unwrap();
        said(&bench.finetune(&WORDS, &format!("{keep}{now}")).unwrap_err())
    };
    let (adamw, muon) = (
        SMALL,
        SMALL.replace("batch: 4", "batch: 4, optimizer: muon"),
    );
    let frozen = {
        let bench = Bench::new();
        bench.pretrain(SMALL).unwrap();
        let train = "train: { steps: 1, batch: 4, validate_every: 0 }";
        let settings = format!("freeze: {{ blocks: 1 }}\nkeep_optimizer: true\n{train}");
        bench.finetune(&WORDS, &settings).unwrap();
        let model = bench.dir.path().join("frozen");
        fs::rename(bench.dir.path().join("out-finetune"), &model).unwrap();
        let test = bench.test().input("model", &model);
        fs::remove_dir_all(bench.dir.path().join("checkpoints-finetune")).unwrap();
        said(&test.run::<Finetune>(&format!("{keep}{train}")).unwrap_err())
    };
    let refusals = [
        refusal(adamw, "train: { optimizer: muon }"),
        refusal(&muon, "train: {}"),
        frozen,
    ];
    assert_snapshot!(refusals.join("\n"), @"
    `optimizer_state: keep` cannot go on: the optimizer's state of stage `input1` is that of `train.optimizer: adamw`, and here `train.optimizer` is `muon`
      set `train.optimizer: adamw`, or set `optimizer_state: reset`
    `optimizer_state: keep` cannot go on: the optimizer's state of stage `input1` is that of `train.optimizer: muon`, and here `train.optimizer` is `adamw`
      set `train.optimizer: muon`, or set `optimizer_state: reset`
    `optimizer_state: keep` cannot go on: the optimizer's state of stage `input1` has nothing for `blocks.0.norm1.weight`, which was frozen when it was made
      freeze it here too, or set `optimizer_state: reset`
    ");
}

#[test]
fn finetuning_says_what_it_did_not_check_or_will_not_learn() {
    let bench = Bench::new();
    let made = bench.pretrain(SMALL).unwrap().out;
    let words: Vec<&str> = WORDS.into_iter().chain(["new"]).collect();
    let train = "train: { steps: 1, batch: 4, validate_every: 0 }";
    let shape = SMALL
        .lines()
        .find(|line| line.starts_with("model:"))
        .unwrap();
    let settings = format!("freeze: {{ embeddings: true }}\n{shape}\n{train}");
    assert_eq!(warnings(&bench.finetune(&WORDS, train).unwrap()), [""; 0]);
    fs::remove_file(made.join("tokenizer.json")).unwrap();
    fs::remove_dir_all(bench.dir.path().join("checkpoints-finetune")).unwrap();
    let tuned = bench.finetune(&words, &settings).unwrap();
    assert_snapshot!(warnings(&tuned).join("\n"), @"
    the shape is the one in `model`: the `tinylm.json` of stage `input1` is not read
    stage `input1` has no `tokenizer.json`, so it is not checked that the shards were made with its tokenizer
    `freeze.embeddings` leaves the new tokens all alike: set it to false to learn them
    ");
}

#[test]
fn finetuning_refuses_what_cannot_go_well() {
    let bench = Bench::new();
    bench.pretrain(SMALL).unwrap();
    let mut other = WORDS;
    other.swap(2, 3);
    let alone = bench.test().run::<Finetune>("train: {}").unwrap_err();
    let refusals = [
        said(&bench.finetune(&other, "train: {}").unwrap_err()),
        said(&bench.finetune(&WORDS[..8], "train: {}").unwrap_err()),
        said(
            &bench
                .finetune(&WORDS, "{ optimizer_state: keep, train: {} }")
                .unwrap_err(),
        ),
        said(
            &bench
                .finetune(&WORDS, "{ freeze: { blocks: 2 }, train: {} }")
                .unwrap_err(),
        ),
        said(&alone),
    ];
    assert_snapshot!(refusals.join("\n"), @"
    the shards were made with another tokenizer: id 2 was `c` to the model of stage `input1`, and here it is `d`
      make the shards with the model's tokenizer, or with one that adds tokens to it
    the shards were made with another tokenizer: id 8 was `i` to the model of stage `input1`, and here it has none
      make the shards with the model's tokenizer, or with one that adds tokens to it
    stage `input1` has no `optimizer.safetensors`
      set `keep_optimizer: true` in the stage that trained it, or `optimizer_state: reset` here
    the model has 1 blocks, and `freeze.blocks` is 2
      freeze no more blocks than there are
    nothing says which model to start from
      name a stage in the role `model`, or a model folder in `from`
    ");
}

#[test]
fn finetuning_starts_from_files_of_ones_own() {
    let bench = Bench::new();
    let made = bench.pretrain(SMALL).unwrap().out;
    let folder = bench.dir.path().join("mine");
    fs::rename(&made, &folder).unwrap();
    let tune = "train: { steps: 1, batch: 4, validate_every: 0 }";
    let with_files = |names: &[&str], settings: &str| {
        let test = names.iter().fold(bench.test(), |test, name| {
            test.local_file("from", &folder.join(name))
        });
        test.run::<Finetune>(&format!("from: mine\n{settings}\n{tune}"))
    };
    let whole = ["tinylm.json", "model.safetensors", "tokenizer.json"];
    let whole = bytes(&with_files(&whole, "").unwrap().out);

    let bare = with_files(&["model.safetensors"], "").unwrap_err();
    assert_snapshot!(said(&bare), @"
    `mine` does not say what model it is
      give the model's folder with its `tinylm.json`, or its shape in `model`
    ");
    let shape = SMALL
        .lines()
        .find(|line| line.starts_with("model:"))
        .unwrap();
    fs::remove_dir_all(bench.dir.path().join("checkpoints-finetune")).unwrap();
    let told = bytes(&with_files(&["model.safetensors"], shape).unwrap().out);
    assert_eq!(told, whole);

    let path = bench.dir.path().join("changing.json");
    fs::copy(folder.join("training.json"), &path).unwrap();
    let changing = bench
        .test()
        .local_file("from", &folder.join("model.safetensors"));
    let changing = changing.local_file("from", &path);
    fs::write(&path, "{}").unwrap();
    let settings = format!("from: mine\n{shape}\n{tune}");
    let changed = changing.run::<Finetune>(&settings).unwrap_err();
    assert!(
        changed.message.contains("changed while it was read"),
        "{changed}"
    );

    let both = bench
        .test()
        .input("model", &folder)
        .local_file("from", &folder.join("tinylm.json"));
    let both = both
        .run::<Finetune>(&format!("from: mine\n{tune}"))
        .unwrap_err();
    assert_snapshot!(said(&both), @"
    both `from` and the role `model` say where to start
      leave one of them out
    ");
}
