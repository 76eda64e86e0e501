//! How often a stage is tried and how long it may take: `retries` and `timeout`.

use std::time::Duration;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    tree::{Data, Node},
};

pub(crate) fn retries(stage: &str, node: Option<&Node>, wrong: &mut Diagnostics) -> Option<u32> {
    let node = node.filter(|node| !node.is_null() && !node.is_broken())?;
    let retries = match &node.data {
        Data::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    if retries.is_none() {
        wrong.push(
            Diagnostic::new(format!(
                "`retries` of stage `{stage}` must be a whole number"
            ))
            .at(&node.place, format!("this is {}", node.sort())),
        );
    }
    retries
}

pub(crate) fn timeout(
    stage: &str,
    node: Option<&Node>,
    wrong: &mut Diagnostics,
) -> Option<Duration> {
    let node = node.filter(|node| !node.is_null() && !node.is_broken())?;
    let timeout = match &node.data {
        Data::Number(number) => number.as_f64().and_then(seconds),
        Data::Text(text) => parse_duration(text),
        _ => None,
    };
    if timeout.is_none() {
        wrong.push(
            Diagnostic::new(format!("`timeout` of stage `{stage}` must be a duration"))
                .at(&node.place, "")
                .help("write seconds, or a duration such as `90s`, `30m`, `2h` or `1h30m`"),
        );
    }
    timeout
}

/// Reads `90s`, `2h` or `1h30m`: numbers with units, added up.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_len = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after.trim_start();
        if rest.is_empty() {
            return seconds(total);
        }
    }
}

/// A time-out of nothing would end every attempt, so it is refused.
fn seconds(number: f64) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(number).ok()?;
    (!duration.is_zero()).then_some(duration)
}
