//! `tinylm plan -v` and `--json`: the parts, the length and the cost of what a stage would make, where
//! its kind can tell.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tinylm_pipeline::{
    Ahead, Content, Context, Course, Forecast, MemoryNeed, Part,
    plan::{Planned, State},
    spec::{Experiment, StageSpec},
};
use tinylm_registry::Home;
use tinylm_reports::{bytes, counted, duration, number, thousands};

use crate::{
    output::print_line,
    project::Project,
    speed::{Expected, Speed, precision},
};

/// What can be said of each stage, in the order of the plan.
pub(crate) struct Shapes<'a> {
    stages: &'a [StageSpec],
    forecasts: Vec<Option<Forecast>>,
    speed: Speed,
}

impl<'a> Shapes<'a> {
    pub(crate) fn of(project: &Project, experiment: &'a Experiment, planned: &[Planned]) -> Self {
        let context = project.context();
        let stages = &experiment.stages;
        let mut forecasts: Vec<Option<Forecast>> = Vec::new();
        // Each stands after what it reads.
        for (stage, plan) in stages.iter().zip(planned) {
            let input = |role: &str| ahead(&context.home, stage, planned, &forecasts, role);
            let forecast = (stage.kind.forecast)(&stage.with, &input);
            forecasts.push(forecast.or_else(|| texts(&context, stage, plan)));
        }
        Self {
            stages,
            forecasts,
            speed: Speed::of(project),
        }
    }

    /// Prints what can be said of one stage.
    pub(crate) fn print(&self, idx: usize, plan: &Planned) {
        let stage = &self.stages[idx];
        match &self.forecasts[idx] {
            Some(Forecast::Later(what)) => print_line(format!("\n{}: {what}", stage.name)),
            Some(Forecast::Model {
                parts,
                flops_per_token,
                memory,
                course,
                ..
            }) => {
                print_line("");
                print_table(&stage.name, parts);
                print_cost(*flops_per_token, memory);
                course.iter().for_each(print_course);
                if let Some((seconds, expected)) = self.time(idx, plan) {
                    let time = duration(seconds);
                    print_line(format!("  about {time} here, {}", expected.told));
                }
            }
            _ => {}
        }
    }

    /// The same as JSON, for a stage that trains; null for all others.
    pub(crate) fn json(&self, idx: usize, plan: &Planned) -> Value {
        let Some(Forecast::Model {
            parts,
            flops_per_token,
            memory,
            course,
            ..
        }) = &self.forecasts[idx]
        else {
            return Value::Null;
        };
        let time = self.time(idx, plan);
        json!({
            "parameters": n_parameters(parts),
            "flops_per_token": flops_per_token,
            "memory_bytes": memory.bytes,
            "memory_available_bytes": memory.available_bytes,
            "steps": course.map(|course| course.n_steps),
            "epochs": course.and_then(|course| course.n_epochs),
            "tokens": course.map(|course| course.n_tokens),
            "is_counted": course.map(|course| course.is_counted),
            "seconds": time.as_ref().map(|(seconds, _)| seconds),
            "tokens_per_second": time.as_ref().map(|(_, expected)| expected.tokens_per_second),
            "because": time.map(|(_, expected)| expected.told),
        })
    }

    /// The seconds that a training is expected to take here, unless it is made already.
    fn time(&self, idx: usize, plan: &Planned) -> Option<(f64, Expected)> {
        let Some(Forecast::Model {
            parts,
            flops_per_token,
            course: Some(course),
            ..
        }) = &self.forecasts[idx]
        else {
            return None;
        };
        if matches!(plan.state, State::Fresh(_)) {
            return None;
        }
        let precision = precision(&self.stages[idx].with);
        let n_parameters = n_parameters(parts) as f64;
        let expected = self
            .speed
            .expected(precision, n_parameters, *flops_per_token)?;
        // A validation does without the backward pass, which is two thirds of the work.
        let n_tokens = course.n_tokens as f64 + course.n_validated as f64 / 3.0;
        Some((n_tokens / expected.tokens_per_second, expected))
    }
}

