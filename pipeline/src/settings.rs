//! Settings: what an author may write under `with:`, declared once.
//!
//! [`settings!`] and [`choices!`] make from one declaration the struct that a stage
//! reads, the defaults that are filled in, the list that unknown keys are checked
//! against, and the text of `tinylm stages`. Defaults are values in that list rather
//! than serde attributes, because they take part in a stage's key: an experiment that
//! spells a default out and one that leaves it out must be the same recipe.
//!
//! ```
//! tinylm_pipeline::settings! {
//!     /// Drops documents that repeat an earlier one.
//!     #[exclusive("words", "characters")]
//!     pub struct DedupeSettings {
//!         /// Shorter documents are kept even when repeated.
//!         pub words: Option<usize> = None,
//!         /// The same bound in characters.
//!         pub characters: Option<usize> = None,
//!         /// Added in a later version: left out of the key while it is 0.
//!         pub margin: usize = 0 => neutral 0,
//!         /// A setting without a default must be given.
//!         pub language: String,
//!     }
//! }
//! ```

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// One key an author may write.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: &'static str,
    pub about: String,
    pub shape: Shape,
    /// `None` means that it must be given.
    pub default: Option<Value>,
    /// While it has this value the setting is left out of the key.
    pub neutral: Option<Value>,
}

/// What may stand behind a key.
#[derive(Debug, Clone)]
pub enum Shape {
    /// One value, described by a word such as `number`.
    Value(&'static str),
    /// One of these words.
    Choice(Vec<&'static str>),
    /// A file, folder or glob on this machine: its *contents* are in the key, not its place.
    Path,
    /// Further settings, and groups of them that exclude each other.
    Map(Vec<Setting>, &'static [&'static [&'static str]]),
    List(Box<Shape>),
    /// A map with names of the author's choosing.
    Table(Box<Shape>),
}

/// A type that a setting can have.
pub trait Shaped {
    fn shape() -> Shape;
}

/// A struct made by [`settings!`].
pub trait Settings: Serialize + DeserializeOwned {
    /// Groups of settings of which setting one unsets the others.
    const EXCLUSIVE: &'static [&'static [&'static str]];
    fn list() -> Vec<Setting>;
}

/// A setting with a value it cannot have; `path` is relative to `with`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct SettingError {
    pub path: String,
    pub message: String,
    pub help: Option<String>,
}

impl SettingError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            help: None,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A file, folder or glob as written; made absolute when the experiment file is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalPath(pub PathBuf);

/// For kinds with nothing to watch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Settings for NoSettings {
    const EXCLUSIVE: &'static [&'static [&'static str]] = &[];
    fn list() -> Vec<Setting> {
        Vec::new()
    }
}

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

macro_rules! shaped {
    ($($word:literal: $($ty:ty),+;)+) => {
        $($(impl Shaped for $ty {
            fn shape() -> Shape {
                Shape::Value($word)
            }
        })+)+
    };
}

shaped! {
    "true or false": bool;
    "whole number": u8, u16, u32, u64, usize, i32, i64;
    "number": f32, f64;
    "text": String;
    "value": Value;
}

impl Shaped for LocalPath {
    fn shape() -> Shape {
        Shape::Path
    }
}

impl<T: Shaped> Shaped for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: Shaped> Shaped for Vec<T> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

impl<T: Shaped> Shaped for BTreeMap<String, T> {
    fn shape() -> Shape {
        Shape::Table(Box::new(T::shape()))
    }
}

/// Joins the lines of a doc comment into one paragraph.
pub fn doc_text(lines: &[&str]) -> String {
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    trimmed.join(" ").trim().to_owned()
}

/// Declares a settings struct; see the module's example.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $(#[exclusive($($exclusive:literal),+ $(,)?)])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                pub $field:ident: $ty:ty $(= $default:expr)? $(=> neutral $neutral:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        $vis struct $name {
            $($(#[doc = $doc])+ pub $field: $ty,)*
        }

        impl $crate::settings::Settings for $name {
            const EXCLUSIVE: &'static [&'static [&'static str]] = &[$(&[$($exclusive),+]),*];

            fn list() -> Vec<$crate::settings::Setting> {
                vec![$($crate::settings::Setting {
                    name: stringify!($field),
                    about: $crate::settings::doc_text(&[$($doc),+]),
                    shape: <$ty as $crate::settings::Shaped>::shape(),
                    default: $crate::setting_value!($ty $(, $default)?),
                    neutral: $crate::setting_value!($ty $(, $neutral)?),
                }),*]
            }
        }

        impl $crate::settings::Shaped for $name {
            fn shape() -> $crate::settings::Shape {
                $crate::settings::Shape::Map(
                    <$name as $crate::settings::Settings>::list(),
                    <$name as $crate::settings::Settings>::EXCLUSIVE,
                )
            }
        }
    };
}

/// A default of the declared type as a plain value.
#[doc(hidden)]
#[macro_export]
macro_rules! setting_value {
    ($ty:ty) => {
        None
    };
    ($ty:ty, $value:expr) => {{
        let value: $ty = $value;
        Some($crate::settings::plain(&value))
    }};
}

/// Returns a typed value as plain data. Settings are maps, lists and scalars with
/// text keys, which always have such a form.
pub fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("settings are plain data")
}

/// Declares an enum whose variants are words in the experiment file.
#[macro_export]
macro_rules! choices {
    (
        $(#[doc = $about:literal])*
        $vis:vis enum $name:ident {
            $($(#[doc = $doc:literal])* $variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        $vis enum $name {
            $($(#[doc = $doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $crate::settings::Shaped for $name {
            fn shape() -> $crate::settings::Shape {
                $crate::settings::Shape::Choice(vec![$($word),+])
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    choices! {
        /// How documents are compared.
        enum Method {
            Exact = "exact",
            MinHash = "minhash",
        }
    }

    settings! {
        /// The inner settings.
        struct Inner {
            /// A bound.
            pub bound: f64 = 0.5,
        }
    }

    settings! {
        /// The outer settings.
        #[exclusive("a", "b")]
        struct Outer {
            /// How
            /// it works.
            pub method: Method = Method::Exact,
            /// One.
            pub a: Option<usize> = None,
            /// Other.
            pub b: Option<usize> = None => neutral None,
            /// Nested.
            pub inner: Inner = Inner { bound: 0.5 },
            /// Must be given.
            pub name: String,
        }
    }

    #[test]
    fn spelling_out_a_default_changes_nothing() {
        let short = with_defaults(&Outer::list(), &json!({"name": "x", "inner": {}}));
        let long = with_defaults(
            &Outer::list(),
            &json!({"inner": {"bound": 0.5}, "method": "exact", "name": "x", "a": null, "b": null}),
        );
        assert_eq!(short, long);
        let typed: Outer = serde_json::from_value(short.clone()).unwrap();
        assert_eq!(plain(&typed), short);
    }

    #[test]
    fn what_has_no_default_is_left_for_typing_to_miss() {
        let filled = with_defaults(&Outer::list(), &json!({}));
        assert!(serde_json::from_value::<Outer>(filled).is_err());
    }

    #[test]
    fn the_declaration_is_the_documentation() {
        let list = Outer::list();
        assert_eq!(list[0].about, "How it works.");
        assert!(matches!(&list[0].shape, Shape::Choice(words) if words == &["exact", "minhash"]));
        assert_eq!(list[2].neutral, Some(Value::Null));
        assert_eq!(Outer::EXCLUSIVE, &[&["a", "b"]]);
    }
}
