//! The one list of what is told of a law of loss and the runs it is fitted to.

use crate::{
    block::{
        Block, Cell, Column, Document, Dot, Event, Fact, Head, Holds, Plot, PlotGroup, Section,
        Table, Tone,
    },
    curve::is_loss,
    fit::{Budget, Fit, FittedRun, Interval, Parameter, Prediction, Scale},
    number::{counted, letter, number, percent, tick},
    places,
};

/// Tells of a law.
pub fn of_fit(fit: &Fit) -> Document<'_> {
    let mut sections = vec![law(fit), picture(fit), budgets(fit)];
    sections.extend(predictions(fit));
    sections.push(quality(fit));
    sections.extend(left_out(fit));
    sections.push(meaning(fit));
    sections.push(runs(fit));
    Document {
        head: Head {
            title: format!(
                "A law of loss, fitted to {}",
                counted(fit.runs.len(), "run")
            ),
            verdict: verdict(fit),
            ..Head::default()
        },
        sections,
    }
}

/// Says the law, and how far off it is.
fn verdict(fit: &Fit) -> Vec<Cell> {
    /// Who is farther off than this follows no such law.
    const ERROR_MAX: f64 = 5.0;
    let off = fit.quality.error_unseen_rms;
    let told = format!(", {off:.2} % off on unseen runs");
    let mut words = vec![
        Cell::plain("L = "),
        Cell::new(formula(fit), Tone::Strong),
        Cell::plain(told),
    ];
    if off > ERROR_MAX {
        words.push(Cell::new(": these runs do not follow it", Tone::Bad));
    }
    words
}

fn formula(fit: &Fit) -> String {
    let law = &fit.law;
    format!(
        "{} + {} / N^{} + {} / D^{}",
        digits(law.floor),
        digits(law.of_weights),
        digits(law.weights_power),
        digits(law.of_tokens),
        digits(law.tokens_power),
    )
}

fn law(fit: &Fit) -> Section<'_> {
    let columns = vec![
        Column::new("", Holds::Names),
        Column::new("value", Holds::Figures),
        Column::new("90 %", Holds::Figures),
        Column::new("", Holds::Texts),
    ];
    let row = |parameter: &Parameter| {
        let about = match parameter.is_determined {
            Some(false) => Cell::new("not determined by these runs", Tone::Warn),
            _ => Cell::quiet(parameter.about),
        };
        vec![
            Cell::new(parameter.name, Tone::Strong),
            Cell::figure(parameter.value, digits(parameter.value)),
            interval(parameter.interval, digits),
            about,
        ]
    };
    let rows = fit.parameters.iter().map(row).collect();
    let table = Table::new(columns, rows);
    Section::new("The law", vec![Block::Table(table)]).remark("L = E + A / N^a + B / D^b")
}

/// Loss against tokens, a line for each size.
fn picture(fit: &Fit) -> Section<'_> {
    let sizes = fit.sizes();
    let mut groups: Vec<PlotGroup> = sizes
        .iter()
        .enumerate()
        .map(|(idx, &weights)| size_group(fit, idx, weights, sizes.len()))
        .collect();
    let asked: Vec<Dot> = fit.predictions.iter().map(predicted_dot).collect();
    if !asked.is_empty() {
        groups.push(PlotGroup {
            letter: '?',
            name: "predicted".to_owned(),
            colour: sizes.len(),
            line: Vec::new(),
            dots: asked,
        });
    }
    let plot = Plot {
        title: format!("{} by weights", fit.metric),
        x_title: "tokens".to_owned(),
        y_title: fit.metric.clone(),
        groups,
    };
    Section::new("Loss by size", vec![Block::Plot(plot)])
        .remark("points are runs, lines the law, in decades")
}

fn size_group(fit: &Fit, idx: usize, weights: f64, n_sizes: usize) -> PlotGroup {
    /// Lines of more sizes cannot be told apart; their points can.
    const LINES_MAX: usize = 8;
    let every = n_sizes.div_ceil(LINES_MAX);
    let of_size = || {
        fit.runs
            .iter()
            .filter(|run| fit.size_idx(run.told.at.weights) == idx)
    };
    let dots = of_size().map(|run| Dot {
        x: run.told.at.tokens,
        y: run.told.loss,
        name: format!("{}: {}", run.told.run, number(run.told.loss)),
        at: places::run(&run.told.run),
    });
    let line = match idx.is_multiple_of(every) {
        true => line(fit, weights),
        false => Vec::new(),
    };
    PlotGroup {
        letter: letter(idx).chars().next().unwrap_or('*'),
        name: format!("{} weights", rounded(weights)),
        colour: idx,
        line,
        dots: dots.collect(),
    }
}

