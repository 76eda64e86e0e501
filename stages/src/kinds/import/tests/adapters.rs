//! A model with an adapter of PEFT's: what is merged, and what is refused by its name.

use tinylm_model::weights::read_tensors;

use super::*;

const BLOCK: &str = "base_model.model.transformer.h.0.";

fn tensor(shape: &[usize], by: f32) -> Tensor {
    let n: usize = shape.iter().product();
    let data = (0..n).map(|idx| (idx as f32 * by).cos()).collect();
    let shape = shape.to_vec();
    Tensor { shape, data }
}

/// What PEFT writes for the model of these tests: rank 2 on queries, keys and values.
struct Given {
    settings: Value,
    tensors: Tensors,
}

impl Given {
    fn new() -> Self {
        let name = |end: &str| format!("{BLOCK}attn.c_attn.lora_{end}.weight");
        Self {
            settings: json!({
                "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 8,
                "bias": "none", "fan_in_fan_out": true, "rank_pattern": {}, "use_dora": false,
                "target_modules": ["c_attn"], "modules_to_save": null, "init_lora_weights": true,
            }),
            tensors: [
                (name("A"), tensor(&[2, 4], 0.3)),
                (name("B"), tensor(&[12, 2], 0.9)),
            ]
            .into(),
        }
    }

    fn import(&self, base: impl FnOnce(&Path)) -> (TempDir, Result<Outcome, StageError>) {
        let dir = TempDir::new().unwrap();
        let [base_files, adapter] = ["files", "adapter"].map(|name| dir.path().join(name));
        for folder in [&base_files, &adapter] {
            fs::create_dir(folder).unwrap();
        }
        write_gpt2(&base_files);
        base(&base_files);
        let settings = self.settings.to_string();
        fs::write(adapter.join("adapter_config.json"), settings).unwrap();
        write_tensors(&adapter.join("adapter_model.safetensors"), &self.tensors).unwrap();
        let outcome = StageTest::new(dir.path())
            .input("weights", &base_files)
            .input("adapter", &adapter)
            .run::<Import>("{}");
        (dir, outcome)
    }

    fn merged(&self) -> Tensors {
        let (_dir, outcome) = self.import(|_| ());
        read_tensors(&outcome.unwrap().out.join("model.safetensors")).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut Self)) -> String {
        let mut given = Self::new();
        change(&mut given);
        given.import(|_| ()).1.unwrap_err().message
    }
}

fn plain() -> Tensors {
    let (_dir, outcome) = with_gpt2(|_| ());
    read_tensors(&outcome.unwrap().out.join("model.safetensors")).unwrap()
}

#[test]
fn an_adapter_adds_its_product_and_nothing_else() {
    let given = Given::new();
    let (before, after) = (plain(), given.merged());
    let factor = |end: &str| &given.tensors[&format!("{BLOCK}attn.c_attn.lora_{end}.weight")].data;
    let (a, b) = (factor("A"), factor("B"));
    for (name, tensor) in &after {
        if name == "positions.weight" {
            continue;
        }
        for (i, value) in tensor.data.iter().enumerate() {
            let added = match &**name {
                "blocks.0.qkv.weight" => {
                    let (row, column) = (i / 4, i % 4);
                    4.0 * (b[2 * row] * a[column] + b[2 * row + 1] * a[4 + column])
                }
                _ => 0.0,
            };
            let expected = before[name].data[i] + added;
            assert!((value - expected).abs() < 1e-5, "{name} {i}");
        }
    }
    // The root of the rank in place of the rank.
    let mut rooted = Given::new();
    rooted.settings["use_rslora"] = true.into();
    let name = "blocks.0.qkv.weight";
    let change = |merged: &Tensors| merged[name].data[0] - before[name].data[0];
    let ratio = change(&rooted.merged()) / change(&after);
    assert!((ratio - 2.0_f32.sqrt()).abs() < 1e-4, "{ratio}");
}

