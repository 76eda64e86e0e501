//! All numbers of a run in long form, a number a row: for spreadsheets and data frames.
//!
//! Nothing is thinned out here, unlike in a report, so it is written stage by stage.

use std::{io, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use tinylm_registry::{Millis, Registry, Run, StageRow};

use crate::{
    Error,
    data::{csv_line, exact},
};

/// The columns, in both forms.
const COLUMNS: [&str; 6] = ["run", "stage", "metric", "step", "time", "value"];

/// The numbers of one metric of a stage.
struct Metric {
    name: String,
    /// No step for the number of the end.
    numbers: Vec<(Option<u64>, Millis, f64)>,
}

/// Returns the numbers of these stages as CSV, piece by piece; a number of the end has no step.
pub fn csv<'a>(
    registry: &'a Registry,
    run: &'a Run,
    stages: &'a [&StageRow],
) -> impl Iterator<Item = Result<String, Error>> + 'a {
    let mut head = String::new();
    csv_line(&mut head, &COLUMNS);
    let stages = stages.iter();
    std::iter::once(Ok(head)).chain(stages.map(|stage| csv_of(registry, run, stage)))
}

fn csv_of(registry: &Registry, run: &Run, stage: &StageRow) -> Result<String, Error> {
    let mut csv = String::new();
    for Metric { name, numbers } in metrics(registry, stage)? {
        for (step, at, value) in numbers {
            let step = step.map(|step| step.to_string()).unwrap_or_default();
            let cells = [
                &run.name,
                &stage.name,
                &name,
                &step,
                &time(at),
                &exact(value),
            ];
            csv_line(&mut csv, &cells);
        }
    }
    Ok(csv)
}

/// Writes the numbers of these stages as CSV into a file.
pub fn write_csv(
    registry: &Registry,
    run: &Run,
    stages: &[&StageRow],
    path: &Path,
) -> Result<(), Error> {
    write_whole(path, |file| {
        for piece in csv(registry, run, stages) {
            let written = io::Write::write_all(file, piece?.as_bytes());
            written.map_err(|error| Error::File(path.to_owned(), error))?;
        }
        Ok(())
    })
}

/// Writes the same as Parquet, a row group a stage.
pub fn write_parquet(
    registry: &Registry,
    run: &Run,
    stages: &[&StageRow],
    path: &Path,
) -> Result<(), Error> {
    let wrong = |error: io::Error| Error::File(path.to_owned(), error);
    write_whole(path, |file| {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by("tinylm".to_owned())
            .build();
        let writer = ArrowWriter::try_new(file, schema(), Some(properties));
        let mut writer = writer.map_err(|error| wrong(io::Error::other(error)))?;
        for stage in stages {
            let metrics = metrics(registry, stage)?;
            let written = batch(&run.name, &stage.name, &metrics)
                .map_err(io::Error::other)
                .and_then(|batch| writer.write(&batch).map_err(io::Error::other))
                .and_then(|()| writer.flush().map_err(io::Error::other));
            written.map_err(wrong)?;
        }
        let closed = writer.close().map_err(io::Error::other);
        closed.map(drop).map_err(wrong)
    })
}

/// Writes a file beside its place and moves it there, so that it is whole or not there.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> Result<(), Error>,
) -> Result<(), Error> {
    let wrong = |error: io::Error| Error::File(path.to_owned(), error);
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = Path::new(&name);
    let mut file = std::fs::File::create(unfinished).map_err(wrong)?;
    let written = write(&mut file);
    if written.is_err() {
        std::fs::remove_file(unfinished).ok();
        return written;
    }
    std::fs::rename(unfinished, path).map_err(wrong)
}

fn metrics(registry: &Registry, stage: &StageRow) -> Result<Vec<Metric>, Error> {
    let Some(execution_id) = stage.execution_id.as_deref() else {
        return Ok(Vec::new());
    };
    let finals = registry.final_numbers(execution_id)?;
    let mut metrics = Vec::new();
    for name in registry.metric_names(execution_id)? {
        let curve = registry.metric_series(execution_id, &name, usize::MAX)?;
        let points = curve.points.iter();
        let points = points.map(|point| (Some(point.step), point.at, point.value));
        let last = finals.iter().filter(|(other, ..)| *other == name);
        let last = last.map(|(_, value, at)| (None, *at, *value));
        let numbers = points.chain(last).collect();
        metrics.push(Metric { name, numbers });
    }
    Ok(metrics)
}

fn schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let [run, stage, metric, step, time, value] = COLUMNS;
    Arc::new(Schema::new(vec![
        Field::new(run, DataType::Utf8, false),
        Field::new(stage, DataType::Utf8, false),
        Field::new(metric, DataType::Utf8, false),
        Field::new(step, DataType::UInt64, true),
        Field::new(time, utc, false),
        Field::new(value, DataType::Float64, false),
    ]))
}

fn batch(
    run: &str,
    stage: &str,
    metrics: &[Metric],
) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let numbers = || metrics.iter().flat_map(|metric| &metric.numbers);
    let n = numbers().count();
    let names = metrics.iter();
    let names = names.flat_map(|metric| metric.numbers.iter().map(|_| metric.name.as_str()));
    let times = numbers().map(|(_, at, _)| *at);
    let columns: [ArrayRef; 6] = [
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(run, n))),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(stage, n))),
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(UInt64Array::from_iter(numbers().map(|(step, ..)| *step))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values(
            numbers().map(|(_, _, value)| *value),
        )),
    ];
    RecordBatch::try_new(schema(), columns.to_vec())
}

/// A moment to the millisecond, in UTC.
fn time(at: Millis) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
