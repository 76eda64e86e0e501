//! A small hub for tests, in this process: the routes of the real one that are used
//! here, and the faults that a network has.
//!
//! Every connection serves one request. A fault is laid on a path and serves once, in
//! the order in which they were laid.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A fault of one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The headers come and then nothing, for this long.
    Stall(Duration),
    /// The connection ends after so many bytes of the body.
    Drop(usize),
    /// Another address is named.
    Redirect(String),
    /// An answer without a body; with `Retry-After` where seconds are given.
    Status(u16, Option<u64>),
    /// `Content-Length` says so many bytes more, or fewer, than there are.
    Length(i64),
    /// The whole body comes although a part was asked for.
    IgnoreRange,
    /// The same, and the connection ends after so many bytes of it.
    DropWhole(usize),
    /// Another part comes than was asked for: this `Content-Range`.
    Range(String),
    /// A `Link` names this address as the next page of a list.
    Next(String),
    /// Zeros without a length and without an end.
    Endless,
}

#[derive(Debug, Clone)]
struct RepoFile {
    bytes: Vec<u8>,
    is_lfs: bool,
}

#[derive(Debug, Clone, Default)]
struct Repo {
    commit: String,
    files: BTreeMap<String, RepoFile>,
    /// The token that it wants, and the code with which it refuses others.
    gate: Option<(String, String)>,
}

#[derive(Debug, Default)]
struct State {
    /// By `datasets/owner/name` or `owner/name`.
    repos: BTreeMap<String, Repo>,
    /// Files at any other address.
    pages: BTreeMap<String, Vec<u8>>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    /// Each request: its path, its range, its authorization.
    log: Vec<(String, Option<String>, Option<String>)>,
}

pub(crate) struct Hub {
    address: String,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (state.clone(), stop.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                // A client that goes away in the middle is what some tests are about.
                thread::spawn(move || serve(&stream, &shared).ok());
            }
        });
        Self {
            address,
            state,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Adds a file to a repository (`datasets/owner/name` or `owner/name`).
    pub(crate) fn file(&self, repo: &str, name: &str, bytes: &[u8], is_lfs: bool) {
        let mut state = self.state.lock().unwrap();
        let repo = state.repos.entry(repo.to_owned()).or_default();
        repo.commit = COMMIT.to_owned();
        let bytes = bytes.to_vec();
        repo.files
            .insert(name.to_owned(), RepoFile { bytes, is_lfs });
    }

    /// Says that a repository's commit is this.
    pub(crate) fn commit(&self, repo: &str, commit: &str) {
        let mut state = self.state.lock().unwrap();
        state.repos.get_mut(repo).unwrap().commit = commit.to_owned();
    }

    /// Lets only those with `token` in; others hear `code`.
    pub(crate) fn gate(&self, repo: &str, token: &str, code: &str) {
        let mut state = self.state.lock().unwrap();
        let repo = state.repos.get_mut(repo).unwrap();
        repo.gate = Some((token.to_owned(), code.to_owned()));
    }

    pub(crate) fn page(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.pages.insert(path.to_owned(), bytes.to_vec());
    }

    /// Lays a fault on every path that ends so.
    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state
            .faults
            .entry(path.to_owned())
            .or_default()
            .push_back(fault);
    }

    /// Returns the ranges asked for at paths that end so, in order.
    pub(crate) fn ranges(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        let asked = state.log.iter().filter(|(asked, ..)| asked.ends_with(path));
        asked.map(|(_, range, _)| range.clone()).collect()
    }

    /// Returns who asked, at paths that end so.
    pub(crate) fn authorizations(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        let asked = state.log.iter().filter(|(asked, ..)| asked.ends_with(path));
        asked.map(|(.., who)| who.clone()).collect()
    }

    pub(crate) fn n_requests(&self) -> usize {
        self.state.lock().unwrap().log.len()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees the flag.
        let address = self.address.trim_start_matches("http://");
        TcpStream::connect(address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Asked {
    path: String,
    query: String,
    range: Option<String>,
    authorization: Option<String>,
    host: String,
    is_head: bool,
}

fn asked(stream: &TcpStream) -> std::io::Result<Option<Asked>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (mut range, mut authorization, mut host) = (None, None, String::new());
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.to_owned()),
                "authorization" => authorization = Some(value.to_owned()),
                "host" => host = value.to_owned(),
                _ => {}
            }
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Some(Asked {
        path: path.to_owned(),
        query: query.to_owned(),
        range,
        authorization,
        host,
        is_head: method == "HEAD",
    }))
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Answer {
    fn ok(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body,
        }
    }

    fn refusal(status: u16, code: &str) -> Self {
        Self {
            status,
            headers: vec![format!("x-error-code: {code}")],
            body: br#"{"error": "no"}"#.to_vec(),
        }
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let Some(asked) = asked(stream)? else {
        return Ok(());
    };
    let (mut answer, fault) = {
        let mut state = state.lock().unwrap();
        let entry = (
            asked.path.clone(),
            asked.range.clone(),
            asked.authorization.clone(),
        );
        state.log.push(entry);
        let laid = state
            .faults
            .iter_mut()
            .find(|(path, faults)| !faults.is_empty() && asked.path.ends_with(path.as_str()));
        let fault = laid.and_then(|(_, faults)| faults.pop_front());
        (answer(&asked, &state), fault)
    };
    if !matches!(fault, Some(Fault::IgnoreRange | Fault::DropWhole(_))) {
        cut_to_range(&mut answer, asked.range.as_deref());
    }
    send(stream, &asked, answer, fault)
}

