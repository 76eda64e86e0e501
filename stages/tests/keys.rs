//! The recipes of the kinds that train, measure and speak, entry by entry, and their keys.
//!
//! An entry that moves here runs every such stage of every home again. A new setting has a neutral
//! value and moves nothing; a new default does, and is meant to.

use serde_json::Value;
use tinylm_pipeline::{
    Kind,
    recipe::{Entry, Recipe, explanation, key},
    settings::{Setting, Shape, with_defaults},
};
use tinylm_stages::catalog;

fn kind(name: &str) -> Kind {
    let found = catalog().into_iter().find(|kind| kind.name == name);
    found.unwrap()
}

fn with_recipe<T>(name: &str, with: &str, f: impl Fn(&Recipe) -> T) -> T {
    let kind = kind(name);
    let given: Value = serde_yaml::from_str(with).unwrap();
    let settings = (kind.canonical)(&with_defaults(&(kind.settings)(), &given)).unwrap();
    f(&Recipe {
        kind: &kind,
        settings: &settings,
        seed: 1,
        inputs: &[],
        local_files: &[],
        pins: &[],
        places: &[],
    })
}

fn entries(name: &str, with: &str) -> Vec<Entry> {
    with_recipe(name, with, explanation)
}

fn short_key(name: &str, with: &str) -> String {
    with_recipe(name, with, |recipe| {
        key(recipe).to_string()[..16].to_owned()
    })
}

fn lines(entries: &[Entry]) -> String {
    let lines: Vec<String> = entries
        .iter()
        .map(|(path, value)| format!("{path} = {value}"))
        .collect();
    lines.join("\n")
}

const PRESETS: [&str; 6] = ["toiny", "tinylm", "jojo", "mini", "forty-one", "llama-tiny"];

/// Every word that `train` knows besides its defaults.
const OTHER_WORDS: &str = "{steps: 7, batching: sliding, stride: 3, context: 8, long_documents: crop, \
    loss_on: all, schedule: wsd, optimizer: muon, precision: bf16, on_non_finite: skip, on_spike: stop}";

