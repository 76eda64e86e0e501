//! Laws of what is read, and files that claim too much. That the numbers are what their own
//! programs compute is held by `stages/benches/import_peer.py`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{named::Named, *};
use tinylm_model::{
    config::ModelConfig,
    engine::{Tensor, Tensors},
    weights::write_tensors,
};

/// Tensors that count up from zero, as a model of another program would hold them.
fn counting(shapes: &[(&str, &[usize])]) -> Tensors {
    let mut next = 0.0;
    let shapes = shapes.iter();
    let named = shapes.map(|(name, shape)| {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|idx| next + idx as f32 + 1.0).collect();
        next += n as f32;
        let shape = shape.to_vec();
        ((*name).to_owned(), Tensor { shape, data })
    });
    named.collect()
}

struct Folder {
    dir: TempDir,
    config: Value,
    tensors: Tensors,
}

impl Folder {
    /// A Llama of one block: width 4, two heads, one key and value head, MLP of 3, five tokens.
    fn llama() -> Self {
        let config = json!({
            "model_type": "llama", "vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 3,
            "max_position_embeddings": 8, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "tie_word_embeddings": true, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        });
        let tensors = counting(&[
            ("model.embed_tokens.weight", &[5, 4]),
            ("model.layers.0.input_layernorm.weight", &[4]),
            ("model.layers.0.self_attn.q_proj.weight", &[4, 4]),
            ("model.layers.0.self_attn.k_proj.weight", &[2, 4]),
            ("model.layers.0.self_attn.v_proj.weight", &[2, 4]),
            ("model.layers.0.self_attn.o_proj.weight", &[4, 4]),
            ("model.layers.0.post_attention_layernorm.weight", &[4]),
            ("model.layers.0.mlp.gate_proj.weight", &[3, 4]),
            ("model.layers.0.mlp.up_proj.weight", &[3, 4]),
            ("model.layers.0.mlp.down_proj.weight", &[4, 3]),
            ("model.norm.weight", &[4]),
        ]);
        let dir = TempDir::new().unwrap();
        Self {
            dir,
            config,
            tensors,
        }
    }

    fn gpt2() -> Self {
        let config = json!({
            "model_type": "gpt2", "vocab_size": 5, "n_embd": 4, "n_layer": 1, "n_head": 2,
            "n_positions": 8, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        });
        let tensors = counting(&[
            ("wte.weight", &[5, 4]),
            ("wpe.weight", &[8, 4]),
            ("h.0.ln_1.weight", &[4]),
            ("h.0.ln_1.bias", &[4]),
            ("h.0.attn.bias", &[1, 1, 8, 8]),
            ("h.0.attn.c_attn.weight", &[4, 12]),
            ("h.0.attn.c_attn.bias", &[12]),
            ("h.0.attn.c_proj.weight", &[4, 4]),
            ("h.0.attn.c_proj.bias", &[4]),
            ("h.0.ln_2.weight", &[4]),
            ("h.0.ln_2.bias", &[4]),
            ("h.0.mlp.c_fc.weight", &[4, 16]),
            ("h.0.mlp.c_fc.bias", &[16]),
            ("h.0.mlp.c_proj.weight", &[16, 4]),
            ("h.0.mlp.c_proj.bias", &[4]),
            ("ln_f.weight", &[4]),
            ("ln_f.bias", &[4]),
        ]);
        let dir = TempDir::new().unwrap();
        Self {
            dir,
            config,
            tensors,
        }
    }

    fn open(&self) -> HuggingFace {
        let [config, weights] =
            ["config.json", "model.safetensors"].map(|name| self.dir.path().join(name));
        fs::write(&config, self.config.to_string()).unwrap();
        write_tensors(&weights, &self.tensors).unwrap();
        HuggingFace::open(&config, &[weights]).unwrap()
    }

    fn imported(&self) -> (ModelConfig, Tensors) {
        let source = self.open();
        let model = source.model().unwrap();
        (model.config.clone(), model.tensors().unwrap())
    }

