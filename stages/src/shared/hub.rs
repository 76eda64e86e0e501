//! The Hugging Face hub.
//!
//! A repository is pinned by its commit, with the sizes and digests of the files that
//! are wanted. The hub is asked through our own client, which knows time-outs, ranges and
//! digests; hf-hub says how the cache of the hub's own tools is laid out. A file that lies in the hub's own cache
//! on this machine is taken from there, after the same checks; and where nothing may be
//! asked, what lies there is what the repository is.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{
    At, Outside, Pin, Remote, StageError, StageIo, choices, copy_file, secrets::masked,
};

use super::{
    cut::Cut,
    expected::{Algorithm, Expected, check},
    files::{files_below, safe_name},
    net::{Failure, Limits, Net, Request},
};

choices! {
    /// What sort of repository on the hub.
    pub enum RepoKind {
        Dataset = "dataset",
        Model = "model",
    }
}

const ENDPOINT: &str = "https://huggingface.co";

/// The hub is there if it answers within this time.
const REACHED_WITHIN: Duration = Duration::from_secs(4);

/// A repository on the hub, where it is looked for, and which of its files are meant.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    pub(crate) kind: RepoKind,
    pub(crate) name: String,
    pub(crate) revision: String,
    /// Globs; without any, all that look like data.
    pub(crate) files: Vec<String>,
}

/// A file of a pinned repository.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RepoFile {
    pub(crate) name: String,
    pub(crate) expected: Expected,
}

const DATA_ENDINGS: [&str; 10] = [
    "json", "jsonl", "ndjson", "csv", "tsv", "parquet", "txt", "gz", "zst", "zip",
];
const MODEL_ENDINGS: [&str; 6] = ["json", "txt", "model", "jinja", "safetensors", "tiktoken"];

impl Repo {
    /// A model's repository, such as a tokenizer's, for other kinds that read from the hub.
    pub(crate) fn model(name: &str, revision: &str, files: &[&str]) -> Self {
        Self {
            kind: RepoKind::Model,
            name: name.to_owned(),
            revision: revision.to_owned(),
            files: files.iter().map(|glob| (*glob).to_owned()).collect(),
        }
    }

    /// `dataset` or `model`, as in the hub's addresses with an `s` behind it.
    fn kind_name(&self) -> &'static str {
        match self.kind {
            RepoKind::Dataset => "dataset",
            RepoKind::Model => "model",
        }
    }

    /// Models stand at the root of the hub, datasets below a folder.
    fn place(&self) -> String {
        match self.kind {
            RepoKind::Dataset => format!("datasets/{}", self.name),
            RepoKind::Model => self.name.clone(),
        }
    }

    /// Returns the folder in which the hub's own tools keep this repository.
    fn cache_folder(&self, net: &Net) -> Option<PathBuf> {
        let repo = match self.kind {
            RepoKind::Dataset => hf_hub::Repo::dataset(self.name.clone()),
            RepoKind::Model => hf_hub::Repo::model(self.name.clone()),
        };
        Some(net.outside.hf_cache.as_ref()?.join(repo.folder_name()))
    }

    fn wants(&self, file: &str) -> bool {
        if !self.files.is_empty() {
            let mut globs = self
                .files
                .iter()
                .filter_map(|glob| glob::Pattern::new(glob).ok());
            return globs.any(|glob| glob.matches(file));
        }
        let base = file.rsplit('/').next().unwrap_or(file);
        let endings: &[&str] = match self.kind {
            RepoKind::Dataset => &DATA_ENDINGS,
            RepoKind::Model => &MODEL_ENDINGS,
        };
        let ending = base.rsplit_once('.').map_or("", |(_, ending)| ending);
        // What stands in `dummy` shows a loading script's tests what its data looks like.
        let is_of_script = base == "dataset_infos.json" || file.starts_with("dummy/");
        !base.starts_with('.') && endings.contains(&ending) && !is_of_script
    }
}

/// Returns how a repository is called in the lock; `places` are the settings that say where it is.
pub(crate) fn hub_remote(repo: &Repo, places: &[&str]) -> Remote {
    Remote {
        id: format!("hub {} {}@{}", repo.kind_name(), repo.name, repo.revision),
        places: places.iter().map(|place| (*place).to_owned()).collect(),
    }
}

fn endpoint(net: &Net) -> &str {
    let endpoint = net.outside.hf_endpoint.as_deref().unwrap_or(ENDPOINT);
    endpoint.trim_end_matches('/')
}

