//! The two ways out: results to standard output, everything else to standard error.

use std::io::{self, Write};

use crate::global::Global;

/// Prints a line of the result. A closed pipe (`| head`) ends the program quietly.
pub(crate) fn print_line(line: &str) {
    if writeln!(io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a line that says what a command has done, unless that is not asked for.
pub(crate) fn say(global: &Global, line: &str) {
    if !global.quiet {
        print_line(line);
    }
}

/// Prints a line that is no result. Nobody may be listening any more; that is no reason to stop.
pub(crate) fn eprint(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}
