//! The machine's load by an execution, as two curves.
//!
//! The process of a stage tells about once a second what it has used and holds. Of that stay the cores
//! that were busy and the most memory that was held since the point before; the longer a stage goes
//! on, the rarer its points, since a picture shows no more. Made by the recorder, so that a training
//! pays nothing for it.

use tinylm_registry::{MetricRow, Millis, load};

use crate::using::Using;

/// Points of a curve, before they become rarer.
const POINTS: i64 = 500;

/// The use of an execution since its last point.
#[derive(Debug)]
pub(crate) struct Load {
    began_at: Millis,
    last_at: Millis,
    cpu_seconds: f64,
    memory_most: u64,
}

impl Load {
    /// Begins with the first word about an execution, which is no point yet.
    pub(crate) fn new(at: Millis, using: Using) -> Self {
        Self {
            began_at: at,
            last_at: at,
            cpu_seconds: using.cpu_seconds,
            memory_most: 0,
        }
    }

    /// Takes the next word in; returns the points that are due.
    pub(crate) fn hear(
        &mut self,
        execution_id: &str,
        at: Millis,
        using: Using,
    ) -> Option<[MetricRow; 2]> {
        self.memory_most = self.memory_most.max(using.memory_bytes);
        let (span, age) = (at - self.last_at, at - self.began_at);
        if span <= 0 || span < age / POINTS {
            return None;
        }
        let cores = (using.cpu_seconds - self.cpu_seconds).max(0.0) * 1e3 / span as f64;
        let row = |name: &str, value| MetricRow {
            execution_id: execution_id.to_owned(),
            name: name.to_owned(),
            step: u64::try_from(age / 1000).ok(),
            value,
            at,
        };
        let memory = std::mem::take(&mut self.memory_most) as f64;
        (self.last_at, self.cpu_seconds) = (at, using.cpu_seconds);
        Some([row(load::CPU, cores), row(load::MEMORY, memory)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn using(cpu_seconds: f64, memory_bytes: u64) -> Using {
        Using {
            cpu_seconds,
            memory_bytes,
        }
    }

    #[test]
    fn a_point_is_the_mean_of_the_cores_and_the_most_of_the_memory_since_the_last() {
        let mut load = Load::new(10_000, using(5.0, 100));
        let [cpu, memory] = load.hear("e", 12_000, using(8.0, 300)).unwrap();
        assert_eq!((cpu.step, cpu.value), (Some(2), 1.5));
        assert_eq!((memory.step, memory.value), (Some(2), 300.0));
        let at_once = load.hear("e", 12_000, using(9.0, 900));
        assert!(at_once.is_none(), "no time went by");
        let [cpu, memory] = load.hear("e", 13_000, using(9.0, 200)).unwrap();
        assert_eq!((cpu.value, memory.value), (1.0, 900.0));
    }

    #[test]
    fn ten_hours_are_some_thousand_points_and_no_peak_is_lost() {
        let mut load = Load::new(0, using(0.0, 1));
        let held = |second| if second == 30_001 { 9 } else { 1 };
        let heard = (1..36_000)
            .filter_map(|second| load.hear("e", second * 1_000, using(0.0, held(second))));
        let memory: Vec<MetricRow> = heard.map(|[_, memory]| memory).collect();
        assert!((1_000..4_000).contains(&memory.len()), "{}", memory.len());
        assert!(memory.is_sorted_by(|a, b| a.step < b.step));
        assert_eq!(memory.iter().filter(|row| row.value == 9.0).count(), 1);
    }
}
