//! The page in a real browser: what it draws, what it does when touched, and that it is safe.
//!
//! Chromium is spoken to through its debugging pipe, which needs no port and no library.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use common::{Recorded, START_MS, record};
use serde_json::{Value, json};
use tinylm_registry::Registry;
use tinylm_reports::{Report, ReportOptions, Selection, compare, html, read_all, sections};

/// How long the browser may take for anything; it needs a tenth of it on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    next_id: u64,
    session: String,
    /// The page's complaints.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser; nothing where there is none.
    fn start() -> Option<Browser> {
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

    fn call(&mut self, method: &str, params: Value) -> Value {
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
        let answer = self.wait_for(|message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// Waits for a message, and remembers what the page complains about meanwhile.
    fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
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
                    if !url.starts_with("file:") {
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

    fn open(&mut self, file: &Path) {
        self.call(
            "Page.navigate",
            json!({ "url": format!("file://{}", file.display()) }),
        );
        self.wait_for(|message| message["method"] == "Page.loadEventFired");
    }

    /// Runs an expression in the page and returns its value.
    fn ask(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].clone()
    }

    /// Asks again until there is an answer; what does not come is a failure.
    #[track_caller]
    fn until<T>(&mut self, ask: impl Fn(&mut Browser, u64) -> Option<T>) -> T {
        for attempt in 0..250 {
            if let Some(answer) = ask(self, attempt) {
                return answer;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("what was waited for did not come");
    }

    fn resize(&mut self, width: u32, height: u32) {
        self.call("Emulation.setDeviceMetricsOverride", json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 }));
    }

    fn prefer(&mut self, scheme: &str) {
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

fn reports(registry: &Registry, ids: &[String]) -> Vec<Report> {
    let runs: Vec<_> = ids.iter().map(|id| registry.run(id).unwrap()).collect();
    read_all(
        registry,
        &runs,
        &ReportOptions::for_runs(runs.len(), START_MS, &[]),
    )
    .unwrap()
}

const EVIL: &str =
    "</script><script>window.owned=1</script><img src=x onerror=\"window.owned=1\">'\"&<!--";

#[test]
#[expect(clippy::print_stdout, reason = "a test that was skipped says so")]
fn pages_draw_answer_and_are_safe_in_a_browser() {
    let Some(mut browser) = Browser::start() else {
        println!("SKIPPED: no chromium answers here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(&folder.path().join("registry.sqlite")).unwrap();
    let first = record(&registry, &Recorded::default());
    let better = Recorded {
        lr: 3e-3,
        data_of: Some(&first),
        answer: "not bad . and you ?",
        ..Recorded::default()
    };
    let diverged = Recorded {
        loss: |_, share| if share < 0.5 { 5.0 } else { f64::NAN },
        ..Recorded::default()
    };
    let hostile = Recorded {
        experiment: EVIL,
        prompt: EVIL,
        answer: EVIL,
        ..Recorded::default()
    };
    let ids = [
        first.clone(),
        record(&registry, &better),
        record(&registry, &diverged),
        record(&registry, &hostile),
    ];
    registry.add_tag(&ids[3], EVIL).unwrap();
    registry.add_note(&ids[3], EVIL, START_MS).unwrap();
    let page = |name: &str, html: String| {
        let file = folder.path().join(name);
        std::fs::write(&file, html).unwrap();
        file
    };

    let one = page(
        "one.html",
        html::print(&sections::of_report(&reports(&registry, &ids[..1])[0], &[])),
    );
    browser.resize(1_200, 900);
    browser.open(&one);
    curves_are_drawn_and_answer(&mut browser);
    tables_sort_by_value(&mut browser);
    the_theme_follows_the_system_and_the_button(&mut browser);
    no_width_scrolls_sideways(&mut browser);
    assert_eq!(
        browser.ask("document.querySelectorAll('.graph rect').length"),
        2
    );

    let pair = compare(reports(&registry, &ids[..2]), &Selection::default()).unwrap();
    browser.open(&page(
        "pair.html",
        html::print(&sections::of_comparison(&pair)),
    ));
    comparison_shows_the_difference(&mut browser);
    no_width_scrolls_sideways(&mut browser);

    browser.open(&page(
        "diverged.html",
        html::print(&sections::of_report(
            &reports(&registry, &ids[2..3])[0],
            &[],
        )),
    ));
    assert!(
        browser
            .ask("document.querySelectorAll('.broken').length")
            .as_u64()
            >= Some(1),
        "a curve that broke off says so"
    );

    let hostile = &reports(&registry, &ids[3..])[0];
    browser.open(&page(
        "hostile.html",
        html::print(&sections::of_report(hostile, &[])),
    ));
    hostile_text_stays_text(&mut browser);
    let all = compare(reports(&registry, &ids), &Selection::default()).unwrap();
    browser.open(&page(
        "all.html",
        html::print(&sections::of_comparison(&all)),
    ));
    hostile_text_stays_text(&mut browser);
    no_width_scrolls_sideways(&mut browser);
    a_telephone_shows_every_run(&mut browser);

    assert_eq!(browser.complaints, Vec::<String>::new());
    a_foreign_script_is_refused(
        &mut browser,
        &page(
            "forged.html",
            html::print(&sections::of_report(hostile, &[]))
                .replace("<main>", "<main><script>window.owned=1</script>"),
        ),
    );
}

/// Numbers in the `d` of a path, two for each point.
const POINTS: &str = "(path => (path.getAttribute('d').match(/[ML]/g) || []).length)";

fn curves_are_drawn_and_answer(browser: &mut Browser) {
    let n_points = |browser: &mut Browser| {
        browser.ask(&format!(
            "{POINTS}(document.querySelector('.chart.wide path.line:not(.raw)'))"
        ))
    };
    assert_eq!(
        n_points(browser),
        200,
        "every recorded loss is a point of the curve"
    );
    assert_eq!(
        browser.ask("document.querySelectorAll('.chart.wide circle.mark').length"),
        10,
        "validation losses are marks"
    );
    let shape = |browser: &mut Browser| {
        browser.ask("document.querySelector('.chart.wide path.line:not(.raw)').getAttribute('d')")
    };
    let ticks = |browser: &mut Browser| {
        browser.ask("[...document.querySelectorAll('.chart.wide .tick')].map(tick => tick.textContent).join(' ')")
    };

    let (plain, by_step) = (shape(browser), ticks(browser));
    browser.ask("document.querySelector('[data-x=tokens]').click()");
    let by_tokens = ticks(browser);
    assert!(
        by_tokens != by_step && by_tokens.as_str().unwrap().contains("tokens"),
        "{by_tokens}"
    );
    browser.ask("document.querySelector('[data-x=seconds]').click()");
    assert!(ticks(browser).as_str().unwrap().contains(" s"));
    browser.ask("document.querySelector('[data-x=step]').click()");
    assert_eq!(shape(browser), plain);

    browser.ask("document.getElementById('log').click()");
    assert_ne!(shape(browser), plain, "a logarithmic scale bends the curve");
    browser.ask("document.getElementById('log').click()");
    browser.ask("(smooth => { smooth.value = 0.9; smooth.dispatchEvent(new Event('input')); })(document.getElementById('smooth'))");
    assert_ne!(shape(browser), plain, "smoothing smooths");
    assert_eq!(
        browser.ask("document.querySelectorAll('.chart.wide path.raw').length"),
        2,
        "what was smoothed is still there, faint"
    );
    browser.ask("(smooth => { smooth.value = 0; smooth.dispatchEvent(new Event('input')); })(document.getElementById('smooth'))");

    browser.ask("document.querySelector('.chart.wide .legend button').click()");
    assert_eq!(
        browser.ask("document.querySelectorAll('.chart.wide path.line:not(.raw)').length"),
        0,
        "a click on its name hides a curve"
    );
    assert_eq!(
        browser.ask(
            "document.querySelector('.chart.wide .legend button').getAttribute('aria-pressed')"
        ),
        "false"
    );
    browser.ask("document.querySelector('.chart.wide .legend button').click()");
    assert_eq!(shape(browser), plain);

    browser.ask("document.querySelector('.chart.wide').scrollIntoView()");
    let middle = browser.ask("(box => [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)])(document.querySelector('.chart.wide svg').getBoundingClientRect())");
    // A busy browser may draw anew just after the pointer came, which takes the read-out away.
    let read_out = browser.until(|browser, attempt| {
        let x = middle[0].as_u64().unwrap() + attempt % 2;
        let moved = json!({ "type": "mouseMoved", "x": x, "y": middle[1] });
        browser.call("Input.dispatchMouseEvent", moved);
        let text = "(tip => tip.hidden ? '' : tip.textContent)(document.querySelector('.chart.wide .tip'))";
        let text = browser.ask(text).as_str().unwrap().to_owned();
        (!text.is_empty()).then_some(text)
    });
    assert!(
        read_out.starts_with("step ")
            && read_out.contains("validation_loss")
            && read_out.contains("2."),
        "{read_out}"
    );
}

fn tables_sort_by_value(browser: &mut Browser) {
    let column = "[...document.querySelectorAll('table.sortable')].find(table => table.textContent.includes('validation_loss'))";
    browser.ask(&format!(
        "{column}.querySelector('th:last-child button').click()"
    ));
    let values = |browser: &mut Browser| -> Vec<f64> {
        let text = browser.ask(&format!(
            "[...{column}.tBodies[0].rows].map(row => Number(row.cells[1].dataset.v))"
        ));
        serde_json::from_value(text).unwrap()
    };
    let ascending = values(browser);
    assert!(
        ascending.len() > 1 && ascending.is_sorted(),
        "{ascending:?}"
    );
    browser.ask(&format!(
        "{column}.querySelector('th:last-child button').click()"
    ));
    assert!(values(browser).is_sorted_by(|a, b| a >= b));
}

fn the_theme_follows_the_system_and_the_button(browser: &mut Browser) {
    let paper =
        |browser: &mut Browser| browser.ask("getComputedStyle(document.body).backgroundColor");
    browser.prefer("light");
    let light = paper(browser);
    browser.prefer("dark");
    let dark = paper(browser);
    assert_ne!(light, dark);
    browser.ask("document.getElementById('theme').click()");
    assert_eq!(paper(browser), light);
    browser.ask("document.getElementById('theme').click()");
    assert_eq!(paper(browser), dark);
    browser.prefer("light");
}

/// A page is read down; only wide tables and graphs scroll, each by itself.
/// Four runs beside each other end where a small screen ends: none has to be scrolled to.
fn a_telephone_shows_every_run(browser: &mut Browser) {
    browser.resize(390, 800);
    let cells = "[...document.querySelectorAll('.runs th, .runs td')]";
    let hidden = format!(
        "{cells}.filter(cell => cell.getBoundingClientRect().right > 390).map(cell => cell.textContent)"
    );
    assert_eq!(browser.ask(&hidden), json!([]));
}

fn no_width_scrolls_sideways(browser: &mut Browser) {
    for width in [360, 768, 1_200] {
        browser.resize(width, 800);
        // The page draws its curves anew a frame after its width has changed.
        let measure = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        browser.until(|browser, _| (browser.ask(measure) == 0).then_some(()));
    }
}

fn comparison_shows_the_difference(browser: &mut Browser) {
    let text = browser.ask("document.body.innerText");
    let text = text.as_str().unwrap();
    assert!(text.contains("has the best base.validation_loss"), "{text}");
    assert!(
        text.contains("base.train.lr") && text.contains("0.003"),
        "the setting that differs is there"
    );
    assert!(!text.contains("base.train.clip"), "and no other");
    let best =
        browser.ask("[...document.querySelectorAll('td.best')].map(cell => cell.textContent)[0]");
    assert!(
        best.as_str().unwrap().contains(" %"),
        "the better one is marked, with its difference: {best}"
    );
    assert!(text.contains("i'm fine , thanks .") && text.contains("not bad . and you ?"));
    assert_eq!(
        browser.ask("document.querySelector('.chart').querySelectorAll('path.line').length"),
        2,
        "both runs are drawn"
    );
    browser.ask("document.querySelector('.legend button').click()");
    let hidden = browser.ask("[...document.querySelectorAll('.chart')].map(chart => chart.querySelectorAll('path.line').length)");
    assert!(
        hidden.as_array().unwrap().iter().all(|n| *n == 1),
        "a run is hidden everywhere at once: {hidden}"
    );
}

fn hostile_text_stays_text(browser: &mut Browser) {
    assert_eq!(browser.ask("window.owned === undefined"), true);
    assert_eq!(browser.ask("document.images.length"), 0);
    assert_eq!(browser.ask("document.scripts.length"), 2);
    let text = browser.ask("document.body.innerText");
    assert!(
        text.as_str()
            .unwrap()
            .contains("<script>window.owned=1</script>"),
        "it is shown as it is"
    );
}

/// The policy stops what escaping might miss.
fn a_foreign_script_is_refused(browser: &mut Browser, forged: &Path) {
    browser.complaints.clear();
    browser.open(forged);
    assert_eq!(browser.ask("window.owned === undefined"), true);
    assert!(
        browser
            .complaints
            .iter()
            .any(|text| text.contains("Content Security Policy")),
        "{:?}",
        browser.complaints
    );
}
