//! Which architecture each model gets, files that our own reader reads again, and blocks against their
//! plain definition.

use tinylm_model::config::{Activation, Norm, NormAt, Positions, Preset};
use tinylm_settings::Choice;

use super::*;
use crate::{
    foreign::Gguf,
    testing::{Edit, PARTLY, config, small, tensors},
};

/// One for each architecture and each reason.
const MODELS: [Edit; 21] = [
    ("mini", Preset::Mini, |_| {}),
    ("jojo", Preset::Jojo, |_| {}),
    ("tinylm", Preset::Tinylm, |_| {}),
    ("forty-one", Preset::FortyOne, |_| {}),
    ("llama-tiny", Preset::LlamaTiny, |_| {}),
    ("toiny", Preset::Toiny, |_| {}),
    ("mini, grouped heads", Preset::Mini, |c| c.n_kv_heads = 2),
    ("mini, gated", Preset::Mini, |c| {
        c.activation = Activation::Swiglu;
    }),
    ("mini, relu", Preset::Mini, |c| {
        c.activation = Activation::Relu;
    }),
    ("llama with biases", Preset::LlamaTiny, |c| {
        (c.bias.qkv, c.bias.proj, c.bias.mlp) = (true, true, true);
    }),
    ("llama with head bias", Preset::LlamaTiny, |c| {
        (c.bias.qkv, c.bias.head, c.tied) = (true, true, false);
    }),
    ("llama, scaled embedding", Preset::LlamaTiny, |c| {
        c.embed_scale = 2.0;
    }),
    ("mini, turning", Preset::Mini, |c| {
        c.positions = Positions::Rope;
    }),
    ("the same, grouped heads, tied", Preset::Mini, |c| {
        (c.positions, c.n_kv_heads, c.tied) = (Positions::Rope, 2, true);
    }),
    ("mini, turning and gated", Preset::Mini, |c| {
        (c.positions, c.activation) = (Positions::Rope, Activation::Swiglu);
        (c.bias.proj, c.bias.mlp) = (false, false);
    }),
    ("the same with all biases", Preset::Mini, |c| {
        (c.positions, c.activation) = (Positions::Rope, Activation::Swiglu);
    }),
    ("post and rms, turning", Preset::LlamaTiny, |c| {
        (c.norm, c.norm_at) = (Norm::Rms, NormAt::Post);
    }),
    PARTLY[0],
    PARTLY[1],
    PARTLY[2],
    PARTLY[3],
];

