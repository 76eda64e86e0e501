//! How figures are written for people: one place, so that a terminal, a page and a table agree.
//!
//! A loss wants four digits, a count of tokens its thousands apart, a learning rate its exponent.
//! The magnitude decides, never the metric's name, so a metric nobody has heard of reads well too.
//! Values that are no numbers are written as they are: `NaN`, `inf`, `-inf`.

/// Writes a value in at most about ten characters.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = value.abs();
    if value == value.trunc() && size < 1e12 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", thousands(size as u64));
    }
    match size {
        _ if size < 1e-3 => scientific(value, 2),
        _ if size < 0.1 => trimmed(&format!("{value:.5}")).to_owned(),
        _ if size < 10.0 => format!("{value:.4}"),
        _ if size < 100.0 => format!("{value:.3}"),
        _ if size < 1000.0 => format!("{value:.2}"),
        _ if size < 1e9 => grouped(&format!("{value:.1}")),
        _ => scientific(value, 3),
    }
}

/// Writes a value with the half of its interval of 95 %, both to the digits that this leaves: `0.68 ± 0.15`.
pub fn with_error(value: f64, standard_error: f64) -> String {
    let half = 1.96 * standard_error;
    if !value.is_finite() || !half.is_finite() || half <= 0.0 {
        return number(value);
    }
    let decimals = (1.0 - half.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$} ± {half:.decimals$}")
}

/// Writes a difference and the ends of its interval, all to the digits that its width leaves.
pub(crate) fn with_interval(by: f64, low: f64, high: f64) -> [String; 3] {
    let half = (high - low) / 2.0;
    if half >= 1e4 {
        return [by, low, high].map(tick);
    }
    if !half.is_finite() || half <= 0.0 {
        return [by, low, high].map(number);
    }
    let decimals = (1.0 - half.log10().floor()).clamp(0.0, 9.0) as usize;
    [by, low, high].map(|value| format!("{value:.decimals$}"))
}

/// Writes a whole number with its thousands apart: `1,234,567`.
pub fn thousands(value: u64) -> String {
    grouped(&value.to_string())
}

/// Writes a value for the tick of an axis: `0`, `250`, `1.5k`, `20M`, `1e-4`.
pub(crate) fn tick(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        _ if size >= 1e15 => return scientific(value, 1),
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e3 => (value / 1e3, "k"),
        _ if size > 0.0 && size < 1e-3 => return scientific(value, 1),
        _ => (value, ""),
    };
    format!("{}{unit}", trimmed(&format!("{scaled:.3}")))
}

/// Writes a relative difference: `-3.2 %`, `+120 %`.
pub(crate) fn percent(change: f64) -> String {
    if !change.is_finite() {
        return String::new();
    }
    let size = change.abs();
    let text = match size {
        _ if size >= 1e4 => {
            return if change > 0.0 {
                ">+9,999 %"
            } else {
                "<-9,999 %"
            }
            .to_owned();
        }
        _ if size >= 100.0 => format!("{change:+.0}"),
        _ if size >= 0.095 => format!("{change:+.1}"),
        _ => format!("{change:+.2}"),
    };
    // A difference too small to write is no difference.
    match text.as_str() {
        "+0.00" | "-0.00" => "=".to_owned(),
        _ => format!("{text} %"),
    }
}

/// Writes a span of time: `0.42 s`, `12.3 s`, `4 min 05 s`, `1 h 02 min`, `2 d 03 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 0.995 {
        return format!("{seconds:.2} s");
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3_600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// Writes an amount of bytes: `812 B`, `3.6 kB`, `12 MB`, `1.2 GB`.
pub fn bytes(n_bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n_bytes < 1_000 {
        return format!("{n_bytes} B");
    }
    let mut scaled = n_bytes as f64 / 1e3;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1e3;
        unit += 1;
    }
    let digits = if scaled < 9.95 { 1 } else { 0 };
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// Returns what a run is called in tables and charts: A, B, ... and numbers after Z.
pub(crate) fn letter(run_idx: usize) -> String {
    match u8::try_from(run_idx) {
        Ok(idx) if idx < 26 => char::from(b'A' + idx).to_string(),
        _ => (run_idx + 1).to_string(),
    }
}

