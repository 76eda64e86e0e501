//! One setting and the shape of its value, as data: for checks, corrections and `tinylm stages`.

use std::{collections::BTreeMap, path::PathBuf};

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
    /// One value, described by a word such as `number`.
    Value(&'static str),
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
