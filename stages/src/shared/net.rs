//! Asking the network, patiently.
//!
//! Every wait has an end, and the stage can be stopped in any of them. What may pass
//! (a reset, a stall, 429, 5xx, a body that ends early) is tried again after a pause
//! that doubles; what arrived before is kept, and only the rest is asked for.

use std::{
    collections::HashSet,
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reqwest::{
    Response, StatusCode,
    header::{DATE, HeaderMap, LINK, RANGE, RETRY_AFTER},
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

/// In the reason of a failure that lasts as long as this machine has no network.
const UNRESOLVED: &str = "cannot be resolved";

/// reqwest hides the reason in the sources of an error.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let host = error
        .url()
        .and_then(|url| url.host_str().map(str::to_owned));
    let error = error.without_url();
    let mut source: &dyn std::error::Error = &error;
    let mut is_of_name = false;
    while let Some(deeper) = source.source() {
        source = deeper;
        is_of_name |= source.to_string().starts_with("dns error");
    }
    match host {
        Some(host) if is_of_name => format!(
            "the name `{host}` {UNRESOLVED} ({source}): there is no network, or the name is wrong"
        ),
        _ => source.to_string(),
    }
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

    /// Asks once and not for long, for the sake of the answer alone.
    pub(crate) fn reach(&self, request: &Request) -> Result<(), Failure> {
        let stop = &self.outside.stop;
        let asked = self.watched(self.ask(request, 0), stop);
        self.runtime.block_on(asked)?.map(drop)
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
        let is_told_at_once = asked.is_some() || why.contains(UNRESOLVED);
        if !is_told_at_once && length < NOTICED {
            return;
        }
        let asks = asked.map_or(String::new(), |asked| {
            format!(" and asks to wait for {} s", asked.as_secs())
        });
        let left = self.limits.attempts - n_failed;
        say(format!(
            "`{shown}`: {why}{asks}; asking again in {} s, and giving up when {left} more attempts bring nothing",
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

/// Returns how long a server asks to wait: so many seconds, or until a date. That is taken by the
/// server's own clock, where it tells the time.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = value.parse().ok().or_else(|| {
        let now = headers.get(DATE).and_then(|date| date.to_str().ok());
        let now = now.and_then(seconds_at).or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.ok().map(|since| since.as_secs())
        });
        Some(seconds_at(value)?.saturating_sub(now?))
    });
    seconds.map(Duration::from_secs)
}

/// Returns the seconds from 1970 to a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_at(date: &str) -> Option<u64> {
    const MONTHS: &str = "Mar Apr May Jun Jul Aug Sep Oct Nov Dec Jan Feb";
    let words: Vec<&str> = date.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else {
        return None;
    };
    let month = MONTHS.split(' ').position(|name| name == *month)? as u64;
    // A year that begins in March has its leap day at the end.
    let year = year
        .parse::<u64>()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?
        - u64::from(month >= 10);
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    let day: u64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let clock: Vec<u64> = time
        .split(':')
        .filter_map(|part| part.parse().ok())
        .collect();
    let [hours, minutes, seconds] = clock.try_into().ok().filter(|clock: &[u64; 3]| {
        let [hours, minutes, seconds] = clock;
        *hours < 24 && *minutes < 60 && *seconds < 61
    })?;
    // The first of March of the year 0 is so many days before 1970.
    let days = (days + day - 1).checked_sub(719_468)?;
    Some(86_400 * days + 3_600 * hours + 60 * minutes + seconds)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn asked(headers: &[(reqwest::header::HeaderName, &'static str)]) -> Option<u64> {
        let headers = headers.iter().cloned();
        let headers: HeaderMap = headers
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect();
        retry_after(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_as_a_date() {
        assert_eq!(asked(&[(RETRY_AFTER, "7")]), Some(7));
        let now = (DATE, "Wed, 28 Feb 2024 23:59:50 GMT");
        let until = |date| asked(&[now.clone(), (RETRY_AFTER, date)]);
        assert_eq!(until("Thu, 29 Feb 2024 00:00:05 GMT"), Some(15));
        assert_eq!(until("Fri, 01 Mar 2024 00:00:05 GMT"), Some(86_415));
        assert_eq!(until("Sat, 01 Jan 2000 00:00:00 GMT"), Some(0));
        assert_eq!(
            asked(&[(RETRY_AFTER, "Sat, 01 Jan 2000 00:00:00 GMT")]),
            Some(0)
        );
        for wrong in [
            "",
            "soon",
            "Thu, 29 Feb 2024 00:00:05",
            "a, 99 Mai 2024 1:1:1 GMT",
            "a, 1 Mar 2024 99:0:0 GMT",
            "a, 1 Jan 0 0:0:0 GMT",
        ] {
            assert_eq!(until(wrong), None, "{wrong}");
        }
        assert_eq!(
            seconds_at("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
    }

    #[test]
    fn a_name_that_cannot_be_resolved_is_told_at_once_and_by_name() {
        static TOLD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
        let outside = Outside {
            tell: Some(|line| TOLD.lock().unwrap().push(line.to_owned())),
            ..Outside::default()
        };
        let limits = Limits {
            attempts: 2,
            pause: Duration::from_millis(1),
            ..Limits::default()
        };
        let mut net = Net::with_limits(&outside, limits).unwrap();
        net.client = reqwest::Client::builder().no_proxy().build().unwrap();
        // A part of a name has 63 letters at most, so nobody need be asked.
        let name = format!("{}.invalid", "x".repeat(64));
        let request = Request::new(format!("http://{name}/api"));
        let Err(Failure::Passing { why, .. }) = net.json(&request) else {
            panic!("it answers");
        };
        assert!(
            why.contains(&format!("the name `{name}` cannot be resolved")),
            "{why}"
        );
        let told = TOLD.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&why), "{told:?}");
        assert_eq!(told[0].matches("http").count(), 1, "{told:?}");
    }
}
