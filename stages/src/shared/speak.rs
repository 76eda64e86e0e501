//! A model folder that answers: text in, text out.
//!
//! The `sample` stage, the samples shown during training and the commands `sample` and `chat`
//! all speak through it. It opens weights and tokenizer as one, turns a prompt into ids in the
//! model's own template, and turns ids back into text while they come.
//!
//! A dialogue that has grown past the model's context loses its oldest turns, a user's
//! with the answer to it; the system turn stays. What was left out is told, not hidden.

use std::{path::Path, sync::Arc};

use tinylm_model::{
    config::ReadPrecision,
    folder::Which,
    generate::{
        Continuation, FeedError, GenerateError, Left, Model, OpenError, Rules, Session, Step,
    },
    sampler::{Candidate, Sampling},
};
use tinylm_pipeline::{Device, StageError, StageIo};

use crate::shared::{
    computer,
    template::Role,
    tokens::{DecodeStream, Tokenizer, TokensError},
};

/// A session of a model, with the model's tokenizer.
pub struct Speaker {
    session: Session,
    tokenizer: Arc<Tokenizer>,
    n_threads: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum SpeakError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(
        "the tokenizer has {tokens} tokens and the model {vocab_size}: they do not belong together"
    )]
    Mismatch { tokens: usize, vocab_size: usize },
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("`{0}` of the prompt is outside what the model can read")]
    Id(u32),
    #[error("threads cannot be started: {0}")]
    Threads(String),
}

impl SpeakError {
    /// What helps where it is the GPU's fault, so that another device, or the same one later, may do.
    pub fn help(&self) -> Option<&'static str> {
        let is_of_device = match self {
            SpeakError::Open(error) => matches!(error, OpenError::Device(_)),
            SpeakError::Feed(error) | SpeakError::Generate(GenerateError::Feed(error)) => {
                matches!(error, FeedError::Device(_))
            }
            _ => false,
        };
        is_of_device.then_some("`--device cpu` reads it here; `tinylm doctor` tells of the GPU")
    }
}

impl From<SpeakError> for StageError {
    fn from(error: SpeakError) -> StageError {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let failed = StageError::new(error.to_string());
        let mut failed = match error.help() {
            Some(help) => failed.help(help),
            None => failed.is_final(),
        };
        failed.cause = cause.filter(|cause| *cause != failed.message);
        failed
    }
}

/// How an answer is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Manner {
    pub sampling: Sampling,
    pub seed: u64,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Texts at which an answer ends, besides the template's own marks.
    pub stop: Vec<String>,
    /// Goes on past the template's marks.
    pub nonstop: bool,
    /// How many candidates to list with each token.
    pub n_candidates: usize,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            sampling: Sampling::default(),
            seed: 0,
            max_tokens: 256,
            stop: Vec::new(),
            nonstop: false,
            n_candidates: 0,
        }
    }
}

/// Ids to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u16>,
    /// How many at the beginning stay when the context is full.
    pub n_stay: usize,
    /// Turns that were left out because the context is too short for all.
    pub n_turns_left_out: usize,
}

impl Prompt {
    /// A text to be continued, behind the mark that texts begin with, if they do.
    pub fn of_text(tokenizer: &Tokenizer, text: &str) -> Result<Prompt, SpeakError> {
        let begin = tokenizer.generation().bos_id;
        let mut ids: Vec<u32> = begin.into_iter().collect();
        let n_stay = ids.len();
        ids.extend(tokenizer.encode(text)?);
        Ok(Prompt {
            ids: narrow(&ids)?,
            n_stay,
            n_turns_left_out: 0,
        })
    }