/// Serves a part of a body to whoever asks for one.
fn cut_to_range(answer: &mut Answer, range: Option<&str>) {
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let Some(start) = start.and_then(|start| start.parse::<usize>().ok()) else {
        return;
    };
    if answer.status != 200 {
        return;
    }
    let len = answer.body.len();
    if start >= len {
        *answer = Answer::refusal(416, "");
        return;
    }
    answer.status = 206;
    answer.body.drain(..start);
    answer
        .headers
        .push(format!("Content-Range: bytes {start}-{}/{len}", len - 1));
}

fn send(
    mut stream: &TcpStream,
    asked: &Asked,
    mut answer: Answer,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let mut length = answer.body.len() as i64;
    match &fault {
        Some(Fault::Redirect(to)) => {
            answer = Answer::refusal(302, "");
            answer.headers.push(format!("Location: {to}"));
            length = answer.body.len() as i64;
        }
        Some(Fault::Status(status, after)) => {
            answer = Answer::refusal(*status, "");
            answer
                .headers
                .extend(after.map(|after| format!("Retry-After: {after}")));
            length = answer.body.len() as i64;
        }
        Some(Fault::Length(more)) => length += more,
        Some(Fault::Range(range)) => {
            answer.status = 206;
            answer.headers = vec![format!("Content-Range: {range}")];
        }
        Some(Fault::Next(address)) => {
            let link = format!("Link: <{address}>; rel=\"next\"");
            answer = Answer::ok(b"[]".to_vec());
            answer.headers.push(link);
            length = answer.body.len() as i64;
        }
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    if !matches!(fault, Some(Fault::Endless)) {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for header in &answer.headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if asked.is_head {
        return Ok(());
    }
    match fault {
        Some(Fault::Stall(wait)) => {
            stream.flush()?;
            thread::sleep(wait);
        }
        Some(Fault::Drop(n_bytes) | Fault::DropWhole(n_bytes)) => {
            let n_bytes = n_bytes.min(answer.body.len());
            stream.write_all(&answer.body[..n_bytes])?;
        }
        Some(Fault::Endless) => loop {
            stream.write_all(&[b'0'; 1 << 16])?;
        },
        _ => stream.write_all(&answer.body)?,
    }
    stream.flush()
}

fn answer(asked: &Asked, state: &State) -> Answer {
    if let Some(bytes) = state.pages.get(&asked.path) {
        return Answer::ok(bytes.clone());
    }
    for kind in ["datasets", "models"] {
        if let Some(rest) = asked.path.strip_prefix(&format!("/api/{kind}")) {
            return api(kind, rest.trim_start_matches('/'), asked, state);
        }
    }
    if let Some((place, rest)) = asked.path[1..].split_once("/resolve/") {
        return resolved(place, rest, asked, state);
    }
    Answer::refusal(404, "")
}

fn place(kind: &str, name: &str) -> String {
    if kind == "datasets" {
        format!("datasets/{name}")
    } else {
        name.to_owned()
    }
}

fn api(kind: &str, rest: &str, asked: &Asked, state: &State) -> Answer {
    if rest.is_empty() {
        return search(kind, &asked.query, state);
    }
    let split = rest
        .split_once("/revision/")
        .map(|(name, rest)| (name, rest, true));
    let split = split.or_else(|| {
        rest.split_once("/tree/")
            .map(|(name, rest)| (name, rest, false))
    });
    let Some((name, rest, is_info)) = split else {
        return Answer::refusal(404, "RepoNotFound");
    };
    let repo = match allowed(&place(kind, name), asked, state) {
        Ok(repo) => repo,
        Err(refusal) => return refusal,
    };
    let revision = rest.split('/').next().unwrap_or_default();
    if revision != "main" && revision != repo.commit {
        return Answer::refusal(404, "RevisionNotFound");
    }
    if is_info {
        let body = format!(
            r#"{{"_id": "1", "id": "{name}", "sha": "{}"}}"#,
            repo.commit
        );
        return Answer::ok(body.into_bytes());
    }
    tree(repo, asked)
}

fn allowed<'s>(place: &str, asked: &Asked, state: &'s State) -> Result<&'s Repo, Answer> {
    // As on the real hub, who is nobody is told that nothing is there.
    let status = if asked.authorization.is_some() {
        404
    } else {
        401
    };
    let repo = state.repos.get(place);
    let repo = repo.ok_or_else(|| Answer::refusal(status, "RepoNotFound"))?;
    match &repo.gate {
        Some((token, code)) if asked.authorization != Some(format!("Bearer {token}")) => {
            Err(Answer::refusal(
                if asked.authorization.is_some() {
                    403
                } else {
                    401
                },
                code,
            ))
        }
        _ => Ok(repo),
    }
}

