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
        self.ask("GET", path, "", "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = "Content-Type: application/json\r\n";
        self.ask("POST", path, headers, &body.to_string())
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = self.send(
            method,
            path,
            &format!("{headers}Connection: close\r\n"),
            body,
        );
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("{answer:?}")),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// The events of a stream, as they come.
    pub(crate) fn events(
        &self,
        path: &str,
        headers: &str,
    ) -> impl Iterator<Item = (String, Value)> + use<> {
        let stream = self.send("GET", path, headers, "");
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

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let host = match headers.contains("Host: ") {
            true => String::new(),
            false => format!("Host: {}\r\n", self.addr),
        };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream
    }
}