    /// A dialogue of which the next turn is the model's, as much of it as the context holds
    /// beside an answer of some length.
    pub fn of_chat(
        tokenizer: &Tokenizer,
        system: Option<&str>,
        turns: &[(Role, String)],
        (context, max_tokens): (usize, usize),
    ) -> Result<Prompt, SpeakError> {
        let room = context - max_tokens.min(context / 2);
        let system: Vec<(Role, &str)> = system
            .map(|text| (Role::System, text))
            .into_iter()
            .collect();
        let frame = tokenizer.render_chat(&system, true)?;
        let without = |first: usize| {
            let turns = turns[first..]
                .iter()
                .map(|(role, text)| (*role, text.as_str()));
            let all: Vec<(Role, &str)> = system.iter().copied().chain(turns).collect();
            tokenizer.render_chat(&all, true)
        };
        let (mut first, mut ids) = (0, without(0)?);
        if ids.len() > room {
            // Halved again and again: one exchange less at a time would render a long dialogue as
            // often as it has turns.
            let starts = exchanges(turns);
            let (mut low, mut high) = (1, starts.len().saturating_sub(1));
            while low < high {
                let middle = low.midpoint(high);
                match without(starts[middle])?.len() <= room {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            // A single turn that does not fit is cropped when it is read.
            first = starts.get(high).copied().unwrap_or(0);
            ids = without(first)?;
        }
        let n_stay = frame.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        Ok(Prompt {
            ids: narrow(&ids)?,
            n_stay: n_stay.min(context / 2),
            n_turns_left_out: first,
        })
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model said so, or one of the stop texts came.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// Whoever listened had enough.
    Interrupted,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            End::Stop => "stop",
            End::Length => "length",
            End::Interrupted => "interrupted",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub n_tokens: usize,
    pub end: End,
    /// Tokens of the prompt that did not fit the context.
    pub n_cropped: usize,
    /// How often the oldest tokens were dropped while answering.
    pub n_slides: usize,
}

/// A token as it comes.
pub struct Said<'a> {
    /// Text that can be printed now: whole characters, nothing that may become a stop text.
    pub text: &'a str,
    pub id: u16,
    pub candidates: &'a [Candidate],
}

impl Speaker {
    /// Opens a model folder with its tokenizer, to be read by this machine's processor.
    pub fn open(
        folder: &Path,
        which: Which,
        precision: ReadPrecision,
        n_threads: usize,
    ) -> Result<Speaker, SpeakError> {
        Speaker::open_on(Device::Cpu, folder, (which, precision), n_threads)
    }

    /// The same, to be read by this device.
    pub fn open_on(
        device: Device,
        folder: &Path,
        (which, precision): (Which, ReadPrecision),
        n_threads: usize,
    ) -> Result<Speaker, SpeakError> {
        let model = Model::open_on(device, folder, which, precision)?;
        Speaker::new(
            Arc::new(model),
            Arc::new(Tokenizer::load(folder)?),
            n_threads,
        )
    }

    /// Opens the model of a stage, to be read by the device that the stage was given; a GPU is told and
    /// recorded.
    pub fn of_stage(
        io: &StageIo,
        folder: &Path,
        (which, precision): (Which, ReadPrecision),
    ) -> Result<Speaker, StageError> {
        let device = match (io.device(), precision) {
            (Device::Cuda(_) | Device::Gpu, ReadPrecision::Int8) => {
                io.info("weights of eight bits are read by the processor".to_owned());
                Device::Cpu
            }
            (Device::Cpu, _) => Device::Cpu,
            (device, _) => {
                // One is enough to read: of several, the others have a rest.
                let first = device.alone();
                let machine = computer::machine("read a model", first)?;
                let (line, record) = computer::used("reads", &machine);
                io.info(line);
                io.origin(record);
                first
            }
        };
        Ok(Speaker::open_on(
            device,
            folder,
            (which, precision),
            io.threads(),
        )?)
    }

    /// Begins to speak with a model and a tokenizer that others may share.
    pub fn new(
        model: Arc<Model>,
        tokenizer: Arc<Tokenizer>,
        n_threads: usize,
    ) -> Result<Speaker, SpeakError> {
        check_pair(&model, &tokenizer)?;
        Ok(Speaker {
            session: Session::new(model, n_threads),
            tokenizer,
            n_threads,
        })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether prompts are turns of a dialogue rather than the beginning of a text.
    pub fn is_chat(&self) -> bool {
        self.tokenizer.knows_turns()
    }

    /// A text to be continued.
    pub fn text_prompt(&self, text: &str) -> Result<Prompt, SpeakError> {
        Prompt::of_text(&self.tokenizer, text)
    }

    /// A dialogue of which the next turn is the model's.
    pub fn chat_prompt(
        &self,
        system: Option<&str>,
        turns: &[(Role, String)],
        max_tokens: usize,
    ) -> Result<Prompt, SpeakError> {
        let context = self.session.config().context;
        Prompt::of_chat(&self.tokenizer, system, turns, (context, max_tokens))
    }

    /// Continues a prompt, telling `listen` each token as it comes; it returns whether to go on.
    pub fn answer(
        &mut self,
        prompt: &Prompt,
        sample: u64,
        manner: &Manner,
        listen: &mut dyn FnMut(&Said<'_>) -> bool,
    ) -> Result<Answer, SpeakError> {
        let rules = self.rules(prompt, sample, manner)?;
        let mut continuation = Continuation::new(&mut self.session, &prompt.ids, rules)?;
        let mut saying = Saying::new(&self.tokenizer, manner);
        while let Some(step) = continuation.advance()? {
            let text = saying.hear(&step)?;
            let said = Said {
                text: &text,
                id: step.id,
                candidates: &step.candidates,
            };
            let go_on = listen(&said);
            if saying.is_over() {
                break;
            }
            if !go_on {
                saying.end = Some(End::Interrupted);
                break;
            }
        }
        let (n_cropped, n_slides) = (continuation.n_cropped(), continuation.n_slides());
        let (answer, rest) = saying.finish(Left {
            n_cropped,
            n_slides,
        })?;
        if !rest.is_empty() {
            listen(&Said {
                text: &rest,
                id: 0,
                candidates: &[],
            });
        }
        Ok(answer)
    }

    fn rules(&self, prompt: &Prompt, sample: u64, manner: &Manner) -> Result<Rules, SpeakError> {
        Ok(Rules {
            sampling: manner.sampling,
            seed: manner.seed,
            sample,
            n_max: manner.max_tokens,
            stop: match manner.nonstop {
                true => Vec::new(),
                false => narrow(self.tokenizer.stop_ids())?,
            },
            n_stay: prompt.n_stay,
            n_candidates: manner.n_candidates,
        })
    }
}

/// An answer as its tokens come.
struct Saying<'a> {
    spoken: Spoken<'a>,
    n_tokens: usize,
    n_max: usize,
    /// Why it has ended, once it has.
    end: Option<End>,
}

impl<'a> Saying<'a> {
    fn new(tokenizer: &'a Tokenizer, manner: &'a Manner) -> Self {
        Saying {
            spoken: Spoken::new(tokenizer, &manner.stop),
            n_tokens: 0,
            n_max: manner.max_tokens,
            end: None,
        }
    }

    /// Takes a token and returns what can be said now.
    fn hear(&mut self, step: &Step) -> Result<String, TokensError> {
        self.n_tokens += 1;
        let text = match step.is_stop {
            true => String::new(),
            false => self.spoken.push(step.id)?,
        };
        if step.is_stop || self.spoken.is_stopped() {
            self.end = Some(End::Stop);
        } else if self.n_tokens == self.n_max {
            self.end = Some(End::Length);
        }
        Ok(text)
    }

    fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Returns the answer, and the end of it that was held back.
    fn finish(self, left: Left) -> Result<(Answer, String), TokensError> {
        let last = self.spoken.finish()?;
        let end = self.end.unwrap_or(End::Length);
        let answer = Answer {
            end: match end == End::Length && last.is_stopped {
                true => End::Stop,
                false => end,
            },
            text: last.text,
            n_tokens: self.n_tokens,
            n_cropped: left.n_cropped,
            n_slides: left.n_slides,
        };
        Ok((answer, last.rest))
    }
}

/// Refuses a tokenizer that is not a model's.
pub fn check_pair(model: &Model, tokenizer: &Tokenizer) -> Result<(), SpeakError> {
    let (tokens, vocab_size) = (tokenizer.vocab_size(), model.config().vocab_size);
    match tokens == vocab_size {
        true => Ok(()),
        false => Err(SpeakError::Mismatch { tokens, vocab_size }),
    }
}

/// Where exchanges begin: the first turn, and every later one of the user.
fn exchanges(turns: &[(Role, String)]) -> Vec<usize> {
    let begins = |(idx, (role, _)): (usize, &(Role, String))| {
        (idx == 0 || *role == Role::User).then_some(idx)
    };
    turns.iter().enumerate().filter_map(begins).collect()
}

pub(crate) fn narrow(ids: &[u32]) -> Result<Vec<u16>, SpeakError> {
    let narrowed = ids
        .iter()
        .map(|&id| u16::try_from(id).map_err(|_| SpeakError::Id(id)));
    narrowed.collect()
}

/// Ids that become text as they come: whole characters, and nothing that may become a stop text.
pub struct Spoken<'a> {
    stream: DecodeStream<'a>,
    held_back: HeldBack<'a>,
}

impl<'a> Spoken<'a> {
    pub fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Spoken<'a> {
        Spoken {
            stream: tokenizer.decode_stream(),
            held_back: HeldBack::new(stops),
        }
    }

    /// Takes one id and returns what can be said now.
    pub fn push(&mut self, id: u16) -> Result<String, TokensError> {
        let piece = self.stream.push(u32::from(id))?;
        Ok(self.held_back.push(&piece))
    }

    /// Whether a stop text has come.
    pub fn is_stopped(&self) -> bool {
        self.held_back.stopped
    }

    pub fn finish(mut self) -> Result<Finished, TokensError> {
        let mut rest = self.held_back.push(&self.stream.finish()?);
        rest.push_str(&self.held_back.finish());
        Ok(Finished {
            text: self.held_back.text,
            rest,
            is_stopped: self.held_back.stopped,
        })
    }
}

pub struct Finished {
    /// All that was said.
    pub text: String,
    /// The end of it that was held back.
    pub rest: String,
    /// Whether a stop text has come, which half a character at the very end may be a part of.
    pub is_stopped: bool,
}

/// Text on its way out: what could be the beginning of a stop text waits.
struct HeldBack<'a> {
    stops: &'a [String],
    /// Everything that has gone out.
    text: String,
    waiting: String,
    stopped: bool,
}

