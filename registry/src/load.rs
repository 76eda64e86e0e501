//! The curves of what an execution takes of its machine.
//!
//! They are recorded beside its own numbers and are none of its results. Their steps are seconds, and
//! they belong to one attempt alone: whoever goes on with its work has others.

/// Cores that were busy.
pub const CPU: &str = "system/cpu";
/// Bytes that were held.
pub const MEMORY: &str = "system/memory";

/// Returns whether a metric tells of the machine and not of the work.
pub fn is_load(metric: &str) -> bool {
    metric.starts_with("system/")
}

/// The same of a row of `series`, the other way round.
pub(crate) const IS_NO_LOAD: &str = "series.name NOT GLOB 'system/*'";
