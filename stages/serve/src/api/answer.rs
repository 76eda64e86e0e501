//! Answers on their way to a client: whole, or piece by piece as events.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, task::block_in_place, time::timeout};

use super::{
    ask::Asked,
    events::{self, Events},
    logprobs,
    state::{State, now},
};
use crate::{
    Served,
    choice::{Choice, Heard, Reason},
    engine::Token,
    error::ApiError,
};

/// Silence after which a client is told that the server lives.
const SILENCE: Duration = Duration::from_secs(10);

/// How long after the time limit a slow reader may take what has been said.
const GRACE: Duration = Duration::from_secs(60);

/// Which of the two APIs is spoken.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    Chat,
    Text,
}

/// An answer's number, its prompt and its sample.
type Place = (usize, usize, usize);

/// What an answer takes beside its tokens, counted in tokens.
const ANSWER: usize = 64;

/// What the answers of a request may come to: tokens, and likelihoods where they are told.
fn n_tokens(asked: &Asked, prompts: &[Vec<u16>]) -> usize {
    let wish = &asked.wish;
    let told = prompts.iter().map(|prompt| match wish.is_prompt_told {
        true => prompt.len() + wish.n_max,
        false => wish.n_max,
    });
    let each = wish.n_top.map_or(1, |n_top| 2 + n_top);
    told.map(|n| asked.n * (ANSWER + n * each)).sum()
}

/// A request that has been understood and has a place.
pub(super) struct Job {
    state: Arc<State>,
    asked: Asked,
    form: Form,
    prompts: Vec<Arc<[u16]>>,
    /// Answers begin with their prompts.
    has_echo: bool,
    /// No other request has it.
    number: u64,
    id: String,
    #[expect(
        dead_code,
        reason = "given back with the job, when the answer has been sent"
    )]
    place: [OwnedSemaphorePermit; 2],
}

/// What is known of an answer when it is over.
#[derive(Default)]
struct Whole {
    text: String,
    prompt: Vec<Token>,
    tokens: Vec<Token>,
    reason: Reason,
    n_tokens: usize,
    n_cached: usize,
}

impl Job {
    /// Takes a place for a request, if there is one.
    pub(super) fn new(
        state: Arc<State>,
        asked: Asked,
        form: Form,
        prompts: Vec<Vec<u16>>,
        has_echo: bool,
    ) -> Result<Job, ApiError> {
        let place = state.place(n_tokens(&asked, &prompts))?;
        let kind = match form {
            Form::Chat => "chatcmpl",
            Form::Text => "cmpl",
        };
        let number = state.n_requests.fetch_add(1, Relaxed);
        Ok(Job {
            id: format!("{kind}-{:x}-{number:x}", state.began),
            state,
            asked,
            form,
            number,
            prompts: prompts.into_iter().map(Arc::from).collect(),
            has_echo,
            place,
        })
    }

    pub(super) async fn answer(self) -> Result<Response, ApiError> {
        match self.asked.is_streamed {
            true => self.streamed().await,
            false => self.whole().await,
        }
    }

    fn served(&self) -> &Served {
        &self.state.models[self.asked.model]
    }

    fn choices(&self) -> Vec<Place> {
        let n = self.asked.n;
        let prompts = 0..self.prompts.len();
        prompts
            .flat_map(|prompt| (0..n).map(move |sample| (prompt * n + sample, prompt, sample)))
            .collect()
    }

    fn echo(&self, prompt: usize) -> Result<String, ApiError> {
        if !self.has_echo {
            return Ok(String::new());
        }
        let ids: Vec<u32> = self.prompts[prompt]
            .iter()
            .map(|id| u32::from(*id))
            .collect();
        let text = self.served().tokenizer.decode_all(&ids);
        text.map_err(|error| ApiError::wrong("prompt", error.to_string()))
    }

    async fn whole(self) -> Result<Response, ApiError> {
        let choices = self.choices();
        let heard = choices
            .iter()
            .map(|&(_, prompt, sample)| self.hear(prompt, sample));
        let heard: Result<Vec<Whole>, ApiError> = join_all(heard).await.into_iter().collect();
        let heard = heard?;
        let written = match heard.len() {
            1 => self.written(&choices, &heard),
            // Likelihoods of a thousand answers take seconds.
            _ => block_in_place(|| self.written(&choices, &heard)),
        };
        let kind = HeaderValue::from_static("application/json");
        Ok(([(header::CONTENT_TYPE, kind)], written?).into_response())
    }

