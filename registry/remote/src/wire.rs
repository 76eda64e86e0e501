//! Asking a remote: with patience that ends, in a runtime of its own, as long as somebody waits.
//!
//! What may pass (a reset, a stall, 503) is tried again; a body that breaks off is gone on with where
//! it broke. Then the circuit opens, and nobody waits for this remote again for a while. Nothing is
//! built before the first question: a run that asks nothing pays nothing.

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::BoxStream};
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    http::HttpBuilder,
    local::LocalFileSystem,
    path::Path,
};
use tinylm_registry::{RemoteError, Watch};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::{
    address::{Address, OpenError},
    circuit::Circuit,
    credentials,
    fault::Fault,
    layout::path_below,
    settings::{Mode, Settings},
};

/// The longest that nothing may come, unless the settings say otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

const CONNECT: Duration = Duration::from_secs(5);

/// Whether somebody still waits is asked this often.
const TICK: Duration = Duration::from_millis(100);

/// What is under way when nobody waits any more may take this long to clean up behind itself.
const GRACE: Duration = Duration::from_millis(500);

/// Attempts in a row at one body of which none brought a byte.
const ATTEMPTS: u32 = 3;

/// Slower than this many bytes a second is as good as nothing.
const SLOW: u64 = 20_000;

/// In place of a secret.
const MASK: &str = "[secret]";

pub(crate) struct Wire {
    way: Way,
    prefix: String,
    shown: String,
    secrets: Vec<String>,
    patience: Duration,
    circuit: Circuit,
    store: OnceLock<Result<Arc<dyn ObjectStore>, String>>,
    runtime: OnceLock<Result<Runtime, String>>,
}

/// How a store is reached.
enum Way {
    S3(Box<AmazonS3Builder>),
    File { folder: PathBuf, create: bool },
    Http(String),
}

/// Bytes on their way.
type Stream = BoxStream<'static, object_store::Result<bytes::Bytes>>;

