//! What a reader does on the live page: compares runs, keeps one open, looks at samples step by step, lays stages over
//! each other, reads a sweep, and, where that is allowed, writes a word and stops a run. And in a terminal.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    chromium::Browser,
    harness::{Project, wait_until},
    living::{last_run, learning},
    server::Server,
    skipped::skipped,
    terminal::Terminal,
};

struct Reader {
    browser: Browser,
    origin: String,
    /// How long each page took that was visited.
    visits: Vec<Duration>,
    _server: Server,
}

impl Reader {
    fn of(project: &Project, more: &[&str]) -> Option<Reader> {
        let Some(browser) = Browser::start() else {
            skipped("no chromium answers here");
            return None;
        };
        let server = Server::start(project, &[&["ui", "--port", "0"], more].concat());
        Some(Reader {
            browser,
            origin: format!("http://{}/", server.addr),
            visits: Vec::new(),
            _server: server,
        })
    }

    fn visit(&mut self, path: &str) {
        let page = format!("{}{path}", self.origin);
        let begun = Instant::now();
        self.browser.visit(&self.origin, &page);
        self.until_it_is("document.getElementById('state')?.textContent", "live");
        self.visits.push(begun.elapsed());
    }

    #[track_caller]
    fn until_it_is(&mut self, expression: &str, wanted: impl Into<Value>) {
        self.browser.until_it_is(expression, &wanted.into());
    }

    fn click(&mut self, selector: &str) {
        let click = format!("document.querySelector({selector:?}).click()");
        self.browser.touch(&click);
    }

    #[track_caller]
    fn sees_no_complaints(&self) {
        assert_eq!(self.browser.complaints, Vec::<String>::new());
    }
}

/// Two trainings in a row, so that a metric is of more than one stage.
fn of_two_trainings() -> Project {
    let project = learning(200);
    let file = project.read("learning.yaml");
    let model = file.split("  model:\n").nth(1).unwrap();
    project.write("learning.yaml", &format!("{file}  second:\n{model}"));
    project
}

fn is_open(name: &str) -> String {
    format!("!!document.querySelector('.open[data-at=\"run/{name}\"]')")
}

#[test]
fn runs_are_compared_kept_open_and_looked_into() {
    let project = of_two_trainings();
    project.tinylm("run learning.yaml").success();
    let first = last_run(&project);
    let Some(mut reader) = Reader::of(&project, &[]) else {
        return;
    };
    // The newest run is open; one that was pinned then stays so.
    reader.visit("");
    reader.click(".open h1 button.pin");
    let button = "document.querySelector('.open h1 button.pin')?.textContent";
    reader.until_it_is(button, "unpin");
    project
        .tinylm("run learning.yaml -S model.train.lr=0.02")
        .success();
    let second = last_run(&project);
    reader.visit("");
    for name in [&first, &second] {
        reader.until_it_is(&is_open(name), true);
    }
    reader.browser.touch("localStorage.clear()");
    reader.visit("");
    reader.until_it_is(&is_open(&second), true);
    reader.until_it_is(&is_open(&first), false);

    // Two are chosen by their boxes.
    for name in [&first, &second] {
        reader.click(&format!("input[aria-label='compare {name}']"));
    }
    reader.click(".tools button");
    reader.until_it_is("location.pathname", "/compare");
    reader.until_it_is("document.body.textContent.includes('0.02')", true);
    for name in [&first, &second] {
        let is_named = format!("document.body.textContent.includes('{name}')");
        reader.until_it_is(&is_named, true);
    }

    // Both stages in a chart a metric, or each in its own. Those of what a stage took are there of stages that
    // took long enough, which on a slow machine may be one of the two.
    reader.visit(&format!("run/{second}"));
    let n_charts = "page.charts.filter((chart) => !chart.spec.load).length";
    let apart = reader.browser.ask(n_charts).as_u64().unwrap();
    let tick = "[...document.querySelectorAll('.controls label')]\
        .find((label) => label.textContent.includes('stages together')).querySelector('input').click()";
    reader.browser.touch(tick);
    assert!(apart > 0 && apart.is_multiple_of(2), "{apart} charts");
    reader.until_it_is(n_charts, apart / 2);
    let names =
        "[...new Set(page.charts[0].spec.series.map((line) => line.name.split(' ')[0]))].join(' ')";
    reader.until_it_is(names, "model second");
    reader.browser.touch(tick);
    reader.until_it_is(n_charts, apart);

    // Samples of one step at a time.
    let shown = "[...document.querySelectorAll('.steps')].at(-1).querySelector('span').textContent";
    reader.until_it_is(&format!("{shown}.startsWith('step 150')"), true);
    reader.browser.touch(
        "for (const slider of document.querySelectorAll('.steps input')) { slider.value = 0; slider.dispatchEvent(new Event('input')); }",
    );
    reader.until_it_is(&format!("{shown}.startsWith('step 50')"), true);

    // Why it was made is told where it is.
    reader.visit(&format!("run/{second}/model"));
    reader.until_it_is(
        "document.body.textContent.includes('train.lr` was 0.01, is now 0.02')",
        true,
    );
    reader.sees_no_complaints();

    // Whoever leafs through many pages waits for none of them: not for a stream of one that was left, which a
    // browser with no connection to spare would wait a minute for.
    for _ in 0..10 {
        reader.visit(&format!("run/{first}"));
    }
    reader.visits.sort();
    let (usual, slowest) = (reader.visits[5], reader.visits[reader.visits.len() - 1]);
    assert!(
        slowest < Duration::from_secs(20) + 4 * usual,
        "{usual:?}, {slowest:?}"
    );
}

