//! One answer as it comes out of the engine: ids become text, and stop texts end it.

use std::time::Duration;

use tinylm_stages::shared::{speak::Spoken, tokens::Tokenizer};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, timeout_at},
};

use crate::engine::{Token, Told};

/// What is heard of an answer.
#[derive(Debug)]
pub(crate) enum Heard {
    Begun {
        n_cached: usize,
    },
    /// A token of the prompt.
    Read(Token),
    /// A token of the answer, and the text that can go out now.
    Said {
        text: String,
        token: Token,
    },
    End(End),
    Failed(String),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Reason {
    Stop,
    /// As many tokens as were asked for, or as the context has.
    #[default]
    Length,
    /// The server's limit.
    Time,
}

impl Reason {
    /// In the words of OpenAI, who have none for time: clients refuse words that they do not know.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Stop => "stop",
            Reason::Length | Reason::Time => "length",
        }
    }

    /// What the name does not say, under `stop_reason`, where other servers have such things.
    pub(crate) fn more(self) -> Option<&'static str> {
        (self == Reason::Time).then_some("time_limit")
    }
}

#[derive(Debug)]
pub(crate) struct End {
    /// What was held back.
    pub(crate) rest: String,
    pub(crate) reason: Reason,
    pub(crate) n_tokens: usize,
}

pub(crate) struct Choice<'a> {
    told: UnboundedReceiver<Told>,
    spoken: Option<Spoken<'a>>,
    n_tokens: usize,
    deadline: Instant,
    is_stopped: bool,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(
        told: UnboundedReceiver<Told>,
        tokenizer: &'a Tokenizer,
        stops: &'a [String],
        limit: Duration,
    ) -> Choice<'a> {
        Choice {
            told,
            spoken: Some(Spoken::new(tokenizer, stops)),
            n_tokens: 0,
            deadline: Instant::now() + limit,
            is_stopped: false,
        }
    }

    /// Returns what comes next; none behind the end.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        if self.is_stopped {
            return self.end(Reason::Stop);
        }
        let spoken = self.spoken.as_mut()?;
        match timeout_at(self.deadline, self.told.recv()).await {
            Err(_) => self.end(Reason::Time),
            Ok(None) => self.end(Reason::Length),
            Ok(Some(Told::Begun { n_cached })) => Some(Heard::Begun { n_cached }),
            Ok(Some(Told::Read(token))) => Some(Heard::Read(token)),
            Ok(Some(Told::Failed(reason))) => {
                self.spoken = None;
                Some(Heard::Failed(reason))
            }
            Ok(Some(Told::Token(token))) => {
                self.n_tokens += 1;
                let text = match token.is_stop {
                    true => Ok(String::new()),
                    false => spoken.push(token.id),
                };
                self.is_stopped = token.is_stop || spoken.is_stopped();
                match text {
                    Ok(text) => Some(Heard::Said { text, token }),
                    Err(error) => Some(Heard::Failed(error.to_string())),
                }
            }
        }
    }

    fn end(&mut self, reason: Reason) -> Option<Heard> {
        // The engine takes a closed channel for a client that has gone.
        self.told.close();
        Some(match self.spoken.take()?.finish() {
            Ok(last) => Heard::End(End {
                rest: last.rest,
                reason: if last.is_stopped {
                    Reason::Stop
                } else {
                    reason
                },
                n_tokens: self.n_tokens,
            }),
            Err(error) => Heard::Failed(error.to_string()),
        })
    }
}