fn request(net: &Net, path: &str) -> Request {
    Request {
        bearer: net.outside.hf_token.clone(),
        ..Request::new(format!("{}/{path}", endpoint(net)))
    }
}

/// Asks whether the hub answers, once and for a few seconds; says what is wrong where it does not.
pub fn reach_hub(outside: &Outside) -> Result<(), String> {
    let limits = Limits {
        connect: REACHED_WITHIN,
        stall: REACHED_WITHIN,
        ..Limits::default()
    };
    let net = Net::with_limits(outside, limits).map_err(|error| error.message)?;
    match net.reach(&request(&net, "api/models?limit=1")) {
        Ok(()) => Ok(()),
        Err(Failure::Passing { why, .. }) => Err(why),
        Err(Failure::Stage(error)) => Err(error.message),
        Err(Failure::Answer {
            status: 401 | 403, ..
        }) => Err("it refuses the token (HF_TOKEN, or that of `hf auth login`)".to_owned()),
        // Another hub than the public one may not know this question.
        Err(Failure::Answer { .. }) => Ok(()),
    }
}

/// Asks the hub what a repository is now.
pub(crate) fn resolve_repo(repo: &Repo, net: &Net) -> Result<Pin, StageError> {
    if net.outside.offline
        && let Some(pin) = resolve_cached(repo, net)?
    {
        return Ok(pin);
    }
    net.check_online(&repo.name)?;
    let commit = commit(repo, net)?;
    let files = list(repo, &commit, net)?;
    let files: Vec<Value> = files.iter().map(RepoFile::to_json).collect();
    Ok(Pin {
        identity: json!({ "commit": commit }),
        detail: json!({ "globs": repo.files, "files": files }),
    })
}

