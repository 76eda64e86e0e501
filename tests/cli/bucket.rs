//! A server of S3 for tests, in memory, that can be told to misbehave.
//!
//! It believes every signature and speaks as much of the protocol as objects need that go in one
//! piece. Real servers are asked in `registry/remote/tests`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How an answer is spoilt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Status(u16),
    /// Nothing is ever answered.
    Hang,
    /// The body ends in its middle, and the connection with it.
    Break,
    /// So many bytes a second.
    Slow(u64),
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// What a request's line has to contain, and what happens to it then.
    faults: Vec<(String, Fault)>,
    /// The line of each request: `GET /bucket/key`.
    asked: Vec<String>,
}

/// A bucket named `bucket`.
#[derive(Clone)]
pub(crate) struct Bucket {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let bucket = Self { port, state };
        let serving = bucket.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let serving = serving.clone();
                // A client that goes away is no matter.
                thread::spawn(move || serving.serve(connection).ok());
            }
        });
        bucket
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn spoil(&self, line: &str, fault: Fault) {
        self.state
            .lock()
            .unwrap()
            .faults
            .push((line.to_owned(), fault));
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Returns the lines of all requests since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// Changes every object whose key contains `part`.
    pub(crate) fn change(&self, part: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state.lock().unwrap();
        let objects = state.objects.iter_mut();
        let found = objects.filter(|(key, _)| key.contains(part));
        assert_ne!(found.map(|(_, bytes)| change(bytes)).count(), 0, "{part}");
    }

    pub(crate) fn remove(&self, part: &str) {
        let mut state = self.state.lock().unwrap();
        let n = state.objects.len();
        state.objects.retain(|key, _| !key.contains(part));
        assert_ne!(state.objects.len(), n, "{part}");
    }

    fn serve(&self, mut out: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(out.try_clone()?);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut words = first.split_whitespace();
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let (mut length, mut from) = (0, 0);
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let header = header.trim().to_ascii_lowercase();
                match header.split_once(": ") {
                    None => break,
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(("range", value)) => {
                        let range = value.trim_start_matches("bytes=");
                        from = range.trim_end_matches('-').parse().unwrap();
                    }
                    Some(_) => {}
                }
            }
            let line = format!("{method} {target}");
            let fault = {
                let mut state = self.state.lock().unwrap();
                state.asked.push(line.clone());
                let mut faults = state.faults.iter();
                faults
                    .find(|(part, _)| line.contains(part.as_str()))
                    .map(|(_, fault)| *fault)
            };
            if fault == Some(Fault::Hang) {
                thread::sleep(Duration::from_secs(600));
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            if let Some(Fault::Status(status)) = fault {
                let body = "<Error><Code>Told</Code><Message>as it was told</Message></Error>";
                let n = body.len();
                write!(out, "HTTP/1.1 {status} Told\r\ncontent-length: {n}\r\n\r\n")?;
                if method != "HEAD" {
                    write!(out, "{body}")?;
                }
                continue;
            }
            let key = target.trim_start_matches('/').to_owned();
            let mut state = self.state.lock().unwrap();
            if method == "PUT" {
                state.objects.insert(key, body);
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n"
                )?;
                continue;
            }
            let Some(bytes) = state.objects.get(&key).cloned() else {
                write!(out, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
                continue;
            };
            drop(state);
            answer(&mut out, method == "HEAD", from, &bytes, fault)?;
            if fault == Some(Fault::Break) {
                return Ok(());
            }
        }
    }
}

fn answer(
    out: &mut TcpStream,
    is_head: bool,
    from: usize,
    bytes: &[u8],
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let n = bytes.len();
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{n}",
            n.saturating_sub(1)
        ),
    };
    let (rest, now) = (&bytes[from.min(n)..], http_date());
    let length = rest.len();
    write!(
        out,
        "HTTP/1.1 {status}\r\netag: \"1\"\r\nlast-modified: {now}\r\ncontent-length: {length}\r\n\r\n"
    )?;
    match fault {
        _ if is_head => Ok(()),
        Some(Fault::Break) => out.write_all(&rest[..length / 2]),
        Some(Fault::Slow(bytes_per_second)) => {
            for piece in rest.chunks((bytes_per_second / 10).max(1) as usize) {
                out.write_all(piece)?;
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }
        _ => out.write_all(rest),
    }
}

/// The time now as HTTP writes it.
fn http_date() -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from a March, so that the odd day is the last.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = year + era * 400 + u64::from(month < 2);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}
