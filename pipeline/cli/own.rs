//! An experiment that fits a person's own file: `tinylm init --chat FILE` and `--text FILE`.
//!
//! What the file holds is found out by the stages that will read it, so that what is written runs to its end; a file
//! that they cannot read is refused, and nothing is written.
//!
//! Everything is sized by two numbers, the bytes of the file and the minutes that training may take.
//! The estimates are rough and meant to be: what is written is a file to edit, and `plan -v` says
//! what it would take before anything runs.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process, thread,
};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{read_plain, settings::plain};
use tinylm_stages::survey::{self, Chat};

use crate::failure::Failure;

/// The form of the file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    Chat,
    Text,
}

/// Multiplications and additions a second that a core does in training, until one has been here.
const SPEED: f64 = 6e10;
/// Bytes of text that a token stands for, with a vocabulary of this size.
const BYTES_A_TOKEN: f64 = 3.5;
/// More epochs than this teach a small corpus by heart.
const EPOCHS_MAX: f64 = 20.0;
/// A model that sees its corpus less often than this had better be smaller.
const EPOCHS_WANTED: f64 = 4.0;

/// A model with more weights than this for each token of its corpus has room to learn it by heart.
const WEIGHTS_A_TOKEN_MAX: f64 = 40.0;

/// Bytes of which some can be held back.
const BYTES_MIN: u64 = 64;

/// A size of the model: width, heads, layers, rate.
type Size = (usize, usize, usize, &'static str);

/// With llama's parts and Muon: three epochs of a megabyte of plays make 2.21 bits per byte, where `mini` and AdamW make
/// 2.39 in seven eighths of the time (at width 256 and 160 steps 2.40 and 2.66, in three quarters; one run each,
/// 2026-11-30, AMD EPYC).
const SIZES: [Size; 5] = [
    (128, 4, 4, "5e-3"),
    (192, 6, 6, "4e-3"),
    (256, 8, 6, "3e-3"),
    (384, 6, 8, "3e-3"),
    (512, 8, 8, "2e-3"),
];

/// An experiment that fits a file.
pub(crate) struct Fitting {
    pub(crate) text: String,
    pub(crate) n_weights: f64,
    /// How long its training is likely to take here.
    pub(crate) minutes: f64,
    /// What was found in the file.
    pub(crate) told: Option<String>,
}

/// Returns the experiment; `shown` is the file's path as the experiment is to have it.
pub(crate) fn experiment(
    own: Own,
    path: &Path,
    shown: &str,
    budget: &Budget<'_>,
) -> Result<Fitting, Failure> {
    let n_bytes = n_bytes(path).map_err(|error| {
        Failure::wrong(format!("`{}`: {error}", path.display()))
            .help("name a file or a folder with the text that the model is to learn")
    })?;
    if n_bytes == 0 {
        return Err(Failure::wrong(format!("`{}` is empty", path.display())));
    }
    if n_bytes < BYTES_MIN && own == Own::Text {
        let message = format!(
            "`{}` has {n_bytes} bytes, too few to learn from",
            path.display()
        );
        return Err(Failure::wrong(message).help("a page of text is the least that shows anything"));
    }
    let scratch = Scratch::new()?;
    let refused = |error| Failure::from(error).before_running();
    let (fit, text, told) = match own {
        Own::Chat => {
            let chat = survey::chat(path, &scratch.0, n_threads()).map_err(refused)?;
            let fit = Fit::of(chat.n_bytes.unwrap_or(n_bytes), budget);
            let text = dialogues(shown, &fit, &chat);
            (fit, text, Some(chat.told))
        }
        Own::Text => {
            let settings = survey::text(path, &scratch.0, n_threads()).map_err(refused)?;
            let fit = Fit::of(n_bytes, budget);
            let text = text(shown, &fit, &settings, &beginning(path));
            (fit, text, None)
        }
    };
    Ok(Fitting {
        text,
        n_weights: n_weights(fit.size, fit.vocab_size),
        minutes: fit.minutes,
        told,
    })
}

/// A folder for what is made to look at, which nobody else can look into: it is somebody's talk.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let folder = env::temp_dir().join(format!("tinylm-init-{}", process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Failure::wrong(format!("`{}`: {error}", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn n_threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// The time that training may take, and the speed that it has here.
pub(crate) struct Budget<'a> {
    pub(crate) minutes: f64,
    /// Tokens a second of a model with so many weights.
    pub(crate) speed: &'a dyn Fn(f64) -> f64,
}

/// The speed of a machine that nobody has trained on.
pub(crate) fn guessed_speed(n_weights: f64) -> f64 {
    SPEED * n_threads() as f64 / (6.0 * n_weights)
}