fn search(kind: &str, query: &str, state: &State) -> Answer {
    let wanted = query
        .split('&')
        .find_map(|part| part.strip_prefix("search="));
    let wanted = wanted.unwrap_or_default().to_lowercase();
    let known = state.repos.keys().filter_map(|place| match kind {
        "datasets" => place.strip_prefix("datasets/"),
        _ if place.starts_with("datasets/") => None,
        _ => Some(place.as_str()),
    });
    let near = known.filter(|name| name.to_lowercase().contains(&wanted));
    let entries: Vec<String> = near.map(|name| format!(r#"{{"id": "{name}"}}"#)).collect();
    Answer::ok(format!("[{}]", entries.join(",")).into_bytes())
}

/// All files, a page at a time.
fn tree(repo: &Repo, asked: &Asked) -> Answer {
    let number = |name: &str| {
        let value = asked
            .query
            .split('&')
            .find_map(|part| part.strip_prefix(name));
        value.and_then(|value| value.parse::<usize>().ok())
    };
    let limit = number("limit=").unwrap_or(50);
    let start = number("cursor=").unwrap_or(0);
    let mut entries: Vec<String> = repo
        .files
        .iter()
        .skip(start)
        .take(limit)
        .map(|(name, file)| file_entry(name, file))
        .collect();
    entries.push(r#"{"type": "directory", "oid": "0", "size": 0, "path": "data"}"#.to_owned());
    let mut answer = Answer::ok(format!("[{}]", entries.join(",")).into_bytes());
    let next = start + limit;
    if next < repo.files.len() {
        let address = format!("http://{}{}", asked.host, asked.path);
        let link =
            format!("Link: <{address}?recursive=true&limit={limit}&cursor={next}>; rel=\"next\"");
        answer.headers.push(link);
    }
    answer
}

fn file_entry(name: &str, file: &RepoFile) -> String {
    use sha2::Digest;
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let size = file.bytes.len();
    if file.is_lfs {
        let sha256 = hex(&sha2::Sha256::digest(&file.bytes));
        return format!(
            r#"{{"type": "file", "oid": "0", "size": {size}, "path": "{name}", "lfs": {{"oid": "{sha256}", "size": {size}, "pointerSize": 130}}}}"#
        );
    }
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {size}\0"));
    hasher.update(&file.bytes);
    let oid = hex(&hasher.finalize());
    format!(r#"{{"type": "file", "oid": "{oid}", "size": {size}, "path": "{name}"}}"#)
}

fn resolved(place: &str, rest: &str, asked: &Asked, state: &State) -> Answer {
    let repo = match allowed(place, asked, state) {
        Ok(repo) => repo,
        Err(refusal) => return refusal,
    };
    let Some((revision, name)) = rest.split_once('/') else {
        return Answer::refusal(404, "EntryNotFound");
    };
    match repo.files.get(&name.replace("%20", " ")) {
        Some(file) if revision == repo.commit || revision == "main" => {
            Answer::ok(file.bytes.clone())
        }
        _ => Answer::refusal(404, "EntryNotFound"),
    }
}
