//! `/v1/completions`: a text, or ids of tokens, to be continued.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde_json::Value;
use tinylm_stages::shared::speak::Prompt;

use super::{
    answer::{Form, Job},
    ask::Asked,
    body::Body,
    known,
    state::State as Shared,
};
use crate::{Served, error::ApiError, params::Params};

/// Most prompts of one request.
const PROMPTS: usize = 128;
/// The length of a continuation where none is said, as OpenAI has it.
const USUAL: usize = 16;

pub(super) async fn answer(
    State(state): State<Arc<Shared>>,
    body: Body,
) -> Result<Response, ApiError> {
    let job = |params: &Params| job(&state, params);
    body.understood(&state, job).await?.answer().await
}

fn job(state: &Arc<Shared>, params: &Params) -> Result<Job, ApiError> {
    known::TEXT.check(params)?;
    let mut asked = Asked::of(state, params)?;
    let served = &state.models[asked.model];
    let prompts = prompts(served, params.need("prompt")?)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    asked.fit(served, ("prompt", longest), USUAL)?;
    let has_echo = params.flag("echo")?;
    asked.wish.is_prompt_told = has_echo && asked.wish.n_top.is_some();
    Job::new(Arc::clone(state), asked, Form::Text, prompts, has_echo)
}

/// A text, a list of texts, a list of ids, or a list of such lists.
fn prompts(served: &Served, given: &Value) -> Result<Vec<Vec<u16>>, ApiError> {
    let list = match given {
        Value::Array(list) if !list.iter().all(Value::is_number) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    if list.is_empty() || list.len() > PROMPTS {
        return Err(wrong(format!("`prompt` must be one to {PROMPTS} prompts")));
    }
    list.iter().map(|one| prompt(served, one)).collect()
}

fn prompt(served: &Served, given: &Value) -> Result<Vec<u16>, ApiError> {
    let ids = match given {
        Value::String(text) => {
            let prompt = Prompt::of_text(&served.tokenizer, text);
            prompt.map_err(|error| wrong(error.to_string()))?.ids
        }
        Value::Array(ids) => {
            let n = served.tokenizer.vocab_size() as u64;
            let id = |value: &Value| value.as_u64().filter(|id| *id < n).map(|id| id as u16);
            let ids: Option<Vec<u16>> = ids.iter().map(id).collect();
            ids.ok_or_else(|| wrong(format!("ids of `prompt` must be whole numbers below {n}")))?
        }
        _ => {
            return Err(wrong(
                "`prompt` must be a text, ids, or a list of either".to_owned(),
            ));
        }
    };
    match ids.is_empty() {
        true => Err(wrong(
            "`prompt` is empty, and this model's texts begin with no mark".to_owned(),
        )),
        false => Ok(ids),
    }
}

fn wrong(message: String) -> ApiError {
    ApiError::wrong("prompt", message)
}
