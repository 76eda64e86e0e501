//! Which class each model gets, and that its tensors are all of the model's.

use tinylm_model::config::{Activation, Norm, NormAt, Positions, Preset};
use tinylm_settings::Choice;

use super::*;
use crate::testing::{small, tensors};

type Edit = (&'static str, Preset, fn(&mut ModelConfig));

/// The models that are told apart, one a class and a reason.
const MODELS: [Edit; 24] = [
    ("toiny", Preset::Toiny, |_| {}),
    ("tinylm", Preset::Tinylm, |_| {}),
    ("jojo", Preset::Jojo, |_| {}),
    ("mini", Preset::Mini, |_| {}),
    ("forty-one", Preset::FortyOne, |_| {}),
    ("llama-tiny", Preset::LlamaTiny, |_| {}),
    ("tinylm without head bias", Preset::Tinylm, |c| {
        c.bias.head = false
    }),
    ("mini, grouped heads", Preset::Mini, |c| c.n_kv_heads = 2),
    ("toiny without head bias", Preset::Toiny, |c| {
        c.bias.head = false
    }),
    ("the same, another eps", Preset::Toiny, |c| {
        (c.bias.head, c.norm_eps) = (false, 1e-6);
    }),
    ("mini without final norm", Preset::Mini, |c| {
        c.final_norm = false
    }),
    ("llama with biases", Preset::LlamaTiny, |c| {
        (c.bias.qkv, c.bias.mlp) = (true, true);
    }),
    ("llama, ungated", Preset::LlamaTiny, |c| {
        c.activation = Activation::Relu
    }),
    ("mini, turning", Preset::Mini, |c| {
        c.positions = Positions::Rope
    }),
    ("the same, grouped heads", Preset::Mini, |c| {
        (c.positions, c.n_kv_heads) = (Positions::Rope, 2);
    }),
    ("the same, gated", Preset::Mini, |c| {
        (c.positions, c.activation) = (Positions::Rope, Activation::Swiglu);
        (c.bias.proj, c.bias.mlp) = (false, false);
    }),
    ("ctrl", Preset::Tinylm, |c| {
        (c.activation, c.norm_eps, c.embed_scale) = (Activation::Relu, 1e-6, 6.0);
    }),
    ("llama with head bias", Preset::LlamaTiny, |c| {
        c.bias.head = true
    }),
    ("mini, gated", Preset::Mini, |c| {
        c.activation = Activation::Swiglu
    }),
    ("post and rms", Preset::Toiny, |c| {
        (c.norm, c.norm_at, c.bias.norm) = (Norm::Rms, NormAt::Post, false);
        c.final_norm = true;
    }),
    ("mini, partly turning, parallel", Preset::Mini, |c| {
        (c.positions, c.rope_share, c.d_model) = (Positions::Rope, 0.25, 48);
        c.parallel = true;
    }),
    ("mini, gated, partly turning", Preset::Mini, |c| {
        (c.positions, c.rope_share, c.d_model) = (Positions::Rope, 0.5, 48);
        c.activation = Activation::Swiglu;
        (c.bias.proj, c.bias.mlp) = (false, false);
    }),
    ("llama, partly turning", Preset::LlamaTiny, |c| {
        (c.rope_share, c.d_model) = (0.5, 48);
    }),
    ("mini, parallel", Preset::Mini, |c| c.parallel = true),
];

fn config((_, preset, edit): Edit) -> ModelConfig {
    let mut config = small(preset);
    edit(&mut config);
    config.check().unwrap();
    config
}

#[test]
fn each_model_gets_a_class_and_says_why() {
    let lines = MODELS.map(|model| {
        let config = config(model);
        let export = Export::of(config.clone(), tensors(&config));
        let (name, class) = (model.0, export.class.name());
        format!("{name}: {class}, {}", export.claim)
    });
    insta::assert_snapshot!(lines.join("\n"), @"
    toiny: TinylmForCausalLM, exact, with its own code because of `bias.head: true`
    tinylm: GPT2LMHeadModel, exact after lowering because of `positions: sinusoidal`, `bias.head: true`
    jojo: GPT2LMHeadModel, exact
    mini: GPT2LMHeadModel, exact
    forty-one: GPT2LMHeadModel, exact after lowering because of `positions: sinusoidal`, `embed_scale: 20.493902`, `norm: rms`, `bias.head: true`
    llama-tiny: LlamaForCausalLM, exact
    tinylm without head bias: GPT2LMHeadModel, exact after lowering because of `positions: sinusoidal`
    mini, grouped heads: GPT2LMHeadModel, exact after lowering because of `n_kv_heads: 2`
    toiny without head bias: OPTForCausalLM, exact after lowering because of `positions: sinusoidal`
    the same, another eps: OpenAIGPTLMHeadModel, exact after lowering because of `positions: sinusoidal`
    mini without final norm: OPTForCausalLM, exact
    llama with biases: LlamaForCausalLM, exact
    llama, ungated: ArceeForCausalLM, exact
    mini, turning: GPTNeoXForCausalLM, exact
    the same, grouped heads: Starcoder2ForCausalLM, exact
    the same, gated: StableLmForCausalLM, exact
    ctrl: CTRLLMHeadModel, exact
    llama with head bias: TinylmForCausalLM, exact, with its own code because of `bias.head: true`
    mini, gated: TinylmForCausalLM, exact, with its own code because of `activation: swiglu`
    post and rms: TinylmForCausalLM, exact, with its own code because of `norm_at: post`
    mini, partly turning, parallel: GPTNeoXForCausalLM, exact
    mini, gated, partly turning: StableLmForCausalLM, exact
    llama, partly turning: TinylmForCausalLM, exact, with its own code because of `rope_share: 0.5`, `norm: rms`
    mini, parallel: TinylmForCausalLM, exact, with its own code because of `parallel: true`
    ");
}

/// Every combination of settings is a class that has them, or our own.
#[test]
fn every_tensor_of_a_model_goes_into_its_export_once() {
    for model in MODELS {
        let config = config(model);
        let export = Export::of(config.clone(), tensors(&config));
        let n: usize = export
            .shapes()
            .values()
            .map(|shape| shape.iter().product::<usize>())
            .sum();
        // OPT has two rows more of positions.
        let n_extra = if export.class == Class::Opt {
            2 * 36
        } else {
            0
        };
        assert_eq!(n, export.config().n_params() + n_extra, "{}", model.0);
        for (name, shape) in export.shapes() {
            let numbers = export.numbers(&name).unwrap();
            assert_eq!(numbers.len(), shape.iter().product::<usize>(), "{name}");
        }
    }
}

#[test]
fn settings_are_spelt_for_both_versions_and_leave_nothing_to_defaults() {
    let config = small(Preset::LlamaTiny);
    let export = Export::of(config.clone(), tensors(&config));
    let ids = Ids {
        eos: Some(3),
        ..Ids::default()
    };
    let settings = Value::Object(export.settings(ids));
    assert_eq!(settings["dtype"], settings["torch_dtype"]);
    assert_eq!(
        settings["rope_parameters"]["rope_theta"],
        settings["rope_theta"]
    );
    assert_eq!(settings["rms_norm_eps"], 1e-5);
    assert_eq!(
        (&settings["bos_token_id"], &settings["eos_token_id"]),
        (&Value::Null, &3.into())
    );
    for &preset in Preset::ALL {
        let config = small(preset);
        let settings = Export::of(config.clone(), tensors(&config)).settings(ids);
        assert!(settings["architectures"][0].is_string());
        assert_eq!(settings["vocab_size"], 61, "{}", preset.word());
    }
}
