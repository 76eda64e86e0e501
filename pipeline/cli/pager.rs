//! Long results a page at a time, as git shows them.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use crate::{
    output::{Shown, print_line},
    project::{self, Project},
};

/// Prints a result, through a pager where there is one and the terminal is too low for it.
pub(crate) fn print(project: &Project, text: impl Into<Shown>) {
    let text = text.into().trimmed();
    let is_long = text.to_string().lines().count() >= project::stdout_height();
    let pager = project.pager().filter(|_| is_long);
    if pager.is_none_or(|pager| show(&pager, &text).is_err()) {
        print_line(text);
    }
}

/// Hands a text to a pager and waits until it was read.
fn show(pager: &str, text: &Shown) -> io::Result<()> {
    // Ctrl-C is for the pager, which without us would be left with the terminal.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default())?;
    let mut pager = Command::new("sh")
        .args(["-c", pager])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = pager.stdin.take() {
        // Whoever leaves before the end has read enough.
        writeln!(input, "{text}").ok();
    }
    pager.wait().map(drop)
}
