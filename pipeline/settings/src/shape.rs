//! One setting and the shape of its value, as data: for checks, corrections and `tinylm stages`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// The values that may stand behind a key.
#[derive(Debug, Clone)]
pub enum Shape {
    /// One value, described by a word such as `text`.
    Value(&'static str),
    Number(Numbers),
    /// A value that its type reads by rules of its own: in words, and as a JSON schema of what may be right.
    Own(&'static str, &'static str),
    /// One of these words, each with what it stands for, if that is declared.
    Choice(Vec<&'static str>, Vec<String>),
    /// A file, folder or glob on this machine: its *contents* are in the key, not its place.
    Path,
    /// Further settings, and groups of them that exclude each other.
    Map(Vec<Setting>, &'static [&'static [&'static str]]),
    List(Box<Shape>),
    /// A map with names of the author's choosing.
    Table(Box<Shape>),
}

/// The numbers that a setting may have: those of its type, or of the narrower range that it is declared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    pub is_whole: bool,
    pub range: Range,
}

/// Numbers between two bounds; without one, the bound is infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub min: f64,
    /// Whether the lower bound is itself too low.
    pub is_above: bool,
    pub max: f64,
}

impl Range {
    pub const ALL: Range = Range {
        min: f64::NEG_INFINITY,
        is_above: false,
        max: f64::INFINITY,
    };

    pub fn holds(self, number: f64) -> bool {
        number <= self.max && (number > self.min || (number == self.min && !self.is_above))
    }
}

/// "from 1 to 100", "above 0 and at most 1".
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { min, is_above, max } = self;
        match (min.is_finite(), is_above, max.is_finite()) {
            (true, false, true) => write!(f, "from {min} to {max}"),
            (true, true, true) => write!(f, "above {min} and at most {max}"),
            (true, false, false) => write!(f, "at least {min}"),
            (true, true, false) => write!(f, "above {min}"),
            (false, _, _) => write!(f, "at most {max}"),
        }
    }
}

impl Numbers {
    pub fn word(self) -> &'static str {
        match self.is_whole {
            true => "whole number",
            false => "number",
        }
    }
}

impl Shape {
    /// The same with a narrower range, where it is one of numbers.
    #[must_use]
    pub fn within(self, range: Option<Range>) -> Shape {
        match (self, range) {
            (Shape::Number(numbers), Some(range)) => Shape::Number(Numbers { range, ..numbers }),
            (shape, _) => shape,
        }
    }
}

/// A type that a setting can have.
pub trait Shaped {
    fn shape() -> Shape;
}

/// A file, folder or glob as written; made absolute when the experiment file is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalPath(pub PathBuf);

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
    "text": String;
    "value": Value;
}

macro_rules! numbers {
    ($($ty:ty: $is_whole:literal, $min:expr, $max:expr;)+) => {
        $(impl Shaped for $ty {
            fn shape() -> Shape {
                let range = Range { min: $min, is_above: false, max: $max };
                Shape::Number(Numbers { is_whole: $is_whole, range })
            }
        })+
    };
}

// The ends of 64 bits are no numbers that a float can be, and nobody writes them.
numbers! {
    u8: true, 0.0, f64::from(u8::MAX);
    u16: true, 0.0, f64::from(u16::MAX);
    u32: true, 0.0, f64::from(u32::MAX);
    u64: true, 0.0, f64::INFINITY;
    usize: true, 0.0, f64::INFINITY;
    i32: true, f64::from(i32::MIN), f64::from(i32::MAX);
    i64: true, f64::NEG_INFINITY, f64::INFINITY;
    f32: false, f64::NEG_INFINITY, f64::INFINITY;
    f64: false, f64::NEG_INFINITY, f64::INFINITY;
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
