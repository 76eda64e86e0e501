//! Times as chats write them, for telling silences from talk.
//!
//! No zone is known and none is needed: only how long nobody spoke matters.

/// How a date that does not begin with the year is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DateOrder {
    DayFirst,
    MonthFirst,
}

/// A date and a time of day, its first two numbers as they stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct When {
    date: [i64; 3],
    seconds: f64,
}

impl When {
    /// Reads a time and returns what stands behind it.
    pub(super) fn read(text: &str) -> Option<(Self, &str)> {
        let (first, rest) = number(text, 4)?;
        let sign = rest
            .chars()
            .next()
            .filter(|c| matches!(c, '/' | '.' | '-'))?;
        let (second, rest) = number(after(rest, sign)?, 2)?;
        let (third, rest) = number(after(rest, sign)?, 4)?;
        let rest = rest.strip_prefix(sign).unwrap_or(rest);
        let rest = rest.strip_prefix([',', 'T']).unwrap_or(rest).trim_start();
        let (seconds, rest) = time(rest)?;
        let date = [first, second, third];
        let is_date = match first > 31 {
            true => first >= 1000 && (1..=12).contains(&second),
            false => first >= 1 && (1..=31).contains(&second),
        };
        is_date.then_some((Self { date, seconds }, rest))
    }

    /// Returns seconds since some day.
    pub(super) fn seconds(self, order: DateOrder) -> f64 {
        let [first, second, third] = self.date;
        let (year, month, day) = match order {
            _ if first > 31 => (first, second, third),
            DateOrder::DayFirst => (third, second, first),
            DateOrder::MonthFirst => (third, first, second),
        };
        let year = if year < 100 { 2000 + year } else { year };
        86_400.0 * days(year, month, day) as f64 + self.seconds
    }

    /// Returns the order in which these dates are dates, and do not go back.
    pub(super) fn order(times: &[Self]) -> DateOrder {
        use DateOrder::{DayFirst, MonthFirst};
        let local = times.iter().filter(|when| when.date[0] <= 31);
        let is_beyond = |idx: usize| local.clone().any(|when| when.date[idx] > 12);
        if is_beyond(0) || is_beyond(1) {
            return if is_beyond(0) { DayFirst } else { MonthFirst };
        }
        let n_back = |order| {
            let seconds = |when: &Self| when.seconds(order);
            let pairs = times.windows(2);
            pairs
                .filter(|pair| seconds(&pair[1]) < seconds(&pair[0]))
                .count()
        };
        match n_back(MonthFirst) < n_back(DayFirst) {
            true => MonthFirst,
            false => DayFirst,
        }
    }
}

/// Returns the seconds of a time written as text: since 1970, or a date and a time of day.
pub(super) fn seconds_of(text: &str) -> Option<f64> {
    match text.parse::<f64>() {
        Ok(number) => Some(since_1970(number)),
        Err(_) => When::read(text).map(|(when, _)| when.seconds(DateOrder::DayFirst)),
    }
}

/// Seconds, where a number may be of milliseconds.
pub(super) fn since_1970(number: f64) -> f64 {
    match number.abs() > 1e11 {
        true => number / 1000.0,
        false => number,
    }
}

/// Days since 1970 in the calendar of today, for any month and day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the day that some have more is their last.
    let (year, month) = match month > 2 {
        true => (year, month - 3),
        false => (year - 1, month + 9),
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 719_469
}

fn after(text: &str, sign: char) -> Option<&str> {
    text.strip_prefix(sign).map(str::trim_start)
}

fn number(text: &str, n_digits: usize) -> Option<(i64, &str)> {
    let n = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(n);
    (1..=n_digits)
        .contains(&n)
        .then(|| Some((digits.parse().ok()?, rest)))?
}

