//! Rows of a table as cells.
//!
//! Columns are turned into cells one at a time, which is how Arrow holds them, and then dealt out
//! into rows. Texts are borrowed from the table.

use std::borrow::Cow;

use arrow_array::{
    Array, ArrayAccessor, ArrayRef, OffsetSizeTrait, RecordBatch,
    cast::AsArray,
    types::{
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, Fields};

use crate::kinds::normalize::cell::Cell;

/// Returns every row as a map from column to value.
pub(super) fn rows(table: &RecordBatch) -> Vec<Cell<'_>> {
    maps(
        table.num_rows(),
        table.schema_ref().fields(),
        table.columns(),
    )
}

/// Deals the values of some columns out into rows.
fn maps<'a>(n_rows: usize, fields: &'a Fields, columns: &'a [ArrayRef]) -> Vec<Cell<'a>> {
    let mut rows: Vec<Vec<_>> = (0..n_rows)
        .map(|_| Vec::with_capacity(columns.len()))
        .collect();
    for (field, column) in fields.iter().zip(columns) {
        for (row, cell) in rows.iter_mut().zip(cells(column)) {
            row.push((Cow::Borrowed(field.name().as_str()), cell));
        }
    }
    rows.into_iter().map(Cell::Map).collect()
}

fn cells(array: &dyn Array) -> Vec<Cell<'_>> {
    use DataType as T;
    /// Numbers of any width, as the widest there is.
    macro_rules! numbers {
        ($type:ty, $number:expr) => {
            each(array.as_primitive::<$type>(), |value| {
                Cell::Number($number(value))
            })
        };
    }
    match array.data_type() {
        T::Utf8 => each(array.as_string::<i32>(), text),
        T::LargeUtf8 => each(array.as_string::<i64>(), text),
        T::Utf8View => each(array.as_string_view(), text),
        T::Binary => each(array.as_binary::<i32>(), bytes),
        T::LargeBinary => each(array.as_binary::<i64>(), bytes),
        T::BinaryView => each(array.as_binary_view(), bytes),
        T::FixedSizeBinary(_) => each(array.as_fixed_size_binary(), bytes),
        T::Boolean => each(array.as_boolean(), Cell::Bool),
        T::Int8 => numbers!(Int8Type, f64::from),
        T::Int16 => numbers!(Int16Type, f64::from),
        T::Int32 => numbers!(Int32Type, f64::from),
        T::Int64 => numbers!(Int64Type, |value| value as f64),
        T::UInt8 => numbers!(UInt8Type, f64::from),
        T::UInt16 => numbers!(UInt16Type, f64::from),
        T::UInt32 => numbers!(UInt32Type, f64::from),
        T::UInt64 => numbers!(UInt64Type, |value| value as f64),
        T::Float16 => numbers!(Float16Type, f64::from),
        T::Float32 => numbers!(Float32Type, f64::from),
        T::Float64 => numbers!(Float64Type, f64::from),
        T::List(_) => {
            let list = array.as_list::<i32>();
            lists(list, list.values(), list.value_offsets())
        }
        T::LargeList(_) => {
            let list = array.as_list::<i64>();
            lists(list, list.values(), list.value_offsets())
        }
        T::Map(..) => {
            let map = array.as_map();
            lists(map, map.entries(), map.value_offsets())
        }
        T::Struct(fields) => {
            let maps = maps(array.len(), fields, array.as_struct().columns());
            let maps = maps.into_iter().enumerate();
            maps.map(|(idx, map)| if array.is_null(idx) { Cell::Null } else { map })
                .collect()
        }
        T::Null => vec![Cell::Null; array.len()],
        // Days, times, decimals: nothing that a person says.
        _ => vec![Cell::Other("a value of another type"); array.len()],
    }
}

/// Returns the values that are there, each made a cell, and null for the others.
fn each<'a, A: ArrayAccessor>(array: A, cell: impl Fn(A::Item) -> Cell<'a>) -> Vec<Cell<'a>> {
    let value = |idx| match array.is_null(idx) {
        true => Cell::Null,
        false => cell(array.value(idx)),
    };
    (0..array.len()).map(value).collect()
}

/// Returns lists, whose items stand one list behind the other between the offsets.
fn lists<'a, O: OffsetSizeTrait>(
    array: &dyn Array,
    items: &'a dyn Array,
    offsets: &[O],
) -> Vec<Cell<'a>> {
    let first = offsets.first().map_or(0, |offset| offset.as_usize());
    let mut items = cells(items).into_iter().skip(first);
    let list = |(idx, bounds): (usize, &[O])| {
        let n_items = bounds[1].as_usize() - bounds[0].as_usize();
        let list: Vec<Cell> = items.by_ref().take(n_items).collect();
        match array.is_null(idx) {
            true => Cell::Null,
            false => Cell::List(list),
        }
    };
    offsets.windows(2).enumerate().map(list).collect()
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(Cow::Borrowed(text))
}

/// Some writers have no type for text.
fn bytes(bytes: &[u8]) -> Cell<'_> {
    match std::str::from_utf8(bytes) {
        Ok(bytes) => text(bytes),
        Err(_) => Cell::Other("bytes that are not UTF-8"),
    }
}
