//! Laws of a fit as a whole, and its faults in words.

use serde_json::json;

use super::{
    planted::{LAWS, grid, noisy},
    search::Measured,
    *,
};
use crate::{
    Selection, compare,
    report::Report,
    testing::{dialogue, last},
};

/// A run whose `base` was trained, and whose `perplexity` was measured.
fn run(idx: usize, measured: &Measured) -> Report {
    let mut report = dialogue();
    report.run.id = format!("id-{idx}");
    report.run.name = format!("run-{idx}");
    report.curves.clear();
    report.finals = vec![
        last("base", "parameters", measured.at.weights),
        last("base", "tokens", measured.at.tokens),
        last("base", "epochs", 1.0),
        last("perplexity", "loss", measured.loss),
    ];
    report
}

fn runs(measured: &[Measured]) -> Vec<Report> {
    measured
        .iter()
        .enumerate()
        .map(|(idx, one)| run(idx, one))
        .collect()
}

fn fit_with(runs: Vec<Report>, wanted: &Wanted) -> Result<Fit, Error> {
    Fit::of(&compare(runs, &Selection::default()).unwrap(), wanted)
}

fn fit(runs: Vec<Report>) -> Result<Fit, Error> {
    fit_with(runs, &Wanted::default())
}

/// Twenty runs near the first law.
fn sweep() -> Vec<Report> {
    runs(&noisy(LAWS[0], 0.003, 4))
}

fn left_out(fit: &Fit) -> Vec<String> {
    let told = fit.left_out.iter();
    told.map(|run| format!("{}: {}", run.run, run.why))
        .collect()
}

#[test]
fn the_order_of_runs_changes_no_digit() {
    let wanted = Wanted {
        budgets: vec![1e12],
        predictions: vec![Ask::Of(Scale {
            weights: 1e7,
            tokens: 1e8,
        })],
    };
    let mut shuffled = sweep();
    shuffled.reverse();
    shuffled.swap(2, 17);
    let told = |runs| crate::data::json(&fit_with(runs, &wanted).unwrap());
    assert_eq!(told(sweep()), told(shuffled));
}

#[test]
fn a_law_says_what_it_was_planted_with_to_within_its_intervals() {
    let fit = fit(sweep()).unwrap();
    let planted = [LAWS[0].floor, LAWS[0].weights_power, LAWS[0].tokens_power];
    for (parameter, planted) in fit.parameters.iter().zip(planted) {
        let Interval { from, to } = parameter.interval;
        // One in ten lies outside, and not by much.
        let off = (parameter.value - planted).abs();
        assert!(off < to - from, "{parameter:?}");
        assert_eq!(parameter.is_determined, Some(true), "{parameter:?}");
    }
    for budget in &fit.budgets {
        let best = LAWS[0].best(budget.compute).unwrap();
        for (interval, wanted) in [(budget.weights, best.weights), (budget.tokens, best.tokens)] {
            let Interval { from, to } = interval;
            assert!(from / 1.2 < wanted && wanted < to * 1.2, "{budget:?}");
        }
    }
    assert_eq!(fit.budgets.len(), 4, "one for each number of tokens");
    assert!(fit.quality.error_max < 2.0 && fit.quality.error_unseen_max < 3.0);
    assert!(fit.quality.error_rms < fit.quality.error_unseen_rms);
}

#[test]
fn a_floor_that_no_run_comes_near_is_called_undetermined() {
    let law = Law {
        floor: 0.05,
        weights_power: 0.08,
        tokens_power: 0.1,
        of_weights: 5.0,
        of_tokens: 9.0,
    };
    for share in [0.0, 0.01] {
        let fit = fit(runs(&noisy(law, share, 2))).unwrap();
        assert_eq!(fit.parameters[0].name, "E");
        assert_eq!(fit.parameters[0].is_determined, Some(share == 0.0));
    }
    let none = Law { floor: 0.0, ..law };
    let fit = fit(runs(&grid(none))).unwrap();
    assert_eq!(
        fit.parameters[0].is_determined,
        Some(false),
        "{:?}",
        fit.law
    );
}

#[test]
fn a_run_left_out_is_predicted_as_its_size_was() {
    let mut all = sweep();
    let next = Scale {
        weights: 1e7,
        tokens: 3e7,
    };
    let ask = |predictions| Wanted {
        predictions,
        ..Wanted::default()
    };
    let before = fit_with(all.clone(), &ask(vec![Ask::Of(next)])).unwrap();
    let loss = LAWS[0].loss(next);
    all.push(run(
        99,
        &Measured {
            at: next,
            loss,
            count: 1.0,
        },
    ));
    let after = fit_with(all, &ask(vec![Ask::Run("id-99".to_owned())])).unwrap();
    let (before, after) = (&before.predictions[0], &after.predictions[0]);
    assert_eq!((before.loss, before.interval), (after.loss, after.interval));
    assert_eq!((before.came_out, after.came_out), (None, Some(loss)));
    assert_eq!(after.is_inside, Some(true));
    assert!(after.error.unwrap().abs() < 2.0, "{after:?}");
    assert!(after.beyond > 3.3 && after.beyond < 3.4, "{after:?}");
}