impl Wire {
    pub(crate) fn open(address: &Address, settings: &Settings) -> Result<Self, OpenError> {
        let mut secrets = address.secrets();
        let mut prefix = String::new();
        let way = match address {
            Address::S3 {
                bucket,
                prefix: below,
            } => {
                let (builder, more) = credentials::builder(settings, bucket)?;
                secrets.extend(more);
                prefix.clone_from(below);
                Way::S3(Box::new(builder))
            }
            Address::File(folder) => Way::File {
                folder: folder.clone(),
                create: settings.mode == Mode::Write,
            },
            Address::Http { url, .. } => Way::Http(url.clone()),
        };
        // A short one would make holes in words.
        secrets.retain(|secret| secret.len() > 3);
        Ok(Self {
            way,
            prefix,
            shown: address.shown(),
            secrets,
            patience: settings.patience.unwrap_or(PATIENCE),
            circuit: Circuit::default(),
            store: OnceLock::new(),
            runtime: OnceLock::new(),
        })
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The server that is asked, where it is not the usual one.
    pub(crate) fn endpoint(&self) -> String {
        let Way::S3(builder) = &self.way else {
            return String::new();
        };
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        endpoint.unwrap_or_default()
    }

    /// Waits for `future` as long as somebody waits with us and the remote answers at all.
    pub(crate) fn block_on<T>(
        &self,
        watch: &dyn Watch,
        future: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, RemoteError> {
        if watch.is_stopped() {
            return Err(RemoteError::Stopped);
        }
        if !self.circuit.is_closed() {
            return Err(RemoteError::Away);
        }
        let runtime = self.runtime.get_or_init(new_runtime);
        let done = match runtime {
            Ok(runtime) => runtime.block_on(until_stopped(watch, future)),
            Err(why) => Err(Fault::Here(why.clone())),
        };
        match done {
            Ok(done) => {
                self.circuit.close();
                Ok(done)
            }
            Err(fault) => Err(self.told(fault)),
        }
    }

    fn told(&self, fault: Fault) -> RemoteError {
        match fault {
            Fault::Unreachable(why) if self.circuit.open() => {
                RemoteError::Unreachable(self.masked(&why))
            }
            Fault::Unreachable(_) => RemoteError::Away,
            Fault::Absent => RemoteError::Wrong("is missing".to_owned()),
            Fault::Wrong(what) => RemoteError::Wrong(self.masked(&what)),
            Fault::Forbidden(why) => RemoteError::Forbidden(self.masked(&why)),
            Fault::Here(why) => RemoteError::Here(self.masked(&why)),
            Fault::Stopped => RemoteError::Stopped,
        }
    }

    fn masked(&self, text: &str) -> String {
        let secrets = self.secrets.iter();
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }

    /// The folder, where the remote is one.
    pub(crate) fn folder(&self) -> Option<&std::path::Path> {
        match &self.way {
            Way::File { folder, .. } => Some(folder),
            Way::S3(_) | Way::Http(_) => None,
        }
    }

    pub(crate) fn store(&self) -> Result<&Arc<dyn ObjectStore>, Fault> {
        let store = self.store.get_or_init(|| self.way.build(self.patience));
        store
            .as_ref()
            .map_err(|why| Fault::Unreachable(why.clone()))
    }

    pub(crate) fn path(&self, inside: &str) -> Path {
        path_below(&self.prefix, inside)
    }

    pub(crate) async fn head(&self, inside: &str) -> Result<Option<ObjectMeta>, Fault> {
        let path = self.path(inside);
        match self.in_time(self.patience, self.store()?.head(&path)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(Fault::Absent) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) async fn put(&self, inside: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let path = self.path(inside);
        let patience = self.patience_for(bytes.len() as u64);
        let put = self.store()?.put(&path, PutPayload::from(bytes));
        self.in_time(patience, put).await.map(drop)
    }

    /// A whole object of at most `max` bytes.
    pub(crate) async fn small(&self, inside: &str, max: u64) -> Result<Vec<u8>, Fault> {
        let mut body = self.body(inside).await?;
        if body.total > max {
            return Err(Fault::Wrong("is larger than tinylm makes any".to_owned()));
        }
        let mut whole = Vec::new();
        while let Some(bytes) = body.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    pub(crate) async fn body(&self, inside: &str) -> Result<Body<'_>, Fault> {
        let path = self.path(inside);
        let (total, stream) = self.stream(&path, 0).await?;
        Ok(Body {
            wire: self,
            path,
            total,
            done: 0,
            stream: Some(stream),
            failed: 0,
        })
    }

    async fn stream(&self, path: &Path, from: u64) -> Result<(u64, Stream), Fault> {
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            ..GetOptions::default()
        };
        let asked = self.store()?.get_opts(path, options);
        let result = self.in_time(self.patience, asked).await?;
        Ok((result.meta.size, result.into_stream()))
    }

    /// How long so many bytes may take to go.
    pub(crate) fn patience_for(&self, n_bytes: u64) -> Duration {
        self.patience + Duration::from_secs(n_bytes / SLOW)
    }

    pub(crate) async fn in_time<T>(
        &self,
        patience: Duration,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Fault> {
        match timeout(patience, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(self.stalled(patience)),
        }
    }

    fn stalled(&self, patience: Duration) -> Fault {
        Fault::Unreachable(format!("nothing came for {} s", patience.as_secs_f64()))
    }
}

impl Way {
    fn build(&self, patience: Duration) -> Result<Arc<dyn ObjectStore>, String> {
        let told = |error: object_store::Error| match Fault::from(error) {
            Fault::Unreachable(why) | Fault::Forbidden(why) => why,
            other => format!("{other:?}"),
        };
        // One library for encryption in the whole program; a second call finds it installed.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let options = ClientOptions::new()
            .with_user_agent(http_name())
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT.min(patience));
        let retry = RetryConfig {
            backoff: BackoffConfig {
                max_backoff: Duration::from_secs(1),
                ..BackoffConfig::default()
            },
            max_retries: 3,
            retry_timeout: patience,
        };
        Ok(match self {
            Self::S3(builder) => {
                let key = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
                let allow_http = builder.get_config_value(&key);
                let options = options.with_allow_http(allow_http.as_deref() == Some("true"));
                let builder = (**builder).clone().with_client_options(options);
                Arc::new(builder.with_retry(retry).build().map_err(told)?)
            }
            Self::Http(url) => {
                let builder = HttpBuilder::new().with_url(url).with_retry(retry);
                let options = options.with_allow_http(true);
                Arc::new(builder.with_client_options(options).build().map_err(told)?)
            }
            Self::File { folder, create } => {
                if *create {
                    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
                }
                let found = std::fs::metadata(folder).map_err(|error| error.to_string())?;
                if !found.is_dir() {
                    return Err("it is not a folder".to_owned());
                }
                Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(told)?)
            }
        })
    }
}

fn http_name() -> object_store::HeaderValue {
    object_store::HeaderValue::from_static(concat!("tinylm/", env!("CARGO_PKG_VERSION")))
}

fn new_runtime() -> Result<Runtime, String> {
    let builder = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("remote")
        .enable_all()
        .build();
    builder.map_err(|error| format!("no threads for the remote store: {error}"))
}

async fn until_stopped<T>(
    watch: &dyn Watch,
    future: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut future = pin!(future);
    let mut stopped: Option<Instant> = None;
    loop {
        if let Ok(done) = timeout(TICK, future.as_mut()).await {
            return done;
        }
        if watch.is_stopped() && stopped.get_or_insert_with(Instant::now).elapsed() >= GRACE {
            return Err(Fault::Stopped);
        }
    }
}

/// The body of an object as it comes, never more of it than its length.
pub(crate) struct Body<'a> {
    wire: &'a Wire,
    path: Path,
    pub(crate) total: u64,
    done: u64,
    stream: Option<Stream>,
    failed: u32,
}

impl Body<'_> {
    /// The next bytes, or nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Fault> {
        loop {
            if self.done == self.total {
                return Ok(None);
            }
            let fault = match self.step().await {
                Ok(bytes) if !bytes.is_empty() => {
                    self.failed = 0;
                    return Ok(Some(bytes));
                }
                // Whether the server or the way there cut it short is told by asking again.
                Ok(_) => Fault::Wrong(format!(
                    "is cut short: {} bytes came of {}",
                    self.done, self.total
                )),
                Err(fault @ Fault::Unreachable(_)) => fault,
                Err(fault) => return Err(fault),
            };
            self.stream = None;
            self.failed += 1;
            if self.failed >= ATTEMPTS {
                return Err(fault);
            }
            tokio::time::sleep(TICK * self.failed).await;
        }
    }

    async fn step(&mut self) -> Result<bytes::Bytes, Fault> {
        if self.stream.is_none() {
            let (total, stream) = self.wire.stream(&self.path, self.done).await?;
            if total != self.total {
                return Err(Fault::Wrong("changed while it came".to_owned()));
            }
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else {
            return Ok(bytes::Bytes::new());
        };
        let patience = self.wire.patience;
        let mut bytes = match timeout(patience, stream.next()).await {
            Err(_) => return Err(self.wire.stalled(patience)),
            Ok(Some(bytes)) => bytes?,
            Ok(None) => return Ok(bytes::Bytes::new()),
        };
        let left = self.total - self.done;
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        self.done += bytes.len() as u64;
        Ok(bytes)
    }
}