/// Pins a repository to what the cache on this machine holds of it.
///
/// That may be a part of the repository, and then it is another artifact than the whole
/// makes: so the names of the files are a part of the identity.
fn resolve_cached(repo: &Repo, net: &Net) -> Result<Option<Pin>, StageError> {
    let Some((commit, snapshot)) = cached_snapshot(repo, net) else {
        return Ok(None);
    };
    let mut files = Vec::new();
    for (name, path) in files_below(&snapshot)? {
        if repo.wants(&name) && path.is_file() {
            files.push(RepoFile::from_cache(&name, &path)?);
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let listed: Vec<Value> = files.iter().map(RepoFile::to_json).collect();
    Ok(Some(Pin {
        identity: json!({ "commit": commit, "files": names }),
        detail: json!({ "globs": repo.files, "files": listed }),
    }))
}

/// Returns what a revision was when the hub's own tools last asked, and its folder.
fn cached_snapshot(repo: &Repo, net: &Net) -> Option<(String, PathBuf)> {
    let reference = safe_name(&repo.revision).ok()?;
    let folder = repo.cache_folder(net)?;
    let commit = match fs::read_to_string(folder.join("refs").join(reference)) {
        Ok(commit) => commit.trim().to_owned(),
        // A commit needs no reference.
        Err(_) => repo.revision.clone(),
    };
    if !is_commit(&commit) {
        return None;
    }
    let snapshot = folder.join("snapshots").join(&commit);
    snapshot.is_dir().then_some((commit, snapshot))
}

/// Whether a text is a commit and nothing else, such as a path: commits become parts of paths and
/// of addresses, and come from a hub or a lock file that somebody else may have written.
fn is_commit(text: &str) -> bool {
    is_hex(text, 40) || is_hex(text, 64)
}

fn is_hex(text: &str, n_digits: usize) -> bool {
    text.len() == n_digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn commit(repo: &Repo, net: &Net) -> Result<String, StageError> {
    let (kind, name) = (repo.kind_name(), &repo.name);
    let revision = encoded(&repo.revision).replace('/', "%2F");
    let path = format!("api/{kind}s/{name}/revision/{revision}");
    let about = net
        .json(&request(net, &path))
        .map_err(|failure| match failure {
            Failure::Answer {
                status: 404, code, ..
            } if code == "RevisionNotFound" => no_revision(repo),
            Failure::Answer { status: 404, .. } => missing(repo, net),
            Failure::Passing { why, .. } => {
                StageError::new(format!("the hub does not answer about `{name}`"))
                    .cause(why)
                    .help("run the same command again when the network is better")
            }
            failure => failed(repo, net, failure, &format!("what `{name}` is")),
        })?;
    match about.get("sha").and_then(Value::as_str) {
        Some(sha) if is_commit(sha) => Ok(sha.to_owned()),
        Some(sha) => Err(StageError::new(format!(
            "the hub names `{}` as the commit of `{name}`, which is none",
            sha.escape_debug()
        ))
        .is_final()),
        None => Err(StageError::new(format!(
            "the hub names no commit of `{name}`"
        ))),
    }
}

fn no_revision(repo: &Repo) -> StageError {
    let message = format!("`{}` has no revision `{}`", repo.name, repo.revision);
    StageError::new(message)
        .help("a revision is a branch, a tag or a commit")
        .is_final()
}

fn refused(repo: &Repo, net: &Net, status: u16, code: &str) -> StageError {
    let endpoint = masked(endpoint(net));
    let page = format!("{endpoint}/{}", repo.place());
    if code == "GatedRepo" {
        return StageError::new(format!("`{}` is gated", repo.name))
            .help(format!(
                "accept its terms at {page}, make a token at {endpoint}/settings/tokens and set HF_TOKEN"
            ))
            .is_final();
    }
    // Without a token the hub says the same of a repository that is private and of one
    // that is not there.
    if status == 401 && net.outside.hf_token.is_none() || code == "RepoNotFound" {
        return missing(repo, net);
    }
    StageError::new(format!("the hub refuses `{}` to your token", repo.name))
        .help(format!(
            "see whether you may read {page}, and whether the token (HF_TOKEN, or else that of `hf auth login`) is still good"
        ))
        .is_final()
}

fn missing(repo: &Repo, net: &Net) -> StageError {
    let message = format!("the hub has no {} `{}`", repo.kind_name(), repo.name);
    let near = nearest(repo, net);
    let mut help = match near.as_slice() {
        [] => String::new(),
        names => format!("did you mean {}? ", names.join(" or ")),
    };
    if net.outside.hf_token.is_none() {
        help.push_str("if it is private, set HF_TOKEN; ");
    }
    let other = match repo.kind {
        RepoKind::Dataset => "model",
        RepoKind::Model => "dataset",
    };
    help.push_str(&format!("for a {other}, write `repo: {other}`"));
    StageError::new(message).help(help).is_final()
}

/// Returns names that the hub finds for the last part of this one.
fn nearest(repo: &Repo, net: &Net) -> Vec<String> {
    let name = repo.name.rsplit('/').next().unwrap_or(&repo.name);
    let path = format!("api/{}s?search={name}&limit=3", repo.kind_name());
    let Ok(Value::Array(found)) = net.json(&request(net, &path)) else {
        return Vec::new();
    };
    let ids = found.iter().filter_map(|entry| entry.get("id")?.as_str());
    ids.take(3).map(|id| format!("`{id}`")).collect()
}

/// Lists the wanted files of a commit, of which there must be one.
fn list(repo: &Repo, commit: &str, net: &Net) -> Result<Vec<RepoFile>, StageError> {
    let (kind, name) = (repo.kind_name(), &repo.name);
    let path = format!("api/{kind}s/{name}/tree/{commit}?recursive=true&limit=1000");
    let entries = net
        .json_list(&request(net, &path))
        .map_err(|failure| failed(repo, net, failure, &format!("the files of `{name}`")))?;
    let mut files = Vec::new();
    for entry in &entries {
        let path = entry
            .get("path")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let is_file = entry.get("type").and_then(Value::as_str) == Some("file");
        if is_file && repo.wants(path) {
            files.push(RepoFile::from_tree(entry)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    match files.is_empty() {
        true => Err(nothing_wanted(repo, &entries)),
        false => Ok(files),
    }
}

/// Old datasets are often a program that fetches the data from elsewhere, which is not run here.
fn nothing_wanted(repo: &Repo, entries: &[Value]) -> StageError {
    let base = repo.name.rsplit('/').next().unwrap_or(&repo.name);
    let script = format!("{base}.py");
    let is_script = |path: &str| path.eq_ignore_ascii_case(&script);
    let has_script = entries
        .iter()
        .any(|entry| entry["path"].as_str().is_some_and(is_script));
    let (message, help) = match has_script && repo.files.is_empty() {
        true => (
            format!(
                "`{}` holds no data, but `{script}`, which fetches it",
                repo.name
            ),
            "see in that program where the data is, and name its address with `url`".to_owned(),
        ),
        false => (
            format!("`{}` has no file that is wanted", repo.name),
            "name the files with `files`, for example `files: [\"*.jsonl\"]`".to_owned(),
        ),
    };
    StageError::new(message).help(help).is_final()
}

fn failed(repo: &Repo, net: &Net, failure: Failure, what: &str) -> StageError {
    match failure {
        Failure::Stage(error) => error,
        Failure::Answer { status, code, .. } if status == 401 || status == 403 => {
            refused(repo, net, status, &code)
        }
        Failure::Answer {
            status, message, ..
        } => StageError::new(format!("the hub answers {status} to {what}"))
            .cause(message)
            .is_final(),
        Failure::Passing { why, .. } => StageError::new(format!("the hub does not send {what}"))
            .cause(why)
            .help("run the same command again when the network is better"),
    }
}

impl RepoFile {
    fn from_tree(entry: &Value) -> Result<Self, StageError> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let name = text(entry.get("path")).unwrap_or_default();
        let lfs = entry.get("lfs");
        let digest = match text(lfs.and_then(|lfs| lfs.get("oid"))) {
            Some(sha256) => Some((Algorithm::Sha256, sha256)),
            None => text(entry.get("oid")).map(|oid| (Algorithm::Git, oid)),
        };
        Ok(Self {
            name: safe_name(&name)?,
            expected: Expected {
                bytes: entry.get("size").and_then(Value::as_u64),
                digests: digest.into_iter().collect(),
            },
        })
    }

    /// A file's link in the cache leads to what is called by the hub's digest of it.
    fn from_cache(name: &str, path: &Path) -> Result<Self, StageError> {
        let blob = fs::read_link(path).unwrap_or_default();
        let digest = match blob.file_name().and_then(|name| name.to_str()) {
            Some(sha256) if is_hex(sha256, 64) => (Algorithm::Sha256, sha256.to_owned()),
            Some(oid) if is_hex(oid, 40) => (Algorithm::Git, oid.to_owned()),
            _ => (Algorithm::Sha256, Algorithm::Sha256.digest(path)?),
        };
        Ok(Self {
            name: safe_name(name)?,
            expected: Expected {
                bytes: Some(path.metadata().at(path)?.len()),
                digests: vec![digest],
            },
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut entry = Map::new();
        entry.insert("name".to_owned(), json!(self.name));
        entry.insert("bytes".to_owned(), json!(self.expected.bytes));
        for (algorithm, digest) in &self.expected.digests {
            let name = if *algorithm == Algorithm::Git {
                "git"
            } else {
                "sha256"
            };
            entry.insert(name.to_owned(), json!(digest));
        }
        Value::Object(entry)
    }

    pub(crate) fn from_json(entry: &Value) -> Option<Self> {
        let mut digests = Vec::new();
        for (name, algorithm) in [("git", Algorithm::Git), ("sha256", Algorithm::Sha256)] {
            if let Some(digest) = entry.get(name).and_then(Value::as_str) {
                digests.push((algorithm, digest.to_owned()));
            }
        }
        let name = entry.get("name")?.as_str()?;
        if digests.is_empty() {
            return None;
        }
        Some(Self {
            name: safe_name(name).ok()?,
            expected: Expected {
                bytes: entry.get("bytes").and_then(Value::as_u64),
                digests,
            },
        })
    }
}

/// A repository whose commit is known.
pub(crate) struct Pinned<'a> {
    repo: &'a Repo,
    net: &'a Net,
    io: &'a StageIo<'a>,
    pub(crate) commit: String,
    pub(crate) files: Vec<RepoFile>,
}

/// What a pin says of a repository.
pub(crate) struct Held {
    pub(crate) commit: String,
    pub(crate) files: Vec<RepoFile>,
    /// What a person should know of it.
    pub(crate) warning: Option<String>,
}

impl Held {
    pub(crate) fn of(repo: &Repo, pin: Option<&Pin>, net: &Net) -> Result<Self, StageError> {
        let remote = hub_remote(repo, &[]);
        let unusable = |why: &str| {
            StageError::new(format!("the pin of `{}` cannot be used: {why}", remote.id))
                .help("`tinylm update` asks the hub again and writes a new one")
                .is_final()
        };
        let pin = pin.ok_or_else(|| unusable("there is none"))?;
        let commit = pin.identity.get("commit").and_then(Value::as_str);
        let commit = commit.filter(|commit| is_commit(commit));
        let commit = commit
            .ok_or_else(|| unusable("it names no commit"))?
            .to_owned();
        // The lock keeps what was wanted when it was written; the globs may have changed.
        let is_of_these_globs = pin.detail.get("globs") == Some(&json!(repo.files));
        let listed = pin.detail.get("files").and_then(Value::as_array);
        let of_cache = pin.identity.get("files").and_then(Value::as_array);
        let warning = of_cache.map(|files| {
            format!(
                "`{}` was pinned without the network, to the {} files that the cache held of it; `tinylm update` asks the hub",
                repo.name, files.len()
            )
        });
        let files = match listed.filter(|_| is_of_these_globs) {
            Some(files) => {
                let files: Option<Vec<_>> = files.iter().map(RepoFile::from_json).collect();
                files.ok_or_else(|| unusable("a file in it has no good name or no digest"))?
            }
            None => {
                net.check_online(&repo.name)?;
                list(repo, &commit, net)?
            }
        };
        Ok(Self {
            commit,
            files,
            warning,
        })
    }
}

impl<'a> Pinned<'a> {
    pub(crate) fn new(
        repo: &'a Repo,
        net: &'a Net,
        io: &'a StageIo<'a>,
    ) -> Result<Self, StageError> {
        let held = Held::of(repo, io.pin(&hub_remote(repo, &[]).id), net)?;
        if let Some(warning) = held.warning.clone() {
            io.warn(warning);
        }
        Ok(Self::holding(repo, net, io, held))
    }

    /// The same of what somebody else has read in the pin.
    pub(crate) fn holding(repo: &'a Repo, net: &'a Net, io: &'a StageIo<'a>, held: Held) -> Self {
        Self {
            repo,
            net,
            io,
            commit: held.commit,
            files: held.files,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.repo.name
    }

    pub(crate) fn origin(&self) {
        self.io.origin(json!({
            "hub": self.repo.name,
            "repo": self.repo.kind_name(),
            "revision": self.repo.revision,
            "commit": self.commit,
            "endpoint": masked(endpoint(self.net)),
        }));
    }

    fn n_bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| file.expected.bytes).sum()
    }

    /// Returns where the hub's own tools would have put a file on this machine.
    fn cached(&self, file: &RepoFile) -> Option<PathBuf> {
        let folder = self.repo.cache_folder(self.net)?;
        let path = folder.join("snapshots").join(&self.commit).join(&file.name);
        let is_whole = check(&path, &file.expected, &file.name).is_ok();
        is_whole.then_some(path)
    }

    /// Brings a file to `to`, whole and checked, or as much of it as is wanted.
    pub(crate) fn bring(
        &self,
        file: &RepoFile,
        to: &Path,
        cut: Option<Cut>,
        before: u64,
    ) -> Result<(), StageError> {
        if let Some(cached) = self.cached(file) {
            copy_file(&cached, to)?;
            // The copy, because the hub's own tools may write into their cache at any time.
            return check(to, &file.expected, &file.name);
        }
        self.net.check_online(&file.name)?;
        let path = format!(
            "{}/resolve/{}/{}",
            self.repo.place(),
            self.commit,
            encoded(&file.name)
        );
        let total = self.n_bytes();
        self.net
            .fetch(
                &request(self.net, &path),
                &file.expected,
                to,
                cut,
                self.io,
                &|done| {
                    self.io
                        .progress_note(before + done, total, "bytes", Some(&file.name))
                },
            )
            .map_err(|failure| {
                let what = format!("`{}` of `{}`", file.name, self.repo.name);
                failed(self.repo, self.net, failure, &what)
            })
    }
}

/// Writes a path so that it stays one inside an address.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Brings the wanted files of a pinned repository into `folder`, as they are; for other
/// kinds that read from the hub. Returns their names.
pub(crate) fn fetch_repo_files(
    repo: &Repo,
    io: &StageIo,
    folder: &Path,
) -> Result<Vec<String>, StageError> {
    let net = Net::new(io.outside())?;
    let pinned = Pinned::new(repo, &net, io)?;
    pinned.origin();
    let mut before = 0;
    for file in &pinned.files {
        let to = folder.join(&file.name);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        pinned.bring(file, &to, None, before)?;
        before += file.expected.bytes.unwrap_or(0);
    }
    Ok(pinned.files.iter().map(|file| file.name.clone()).collect())
}