#[test]
fn runs_that_lack_a_number_are_left_out_by_name() {
    let mut all = sweep();
    all[0].finals.pop();
    all[1].finals.retain(|last| last.metric != "tokens");
    all[2].finals[3].value = f64::NAN;
    all[3]
        .stages
        .iter_mut()
        .find(|stage| stage.row.name == "base")
        .unwrap()
        .row
        .kind = "finetune".to_owned();
    all[4]
        .stages
        .iter_mut()
        .find(|stage| stage.row.name == "shards")
        .unwrap()
        .row
        .artifact = Some("another".to_owned());
    all[5].stages.retain(|stage| stage.row.kind != "pretrain");
    let fit = fit(all).unwrap();
    assert_eq!(fit.runs.len(), 14);
    insta::assert_snapshot!(left_out(&fit).join("\n"), @r"
    run-0: it has no perplexity.loss
    run-1: `base` recorded no tokens: it was not trained to its end
    run-2: its perplexity.loss is NaN
    run-3: its model `base` is of `finetune`, and the law is of trainings from random weights
    run-4: its perplexity.loss is of other data than that of most runs
    run-5: it trains no model from random weights
    ");
}

#[test]
fn without_a_measured_loss_the_trainings_own_is_taken_for_all() {
    let mut all = sweep();
    for report in &mut all {
        let loss = report.finals.pop().unwrap();
        report
            .finals
            .push(last("base", "validation_loss", loss.value));
    }
    assert_eq!(fit(all.clone()).unwrap().metric, "base.validation_loss");
    // One that was measured does not make the others comparable.
    all[0].finals.push(last("perplexity", "loss", 2.0));
    let fit = fit(all).unwrap();
    assert_eq!(
        (fit.metric.as_str(), fit.runs.len()),
        ("base.validation_loss", 20)
    );
}

#[test]
fn a_metric_that_is_asked_for_is_the_loss() {
    let mut all = sweep();
    for report in &mut all {
        let bits = report.finals[3].value / 3.0;
        report
            .finals
            .push(last("perplexity", "bits_per_byte", bits));
    }
    let selection = Selection {
        metrics: vec!["bits_per_byte".to_owned()],
        sort: None,
    };
    let comparison = compare(all, &selection).unwrap();
    let of_bits = Fit::of(&comparison, &Wanted::default()).unwrap();
    assert_eq!(of_bits.metric, "perplexity.bits_per_byte");
    let of_loss = fit(sweep()).unwrap();
    let powers = |law: &Law| [law.weights_power, law.tokens_power];
    for (bits, loss) in powers(&of_bits.law).iter().zip(powers(&of_loss.law)) {
        assert!((bits / loss - 1.0).abs() < 1e-3, "a unit changes no power");
    }
}

#[test]
fn too_few_runs_are_refused_in_words() {
    let all = grid(LAWS[0]);
    let refused = |measured: Vec<Measured>| fit(runs(&measured)).unwrap_err().to_string();
    let two_sizes = all[..8].to_vec();
    let one_training = all.iter().copied().step_by(4).collect();
    let told = [
        refused(all[..4].to_vec()),
        refused(two_sizes),
        refused(one_training),
    ];
    insta::assert_snapshot!(told.join("\n"), @r"
    a law of five parameters takes six runs or more, of three sizes and three numbers of tokens; here are 4 runs, of 1 size and 4 numbers of tokens
    a law of five parameters takes six runs or more, of three sizes and three numbers of tokens; here are 8 runs, of 2 sizes and 4 numbers of tokens
    a law of five parameters takes six runs or more, of three sizes and three numbers of tokens; here are 5 runs, of 5 sizes and 1 number of tokens
    ");
    let mut none = sweep();
    none.truncate(6);
    none.iter_mut().for_each(|report| report.finals.clear());
    let error = fit(none).unwrap_err();
    assert!(
        matches!(&error, Error::TooFewRuns { left_out, .. } if left_out.len() == 6),
        "{error}"
    );
}

#[test]
fn runs_of_equal_compute_have_their_own_budgets() {
    let mut measured = Vec::new();
    for compute in [1e12, 1e13, 1e14] {
        for weights in [1e4, 4e4, 1.6e5, 6.4e5] {
            let at = Scale {
                weights,
                tokens: compute / 6.0 / weights,
            };
            measured.push(Measured {
                at,
                loss: LAWS[0].loss(at),
                count: 1.0,
            });
        }
    }
    let fit = fit(runs(&measured)).unwrap();
    let budgets = fit.budgets.iter();
    let budgets: Vec<String> = budgets
        .map(|budget| format!("{:.6e}", budget.compute))
        .collect();
    assert_eq!(budgets, ["1.000000e12", "1.000000e13", "1.000000e14"]);
}

#[test]
fn a_fit_is_told_to_programs_whole() {
    let told = crate::data::json(&fit(sweep()).unwrap());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["metric"], "perplexity.loss");
    assert_eq!(told["runs"][0]["run"], "run-0");
    assert_eq!(told["runs"][0]["weights"], json!(3e4));
    assert!(told["law"]["E"].is_f64() && told["parameters"][0]["interval"]["from"].is_f64());
}
