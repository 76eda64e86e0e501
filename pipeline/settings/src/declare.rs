//! The two declarations, [`settings!`](crate::settings) and [`choices!`](crate::choices), and the
//! traits they implement.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::shape::Setting;

/// A struct made by [`settings!`](crate::settings).
pub trait Settings: Serialize + DeserializeOwned {
    /// Groups of settings of which setting one unsets the others.
    const EXCLUSIVE: &'static [&'static [&'static str]];
    fn list() -> Vec<Setting>;
}

/// An enum made by [`choices!`](crate::choices).
pub trait Choice: Copy + 'static {
    /// Every choice, in the order it is offered.
    const ALL: &'static [Self];
    /// The word of an experiment file.
    fn word(self) -> &'static str;

    /// What it stands for, as it is declared.
    fn about(self) -> String;

    fn of_word(word: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|choice| choice.word() == word)
    }
}

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

/// Joins the lines of a doc comment into one paragraph.
pub fn doc_text(lines: &[&str]) -> String {
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    trimmed.join(" ").trim().to_owned()
}

/// Returns a typed value as plain data. Settings are maps, lists and scalars with
/// text keys, which always have such a form.
pub fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("settings are plain data")
}

/// Declares a settings struct; see the crate's example.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $(#[exclusive($($exclusive:literal),+ $(,)?)])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[range($($bound:tt)+)])?
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

        impl $crate::Settings for $name {
            const EXCLUSIVE: &'static [&'static [&'static str]] = &[$(&[$($exclusive),+]),*];

            fn list() -> Vec<$crate::Setting> {
                vec![$($crate::Setting {
                    name: stringify!($field),
                    about: $crate::doc_text(&[$($doc),+]),
                    shape: <$ty as $crate::Shaped>::shape()
                        .within($crate::setting_range!($($($bound)+)?)),
                    default: $crate::setting_value!($ty $(, $default)?),
                    neutral: $crate::setting_value!($ty $(, $neutral)?),
                }),*]
            }
        }

        impl $crate::Shaped for $name {
            fn shape() -> $crate::Shape {
                $crate::Shape::Map(
                    <$name as $crate::Settings>::list(),
                    <$name as $crate::Settings>::EXCLUSIVE,
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
        Some($crate::plain(&value))
    }};
}

/// `#[range(1, 100)]`, `#[range(1)]` or `#[range(above 0.0, 1.0)]` behind a setting's documentation.
#[doc(hidden)]
#[macro_export]
macro_rules! setting_range {
    () => {
        None
    };
    (above $min:literal) => {
        $crate::setting_range!(@ $min, true, f64::INFINITY)
    };
    (above $min:literal, $max:expr) => {
        $crate::setting_range!(@ $min, true, f64::from($max))
    };
    ($min:literal) => {
        $crate::setting_range!(@ $min, false, f64::INFINITY)
    };
    ($min:literal, $max:expr) => {
        $crate::setting_range!(@ $min, false, f64::from($max))
    };
    (@ $min:literal, $is_above:literal, $max:expr) => {
        Some($crate::Range {
            min: f64::from($min),
            is_above: $is_above,
            max: $max,
        })
    };
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

        impl $crate::Choice for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            fn about(self) -> String {
                match self {
                    $(Self::$variant => $crate::doc_text(&[$($doc),*])),+
                }
            }
        }

        impl $crate::Shaped for $name {
            fn shape() -> $crate::Shape {
                $crate::Shape::Choice(vec![$($word),+], vec![$($crate::doc_text(&[$($doc),*])),+])
            }
        }
    };
}