    fn refusal(&self) -> String {
        match self.open().model() {
            Ok(model) => model.tensors().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }
}

#[test]
fn a_llama_keeps_its_rows_and_puts_queries_keys_and_values_under_each_other() {
    let folder = Folder::llama();
    let (config, tensors) = folder.imported();
    assert_eq!(
        (config.rope_theta, config.n_kv_heads, config.tied),
        (5000.0, 1, true)
    );
    assert!(!config.bias.norm && !config.bias.qkv && !config.bias.mlp);
    let qkv = &tensors["blocks.0.qkv.weight"];
    let parts = ["q_proj", "k_proj", "v_proj"];
    let stacked = parts.iter().flat_map(|part| {
        folder.tensors[&format!("model.layers.0.self_attn.{part}.weight")]
            .data
            .clone()
    });
    assert_eq!(qkv.shape, [8, 4]);
    assert_eq!(qkv.data, stacked.collect::<Vec<f32>>());
    assert_eq!(tensors["norm.weight"], folder.tensors["model.norm.weight"]);
}

#[test]
fn a_matrix_of_gpt2_is_turned_and_its_mask_is_left_out() {
    let folder = Folder::gpt2();
    let (config, tensors) = folder.imported();
    let up = &tensors["blocks.0.up.weight"];
    let theirs = &folder.tensors["h.0.mlp.c_fc.weight"];
    for row in 0..16 {
        for column in 0..4 {
            assert_eq!(up.data[row * 4 + column], theirs.data[column * 16 + row]);
        }
    }
    assert!(config.bias.qkv && config.bias.norm && !config.bias.head && config.tied);
    assert_eq!(tensors.len(), config.parameters().len());
}

#[test]
fn a_bias_that_is_zero_everywhere_is_none() {
    let mut folder = Folder::gpt2();
    for (name, tensor) in &mut folder.tensors {
        if name.ends_with(".bias") && name.contains("mlp") {
            tensor.data.fill(0.0);
        }
    }
    let (config, tensors) = folder.imported();
    assert!(!config.bias.mlp && config.bias.proj);
    assert!(!tensors.contains_key("blocks.0.up.bias"));
}

#[test]
fn fewer_positions_are_the_first_ones() {
    let folder = Folder::gpt2();
    let source = folder.open();
    let mut model = source.model().unwrap();
    assert!(model.shorten(9).is_err());
    model.shorten(3).unwrap();
    let positions = &model.tensors().unwrap()["positions.weight"];
    assert_eq!(positions.shape, [3, 4]);
    assert_eq!(positions.data, folder.tensors["wpe.weight"].data[..12]);
}

#[test]
fn what_has_no_word_here_is_refused_by_its_name() {
    let with = |field: &str, value: Value| {
        let mut folder = Folder::llama();
        folder.config[field] = value;
        folder.refusal()
    };
    let mut unknown = Folder::llama();
    unknown.tensors.extend(counting(&[(
        "model.layers.0.self_attn.q_norm.weight",
        &[2],
    )]));
    let mut missing = Folder::llama();
    missing.tensors.remove("model.norm.weight");
    let mut other_shape = Folder::llama();
    other_shape
        .tensors
        .extend(counting(&[("model.norm.weight", &[5])]));
    let mut diverged = Folder::llama();
    let norm = diverged.tensors.get_mut("model.norm.weight").unwrap();
    norm.data[1] = f32::NAN;
    let refusals = [
        with("model_type", json!("mamba")),
        with(
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0}),
        ),
        with("rope_scaling", json!("linear")),
        with("rope_scaling", json!({"factor": 2.0})),
        with(
            "rope_parameters",
            json!({"full_attention": {"rope_type": "yarn"}}),
        ),
        with("rope_parameters", json!({"rope_theta": "10000"})),
        with("sliding_window", json!(4096)),
        with("head_dim", json!(64)),
        with("hidden_act", json!("gelu")),
        with("vocab_size", json!(151_936)),
        with("hidden_size", json!("4")),
        with("hidden_size", Value::Null),
        unknown.refusal(),
        missing.refusal(),
        other_shape.refusal(),
        diverged.refusal(),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `model_type` is "mamba", and these can be imported: gpt2, gpt_neo, gpt_neox, opt, llama, mistral, qwen2, arcee, starcoder2, stablelm
    `rope_scaling` is {"rope_type":"llama3","factor":8.0}, and rope's frequencies are not scaled here
    `rope_scaling` is "linear", and rope's frequencies are not scaled here
    `rope_scaling` is {"factor":2.0}, and rope's frequencies are not scaled here
    `rope_parameters` is {"full_attention":{"rope_type":"yarn"}}, and every layer has the same rope here
    `rope_theta` is "10000", and a number is expected
    `sliding_window` is 4096, and every token sees all before it here
    `head_dim` is 64, and only 2 is known here
    `hidden_act` is "gelu", and only "silu" is known here
    `vocab_size` (151936) must be at most 65536: token ids are stored in 16 bits
    `hidden_size` is "4", and a count is expected
    `hidden_size` is missing
    the tensor `model.layers.0.self_attn.q_norm.weight` has no place in a model of ours
    the tensor `model.norm.weight` is missing
    the tensor `norm.weight` has the shape [5], where [4] is expected
    the tensor `norm.weight` holds NaN, which is no number to compute with
    "#);
}

