//! A model folder that answers: text in, text out.
//!
//! The `sample` stage, the samples shown during training and the commands `sample` and `chat`
//! all speak through it. It opens weights and tokenizer as one, turns a prompt into ids in the
//! model's own template, and turns ids back into text while they come.
//!
//! A dialogue that has grown past the model's context loses its oldest turns, a user's
//! with the answer to it; the system turn stays. What was left out is told, not hidden.

mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod prompt;
mod several;
mod spoken;
mod variety;

use std::{path::Path, sync::Arc};

use tinylm_model::{
    config::ReadPrecision,
    folder::Which,
    generate::{Continuation, Left, Model, Rules, Session, Step},
    sampler::{Candidate, Sampling},
};
use tinylm_pipeline::{Device, StageError, StageIo};

use crate::shared::{
    computer,
    template::Role,
    tokens::{Tokenizer, TokensError},
};

pub use error::SpeakError;
pub use prompt::Prompt;
pub(crate) use prompt::narrow;
pub use spoken::Spoken;
pub use variety::Variety;

/// A session of a model, with the model's tokenizer.
pub struct Speaker {
    session: Session,
    tokenizer: Arc<Tokenizer>,
    n_threads: usize,
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
                let machine = computer::to_read(first)?;
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
}
