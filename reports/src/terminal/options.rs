//! How a report is to be drawn on a terminal.

use crate::curve::Axis;

#[derive(Clone, Debug)]
pub struct TerminalOptions {
    /// Columns of the terminal; no line is longer.
    pub width: usize,
    pub colour: bool,
    /// Whether details are printed, and what is folded away opened.
    pub is_full: bool,
    /// Whether all must fit on about one screen: the story, and of that the first lines.
    pub is_brief: bool,
    /// The horizontal axis of curves.
    pub axis: Axis,
    /// Whether the values of curves are drawn on a logarithmic scale.
    pub log: bool,
}

impl Default for TerminalOptions {
    fn default() -> Self {
        Self {
            width: 80,
            colour: false,
            is_full: false,
            is_brief: false,
            axis: Axis::Step,
            log: false,
        }
    }
}
