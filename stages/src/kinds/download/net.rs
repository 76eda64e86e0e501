//! Asking the network, patiently.
//!
//! Every wait has an end, and the stage can be stopped in any of them. What may pass
//! (a reset, a stall, 429, 5xx, a body that ends early) is tried again after a pause
//! that doubles; what arrived before is kept, and only the rest is asked for.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    future::Future,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, HeaderMap, LINK, RANGE, RETRY_AFTER},
};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tinylm_pipeline::{At, Outside, StageError, StageIo};
use tokio::{runtime::Runtime, time::timeout};

use super::sample::Cut;

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            attempts: 6,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
        }
    }
}

/// The longest answer that is held in memory, and the longest list: a page of the hub has some
/// hundred kilobytes, and its largest repositories some hundred thousand files.
const DOCUMENT_MAX: usize = 32 << 20;
const LIST_MAX: usize = 1_000_000;

/// Whether the stage goes on is asked this often.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Net {
    pub(crate) client: reqwest::Client,
    runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) outside: Outside,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) url: String,
    pub(super) bearer: Option<String>,
    pub(super) basic: Option<(String, String)>,
}

/// What a body must turn out to be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Expected {
    pub(super) bytes: Option<u64>,
    pub(super) digests: Vec<(Algorithm, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Blake3,
    Sha256,
    /// Git's digest of a file: SHA-1 with the length in front.
    Git,
}

/// Why an attempt brought nothing (more).
pub(super) enum Failure {
    /// It may be otherwise in a moment.
    Passing {
        why: String,
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
fn distrusted(url: &str, what: &str) -> Failure {
    let message = format!("`{url}` {}", what.escape_debug());
    Failure::Stage(
        StageError::new(message)
            .help("look at what HF_ENDPOINT names; a hub of Hugging Face's own does not do that")
            .is_final(),
    )
}

/// Returns the server that an address is on: its scheme, host and port.
fn origin(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(url.origin().ascii_serialization())
}

fn passing(why: impl std::fmt::Display) -> Failure {
    Failure::Passing {
        why: why.to_string(),
        after: None,
    }
}

/// reqwest hides the reason in the sources of an error.
fn reason(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
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
    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, StageError> {
        let stop = &self.outside.stop;
        self.runtime.block_on(until_stopped(future, stop))
    }

    /// Refuses to go on where the network may not be asked.
    pub(super) fn check_online(&self, what: &str) -> Result<(), StageError> {
        if self.outside.offline {
            let message = format!("`{what}` must be asked for, and the network is off");
            return Err(StageError::new(message)
                .help("unset HF_HUB_OFFLINE and TINYLM_OFFLINE, and run the same command again")
                .is_final());
        }
        Ok(())
    }

    /// Asks for a small JSON document.
    pub(super) fn json(&self, request: &Request) -> Result<Value, Failure> {
        self.page(request).map(|(value, _)| value)
    }

    /// `json` of a long list, which comes in pages.
    ///
    /// The server says where the next page is, and is not believed further than it should be: the
    /// token goes to no other server, no page is asked for twice, and a list has an end.
    pub(super) fn json_list(&self, request: &Request) -> Result<Vec<Value>, Failure> {
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
                    &request.url,
                    &format!("sends on to `{url}`, another server"),
                ));
            }
            if entries.len() > LIST_MAX || !asked.insert(url.clone()) {
                return Err(distrusted(&request.url, "sends a list that has no end"));
            }
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
                Err(Failure::Passing { after, .. }) if n_failed < self.limits.attempts => {
                    wait(self.pause(n_failed, after), &self.outside.stop)?;
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
            .map_err(|error| passing(reason(&error)))?
        {
            body.extend_from_slice(&part);
            if body.len() > DOCUMENT_MAX {
                return Err(distrusted(&request.url, "sends an answer that has no end"));
            }
        }
        let value =
            serde_json::from_slice(&body).map_err(|error| passing(format!("no JSON: {error}")))?;
        Ok((value, next))
    }