impl<'a> HeldBack<'a> {
    fn new(stops: &'a [String]) -> HeldBack<'a> {
        HeldBack {
            stops,
            text: String::new(),
            waiting: String::new(),
            stopped: false,
        }
    }

    /// Returns what can go out now.
    fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.waiting.push_str(piece);
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        let found = stops
            .clone()
            .filter_map(|stop| self.waiting.find(stop))
            .min();
        if let Some(at) = found {
            self.stopped = true;
            self.waiting.truncate(at);
            return self.finish();
        }
        let longest = stops
            .map(|stop| overlap(&self.waiting, stop))
            .max()
            .unwrap_or(0);
        let kept = self.waiting.split_off(self.waiting.len() - longest);
        let out = std::mem::replace(&mut self.waiting, kept);
        self.text.push_str(&out);
        out
    }

    fn finish(&mut self) -> String {
        let out = std::mem::take(&mut self.waiting);
        self.text.push_str(&out);
        out
    }
}

/// Length of the longest end of `text` with which `stop` begins.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, c)| at + c.len_utf8());
    let short = ends.take_while(|len| *len < stop.len() && *len <= text.len());
    let fitting = short.filter(|len| text.ends_with(&stop[..*len]));
    fitting.max().unwrap_or(0)
}

/// How varied some texts are, by words in lower case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variety {
    /// Different words among all words of all texts.
    pub distinct_1: f64,
    /// Different pairs of neighbouring words among all pairs.
    pub distinct_2: f64,
    /// Runs of four words that stood in the same text before, among all such runs.
    pub repetition: f64,
}

