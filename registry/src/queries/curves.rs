//! Curves, thinned out to what a plot can show.
//!
//! Points are read in the order in which they lie; of each of a few hundred buckets the lowest and
//! the highest stay, so that a thinned curve hides no spike. Many curves are split among threads.

use std::{num::NonZero, ops::RangeInclusive, thread};

use rusqlite::OptionalExtension;
use serde::Serialize;

use super::number;
use crate::{Error, Millis, Registry};

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    pub step: u64,
    pub value: f64,
    pub at: Millis,
}

/// A curve, thinned out to what a plot can show.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    pub execution_id: String,
    pub name: String,
    /// How many there are in the registry.
    pub n_points: u64,
    pub points: Vec<Point>,
}

/// How many points are left of a long curve, and along which axis they are even.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thinning {
    pub points_max: usize,
    /// Whether they are for an axis that shows decades, where the first steps take most of the room.
    pub is_log: bool,
}

impl Thinning {
    pub fn even(points_max: usize) -> Self {
        Self {
            points_max,
            is_log: false,
        }
    }
}

/// A curve from its first point to its last; the final number is none of its points.
pub const ALL_STEPS: RangeInclusive<u64> = 0..=u64::MAX;

impl Registry {
    /// A curve of at most `max_points` points, its first, last, lowest and highest among them.
    pub fn metric_series(
        &self,
        execution_id: &str,
        name: &str,
        max_points: usize,
    ) -> Result<Series, Error> {
        self.metric_series_within(execution_id, name, &ALL_STEPS, Thinning::even(max_points))
    }

    fn metric_series_within(
        &self,
        execution_id: &str,
        name: &str,
        steps: &RangeInclusive<u64>,
        thinning: Thinning,
    ) -> Result<Series, Error> {
        let mut thinner = Thinner::new(thinning);
        self.thin(execution_id, name, steps, &mut thinner)
            .map_err(|error| self.error(error))?;
        Ok(Series {
            execution_id: execution_id.to_owned(),
            name: name.to_owned(),
            n_points: thinner.n_points,
            points: thinner.finish(),
        })
    }

    /// These steps of many curves, `(execution, name)`, read on all cores.
    pub fn metric_series_of(
        &self,
        curves: &[(String, String)],
        steps: &RangeInclusive<u64>,
        thinning: Thinning,
    ) -> Result<Vec<Series>, Error> {
        let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
        let n_each = curves.len().div_ceil(n_threads).max(16);
        let read = |reader: &Registry, curves: &[(String, String)]| {
            let read = |(execution_id, name): &(String, String)| {
                reader.metric_series_within(execution_id, name, steps, thinning)
            };
            curves.iter().map(read).collect::<Result<Vec<_>, Error>>()
        };
        let (ours, others) = curves.split_at(n_each.min(curves.len()));
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for curves in others.chunks(n_each) {
                let reader = self.reader()?;
                readers.push(scope.spawn(move || read(&reader, curves)));
            }
            let mut series = read(self, ours)?;
            for reader in readers {
                match reader.join() {
                    Ok(read) => series.extend(read?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(series)
        })
    }

    fn thin(
        &self,
        execution_id: &str,
        name: &str,
        steps: &RangeInclusive<u64>,
        thinner: &mut Thinner,
    ) -> rusqlite::Result<()> {
        let Some(series) = self.series_id(execution_id, name)? else {
            return Ok(());
        };
        let end = |step: u64| i64::try_from(step).unwrap_or(i64::MAX);
        let within = [series, end(*steps.start()), end(*steps.end())];
        let last: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT max(step) FROM points
                 WHERE series_id = ?1 AND step BETWEEN ?2 AND ?3",
            )?
            .query_row(within, |row| row.get(0))?;
        thinner.first_step = *steps.start();
        thinner.last_step = last.and_then(|step| step.try_into().ok()).unwrap_or(0);
        let mut select = self.connection.prepare_cached(
            "SELECT step, ifnull(value, special), at FROM points
             WHERE series_id = ?1 AND step BETWEEN ?2 AND ?3 ORDER BY step",
        )?;
        let mut rows = select.query(within)?;
        while let Some(row) = rows.next()? {
            thinner.add(Point {
                step: row.get::<_, i64>(0)? as u64,
                value: number(row.get_ref(1)?)?,
                at: row.get(2)?,
            });
        }
        Ok(())
    }

