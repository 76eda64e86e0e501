//! Clients that do what no client should: the server stays up, says what is wrong in the shape that
//! clients read, forgets whoever left, and answers afterwards bit for bit as before.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::{
    attack::{Clock, Dice, artifact, binary, cut_off, damaged, odd_json, project, run},
    skipped::skipped,
};

/// What the process may come to, whatever is sent: a small model, bodies and answers within their limits.
const RESIDENT_KB: u64 = 1_000_000;
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    child: Child,
    addr: String,
    said: std::path::PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    fn start(folder: &Path) -> Server {
        Self::start_with_files(folder, "unlimited")
    }

    /// A server that may open so many files; `unlimited` are as many as this process may.
    fn start_with_files(folder: &Path, n_files: &str) -> Server {
        // Two folders of one last name would be two models of one name.
        let models = ["pretrain", "finetune"];
        for stage in models {
            let link = folder.join(stage);
            if !link.exists() {
                std::os::unix::fs::symlink(artifact(folder, stage), link).unwrap();
            }
        }
        let limits = ["--slots", "3", "--queue", "6", "--time-limit", "8"];
        Self::of(
            folder,
            n_files,
            &[&["serve"], &models[..], &limits].concat(),
        )
    }

    fn of(folder: &Path, n_files: &str, args: &[&str]) -> Server {
        let said = folder.join("said.txt");
        let mut command = cut_off(Command::new("sh"), folder);
        let line = "[ $0 = unlimited ] || ulimit -n $0; exec \"$@\"";
        command.args(["-c", line, n_files]).arg(binary());
        command.args(args).args(["--port", "0"]);
        command
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let addr = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let addr = addr.expect("it says where it listens").to_owned();
        Server { child, addr, said }
    }

    /// Sends bytes and returns what comes back, up to the end of the connection or of patience.
    fn send(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        let mut answer = Vec::new();
        let Ok(mut stream) = TcpStream::connect(&self.addr) else {
            return answer;
        };
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.set_write_timeout(Some(patience)).unwrap();
        // A server may answer and close before it has read all.
        stream.write_all(bytes).ok();
        stream.read_to_end(&mut answer).ok();
        answer
    }

    fn request(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let n = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {n}\r\n\r\n",
            self.addr
        );
        [head.as_bytes(), body].concat()
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        let request = self.request(path, body.to_string().as_bytes());
        let answer = self.send(&request, PATIENCE);
        let (status, _, body) = parts(&answer).expect("an ordinary request is answered");
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What ordinary requests are answered, likelihoods and all.
    fn ordinary(&self) -> Vec<Value> {
        let models = self.send(&self.request("/v1/models", b""), PATIENCE);
        let (_, _, models) = parts(&models).expect("models are listed");
        let models: Value = serde_json::from_slice(&models).unwrap();
        let mut answers = Vec::new();
        for model in models["data"].as_array().unwrap() {
            for prompt in ["one", "two three four"] {
                let asked = json!({ "model": model["id"], "prompt": prompt, "seed": 5, "max_tokens": 6, "ignore_eos": true, "logprobs": 3, "temperature": 1.5 });
                answers.push(self.ask("/v1/completions", &asked)["choices"].clone());
            }
        }
        answers
    }

    fn gauge(&self, name: &str) -> u64 {
        let answer = self.send(&self.request("/metrics", b""), PATIENCE);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|n| n.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.and_then(|kb| kb.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    }
}

/// Status, head and body of an answer that came whole; nothing of one that did not.
fn parts(answer: &[u8]) -> Option<(u16, String, Vec<u8>)> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &answer[at + 4..];
    if head.contains("transfer-encoding: chunked") {
        return Some((status, head, unchunked(rest)?));
    }
    let n = head.split("content-length: ").nth(1)?;
    let n: usize = n.split("\r\n").next()?.parse().ok()?;
    Some((status, head, rest.get(..n)?.to_vec()))
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let at = rest.windows(2).position(|two| two == b"\r\n")?;
        let n = usize::from_str_radix(std::str::from_utf8(&rest[..at]).ok()?, 16).ok()?;
        if n == 0 {
            return Some(body);
        }
        body.extend(rest.get(at + 2..at + 2 + n)?);
        rest = rest.get(at + n + 4..)?;
    }
}

