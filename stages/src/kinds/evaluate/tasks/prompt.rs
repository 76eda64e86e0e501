//! The prompts of an example, and which of their tokens are the answer.
//!
//! Two rules say where an answer begins, and both are kept, since published figures follow one or
//! the other. CORE compares the prompts of an example: the answer is where they part (or, of a
//! schema, what they have in common at the end). lm-evaluation-harness encodes the context alone:
//! the answer is all behind as many tokens.

use super::{
    example::{Example, Form},
    known::Rules,
};
use crate::shared::tokens::{Tokenizer, TokensError};

/// Tokens to read, and where the answer among them begins.
#[derive(Debug, PartialEq)]
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    /// By CORE's rule.
    pub(super) apart: usize,
    /// By the rule of lm-evaluation-harness.
    pub(super) behind: usize,
    /// Characters of the answer.
    pub(super) n_chars: usize,
}

/// A prompt as text: the context, then what is between, then the answer.
struct Text<'a> {
    context: String,
    answer: &'a str,
}

/// Writes the prompts of an example behind solved ones, one for each answer.
pub(super) fn prompts(
    example: &Example,
    shots: &[&Example],
    rules: &Rules,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>, TokensError> {
    let solved: String = shots
        .iter()
        .map(|shot| format!("{}\n\n", shot.solved(&rules.delimiter)))
        .collect();
    let context = |text: &str| format!("{solved}{text}{}", rules.delimiter);
    let texts: Vec<Text> = match example {
        Example::Choice { query, choices, .. } => choices
            .iter()
            .map(|answer| Text {
                context: context(query),
                answer,
            })
            .collect(),
        Example::Schema {
            contexts,
            continuation,
            ..
        } => contexts
            .iter()
            .map(|text| Text {
                context: context(text),
                answer: continuation,
            })
            .collect(),
        Example::Continuation {
            context: text,
            continuation,
        } => vec![Text {
            context: context(text.trim()),
            answer: continuation,
        }],
        Example::Pair { good, bad } => [good, bad]
            .map(|answer| Text {
                context: String::new(),
                answer,
            })
            .into(),
    };
    let mut prompts = Vec::with_capacity(texts.len());
    for text in &texts {
        prompts.push(encoded(text, example.form(), tokenizer)?);
    }
    set_apart(&mut prompts, example.form());
    Ok(prompts)
}

fn encoded(text: &Text<'_>, form: Form, tokenizer: &Tokenizer) -> Result<Prompt, TokensError> {
    let mut ids: Vec<u32> = beginning(form, tokenizer).into_iter().collect();
    let n_begin = ids.len();
    // Spaces at its end belong to the answer: so do pieces that begin with one.
    let context = tokenizer.encode(text.context.trim_end())?;
    ids.extend(tokenizer.encode(&format!("{}{}", text.context, text.answer))?);
    // Something must stand before the first token that is predicted.
    let behind = (n_begin + context.len()).clamp(1, ids.len().max(1));
    Ok(Prompt {
        apart: behind,
        behind,
        n_chars: text.answer.trim_start().chars().count(),
        ids,
    })
}

/// The token that texts begin with. A sentence of a minimal pair is all answer, so that it needs a
/// token before it even where the model's texts begin without.
fn beginning(form: Form, tokenizer: &Tokenizer) -> Option<u32> {
    let generation = tokenizer.generation();
    let special = |name: &Option<String>| tokenizer.special(name.as_deref()?);
    match form {
        Form::Pair => generation
            .bos_id
            .or_else(|| special(&generation.bos))
            .or(generation.eos_id)
            .or_else(|| tokenizer.stop_ids().first().copied()),
        _ => generation.bos_id,
    }
}

/// Finds where the prompts of an example part, as CORE does.
fn set_apart(prompts: &mut [Prompt], form: Form) {
    let shortest = prompts.iter().map(|prompt| prompt.ids.len()).min();
    let shortest = shortest.unwrap_or(0);
    let first = prompts[0].ids.clone();
    match form {
        Form::Choice => {
            let is_common = |at: &usize| prompts.iter().all(|prompt| prompt.ids[*at] == first[*at]);
            let n_common = (0..shortest).take_while(is_common).count();
            for prompt in prompts {
                prompt.apart = n_common.clamp(1, prompt.ids.len());
            }
        }
        Form::Schema => {
            let from_end = |ids: &[u32], n: usize| ids[ids.len() - 1 - n];
            let is_common = |n: &usize| {
                let wanted = from_end(&first, *n);
                prompts
                    .iter()
                    .all(|prompt| from_end(&prompt.ids, *n) == wanted)
            };
            let n_common = (0..shortest).take_while(is_common).count();
            for prompt in prompts {
                prompt.apart = (prompt.ids.len() - n_common).max(1);
            }
        }
        Form::Continuation | Form::Pair => {}
    }
}
