//! How answers are made: the flags that `sample` and `chat` share.
//!
//! Names and defaults are llama.cpp's where both have them; the spellings of the systems that
//! tinylm unites are taken too, from one table, and left out of `--help`.

use std::thread;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tinylm_model::{config::ReadPrecision, folder::Which, sampler::Sampling};
use tinylm_pipeline::{Device, settings::Choice};
use tinylm_stages::shared::speak::Manner;

use crate::{device::device, failure::Failure, project::now_ms};

/// Other spellings of a flag, by its name.
pub(crate) const SPELLINGS: &[(&str, &[&str])] = &[
    ("temperature", &["temp", "Temp"]),
    ("top-k", &["top_k", "Top_K", "topk"]),
    ("top-p", &["top_p"]),
    ("min-p", &["min_p"]),
    ("repeat-penalty", &["repeat_penalty", "repetition_penalty"]),
    ("repeat-last-n", &["repeat_last_n"]),
    (
        "predict",
        &[
            "n-predict",
            "max-tokens",
            "max_tokens",
            "max_new_tokens",
            "max_length",
            "length",
        ],
    ),
    ("file", &["prompt-file", "prompt_file"]),
    ("output", &["output_file"]),
    ("samples", &["num_samples", "num-samples"]),
    ("nonstop", &["non-stop", "non_stop", "ignore-eos"]),
    ("show-steps", &["show_steps"]),
    ("system", &["system-prompt", "system_prompt"]),
    ("stop", &["reverse-prompt"]),
    ("precision", &["dtype"]),
];

pub(crate) fn spellings(name: &str) -> impl Iterator<Item = &'static str> {
    let found = SPELLINGS.iter().find(|(known, _)| *known == name);
    found.map_or(&[][..], |(_, others)| others).iter().copied()
}

/// How answers are made, for `sample` and `chat` alike.
#[derive(Debug, Args)]
pub(crate) struct MannerArgs {
    /// 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = Sampling::default().temperature, allow_negative_numbers = true, aliases = spellings("temperature"))]
    pub(crate) temperature: f32,
    /// Choose among this many of the most likely tokens; 0 is all
    #[arg(long, value_name = "N", default_value_t = Sampling::default().top_k, aliases = spellings("top-k"))]
    pub(crate) top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = Sampling::default().top_p, aliases = spellings("top-p"))]
    top_p: f32,
    /// Choose among tokens at least this fraction as likely as the most likely one
    #[arg(long, value_name = "P", default_value_t = Sampling::default().min_p, aliases = spellings("min-p"))]
    min_p: f32,
    /// Tokens said lately count as this much less likely
    #[arg(long, value_name = "X", default_value_t = Sampling::default().repeat_penalty, aliases = spellings("repeat-penalty"))]
    repeat_penalty: f32,
    /// How many of the last tokens the penalty looks at
    #[arg(long, value_name = "N", default_value_t = Sampling::default().repeat_last_n, aliases = spellings("repeat-last-n"))]
    repeat_last_n: usize,
    /// Most tokens of an answer; -1 is no end
    #[arg(
        short = 'n', long, value_name = "N", default_value_t = Manner::default().max_tokens, value_parser = length,
        allow_negative_numbers = true, aliases = spellings("predict"),
    )]
    pub(crate) predict: usize,
    /// The same seed gives the same answers; without one, each time others
    #[arg(short, long, value_name = "N")]
    seed: Option<u64>,
    /// Also stop at this text
    #[arg(long, value_name = "TEXT", aliases = spellings("stop"))]
    stop: Vec<String>,
    /// Go on past the marks that end an answer
    #[arg(long, aliases = spellings("nonstop"))]
    nonstop: bool,
    /// A system message, before the first turn
    #[arg(long, value_name = "TEXT", aliases = spellings("system"))]
    pub(crate) system: Option<String>,
    /// The weights with the lowest validation loss, or those of the last step
    #[arg(long, value_parser = choice::<Which>(), default_value = "best")]
    pub(crate) weights: Which,
    /// Numbers the weights are rounded to
    #[arg(long, value_parser = choice::<ReadPrecision>(), default_value = "f32", aliases = spellings("precision"))]
    precision: ReadPrecision,
    /// What reads the model: auto, cpu, cuda, cuda:N or gpu
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads; without it, one for each core
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
}

/// Reads one of the words of a choice.
pub(crate) fn choice<C: Choice + Send + Sync>() -> impl TypedValueParser<Value = C> {
    let words = C::ALL.iter().map(|choice| choice.word());
    PossibleValuesParser::new(words).try_map(|word| C::of_word(&word).ok_or("it is no choice"))
}

/// Reads a number of tokens; -1, as in llama.cpp, is no end.
pub(crate) fn length(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(usize::MAX),
        _ => at_least_one(text),
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("it must be a whole number".to_owned()),
    }
}

impl MannerArgs {
    pub(crate) fn manner(&self, n_candidates: usize) -> Result<Manner, Failure> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
        };
        sampling
            .check()
            .map_err(|error| Failure::wrong(error.to_string()))?;
        Ok(Manner {
            sampling,
            seed: self.seed.unwrap_or_else(|| now_ms().unsigned_abs()),
            max_tokens: self.predict,
            stop: self.stop.clone(),
            nonstop: self.nonstop,
            n_candidates,
        })
    }

    pub(crate) fn precision(&self) -> ReadPrecision {
        self.precision
    }

    pub(crate) fn device(&self) -> Result<Device, Failure> {
        device(&self.device)
    }

    pub(crate) fn n_threads(&self) -> usize {
        n_threads(self.threads)
    }
}

/// As many threads as were asked for, or one for each core.
pub(crate) fn n_threads(asked: Option<usize>) -> usize {
    let cores = || thread::available_parallelism().map_or(1, |n| n.get());
    asked.unwrap_or_else(cores)
}