#[test]
fn a_sweep_is_drawn_from_its_settings_to_its_results_with_the_effects_of_each() {
    let project = learning(20);
    project
        .tinylm("run learning.yaml --sweep model.train.lr=1e-2,3e-3 --sweep model.train.batch=2,4")
        .success();
    let of_the_sweep = last_run(&project);
    let Some(mut reader) = Reader::of(&project, &[]) else {
        return;
    };
    reader.visit(&format!("sweep/{of_the_sweep}"));
    reader.until_it_is("document.querySelectorAll('svg.parallel').length > 0", true);
    let text = reader.browser.ask("document.body.textContent");
    let text = text.as_str().unwrap();
    for told in [
        "Settings and what came of them",
        "Effect of each setting",
        "model.train.lr",
        "model.train.batch",
    ] {
        assert!(text.contains(told), "`{told}` in {text}");
    }
    reader.sees_no_complaints();
}

#[test]
fn a_word_is_said_of_a_run_and_the_run_is_stopped_by_the_form() {
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("it is listed", || project.tinylm("runs").code == Some(0));
    wait_until("it learns", || {
        let work = project.path(".tinylm/work");
        Path::new(&work).exists() && project.tinylm("report").stdout.contains("loss")
    });
    let name = last_run(&project);
    let Some(mut reader) = Reader::of(&project, &["--allow-changes"]) else {
        project.tinylm("stop").success();
        project.wait(run).failure(130);
        return;
    };
    reader.visit(&format!("run/{name}"));
    for (kind, words) in [("tag", "good"), ("note", "it <i>works</i>")] {
        reader.browser.ask(&format!(
            "document.getElementById('words').value = '{words}'"
        ));
        reader.click(&format!("#change [data-change='{kind}']"));
        reader.until_it_is("document.getElementById('words').value", "");
        let is_told = format!("document.getElementById('view').textContent.includes('{words}')");
        reader.until_it_is(&is_told, true);
    }
    reader.click("#change [data-change='stop']");
    project.wait(run).failure(130);
    reader.until_it_is(
        "document.querySelector('h1 .pill').textContent",
        "cancelled",
    );
    reader.sees_no_complaints();
}

#[test]
fn a_terminal_that_watches_shows_progress_and_samples_until_the_end() {
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("a sample", || {
        project.tinylm("report --json").stdout.contains("the sun")
    });
    let Some(mut terminal) = Terminal::open(&project.command(&["watch"])) else {
        skipped("there is no `script` of util-linux");
        project.tinylm("stop").success();
        project.wait(run).failure(130);
        return;
    };
    terminal.wait_for("of 100,000 steps");
    terminal.wait_for("the sun");
    // It is drawn again in its place.
    terminal.wait_for("of 100,000 steps");
    assert!(terminal.raw().contains("\x1b["), "{}", terminal.raw());
    project.tinylm("stop").success();
    project.wait(run).failure(130);
    terminal.wait_for("cancelled");
    assert_eq!(terminal.end(), 1);
}