#[test]
fn keys_stay_what_they_are() {
    let mut told = Vec::new();
    let mut tell =
        |name: &str, with: &str| told.push(format!("{} {name} {with}", short_key(name, with)));
    for preset in PRESETS {
        tell(
            "pretrain",
            &format!("{{model: {{preset: {preset}}}, train: {{}}}}"),
        );
    }
    tell(
        "pretrain",
        &format!("{{model: {{preset: mini}}, train: {OTHER_WORDS}}}"),
    );
    let shape = "{preset: mini, d_model: 96, n_heads: 2, positions: rope, norm: rms, norm_at: post, \
        activation: swiglu, bias: {norm: false, qkv: false}, norm_eps: 1e-6}";
    tell(
        "pretrain",
        &format!("{{model: {shape}, train: {{schedule: linear}}}}"),
    );
    tell("finetune", "{train: {}}");
    tell(
        "finetune",
        &format!("{{train: {OTHER_WORDS}, optimizer_state: keep, freeze: {{blocks: 2}}}}"),
    );
    tell(
        "finetune",
        "{model: {preset: jojo, tied: false}, train: {schedule: constant}}",
    );
    tell("evaluate", "{}");
    tell("evaluate", "{precision: bf16, score: all, split: test}");
    tell("sample", "{prompts: [hi]}");
    tell("sample", "{prompts: [hi], form: chat, precision: bf16}");
    insta::assert_snapshot!(told.join("\n"), @"
    30334a63c2934102 pretrain {model: {preset: toiny}, train: {}}
    9044261a87c16fee pretrain {model: {preset: tinylm}, train: {}}
    fd479ac432551946 pretrain {model: {preset: jojo}, train: {}}
    80cd86c308aafd24 pretrain {model: {preset: mini}, train: {}}
    2d90bb643d94dc0d pretrain {model: {preset: forty-one}, train: {}}
    fbf19c9266abf0a7 pretrain {model: {preset: llama-tiny}, train: {}}
    ba72dd655cbbc478 pretrain {model: {preset: mini}, train: {steps: 7, batching: sliding, stride: 3, context: 8, long_documents: crop, loss_on: all, schedule: wsd, optimizer: muon, precision: bf16, on_non_finite: skip, on_spike: stop}}
    5dbd8ad2f82587e8 pretrain {model: {preset: mini, d_model: 96, n_heads: 2, positions: rope, norm: rms, norm_at: post, activation: swiglu, bias: {norm: false, qkv: false}, norm_eps: 1e-6}, train: {schedule: linear}}
    54e5cd04d0e5cdc6 finetune {train: {}}
    bcc74442e6781f20 finetune {train: {steps: 7, batching: sliding, stride: 3, context: 8, long_documents: crop, loss_on: all, schedule: wsd, optimizer: muon, precision: bf16, on_non_finite: skip, on_spike: stop}, optimizer_state: keep, freeze: {blocks: 2}}
    e2e58b2ec6eb3447 finetune {model: {preset: jojo, tied: false}, train: {schedule: constant}}
    0e00276406e6f6c8 evaluate {}
    ad6422c233a5d785 evaluate {precision: bf16, score: all, split: test}
    b67737818dd3b0dc sample {prompts: [hi]}
    32af52e052dba574 sample {prompts: [hi], form: chat, precision: bf16}
    ");
}

#[test]
fn a_preset_is_a_set_of_numbers() {
    let of = |preset: &str| {
        let with = format!("{{model: {{preset: {preset}}}, train: {{}}}}");
        let all = entries("pretrain", &with);
        let shape = all.iter().filter_map(|(path, value)| {
            let name = path.strip_prefix("with.model.")?;
            Some(format!("{name}={value}"))
        });
        shape.collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(PRESETS.map(of).join("\n"), @r#"
    activation="relu" bias.head=true bias.mlp=true bias.norm=true bias.proj=true bias.qkv=true context=512 d_ff=1024 d_model=256 embed_scale=1.0 final_norm=false n_heads=8 n_kv_heads=8 n_layers=6 norm="layer" norm_at="post" norm_eps=0.00001 positions="sinusoidal" preset="toiny" rope_theta=10000.0 tied=false
    activation="gelu" bias.head=true bias.mlp=true bias.norm=true bias.proj=true bias.qkv=true context=256 d_ff=2048 d_model=512 embed_scale=1.0 final_norm=true n_heads=8 n_kv_heads=8 n_layers=8 norm="layer" norm_at="pre" norm_eps=0.00001 positions="sinusoidal" preset="tinylm" rope_theta=10000.0 tied=false
    activation="gelu-tanh" bias.head=false bias.mlp=false bias.norm=false bias.proj=false bias.qkv=false context=1024 d_ff=3072 d_model=768 embed_scale=1.0 final_norm=true n_heads=12 n_kv_heads=12 n_layers=12 norm="layer" norm_at="pre" norm_eps=0.00001 positions="learned" preset="jojo" rope_theta=10000.0 tied=true
    activation="gelu-tanh" bias.head=false bias.mlp=true bias.norm=true bias.proj=true bias.qkv=true context=128 d_ff=1024 d_model=256 embed_scale=1.0 final_norm=true n_heads=4 n_kv_heads=4 n_layers=4 norm="layer" norm_at="pre" norm_eps=0.00001 positions="learned" preset="mini" rope_theta=10000.0 tied=false
    activation="gelu" bias.head=true bias.mlp=true bias.norm=false bias.proj=true bias.qkv=true context=80 d_ff=2000 d_model=420 embed_scale=20.493902 final_norm=true n_heads=6 n_kv_heads=6 n_layers=6 norm="rms" norm_at="pre" norm_eps=0.00001 positions="sinusoidal" preset="forty-one" rope_theta=10000.0 tied=false
    activation="swiglu" bias.head=false bias.mlp=false bias.norm=false bias.proj=false bias.qkv=false context=256 d_ff=768 d_model=288 embed_scale=1.0 final_norm=true n_heads=6 n_kv_heads=2 n_layers=6 norm="rms" norm_at="pre" norm_eps=0.00001 positions="rope" preset="llama-tiny" rope_theta=10000.0 tied=true
    "#);
}

#[test]
fn what_a_model_always_was_is_no_part_of_its_key() {
    let of = |more: &str| {
        entries(
            "pretrain",
            &format!("{{model: {{preset: mini{more}}}, train: {{}}}}"),
        )
    };
    assert_eq!(of(", parallel: false, rope_share: 1"), of(""));
    assert_ne!(of(", parallel: true"), of(""));
    assert_ne!(
        of(", positions: rope, rope_share: 0.5"),
        of(", positions: rope")
    );
}

#[test]
fn defaults_are_spelled_out_in_a_recipe() {
    let finetune = lines(&entries("finetune", "{train: {}}"));
    let evaluate = lines(&entries("evaluate", "{}"));
    let sample = lines(&entries("sample", "{prompts: [hi]}"));
    insta::assert_snapshot!([finetune, evaluate, sample].join("\n\n"), @r#"
    format = tinylm-recipe-1
    kind = finetune
    revision = 1
    seed = 1
    with.context = null
    with.freeze.blocks = 0
    with.freeze.embeddings = false
    with.from = null
    with.keep_optimizer = false
    with.model = null
    with.optimizer_state = "reset"
    with.start = "best"
    with.train.batch = 32
    with.train.batching = "packed"
    with.train.betas.0 = 0.9
    with.train.betas.1 = 0.95
    with.train.clip = 1.0
    with.train.context = null
    with.train.decay = "20%"
    with.train.dropout = 0.0
    with.train.dropout_attention = 0.0
    with.train.dropout_embedding = 0.0
    with.train.dropout_mlp = 0.0
    with.train.dropout_residual = 0.0
    with.train.epochs = 1.0
    with.train.floor = 0.0
    with.train.label_smoothing = 0.0
    with.train.long_documents = "split"
    with.train.loss_on = "targets"
    with.train.lr = 0.001
    with.train.micro_batch = "auto"
    with.train.momentum = 0.95
    with.train.on_non_finite = "stop"
    with.train.on_spike = "warn"
    with.train.optimizer = "adamw"
    with.train.patience = null
    with.train.precision = "f32"
    with.train.schedule = "cosine"
    with.train.spike_z = 6.0
    with.train.steps = null
    with.train.stride = null
    with.train.validate_every = null
    with.train.validate_rows = null
    with.train.warmup = "5%"
    with.train.weight_decay = 0.1

    format = tinylm-recipe-1
    kind = evaluate
    revision = 4
    with.continuations = 16
    with.file = null
    with.max_tokens = 96
    with.precision = "f32"
    with.score = "targets"
    with.split = "validation"
    with.tokens = null

    format = tinylm-recipe-1
    kind = sample
    revision = 2
    seed = 1
    with.form = "auto"
    with.max_tokens = 128
    with.min_p = 0.05
    with.nonstop = false
    with.precision = "f32"
    with.prompts.0 = "hi"
    with.prompts_file = null
    with.repeat_last_n = 64
    with.repeat_penalty = 1.0
    with.samples = 1
    with.stop = []
    with.system = null
    with.temperature = 0.8
    with.top_k = 40
    with.top_p = 0.95
    "#);
}

/// Choices are listed to people and offered as corrections, in the order they are declared.
#[test]
fn every_choice_offers_these_words() {
    let mut told = Vec::new();
    for name in ["pretrain", "finetune", "evaluate", "sample"] {
        choices(name, &(kind(name).settings)(), &mut told);
    }
    insta::assert_snapshot!(told.join("\n"), @"
    pretrain.model.preset: toiny tinylm jojo mini forty-one llama-tiny
    pretrain.model.positions: learned sinusoidal rope
    pretrain.model.norm: layer rms
    pretrain.model.norm_at: pre post
    pretrain.model.activation: gelu-tanh gelu relu silu swiglu
    pretrain.train.batching: packed padded windows sliding
    pretrain.train.long_documents: split crop
    pretrain.train.loss_on: targets all
    pretrain.train.schedule: constant linear cosine wsd
    pretrain.train.optimizer: adamw muon
    pretrain.train.precision: f32 bf16
    pretrain.train.on_non_finite: stop skip
    pretrain.train.on_spike: warn skip stop
    finetune.model.preset: toiny tinylm jojo mini forty-one llama-tiny
    finetune.model.positions: learned sinusoidal rope
    finetune.model.norm: layer rms
    finetune.model.norm_at: pre post
    finetune.model.activation: gelu-tanh gelu relu silu swiglu
    finetune.start: best last
    finetune.optimizer_state: reset keep
    finetune.objective: likelihood dpo
    finetune.train.batching: packed padded windows sliding
    finetune.train.long_documents: split crop
    finetune.train.loss_on: targets all
    finetune.train.schedule: constant linear cosine wsd
    finetune.train.optimizer: adamw muon
    finetune.train.precision: f32 bf16
    finetune.train.on_non_finite: stop skip
    finetune.train.on_spike: warn skip stop
    evaluate.split: validation test train
    evaluate.score: targets all
    evaluate.weights: best last
    evaluate.precision: f32 bf16 int8
    sample.form: auto chat text
    sample.weights: best last
    sample.precision: f32 bf16 int8
    ");
}

fn choices(prefix: &str, list: &[Setting], told: &mut Vec<String>) {
    for setting in list {
        let path = format!("{prefix}.{}", setting.name);
        match &setting.shape {
            Shape::Choice(words, _) => told.push(format!("{path}: {}", words.join(" "))),
            Shape::Map(inner, _) => choices(&path, inner, told),
            _ => (),
        }
    }
}