    fn series_id(&self, execution_id: &str, name: &str) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT id FROM series WHERE execution_id = ?1 AND name = ?2")?
            .query_row([execution_id, name], |row| row.get(0))
            .optional()
    }

    /// When the first point of a curve was written, and the last one before a moment: a stage that
    /// went on after a pause has points from before it.
    pub fn curve_span(
        &self,
        execution_id: &str,
        name: &str,
        before: Millis,
    ) -> Result<(Option<Millis>, Option<Millis>), Error> {
        let span = || {
            let Some(series) = self.series_id(execution_id, name)? else {
                return Ok((None, None));
            };
            self.connection
                .prepare_cached(
                    "SELECT min(at), max(iif(at < ?2, at, NULL)) FROM points
                     WHERE series_id = ?1 AND step >= 0",
                )?
                .query_row([series, before], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        span().map_err(|error| self.error(error))
    }
}

/// Keeps what a plot can show of a curve: all of a short one; of a long one the first and last
/// point and, for each bucket of steps, the lowest and the highest. NaN counts as the highest, so
/// that a loss which blew up once is not thinned away.
pub(super) struct Thinner {
    thinning: Thinning,
    n_points: u64,
    first_step: u64,
    pub(super) last_step: u64,
    /// All points so far, while there are few.
    few: Vec<Point>,
    thinned: Vec<Point>,
    bucket: Option<Bucket>,
    last: Option<Point>,
}

struct Bucket {
    number: u64,
    low: Point,
    high: Point,
}

impl Thinner {
    pub(super) fn new(thinning: Thinning) -> Self {
        Thinner {
            thinning: Thinning {
                points_max: thinning.points_max.max(4),
                ..thinning
            },
            n_points: 0,
            first_step: 0,
            last_step: 0,
            few: Vec::new(),
            thinned: Vec::new(),
            bucket: None,
            last: None,
        }
    }

    pub(super) fn add(&mut self, point: Point) {
        self.n_points += 1;
        if self.n_points <= self.thinning.points_max as u64 {
            self.few.push(point);
            return;
        }
        for point in std::mem::take(&mut self.few) {
            self.put(point);
        }
        self.put(point);
    }

    fn put(&mut self, point: Point) {
        if self.last.is_none() {
            self.thinned.push(point);
        }
        self.last = Some(point);
        let number = self.bucket_of(point.step);
        match &mut self.bucket {
            Some(bucket) if bucket.number == number => {
                if point.value.total_cmp(&bucket.low.value).is_lt() {
                    bucket.low = point;
                }
                if point.value.total_cmp(&bucket.high.value).is_gt() {
                    bucket.high = point;
                }
            }
            _ => {
                self.close();
                let (low, high) = (point, point);
                self.bucket = Some(Bucket { number, low, high });
            }
        }
    }

    fn bucket_of(&self, step: u64) -> u64 {
        let n_buckets = (self.thinning.points_max as u64 - 2) / 2;
        if self.thinning.is_log {
            // Step 0 has no place among decades, and is the beginning of the first.
            let place =
                |step: u64| (step.max(1) as f64).ln() - (self.first_step.max(1) as f64).ln();
            let share = place(step) / place(self.last_step).max(f64::MIN_POSITIVE);
            return ((share * n_buckets as f64) as u64).min(n_buckets - 1);
        }
        let end = self.last_step.saturating_add(1);
        let n_steps = end.saturating_sub(self.first_step);
        let place = step.saturating_sub(self.first_step);
        place.saturating_mul(n_buckets) / n_steps.max(1)
    }

    fn close(&mut self) {
        if let Some(Bucket { low, high, .. }) = self.bucket.take() {
            let (a, b) = if low.step <= high.step {
                (low, high)
            } else {
                (high, low)
            };
            self.keep(a);
            self.keep(b);
        }
    }

    fn keep(&mut self, point: Point) {
        if self
            .thinned
            .last()
            .is_none_or(|last| last.step < point.step)
        {
            self.thinned.push(point);
        }
    }

    pub(super) fn finish(mut self) -> Vec<Point> {
        if !self.few.is_empty() {
            return self.few;
        }
        self.close();
        if let Some(last) = self.last {
            self.keep(last);
        }
        self.thinned
    }
}