    /// Sends the request and returns a good answer.
    async fn ask(&self, request: &Request, from: u64) -> Result<Response, Failure> {
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
                let message = format!("`{}` is no address: {}", request.url, reason(&error));
                Failure::Stage(StageError::new(message).is_final())
            } else {
                passing(reason(&error))
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

    fn pause(&self, n_failed: u32, after: Option<Duration>) -> Duration {
        let doubled = self.limits.pause * 2_u32.saturating_pow(n_failed.min(10).saturating_sub(1));
        after.unwrap_or(doubled).min(self.limits.pause_max)
    }

    /// Brings a body into `to`, where some of it may stand already. With `cut`, no more
    /// than is wanted, and then nothing can be checked.
    pub(super) fn fetch(
        &self,
        request: &Request,
        expected: &Expected,
        to: &Path,
        cut: Option<Cut>,
        io: &StageIo,
        progress: &dyn Fn(u64) -> Result<(), StageError>,
    ) -> Result<(), Failure> {
        let attempt = Attempt {
            net: self,
            request,
            expected,
            to,
            cut: cut.as_ref(),
            io,
            progress,
        };
        let mut failed = Failed::default();
        loop {
            let before = so_far(to, expected)?;
            failed.longest = failed.longest.max(before.unwrap_or(0));
            let rest = cut.clone().map(|cut| cut.behind(to)).transpose()?;
            if rest.as_ref().is_some_and(Cut::is_full) {
                return Ok(());
            }
            if before.is_some() && before == expected.bytes {
                break;
            }
            let going = attempt.go(before.unwrap_or(0), rest);
            match self.runtime.block_on(going) {
                Ok(Ended::Cut) => return Ok(()),
                Ok(Ended::Whole) => break,
                Err(Failure::Passing { why, after }) => {
                    failed.again(fs::metadata(to).map_or(0, |file| file.len()));
                    if failed.n >= self.limits.attempts {
                        return Err(Failure::Stage(self.gave_up(request, &why, failed.n)));
                    }
                    wait(self.pause(failed.n, after), io.cancel_flag())?;
                }
                Err(other) => return Err(other),
            }
        }
        verify(to, expected, &request.url).map_err(Failure::Stage)
    }

    /// Reads a body through for its blake3 digest and its length.
    pub(super) fn digest(&self, request: &Request) -> Result<(String, u64), Failure> {
        let mut seen = Seen::default();
        let mut failed = Failed::default();
        loop {
            match self.runtime.block_on(seen.go_on(self, request)) {
                Ok(()) => break,
                Err(Failure::Passing { why, after }) => {
                    failed.again(seen.n_bytes);
                    if failed.n >= self.limits.attempts {
                        return Err(passing(why));
                    }
                    wait(self.pause(failed.n, after), &self.outside.stop)?;
                }
                Err(other) => return Err(other),
            }
        }
        Ok((seen.hasher.finalize().to_hex().to_string(), seen.n_bytes))
    }

    fn gave_up(&self, request: &Request, why: &str, n_failed: u32) -> StageError {
        let message = format!("`{}` did not come, tried {n_failed} times", request.url);
        StageError::new(message)
            .cause(why)
            .kept("what had arrived; the next attempt asks for the rest")
            .help("run the same command again when the network is better")
    }

    /// Waits for `future`, but not for ever, and not once `stop` is set.
    async fn watched<F: Future>(&self, future: F, stop: &AtomicBool) -> Result<F::Output, Failure> {
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

fn wait(pause: Duration, stop: &AtomicBool) -> Result<(), StageError> {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        if stop.load(Ordering::Relaxed) {
            return Err(StageError::cancelled());
        }
        std::thread::sleep(TICK.min(pause));
    }
    Ok(())
}

/// Attempts in a row of which none came further than all before: a server that always
/// starts again would else be asked for ever.
#[derive(Default)]
struct Failed {
    n: u32,
    longest: u64,
}

impl Failed {
    fn again(&mut self, n_bytes: u64) {
        self.n = if n_bytes > self.longest {
            1
        } else {
            self.n + 1
        };
        self.longest = self.longest.max(n_bytes);
    }
}

/// As much of a body as was read through.
#[derive(Default)]
struct Seen {
    hasher: blake3::Hasher,
    n_bytes: u64,
}

impl Seen {
    /// Reads on to the end. Should what lies there have changed meanwhile, the digest is of
    /// nothing that ever was, and the download that follows refuses it.
    async fn go_on(&mut self, net: &Net, request: &Request) -> Result<(), Failure> {
        let stop = &net.outside.stop;
        let asked = net.watched(net.ask(request, self.n_bytes), stop).await?;
        let mut response = match asked {
            Err(Failure::Answer { status: 416, .. }) if self.n_bytes > 0 => {
                *self = Self::default();
                return Err(passing("the server does not know the rest"));
            }
            other => other?,
        };
        if !continues(&response, self.n_bytes) {
            *self = Self::default();
        }
        loop {
            let chunk = net.watched(response.chunk(), stop).await?;
            let Some(chunk) = chunk.map_err(|error| passing(reason(&error)))? else {
                return Ok(());
            };
            self.hasher.update(&chunk);
            self.n_bytes += chunk.len() as u64;
        }
    }
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

/// Returns how much of a body is there; more than can be is dropped.
fn so_far(to: &Path, expected: &Expected) -> Result<Option<u64>, StageError> {
    let Ok(metadata) = fs::metadata(to) else {
        return Ok(None);
    };
    if expected.bytes.is_some_and(|bytes| metadata.len() > bytes) {
        fs::remove_file(to).at(to)?;
        return Ok(None);
    }
    Ok(Some(metadata.len()))
}

/// One connection's worth of a body.
struct Attempt<'a> {
    net: &'a Net,
    request: &'a Request,
    expected: &'a Expected,
    to: &'a Path,
    /// What is wanted of the body from its first byte on.
    cut: Option<&'a Cut>,
    io: &'a StageIo<'a>,
    progress: &'a dyn Fn(u64) -> Result<(), StageError>,
}

/// Why nothing more is asked for.
enum Ended {
    Whole,
    Cut,
}

impl Attempt<'_> {
    /// Asks for what stands behind the first `before` bytes, of which `rest` is wanted.
    async fn go(&self, before: u64, mut rest: Option<Cut>) -> Result<Ended, Failure> {
        let stop = self.io.cancel_flag();
        let asked = self
            .net
            .watched(self.net.ask(self.request, before), stop)
            .await?;
        let mut response = match asked {
            // What is here is not the beginning of what is there.
            Err(Failure::Answer { status: 416, .. }) => {
                fs::remove_file(self.to).at(self.to)?;
                return Err(passing("the server does not know the rest"));
            }
            other => other?,
        };
        let start = if continues(&response, before) {
            before
        } else {
            rest = self.cut.cloned();
            0
        };
        let mut file = self.open(start)?;
        let mut n_bytes = start;
        loop {
            let chunk = self.net.watched(response.chunk(), stop).await?;
            let Some(chunk) = chunk.map_err(|error| passing(reason(&error)))? else {
                break;
            };
            let n_taken = rest.as_mut().map_or(chunk.len(), |rest| rest.take(&chunk));
            file.write_all(&chunk[..n_taken]).at(self.to)?;
            n_bytes += n_taken as u64;
            (self.progress)(n_bytes)?;
            if rest.as_ref().is_some_and(Cut::is_full) {
                return Ok(Ended::Cut);
            }
            if self.expected.bytes.is_some_and(|bytes| n_bytes > bytes) {
                break;
            }
        }
        match self.expected.bytes {
            Some(bytes) if n_bytes < bytes => Err(passing(format!(
                "the body ended after {n_bytes} of {bytes} bytes"
            ))),
            _ => Ok(Ended::Whole),
        }
    }

    fn open(&self, start: u64) -> Result<File, StageError> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.to)
            .at(self.to)?;
        file.set_len(start).at(self.to)?;
        file.seek(SeekFrom::Start(start)).at(self.to)?;
        Ok(file)
    }
}

