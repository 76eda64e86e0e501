//! `ui`, `watch` and `stop`: a run seen and stopped from outside while it goes on.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    chromium::Browser,
    harness::{Project, children_of, signal, wait_until},
    server::Server,
    skipped::skipped,
    terminal::Terminal,
};

/// A training that takes some seconds and can be made to take longer.
const LEARNING: &str = "# Does it move while it is looked at?
name: learning
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  chat: { kind: normalize, inputs: { sources: corpus }, with: { format: lines } }
  tokens: { kind: tokenizer, inputs: { documents: chat }, with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens }, with: { validation: 0.2 } }
  model:
    kind: pretrain
    inputs: { shards: shards }
    with:
      model: { preset: mini, context: 16, d_model: 16, n_layers: 1, n_heads: 2, d_ff: 32 }
      train: { batch: 2, steps: STEPS, lr: 0.01, validate_every: 50 }
    watch: { log_every: 1, checkpoint_every: 500, samples: [the sun] }
";

pub(crate) fn learning(n_steps: u32) -> Project {
    let project = Project::new();
    let steps = n_steps.to_string();
    project.write("learning.yaml", &LEARNING.replace("STEPS", &steps));
    let lines = (0..60).map(|n| format!("the sun rose {n} times over the hill\n"));
    project.write("corpus.txt", &lines.collect::<String>());
    project
}

/// What was written shortly before the last news may come again.
const LONGER_THAN_SLACK: Duration = Duration::from_secs(5);

/// Whether the run has points of its model's loss by now.
fn learns(project: &Project) -> bool {
    let shown = project.tinylm("report --json");
    let report: Value = serde_json::from_str(&shown.stdout).unwrap_or(Value::Null);
    let curves = report["curves"].as_array();
    curves.is_some_and(|curves| curves.iter().any(|curve| curve["metric"] == "loss"))
}

pub(crate) fn last_run(project: &Project) -> String {
    project.last_run("name")
}