    /// All choices as JSON, one by one: as values they would take ten times the memory.
    fn written(&self, choices: &[Place], heard: &[Whole]) -> Result<String, ApiError> {
        let (mut shown, mut usage) = (Vec::new(), Usage::default());
        for (&(index, prompt, sample), whole) in choices.iter().zip(heard) {
            usage.add(whole, self.prompts[prompt].len(), sample == 0);
            shown.push(self.shown(index, prompt, whole)?.to_string());
        }
        let object = match self.form {
            Form::Chat => "chat.completion",
            Form::Text => "text_completion",
        };
        let head = json!({
            "id": self.id,
            "object": object,
            "created": now(),
            "model": self.served().name,
            "usage": usage.json(),
        });
        let mut written = head.to_string();
        written.truncate(written.len() - 1);
        Ok(written + ",\"choices\":[" + &shown.join(",") + "]}")
    }

    /// Asks the engine, and hears what comes.
    fn choice(&self, prompt: usize, sample: usize) -> Choice<'_> {
        let prompt = (self.number, &self.prompts[prompt]);
        let told = self.asked.start(&self.state, prompt, sample);
        let limit = self.state.options.time_limit;
        Choice::new(told, &self.served().tokenizer, &self.asked.stops, limit)
    }

    async fn hear(&self, prompt: usize, sample: usize) -> Result<Whole, ApiError> {
        let mut choice = self.choice(prompt, sample);
        let mut whole = Whole::default();
        while let Some(heard) = choice.next().await {
            match heard {
                Heard::Begun { n_cached } => whole.n_cached = n_cached,
                Heard::Read(token) => whole.prompt.push(token),
                Heard::Said { text, token } => {
                    whole.text.push_str(&text);
                    whole.tokens.extend(self.told(token));
                }
                Heard::End(end) => {
                    whole.text.push_str(&end.rest);
                    (whole.reason, whole.n_tokens) = (end.reason, end.n_tokens);
                }
                Heard::Failed(reason) => {
                    return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, reason));
                }
            }
        }
        Ok(whole)
    }

    fn shown(&self, index: usize, prompt: usize, whole: &Whole) -> Result<Value, ApiError> {
        let tokenizer = &self.served().tokenizer;
        let is_told = self.asked.wish.n_top.is_some();
        if self.form == Form::Chat {
            let logprobs = is_told.then(|| logprobs::of_chat(tokenizer, &whole.tokens));
            return Ok(json!({
                "index": index,
                "message": { "role": "assistant", "content": whole.text, "refusal": null },
                "logprobs": logprobs,
                "finish_reason": whole.reason.name(),
                "stop_reason": whole.reason.more(),
            }));
        }
        let echo = self.echo(prompt)?;
        let first = self.has_echo.then(|| self.prompts[prompt][0]);
        let tokens = [whole.prompt.as_slice(), &whole.tokens].concat();
        Ok(json!({
            "index": index,
            "text": echo + &whole.text,
            "logprobs": is_told.then(|| logprobs::of_text(tokenizer, first, &tokens, &mut 0)),
            "finish_reason": whole.reason.name(),
            "stop_reason": whole.reason.more(),
        }))
    }

    async fn streamed(self) -> Result<Response, ApiError> {
        let (events, waiting) = events::channel();
        tokio::spawn(async move {
            // A client that went away, or takes no more: the answers' channels are closed with this task.
            let limit = self.state.options.time_limit + GRACE;
            let _ = timeout(limit, self.send_all(&events)).await;
        });
        waiting.response(SILENCE).await
    }

    async fn send_all(&self, events: &Events) -> Option<()> {
        let choices = self.choices();
        let sent = choices.iter().map(|&choice| self.send(choice, events));
        let mut usage = Usage::default();
        for (&(_, prompt, sample), whole) in choices.iter().zip(join_all(sent).await) {
            usage.add(&whole?, self.prompts[prompt].len(), sample == 0);
        }
        if self.asked.with_usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage.json();
            events.send(&chunk).await?;
        }
        events.done().await
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.form {
            Form::Chat => "chat.completion.chunk",
            Form::Text => "text_completion",
        };
        let mut chunk = json!({
            "id": self.id,
            "object": object,
            "created": now(),
            "model": self.served().name,
            "choices": choices,
        });
        if self.asked.with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// Sends one answer; `None` when nobody listens.
    async fn send(&self, place: Place, events: &Events) -> Option<Whole> {
        let (index, prompt, sample) = place;
        let mut choice = self.choice(prompt, sample);
        let mut whole = Whole::default();
        let (mut has_begun, mut offset) = (false, 0);
        loop {
            // Someone who has left is noticed while nothing is said, too.
            let heard = tokio::select! {
                heard = choice.next() => heard?,
                () = events.closed() => return None,
            };
            if !has_begun && matches!(heard, Heard::Said { .. } | Heard::End(_)) {
                has_begun = true;
                match self.opening(place, &whole.prompt, &mut offset) {
                    Ok(None) => (),
                    Ok(Some(opening)) => events.send(&self.chunk(json!([opening]))).await?,
                    Err(error) => {
                        events.fail(error).await?;
                        return Some(whole);
                    }
                }
            }
            let mut piece = |text: &str, tokens: &[Token], reason: Option<Reason>| {
                self.chunk(json!([self.piece(
                    index,
                    text,
                    tokens,
                    &mut offset,
                    reason
                )]))
            };
            match heard {
                Heard::Begun { n_cached } => whole.n_cached = n_cached,
                Heard::Read(token) => whole.prompt.push(token),
                Heard::Said { text, token } => {
                    let tokens: Vec<Token> = self.told(token).into_iter().collect();
                    let is_told = self.asked.wish.n_top.is_some() && !tokens.is_empty();
                    if !text.is_empty() || is_told {
                        events.send(&piece(&text, &tokens, None)).await?;
                    }
                }
                Heard::End(end) => {
                    if !end.rest.is_empty() {
                        events.send(&piece(&end.rest, &[], None)).await?;
                    }
                    events.send(&piece("", &[], Some(end.reason))).await?;
                    whole.n_tokens = end.n_tokens;
                    return Some(whole);
                }
                Heard::Failed(reason) => {
                    let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, reason);
                    events.fail(error).await?;
                    return Some(whole);
                }
            }
        }
    }

    /// What stands before an answer: whose turn it is, or the prompt with how likely it was.
    fn opening(
        &self,
        (index, prompt, _): Place,
        read: &[Token],
        offset: &mut usize,
    ) -> Result<Option<Value>, ApiError> {
        if self.form == Form::Chat {
            let delta = json!({ "role": "assistant", "content": "" });
            return Ok(Some(
                json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }),
            ));
        }
        if !self.has_echo {
            return Ok(None);
        }
        let text = self.echo(prompt)?;
        let first = Some(self.prompts[prompt][0]);
        let tokenizer = &self.served().tokenizer;
        let is_told = self.asked.wish.n_top.is_some();
        let logprobs = is_told.then(|| logprobs::of_text(tokenizer, first, read, offset));
        Ok(Some(
            json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": null }),
        ))
    }

    /// A token whose likelihood is told. What ends an answer is one of a text's tokens: who scores a
    /// prompt asks for one token more and cuts off the last.
    fn told(&self, token: Token) -> Option<Token> {
        (self.form == Form::Text || !token.is_stop).then_some(token)
    }

    fn piece(
        &self,
        index: usize,
        text: &str,
        tokens: &[Token],
        offset: &mut usize,
        reason: Option<Reason>,
    ) -> Value {
        let tokenizer = &self.served().tokenizer;
        let is_told = self.asked.wish.n_top.is_some() && !tokens.is_empty();
        if self.form == Form::Text {
            let logprobs = is_told.then(|| logprobs::of_text(tokenizer, None, tokens, offset));
            let shown = json!({ "index": index, "text": text, "logprobs": logprobs });
            return ended(shown, reason);
        }
        let delta = match reason {
            Some(_) if text.is_empty() => json!({}),
            _ => json!({ "content": text }),
        };
        let logprobs = is_told.then(|| logprobs::of_chat(tokenizer, tokens));
        let shown = json!({ "index": index, "delta": delta, "logprobs": logprobs });
        ended(shown, reason)
    }
}

/// Says of a choice why it ended, if it did.
fn ended(mut choice: Value, reason: Option<Reason>) -> Value {
    choice["finish_reason"] = json!(reason.map(Reason::name));
    if let Some(reason) = reason {
        choice["stop_reason"] = json!(reason.more());
    }
    choice
}

#[derive(Default)]
struct Usage {
    n_prompt: usize,
    n_cached: usize,
    n_answer: usize,
}

impl Usage {
    fn add(&mut self, whole: &Whole, n_prompt: usize, is_first: bool) {
        if is_first {
            self.n_prompt += n_prompt;
            self.n_cached += whole.n_cached;
        }
        self.n_answer += whole.n_tokens;
    }

    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.n_prompt,
            "completion_tokens": self.n_answer,
            "total_tokens": self.n_prompt + self.n_answer,
            "prompt_tokens_details": { "cached_tokens": self.n_cached },
        })
    }
}
