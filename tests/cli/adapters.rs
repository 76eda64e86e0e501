//! A model is taught by an adapter, says what it was taught, and the adapter leaves and comes back.

use std::fs;

use crate::harness::Project;

pub(crate) const TAUGHT: &str = "\
name: taught
stages:
  rows:
    kind: download
    with:
      rows:
        - { prompt: \"how are you ?\", response: \"i am fine . and you ?\" }
        - { prompt: \"what is your name ?\", response: \"my name is tiny .\" }
  other:
    kind: download
    with:
      rows:
        - { prompt: \"how are you ?\", response: \"my name is tiny .\" }
        - { prompt: \"what is your name ?\", response: \"i am fine . and you ?\" }
  chat: { kind: normalize, inputs: [rows] }
  talk: { kind: normalize, inputs: [other] }
  tokens: { kind: tokenizer, inputs: [chat, talk], with: { vocab_size: 300 } }
  first: { kind: binarize, inputs: { documents: talk, tokenizer: tokens } }
  second: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }
  base:
    kind: pretrain
    inputs: [first]
    with:
      model: { preset: llama-tiny, d_model: 32, n_heads: 4, n_kv_heads: 2, n_layers: 2, d_ff: 64, context: 64 }
      train: { steps: 60, batch: 2, lr: 1e-2, validate_every: 0 }
  taught:
    kind: finetune
    inputs: { shards: second, model: base }
    with: { adapter: { rank: 16, alpha: 32 }, train: { steps: 60, batch: 2, lr: 2e-2, validate_every: 0 } }
  answers: { kind: sample, inputs: [taught], with: { prompts: [\"how are you ?\", \"what is your name ?\"], temperature: 0 } }
  base_out: { kind: export, inputs: [base] }
  adapter_out: { kind: export, inputs: { model: taught, documents: chat }, with: { to: peft } }
  again: { kind: import, inputs: { weights: base_out, adapter: adapter_out } }
  answers_again: { kind: sample, inputs: [again], with: { prompts: [\"how are you ?\", \"what is your name ?\"], temperature: 0 } }
";

#[test]
fn a_model_says_what_its_adapter_was_taught_and_says_it_again_from_pefts_files() {
    let project = Project::new();
    project.write("taught.yaml", TAUGHT);
    let run = project.tinylm("run taught.yaml").success();
    let said = project.artifact("answers", "samples.jsonl");
    for turn in [
        r#"{"prompt":"how are you ?","system":null,"sample":0,"text":"i am fine . and you ?","#,
        r#"{"prompt":"what is your name ?","system":null,"sample":0,"text":"my name is tiny .","#,
    ] {
        assert!(said.contains(turn), "{said}\n{run}");
    }
    assert_eq!(project.artifact("answers_again", "samples.jsonl"), said);
    let told = project
        .tinylm("export @last/taught --to peft --out adapter")
        .success();
    insta::assert_snapshot!(told.stdout, @"
    an adapter of LlamaForCausalLM: exact
    2 of 2 documents have the ids that training saw
    wrote `adapter`
    ");
    insta::assert_snapshot!(project.read("adapter/adapter_config.json"), @r#"
    {
      "peft_type": "LORA",
      "task_type": "CAUSAL_LM",
      "inference_mode": true,
      "r": 16,
      "lora_alpha": 32,
      "lora_dropout": 0.0,
      "use_rslora": false,
      "use_dora": false,
      "bias": "none",
      "fan_in_fan_out": false,
      "target_modules": [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj"
      ],
      "modules_to_save": null,
      "base_model_name_or_path": null
    }
    "#);
    let card = project.read("adapter/README.md");
    for part in [
        "library_name: peft",
        "PeftModel.from_pretrained(base, \".\")",
        "for a `LlamaForCausalLM`",
    ] {
        assert!(card.contains(part), "{part}:\n{card}");
    }
    let of_stage = project.artifact_folder("adapter_out");
    let name = "adapter_model.safetensors";
    assert!(
        fs::read(project.path("adapter").join(name)).unwrap()
            == fs::read(of_stage.join(name)).unwrap()
    );
    // Once more in place of itself.
    project
        .tinylm("export @last/taught --to peft --out adapter")
        .success();
    let refused = project.tinylm("export @last/base --to peft").failure(2);
    insta::assert_snapshot!(refused.stderr, @"
    error: `[ROOT]/.tinylm/store/artifacts/7f/24aaea6d2a7f72fb7e6c839d514c0cf6fd29ecfd44f8d22238a00aeeabeb0d/files` has no `adapter.json`
      help: only a `finetune` with `adapter` leaves one; `--to hf` writes the whole model
    ");
}
