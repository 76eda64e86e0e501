//! How well a model answers the questions of known tasks, measured as others measure it.
//!
//! A task is a file of examples (`tasks/example.rs`), its name that of the file. Nothing is
//! generated: each possible answer is scored by how probable the model finds it. `acc` and `acc_norm`
//! are those of lm-evaluation-harness, `centred` is CORE's, so that 0 is guessing and 1 is all right;
//! `core` is its mean. Each share of right answers comes with its standard error, since a task of a
//! hundred examples tells a model from another one only where they are far apart.
//!
//! Prompts that do not fit the context lose their beginning and are counted: with ten solved
//! examples before each question most of a small model's prompts are cropped.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{At, StageError, StageIo, spec::nearest};

use crate::shared::{
    files::files_below,
    speak::{SpeakError, Speaker},
};

mod example;
mod known;
mod overlap;
mod prompt;
mod python;
mod score;

use example::{Example, Form};
use known::{Rules, is_in_core};
use overlap::Overlap;
use score::{Verdict, answer};

/// The settings of an evaluation that are about tasks.
pub(super) struct Asked<'a> {
    /// Names of tasks; all that are there when empty.
    pub(super) tasks: &'a [String],
    /// Most examples of each.
    pub(super) examples: Option<usize>,
    pub(super) shots: &'a BTreeMap<String, usize>,
    pub(super) delimiters: &'a BTreeMap<String, String>,
    pub(super) baselines: &'a BTreeMap<String, f64>,
}

impl Asked<'_> {
    /// Settings of tasks without tasks are a mistake, not nothing.
    pub(super) fn check(&self, has_tasks: bool) -> Result<(), StageError> {
        let given = [
            ("tasks", self.tasks.is_empty()),
            ("examples", self.examples.is_none()),
            ("shots", self.shots.is_empty()),
            ("delimiters", self.delimiters.is_empty()),
            ("baselines", self.baselines.is_empty()),
        ];
        let given = given.iter().find(|(_, is_unset)| !is_unset && !has_tasks);
        given.map_or(Ok(()), |(name, _)| {
            let message = format!("`{name}` is about tasks, and nothing fills the input `tasks`");
            Err(StageError::new(message)
                .help("inputs: { model: base, tasks: [files] }, where `files` is a `download`")
                .is_final())
        })
    }
}

/// The seeds of CORE: of the order of examples, and, with the place added, of the solved ones.
const ORDER_SEED: u32 = 1337;
const SHOTS_SEED: u32 = 1234;

/// A file of examples and the rules of asking them.
struct Task {
    name: String,
    rules: Rules,
    examples: Vec<Example>,
}

/// Measures the tasks of the input and writes `tasks.jsonl`, an example a line; returns the figures.
pub(super) fn measure(
    speaker: &mut Speaker,
    asked: &Asked<'_>,
    io: &StageIo,
) -> Result<Map<String, Value>, StageError> {
    let tasks = open(asked, io)?;
    let overlap = Overlap::of(tasks.iter().map(|task| task.examples.as_slice()), io)?;
    let n_all: usize = tasks.iter().map(|task| task.examples.len()).sum();
    let (mut lines, mut figures) = (String::new(), Map::new());
    let mut n_done = 0;
    for (idx, task) in tasks.iter().enumerate() {
        let mut verdicts = Vec::with_capacity(task.examples.len());
        for at in 0..task.examples.len() {
            io.progress(n_done, Some(n_all as u64), "examples")?;
            let verdict = task.verdict(at, speaker)?;
            let line = task.line(at, &verdict, overlap.holds(idx, at));
            writeln!(lines, "{line}").expect("a string takes all");
            verdicts.push(verdict);
            n_done += 1;
        }
        let told = task.figures(&verdicts, overlap.count(idx));
        figures.insert(task.name.clone(), told);
    }
    let path = io.out().join("tasks.jsonl");
    fs::write(&path, lines).at(&path)?;
    Ok(with_means(figures, &tasks))
}