#[test]
fn a_page_shows_a_run_as_it_goes_on_and_leads_to_what_it_made() {
    let Some(mut browser) = Browser::start() else {
        skipped("no chromium answers here");
        return;
    };
    let project = learning(12_000);
    let run = project.start("run learning.yaml");
    wait_until("it learns", || learns(&project));
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let origin = format!("http://{}/", server.addr);
    let name = last_run(&project);
    // However slow the browser is, there is more to come.
    let stage = children_of(run.id())[0];
    signal(stage, "STOP");
    browser.visit(&origin, &format!("{origin}run/{name}"));
    browser.touch("window.isSamePage = true");
    let n_points = "page.charts[0].spec.series[0].step.length";
    let before = browser.ask(n_points).as_u64().unwrap();
    signal(stage, "CONT");
    let grown =
        browser.until(|browser, _| browser.ask(n_points).as_u64().filter(|now| *now > before));
    assert!(grown > before);
    signal(stage, "STOP");
    let now = "document.querySelector('[data-piece=Now]')?.textContent";
    let now = browser.until(|browser, _| Some(browser.ask(now)).filter(|now| !now.is_null()));
    assert!(now.as_str().unwrap().contains("of 12,000 steps"), "{now}");
    signal(stage, "CONT");
    project.wait(run).success();
    // Everything has turned without the page being loaded again.
    browser.until(|browser, _| {
        let pill = browser.ask("document.querySelector('h1 .pill').textContent");
        (pill == "done").then_some(())
    });
    assert_eq!(browser.ask("window.isSamePage"), true);
    assert_eq!(
        browser.ask("document.querySelector('[data-piece=Now]')"),
        Value::Null
    );
    assert_eq!(browser.ask("document.querySelectorAll('g.made').length"), 5);
    let steps = browser.until(|browser, _| {
        let steps = browser.ask("JSON.stringify(page.charts[0].spec.series[0].step)");
        let steps: Vec<u64> = serde_json::from_str(steps.as_str().unwrap()).unwrap();
        (steps.last() == Some(&12_000)).then_some(steps)
    });
    assert!(steps.is_sorted_by(|a, b| a < b), "no step is drawn twice");

    // A piece of a curve is drawn from its own points.
    browser.ask("page.charts[0].zoom([100, 200])");
    browser.until(|browser, _| {
        let drawn = browser.ask("page.charts[0].spec.series[0].step.filter((step) => step >= 100 && step <= 200).length");
        (drawn == 101).then_some(())
    });

    browser.touch("[...document.querySelectorAll('td[data-at] a')].find((link) => link.textContent === 'model').click()");
    let artifact = project.artifact_folder("model");
    let digest = artifact
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    browser.until(|browser, _| {
        let page = browser.ask("document.body?.textContent ?? ''");
        page.as_str().unwrap().contains(&digest).then_some(())
    });
    // The digest stands above it, and a page comes from its top.
    let from = "document.querySelector('[data-piece=\"Made from\"]')?.textContent";
    let from = browser.until(|browser, _| Some(browser.ask(from)).filter(|from| !from.is_null()));
    assert!(from.as_str().unwrap().contains("shards"), "{from}");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn what_is_written_comes_once_and_what_was_missed_comes_when_asked_for() {
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("it learns", || learns(&project));
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let of = format!("%2Frun%2F{}", last_run(&project));
    let mut steps: Vec<u64> = Vec::new();
    let mut last_id = String::new();
    let begun = Instant::now();
    let events = server.events(&format!("/stream?of={of}&since=0"), "");
    for (id, news) in events.take_while(|_| begun.elapsed() < LONGER_THAN_SLACK) {
        steps.extend(losses(&news));
        last_id = id;
    }
    assert!(
        steps.len() > 10 && steps.is_sorted_by(|a, b| a < b),
        "{steps:?}"
    );
    // The connection was lost; meanwhile more was written.
    let seen = *steps.last().unwrap();
    let again = format!("Last-Event-ID: {last_id}\r\n");
    let more = server.events(&format!("/stream?of={of}&since=0"), &again);
    let more: Vec<u64> = more.take(4).flat_map(|(_, news)| losses(&news)).collect();
    assert!(
        more[0] <= seen + 1 && more.last() > Some(&seen),
        "{seen} and then {more:?}"
    );
    assert!(more[0] > steps[0], "not all of it again");
    project.tinylm("stop").success();
    project.wait(run).failure(130);
}

fn losses(news: &Value) -> Vec<u64> {
    let points = news["points"].as_object().into_iter().flatten();
    let of_loss = points.filter(|(id, _)| id.ends_with("/loss"));
    let steps = of_loss.flat_map(|(_, points)| points["step"].as_array().cloned());
    steps.flatten().filter_map(|step| step.as_u64()).collect()
}

#[test]
fn a_page_changes_nothing_unless_it_may_and_answers_to_its_own_name() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let name = last_run(&project);
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let tag = format!("/change/{name}");
    assert_eq!(server.post(&tag, &json!({ "tag": "good" })).status, 403);
    assert_eq!(server.ask("/", "Host: evil.example\r\n", "").status, 403);
    let evil = "Origin: http://evil.example\r\nContent-Type: application/json\r\n";
    assert_eq!(server.ask(&tag, evil, "{\"tag\":\"x\"}").status, 403);
    let page = server.get("/");
    assert!(page.head.contains("script-src 'self'"), "{}", page.head);
    for (path, status) in [
        ("/run/no-such-run", 404),
        ("/run/@last/no-such-stage", 404),
        ("/compare?run=@last", 400),
        ("/?where=loss+%3C+", 400),
        ("/?sort=nothing", 400),
        ("/nowhere", 404),
        ("/curve?id=x", 400),
        ("/curve?id=x/loss", 404),
        ("/stream?of=nowhere", 404),
        ("/play/no-such-run/model/", 404),
        ("/play/", 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    drop(server);
    let server = Server::start(&project, &["ui", "--port", "0", "--allow-changes"]);
    assert_eq!(server.post(&tag, &json!({ "tag": "good" })).status, 200);
    let long = server.post(&tag, &json!({ "tag": "x".repeat(65) }));
    let words = "a tag has at most 64 characters; `tinylm note` takes more";
    assert!(
        long.status == 400 && long.body.contains(words),
        "{}",
        long.body
    );
    let none = server.post(&tag, &json!({ "untag": "bad" }));
    assert!(
        none.status == 400 && none.body.contains("has no tag `bad`"),
        "{}",
        none.body
    );
    assert_eq!(
        server
            .post(&tag, &json!({ "note": "<b>it works</b>" }))
            .status,
        200
    );
    assert_eq!(
        server.post(&tag, &json!({ "stop": true })).status,
        400,
        "it has ended"
    );
    let page = server.get(&format!("/run/{name}")).body;
    assert!(
        page.contains("good") && page.contains("&lt;b&gt;it works"),
        "{page}"
    );
}

#[test]
fn a_page_begins_before_the_first_run_and_sees_a_home_that_is_begun_anew() {
    let project = Project::chain();
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let empty = server.get("/");
    assert!(empty.status == 404 && empty.body.contains("there are no runs yet"));
    for _ in 0..2 {
        project.tinylm("run chain.yaml").success();
        let page = server.get("/");
        assert!(page.status == 200 && page.body.contains("loaded 1 of 1"));
        assert!(page.body.contains(&last_run(&project)));
        fs::remove_dir_all(project.path(".tinylm")).unwrap();
    }
}

#[test]
fn a_model_is_talked_to_while_it_learns() {
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("there is a checkpoint", || {
        project.tinylm("sample @last -p the -n 4").code == Some(0)
    });
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let place = format!("/play/{}/model/", last_run(&project));
    let page = server.get(&place);
    assert!(
        page.status == 200 && page.body.contains("<textarea"),
        "{}",
        page.head
    );
    let asked = json!({ "prompt": "the sun", "max_tokens": 4, "temperature": 0 });
    let answer = server.post(&format!("{place}v1/completions"), &asked);
    assert!(
        answer.status == 200 && answer.body.contains("\"choices\""),
        "{}",
        answer.body
    );
    project.tinylm("stop").success();
    project.wait(run).failure(130);
}

/// The steps that an error says are kept.
fn steps_of(refused: &str) -> Vec<u64> {
    let (_, steps) = refused.split_once("it keeps those of step").unwrap();
    let steps = steps.trim_start_matches('s').trim().replace(" and ", ", ");
    steps
        .split(", ")
        .map(|step| step.parse().unwrap())
        .collect()
}

#[test]
fn any_step_that_is_kept_is_talked_to_by_its_number_before_the_end_and_after() {
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("there are several checkpoints", || {
        let refused = project.tinylm("sample @last/model@7 -p the");
        refused.stderr.contains("keeps no weights of step 7") && refused.stderr.contains(" and ")
    });
    project.tinylm("stop").success();
    project.wait(run).failure(130);
    let name = last_run(&project);
    let refused = project.tinylm(&format!("sample {name}/model@7 -p the"));
    let steps = steps_of(&refused.failure(2).stderr);
    let said = |step: u64| {
        let sample =
            format!("sample {name}/model@{step} -p the -n 4 --temperature 0 --show-steps 3");
        project.tinylm(&sample).success().stdout
    };
    assert!(steps.len() >= 2, "{steps:?}");
    assert_ne!(said(steps[0]), said(*steps.last().unwrap()));
    let newest = project.tinylm(&format!(
        "sample {name}/model -p the -n 4 --temperature 0 --show-steps 3"
    ));
    assert_eq!(newest.success().stdout, said(*steps.last().unwrap()));
    let server = Server::start(&project, &["ui", "--port", "0"]);
    for (step, status) in [(steps[0], 200), (7, 404)] {
        let page = server.get(&format!("/play/{name}/model@{step}/"));
        assert_eq!(page.status, status, "{}", page.body);
    }
    let listed = server.get(&format!("/steps/{name}/model")).body;
    assert_eq!(listed, json!(steps).to_string());
    let wrong = project
        .tinylm(&format!("chat {name}/model@soon"))
        .failure(2);
    assert!(wrong.stderr.contains("`soon`"), "{wrong}");

    let project = learning(120);
    project.tinylm("run learning.yaml").success();
    let refused = project.tinylm("sample @last/model@7 -p the").failure(2);
    let steps = steps_of(&refused.stderr);
    assert_eq!(steps.last(), Some(&120), "the last, and the best before it");
    let best = format!(
        "sample @last/model@{} -p the -n 4 --temperature 0 --show-steps 3",
        steps[0]
    );
    let best = project.tinylm(&best).success().stdout;
    let asked = project.tinylm("sample @last/model -p the -n 4 --temperature 0 --show-steps 3");
    assert_eq!(asked.success().stdout, best);
    let last = project.tinylm("sample @last/model@120 -p the -n 4 --temperature 0 --show-steps 3");
    let asked = project
        .tinylm("sample @last/model -p the -n 4 --temperature 0 --show-steps 3 --weights last");
    assert_eq!(last.success().stdout, asked.success().stdout);
}

#[test]
fn where_a_stage_is_at_work_is_seen_on_a_page_and_in_a_terminal() {
    const PLACE: &str = "job 4711 on node7";
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("it learns", || learns(&project));
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let of_run = format!("/run/{}", last_run(&project));
    assert!(!server.get(&of_run).body.contains("place"));
    // What a driver writes down of a job of a cluster.
    let registry = rusqlite::Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
    let place = "UPDATE executions SET place = ?1 WHERE stage = 'model'";
    assert_eq!(registry.execute(place, [PLACE]).unwrap(), 1);
    for page in [&of_run, "/"] {
        let page = server.get(page).body;
        assert!(page.contains(PLACE), "{page}");
    }
    match Terminal::open(&project.command(&["watch"])) {
        Some(mut terminal) => drop(terminal.wait_for(PLACE)),
        None => skipped("there is no `script` to make a terminal with"),
    }
    let watching = project.start_printing("watch", "watched");
    project.wait_for_words("watched", PLACE);
    project.tinylm("stop").success();
    project.wait(run).failure(130);
    project.wait(watching).failure(1);
    let told = project.read("watched");
    let line = told.lines().find(|line| line.starts_with("model: "));
    assert!(line.is_some_and(|line| line.ends_with(PLACE)), "{told}");
}

#[test]
fn a_run_is_followed_and_stopped_from_another_terminal() {
    let project = learning(100_000);
    let run = project.start("run learning.yaml");
    wait_until("it learns", || learns(&project));
    let followers = [("watch", "watched"), ("report --follow", "followed")].map(|(words, file)| {
        let follower = project.start_printing(words, file);
        project.wait_for_words(file, "of 100,000 steps");
        (follower, file)
    });
    let stopped = project.tinylm("stop").success();
    assert!(stopped.stdout.contains("resume"), "{stopped}");
    project.wait(run).failure(130);
    for (follower, file) in followers {
        project.wait(follower).failure(1);
        let told = project.read(file);
        assert!(told.contains("model: "), "{told}");
        assert!(told.contains("of 100,000 steps"), "{told}");
        assert!(told.contains("cancelled after"), "{told}");
    }
    let again = project.tinylm("stop").failure(2);
    assert!(again.stderr.contains("is not going on"), "{again}");
}
