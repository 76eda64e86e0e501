//! All that is known of a run, as the lines of its journal.
//!
//! For a run that was recorded before there were journals, one whose journal was lost, and one of
//! which `gc` has taken most away. Read back, the lines give the same rows.

use rusqlite::{OptionalExtension, Row, Transaction};

use crate::{
    Digest, NewExecution, Run, RunSource, StageRecord,
    entry::{Begun, Curve, CurvePoint, Entry, Value},
    queries::{self, unsigned, word},
    records::Finished,
};

/// So many points stand in one line.
const POINTS_MAX: usize = 4096;

/// The lines of a run. Of one that was carried out elsewhere only executions are known, whose artifacts
/// came from a shared store.
pub(crate) fn history_of(rows: &Transaction<'_>, run_id: &str) -> rusqlite::Result<Vec<Entry>> {
    let (begun, last) = run_lines(rows, run_id)?.unzip();
    let mut lines: Vec<Entry> = begun.into_iter().collect();
    let params = list(
        rows,
        "SELECT name, value, is_default FROM params WHERE run_id = ?1 ORDER BY name",
        run_id,
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if !params.is_empty() {
        lines.push(Entry::Params(params));
    }
    let stages = list(rows, STAGES, run_id, stage)?;
    if !stages.is_empty() {
        lines.push(Entry::Stages(stages));
    }
    for (execution, place, end) in list(rows, EXECUTIONS, run_id, execution)? {
        let id = execution.id.clone();
        lines.push(Entry::Execution(execution));
        lines.extend(place.map(|place| Entry::Place {
            execution: id.clone(),
            place,
        }));
        lines.extend(numbers(rows, &id)?);
        lines.extend(samples(rows, &id)?);
        lines.extend(end.map(|end| Entry::Ended { execution: id, end }));
    }
    lines.extend(list(
        rows,
        "SELECT stage, at, level, message FROM events WHERE run_id = ?1 ORDER BY rowid",
        run_id,
        |row| {
            Ok(Entry::Event {
                stage: row.get(0)?,
                at: row.get(1)?,
                level: word(row, 2)?,
                message: row.get(3)?,
            })
        },
    )?);
    lines.extend(list(
        rows,
        "SELECT at, text FROM notes WHERE run_id = ?1 ORDER BY rowid",
        run_id,
        |row| {
            Ok(Entry::Note {
                at: row.get(0)?,
                text: row.get(1)?,
                n: 0,
            })
        },
    )?);
    lines.extend(last.into_iter().flatten());
    Ok(lines)
}

/// The line with which a run begins, and those that say how it stands.
fn run_lines(
    rows: &Transaction<'_>,
    run_id: &str,
) -> rusqlite::Result<Option<(Entry, Vec<Entry>)>> {
    let select = "SELECT name, experiment, file, seed, status, started_at, ended_at, host, device, git_commit,
        git_dirty, version, command, sweep, text, resolved, rowid, removed_at FROM runs WHERE id = ?1";
    let tags = list(
        rows,
        "SELECT tag FROM tags WHERE run_id = ?1 ORDER BY tag",
        run_id,
        |row| row.get(0),
    )?;
    let read = |row: &Row<'_>| {
        let run = Run {
            id: run_id.to_owned(),
            name: row.get(0)?,
            experiment: row.get(1)?,
            file: row.get(2)?,
            seed: row.get::<_, Option<i64>>(3)?.map(|seed| seed as u64),
            started_at: row.get(5)?,
            host: queries::json(row.get(7)?),
            device: row.get(8)?,
            git_commit: row.get(9)?,
            git_dirty: row.get(10)?,
            version: row.get(11)?,
            command: row.get(12)?,
            sweep: row.get(13)?,
            tags,
            ..Run::default()
        };
        let source = RunSource {
            text: row.get(14)?,
            resolved: row.get(15)?,
        };
        let status = Entry::Status {
            status: word(row, 4)?,
            ended_at: row.get(6)?,
        };
        let removed: Option<i64> = row.get(17)?;
        let removed = removed.map(|at| Entry::Removed { at, n: 0 });
        let begun = Entry::Begun(Box::new(Begun {
            run,
            source,
            order: row.get(16)?,
        }));
        Ok((
            begun,
            [Some(status), removed].into_iter().flatten().collect(),
        ))
    };
    rows.prepare_cached(select)?
        .query_row([run_id], read)
        .optional()
}