#[test]
fn each_model_gets_an_architecture_or_the_settings_that_none_has() {
    let lines = MODELS.map(|model| {
        let config = config(model);
        match Export::of(config.clone(), tensors(&config)) {
            Ok(export) => format!(
                "{}: {}, {}",
                model.0,
                export.architecture.name(),
                export.claim
            ),
            Err(settings) => format!("{}: none, for {}", model.0, settings.join(", ")),
        }
    });
    insta::assert_snapshot!(lines.join("\n"), @"
    mini: gpt2, exact
    jojo: gpt2, exact
    tinylm: gpt2, approximate because of `activation: gelu`, `positions: sinusoidal`, `bias.head: true`
    forty-one: gpt2, approximate because of `activation: gelu`, `positions: sinusoidal`, `embed_scale: 20.493902`, `norm: rms`, `bias.head: true`
    llama-tiny: llama, exact
    toiny: none, for norm_at: post, final_norm: false, activation: relu
    mini, grouped heads: gpt2, exact
    mini, gated: none, for activation: swiglu without positions: rope
    mini, relu: none, for activation: relu
    llama with biases: llama, exact
    llama with head bias: qwen2, exact
    llama, scaled embedding: llama, exact after lowering because of `embed_scale: 2`
    mini, turning: starcoder2, exact
    the same, grouped heads, tied: starcoder2, exact
    mini, turning and gated: stablelm, exact
    the same with all biases: none, for activation: swiglu with norm: layer beside bias.proj or bias.mlp
    post and rms, turning: none, for norm_at: post
    mini, partly turning, parallel: gptneox, exact
    mini, gated, partly turning: stablelm, exact
    llama, partly turning: none, for rope_share: 0.5 with norm: rms
    mini, parallel: none, for parallel: true without positions: rope, norm: layer and an ungated MLP
    ");
}

/// The file of a model in these numbers, with nothing but what a model needs.
fn written(config: &ModelConfig, numbers: Numbers) -> (tempfile::TempDir, Gguf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let export = Export::of(config.clone(), tensors(config)).unwrap();
    export
        .write(&path, &export.settings(numbers), numbers)
        .unwrap();
    let file = Gguf::open(&path).unwrap();
    (dir, file)
}

#[test]
fn a_file_of_f32_is_read_again_to_the_bit() {
    for model in MODELS {
        let config = config(model);
        let Ok(export) = Export::of(config.clone(), tensors(&config)) else {
            continue;
        };
        let (_dir, file) = written(&config, Numbers::F32);
        let read = file.model().unwrap();
        let mut wanted = export.config().clone();
        // Biases of zeros are none, and the exact form of GELU is read as what it was written for.
        wanted.bias = read.config.bias;
        if wanted.activation == Activation::Gelu {
            wanted.activation = Activation::GeluTanh;
        }
        assert_eq!(read.config, wanted, "{}", model.0);
        assert!(
            read.config == config || export.claim != Claim::Exact,
            "{}",
            model.0
        );
        for (name, tensor) in read.tensors().unwrap() {
            let ours = export.form.numbers(&name).unwrap();
            assert_eq!(tensor.data, *ours, "{}: {name}", model.0);
        }
    }
}

#[test]
fn every_sort_of_numbers_is_read_again_as_near_as_it_can_be() {
    let config = ModelConfig {
        d_model: 64,
        n_heads: 4,
        n_kv_heads: 2,
        d_ff: 96,
        ..small(Preset::LlamaTiny)
    };
    let ours = tensors(&config);
    for numbers in Numbers::ALL {
        let (_dir, file) = written(&config, *numbers);
        for (name, tensor) in file.model().unwrap().tensors().unwrap() {
            let ours = &ours[&name].data;
            for (block, ours) in tensor.data.chunks(32).zip(ours.chunks(32)) {
                let largest = ours.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                let step = match numbers {
                    _ if tensor.shape.len() == 1 => 0.0,
                    Numbers::F32 => 0.0,
                    Numbers::F16 => largest / 2048.0,
                    Numbers::Bf16 => largest / 256.0,
                    Numbers::Q4_0 if name != "embed.weight" => largest / 8.0,
                    // Rows of 64 are no blocks of 256.
                    _ => largest / 127.0,
                };
                for (found, x) in block.iter().zip(ours) {
                    // Half a step to the next one, and the rounding of the scale; of four bits the
                    // end that has no number for its mirror image is a whole step away.
                    let allowed = if step > largest / 9.0 { 1.01 } else { 0.51 } * step;
                    assert!(
                        (found - x).abs()
                            <= allowed + largest * 1e-3 * f32::from(u8::from(step > 0.0)),
                        "{} {name}: {found}, {x}",
                        numbers.word()
                    );
                }
            }
        }
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_of_halves_and_said() {
    let config = config(MODELS[4]);
    let export = Export::of(config.clone(), tensors(&config)).unwrap();
    assert!(export.fallen_back(Numbers::F16).is_empty());
    let fallen = export.fallen_back(Numbers::Q4_0);
    assert!(
        fallen.contains(&("token_embd.weight", Numbers::F16)),
        "{fallen:?}"
    );
    // Its rows are 144 wide.
    assert!(
        fallen.contains(&("blk.0.ffn_down.weight", Numbers::F16)),
        "{fallen:?}"
    );
    let (_dir, file) = written(&config, Numbers::Q4_0);
    assert!(file.model().unwrap().tensors().is_ok());
}

/// The bytes that llama.cpp's reference makes of these numbers (`gguf.quants` of PyPI's `gguf` 0.19).
#[test]
fn blocks_are_those_of_llama_cpp() {
    let numbers: Vec<f32> = (0..32)
        .map(|i| ((i * 37 % 32) as f32 - 15.5) / 7.0)
        .collect();
    let mut bytes = Vec::new();
    Numbers::Q8_0.put(&numbers, &mut bytes);
    Numbers::Q4_0.put(&numbers, &mut bytes);
    Numbers::Q8_0.put(&[0.0; 32], &mut bytes);
    assert_eq!(hex(&bytes), BLOCKS);
}

/// Each group has a scale and a least number that a block can have exactly, so that any byte in another
/// place is seen.
#[test]
fn numbers_that_a_block_of_256_can_have_come_back_as_they_are() {
    let affine = |most: usize| -> Vec<f32> {
        let number = |at: usize| {
            let (group, q) = (at / 32, (at * 7 + at / 32) % (most + 1));
            let (scale, least) = (63 - 5 * group, 7 * group + 14);
            (scale * q) as f32 / 256.0 - least as f32 / 64.0
        };
        (0..256).map(number).collect()
    };
    let symmetric = |at: usize| {
        let (group, q) = (at / 16, (at % 16) as f32 * 4.0 - 32.0);
        (127 - 8 * group) as f32 / 512.0 * q
    };
    let symmetric: Vec<f32> = (0..256).map(symmetric).collect();
    for (numbers, block) in [
        (Numbers::Q4K, affine(15)),
        (Numbers::Q5K, affine(31)),
        (Numbers::Q6K, symmetric),
    ] {
        let again = again(numbers, &block);
        for (found, x) in again.iter().zip(&block) {
            assert!((found - x).abs() < 1e-3, "{}: {found}, {x}", numbers.word());
        }
    }
}

/// Twice the bits of a step is a quarter of its error, and zeros stay zeros.
#[test]
fn blocks_of_256_lose_what_their_bits_say() {
    // Sums of three: near enough to a bell.
    let uniform = |at: usize| ((at * 7919 + at * at * 31) % 1009) as f32 / 504.5 - 1.0;
    let block: Vec<f32> = (0..256)
        .map(|at| uniform(at) + uniform(at + 1000) + uniform(at + 2000))
        .collect();
    for (numbers, allowed) in [
        (Numbers::Q4K, 0.09),
        (Numbers::Q5K, 0.045),
        (Numbers::Q6K, 0.025),
    ] {
        let again = again(numbers, &block);
        let squares: f32 = again.iter().zip(&block).map(|(a, b)| (a - b).powi(2)).sum();
        let off = (squares / 256.0).sqrt();
        assert!(off < allowed, "{}: {off}", numbers.word());
        assert!(self::again(numbers, &[0.0; 256]).iter().all(|x| *x == 0.0));
    }
}

fn again(numbers: Numbers, block: &[f32]) -> Vec<f32> {
    let mut bytes = Vec::new();
    numbers.put(block, &mut bytes);
    assert_eq!(bytes.len(), numbers.n_bytes(256));
    let sort = crate::foreign::quants::sort(numbers.sort()).unwrap();
    sort.read(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const BLOCKS: &str = concat!(
    "772481aad3fc254e779ac3ec143d6689b2db042d567fa2cbf41d466f91bae30c355e6e3480b3d5f82a5d7fa2",
    "c4f7194c6e91b3e600000000000000000000000000000000000000000000000000000000000000000000",
);
