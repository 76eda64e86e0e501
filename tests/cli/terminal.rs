//! A terminal with a program in it: what is typed there, and what a person sees of it.
//!
//! The terminal is the one that `script` (util-linux) makes: a real pseudo-terminal, so
//! that Ctrl-C is a key which the system turns into a signal, and not a signal that the
//! test sends.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use crate::harness::PATIENCE;

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

pub(crate) struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    written: Receiver<Vec<u8>>,
    /// Everything that was written so far.
    bytes: Vec<u8>,
    /// How many characters of the text were waited for already.
    seen: usize,
}

impl Terminal {
    /// Starts a program in a terminal of 80 columns; nothing where there is no `script`.
    pub(crate) fn open(program: &Command) -> Option<Terminal> {
        let version = Command::new("script").arg("--version").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("util-linux") {
            return None;
        }
        let words = [program.get_program()]
            .into_iter()
            .chain(program.get_args());
        let words: Vec<String> = words.map(|word| quoted(word.to_str().unwrap())).collect();
        let in_terminal = format!("stty cols 80 rows 24; exec {}", words.join(" "));
        let mut script = Command::new("script");
        script
            .args(["-qefc", &in_terminal, "/dev/null"])
            .env_clear();
        for (name, value) in program.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        script.env("TERM", "xterm").env_remove("NO_COLOR");
        let mut script = script
            .current_dir(program.get_current_dir().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let keyboard = script.stdin.take().unwrap();
        let mut screen = script.stdout.take().unwrap();
        let (sender, written) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            // The end is an error on some systems and no bytes on others.
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Terminal {
            script,
            keyboard,
            written,
            bytes: Vec::new(),
            seen: 0,
        })
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    pub(crate) fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    /// Waits for a text behind what was waited for before, and returns what stands between.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, wanted: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = shown(&self.bytes);
            let new = &text[self.seen..];
            if let Some(at) = new.find(wanted) {
                let between = new[..at].to_owned();
                self.seen += at + wanted.len();
                return between;
            }
            if !self.read(until) {
                panic!("waited in vain for `{wanted}`; since the last time:\n{new}");
            }
        }
    }

    /// Waits until so many more bytes have been written.
    #[track_caller]
    pub(crate) fn wait_for_bytes(&mut self, n: usize) {
        let (until, before) = (Instant::now() + PATIENCE, self.bytes.len());
        while self.bytes.len() < before + n {
            assert!(self.read(until), "nothing more was written");
        }
    }

    /// Waits for the end of the program and returns its exit code.
    #[track_caller]
    pub(crate) fn end(mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while self.read(until) {}
        loop {
            if let Some(status) = self.script.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < until, "the program does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that was written, colours and all.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns false when nothing more will come.
    fn read(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        match self.written.recv_timeout(left) {
            Ok(bytes) => {
                self.bytes.extend(bytes);
                true
            }
            Err(_) => false,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already. The program in the terminal ends when that is gone.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The words of an output, without colours and movements of the cursor.
/// Text only grows when bytes are added, but for a sequence that is not whole yet.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                // `ESC [ 1 ; 36 m` and `ESC [ ? 2004 h` end with a letter.
                let _ = chars.find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            c => shown.push(c),
        }
    }
    shown
}
