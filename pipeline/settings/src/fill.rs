//! Defaults, filled in before settings are typed, so that a key sees every one of them.

use serde_json::{Map, Value};

use crate::{
    declare::Settings,
    shape::{Setting, Shape},
};

/// Returns `given` with every absent setting that has a default filled in, in the order of `list`.
///
/// Keys that are not in `list` are kept at the end, for typing to complain about.
pub fn with_defaults(list: &[Setting], given: &Value) -> Value {
    let empty = Map::new();
    let given = match given {
        Value::Object(map) => map,
        Value::Null => &empty,
        other => return other.clone(),
    };
    let mut filled = Map::new();
    for setting in list {
        let value = match (given.get(setting.name), &setting.default) {
            (Some(value), _) => filled_in(&setting.shape, value),
            (None, Some(default)) => default.clone(),
            (None, None) => continue,
        };
        filled.insert(setting.name.to_owned(), value);
    }
    for (name, value) in given {
        filled.entry(name).or_insert_with(|| value.clone());
    }
    Value::Object(filled)
}

fn filled_in(shape: &Shape, value: &Value) -> Value {
    match (shape, value) {
        (Shape::Map(list, _), Value::Object(_)) => with_defaults(list, value),
        (Shape::List(inner), Value::Array(items)) => {
            items.iter().map(|item| filled_in(inner, item)).collect()
        }
        (Shape::Table(inner), Value::Object(map)) => map
            .iter()
            .map(|(name, item)| (name.clone(), filled_in(inner, item)))
            .collect(),
        _ => value.clone(),
    }
}

/// Returns settings of which none was given, as the default of a group inside other settings.
///
/// # Panics
///
/// Where one of them has no default: such a group has none either.
pub fn defaults<S: Settings>() -> S {
    let filled = with_defaults(&S::list(), &Value::Null);
    serde_json::from_value(filled).expect("every setting of a group with a default has one")
}