/// Reads the files of the tasks that are asked for, or of all.
fn open(asked: &Asked<'_>, io: &StageIo) -> Result<Vec<Task>, StageError> {
    let files = files(io)?;
    let all: Vec<&String> = files.keys().collect();
    let wanted: Vec<&String> = match asked.tasks.is_empty() {
        true => all.clone(),
        false => asked.tasks.iter().collect(),
    };
    let named = asked
        .shots
        .keys()
        .chain(asked.delimiters.keys())
        .chain(asked.baselines.keys());
    for name in wanted.iter().copied().chain(named) {
        if !files.contains_key(name) {
            return Err(no_such_task(name, &all));
        }
    }
    wanted
        .into_iter()
        .map(|name| Task::read(name, &files[name], asked))
        .collect()
}

/// The files of examples, by the names of their tasks.
fn files(io: &StageIo) -> Result<BTreeMap<String, PathBuf>, StageError> {
    let mut files = BTreeMap::new();
    for input in io.inputs("tasks") {
        for (file, path) in files_below(&input.path)? {
            let Some(stem) = file.strip_suffix(".jsonl") else {
                continue;
            };
            let name = stem.rsplit('/').next().unwrap_or(stem).to_owned();
            if files.insert(name.clone(), path).is_some() {
                let message = format!("two files of `tasks` are called `{name}.jsonl`");
                return Err(StageError::new(message).is_final());
            }
        }
    }
    match files.is_empty() {
        true => Err(StageError::new("the input `tasks` has no `.jsonl` file")
            .help("a task is a file of examples, one JSON object a line")
            .is_final()),
        false => Ok(files),
    }
}

fn no_such_task(name: &str, all: &[&String]) -> StageError {
    let error = StageError::new(format!("the input `tasks` has no `{name}.jsonl`")).is_final();
    match nearest(name, all) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => {
            let names: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
            error.help(format!("it has {}", names.join(", ")))
        }
    }
}

impl Task {
    fn read(name: &str, path: &Path, asked: &Asked<'_>) -> Result<Self, StageError> {
        let mut examples = example::read(path, &format!("{name}.jsonl"))?;
        python::Random::new(ORDER_SEED).shuffle(&mut examples);
        examples.truncate(asked.examples.unwrap_or(usize::MAX));
        let mut rules = Rules::of(name);
        if let Some(shots) = asked.shots.get(name) {
            rules.shots = *shots;
        }
        if let Some(delimiter) = asked.delimiters.get(name) {
            rules.delimiter.clone_from(delimiter);
        }
        if let Some(baseline) = asked.baselines.get(name) {
            rules.baseline = Some(*baseline);
        }
        if rules.shots >= examples.len() {
            let message = format!(
                "`{name}` asks for {} solved examples before each one, and has {} in all",
                rules.shots,
                examples.len()
            );
            let help = format!("`shots: {{ {name}: 0 }}` asks without");
            return Err(StageError::new(message).help(help).is_final());
        }
        Ok(Self {
            name: name.to_owned(),
            rules,
            examples,
        })
    }

    fn form(&self) -> Form {
        self.examples[0].form()
    }