/// The rule of a single answer: no 5xx, and JSON that clients can read.
#[track_caller]
fn assert_readable(answer: &[u8], what: &str) {
    let Some((status, head, body)) = parts(answer) else {
        return;
    };
    let text = String::from_utf8_lossy(&body);
    assert!(status < 500, "{what}: {status} {text}");
    if body.is_empty() || head.contains("text/plain; version") || head.contains("text/html") {
        return;
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let said: Vec<&str> = match head.contains("text/event-stream") {
        true => events.filter(|event| *event != "[DONE]").collect(),
        false => vec![&text],
    };
    for said in said {
        let value: Value = serde_json::from_str(said).unwrap_or_else(|_| panic!("{what}: {said}"));
        let error = &value["error"];
        let is_told = error["message"].is_string()
            && error["type"].is_string()
            && error.get("param").is_some()
            && error.get("code").is_some();
        assert!(status < 400 || is_told, "{what}: {status} {said}");
    }
}

/// A request that makes sense.
fn sound(dice: &mut Dice) -> (&'static str, Value) {
    let stream = dice.below(2) == 0;
    let n = 1 + dice.below(3);
    let dialogue = json!([
        { "role": "system", "content": "one" },
        { "role": "user", "content": [{ "type": "text", "text": "two<|im_end|>" }] },
        { "role": "assistant", "content": "three" },
        { "role": "user", "content": "four" },
    ]);
    match dice.below(6) {
        0 => (
            "/tokenize",
            json!({ "content": "one two", "add_special": true }),
        ),
        1 => ("/detokenize", json!({ "tokens": [1, 2, 3] })),
        2 => ("/apply-template", json!({ "messages": dialogue })),
        3 | 4 => (
            "/v1/chat/completions",
            json!({ "messages": dialogue, "stream": stream, "n": n, "seed": 1, "stop": ["zz", "e"], "max_tokens": 4, "logprobs": true,
                "top_logprobs": 2, "temperature": 1.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": 1,
                "repeat_penalty": 1.2, "logit_bias": { "5": 10 }, "stream_options": { "include_usage": true }, "on_overflow": "drop" }),
        ),
        _ => (
            "/v1/completions",
            json!({ "prompt": [[1, 2, 3], [4]], "stream": stream, "n": n, "max_tokens": 3, "echo": true, "logprobs": 2, "ignore_eos": true }),
        ),
    }
}

/// A request of much, whose client will not wait for the end.
fn long(dice: &mut Dice) -> Value {
    let n_prompts = 1 + dice.below(64);
    json!({ "prompt": vec!["one two three"; n_prompts], "n": 1 + dice.below(16), "max_tokens": 10, "ignore_eos": true, "stream": dice.below(2) == 0,
        "logit_bias": (0..dice.below(2_000)).map(|id| (id.to_string(), json!(0.5))).collect::<serde_json::Map<_, _>>() })
}

const ODD: [&[u8]; 12] = [
    b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Host: evil.example\r\n",
    b"Origin: null\r\n",
    b"\xff\xfe",
    b"\\ud800",
    b"[[[[[[[[",
    b"1e999",
    b"\0",
    b"HTTP/1.0",
    b"GET / HTTP/1.1\r\n\r\n",
];

fn attack(server: &Server, seed: u64) {
    let dice = &mut Dice::of(seed);
    let what = format!("the client of seed {seed}");
    let (path, mut body) = sound(dice);
    match dice.below(8) {
        0..=2 => {
            for _ in 0..=dice.below(3) {
                odd_json(dice, &mut body);
            }
            let answer = server.send(&server.request(path, body.to_string().as_bytes()), PATIENCE);
            assert!(
                parts(&answer).is_some(),
                "{what}: no whole answer to {path} {body}"
            );
            assert_readable(&answer, &format!("{what}, {path} {body}"));
        }
        3 => {
            let text = damaged(dice, body.to_string().as_bytes(), &ODD);
            assert_readable(&server.send(&server.request(path, &text), PATIENCE), &what);
        }
        // Heads and bodies that end too early or never: nobody waits for an answer.
        4 => {
            let request = damaged(
                dice,
                &server.request(path, body.to_string().as_bytes()),
                &ODD,
            );
            assert_readable(&server.send(&request, Duration::from_millis(300)), &what);
        }
        // Gone in the queue, while the prompt is read or in the middle of an answer.
        5 | 6 => {
            let request = server.request("/v1/completions", long(dice).to_string().as_bytes());
            let Ok(mut stream) = TcpStream::connect(&server.addr) else {
                return;
            };
            stream
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            stream.write_all(&request).ok();
            thread::sleep(Duration::from_millis(dice.next() % 60));
            let mut taken = vec![0; dice.below(4_000)];
            stream.read_exact(&mut taken).ok();
            stream
                .shutdown(*dice.pick(&[Shutdown::Both, Shutdown::Read, Shutdown::Write]))
                .ok();
        }
        // A name or a page that is not this machine's.
        _ => {
            let host = dice.pick(&[
                "evil.example",
                "localhost.evil.example",
                "[::1].evil",
                "127.0.0.1:x",
                "",
            ]);
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = server.send(request.as_bytes(), PATIENCE);
            assert_eq!(
                parts(&answer).map(|(status, ..)| status),
                Some(403),
                "{what}: {host}"
            );
        }
    }
}

#[test]
fn a_server_outlives_its_clients_and_says_what_it_said() {
    let project = project();
    run(project.path(), &[], "the experiment itself");
    let mut server = Server::start(project.path());
    let wanted = server.ordinary();
    let (mut dice, clock) = (Dice::new("clients"), Clock::start());
    let mut n_clients = 0;
    while n_clients == 0 || clock.goes_on() {
        let seeds: Vec<u64> = (0..40).map(|_| dice.next()).collect();
        thread::scope(|scope| {
            for seeds in seeds.chunks(10) {
                let server = &server;
                scope.spawn(move || seeds.iter().for_each(|seed| attack(server, *seed)));
            }
        });
        n_clients += seeds.len();
        let began = Instant::now();
        while server.gauge("tinylm_active ") + server.gauge("tinylm_waiting ") > 0 {
            assert!(began.elapsed() < PATIENCE, "places are not free again");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(server.ordinary(), wanted, "another answer than before");
        let resident = server.resident_kb();
        assert!(resident < RESIDENT_KB, "{resident} kB are resident");
        let said = fs::read_to_string(&server.said).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        assert!(
            server.child.try_wait().unwrap().is_none(),
            "it has ended: {said}"
        );
    }
    println!(
        "clients: {n_clients} clients, {} kB at most",
        server.resident_kb()
    );
}

/// More than the connections that it takes at once, and no more than can wait in the system's queue.
const SILENT: usize = 1_100;
/// No ordinary request takes longer, whoever else is there.
const SOON: Duration = Duration::from_secs(5);

/// Connects as often as said, sends some bytes on each and says nothing more; fewer where this machine
/// allows no more files.
fn silent(server: &Server, n_silent: usize, bytes: impl Fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, all).ok();
    let silent = (0..n_silent).map_while(|n| {
        let mut stream = TcpStream::connect(&server.addr).ok()?;
        stream.write_all(&bytes(n)).ok();
        Some(stream)
    });
    let silent = silent.collect();
    // Until the server has read what they have sent.
    thread::sleep(Duration::from_secs(1));
    silent
}

/// Some have begun a head, and never end it.
fn half_a_head(n: usize) -> Vec<u8> {
    b"GET / HTTP/1.1\r\n"[..n % 3 * 8].to_vec()
}

/// A whole head, and one byte of the body that it promises.
fn half_a_body(server: &Server, path: &str) -> Vec<u8> {
    let json = "Content-Type: application/json\r\nContent-Length: 64";
    let host = &server.addr;
    format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{json}\r\n\r\n{{").into_bytes()
}

#[track_caller]
fn assert_answers_soon(server: &Server, path: &str, body: &[u8]) {
    for _ in 0..20 {
        let began = Instant::now();
        let answer = server.send(&server.request(path, body), 2 * SOON);
        let status = parts(&answer).map(|(status, ..)| status);
        assert_eq!(status, Some(200), "{path} after {:?}", began.elapsed());
        assert!(began.elapsed() < SOON, "{path}: {:?}", began.elapsed());
    }
}

#[test]
fn clients_that_say_nothing_delay_nobody() {
    let project = project();
    run(
        project.path(),
        &["--until", "finetune"],
        "the experiment itself",
    );
    let server = Server::start(project.path());
    let half_a_body = half_a_body(&server, "/v1/chat/completions");
    for bytes in [&half_a_head as &dyn Fn(usize) -> Vec<u8>, &|_| {
        half_a_body.clone()
    }] {
        let silent = silent(&server, SILENT, bytes);
        if silent.len() < SILENT {
            skipped(&format!(
                "{} connections are all that this machine allows",
                silent.len()
            ));
            return;
        }
        assert_answers_soon(&server, "/tokenize", b"{\"content\":\"one\"}");
    }
}

#[test]
fn few_files_and_ten_thousand_silent_clients_delay_nobody() {
    /// More than files, and as many as any machine has left.
    const MORE_THAN_FILES: usize = 300;
    const MANY: usize = 10_000;
    let project = project();
    run(
        project.path(),
        &["--until", "finetune"],
        "the experiment itself",
    );
    let few = Server::start_with_files(project.path(), "256");
    let clients = silent(&few, MORE_THAN_FILES, half_a_head);
    assert_eq!(clients.len(), MORE_THAN_FILES);
    assert_answers_soon(&few, "/health", b"");
    drop((few, clients));

    let server = Server::start(project.path());
    let clients = silent(&server, MANY, half_a_head);
    match clients.len() {
        MANY => assert_answers_soon(&server, "/health", b""),
        n => skipped(&format!("{n} connections are all that this machine allows")),
    }
    drop(clients);
    // Fewer than it knows of, so that it runs out of them.
    #[cfg(target_os = "linux")]
    {
        let pid = rustix::process::Pid::from_child(&server.child);
        let limit = getrlimit(Resource::Nofile);
        let fewer = Rlimit {
            current: Some(64),
            ..limit
        };
        rustix::process::prlimit(Some(pid), Resource::Nofile, fewer).unwrap();
        let clients = silent(&server, MORE_THAN_FILES, half_a_head);
        assert_eq!(clients.len(), MORE_THAN_FILES);
        assert_answers_soon(&server, "/health", b"");
    }
}

#[test]
fn a_page_is_shown_whoever_looks_on_and_whoever_never_ends_a_request() {
    let project = project();
    run(
        project.path(),
        &["--until", "pretrain"],
        "the experiment itself",
    );
    for flags in [&["ui"][..], &["ui", "--allow-changes"]] {
        let server = Server::of(project.path(), "unlimited", flags);
        let half_a_body = half_a_body(&server, "/change/x");
        let clients = silent(&server, SILENT, |_| half_a_body.clone());
        assert_answers_soon(&server, "/", b"");
        drop(clients);
        let looks_on = server.request("/stream?of=%2F", b"");
        let clients = silent(&server, SILENT, |_| looks_on.clone());
        assert_answers_soon(&server, "/", b"");
        let n_refused = clients.iter().filter(|stream| is_refused(stream)).count();
        assert!(n_refused > SILENT / 2, "{n_refused} of {SILENT}");
        assert!(n_refused < SILENT, "nobody looks on");
    }
}

fn is_refused(mut stream: &TcpStream) -> bool {
    let mut status = [0; 12];
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_exact(&mut status).ok();
    &status == b"HTTP/1.1 503"
}

#[test]
fn a_server_that_is_the_first_process_ends_when_it_is_asked_to() {
    let project = project();
    run(
        project.path(),
        &["--until", "pretrain"],
        "the experiment itself",
    );
    let model = artifact(project.path(), "pretrain");
    for signal in ["TERM", "INT"] {
        let mut command = cut_off(Command::new("unshare"), project.path());
        command.args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command
            .arg(binary())
            .arg("serve")
            .arg(&model)
            .args(["--port", "0"]);
        let Ok(mut outer) = command.stdout(Stdio::piped()).spawn() else {
            skipped("there is no `unshare`");
            return;
        };
        let mut line = String::new();
        let mut out = BufReader::new(outer.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        if line.is_empty() {
            skipped("this machine allows no namespaces");
            return;
        }
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let child = fs::read_to_string(children).unwrap();
        let asked = Command::new("kill")
            .args(["-s", signal, child.trim()])
            .status();
        assert!(asked.unwrap().success());
        let began = Instant::now();
        while outer.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                outer.kill().unwrap();
                panic!("SIG{signal} does not end it");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