#[test]
fn a_tensor_that_two_files_hold_is_refused() {
    let folder = Folder::llama();
    folder.open();
    let names = ["config.json", "model.safetensors", "other.safetensors"];
    let [config, one, other] = names.map(|name| folder.dir.path().join(name));
    write_tensors(&other, &counting(&[("model.norm.weight", &[4])])).unwrap();
    let refused = HuggingFace::open(&config, &[one, other]).err().unwrap();
    let refused = refused.to_string();
    assert!(
        refused.starts_with("the tensor `model.norm.weight` is there twice, in two of `"),
        "{refused}"
    );
}

#[test]
fn neighbours_are_brought_half_a_head_apart() {
    let mut tensor = Tensor {
        shape: vec![8, 1],
        data: (0..8).map(|row| row as f32).collect(),
    };
    super::family::part_neighbours(&mut tensor, 4);
    assert_eq!(tensor.data, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
}

/// A GGUF file: settings of (name, sort, bytes), tensors of (name, dimensions, sort, start), numbers.
#[derive(Default, Clone)]
struct GgufFile {
    settings: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    numbers: Vec<u8>,
}

impl GgufFile {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.bytes());
    }

    fn set_text(mut self, name: &str, text: &str) -> Self {
        let mut bytes = Vec::new();
        Self::text(&mut bytes, text);
        self.settings.push((name.to_owned(), 8, bytes));
        self
    }

    fn set_count(mut self, name: &str, count: u32) -> Self {
        self.settings
            .push((name.to_owned(), 4, count.to_le_bytes().to_vec()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.settings.len() as u64).to_le_bytes());
        for (name, sort, value) in &self.settings {
            Self::text(&mut bytes, name);
            bytes.extend(sort.to_le_bytes());
            bytes.extend(value);
        }
        for (name, dimensions, sort, start) in &self.tensors {
            Self::text(&mut bytes, name);
            bytes.extend((dimensions.len() as u32).to_le_bytes());
            for dimension in dimensions {
                bytes.extend(dimension.to_le_bytes());
            }
            bytes.extend(sort.to_le_bytes());
            bytes.extend(start.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.numbers);
        bytes
    }
}

fn open_bytes(bytes: &[u8]) -> Result<Gguf, ForeignError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

fn one_tensor() -> GgufFile {
    let numbers: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    GgufFile {
        tensors: vec![("a".to_owned(), vec![3, 2], 0, 0)],
        numbers,
        ..GgufFile::default()
    }
    .set_text("general.architecture", "llama")
    .set_count("llama.block_count", 7)
}

#[test]
fn a_gguf_file_gives_its_settings_and_tensors_of_rows_as_ours() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, one_tensor().bytes()).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.settings()["llama.block_count"], 7);
    let tensor = file.get("a").unwrap();
    assert_eq!(
        (tensor.shape, tensor.data),
        (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    );
}

