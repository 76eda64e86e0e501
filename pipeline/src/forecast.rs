//! The size and the cost of what a stage would make, told before it is made.

/// Everything that can be said of a stage beforehand.
#[derive(Debug, Clone, PartialEq)]
pub enum Forecast {
    /// Nothing yet; the words say what it waits for.
    Later(&'static str),
    /// A model to be trained.
    Model {
        parts: Vec<Part>,
        flops_per_token: u64,
        memory: MemoryNeed,
    },
}

/// A tensor, or several that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub shape: Vec<usize>,
    pub n_times: usize,
}

/// The memory that a training would take of this machine now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Rows computed at a time.
    pub n_rows: usize,
    pub len: usize,
    pub bytes: u64,
    /// Where the system tells.
    pub available_bytes: Option<u64>,
}

impl Part {
    /// Returns the numbers in all of its tensors.
    pub fn n(&self) -> usize {
        self.shape.iter().product::<usize>() * self.n_times
    }
}