impl Variety {
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Variety {
        let texts: Vec<Vec<String>> = texts
            .into_iter()
            .map(|text| text.split_whitespace().map(str::to_lowercase).collect())
            .collect();
        let (mut n_runs, mut n_repeated) = (0, 0);
        for words in &texts {
            let mut seen = std::collections::BTreeSet::new();
            for run in words.windows(4) {
                n_runs += 1;
                n_repeated += usize::from(!seen.insert(run));
            }
        }
        Variety {
            distinct_1: distinct(&texts, 1),
            distinct_2: distinct(&texts, 2),
            repetition: share(n_repeated, n_runs),
        }
    }
}

fn distinct(texts: &[Vec<String>], n: usize) -> f64 {
    let runs = texts.iter().flat_map(|words| words.windows(n));
    let different: std::collections::BTreeSet<&[String]> = runs.clone().collect();
    share(different.len(), runs.count())
}

/// 0 of 0 is 0: no text repeats nothing.
fn share(n: usize, of: usize) -> f64 {
    n as f64 / of.max(1) as f64
}

mod several;

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests {
    use tinylm_model::config::ModelConfig;

    use super::{
        fixture::{IM_START, config, write_model, write_tokenizer},
        *,
    };

    fn speaker() -> Speaker {
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &config());
        Speaker::open(dir.path(), Which::Best, ReadPrecision::F32, 1).unwrap()
    }

    fn user(text: &str) -> (Role, String) {
        (Role::User, text.to_owned())
    }

    #[test]
    fn a_dialogue_is_put_in_the_models_own_template() {
        let speaker = speaker();
        let prompt = speaker
            .chat_prompt(Some("be kind"), &[user("hi")], 8)
            .unwrap();
        let wide: Vec<u32> = prompt.ids.iter().map(|&id| u32::from(id)).collect();
        let text = speaker.tokenizer().decode_all(&wide).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(prompt.n_turns_left_out, 0);
    }

    #[test]
    fn the_oldest_exchange_leaves_first_and_the_system_turn_stays() {
        let speaker = speaker();
        let turns = [user("one"), (Role::Assistant, "1".to_owned()), user("two")];
        let prompt = speaker.chat_prompt(Some("s"), &turns, 8).unwrap();
        assert_eq!(prompt.n_turns_left_out, 2);
        let wide: Vec<u32> = prompt.ids.iter().map(|&id| u32::from(id)).collect();
        let text = speaker.tokenizer().decode_all(&wide).unwrap();
        assert!(
            text.starts_with("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\ntwo"),
            "{text}"
        );
        // The system turn and the mark that every next turn begins with.
        assert_eq!(prompt.ids[prompt.n_stay - 1], IM_START);
        assert!(prompt.n_stay > 9);
    }

    #[test]
    fn as_many_turns_stay_as_fit_and_a_hundred_thousand_are_cut_at_once() {
        let speaker = speaker();
        let turns: Vec<(Role, String)> = (0..100_000).map(|n| user(&"x".repeat(n % 3))).collect();
        let left_out = |n: usize| {
            let prompt = speaker
                .chat_prompt(None, &turns[turns.len() - n..], 8)
                .unwrap();
            prompt.n_turns_left_out
        };
        let n_kept = 100_000 - left_out(100_000);
        assert!((1..20).contains(&n_kept), "{n_kept}");
        for n in 1..60 {
            assert_eq!(left_out(n), n.saturating_sub(n_kept), "of {n} turns");
        }
    }

    #[test]
    fn a_turn_longer_than_the_context_is_still_answered() {
        let mut speaker = speaker();
        let prompt = speaker
            .chat_prompt(Some("s"), &[user(&"word ".repeat(60))], 100)
            .unwrap();
        let manner = Manner {
            nonstop: true,
            max_tokens: 100,
            ..Manner::default()
        };
        let answer = speaker.answer(&prompt, 0, &manner, &mut |_| true).unwrap();
        assert!(answer.n_cropped > 0 && answer.n_slides > 0, "{answer:?}");
        assert_eq!((answer.n_tokens, answer.end), (100, End::Length));
    }

    #[test]
    fn what_is_heard_is_what_is_answered() {
        let mut speaker = speaker();
        let prompt = speaker.text_prompt("once").unwrap();
        let manner = Manner {
            max_tokens: 30,
            ..Manner::default()
        };
        let mut heard = String::new();
        let answer = speaker
            .answer(&prompt, 0, &manner, &mut |said| {
                heard.push_str(said.text);
                true
            })
            .unwrap();
        assert_eq!(heard, answer.text);
        assert!(answer.n_tokens > 0);
        let stop = Manner {
            stop: vec![answer.text[..].chars().take(2).collect()],
            ..manner.clone()
        };
        let stopped = speaker.answer(&prompt, 0, &stop, &mut |_| true).unwrap();
        assert_eq!((stopped.text.as_str(), stopped.end), ("", End::Stop));
        let hushed = speaker.answer(&prompt, 0, &manner, &mut |_| false).unwrap();
        assert_eq!((hushed.n_tokens, hushed.end), (1, End::Interrupted));
    }

    #[test]
    fn a_tokenizer_of_another_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_model(
            dir.path(),
            &ModelConfig {
                vocab_size: 100,
                ..config()
            },
        );
        let Err(error) = Speaker::open(dir.path(), Which::Best, ReadPrecision::F32, 1) else {
            panic!("opened")
        };
        let message = "the tokenizer has 259 tokens and the model 100: they do not belong together";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn an_empty_prompt_is_an_error() {
        let mut speaker = speaker();
        let prompt = speaker.text_prompt("").unwrap();
        let error = speaker
            .answer(&prompt, 0, &Manner::default(), &mut |_| true)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "nothing to read: the prompt has no tokens"
        );
    }

    #[test]
    fn raw_text_is_continued_by_a_plain_model() {
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &config());
        write_tokenizer(dir.path(), "plain");
        let speaker = Speaker::open(dir.path(), Which::Best, ReadPrecision::Bf16, 2).unwrap();
        assert!(!speaker.is_chat());
        assert_eq!(speaker.text_prompt("ab").unwrap().ids, [97, 98]);
    }

    fn out(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut held_back = HeldBack::new(&stops);
        let mut parts: Vec<String> = pieces.iter().map(|piece| held_back.push(piece)).collect();
        parts.push(held_back.finish());
        assert_eq!(parts.concat(), held_back.text);
        (parts, held_back.text)
    }

    #[test]
    fn what_could_become_a_stop_text_waits() {
        let (parts, _) = out(&["\nUser:"], &["fine", " .\n", "Us", "ers are", " fine"]);
        assert_eq!(parts, ["fine", " .", "", "\nUsers are", " fine", ""]);
    }

    #[test]
    fn a_stop_text_ends_and_is_left_out() {
        let (_, text) = out(&["\nUser:", "##"], &["fine .\nUs", "er: and", " you"]);
        assert_eq!(text, "fine .");
        let (_, text) = out(&["##", "\nUser:"], &["a#", "b##c\nUser:"]);
        assert_eq!(text, "a#b");
        let (_, text) = out(&[], &["a", "b"]);
        assert_eq!(text, "ab");
        let (_, text) = out(&["é!"], &["caf", "é", "!x"]);
        assert_eq!(text, "caf");
    }

    #[test]
    fn an_end_that_only_might_have_been_a_stop_goes_out() {
        let (parts, _) = out(&["abc"], &["xab"]);
        assert_eq!(parts, ["x", "ab"]);
    }

    #[test]
    fn exchanges_leave_whole() {
        let turn = |role| (role, String::new());
        let turns = [
            Role::User,
            Role::Assistant,
            Role::User,
            Role::User,
            Role::Assistant,
        ]
        .map(turn);
        assert_eq!(exchanges(&turns), [0, 2, 3]);
    }

    #[test]
    fn variety_counts_words_and_runs() {
        let variety = Variety::of(["a b a b", "A c"]);
        assert_eq!(variety.distinct_1, 3.0 / 6.0);
        assert_eq!(variety.distinct_2, 3.0 / 4.0);
        assert_eq!(variety.repetition, 0.0);
        let loop_ = Variety::of(["no no no no no no"]);
        assert_eq!(loop_.repetition, 2.0 / 3.0);
        assert_eq!(Variety::of([]).repetition, 0.0);
    }
}
