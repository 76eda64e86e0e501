//! The numbers that a stage ends with.

use serde::{Deserialize, Serialize};

/// Numbers worth remembering that a stage ends with, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics(pub Vec<(String, f64)>);

impl Metrics {
    #[must_use]
    pub fn count(self, name: &str, n: u64) -> Self {
        self.number(name, n as f64)
    }

    #[must_use]
    pub fn number(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }
}
