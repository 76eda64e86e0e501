//! What every request for an answer says: how tokens are chosen, how many, and where it ends.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tinylm_model::sampler::Sampling;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{known, state::State};
use crate::{
    Served,
    engine::{Ask, Told, Wish},
    error::ApiError,
    params::Params,
};

/// Most answers to one prompt, most stop texts, most of the likeliest tokens.
const CHOICES: u64 = 16;
const STOPS: usize = 16;
const TOP: u64 = 20;

pub(super) struct Asked {
    pub(super) model: usize,
    pub(super) wish: Wish,
    pub(super) n: usize,
    pub(super) stops: Vec<String>,
    pub(super) is_streamed: bool,
    pub(super) with_usage: bool,
    /// The length that was asked for, if any was.
    pub(super) n_max: Option<usize>,
}

impl Asked {
    pub(super) fn of(state: &State, params: &Params) -> Result<Asked, ApiError> {
        let model = state.model(params)?;
        let stops = params.texts("stop")?;
        if stops.len() > STOPS {
            return Err(ApiError::wrong(
                "stop",
                format!("at most {STOPS} texts may end an answer"),
            ));
        }
        let n_max = match params.count("max_completion_tokens", 0..=1 << 20)? {
            Some(n) => Some(n),
            None => params.count("max_tokens", 0..=1 << 20)?,
        };
        Ok(Asked {
            model,
            wish: wish(&state.models[model], params)?,
            n: params.count("n", 1..=CHOICES)?.unwrap_or(1),
            stops,
            is_streamed: params.flag("stream")?,
            with_usage: with_usage(params)?,
            n_max,
        })
    }

    /// Hands a prompt to the engine.
    pub(super) fn start(
        &self,
        state: &State,
        (request, prompt): (u64, &Arc<[u16]>),
        sample: usize,
    ) -> UnboundedReceiver<Told> {
        let (reply, told) = unbounded_channel();
        let wish = Wish {
            sample: sample as u64,
            ..self.wish.clone()
        };
        let ask = Ask {
            request,
            prompt: Arc::clone(prompt),
            wish,
            reply,
        };
        state.engine.ask(self.model, ask);
        told
    }

    /// Makes the answer no longer than the context has room behind a prompt.
    pub(super) fn fit(
        &mut self,
        served: &Served,
        (param, n_prompt): (&str, usize),
        usual: usize,
    ) -> Result<(), ApiError> {
        let context = served.context();
        if n_prompt > context || (n_prompt == context && self.n_max != Some(0)) {
            return Err(too_long(param, n_prompt, context));
        }
        self.wish.n_max = self.n_max.unwrap_or(usual).min(context - n_prompt);
        Ok(())
    }
}

pub(super) fn too_long(param: &str, n_prompt: usize, context: usize) -> ApiError {
    ApiError::wrong(
        param,
        format!("the prompt has {n_prompt} tokens, and the model reads {context} with its answer"),
    )
    .code("context_length_exceeded")
}

fn wish(served: &Served, params: &Params) -> Result<Wish, ApiError> {
    let usual = Sampling::default();
    let sampling = Sampling {
        temperature: params
            .number("temperature", 0.0..=100.0)?
            .unwrap_or(usual.temperature),
        top_p: params.number("top_p", 0.0..=1.0)?.unwrap_or(usual.top_p),
        // -1 is all of them to vLLM and its clients, as 0 is here.
        top_k: match params.get("top_k").and_then(Value::as_i64) {
            Some(-1) => 0,
            _ => params.count("top_k", 0..=1 << 16)?.unwrap_or(usual.top_k),
        },
        min_p: params.number("min_p", 0.0..=1.0)?.unwrap_or(usual.min_p),
        repeat_penalty: params
            .number("repeat_penalty", 0.01..=100.0)?
            .or(params.number("repetition_penalty", 0.01..=100.0)?)
            .unwrap_or(usual.repeat_penalty),
        ..usual
    };
    let stop_ids = served.tokenizer.stop_ids().iter();
    let stop = stop_ids.filter_map(|id| u16::try_from(*id).ok());
    Ok(Wish {
        sampling,
        seed: seed(params)?,
        sample: 0,
        n_max: 0,
        stop: match params.flag("ignore_eos")? {
            true => Vec::new(),
            false => stop.collect(),
        },
        bias: bias(params)?,
        presence_penalty: params
            .number("presence_penalty", -2.0..=2.0)?
            .unwrap_or(0.0),
        frequency_penalty: params
            .number("frequency_penalty", -2.0..=2.0)?
            .unwrap_or(0.0),
        n_top: n_top(params)?,
        is_prompt_told: false,
    })
}

/// Any whole number of 64 bits, with a sign or without; where none is said, the time.
fn seed(params: &Params) -> Result<u64, ApiError> {
    if let Some(seed) = params.get("seed").and_then(Value::as_i64) {
        return Ok(seed.cast_unsigned());
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let any = || since.map_or(0, |since| since.as_nanos() as u64);
    let seed = params.count("seed", 0..=u64::MAX)?;
    Ok(seed.map_or_else(any, |seed| seed as u64))
}

fn bias(params: &Params) -> Result<Arc<[(u16, f32)]>, ApiError> {
    let wrong = || {
        ApiError::wrong(
            "logit_bias",
            "`logit_bias` maps ids of tokens to numbers from -100 to 100",
        )
    };
    let Some(value) = params.get("logit_bias") else {
        return Ok(Arc::default());
    };
    let map = value.as_object().ok_or_else(wrong)?;
    let one = |(id, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| bias.abs() <= 100.0)?;
        Some((id.parse().ok()?, bias as f32))
    };
    // One for each token, in however many ways its number is written.
    let each: Result<BTreeMap<u16, f32>, ApiError> = map
        .iter()
        .map(|entry| one(entry).ok_or_else(wrong))
        .collect();
    Ok(each?.into_iter().collect())
}

/// `logprobs: true` with `top_logprobs: 5` of a dialogue, `logprobs: 5` of a text.
fn n_top(params: &Params) -> Result<Option<usize>, ApiError> {
    let n_top = params.count("top_logprobs", 0..=TOP)?.unwrap_or(0);
    match params.get("logprobs") {
        Some(Value::Bool(true)) => Ok(Some(n_top)),
        _ if n_top > 0 => {
            let message = "`top_logprobs` goes with `logprobs: true`";
            Err(ApiError::wrong("top_logprobs", message))
        }
        None | Some(Value::Bool(false)) => Ok(None),
        Some(Value::String(_)) => {
            let message = format!(
                "`logprobs` is true or false in a chat, and a whole number from 0 to {TOP} for a text"
            );
            Err(ApiError::wrong("logprobs", message))
        }
        Some(_) => params.count("logprobs", 0..=TOP),
    }
}

/// Whether a stream ends with its usage.
fn with_usage(params: &Params) -> Result<bool, ApiError> {
    let wrong = || {
        let message = "`stream_options` is `{\"include_usage\": true}`, or false";
        ApiError::wrong("stream_options", message)
    };
    let Some(options) = params.get("stream_options") else {
        return Ok(false);
    };
    let mut with_usage = false;
    for (name, value) in options.as_object().ok_or_else(wrong)? {
        match (name.as_str(), value) {
            (_, value) if known::is_empty(value) => (),
            ("include_usage", Value::Bool(true)) => with_usage = true,
            _ => return Err(wrong()),
        }
    }
    Ok(with_usage)
}
