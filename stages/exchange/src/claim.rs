//! How faithful an export is, in the words that people read.

use std::fmt;

/// What can be said of a model in a foreign form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Our own numbers under other names; what the other form has besides is zero.
    Exact,
    /// Other numbers with which the other form computes the same, because of these settings.
    Lowered(Vec<String>),
    /// Nearly the same, because of these settings.
    Approximate(Vec<String>),
    /// Our own numbers, and a file of code that reads them, because of these settings.
    OwnCode(Vec<String>),
}

impl Claim {
    /// Returns the word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Claim::Exact => "exact",
            Claim::Lowered(_) => "exact after lowering",
            Claim::Approximate(_) => "approximate",
            Claim::OwnCode(_) => "exact, with its own code",
        }
    }

    /// Returns the settings that are responsible.
    pub fn because_of(&self) -> &[String] {
        match self {
            Claim::Exact => &[],
            Claim::Lowered(settings) | Claim::Approximate(settings) | Claim::OwnCode(settings) => {
                settings
            }
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        let settings: Vec<String> = self.because_of().iter().map(|s| format!("`{s}`")).collect();
        match settings.is_empty() {
            true => Ok(()),
            false => write!(f, " because of {}", settings.join(", ")),
        }
    }
}
