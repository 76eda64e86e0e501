//! Rows of a table as cells.
//!
//! Columns are turned into cells one at a time, which is how polars holds them, and
//! then dealt out into rows.

use std::{borrow::Cow, io::Cursor};

use polars::prelude::{
    AnyValue, CsvParseOptions, CsvReadOptions, DataFrame, DataType, Field, PolarsError, Schema,
    SerReader, Series,
};

use crate::cell::Cell;

/// Returns every row as a map from column to value.
pub(super) fn rows(table: &DataFrame) -> Result<Vec<Cell<'static>>, PolarsError> {
    let mut rows: Vec<Vec<(Cow<'static, str>, Cell<'static>)>> =
        vec![Vec::with_capacity(table.width()); table.height()];
    for column in table.columns() {
        let name: Cow<'static, str> = Cow::Owned(column.name().to_string());
        let column = column.as_materialized_series();
        let plain = plain(column.dtype());
        let cells = if plain == *column.dtype() {
            cells(column)?
        } else {
            cells(&column.cast(&plain)?)?
        };
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push((name.clone(), cell));
        }
    }
    Ok(rows.into_iter().map(Cell::Map).collect())
}

/// Returns a type with text in place of categories, which lists hold as bare numbers.
fn plain(of: &DataType) -> DataType {
    match of {
        DataType::Categorical(..) | DataType::Enum(..) => DataType::String,
        DataType::List(items) => DataType::List(Box::new(plain(items))),
        DataType::Struct(fields) => {
            let fields = fields.iter();
            let plain = fields.map(|field| Field::new(field.name().clone(), plain(field.dtype())));
            DataType::Struct(plain.collect())
        }
        other => other.clone(),
    }
}

fn cells(series: &Series) -> Result<Vec<Cell<'static>>, PolarsError> {
    match series.dtype() {
        DataType::String => {
            let texts = series.str()?.iter();
            Ok(texts.map(|text| text.map_or(Cell::Null, owned)).collect())
        }
        DataType::List(_) => lists(series),
        DataType::Struct(_) => maps(series),
        _ => series.iter().map(|value| Ok(scalar(&value))).collect(),
    }
}

fn owned(text: &str) -> Cell<'static> {
    Cell::Text(Cow::Owned(text.to_owned()))
}

/// Some writers have no type for text.
fn binary(bytes: &[u8]) -> Cell<'static> {
    match std::str::from_utf8(bytes) {
        Ok(text) => owned(text),
        Err(_) => Cell::Other("bytes that are not UTF-8"),
    }
}

fn lists(series: &Series) -> Result<Vec<Cell<'static>>, PolarsError> {
    let lists = series.list()?;
    let mut cells_of = Vec::with_capacity(lists.len());
    for idx in 0..lists.len() {
        cells_of.push(match lists.get_as_series(idx) {
            Some(items) => Cell::List(cells(&items)?),
            None => Cell::Null,
        });
    }
    Ok(cells_of)
}

fn maps(series: &Series) -> Result<Vec<Cell<'static>>, PolarsError> {
    let fields = series.struct_()?.fields_as_series();
    let mut maps = vec![Vec::with_capacity(fields.len()); series.len()];
    for field in &fields {
        let name: Cow<'static, str> = Cow::Owned(field.name().to_string());
        for (map, cell) in maps.iter_mut().zip(cells(field)?) {
            map.push((name.clone(), cell));
        }
    }
    let nulls = series.is_null();
    let maps = maps.into_iter().zip(nulls.iter());
    Ok(maps
        .map(|(map, null)| {
            if null == Some(true) {
                Cell::Null
            } else {
                Cell::Map(map)
            }
        })
        .collect())
}

fn scalar(value: &AnyValue) -> Cell<'static> {
    match value {
        AnyValue::Null => Cell::Null,
        AnyValue::Boolean(value) => Cell::Bool(*value),
        AnyValue::Binary(bytes) => binary(bytes),
        AnyValue::BinaryOwned(bytes) => binary(bytes),
        AnyValue::String(text) => owned(text),
        AnyValue::StringOwned(text) => owned(text),
        other => match other.extract::<f64>() {
            Some(number) => Cell::Number(number),
            None => Cell::Other("a value of another type"),
        },
    }
}

/// Returns records of comma-separated values as a table whose columns are all text.
pub(super) fn parse_csv(
    bytes: &[u8],
    columns: &[String],
    separator: u8,
) -> Result<DataFrame, PolarsError> {
    let schema: Schema = columns
        .iter()
        .map(|name| (name.as_str().into(), DataType::String))
        .collect();
    let parse = CsvParseOptions::default()
        .with_separator(separator)
        .with_missing_is_null(true);
    CsvReadOptions::default()
        .with_has_header(false)
        .with_schema(Some(schema.into()))
        .with_parse_options(parse)
        .with_n_threads(Some(1))
        .into_reader_with_file_handle(Cursor::new(bytes))
        .finish()
}
