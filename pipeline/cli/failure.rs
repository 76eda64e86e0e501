//! Errors as a person reads them: what is wrong, its cause, what was kept, what to do.
//!
//! Every library error becomes a [`Failure`] here and nowhere else, with the exit code
//! that belongs to it.

use tinylm_pipeline::{StageError, spec::Diagnostics};

/// A command that did not work out.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    text: Text,
}

#[derive(Debug)]
enum Text {
    Parts {
        message: String,
        notes: Vec<(&'static str, String)>,
    },
    Diagnostics(Diagnostics),
    /// Everything was said already.
    Said,
}

pub(crate) const STAGE_FAILED: u8 = 1;
pub(crate) const WRONG_INPUT: u8 = 2;
pub(crate) const DAMAGED: u8 = 3;

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        let text = Text::Parts {
            message: message.into(),
            notes: Vec::new(),
        };
        Self { code, text }
    }

    /// A wrong command line or file.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::new(WRONG_INPUT, message)
    }

    /// An exit code after everything has been said.
    pub(crate) fn said(code: u8) -> Self {
        Self {
            code,
            text: Text::Said,
        }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        self.note("help", help)
    }

    pub(crate) fn note(mut self, name: &'static str, note: impl Into<String>) -> Self {
        if let Text::Parts { notes, .. } = &mut self.text {
            notes.push((name, note.into()));
        }
        self
    }

    /// Returns the message as it is printed.
    pub(crate) fn render(&self, color: bool) -> String {
        match &self.text {
            Text::Said => String::new(),
            Text::Diagnostics(diagnostics) => diagnostics.render(color),
            Text::Parts { message, notes } => {
                let (red, bold, off) = match color {
                    true => ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"),
                    false => ("", "", ""),
                };
                let mut text = format!("{red}error{off}: {message}");
                for (name, note) in notes {
                    text.push_str(&format!("\n  {bold}{name}{off}: {note}"));
                }
                text
            }
        }
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self {
            code: WRONG_INPUT,
            text: Text::Diagnostics(diagnostics),
        }
    }
}

impl From<tinylm_registry::Error> for Failure {
    fn from(error: tinylm_registry::Error) -> Self {
        let code = match (error.is_damage(), error.is_mistake()) {
            (true, _) => DAMAGED,
            (_, true) => WRONG_INPUT,
            _ => STAGE_FAILED,
        };
        let mut failure = Self::new(code, error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            failure = failure.note("cause", source.to_string());
        }
        match error.hint() {
            Some(hint) => failure.help(hint),
            None => failure,
        }
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        let notes = [
            ("cause", error.cause),
            ("kept", error.kept),
            ("help", error.help),
        ];
        let failure = Self::new(STAGE_FAILED, error.message);
        notes
            .into_iter()
            .fold(failure, |failure, (name, note)| match note {
                Some(note) => failure.note(name, note),
                None => failure,
            })
    }
}
