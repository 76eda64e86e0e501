//! What `tinylm report --fit` is asked, as it is typed.
//!
//! A prediction is of a size (`weights=7e6,tokens=2e7`) or of a run that exists. Numbers may be written
//! as people write large ones: `7e6`, `7M`, `7_000_000`.

use tinylm_registry::{Registry, Run};
use tinylm_reports::fit::{Ask, LeftOut, Scale};

use crate::failure::Failure;

/// Returns the runs to be read, those that are to be predicted among them, and the predictions.
pub(crate) fn asked(
    registry: &Registry,
    mut runs: Vec<Run>,
    words: &[String],
) -> Result<(Vec<Run>, Vec<Ask>), Failure> {
    let mut asked = Vec::new();
    for word in words {
        if word.contains('=') {
            asked.push(Ask::Of(scale(word)?));
            continue;
        }
        let run = registry.find_run(word)?;
        asked.push(Ask::Run(run.id.clone()));
        if !runs.iter().any(|other| other.id == run.id) {
            runs.push(run);
        }
    }
    Ok((runs, asked))
}

fn scale(word: &str) -> Result<Scale, Failure> {
    let wrong =
        |what: String| Failure::wrong(what).help("write `--predict weights=7e6,tokens=2e7`");
    let (mut weights, mut tokens) = (None, None);
    for part in word.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = amount(value).map_err(|error| wrong(format!("`{part}`: {error}")))?;
        match name.trim() {
            "weights" | "N" => weights = Some(value),
            "tokens" | "D" => tokens = Some(value),
            name => return Err(wrong(format!("a run is not predicted from `{name}`"))),
        }
    }
    match (weights, tokens) {
        (Some(weights), Some(tokens)) => Ok(Scale { weights, tokens }),
        (None, _) => Err(wrong(format!("`{word}` says no weights"))),
        _ => Err(wrong(format!("`{word}` says no tokens"))),
    }
}

/// Reads a count of one or more.
pub(crate) fn amount(text: &str) -> Result<f64, String> {
    let text = text.trim().replace('_', "");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G' | 'B')) => (&text[..at], 1e9),
        _ => (&text[..], 1.0),
    };
    let value = digits.parse::<f64>().ok().map(|value| value * unit);
    let value = value.filter(|value| (1.0..1e30).contains(value));
    value.ok_or_else(|| "a number from 1 to 1e30 is wanted, such as 7e6 or 7M".to_owned())
}

/// Says which runs are left out, the first few by name.
pub(crate) fn shortly(left_out: &[LeftOut]) -> String {
    const SHOWN: usize = 3;
    let shown = left_out.iter().take(SHOWN);
    let shown = shown.map(|run| format!("{}: {}", run.run, run.why));
    let rest = left_out.len().saturating_sub(SHOWN);
    let rest = (rest > 0).then(|| format!("and {rest} more"));
    shown.chain(rest).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_people_write_it() {
        let wanted = Scale {
            weights: 7e6,
            tokens: 2e7,
        };
        for word in [
            "weights=7e6,tokens=2e7",
            "tokens=20M,weights=7_000_000",
            "N=7M,D=2e7",
        ] {
            assert_eq!(scale(word).unwrap(), wanted, "{word}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for word in [
            "weights=7e6",
            "tokens=2e7",
            "weights=x,tokens=1",
            "weights=0,tokens=5",
            "lr=3,tokens=5",
            "weights=1e6,tokens=inf",
        ] {
            assert!(scale(word).is_err(), "{word}");
        }
    }
}