/// The law of one size over the tokens of all runs.
fn line(fit: &Fit, weights: f64) -> Vec<(f64, f64)> {
    const N_POINTS: usize = 60;
    let tokens = || fit.runs.iter().map(|run| run.told.at.tokens);
    let asked = || fit.predictions.iter().map(|asked| asked.at.tokens);
    let low = tokens().chain(asked()).fold(f64::INFINITY, f64::min);
    let high = tokens().chain(asked()).fold(0.0, f64::max);
    let point = |idx: usize| {
        let tokens = low * (high / low).powf(idx as f64 / (N_POINTS - 1) as f64);
        (tokens, fit.law.loss(Scale { weights, tokens }))
    };
    (0..N_POINTS).map(point).collect()
}

fn predicted_dot(asked: &Prediction) -> Dot {
    Dot {
        x: asked.at.tokens,
        y: asked.loss,
        name: format!("predicted: {}", number(asked.loss)),
        at: asked.run.as_deref().map(places::run).unwrap_or_default(),
    }
}

fn budgets(fit: &Fit) -> Section<'_> {
    let columns = vec![
        Column::new("operations", Holds::Figures),
        Column::new("weights", Holds::Figures),
        Column::new("90 %", Holds::Figures),
        Column::new("tokens", Holds::Figures),
        Column::new("90 %", Holds::Figures),
        Column::new("loss", Holds::Figures),
    ];
    let table = Table::new(columns, fit.budgets.iter().map(budget_row).collect());
    let mut blocks = vec![Block::Table(table)];
    let n_beyond = fit.budgets.iter().filter(|budget| budget.is_beyond).count();
    if n_beyond > 0 {
        blocks.push(Block::Text(format!(
            "* {} beyond the sizes or tokens of all runs: there the law is a guess.",
            if n_beyond == 1 { "is" } else { "are" },
        )));
    }
    Section::new("Best size for a budget", blocks)
        .remark(format!("operations 6 N D, {}", fit.budgets_of))
}

fn budget_row(budget: &Budget) -> Vec<Cell> {
    let figure = |value: Option<f64>, written: fn(f64) -> String| match value {
        Some(value) => Cell::figure(value, written(value)),
        None => Cell::missing(),
    };
    let mark = if budget.is_beyond { " *" } else { "" };
    let weights = figure(budget.best.map(|best| best.weights), rounded);
    vec![
        Cell::figure(budget.compute, operations(budget.compute)),
        Cell {
            text: format!("{}{mark}", weights.text),
            ..weights
        },
        interval(budget.weights, rounded),
        figure(budget.best.map(|best| best.tokens), rounded),
        interval(budget.tokens, rounded),
        figure(budget.loss, number),
    ]
}

fn predictions(fit: &Fit) -> Option<Section<'_>> {
    let has_runs = fit.predictions.iter().any(|asked| asked.run.is_some());
    let mut columns = vec![
        Column::new("weights", Holds::Figures),
        Column::new("tokens", Holds::Figures),
        Column::new("loss", Holds::Figures),
        Column::new("90 %", Holds::Figures),
    ];
    if has_runs {
        columns.extend([
            Column::new("came out", Holds::Figures),
            Column::new("error", Holds::Figures),
            Column::new("run", Holds::Names),
        ]);
    }
    let rows = fit.predictions.iter();
    let rows = rows.map(|asked| prediction_row(asked, has_runs)).collect();
    let mut blocks = vec![Block::Table(Table::new(columns, rows))];
    let farthest = fit.predictions.iter().map(|asked| asked.beyond);
    let farthest = farthest.fold(1.0, f64::max);
    if farthest > 1.0 {
        blocks.push(Block::Text(format!(
            "Up to {} times beyond the weights or tokens of all runs: the interval takes the law to hold there.",
            digits(farthest),
        )));
    }
    let section = Section::new("Predicted", blocks);
    (!fit.predictions.is_empty()).then(|| section.remark("what one more run would end at"))
}

fn prediction_row(asked: &Prediction, has_runs: bool) -> Vec<Cell> {
    let mut row = vec![
        Cell::figure(asked.at.weights, rounded(asked.at.weights)),
        Cell::figure(asked.at.tokens, rounded(asked.at.tokens)),
        Cell::figure(asked.loss, number(asked.loss)).toned(Tone::Strong),
        interval(asked.interval, number),
    ];
    if !has_runs {
        return row;
    }
    let tone = match asked.is_inside {
        Some(true) => Tone::Good,
        _ => Tone::Bad,
    };
    row.extend([
        asked
            .came_out
            .map_or_else(Cell::missing, |loss| Cell::figure(loss, number(loss))),
        asked.error.map_or_else(Cell::missing, |error| {
            Cell::figure(error, percent(error)).toned(tone)
        }),
        match &asked.run {
            Some(run) => Cell::plain(run.clone()).at(places::run(run)),
            None => Cell::missing(),
        },
    ]);
    row
}

