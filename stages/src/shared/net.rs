//! Asking the network, patiently.
//!
//! Every wait has an end, and the stage can be stopped in any of them. What may pass
//! (a reset, a stall, 429, 5xx, a body that ends early) is tried again after a pause
//! that doubles; what arrived before is kept, and only the rest is asked for.

use std::{
    collections::HashSet,
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, LINK, RANGE, RETRY_AFTER},
};
use serde_json::Value;
use tinylm_pipeline::{Outside, StageError, secrets::masked};
use tokio::{runtime::Runtime, time::timeout};

/// How long is waited, and how often it is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    /// The longest that nothing may come.
    pub(crate) stall: Duration,
    /// Attempts in a row of which none brought a byte.
    pub(crate) attempts: u32,
    pub(crate) pause: Duration,
    pub(crate) pause_max: Duration,
    /// Pages of one list; with a thousand files each in the hub's.
    pub(crate) pages: usize,
    /// The longest body whose length nobody has promised.
    pub(crate) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            attempts: 6,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
            pages: 10_000,
            bytes: 64 << 30,
        }
    }
}

/// The longest answer that is held in memory, and the longest list: a page of the hub has some
/// hundred kilobytes, and its largest repositories some hundred thousand files.
const DOCUMENT_MAX: usize = 32 << 20;
const LIST_MAX: usize = 1_000_000;

/// Pauses from here on are told.
const NOTICED: Duration = Duration::from_secs(1);

/// Whether the stage goes on is asked this often.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Net {
    pub(crate) client: reqwest::Client,
    pub(crate) runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) outside: Outside,
}

/// The time until the next attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    length: Duration,
    /// As the server would have it.
    asked: Option<Duration>,
}

/// A question to a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) url: String,
    /// The address as it may be shown, without its secrets.
    pub(crate) shown: String,
    pub(crate) bearer: Option<String>,
    pub(crate) basic: Option<(String, String)>,
}

/// Why an attempt brought nothing (more).
pub(crate) enum Failure {
    /// It may be otherwise in a moment.
    Passing {
        why: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// The server's answer, which will not change.
    Answer {
        status: u16,
        code: String,
        message: String,
    },
    Stage(StageError),
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self::Stage(error)
    }
}

/// A server that asks for more than it should get.
fn distrusted(request: &Request, what: &str) -> Failure {
    let message = format!("`{}` {}", request.shown, masked(what).escape_debug());
    Failure::Stage(
        StageError::new(message)
            .help("look at what HF_ENDPOINT names; a hub of Hugging Face's own does not do that")
            .is_final(),
    )
}

impl Request {
    pub(crate) fn new(url: String) -> Self {
        Self {
            shown: masked(&url),
            url,
            ..Self::default()
        }
    }
}

/// Returns the server that an address is on: its scheme, host and port.
fn origin(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(url.origin().ascii_serialization())
}

pub(crate) fn passing(why: impl std::fmt::Display) -> Failure {
    Failure::Passing {
        why: why.to_string(),
        after: None,
    }
}

/// reqwest hides the reason in the sources of an error.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut source: &dyn std::error::Error = &error;
    while let Some(deeper) = source.source() {
        source = deeper;
    }
    source.to_string()
}

impl Net {
    pub(crate) fn new(outside: &Outside) -> Result<Self, StageError> {
        Self::with_limits(outside, Limits::default())
    }