/// Whether an answer holds what comes behind the first `before` bytes.
fn continues(response: &Response, before: u64) -> bool {
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    response.status() == StatusCode::PARTIAL_CONTENT
        && start.and_then(|start| start.parse().ok()) == Some(before)
}

/// Checks a whole body; one that is wrong is not kept.
pub(super) fn verify(path: &Path, expected: &Expected, name: &str) -> Result<(), StageError> {
    let Err(error) = check(path, expected, name) else {
        return Ok(());
    };
    fs::remove_file(path).at(path)?;
    Err(error)
}

/// `verify` that leaves the file alone.
pub(super) fn check(path: &Path, expected: &Expected, name: &str) -> Result<(), StageError> {
    let n_bytes = fs::metadata(path).at(path)?.len();
    if expected.bytes.is_some_and(|bytes| bytes != n_bytes) {
        let bytes = expected.bytes.unwrap_or_default();
        let message = format!("`{name}` has {n_bytes} bytes where {bytes} were promised");
        return Err(wrong(message));
    }
    for (algorithm, wanted) in &expected.digests {
        let found = algorithm.digest(path)?;
        if !found.eq_ignore_ascii_case(wanted) {
            let algorithm = algorithm.name();
            return Err(wrong(format!(
                "`{name}` has the {algorithm} digest {found}, not {wanted}"
            )));
        }
    }
    Ok(())
}

fn wrong(message: String) -> StageError {
    StageError::new(message)
        .help("what lies there has changed: `tinylm update` takes it as it is now")
        .is_final()
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Git => "git",
        }
    }

    pub(super) fn digest(self, path: &Path) -> Result<String, StageError> {
        match self {
            Self::Blake3 => Ok(crate::shared::files::digest(path)?.to_hex().to_string()),
            Self::Sha256 => read_into(path, Sha256::new()),
            Self::Git => {
                let n_bytes = fs::metadata(path).at(path)?.len();
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {n_bytes}\0"));
                read_into(path, hasher)
            }
        }
    }
}

fn read_into<D: Digest>(path: &Path, mut hasher: D) -> Result<String, StageError> {
    let mut file = File::open(path).at(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n_read = file.read(&mut buffer).at(path)?;
        if n_read == 0 {
            break;
        }
        hasher.update(&buffer[..n_read]);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
