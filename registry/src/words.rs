//! How runs, executions and stages stand, and how much an event matters.
//!
//! Each is a lower-case word, the same in SQL, in JSON and on the terminal.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a run or an execution stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Running,
    Done,
    Failed,
    Cancelled,
    /// Never written for a run: it is one that says `running` and whose lock is free.
    Interrupted,
}

/// How a stage of a run stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    #[default]
    Pending,
    Running,
    Hit,
    Made,
    Failed,
    Skipped,
    Cancelled,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Info,
    Warning,
    Error,
}

macro_rules! words {
    ($type:ident { $($case:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$case => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok($type::$case),)+
                    _ => Err(UnknownWord(text.to_owned())),
                }
            }
        }
    };
}

words!(Status {
    Running => "running",
    Done => "done",
    Failed => "failed",
    Cancelled => "cancelled",
    Interrupted => "interrupted",
});

words!(Outcome {
    Pending => "pending",
    Running => "running",
    Hit => "hit",
    Made => "made",
    Failed => "failed",
    Skipped => "skipped",
    Cancelled => "cancelled",
});

words!(Level {
    Info => "info",
    Warning => "warning",
    Error => "error",
});

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is none of the words the registry uses here")]
pub struct UnknownWord(String);