fn quality(fit: &Fit) -> Section<'_> {
    let quality = &fit.quality;
    let errors = |typical: f64, most: f64| {
        format!("{typical:.2} % off on average (root mean square), {most:.2} % at most")
    };
    let facts = vec![
        Fact::text("its own runs", errors(quality.error_rms, quality.error_max)),
        Fact::text(
            "runs unseen",
            errors(quality.error_unseen_rms, quality.error_unseen_max),
        ),
    ];
    Section::new("How well it fits", vec![Block::Facts(facts)])
        .remark("unseen: each run by a law of all others")
}

fn left_out(fit: &Fit) -> Option<Section<'_>> {
    let events = fit.left_out.iter().map(|run| Event {
        tone: Tone::Warn,
        level: "left out".to_owned(),
        stage: run.run.clone(),
        text: run.why.clone(),
    });
    let events: Vec<Event> = events.collect();
    (!events.is_empty()).then(|| Section::new("Left out", vec![Block::Events(events)]))
}

fn meaning(fit: &Fit) -> Section<'_> {
    let (_, metric) = fit.metric.rsplit_once('.').unwrap_or_default();
    let unit = if is_loss(metric) {
        ", in nats for a token"
    } else {
        ""
    };
    let mut facts = vec![
        Fact::text("L", format!("{} of each run{unit}", fit.metric)),
        Fact::text("N", "all weights of the model, the embedding too"),
        Fact::text("D", "tokens that it was trained on"),
        Fact::text("90 %", "of laws fitted to the runs weighed anew by chance"),
    ];
    let again = fit.runs.iter().filter_map(|run| run.told.epochs);
    let again: Vec<f64> = again.filter(|epochs| *epochs > 1.001).collect();
    if !again.is_empty() {
        let most = again.iter().copied().fold(0.0, f64::max);
        facts.push(Fact::text(
            "but",
            format!(
                "{} read their data more than once, up to {} times, and the law takes every token for a new one",
                counted(again.len(), "run"),
                digits(most),
            ),
        ));
    }
    Section::new("What is meant", vec![Block::Facts(facts)])
}

fn runs(fit: &Fit) -> Section<'_> {
    let columns = vec![
        Column::new("run", Holds::Names),
        Column::new("weights", Holds::Figures),
        Column::new("tokens", Holds::Figures),
        Column::new("loss", Holds::Figures),
        Column::new("fitted", Holds::Figures),
        Column::new("error", Holds::Figures),
        Column::new("unseen", Holds::Figures),
    ];
    let row = |run: &FittedRun| {
        vec![
            Cell::plain(run.told.run.clone()).at(places::run(&run.told.run)),
            Cell::figure(run.told.at.weights, rounded(run.told.at.weights)),
            Cell::figure(run.told.at.tokens, rounded(run.told.at.tokens)),
            Cell::figure(run.told.loss, number(run.told.loss)),
            Cell::figure(run.fitted, number(run.fitted)),
            Cell::figure(run.error, percent(run.error)),
            Cell::figure(run.error_unseen, percent(run.error_unseen)),
        ]
    };
    let table = Table::new(columns, fit.runs.iter().map(row).collect());
    Section::new("Runs fitted", vec![Block::Table(table)]).detail()
}

fn interval(interval: Interval, written: fn(f64) -> String) -> Cell {
    let text = format!("{} – {}", written(interval.from), written(interval.to));
    Cell {
        exact: Some(interval.to - interval.from),
        ..Cell::quiet(text)
    }
}

/// Writes a value with three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !size.is_finite() => "∞".to_owned(),
        size if !(1e-3..1e6).contains(&size) => operations(value),
        size => {
            let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

/// Writes a count with three digits and its unit: `1.26M`.
fn rounded(value: f64) -> String {
    if !value.is_finite() {
        return "∞".to_owned();
    }
    match value {
        value if value < 1.0 => "0".to_owned(),
        value => tick(format!("{value:.2e}").parse().unwrap_or(value)),
    }
}

/// Writes a large count as a power of ten: `1.26e13`.
fn operations(value: f64) -> String {
    format!("{value:.2e}")
}