    fn verdict(&self, at: usize, speaker: &mut Speaker) -> Result<Verdict, StageError> {
        let example = &self.examples[at];
        let prompts = prompt::prompts(example, &self.shots(at), &self.rules, speaker.tokenizer())
            .map_err(SpeakError::from)?;
        let mut answers = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            answers.push(answer(speaker.session(), prompt, example.form())?);
        }
        Ok(Verdict::of(example, answers))
    }

    /// The solved examples before one: any but itself.
    fn shots(&self, at: usize) -> Vec<&Example> {
        if self.rules.shots == 0 {
            return Vec::new();
        }
        let mut random = python::Random::new(SHOTS_SEED + at as u32);
        let drawn = random.sample(self.examples.len() - 1, self.rules.shots);
        let others = drawn.into_iter().map(|idx| idx + usize::from(idx >= at));
        others.map(|idx| &self.examples[idx]).collect()
    }

    fn line(&self, at: usize, verdict: &Verdict, is_seen: bool) -> Value {
        let answers = verdict.answers.iter();
        let answers = answers.map(|answer| {
            json!({ "log_probability": answer.log_probability, "tokens": answer.n_tokens })
        });
        json!({
            "task": self.name,
            "example": self.examples[at].solved(&self.rules.delimiter),
            "answers": answers.collect::<Vec<_>>(),
            "right": verdict.is_right,
            "right_by_characters": verdict.is_right_by_chars,
            "right_by_mean": verdict.is_right_by_mean,
            "cropped": verdict.n_cropped(),
            "in_training": is_seen,
        })
    }

    fn figures(&self, verdicts: &[Verdict], n_seen: Option<usize>) -> Value {
        let n = verdicts.len();
        let mut told = Map::new();
        let mut put = |name: &str, value: Value| told.insert(name.to_owned(), value);
        put("form", json!(self.form().name()));
        put("examples", json!(n));
        // A rule and no figure.
        put("shots", json!(self.rules.shots.to_string()));
        let acc = Share::of(verdicts, |verdict| verdict.is_right);
        put("acc", json!(acc.share));
        put("acc_stderr", json!(acc.error));
        if self.form() == Form::Choice {
            let by_chars = Share::of(verdicts, |verdict| verdict.is_right_by_chars);
            put("acc_norm", json!(by_chars.share));
            put("acc_norm_stderr", json!(by_chars.error));
        }
        if self.form() == Form::Continuation {
            let sum: f64 = verdicts
                .iter()
                .map(|verdict| verdict.answers[0].log_probability)
                .sum();
            put("perplexity", json!((-sum / n as f64).exp()));
        }
        if is_in_core(self.form()) {
            let by_mean = Share::of(verdicts, |verdict| verdict.is_right_by_mean);
            let (base, whole) = (self.baseline(), 1.0 - self.baseline());
            put("centred", json!((by_mean.share - base) / whole));
            put("centred_stderr", json!(by_mean.error / whole));
        }
        let n_cropped: usize = verdicts.iter().map(Verdict::n_cropped).sum();
        put("cropped", json!(n_cropped));
        if let Some(n_seen) = n_seen {
            put("in_training", json!(n_seen));
        }
        Value::Object(told)
    }

    /// What guessing reaches.
    fn baseline(&self) -> f64 {
        self.rules.baseline.unwrap_or_else(|| {
            let chances = self.examples.iter().map(|example| match example {
                Example::Choice { choices, .. } => 1.0 / choices.len() as f64,
                Example::Schema { contexts, .. } => 1.0 / contexts.len() as f64,
                Example::Continuation { .. } => 0.0,
                Example::Pair { .. } => 0.5,
            });
            chances.sum::<f64>() / self.examples.len() as f64
        })
    }
}

/// A share of examples and its standard error.
struct Share {
    share: f64,
    error: f64,
}

impl Share {
    fn of(verdicts: &[Verdict], is_so: impl Fn(&Verdict) -> bool) -> Self {
        let n = verdicts.len() as f64;
        let share = verdicts.iter().filter(|verdict| is_so(verdict)).count() as f64 / n;
        let spread = share * (1.0 - share);
        let error = (spread / (n - 1.0).max(1.0)).sqrt();
        Self { share, error }
    }
}

/// Puts the means over tasks behind the tasks: CORE's, and that of minimal pairs.
fn with_means(figures: Map<String, Value>, tasks: &[Task]) -> Map<String, Value> {
    let mean = |is_of: fn(Form) -> bool, name: &str| {
        let of: Vec<&Value> = tasks
            .iter()
            .filter(|task| is_of(task.form()))
            .map(|task| &figures[&task.name])
            .collect();
        let all = |name: &str| of.iter().filter_map(|task| task[name].as_f64()).collect();
        let (values, errors): (Vec<f64>, Vec<f64>) = (all(name), all(&format!("{name}_stderr")));
        let n = values.len() as f64;
        let error = errors.iter().map(|error| error * error).sum::<f64>().sqrt() / n;
        (!values.is_empty()).then(|| (values.iter().sum::<f64>() / n, error))
    };
    let mut all = Map::new();
    let means = [
        ("core", mean(is_in_core, "centred")),
        ("minimal_pairs", mean(|form| form == Form::Pair, "acc")),
    ];
    for (name, mean) in means {
        if let Some((mean, error)) = mean {
            all.insert(name.to_owned(), json!(mean));
            all.insert(format!("{name}_stderr"), json!(error));
        }
    }
    all.insert("by_task".to_owned(), Value::Object(figures));
    all
}

#[cfg(test)]
mod tests;