fn n_parameters(parts: &[Part]) -> usize {
    parts.iter().map(Part::n).sum()
}

/// What is known of the stages that fill a role; of several all, or nothing.
fn ahead(
    home: &Home,
    stage: &StageSpec,
    planned: &[Planned],
    forecasts: &[Option<Forecast>],
    role: &str,
) -> Ahead {
    let filled = stage.inputs.iter().find(|(name, _)| name == role);
    let names = filled.map_or(&[][..], |(_, names)| names);
    let places = names
        .iter()
        .filter_map(|name| planned.iter().position(|one| one.name == *name));
    let places: Vec<usize> = places.collect();
    let made = places
        .first()
        .and_then(|&first| artifact(home, &planned[first]));
    let known = places
        .iter()
        .map(|&idx| forecasts.get(idx).cloned().flatten());
    Ahead {
        made,
        forecasts: known.collect::<Option<Vec<Forecast>>>().unwrap_or_default(),
    }
}

/// The files of an artifact, if it is fresh.
fn artifact(home: &Home, planned: &Planned) -> Option<PathBuf> {
    match &planned.state {
        State::Fresh(record) => Some(home.artifact_files(&record.artifact).to_path_buf()),
        _ => None,
    }
}

/// The size of the texts that a stage brings in from this machine, or has brought in.
fn texts(context: &Context, stage: &StageSpec, planned: &Planned) -> Option<Forecast> {
    if stage.kind.makes != Content::Files {
        return None;
    }
    let bytes = match artifact(&context.home, planned) {
        Some(folder) => n_bytes(&folder),
        None => {
            let files = context.local_files(stage).ok()?;
            files.iter().map(|file| file.bytes).sum()
        }
    };
    (bytes > 0).then_some(Forecast::Texts { bytes })
}

fn n_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => n_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn print_table(name: &str, parts: &[Part]) {
    let n_all = thousands(n_parameters(parts) as u64);
    print_line(format!("{name}: {n_all} parameters"));
    for part in parts {
        let shape: Vec<String> = part.shape.iter().map(ToString::to_string).collect();
        let times = match part.n_times {
            1 => String::new(),
            n => format!("x {n}"),
        };
        print_line(format!(
            "  {:<24} {:>12} {times:>5} {:>12}",
            part.name,
            shape.join(" x "),
            thousands(part.n() as u64)
        ));
    }
}

fn print_cost(flops_per_token: u64, memory: &MemoryNeed) {
    let MemoryNeed {
        n_rows,
        len,
        bytes: needed,
        available_bytes,
    } = *memory;
    let mut line = format!(
        "  {:.1} MFLOP a token; about {} of memory for {} of {len} at a time",
        flops_per_token as f64 / 1e6,
        bytes(needed),
        counted(n_rows, "row"),
    );
    if let Some(free) = available_bytes.filter(|&free| free < needed) {
        line.push_str(&format!(", and only {} are free", bytes(free)));
    }
    print_line(&line);
}

/// "3,000 steps, 2.5 epochs, 1,536,000 tokens".
fn print_course(course: &Course) {
    let steps = counted(course.n_steps as usize, "step");
    let epochs = course.n_epochs.map(|epochs| {
        let plural = if epochs == 1.0 { "" } else { "s" };
        format!("{} epoch{plural}, ", number(epochs))
    });
    let (about, because) = match (course.is_counted, &epochs) {
        (true, _) => ("", ""),
        (false, Some(_)) => ("about ", ", by the size of the text"),
        (false, None) => ("at most ", ""),
    };
    let epochs = epochs.unwrap_or_default();
    let tokens = thousands(course.n_tokens);
    print_line(format!(
        "  {about}{steps}, {epochs}{tokens} tokens{because}"
    ));
}
