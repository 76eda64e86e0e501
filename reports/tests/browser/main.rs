//! The page in a real browser: what it draws, what it does when touched, and that it is safe.

mod chromium;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../../tests/skipped/mod.rs"]
mod skipped;

use chromium::Browser;
use common::{Recorded, START_MS, record};
use skipped::skipped;
use std::path::Path;

use serde_json::json;
use tinylm_registry::{Home, Registry};
use tinylm_reports::{Report, ReportOptions, Selection, compare, html, read_all, sections};

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
fn pages_draw_answer_and_are_safe_in_a_browser() {
    let Some(mut browser) = Browser::start() else {
        skipped("no chromium answers here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(&Home::at(folder.path())).unwrap();
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
    browser.touch("document.querySelector('[data-x=tokens]').click()");
    let by_tokens = ticks(browser);
    assert!(
        by_tokens != by_step && by_tokens.as_str().unwrap().contains("tokens"),
        "{by_tokens}"
    );
    browser.touch("document.querySelector('[data-x=seconds]').click()");
    assert!(ticks(browser).as_str().unwrap().contains(" s"));
    browser.touch("document.querySelector('[data-x=step]').click()");
    assert_eq!(shape(browser), plain);

    browser.touch("document.getElementById('log').click()");
    assert_ne!(shape(browser), plain, "a logarithmic scale bends the curve");
    browser.touch("document.getElementById('log').click()");
    browser.ask("(smooth => { smooth.value = 0.9; smooth.dispatchEvent(new Event('input')); })(document.getElementById('smooth'))");
    assert_ne!(shape(browser), plain, "smoothing smooths");
    assert_eq!(
        browser.ask("document.querySelectorAll('.chart.wide path.raw').length"),
        2,
        "what was smoothed is still there, faint"
    );
    browser.ask("(smooth => { smooth.value = 0; smooth.dispatchEvent(new Event('input')); })(document.getElementById('smooth'))");

    browser.touch("document.querySelector('.chart.wide .legend button').click()");
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
    browser.touch("document.querySelector('.chart.wide .legend button').click()");
    assert_eq!(shape(browser), plain);

    browser.ask("document.querySelector('.chart.wide').scrollIntoView()");
    let middle = browser.ask("(box => [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)])(document.querySelector('.chart.wide svg').getBoundingClientRect())");
    // A busy browser may draw anew just after the pointer came, which takes the read-out away.
    let read_out = browser.until(|browser, attempt| {
        let x = middle[0].as_u64().unwrap() + attempt % 2;
        let moved = json!({ "type": "mouseMoved", "x": x, "y": middle[1] });
        browser.call("Input.dispatchMouseEvent", moved);
        // Beside the pointer: below the chart nobody looks for it.
        let text = "(tip => tip.hidden || tip.offsetTop > 200 ? '' : tip.textContent)(document.querySelector('.chart.wide .tip'))";
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
    browser.touch(&format!(
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
    browser.touch(&format!(
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
    browser.touch("document.getElementById('theme').click()");
    assert_eq!(paper(browser), light);
    browser.touch("document.getElementById('theme').click()");
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
    browser.touch("document.querySelector('.legend button').click()");
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
