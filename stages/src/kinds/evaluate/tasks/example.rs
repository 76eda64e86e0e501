//! The examples of a task, as their files have them: a line each, the form told by its columns.

use std::path::Path;

use serde_json::Value;
use tinylm_pipeline::StageError;

/// The form of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Choice,
    Schema,
    Continuation,
    Pair,
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Choice => "multiple choice",
            Self::Schema => "schema",
            Self::Continuation => "language modelling",
            Self::Pair => "minimal pairs",
        }
    }
}

/// One question of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Example {
    /// One context, several endings.
    Choice {
        query: String,
        choices: Vec<String>,
        gold: usize,
    },
    /// Several contexts, one ending.
    Schema {
        contexts: Vec<String>,
        continuation: String,
        gold: usize,
    },
    /// Words that must come next.
    Continuation {
        context: String,
        continuation: String,
    },
    /// Two sentences, one of them possible.
    Pair { good: String, bad: String },
}

impl Example {
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Choice { .. } => Form::Choice,
            Self::Schema { .. } => Form::Schema,
            Self::Continuation { .. } => Form::Continuation,
            Self::Pair { .. } => Form::Pair,
        }
    }

    /// The text with its right answer, as a training document might have held it.
    pub(super) fn solved(&self, delimiter: &str) -> String {
        match self {
            Self::Choice {
                query,
                choices,
                gold,
            } => format!("{query}{delimiter}{}", choices[*gold]),
            Self::Schema {
                contexts,
                continuation,
                gold,
            } => format!("{}{delimiter}{continuation}", contexts[*gold]),
            Self::Continuation {
                context,
                continuation,
            } => format!("{}{delimiter}{continuation}", context.trim()),
            Self::Pair { good, .. } => good.clone(),
        }
    }

    fn of_row(row: &Value) -> Result<Self, String> {
        let has = |name: &str| row.get(name).is_some();
        if has("choices") {
            let choices = texts(row, "choices")?;
            let gold = gold(row, choices.len())?;
            let query = text(row, "query")?;
            return Ok(Self::Choice {
                query,
                choices,
                gold,
            });
        }
        if has("context_options") {
            let contexts = texts(row, "context_options")?;
            let gold = gold(row, contexts.len())?;
            let continuation = text(row, "continuation")?;
            return Ok(Self::Schema {
                contexts,
                continuation,
                gold,
            });
        }
        if has("sentence_good") {
            let (good, bad) = (text(row, "sentence_good")?, text(row, "sentence_bad")?);
            return Ok(Self::Pair { good, bad });
        }
        if has("context") {
            let (context, continuation) = (text(row, "context")?, text(row, "continuation")?);
            return Ok(Self::Continuation {
                context,
                continuation,
            });
        }
        Err(
            "has the columns of no task: `query`, `choices`, `gold`; `context_options`, \
             `continuation`, `gold`; `context`, `continuation`; or `sentence_good`, `sentence_bad`"
                .to_owned(),
        )
    }
}

/// Reads the examples of a file, which all have one form.
pub(super) fn read(path: &Path, name: &str) -> Result<Vec<Example>, StageError> {
    let wrong = |line: usize, problem: &str| {
        StageError::new(format!("`{name}`, line {line}: {problem}")).is_final()
    };
    let bytes = std::fs::read(path).map_err(|error| StageError::io(path, &error))?;
    let mut examples: Vec<Example> = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let row: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(line, &error.to_string()))?;
        let example = Example::of_row(&row).map_err(|problem| wrong(line, &problem))?;
        if let Some(first) = examples.first()
            && first.form() != example.form()
        {
            let forms = format!(
                "is {}, and the lines before are {}",
                example.form().name(),
                first.form().name()
            );
            return Err(wrong(line, &forms));
        }
        examples.push(example);
    }
    match examples.is_empty() {
        true => Err(StageError::new(format!("`{name}` has no examples")).is_final()),
        false => Ok(examples),
    }
}

fn text(row: &Value, name: &str) -> Result<String, String> {
    let text = row.get(name).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| format!("`{name}` is no text"))
}

fn texts(row: &Value, name: &str) -> Result<Vec<String>, String> {
    let list = row.get(name).and_then(Value::as_array);
    let texts: Option<Vec<String>> = list
        .into_iter()
        .flatten()
        .map(|text| text.as_str().map(str::to_owned))
        .collect();
    match texts {
        Some(texts) if texts.len() > 1 => Ok(texts),
        _ => Err(format!("`{name}` is no list of two texts or more")),
    }
}

fn gold(row: &Value, n: usize) -> Result<usize, String> {
    let gold = row.get("gold").and_then(Value::as_u64);
    gold.and_then(|gold| usize::try_from(gold).ok())
        .filter(|gold| *gold < n)
        .ok_or_else(|| format!("`gold` is no whole number below {n}"))
}
