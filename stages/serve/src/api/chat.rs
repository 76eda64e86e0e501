//! `/v1/chat/completions`: a dialogue, of which the next turn is the model's.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde_json::Value;
use tinylm_stages::shared::{speak::Prompt, template::Role};

use super::{
    answer::{Form, Job},
    ask::{Asked, too_long},
    body::Body,
    known,
    state::State as Shared,
};
use crate::{Served, error::ApiError, params::Params};

pub(super) async fn answer(
    State(state): State<Arc<Shared>>,
    body: Body,
) -> Result<Response, ApiError> {
    let job = |params: &Params| job(&state, params);
    body.understood(&state, job).await?.answer().await
}

fn job(state: &Arc<Shared>, params: &Params) -> Result<Job, ApiError> {
    known::CHAT.check(params)?;
    let mut asked = Asked::of(state, params)?;
    let dialogue = Dialogue::of(params)?;
    let is_strict = match params.text("on_overflow")? {
        None | Some("drop") => false,
        Some("error") => true,
        Some(_) => {
            let message = "`on_overflow` is `drop`, the oldest turns leave, or `error`";
            return Err(ApiError::wrong("on_overflow", message));
        }
    };
    let served = &state.models[asked.model];
    let usual = served.context() / 4;
    let prompt = dialogue.prompt(served, asked.n_max.unwrap_or(usual), is_strict)?;
    asked.fit(served, ("messages", prompt.ids.len()), usize::MAX)?;
    Job::new(
        Arc::clone(state),
        asked,
        Form::Chat,
        vec![prompt.ids],
        false,
    )
}

/// What has been said so far.
pub(super) struct Dialogue {
    system: Option<String>,
    turns: Vec<(Role, String)>,
}

impl Dialogue {
    pub(super) fn of(params: &Params) -> Result<Dialogue, ApiError> {
        let messages = params.need("messages")?.as_array();
        let messages = messages.ok_or_else(|| wrong("`messages` must be a list".to_owned()))?;
        let (mut system, mut turns) = (None, Vec::new());
        for (idx, message) in messages.iter().enumerate() {
            check(idx, message)?;
            let content = content(idx, message)?;
            match message["role"].as_str() {
                Some("system" | "developer") if turns.is_empty() && system.is_none() => {
                    system = Some(content);
                }
                Some("system" | "developer") => {
                    return Err(wrong(format!(
                        "messages[{idx}]: a system message stands first, and once"
                    )));
                }
                Some("user") => turns.push((Role::User, content)),
                Some("assistant") => turns.push((Role::Assistant, content)),
                Some(role @ ("tool" | "function")) => {
                    return Err(ApiError::missing("messages").with(format!(
                        "messages[{idx}]: the role `{role}` is not supported by this server"
                    )));
                }
                _ => {
                    return Err(wrong(format!(
                        "messages[{idx}]: `role` must be system, user or assistant"
                    )));
                }
            }
        }
        match turns.is_empty() {
            true => Err(wrong("`messages` has no turn to answer".to_owned())),
            false => Ok(Dialogue { system, turns }),
        }
    }

    /// The ids to be continued; the oldest turns leave where all are too many, unless that is an error.
    pub(super) fn prompt(
        &self,
        served: &Served,
        n_max: usize,
        is_strict: bool,
    ) -> Result<Prompt, ApiError> {
        let context = served.context();
        let room = (context, n_max);
        let prompt = Prompt::of_chat(&served.tokenizer, self.system.as_deref(), &self.turns, room);
        let prompt = prompt.map_err(|error| wrong(error.to_string()))?;
        if is_strict && prompt.n_turns_left_out > 0 {
            let whole = Prompt::of_chat(
                &served.tokenizer,
                self.system.as_deref(),
                &self.turns,
                (usize::MAX, 0),
            );
            let n = whole.map_or(prompt.ids.len(), |whole| whole.ids.len());
            return Err(too_long("messages", n, context));
        }
        Ok(prompt)
    }
}

/// Refuses what a message has beside its text, `tool_calls` for one. A `name` is a note.
fn check(idx: usize, message: &Value) -> Result<(), ApiError> {
    let parts = message.as_object().into_iter().flatten();
    let mut others =
        parts.filter(|(name, _)| !["role", "content", "name"].contains(&name.as_str()));
    match others.find(|(_, value)| !known::is_empty(value)) {
        Some((name, _)) => Err(ApiError::missing("messages").with(format!(
            "messages[{idx}]: `{}` is not supported by this server",
            known::shown(name)
        ))),
        None => Ok(()),
    }
}

/// A message's text: a string, or parts that are texts.
fn content(idx: usize, message: &Value) -> Result<String, ApiError> {
    match &message["content"] {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut texts = String::new();
            for part in parts {
                match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text"), Some(text)) => texts.push_str(text),
                    (Some(kind), _) if kind != "text" => {
                        return Err(ApiError::missing("messages").with(format!("messages[{idx}]: content of the type `{kind}` is not supported by this server")));
                    }
                    _ => {
                        return Err(wrong(format!(
                            "messages[{idx}]: a part of `content` has no text"
                        )));
                    }
                }
            }
            Ok(texts)
        }
        Value::Null if message["role"] == "assistant" => Ok(String::new()),
        _ => Err(wrong(format!("messages[{idx}]: `content` must be a text"))),
    }
}

fn wrong(message: String) -> ApiError {
    ApiError::wrong("messages", message)
}