/// Reads `14:23`, `14.23:45`, `2:23:45 PM`, `2:23 p. m.`
fn time(text: &str) -> Option<(f64, &str)> {
    let (hours, rest) = number(text, 2)?;
    let (minutes, rest) = number(rest.strip_prefix([':', '.'])?, 2)?;
    let seconds = rest
        .strip_prefix([':', '.'])
        .and_then(|rest| number(rest, 2));
    let (seconds, rest) = seconds.unwrap_or((0, rest));
    if hours > 24 || minutes > 59 || seconds > 60 {
        return None;
    }
    let (half, rest) = half(rest);
    let hours = match half {
        Some(is_late) => hours % 12 + if is_late { 12 } else { 0 },
        None => hours,
    };
    Some(((3600 * hours + 60 * minutes + seconds) as f64, rest))
}

/// Whether a time is in the second half of the day, where it says in which.
fn half(text: &str) -> (Option<bool>, &str) {
    let word = text.trim_start();
    let mut letters = String::new();
    for (at, c) in word.char_indices() {
        match c {
            'a' | 'p' | 'm' | 'A' | 'P' | 'M' => letters.push(c.to_ascii_lowercase()),
            '.' => {}
            c if c.is_whitespace() && letters.len() < 2 => {}
            _ => break,
        }
        if letters.len() == 2 {
            let rest = &word[at + c.len_utf8()..];
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            return match letters.as_str() {
                "am" => (Some(false), rest),
                "pm" => (Some(true), rest),
                _ => (None, text),
            };
        }
    }
    (None, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, order: DateOrder) -> f64 {
        let (when, rest) = When::read(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(rest, " - x", "{text}");
        when.seconds(order)
    }

    #[test]
    fn one_moment_is_written_in_many_ways() {
        let moment = 1_673_792_580.0;
        for text in [
            "15/01/2023, 14:23 - x",
            "15.01.23, 14:23 - x",
            "15-1-2023 14.23:00 - x",
            "15/1/23, 2:23\u{202f}p.\u{a0}m. - x",
            "2023-01-15, 14:23:00 - x",
            "2023-01-15T14:23 - x",
            "2023. 01. 15. 14:23 - x",
        ] {
            assert_eq!(read(text, DateOrder::DayFirst), moment, "{text}");
        }
        assert_eq!(read("1/15/23, 2:23 PM - x", DateOrder::MonthFirst), moment);
        assert_eq!(seconds_of("1673792580123"), Some(1_673_792_580.123));
        assert_eq!(seconds_of("2023-01-15T14:23:00.5+00:00"), Some(moment));
        for text in [
            "15/01/2023 - x",
            "1.5, 14:23 - x",
            "12:30 - x",
            "",
            "99/99/2023, 14:23",
        ] {
            assert_eq!(When::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_order_of_a_date_follows_from_the_others() {
        let order = |dates: &[&str]| {
            let times = dates.iter().map(|date| format!("{date}, 10:00"));
            let times: Vec<When> = times.map(|text| When::read(&text).unwrap().0).collect();
            When::order(&times)
        };
        assert_eq!(order(&["13/01/23"]), DateOrder::DayFirst);
        assert_eq!(order(&["01/13/23"]), DateOrder::MonthFirst);
        assert_eq!(
            order(&["01/02/23", "02/02/23", "01/03/23"]),
            DateOrder::DayFirst
        );
        assert_eq!(
            order(&["02/01/23", "02/02/23", "03/01/23"]),
            DateOrder::MonthFirst
        );
        assert_eq!(order(&["2023-01-02"]), DateOrder::DayFirst);
    }

    #[test]
    fn a_midnight_is_a_minute_long() {
        let at = |text: &str| read(text, DateOrder::DayFirst);
        assert_eq!(at("01/03/24, 00:00 - x") - at("29/02/24, 23:59 - x"), 60.0);
        assert_eq!(
            at("1/1/24, 12:00 AM - x") - at("31/12/23, 11:59 PM - x"),
            60.0
        );
    }
}