    pub(crate) fn with_limits(outside: &Outside, limits: Limits) -> Result<Self, StageError> {
        // One library for encryption in the whole program; a second call finds it installed.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let client = reqwest::Client::builder()
            .user_agent(concat!("tinylm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.stall)
            .build()
            .map_err(|error| StageError::new(format!("no way to the network: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StageError::new(format!("no way to the network: {error}")))?;
        Ok(Self {
            client,
            runtime,
            limits,
            outside: outside.clone(),
        })
    }

    /// Waits for `future`, unless whoever asks should stop.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, StageError> {
        let stop = &self.outside.stop;
        self.runtime.block_on(until_stopped(future, stop))
    }

    /// Refuses to go on where the network may not be asked.
    pub(crate) fn check_online(&self, what: &str) -> Result<(), StageError> {
        if self.outside.offline {
            let message = format!("`{what}` must be asked for, and the network is off");
            return Err(StageError::new(message)
                .help("unset HF_HUB_OFFLINE and TINYLM_OFFLINE, and run the same command again")
                .is_final());
        }
        Ok(())
    }

    /// Asks for a small JSON document.
    pub(crate) fn json(&self, request: &Request) -> Result<Value, Failure> {
        self.page(request).map(|(value, _)| value)
    }

    /// `json` of a long list, which comes in pages.
    ///
    /// The server says where the next page is, and is not believed further than it should be: the
    /// token goes to no other server, no page is asked for twice, and a list has an end.
    pub(crate) fn json_list(&self, request: &Request) -> Result<Vec<Value>, Failure> {
        let mut request = request.clone();
        let mut asked = HashSet::from([request.url.clone()]);
        let mut entries = Vec::new();
        loop {
            let (page, next) = self.page(&request)?;
            if let Value::Array(page) = page {
                entries.extend(page);
            }
            let Some(url) = next else {
                return Ok(entries);
            };
            if origin(&url) != origin(&request.url) {
                return Err(distrusted(
                    &request,
                    &format!("sends on to `{url}`, another server"),
                ));
            }
            if entries.len() > LIST_MAX
                || asked.len() >= self.limits.pages
                || !asked.insert(url.clone())
            {
                return Err(distrusted(&request, "sends a list that has no end"));
            }
            request.shown = masked(&url);
            request.url = url;
        }
    }

    /// Returns a JSON document and the address of the next one.
    fn page(&self, request: &Request) -> Result<(Value, Option<String>), Failure> {
        let mut n_failed = 0;
        loop {
            let asked = self.block_on(self.page_once(request))?;
            n_failed += 1;
            match asked {
                Err(Failure::Passing { why, after }) if n_failed < self.limits.attempts => {
                    let pause = self.pause(n_failed, after);
                    self.tell(&request.shown, &why, n_failed, pause, |told| {
                        self.say(&told)
                    });
                    wait(pause, &self.outside.stop)?;
                }
                other => return other,
            }
        }
    }

    async fn page_once(&self, request: &Request) -> Result<(Value, Option<String>), Failure> {
        let mut response = self.ask(request, 0).await?;
        let next = next_page(response.headers(), &request.url);
        let mut body = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| passing(reason(error)))?
        {
            body.extend_from_slice(&part);
            if body.len() > DOCUMENT_MAX {
                return Err(distrusted(request, "sends an answer that has no end"));
            }
        }
        let value =
            serde_json::from_slice(&body).map_err(|error| passing(format!("no JSON: {error}")))?;
        Ok((value, next))
    }

    /// Sends the request and returns a good answer.
    pub(crate) async fn ask(&self, request: &Request, from: u64) -> Result<Response, Failure> {
        let mut builder = self.client.get(&request.url);
        if let Some(token) = &request.bearer {
            builder = builder.bearer_auth(token);
        }
        if let Some((user, key)) = &request.basic {
            builder = builder.basic_auth(user, Some(key));
        }
        if from > 0 {
            builder = builder.header(RANGE, format!("bytes={from}-"));
        }
        let response = builder.send().await.map_err(|error| {
            if error.is_builder() {
                let message = format!("`{}` is no address: {}", request.shown, reason(error));
                Failure::Stage(StageError::new(message).is_final())
            } else {
                passing(reason(error))
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let may_pass = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        if may_pass {
            return Err(Failure::Passing {
                why: format!("the server answers {status}"),
                after: retry_after(response.headers()),
            });
        }
        let header = |name: &str| {
            let value = response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Err(Failure::Answer {
            status: status.as_u16(),
            code: header("x-error-code"),
            message: header("x-error-message"),
        })
    }

    /// Tells of a wait that a person would notice, and when it will be over for good.
    pub(crate) fn tell(
        &self,
        shown: &str,
        why: &str,
        n_failed: u32,
        pause: Pause,
        say: impl Fn(String),
    ) {
        let Pause { length, asked } = pause;
        if asked.is_none() && length < NOTICED {
            return;
        }
        let asks = asked.map_or(String::new(), |asked| {
            format!(" and asks to wait for {} s", asked.as_secs())
        });
        let left = self.limits.attempts - n_failed;
        say(format!(
            "`{shown}`: {why}{asks}; asking again in {:.0} s, and giving up when {left} more attempts bring nothing",
            length.as_secs_f64()
        ));
    }

    /// Says something where no stage can.
    pub(crate) fn say(&self, told: &str) {
        if let Some(tell) = self.outside.tell {
            tell(told);
        }
    }

    pub(crate) fn pause(&self, n_failed: u32, asked: Option<Duration>) -> Pause {
        let doubled = self.limits.pause * 2_u32.saturating_pow(n_failed.min(10).saturating_sub(1));
        let length = asked.unwrap_or(doubled).min(self.limits.pause_max);
        Pause { length, asked }
    }

    /// Waits for `future`, but not for ever, and not once `stop` is set.
    pub(crate) async fn watched<F: Future>(
        &self,
        future: F,
        stop: &AtomicBool,
    ) -> Result<F::Output, Failure> {
        match timeout(self.limits.stall, until_stopped(future, stop)).await {
            Ok(output) => Ok(output?),
            Err(_) => {
                let seconds = self.limits.stall.as_secs_f64();
                Err(passing(format!("nothing came for {seconds} seconds")))
            }
        }
    }
}

async fn until_stopped<F: Future>(future: F, stop: &AtomicBool) -> Result<F::Output, StageError> {
    let mut future = std::pin::pin!(future);
    while !stop.load(Ordering::Relaxed) {
        if let Ok(output) = timeout(TICK, &mut future).await {
            return Ok(output);
        }
    }
    Err(StageError::cancelled())
}

pub(crate) fn wait(pause: Pause, stop: &AtomicBool) -> Result<(), StageError> {
    let pause = pause.length;
    let until = Instant::now() + pause;
    while Instant::now() < until {
        if stop.load(Ordering::Relaxed) {
            return Err(StageError::cancelled());
        }
        std::thread::sleep(TICK.min(pause));
    }
    Ok(())
}

/// Returns the address that `Link: <..>; rel="next"` names.
fn next_page(headers: &HeaderMap, base: &str) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, address) = next.split_once('<')?;
    let address = address.split_once('>')?.0;
    let next = reqwest::Url::parse(base).ok()?.join(address).ok()?;
    Some(next.to_string())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}
