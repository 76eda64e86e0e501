//! Speed of generation on a random 42M model of llama's shape, two threads.
//!
//! `cargo bench -p tinylm-model --bench generate -- [f32|bf16|int8] [threads]` prints tokens
//! per second: decoding 128 tokens one by one after 64, and reading a prompt of 256.
//! `llama_peer.py` beside this file runs it in turn with llama.cpp.

use std::{env, sync::Arc, time::Instant};

use tinylm_settings::Choice;

use tinylm_model::{
    config::{Activation, Bias, ModelConfig, Norm, NormAt, Positions, ReadPrecision},
    engine::{Tensor, Tensors},
    generate::{Model, Session},
};

const REPEATS: usize = 3;

fn main() {
    let args: Vec<String> = env::args().collect();
    let named = args.iter().find_map(|arg| ReadPrecision::of_word(arg));
    let precision = named.unwrap_or(ReadPrecision::F32);
    let n_threads = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let config = config();
    let tensors = tensors(&config);
    let model = Model::from_tensors(config, &tensors, precision)
        .expect("the configuration and its tensors are written above");
    drop(tensors);
    let kernels = model.kernels().to_owned();
    let mut session = Session::new(Arc::new(model), n_threads);
    let tokens: Vec<u16> = (0..256).map(|i| (i * 97 % 31_000) as u16).collect();
    let (mut decode, mut prefill) = (Vec::new(), Vec::new());
    for repeat in 0..=REPEATS {
        let decoded = decode_speed(&mut session, &tokens);
        let read = prefill_speed(&mut session, &tokens);
        // The first round warms caches and pages up.
        if repeat > 0 {
            decode.push(decoded);
            prefill.push(read);
        }
    }
    let (decode, prefill) = (median(decode), median(prefill));
    #[expect(clippy::print_stdout, reason = "what a benchmark is for")]
    {
        println!(r#"{{"kernels": "{kernels}", "decode": {decode:.1}, "prefill": {prefill:.1}}}"#);
    }
}

fn decode_speed(session: &mut Session, tokens: &[u16]) -> f64 {
    session.truncate(0);
    session.feed(&tokens[..64]).expect("the prompt fits");
    let start = Instant::now();
    for token in &tokens[64..192] {
        session.feed(&[*token]).expect("the context has room");
    }
    128.0 / start.elapsed().as_secs_f64()
}

fn prefill_speed(session: &mut Session, tokens: &[u16]) -> f64 {
    session.truncate(0);
    let start = Instant::now();
    session.feed(tokens).expect("the prompt fits");
    tokens.len() as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 32_000,
        context: 512,
        d_model: 512,
        n_layers: 8,
        n_heads: 8,
        n_kv_heads: 8,
        d_ff: 1376,
        positions: Positions::Rope,
        rope_theta: 10_000.0,
        rope_share: 1.0,
        norm: Norm::Rms,
        norm_at: NormAt::Pre,
        parallel: false,
        final_norm: true,
        norm_eps: 1e-5,
        activation: Activation::Swiglu,
        bias: Bias {
            norm: false,
            qkv: false,
            proj: false,
            mlp: false,
            head: false,
        },
        tied: true,
        embed_scale: 1.0,
    }
}

fn tensors(config: &ModelConfig) -> Tensors {
    let mut state = 1u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let parameters = config.parameters().into_iter();
    parameters
        .map(|parameter| {
            let data = (0..parameter.n()).map(|_| 0.03 * noise()).collect();
            let shape = parameter.shape;
            (parameter.name, Tensor { shape, data })
        })
        .collect()
}
