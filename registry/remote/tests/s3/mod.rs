//! Servers of S3 that others wrote, as processes.
//!
//! Processes rather than libraries of a test: the features that s3s-fs wants of shared crates would have all of
//! them compiled twice. Where one is not installed the test says so and passes.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::skipped::skipped;

/// A server and its address; it ends with its guard.
pub(crate) struct Server(Child, pub(crate) String);

impl Server {
    /// Starts a program that is told its port; nothing where it is not installed.
    pub(crate) fn start(program: &str, args: &[&str]) -> Option<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = Command::new(program);
        let port_word = port.to_string();
        command.args(args.iter().map(|arg| arg.replace("PORT", &port_word)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            skipped(&format!("there is no {program}"));
            return None;
        };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let is_alive = child.try_wait().unwrap().is_none();
            let is_late = begun.elapsed() > Duration::from_secs(60);
            assert!(is_alive && !is_late, "{program} does not start");
            thread::sleep(Duration::from_millis(50));
        }
        Some(Self(child, format!("http://127.0.0.1:{port}")))
    }

    /// s3s-fs with a bucket, whose objects are plain files in the folder `bucket`.
    pub(crate) fn s3s(folder: &tempfile::TempDir) -> Option<Self> {
        fs::create_dir(folder.path().join("bucket")).unwrap();
        let root = folder.path().to_str().unwrap();
        let keys = ["--access-key", "test", "--secret-key", "hunter22"];
        let place = ["--host", "127.0.0.1", "--port", "PORT", root];
        Self::start("s3s-fs", &[&keys[..], &place[..]].concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
