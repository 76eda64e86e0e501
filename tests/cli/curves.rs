//! Curves on the page that lives: as fine as the screen, in decades, and those of the machine.

use serde_json::Value;

use crate::{
    chromium::Browser,
    harness::Project,
    living::{last_run, learning},
    server::Server,
    skipped::skipped,
};

/// The page of a project's last run.
fn visit(browser: &mut Browser, project: &Project, server: &Server) {
    let origin = format!("http://{}/", server.addr);
    let name = last_run(project);
    browser.visit(&origin, &format!("{origin}run/{name}"));
}

/// The steps of the first curve, once they are there, and the pixels that it has.
fn steps(browser: &mut Browser) -> (Vec<u64>, usize) {
    let steps = browser.until(|browser, _| {
        let steps = browser.ask("JSON.stringify(page.charts[0]?.spec.series[0].step ?? [])");
        let steps: Vec<u64> = serde_json::from_str(steps.as_str().unwrap()).unwrap();
        (!steps.is_empty()).then_some(steps)
    });
    let width = browser.ask("page.charts[0].box.clientWidth");
    (steps, width.as_u64().unwrap() as usize)
}

fn across(browser: &mut Browser) {
    browser.touch(
        "[...document.querySelectorAll('.controls label')].find((label) => label.textContent.includes('→')).click()",
    );
}

#[test]
fn a_curve_has_two_points_a_pixel_along_an_axis_of_steps_or_of_decades() {
    let Some(mut browser) = Browser::start() else {
        skipped("no chromium answers here");
        return;
    };
    let browser = &mut browser;
    let project = learning(12_000);
    project.tinylm("run learning.yaml").success();
    let server = Server::start(&project, &["ui", "--port", "0"]);
    for (screen, at_least) in [(1200, 1200), (390, 400)] {
        browser.resize(screen, 800);
        visit(browser, &project, &server);
        let (steps, width) = steps(browser);
        let is_fine = (at_least..=2 * width).contains(&steps.len());
        assert!(is_fine, "{} for {width} pixels", steps.len());
    }

    let early = |steps: &[u64]| steps.iter().filter(|step| **step <= 30).count();
    assert!(early(&steps(browser).0) < 5);
    across(browser);
    browser.until(|browser, _| (early(&steps(browser).0) == 30).then_some(()));
    let (steps, width) = steps(browser);
    assert!(steps.len() <= 2 * width, "{} of {width}", steps.len());
    let ticks = "[...page.charts[0].svg.querySelectorAll('.tick')].map((tick) => tick.textContent).join(' ')";
    let told = browser.ask(ticks);
    let decades = "10k steps 1000 100 10 1";
    assert!(told.as_str().unwrap().contains(decades), "{told}");

    // Zero has a place of its own, and what no decade holds is not lost.
    browser.ask(
        "page.build([{ title: 't', note: 'n', wide: true, series: [{ key: 'k', name: 'n', colour: 0, \
         step: [0, 1, 10, 100], tokens: null, seconds: [0, 1, 2, 3], value: [4, 3, 2, 1] }] }])",
    );
    let told = browser.ask(ticks);
    let words: Vec<&str> = told.as_str().unwrap().split(' ').collect();
    assert!(words.contains(&"0") && words.contains(&"100"), "{told}");
    let marks = "page.charts[0].svg.querySelectorAll('circle.mark').length";
    assert_eq!(browser.ask(marks), 1);
    let places = browser.ask(
        "JSON.stringify([0, 1, 10, 100].map((step) => Math.round(page.charts[0].scale.toX(step))))",
    );
    let places: Vec<i64> = serde_json::from_str(places.as_str().unwrap()).unwrap();
    assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    let equal = (places[3] - places[2]) - (places[2] - places[1]);
    assert!(equal.abs() <= 1, "decades are equal: {places:?}");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// A stage whose work is a program's, for some seconds.
const BUSY: &str = r#"name: busy
stages:
  work:
    kind: command
    with:
      run: [sh, -c, "timeout 4 sh -c 'while :; do :; done'; echo done > '{out}/x'"]
      outputs: [x]
"#;

#[test]
fn the_machine_by_a_stage_is_drawn_over_time_and_is_none_of_its_results() {
    let project = Project::new();
    project.write("busy.yaml", BUSY);
    project.tinylm("run busy.yaml").success();

    let told = project.tinylm("report -v").success();
    for words in ["system/cpu", "system/memory", " MB"] {
        assert!(told.stdout.contains(words), "{told}");
    }
    let brief = project.tinylm("report").success();
    assert!(!brief.stdout.contains("system/"), "{brief}");
    let runs = project.tinylm("runs --json").success();
    assert!(!runs.stdout.contains("system/"), "{runs}");
    project
        .tinylm("export @last --to csv --out numbers.csv")
        .success();
    assert!(project.read("numbers.csv").contains(",work,system/cpu,1,"));
    let artifact = project.artifact_folder("work");
    assert_eq!(std::fs::read_dir(artifact).unwrap().count(), 1);

    let Some(mut browser) = Browser::start() else {
        skipped("no chromium answers here");
        return;
    };
    let server = Server::start(&project, &["ui", "--port", "0"]);
    visit(&mut browser, &project, &server);
    let chart = |load: &str| format!("page.charts.find((chart) => chart.spec.load === '{load}')");
    let cores = format!(
        "Math.max(...({}?.spec.series[0].value ?? []))",
        chart("cores")
    );
    let most = browser.until(|browser, _| browser.ask(&cores).as_f64());
    // The stage itself only waits; on a machine that is busy with much else its program has little.
    assert!(most > 0.02, "a program below the stage was busy: {most}");
    for (load, unit) in [("cores", " s"), ("bytes", " MB")] {
        let ticks = format!("{}.svg.textContent", chart(load));
        let ticks = browser.ask(&ticks);
        assert!(ticks.as_str().unwrap().contains(unit), "{load}: {ticks}");
    }

    // What was recorded before there were such curves, or took no time, shows none.
    project.write(
        "short.yaml",
        "stages: { rows: { kind: download, with: { rows: [{ text: hi }] } } }\n",
    );
    project.tinylm("run short.yaml").success();
    visit(&mut browser, &project, &server);
    let stages = "document.querySelector('[data-piece=Stages]')?.textContent";
    browser.until(|browser, _| browser.ask(stages).as_str().map(str::to_owned));
    assert_eq!(
        browser.ask("document.getElementById('charts')"),
        Value::Null
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}
