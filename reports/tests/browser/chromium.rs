//! A real browser for tests: what it draws, what it does when touched, what it complains about.
//!
//! Chromium is spoken to through its debugging pipe, which needs no port and no library.

use std::{
    fmt::Display,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long the browser may take for anything; it needs a tenth of it on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    next_id: u64,
    session: String,
    /// The page's complaints.
    pub(crate) complaints: Vec<String>,
    /// What it may ask for, by the beginning of its address.
    allowed: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser; nothing where there is none.
    pub(crate) fn start() -> Option<Browser> {
        let program = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| is_there(name))?;
        let profile = tempfile::tempdir().unwrap();
        // The pipe is on descriptors 3 and 4, which only a shell hands over without unsafe code.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                program,
            ])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while output
                .read_until(0, &mut message)
                .is_ok_and(|n_bytes| n_bytes > 0)
            {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if sender.send(parsed).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, complaints) = (String::new(), Vec::new());
        let mut browser = Browser {
            child,
            commands,
            messages,
            next_id: 0,
            session,
            complaints,
            allowed: "file:".to_owned(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.answer_to(method, params);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    fn answer_to(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.commands
            .write_all(message.to_string().as_bytes())
            .unwrap();
        self.commands.write_all(&[0]).unwrap();
        self.wait_for(|message| message["id"] == id)
    }

    /// Waits for a message, and remembers what the page complains about meanwhile.
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self
                .messages
                .recv_timeout(PATIENCE)
                .expect("the browser answers");
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") | Some("Log.entryAdded") => {
                    self.complaints.push(message["params"].to_string())
                }
                Some("Runtime.consoleAPICalled") if message["params"]["type"] != "log" => {
                    self.complaints.push(message["params"].to_string())
                }
                Some("Network.requestWillBeSent") => {
                    let url = message["params"]["request"]["url"]
                        .as_str()
                        .unwrap_or_default();
                    if !url.starts_with(&self.allowed) && !url.starts_with("data:") {
                        self.complaints.push(format!("it asked for {url}"));
                    }
                }
                _ => {}
            }
            if is_it(&message) {
                return message;
            }
        }
    }

    pub(crate) fn open(&mut self, file: &Path) {
        self.visit("file:", &format!("file://{}", file.display()));
    }

    /// Opens a page that may ask for nothing else than what begins as allowed.
    pub(crate) fn visit(&mut self, allowed: &str, url: &str) {
        self.allowed = allowed.to_owned();
        // The answer to `navigate` comes while the page that is left still answers, and says that it has loaded.
        self.touch("window.isLeft = true");
        self.call("Page.navigate", json!({ "url": url }));
        let is_there = "!window.isLeft && document.readyState === 'complete'";
        self.until_it_is(is_there, &json!(true));
    }

    /// Runs an expression in the page and returns its value. A page that is just being left is asked again once
    /// there is the next, so what is asked must change nothing: see `touch`.
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        loop {
            if let Some(value) = self.evaluate(expression) {
                return value;
            }
        }
    }

    /// Does something to the page, which may lead away from it.
    pub(crate) fn touch(&mut self, expression: &str) {
        self.evaluate(expression);
    }

    /// Nothing if the page was left before it could say what came of it.
    fn evaluate(&mut self, expression: &str) -> Option<Value> {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.answer_to("Runtime.evaluate", asked);
        if answer["error"]["message"] == "Inspected target navigated or closed" {
            return None;
        }
        assert!(answer["error"].is_null(), "{expression}: {answer}");
        let result = &answer["result"];
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        Some(result["result"]["value"].clone())
    }

    /// Asks again until there is an answer; what does not come is a failure.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, ask: impl Fn(&mut Browser, u64) -> Option<T>) -> T {
        self.until_told(|browser, attempt| ask(browser, attempt).ok_or("nothing"))
    }

    /// Asks again until an expression is what is wanted.
    #[track_caller]
    pub(crate) fn until_it_is(&mut self, expression: &str, wanted: &Value) {
        self.until_told(|browser, _| match browser.ask(expression) {
            seen if seen == *wanted => Ok(()),
            seen => Err(format!("{expression} is {seen}, not {wanted}")),
        });
    }

    /// An error is what there was instead.
    #[track_caller]
    fn until_told<T, E: Display>(&mut self, ask: impl Fn(&mut Browser, u64) -> Result<T, E>) -> T {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            match ask(self, attempt) {
                Ok(answer) => return answer,
                Err(seen) if begun.elapsed() > PATIENCE => panic!("waited in vain: {seen}"),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
            attempt += 1;
        }
    }

    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        self.call("Emulation.setDeviceMetricsOverride", json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 }));
    }

    pub(crate) fn prefer(&mut self, scheme: &str) {
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
