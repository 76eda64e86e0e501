//! What a stage asks of a scheduler: processors, memory, time, GPUs.
//!
//! Never a part of a key: a stage that was given more makes the same bytes. Memory and time may be
//! spans: the first attempt asks for the lower end, and one that was ended for want of either asks
//! for twice as much, up to the upper end. On one machine there is nobody to ask, and of all this
//! only `ranks` counts there.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The resources of one stage; what is not said is the site's to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    pub cpus: Option<u32>,
    pub memory: Option<Span<Memory>>,
    pub time: Option<Span<Time>>,
    pub gpus: Option<u32>,
    /// Machines, which a training shares.
    pub nodes: Option<u32>,
    /// Processes that share a training on each of them, and on this machine without a scheduler.
    pub ranks: Option<u32>,
}

/// Bytes, written as Slurm does: `500M` and `32G` count in 1024s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

/// A time, written as `timeout` is: `90s`, `30m`, `2h`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(pub Duration);

/// From what is asked for first to the most that is ever asked for; `32G..128G`, or just `32G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "String",
    into = "String",
    bound(serialize = "T: Amount", deserialize = "T: Amount")
)]
pub struct Span<T> {
    pub from: T,
    pub to: T,
}

/// An amount that a person writes and that can be doubled.
pub trait Amount: Copy + Ord + fmt::Display {
    fn read(text: &str) -> Option<Self>;
    #[must_use]
    fn twice(self) -> Self;
}

impl Resources {
    /// Takes from `others` what is not said here.
    #[must_use]
    pub fn or(self, others: &Resources) -> Resources {
        Resources {
            cpus: self.cpus.or(others.cpus),
            memory: self.memory.or(others.memory),
            time: self.time.or(others.time),
            gpus: self.gpus.or(others.gpus),
            nodes: self.nodes.or(others.nodes),
            ranks: self.ranks.or(others.ranks),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}

impl<T: Amount> Span<T> {
    /// Reads `32G` or `32G..128G`; of a span the upper end is no less than the lower.
    pub fn read(text: &str) -> Option<Self> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let (from, to) = (T::read(from.trim())?, T::read(to.trim())?);
        (from <= to).then_some(Self { from, to })
    }

    /// Returns what is asked for after this was not enough; nothing where it was the most already.
    #[must_use]
    pub fn after_want(self) -> Option<Self> {
        let from = self.from.twice().min(self.to);
        (from > self.from).then_some(Self { from, to: self.to })
    }
}

impl<T: Amount> fmt::Display for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            return self.from.fmt(f);
        }
        write!(f, "{}..{}", self.from, self.to)
    }
}

impl<T: Amount> TryFrom<String> for Span<T> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text)
            .ok_or_else(|| format!("`{text}` is no amount such as `32G`, `4h` or `4h..24h`"))
    }
}

impl<T: Amount> From<Span<T>> for String {
    fn from(span: Span<T>) -> Self {
        span.to_string()
    }
}

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl Amount for Memory {
    fn read(text: &str) -> Option<Self> {
        let number = text.strip_suffix(['B', 'b']).unwrap_or(text);
        let unit = number.chars().last()?.to_ascii_uppercase();
        let (_, shift) = UNITS.iter().find(|(known, _)| *known == unit)?;
        let number: f64 = number[..number.len() - 1].trim().parse().ok()?;
        let bytes = number * (1_u64 << shift) as f64;
        (bytes >= 1.0 && bytes < (1_u64 << 60) as f64).then_some(Self(bytes as u64))
    }

    fn twice(self) -> Self {
        Self(self.0.saturating_mul(2))
    }
}

impl Memory {
    /// Whole megabytes, as Slurm counts them; never less than was asked for.
    pub fn megabytes(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS
            .iter()
            .find(|(_, shift)| self.0.is_multiple_of(1 << shift));
        match whole {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}M", self.megabytes()),
        }
    }
}

impl Amount for Time {
    fn read(text: &str) -> Option<Self> {
        crate::spec::parse_duration(text).map(Self)
    }

    fn twice(self) -> Self {
        Self(self.0.saturating_mul(2))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text).ok_or_else(|| format!("`{text}` is no time such as `30s` or `2m`"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
        ];
        if seconds == 0 {
            return write!(f, "{}s", self.0.as_secs_f64());
        }
        parts
            .iter()
            .filter(|(n, _)| *n > 0)
            .try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory(text: &str) -> Span<Memory> {
        Span::read(text).unwrap()
    }

    #[test]
    fn amounts_are_read_as_slurm_and_people_write_them() {
        assert_eq!(memory("32G").from, Memory(32 << 30));
        assert_eq!(memory("1.5g..2TB").to, Memory(2 << 40));
        assert_eq!(memory("500M").from.megabytes(), 500);
        let time: Span<Time> = Span::read("90m .. 24h").unwrap();
        assert_eq!(time.from, Time(Duration::from_secs(5400)));
        for wrong in [
            "", "32", "G", "-1G", "8G..4G", "0G", "1e400G", "4G..", "nanG",
        ] {
            assert_eq!(Span::<Memory>::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn want_doubles_up_to_the_upper_end_and_no_further() {
        let asked: Vec<String> =
            std::iter::successors(Some(memory("20G..64G")), |span| span.after_want())
                .map(|span| span.from.to_string())
                .collect();
        assert_eq!(asked, ["20G", "40G", "64G"]);
        assert_eq!(memory("32G").after_want(), None);
    }

    proptest! {
        #[test]
        fn a_span_is_read_as_it_is_written(seconds in 1_u64..1 << 30, more in 0_u64..1 << 30, mega in 1_u64..1 << 30) {
            let time = Span { from: Time(Duration::from_secs(seconds)), to: Time(Duration::from_secs(seconds + more)) };
            prop_assert_eq!(Span::read(&time.to_string()), Some(time));
            let memory = Span { from: Memory(mega << 20), to: Memory((mega + more) << 20) };
            prop_assert_eq!(Span::read(&memory.to_string()), Some(memory));
        }
    }
}
