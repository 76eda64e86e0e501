//! Models from elsewhere with something wrong in them: imported or refused, and never believed.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    artifacts::break_one,
    attack::{Clock, Dice, artifact, assert_told, bounded, project, run},
};

/// Width, width of the MLP, blocks, heads, heads of keys and values, tokens (its own head), context.
const SHAPE: [i32; 7] = [8, 16, 1, 2, 1, -300, 16];

fn floats(n: usize) -> Vec<u8> {
    let number = |n: usize| ((n * 37 % 101) as f32 / 1000.0).to_le_bytes();
    (0..n).flat_map(number).collect()
}

/// A model of llama2.c with its vocabulary: letters, bytes and a few words.
fn llama2c(folder: &Path) {
    let [d, ff, _, heads, kv, _, context] = SHAPE.map(|n| n.unsigned_abs() as usize);
    let kv = d / heads * kv;
    let n_block = 2 * d + 2 * d * d + 2 * kv * d + 3 * d * ff;
    let n = 2 * 300 * d + n_block + d + context * d / heads;
    let header: Vec<u8> = SHAPE.iter().flat_map(|n| n.to_le_bytes()).collect();
    fs::write(folder.join("model.bin"), [header, floats(n)].concat()).unwrap();
    let mut pieces = ["<unk>", "\n<s>\n", "\n</s>\n"].map(str::to_owned).to_vec();
    pieces.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend([" ", "o", "n", "e", "on", "one", " one", "t", "w"].map(str::to_owned));
    pieces.extend((pieces.len()..300).map(|n| format!("piece{n}")));
    let mut bytes = 27_u32.to_le_bytes().to_vec();
    for (n, piece) in pieces.iter().enumerate() {
        bytes.extend((-(n as f32)).to_le_bytes());
        bytes.extend((piece.len() as u32).to_le_bytes());
        bytes.extend(piece.as_bytes());
    }
    fs::write(folder.join("tokenizer.bin"), bytes).unwrap();
}

/// A small Llama as Hugging Face's tools write it, with the tokenizer of an artifact.
fn hugging_face(folder: &Path, tokenizer: &Path) {
    let json = fs::read(tokenizer.join("tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let n_added = tokenizer["added_tokens"].as_array().unwrap().len();
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap().len() + n_added;
    fs::write(folder.join("tokenizer.json"), json).unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": true, "rope_theta": 10_000.0, "eos_token_id": vocab - 1,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let settings = json!({ "eos_token": "<|im_end|>", "chat_template": template });
    fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
    let block = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![vocab, 8]),
        (block("input_layernorm"), vec![8]),
        (block("self_attn.q_proj"), vec![8, 8]),
        (block("self_attn.k_proj"), vec![4, 8]),
        (block("self_attn.v_proj"), vec![4, 8]),
        (block("self_attn.o_proj"), vec![8, 8]),
        (block("post_attention_layernorm"), vec![8]),
        (block("mlp.gate_proj"), vec![16, 8]),
        (block("mlp.up_proj"), vec![16, 8]),
        (block("mlp.down_proj"), vec![8, 16]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let end = at + shape.iter().product::<usize>() * 4;
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] });
        header.insert(name, entry);
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let len = (header.len() as u64).to_le_bytes();
    let bytes = [&len, header.as_bytes(), &floats(at / 4)].concat();
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

const READ: &str = "
stages:
  files: { kind: download, with: { path: broken } }
  model: { kind: import, inputs: [files] }
  sample: { kind: sample, inputs: [model], with: { prompts: [one], max_tokens: 2 } }
";