/// Writes a moment, in UTC: `2026-11-21 06:33 UTC`.
pub(crate) fn moment(milliseconds: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(milliseconds) {
        Some(time) => time.format("%Y-%m-%d %H:%M UTC").to_string(),
        None => "?".to_owned(),
    }
}

/// Writes a moment as the clock here shows it: `2026-11-21 07:33`.
pub(crate) fn local_moment(milliseconds: i64) -> String {
    let utc = chrono::DateTime::from_timestamp_millis(milliseconds).unwrap_or_default();
    let local = utc.with_timezone(&chrono::Local);
    local.format("%Y-%m-%d %H:%M").to_string()
}

/// Returns the first digits of a digest or a commit, enough to tell it from another.
pub(crate) fn short_digest(digest: &str) -> &str {
    digest.get(..8).unwrap_or(digest)
}

/// Returns `n thing` or `n things`.
pub fn counted(n: usize, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", thousands(n as u64))
}

fn scientific(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trimmed(mantissa)),
        None => text,
    }
}

/// Drops the zeros that end a decimal fraction.
fn trimmed(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

fn grouped(text: &str) -> String {
    let digits_start = usize::from(text.starts_with('-'));
    let (sign, rest) = text.split_at(digits_start);
    let (whole, fraction) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let mut grouped = sign.to_owned();
    for (idx, digit) in whole.chars().enumerate() {
        if idx > 0 && (whole.len() - idx).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// `1,200 of 5,000 steps`, or bytes as people say them.
pub fn amount(done: u64, total: Option<u64>, unit: &str) -> String {
    if unit == "bytes" {
        return match total {
            Some(total) => format!("{} of {}", bytes(done), bytes(total)),
            None => bytes(done),
        };
    }
    match total {
        Some(total) => format!("{} of {} {unit}", thousands(done), thousands(total)),
        None => format!("{} {unit}", thousands(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_below_zero_keep_their_sign() {
        assert_eq!(number(-3.0), "-3");
        assert_eq!(number(-0.0), "0");
        assert_eq!(with_interval(-2.0, -2.0, -2.0), ["-2"; 3]);
        assert_eq!(
            with_interval(-0.031, -0.04, -0.022),
            ["-0.0310", "-0.0400", "-0.0220"]
        );
    }

    #[test]
    fn amounts_read_as_people_say_them() {
        assert_eq!(
            amount(1200, Some(41_343_965), "steps"),
            "1,200 of 41,343,965 steps"
        );
        assert_eq!(amount(999, None, "bytes"), "999 B");
    }

    #[test]
    fn the_magnitude_decides_how_a_number_is_written() {
        let written = [
            0.0,
            -0.25,
            1.88321,
            12.3456,
            123.456,
            1234.56,
            41_343_965.0,
            6e-4,
            0.012,
            3.2e-7,
            1e13,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ]
        .map(number)
        .join(" ");
        insta::assert_snapshot!(written, @"0 -0.2500 1.8832 12.346 123.46 1,234.6 41,343,965 6e-4 0.012 3.2e-7 1e13 NaN inf -inf");
    }

    #[test]
    fn spans_of_time_use_at_most_two_units() {
        let written = [0.0, 0.42, 9.999, 59.96, 245.0, 3_725.0, 190_800.0, f64::NAN]
            .map(duration)
            .join(", ");
        insta::assert_snapshot!(written, @"0.00 s, 0.42 s, 10.0 s, 1 min 00 s, 4 min 05 s, 1 h 02 min, 2 d 05 h, ?");
    }

    #[test]
    fn memory_and_ticks_are_short() {
        let written = [0, 999, 1_024, 999_600, 12_900_000, 1_300_000_000]
            .map(bytes)
            .join(", ");
        insta::assert_snapshot!(written, @"0 B, 999 B, 1.0 kB, 1.0 MB, 13 MB, 1.3 GB");
        let written = [0.0, 250.0, 1500.0, 2e7, 1e-4, 0.5].map(tick).join(" ");
        insta::assert_snapshot!(written, @"0 250 1.5k 20M 1e-4 0.5");
    }

    #[test]
    fn a_difference_too_small_to_write_is_none() {
        let written = [-3.21, 120.4, 0.0, 0.001, -0.04, 1e9, f64::NAN]
            .map(percent)
            .join(" | ");
        insta::assert_snapshot!(written, @"-3.2 % | +120 % | = | = | -0.04 % | >+9,999 % | ");
    }
}
