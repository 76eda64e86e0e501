//! A server of the binary's own, that ends with its test, and the little HTTP that asks it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::harness::Project;

pub(crate) struct Server {
    child: Child,
    pub(crate) addr: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Server {
    /// Starts what says `http://ADDRESS/...` in its first line.
    pub(crate) fn start(project: &Project, args: &[&str]) -> Server {
        let mut child = project
            .command(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let addr = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let addr = addr
            .unwrap_or_else(|| panic!("it said {line:?}"))
            .to_owned();
        Server { child, addr }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(path, "", "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = "Content-Type: application/json\r\n";
        self.ask(path, headers, &body.to_string())
    }

    /// The answer to a question that is a good one.
    pub(crate) fn answer(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Sends a body, or asks for what is at a path.
    pub(crate) fn ask(&self, path: &str, headers: &str, body: &str) -> Answer {
        let headers = format!("{headers}Connection: close\r\n");
        let mut answer = Vec::new();
        self.open(path, &headers, body)
            .read_to_end(&mut answer)
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = match is_chunked {
            true => unchunked(body),
            false => body.to_owned(),
        };
        let head = head.to_owned();
        Answer { status, head, body }
    }

    /// The events of a stream, as they come.
    pub(crate) fn events(
        &self,
        path: &str,
        headers: &str,
    ) -> impl Iterator<Item = (String, Value)> + use<> {
        let stream = self.open(path, headers, "");
        let mut id = String::new();
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.filter_map(move |line| {
            if let Some(new) = line.strip_prefix("id: ") {
                new.clone_into(&mut id);
            }
            let data = line.strip_prefix("data: ")?;
            Some((
                id.clone(),
                serde_json::from_str(data).unwrap_or(Value::Null),
            ))
        })
    }

    pub(crate) fn open(&self, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let host = match headers.to_lowercase().contains("host:") {
            true => String::new(),
            false => format!("Host: {}\r\n", self.addr),
        };
        let n = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\n{host}Content-Length: {n}\r\n{headers}\r\n");
        stream.write_all((head + body).as_bytes()).unwrap();
        stream
    }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((n, rest)) = body.split_once("\r\n") {
        let n = usize::from_str_radix(n, 16).unwrap();
        out.push_str(&rest[..n]);
        body = &rest[(n + 2).min(rest.len())..];
    }
    out
}
