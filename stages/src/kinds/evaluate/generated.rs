//! The model goes on from the beginnings of documents: does it repeat itself, does it end?

use tinylm_model::{
    sampler::Sampling,
    shards::{ROLE_ASSISTANT, ROLE_MASK, TARGET},
};
use tinylm_pipeline::{StageError, StageIo};

use super::text::Text;
use crate::shared::speak::{End, Manner, Prompt, Speaker, Variety};

/// Counts of what the model made of the beginnings of documents.
pub(super) struct Generated {
    pub(super) n: usize,
    pub(super) n_ended: usize,
    pub(super) n_tokens: usize,
    pub(super) variety: Variety,
}

pub(super) fn continuations(
    speaker: &mut Speaker,
    max_tokens: usize,
    prompts: &[Prompt],
    io: &StageIo,
) -> Result<Option<Generated>, StageError> {
    let manner = Manner {
        sampling: Sampling::default(),
        seed: 1,
        max_tokens,
        ..Manner::default()
    };
    let n = prompts.len();
    if n == 0 || max_tokens == 0 {
        return Ok(None);
    }
    let (mut texts, mut n_ended, mut n_tokens) = (Vec::new(), 0, 0);
    let progress = |n_done: usize| {
        let (done, all) = (n_done as u64, Some(n as u64));
        io.progress_note(done, all, "continuations", Some("continuing"))
    };
    progress(0)?;
    let done = speaker.answer_all(
        prompts,
        &manner,
        &|| !io.is_cancelled(),
        &mut |idx, answer| {
            n_ended += usize::from(answer.end == End::Stop);
            n_tokens += answer.n_tokens;
            texts.push(answer.text);
            progress(idx + 1)
        },
    )?;
    if !done {
        return Err(StageError::cancelled());
    }
    Ok(Some(Generated {
        n,
        n_ended,
        n_tokens,
        variety: Variety::of(texts.iter().map(String::as_str)),
    }))
}

/// Beginnings of some documents, spread over all, so that not all come from one source.
pub(super) struct Beginnings {
    n: u64,
    n_documents: u64,
    n_seen: u64,
    pub(super) prompts: Vec<Prompt>,
}

impl Beginnings {
    pub(super) fn new(n: usize, n_documents: u64) -> Beginnings {
        Beginnings {
            n: (n as u64).min(n_documents),
            n_documents,
            n_seen: 0,
            prompts: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, text: &Text, context: usize) {
        let due = self.prompts.len() as u64 * self.n_documents;
        if (self.prompts.len() as u64) < self.n && due <= self.n_seen * self.n {
            self.prompts.push(beginning(text, context));
        }
        self.n_seen += 1;
    }
}

/// Up to where the assistant first has to speak; of a text, its first tokens.
fn beginning(text: &Text, context: usize) -> Prompt {
    let is_reply = |role: &u8| *role & TARGET != 0 && *role & ROLE_MASK == ROLE_ASSISTANT;
    let reply = text
        .roles
        .iter()
        .skip(1)
        .position(is_reply)
        .map(|at| at + 1);
    let n = reply.unwrap_or_else(|| text.ids.len().min(32).min(context.div_ceil(4)));
    Prompt {
        ids: text.ids[..n].to_vec(),
        n_stay: 0,
        n_turns_left_out: 0,
    }
}