#[test]
fn a_wrong_model_from_elsewhere_is_imported_or_refused() {
    let project = project();
    let folder = project.path();
    run(folder, &["--until", "tokenizer"], "the experiment itself");
    let tokenizer = artifact(folder, "tokenizer");
    let sound = ["llama2c", "hugging-face"].map(|name| folder.join(name));
    sound.iter().for_each(|path| fs::create_dir(path).unwrap());
    llama2c(&sound[0]);
    hugging_face(&sound[1], &tokenizer);
    for path in &sound {
        let file = READ.replace("broken", path.file_name().unwrap().to_str().unwrap());
        fs::write(folder.join("all.yaml"), file).unwrap();
        run(folder, &[], "a sound model");
    }
    fs::write(folder.join("all.yaml"), READ).unwrap();
    let (mut dice, clock) = (Dice::new("imports"), Clock::start());
    let (mut n_attacks, mut n_read) = (0, 0);
    while n_attacks == 0 || clock.goes_on() {
        let from = dice.pick(&sound).clone();
        let name = break_one(&mut dice, &from, &folder.join("broken"));
        let output = bounded(folder, &["run", "all.yaml"]).output().unwrap();
        n_read += usize::from(output.status.success());
        let what = format!("{} of {}", name.display(), from.display());
        if std::panic::catch_unwind(|| assert_told(&output, &what)).is_err() {
            let kept = project.keep();
            panic!("a wrong {what}: kept in {}", kept.display());
        }
        n_attacks += 1;
    }
    println!("imports: {n_attacks} models, {n_read} of them read");
}

/// Changes a file of JSON.
fn change(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Programs that end by themselves only where memory, time and stack do.
fn endless_templates() -> Vec<String> {
    let deep = |before: &str, behind: &str| {
        let (before, behind) = (before.repeat(500_000), behind.repeat(500_000));
        format!("{{{{ {before}1{behind} }}}}")
    };
    let mut templates = [
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.n = n %}{{ n | tojson }}",
        "{% set n = namespace(s=[1,2]) %}{% for i in range(50) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{{ '{:>99999999999}'.format(5) }}",
        "{{ messages | tojson(indent=1000000000000) }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000000 }}",
        "{{ raise_exception('x' * 50000) }}",
    ]
    .map(str::to_owned)
    .to_vec();
    let nested = [
        ("-", ""),
        ("not ", ""),
        ("", "|string"),
        ("", ".a"),
        ("", "+1"),
        ("1 if 1 else ", ""),
    ];
    templates.extend(nested.map(|(before, behind)| deep(before, behind)));
    templates
}

#[test]
fn a_template_without_end_costs_its_form_and_nothing_else() {
    let project = project();
    let folder = project.path();
    run(folder, &["--until", "tokenizer"], "the experiment itself");
    let broken = folder.join("broken");
    fs::create_dir(&broken).unwrap();
    hugging_face(&broken, &artifact(folder, "tokenizer"));
    fs::write(folder.join("all.yaml"), READ).unwrap();
    for template in endless_templates() {
        change(&broken.join("tokenizer_config.json"), |settings| {
            settings["chat_template"] = template.clone().into();
        });
        let what: String = template.chars().take(60).collect();
        let output = bounded(folder, &["run", "all.yaml"]).output().unwrap();
        assert_told(&output, &what);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {said}");
        assert!(
            said.contains("its chat template cannot be followed here"),
            "{what}: {said}"
        );
        assert!(said.len() < 10_000, "{what}: {} bytes are said", said.len());
    }
}

#[test]
fn a_tokenizer_that_would_fill_memory_is_refused() {
    let project = project();
    let folder = project.path();
    run(folder, &["--until", "tokenizer"], "the experiment itself");
    let broken = folder.join("broken");
    fs::create_dir(&broken).unwrap();
    let sound = artifact(folder, "tokenizer");
    fs::write(folder.join("all.yaml"), READ).unwrap();
    let doubling = json!({ "type": "Replace", "pattern": { "String": "o" }, "content": "oo" });
    let each = [
        (
            "normalizer",
            json!({ "type": "Sequence", "normalizers": vec![doubling; 60] }),
        ),
        (
            "normalizer",
            json!({ "type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA" }),
        ),
        (
            "decoder",
            json!({ "type": "Replace", "pattern": { "Regex": "" }, "content": "x".repeat(100_000) }),
        ),
    ];
    for (part, value) in each {
        hugging_face(&broken, &sound);
        change(&broken.join("tokenizer.json"), |tokenizer| {
            tokenizer[part] = value
        });
        let output = bounded(folder, &["run", "all.yaml"]).output().unwrap();
        assert_told(&output, part);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("tokenizer.json` is not a tokenizer that can be used here"),
            "{part}: {said}"
        );
    }
}
