//! Servers that do what no server should: the download ends, with the file or with an error.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::attack::{Clock, Dice, assert_told, command};

/// Answers, of which each connection gets one at random; `{len}` is any number.
const ANSWERS: [&str; 14] = [
    "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "HTTP/1.1 206 Partial\r\nContent-Range: bytes {len}-{len}/{len}\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 302 Found\r\nLocation: /corpus.txt\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 99999 X\r\n\r\n",
    "HTTP/1.1 404 No\r\n\r\n",
    "nonsense\r\n\r\n",
];

fn serve(stream: &TcpStream, mut dice: Dice) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let mut stream = stream;
    match dice.below(ANSWERS.len() + 3) {
        // Headers without an end, up to what no client should hold.
        0 => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            (0..1 << 18).try_for_each(|n| write!(stream, "x-{n}: {n}\r\n"))
        }
        // A byte now and then.
        1 => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")?;
            (0..20).try_for_each(|_| {
                thread::sleep(Duration::from_millis(100));
                stream.write_all(b"x")
            })
        }
        2 => Ok(()),
        _ => {
            let len = dice.next() >> dice.below(64);
            let answer = dice.pick(&ANSWERS).replace("{len}", &len.to_string());
            stream.write_all(answer.as_bytes())
        }
    }
}

/// Serves for as long as the process lives.
fn start(seed: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (n, stream) in (0_u64..).zip(listener.incoming()) {
            let dice = Dice::of(seed.wrapping_add(n));
            let Ok(stream) = stream else { return };
            thread::spawn(move || serve(&stream, dice).ok());
        }
    });
    format!("http://{address}/corpus.txt")
}

#[test]
fn a_download_from_a_hostile_server_ends() {
    let (mut dice, clock) = (Dice::new("servers"), Clock::start());
    let mut n_servers = 0;
    while n_servers == 0 || clock.goes_on() {
        // Mostly waiting, so many at once.
        let attacks: Vec<_> = (0..12)
            .map(|_| {
                let seed = dice.next();
                thread::spawn(move || attack(seed))
            })
            .collect();
        for attack in attacks {
            attack.join().unwrap();
            n_servers += 1;
        }
    }
    println!("servers: {n_servers} servers");
}

fn attack(seed: u64) {
    let project = tempfile::tempdir().unwrap();
    let url = start(seed);
    let text = format!("stages:\n  text: {{ kind: download, with: {{ url: \"{url}\" }} }}\n");
    fs::write(project.path().join("net.yaml"), text).unwrap();
    let mut command = command(project.path(), &["run", "net.yaml"]);
    let output = command.env_remove("TINYLM_OFFLINE").output().unwrap();
    assert_told(&output, &format!("the server of seed {seed}"));
}