#[test]
fn new_tokens_come_with_the_embedding_that_was_saved_and_a_head_of_its_own() {
    let mut given = Given::new();
    let name = |module: &str| format!("base_model.model.{module}.weight");
    let embed = tensor(&[263, 4], 0.1);
    given.tensors.insert(name("transformer.wte"), embed.clone());
    let merged = given.merged();
    assert_eq!(merged["embed.weight"], embed);
    assert!(!merged.contains_key("head.weight"));
    // The same twice is still one; another is a head.
    given.tensors.insert(name("lm_head"), embed.clone());
    assert!(!given.merged().contains_key("head.weight"));
    given
        .tensors
        .insert(name("lm_head"), tensor(&[263, 4], 0.2));
    assert_eq!(given.merged()["head.weight"], tensor(&[263, 4], 0.2));
}

#[test]
fn what_is_no_plain_adapter_of_this_model_is_refused_by_name() {
    let set = |name: &str, value: Value| Given::refusal(|given| given.settings[name] = value);
    let put = |name: &str, shape: &[usize]| {
        Given::refusal(|given| {
            given
                .tensors
                .insert(format!("{BLOCK}{name}"), tensor(shape, 0.1));
        })
    };
    let refusals = [
        set("peft_type", json!("IA3")),
        set("use_dora", json!(true)),
        set("bias", json!("lora_only")),
        set("rank_pattern", json!({"c_attn": 4})),
        set("init_lora_weights", json!("pissa_niter_16")),
        set("r", Value::Null),
        set("r", json!(0)),
        set("r", json!(3)),
        put("attn.c_attn.lora_magnitude_vector", &[12]),
        put("attn.q_proj.lora_A.weight", &[2, 4]),
        put("mlp.c_fc.lora_A.weight", &[2, 4]),
        put("mlp.c_fc.lora_B.bias", &[16]),
        put("ln_3.weight", &[4]),
        put("attn.c_attn.lora_A.weight", &[2, 12]),
        put("attn.c_attn.weight", &[4, 12]),
        set("use_qalora", json!(true)),
        set("use_bdlora", json!({"nblocks": 2})),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `peft_type` is "IA3", and only "LORA" is known here
    `use_dora` is true, and only false is known here
    `bias` is "lora_only", and only "none" is known here
    `rank_pattern` is {"c_attn":4}, and only {} is known here
    `init_lora_weights` is "pissa_niter_16", and such an adapter is for a base of its own: convert it with PEFT first
    `r` is missing
    `r` is 0, and nothing could be learnt so
    the tensor `base_model.model.transformer.h.0.attn.c_attn.lora_A.weight` has the shape [2, 4], where [3, 4] is expected
    the tensor `base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector` has no place in a model of ours
    the tensor `base_model.model.transformer.h.0.attn.q_proj.lora_A.weight` has no place in a model of ours
    the tensor `base_model.model.transformer.h.0.mlp.c_fc.lora_B.weight` is missing
    the tensor `base_model.model.transformer.h.0.mlp.c_fc.lora_B.bias` has no place in a model of ours
    the tensor `base_model.model.transformer.h.0.ln_3.weight` has no place in a model of ours
    the tensor `base_model.model.transformer.h.0.attn.c_attn.lora_A.weight` has the shape [2, 12], where [2, 4] is expected
    the tensor `base_model.model.transformer.h.0.attn.c_attn.weight` has no place in a model of ours
    `use_qalora` is true, and only false is known here
    `use_bdlora` is {"nblocks":2}, and it is not known here
    "#);

    let (_dir, outcome) = Given::new().import(|folder| {
        fs::remove_file(folder.join("config.json")).unwrap();
        fs::rename(folder.join("model.safetensors"), folder.join("a.gguf")).unwrap();
    });
    let refused = outcome.unwrap_err().message;
    assert_eq!(refused, "an adapter of PEFT's is for a Hugging Face folder");
}
