//! Laws of every page. How it looks and behaves in a browser is tested in `tests/browser.rs`.

use super::*;
use crate::{
    comparison::{Selection, compare},
    report::Report,
    sections::{of_comparison, of_report},
    testing::{dialogue, dialogue_slower, hostile, shakespeare_diverging},
};

fn one(report: &Report) -> String {
    super::print(&of_report(report, &[]))
}

fn compared(runs: Vec<Report>) -> String {
    let comparison = compare(runs, &Selection::default()).unwrap();
    super::print(&of_comparison(&comparison))
}

#[test]
fn a_digest_is_written_as_the_policy_wants_it() {
    // The published digest of the empty text.
    assert_eq!(
        sha256_base64(""),
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
}

#[test]
fn hostile_text_never_becomes_markup() {
    for page in [
        one(&hostile()),
        compared(vec![hostile(), dialogue()]),
        compared(vec![hostile(); 12]),
    ] {
        assert!(
            page.contains("&lt;script&gt;alert(1)"),
            "the names are there"
        );
        assert!(!page.contains("<script>alert") && !page.contains("<img"));
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script").count(), 2);
        assert!(!page.contains('\u{202e}') && !page.contains('\x1b'));
    }
}

#[test]
fn a_page_fetches_nothing_and_styles_nothing_inline() {
    let page = compared(vec![dialogue(), dialogue_slower(), shakespeare_diverging()]);
    assert!(
        !page.contains("http:") && !page.contains("https:")
            || page.matches("http://www.w3.org/2000/svg").count()
                == page.matches("http").count() - 1
    );
    for attribute in [" style=", " onclick=", " src=", " href=", "@import", "url("] {
        assert!(!page.contains(attribute), "{attribute}");
    }
}

#[test]
fn a_run_that_diverged_says_so_in_its_data() {
    assert!(one(&shakespeare_diverging()).contains("\"nan\""));
}

#[test]
fn the_difference_is_written_out() {
    let page = compared(vec![dialogue(), dialogue_slower()]);
    assert!(
        page.contains("base.<wbr>train.<wbr>lr")
            && page.contains("0.0003")
            && page.contains("-3.2 %")
    );
    assert!(
        page.contains("calm-heron-02c1</span><span class=\"\"> has the best perplexity.perplexity")
    );
}

#[test]
fn a_law_is_drawn_and_hostile_names_stay_text_in_it() {
    let mut runs = crate::testing::scaled();
    for report in &mut runs {
        report.run.name = hostile().run.name;
        for stage in &mut report.stages {
            stage.row.name.push_str("<img>");
        }
        for last in &mut report.finals {
            last.stage.push_str("<img>");
        }
    }
    let comparison = compare(runs, &Selection::default()).unwrap();
    let fit = crate::fit::Fit::of(&comparison, &crate::fit::Wanted::default()).unwrap();
    let page = super::print(&crate::sections::of_fit(&fit));
    let n_dots = page.matches("r=\"4\"").count();
    assert_eq!(n_dots, 2 * 11 + 3, "runs in two pictures, and the key");
    assert!(
        page.contains("&lt;script&gt;alert(1)"),
        "the names are there"
    );
    assert!(!page.contains("<script>alert") && !page.contains("<img"));
}