const STAGES: &str =
    "SELECT run_id, name, position, kind, outcome, key, execution_id, artifact, reason, inputs,
    settings FROM stages WHERE run_id = ?1 ORDER BY position, name";

fn stage(row: &Row<'_>) -> rusqlite::Result<StageRecord> {
    Ok(StageRecord {
        run_id: row.get(0)?,
        name: row.get(1)?,
        position: row.get(2)?,
        kind: row.get(3)?,
        outcome: word(row, 4)?,
        key: digest(row, 5)?,
        execution_id: row.get(6)?,
        artifact: digest(row, 7)?,
        reason: row.get(8)?,
        inputs: row.get(9)?,
        settings: row.get(10)?,
    })
}

const EXECUTIONS: &str =
    "SELECT id, run_id, stage, key, kind, attempt, started_at, device, threads, recipe, place,
    status, ended_at, cpu_seconds, peak_memory_bytes, artifact, origin, error
    FROM executions WHERE run_id = ?1 ORDER BY rowid";

type Lived = (NewExecution, Option<String>, Option<Finished>);

fn execution(row: &Row<'_>) -> rusqlite::Result<Lived> {
    let begun = NewExecution {
        id: row.get(0)?,
        run_id: row.get(1)?,
        stage: row.get(2)?,
        key: row.get(3)?,
        kind: row.get(4)?,
        attempt: row.get(5)?,
        started_at: row.get(6)?,
        device: row.get(7)?,
        threads: row.get(8)?,
        recipe: row.get(9)?,
    };
    let ended_at: Option<i64> = row.get(12)?;
    let end = Finished {
        status: word(row, 11)?,
        ended_at: ended_at.unwrap_or_default(),
        cpu_seconds: row.get(13)?,
        peak_memory_bytes: unsigned(row, 14)?,
        artifact: digest(row, 15)?,
        origin: row.get(16)?,
        error: row.get(17)?,
    };
    Ok((begun, row.get(10)?, ended_at.map(|_| end)))
}

/// The numbers of an execution, a few thousand a line.
pub(crate) fn numbers(rows: &Transaction<'_>, execution: &str) -> rusqlite::Result<Vec<Entry>> {
    let points = list(
        rows,
        "SELECT series.name, step, value, special, at FROM series
         JOIN points ON points.series_id = series.id WHERE execution_id = ?1 ORDER BY series.name, step",
        execution,
        |row| {
            let step = row.get::<_, i64>(1)?.try_into().ok();
            let value = Value(queries::value(row, 2)?);
            Ok((row.get::<_, String>(0)?, CurvePoint(step, value, row.get(4)?)))
        },
    )?;
    let lines = points.chunks(POINTS_MAX).map(|points| {
        let mut curves: Vec<Curve> = Vec::new();
        for (name, point) in points {
            match curves.last_mut().filter(|curve| curve.name == *name) {
                Some(curve) => curve.points.push(*point),
                None => curves.push(Curve {
                    name: name.clone(),
                    points: vec![*point],
                }),
            }
        }
        Entry::Numbers {
            execution: execution.to_owned(),
            curves,
        }
    });
    Ok(lines.collect())
}

/// The samples of an execution, a line for each moment at which some were written.
pub(crate) fn samples(rows: &Transaction<'_>, execution: &str) -> rusqlite::Result<Vec<Entry>> {
    let select =
        "SELECT step, prompt, text, at FROM samples WHERE execution_id = ?1 ORDER BY rowid";
    let texts = list(rows, select, execution, |row| {
        let sample = (unsigned(row, 0)?, row.get(1)?, row.get(2)?);
        Ok((row.get::<_, i64>(3)?, sample))
    })?;
    let moments = texts.chunk_by(|one, next| one.0 == next.0);
    Ok(moments
        .map(|moment| Entry::Samples {
            execution: execution.to_owned(),
            at: moment[0].0,
            samples: moment.iter().map(|(_, sample)| sample.clone()).collect(),
        })
        .collect())
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

fn list<T>(
    rows: &Transaction<'_>,
    select: &str,
    id: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = rows.prepare_cached(select)?;
    statement.query_map([id], |row| read(row))?.collect()
}