fn n_weights((width, _, n_layers, _): Size, vocab_size: usize) -> f64 {
    (13 * width * width * n_layers + vocab_size * width) as f64
}

/// The sizes that fit a corpus and a time.
struct Fit {
    vocab_size: usize,
    size: Size,
    epochs: usize,
    batch: usize,
    minutes: f64,
}

impl Fit {
    fn of(n_bytes: u64, budget: &Budget<'_>) -> Self {
        let vocab_size = match n_bytes {
            ..50_000 => 512,
            50_000..5_000_000 => 2000,
            5_000_000..50_000_000 => 4000,
            _ => 8000,
        };
        let n_tokens = n_bytes as f64 / BYTES_A_TOKEN;
        let n_weights = |size| n_weights(size, vocab_size);
        let epochs =
            |size: Size| budget.minutes * 60.0 * (budget.speed)(n_weights(size)) / n_tokens;
        let fits = |&&size: &&Size| {
            epochs(size) >= EPOCHS_WANTED && n_weights(size) <= WEIGHTS_A_TOKEN_MAX * n_tokens
        };
        let size = *SIZES.iter().rev().find(fits).unwrap_or(&SIZES[0]);
        // Some thousand steps, rather than larger ones where there is little to read.
        let batch = match n_tokens * epochs(size).min(EPOCHS_MAX) / 128.0 {
            ..10_000.0 => 8,
            _ => 16,
        };
        let n_epochs = epochs(size).clamp(1.0, EPOCHS_MAX) as usize;
        Self {
            vocab_size,
            size,
            epochs: n_epochs,
            batch,
            minutes: budget.minutes * n_epochs as f64 / epochs(size),
        }
    }

    fn model(&self, context: usize) -> String {
        let (width, n_heads, n_layers, _) = self.size;
        format!(
            "{{ preset: llama-tiny, d_model: {width}, n_heads: {n_heads}, n_kv_heads: {n_heads}, n_layers: {n_layers}, d_ff: {}, context: {context} }}",
            3 * width
        )
    }

    fn train(&self) -> String {
        let (.., rate) = self.size;
        format!(
            "epochs: {}, batch: {}, optimizer: muon, lr: {rate}, warmup: 10%, dropout: 0.1",
            self.epochs, self.batch
        )
    }
}

