//! Which class each model gets, and that its tensors are all of the model's.

use tinylm_model::{
    adapter::{A, B, add_product, factor_name},
    config::{Activation, Norm, NormAt, Positions, Preset},
    engine::Tensor,
    folder::TrainedAdapter,
};
use tinylm_settings::Choice;

use super::*;
use crate::testing::{Edit, PARTLY, config, small, tensors};

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
    PARTLY[0],
    PARTLY[1],
    PARTLY[2],
    PARTLY[3],
];

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

/// A model with an adapter is exported as its base is, and the adapter beside it says the rest.
#[test]
fn an_exported_adapter_on_its_exported_base_is_the_exported_model() {
    let rank = 3;
    for model in MODELS {
        let config = config(model);
        let base = tensors(&config);
        let on: Vec<String> = config
            .parameters()
            .into_iter()
            .filter(|parameter| parameter.role.is_hidden())
            .map(|parameter| parameter.name)
            .collect();
        let (mut whole, mut source) = (base.clone(), base.clone());
        for (name, idx) in on.iter().zip(0..) {
            let tensor = whole.get_mut(name).unwrap();
            let (n_out, n_in) = (tensor.shape[0], tensor.shape[1]);
            let numbers = |n: usize, by: f32| -> Vec<f32> {
                (0..n).map(|i| (i as f32 * by + idx as f32).sin()).collect()
            };
            let (a, b) = (numbers(rank * n_in, 0.7), numbers(n_out * rank, 0.3));
            add_product(&mut tensor.data, &a, &b, 2.0, n_in);
            for (end, shape, data) in [(A, [rank, n_in], a), (B, [n_out, rank], b)] {
                let shape = shape.to_vec();
                source.insert(factor_name(name, end), Tensor { shape, data });
            }
        }
        let about = TrainedAdapter {
            rank,
            alpha: 6.0,
            on,
            whole: Vec::new(),
        };
        let adapter = AdapterExport::of(config.clone(), &about, source).unwrap();
        let base = Export::of(config.clone(), base);
        let whole = Export::of(config, whole);
        let mut n_adapted = 0;
        for (name, shape) in whole.shapes() {
            let mut expected = base.numbers(&name).unwrap().into_owned();
            let module = name.strip_suffix(".weight").unwrap_or_default();
            let factor = |end: &str| format!("base_model.model.{module}.{end}.weight");
            if let Some(a_shape) = adapter.shapes().get(&factor(A)) {
                let [a, b] = [A, B].map(|end| adapter.numbers(&factor(end)).unwrap());
                let mut change = vec![0.0; expected.len()];
                add_product(&mut change, &a, &b, 2.0, a_shape[1]);
                let is_turned = adapter.settings(None)["fan_in_fan_out"] == true;
                for (i, change) in change.iter().enumerate() {
                    let (row, column) = (i / a_shape[1], i % a_shape[1]);
                    let at = if is_turned {
                        column * shape[1] + row
                    } else {
                        i
                    };
                    expected[at] += change;
                }
                n_adapted += 1;
            }
            let got = whole.numbers(&name).unwrap();
            let far = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f32::max) < 2e-5, "{}: {name}", model.0);
        }
        assert_eq!(2 * n_adapted, adapter.shapes().len(), "{}", model.0);
        assert!(n_adapted >= 4 * 3, "{}", model.0);
    }
}

#[test]
fn an_adapter_names_its_modules_as_shortly_as_it_can_and_brings_new_rows() {
    let settings = |preset: Preset, on: &[&str], whole: &[&str]| {
        let config = small(preset);
        let about = TrainedAdapter {
            rank: 2,
            alpha: 16.0,
            on: on.iter().map(|name| (*name).to_owned()).collect(),
            whole: whole.iter().map(|name| (*name).to_owned()).collect(),
        };
        let export = AdapterExport::of(config.clone(), &about, tensors(&config))?;
        let settings = export.settings(Some("base"));
        let names = settings["target_modules"].to_string();
        Ok::<_, String>(format!("{names} {}", settings["modules_to_save"]))
    };
    let every = |part: &str| [0, 1, 2].map(|block| format!("blocks.{block}.{part}.weight"));
    let up = every("up");
    let up = up.each_ref().map(String::as_str);
    let down = every("down");
    let down = down.each_ref().map(String::as_str);
    let new = ["embed.weight"];
    let told = [
        settings(Preset::LlamaTiny, &up, &[]),
        settings(Preset::LlamaTiny, &["blocks.2.qkv.weight"], &new),
        settings(Preset::Mini, &down, &["embed.weight", "head.weight"]),
        settings(Preset::Mini, &down, &["positions.weight"]),
        settings(Preset::Toiny, &down, &new),
    ];
    let told = told.map(|told| told.unwrap_or_else(|name| format!("not with {name}")));
    insta::assert_snapshot!(told.join("\n"), @r#"
    ["up_proj"] null
    ["model.layers.2.self_attn.k_proj","model.layers.2.self_attn.q_proj","model.layers.2.self_attn.v_proj"] ["embed_tokens","lm_head"]
    ["mlp.c_proj"] ["lm_head","wte"]
    not with positions.weight
    not with embed.weight
    "#);
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