#[test]
fn a_gguf_file_cut_short_anywhere_is_an_error() {
    let bytes = one_tensor().bytes();
    for len in 0..bytes.len() {
        assert!(open_bytes(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_gguf_file_that_claims_more_than_it_has_is_refused_before_memory_is_taken() {
    let mut endless_text = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    endless_text.extend((u64::MAX >> 1).to_le_bytes());
    let mut many = b"GGUF\x03\0\0\0".to_vec();
    many.extend(u64::MAX.to_le_bytes());
    many.extend(u64::MAX.to_le_bytes());
    let list = |n: u64| {
        let mut file = one_tensor();
        let mut bytes = 4_u32.to_le_bytes().to_vec();
        bytes.extend(n.to_le_bytes());
        file.settings.push(("tokens".to_owned(), 9, bytes));
        file.bytes()
    };
    let changed = |change: &dyn Fn(&mut GgufFile)| {
        let mut file = one_tensor();
        change(&mut file);
        file.bytes()
    };
    let files = [
        endless_text,
        many,
        list(1 << 60),
        changed(&|file| file.tensors[0].1 = vec![1 << 40, 1 << 40]),
        changed(&|file| file.tensors[0].1 = vec![u64::MAX]),
        changed(&|file| file.tensors[0].3 = u64::MAX - 8),
        changed(&|file| file.tensors.push(("b".to_owned(), vec![2], 0, 8))),
        changed(&|file| file.tensors.push(("a".to_owned(), vec![1], 0, 20))),
        changed(&|file| file.tensors[0].1 = vec![1; 9]),
    ];
    for (idx, bytes) in files.iter().enumerate() {
        let refused = open_bytes(bytes).err().unwrap().to_string();
        assert!(refused.contains("is damaged: "), "{idx}: {refused}");
    }
}

#[test]
fn a_gguf_file_whose_settings_cannot_be_meant_here_is_refused_by_their_names() {
    let set = |name: &str, sort: u32, bytes: &[u8]| {
        let mut file = one_tensor();
        file.settings.push((name.to_owned(), sort, bytes.to_vec()));
        match open_bytes(&file.bytes()) {
            Ok(file) => file.model().err().unwrap().to_string(),
            Err(error) => error
                .to_string()
                .split_once("damaged: ")
                .unwrap()
                .1
                .to_owned(),
        }
    };
    let float = |name: &str, number: f32| set(name, 6, &number.to_le_bytes());
    let n = (1_u64 << 22) + 1;
    let list = [
        &0_u32.to_le_bytes()[..],
        &n.to_le_bytes(),
        &vec![0; n as usize],
    ]
    .concat();
    let refusals = [
        float("llama.rope.freq_base", f32::NAN),
        float("llama.rope.scale_linear", 8.0),
        float("llama.rope.scaling.factor", 8.0),
        float("llama.rope.scaling.factor", 1.0),
        set("llama.rope.scaling.type", 4, &2_u32.to_le_bytes()),
        set("llama.expert_count", 4, &8_u32.to_le_bytes()),
        set("split.count", 2, &3_u16.to_le_bytes()),
        set("general.alignment", 5, &(-32_i32).to_le_bytes()),
        set("general.alignment", 10, &(1_u64 << 63).to_le_bytes()),
        set("bytes", 9, &list),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @"
    the setting `llama.rope.freq_base` is not a number
    `llama.rope.scale_linear` is 8.0, and rope's frequencies are not scaled here
    `llama.rope.scaling.factor` is 8.0, and rope's frequencies are not scaled here
    `llama.embedding_length` is missing
    `llama.rope.scaling.type` is 2, and rope's frequencies are not scaled here
    `llama.expert_count` is 8, and only 0 is known here
    `split.count` is 3, and one file is read: put the parts together with `llama-gguf-split --merge`
    its alignment is -32
    its alignment is 9223372036854775808
    its settings hold more than 4194304 entries
    ");
}

#[test]
fn blocks_of_small_integers_are_read_as_they_were_meant() {
    let half = |number: f32| half::f16::from_f32(number).to_le_bytes();
    let read = |sort: u32, bytes: &[u8]| quants::sort(sort).unwrap().read(bytes);
    // Q8_0: a scale, and thirty-two integers.
    let mut q8 = half(0.5).to_vec();
    q8.extend((0..32).map(|n: i8| (n - 16).to_le_bytes()[0]));
    assert_eq!(
        read(8, &q8),
        (0..32).map(|n| (n as f32 - 16.0) * 0.5).collect::<Vec<_>>()
    );
    // Q4_0: low halves are the first sixteen numbers.
    let mut q4 = half(2.0).to_vec();
    q4.extend((0..16).map(|n| n | (15 - n) << 4));
    let wanted: Vec<f32> = (0..16)
        .chain((0..16).rev())
        .map(|n| (n as f32 - 8.0) * 2.0)
        .collect();
    assert_eq!(read(2, &q4), wanted);
    // Q4_1 has a least number in place of the eight.
    let mut q4_1 = [half(2.0), half(-3.0)].concat();
    q4_1.extend((0..16).map(|n| n | (15 - n) << 4));
    let wanted: Vec<f32> = (0..16)
        .chain((0..16).rev())
        .map(|n| n as f32 * 2.0 - 3.0)
        .collect();
    assert_eq!(read(3, &q4_1), wanted);
    // Q5_0: the fifth bits of all, here of every second number.
    let mut q5 = half(1.0).to_vec();
    q5.extend(0xAAAA_AAAA_u32.to_le_bytes());
    q5.extend([0; 16]);
    let wanted: Vec<f32> = (0..32)
        .map(|n| if n % 2 == 1 { 0.0 } else { -16.0 })
        .collect();
    assert_eq!(read(6, &q5), wanted);
    // Every sort fills whole blocks, and no bytes at all are no numbers.
    for number in [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30] {
        let sort = quants::sort(number).unwrap();
        let n_bytes = sort.n_bytes_of(256, 256).unwrap();
        assert_eq!(sort.read(&vec![0; n_bytes]).len(), 256, "{number}");
        assert_eq!(sort.n_bytes_of(0, 256), Some(0));
    }
    assert_eq!(quants::sort(10).err(), Some("Q2_K".to_owned()));
}

/// A model of llama2.c: two blocks, untied.
fn llama2c(extra: usize) -> (TempDir, PathBuf) {
    let (d, ff, layers, heads, kv, vocab, context) = (4, 3, 2, 2, 1, 5, 6);
    let mut bytes: Vec<u8> = [d, ff, layers, heads, kv, -vocab, context]
        .iter()
        .flat_map(|n: &i32| n.to_le_bytes())
        .collect();
    let n = vocab * d
        + layers * (d + d * d + 2 * d * 2 + d * d + d + 3 * d * ff)
        + d
        + context * 2
        + vocab * d;
    bytes.extend((0..n).flat_map(|n| (n as f32).to_le_bytes()));
    bytes.resize(bytes.len() + extra, 0);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn a_model_of_llama2c_is_known_by_its_length() {
    let (_dir, path) = llama2c(0);
    let source = Llama2c::open(&path).unwrap();
    let model = source.model().unwrap();
    let config = model.config.clone();
    assert_eq!(
        (config.n_layers, config.context, config.tied),
        (2, 6, false)
    );
    let tensors = model.tensors().unwrap();
    let all: BTreeMap<_, _> = config
        .parameters()
        .into_iter()
        .map(|p| (p.name, p.shape))
        .collect();
    assert_eq!(tensors.len(), all.len());
    assert_eq!(tensors["embed.weight"].data[..3], [0.0, 1.0, 2.0]);
    let last = tensors["head.weight"].data.last().unwrap();
    let (_dir, longer) = llama2c(4);
    let refused = Llama2c::open(&longer).err().unwrap().to_string();
    assert!(
        refused.contains("a model of llama2.c with its first numbers has"),
        "{refused}"
    );
    assert!(*last > 0.0);
}