fn dialogues(shown: &str, fit: &Fit, chat: &Chat) -> String {
    let one_line = |text: &str| text.replace(char::is_control, " ");
    let Held {
        setting,
        note,
        stage,
    } = Held::of(chat);
    format!(
        "# Does a small model learn to answer as in `{shown}`?
#
# Found in it: {told}.
# Change a line and run it again: only what depends on that line is done anew.
name: own_chat
seed: 1
stages:
  data:   {{ kind: download,  with: {{ path: {shown:?} }} }}
  chat:   {{ kind: normalize, inputs: [data]{read_as} }}
  clean:  {{ kind: dedupe,    inputs: [chat] }}
  tokens: {{ kind: tokenizer, inputs: [clean], with: {{ vocab_size: {vocab_size} }} }}
{note}  shards: {{ kind: binarize,  inputs: {{ documents: clean, tokenizer: tokens }}{setting} }}
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: {model}
      train: {{ {train}, loss_on: all }}
    watch: {{ samples: [\"hello\"] }}
{stage}  answers: {{ kind: sample, inputs: [model], with: {{ prompts: [\"hello\", \"how are you?\"] }} }}
",
        shown = one_line(shown),
        told = one_line(&chat.told),
        read_as = with(&chat.settings),
        vocab_size = fit.vocab_size,
        model = fit.model(128),
        train = fit.train(),
    )
}

/// What an experiment says of its validation.
struct Held {
    setting: String,
    note: &'static str,
    stage: &'static str,
}

impl Held {
    fn of(chat: &Chat) -> Self {
        const STAGE: &str =
            "  perplexity: { kind: evaluate, inputs: { model: model, shards: shards } }\n";
        const NONE: &str = "  # Too little talk to hold any back, so nothing is measured: with more of it, set `validation: 0.1` here,
  # and measure with `perplexity: { kind: evaluate, inputs: { model: model, shards: shards } }`.\n";
        const DOCUMENTS: &str = "  # There are few dialogues, so their exchanges are shared out: what is held back stands beside what is learnt.\n";
        let Some(held) = chat.held else {
            return Self {
                setting: String::new(),
                note: NONE,
                stage: "",
            };
        };
        let held = plain(&held);
        Self {
            setting: format!(", with: {{ validation: {} }}", flow(&held)),
            note: if held.is_object() { DOCUMENTS } else { "" },
            stage: STAGE,
        }
    }
}

/// Settings in the place behind a stage's inputs.
fn with(settings: &Map<String, Value>) -> String {
    match settings.is_empty() {
        true => String::new(),
        false => format!(", with: {}", flow(&Value::Object(settings.clone()))),
    }
}

/// A value on one line of YAML. Whatever a person may have written is quoted.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries = map.iter();
            let entries =
                entries.map(|(name, value)| format!("{}: {}", flow(&json!(name)), flow(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::String(word) if is_plain(word) => word.clone(),
        other => other.to_string(),
    }
}

fn is_plain(word: &str) -> bool {
    let is_of_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let is_value = ["null", "true", "false"].contains(&word);
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(is_of_word) && !is_value
}

fn text(shown: &str, fit: &Fit, settings: &Map<String, Value>, beginning: &str) -> String {
    format!(
        "# Does a small model learn to write on as `{shown}` does?
#
# Change a line and run it again: only what depends on that line is done anew.
name: own_text
seed: 1
stages:
  data:   {{ kind: download,  with: {{ path: {shown:?} }} }}
  texts:  {{ kind: normalize, inputs: [data]{read_as} }}
  tokens: {{ kind: tokenizer, inputs: [texts], with: {{ vocab_size: {vocab_size}, template: plain }} }}
  # The end of the text is held back: one file is one document.
  shards: {{ kind: binarize,  inputs: {{ documents: texts, tokenizer: tokens }}, with: {{ validation: {{ tail: 0.1 }} }} }}
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: {model}
      train: {{ {train}, batching: sliding }}
    watch: {{ samples: [{beginning:?}] }}
  perplexity: {{ kind: evaluate, inputs: {{ model: model, shards: shards }} }}
  goes_on: {{ kind: sample, inputs: [model], with: {{ form: text, nonstop: true, max_tokens: 120, prompts: [{beginning:?}] }} }}
",
        read_as = with(settings),
        vocab_size = fit.vocab_size,
        model = fit.model(128),
        train = fit.train(),
    )
}

/// The first words of a text, to go on from.
fn beginning(path: &Path) -> String {
    let bytes = read_plain(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
    let is_plain = |word: &&str| {
        word.chars()
            .all(|c| c.is_alphanumeric() || ",.'!?-".contains(c))
    };
    let words: Vec<&str> = text
        .split_whitespace()
        .take_while(is_plain)
        .take(4)
        .collect();
    match words.is_empty() {
        true => "The".to_owned(),
        false => words.join(" "),
    }
}

fn n_bytes(path: &Path) -> io::Result<u64> {
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(found.len());
    }
    let mut n = 0;
    for entry in fs::read_dir(path)? {
        let path: PathBuf = entry?.path();
        n += if path.is_symlink() {
            0
        } else {
            n_bytes(&path)?
        };
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(n_bytes: u64, minutes: f64) -> Fit {
        let speed = &guessed_speed;
        Fit::of(n_bytes, &Budget { minutes, speed })
    }

    #[test]
    fn a_faster_machine_gets_a_larger_model_or_more_epochs() {
        let sized = |tokens_per_second: f64| {
            let speed = &move |n_weights: f64| tokens_per_second * 1e6 / n_weights;
            let fit = Fit::of(
                3_000_000,
                &Budget {
                    minutes: 5.0,
                    speed,
                },
            );
            (fit.size.0, fit.epochs)
        };
        assert!(sized(100_000.0) > sized(10_000.0));
        assert!(sized(10_000.0) > sized(1_000.0));
    }

    #[test]
    fn a_small_corpus_gets_a_small_model_however_long_it_may_take() {
        assert_eq!(fit(20_000, 600.0).size, SIZES[0]);
    }

    #[test]
    fn more_text_and_more_time_make_a_larger_model() {
        let mut before = 0;
        for n_bytes in [10_000, 1_000_000, 100_000_000] {
            let width = |minutes| fit(n_bytes, minutes).size.0;
            assert!(width(1.0) <= width(60.0));
            let vocab_size = fit(n_bytes, 5.0).vocab_size;
            assert!(vocab_size > before);
            before = vocab_size;
        }
        assert_eq!(fit(1_000_000_000, 0.01).epochs, 1);
        assert!(
            fit(1_000_000_000, 0.01).minutes > 1.0,
            "the smallest takes longer"
        );
        assert!(fit(1_000_000, 60.0).minutes <= 60.0);
        assert_eq!(fit(1000, 60.0).epochs, 20);
    }
}
