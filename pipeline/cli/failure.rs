//! Errors as a person reads them: what is wrong, its cause, what was kept, what to do.
//!
//! Every library error becomes a [`Failure`] here and nowhere else, with the exit code
//! that belongs to it.

use std::{path::PathBuf, sync::Arc};

use tinylm_pipeline::{
    StageError,
    spec::{Diagnostic, Diagnostics, Place, Source},
};
use tinylm_registry::FilterError;
use tinylm_reports::block::Tone;

use crate::output::Shown;

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
    /// Mistakes of the same sort, told together.
    Many(Vec<Failure>),
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

    /// Succeeds without any; otherwise all are told at once, with the first one's exit code.
    pub(crate) fn all(failures: Vec<Failure>) -> Result<(), Failure> {
        let Some(first) = failures.first() else {
            return Ok(());
        };
        let code = first.code;
        let text = Text::Many(failures);
        Err(Self { code, text })
    }

    /// A stage's error before anything ran is a mistake in the file.
    pub(crate) fn before_running(mut self) -> Self {
        if self.code == STAGE_FAILED {
            self.code = WRONG_INPUT;
        }
        self
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

    /// Returns what is wrong, without what to do about it.
    pub(crate) fn message(&self) -> Option<&str> {
        match &self.text {
            Text::Parts { message, .. } => Some(message),
            Text::Many(failures) => failures.first()?.message(),
            Text::Diagnostics(_) | Text::Said => None,
        }
    }

    /// Returns the message as it is printed.
    pub(crate) fn render(&self, color: bool) -> Shown {
        match &self.text {
            Text::Said => Shown::default(),
            Text::Diagnostics(diagnostics) => Shown::diagnostics(diagnostics, color),
            Text::Many(failures) => {
                let mut text = Shown::default();
                for (idx, failure) in failures.iter().enumerate() {
                    let gap = if idx > 0 { "\n\n" } else { "" };
                    text = text.then(gap).then(failure.render(color));
                }
                text
            }
            Text::Parts { message, notes } => {
                let error = Shown::painted("error", Tone::Bad, color);
                let mut text = error.then(": ").then(message);
                for (name, note) in notes {
                    let name = Shown::painted(name, Tone::Strong, color);
                    text = text.then("\n  ").then(name).then(": ").then(note);
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

/// A mistake in a condition, pointed at in what was typed.
impl From<FilterError> for Failure {
    fn from(mistake: FilterError) -> Self {
        let told = Diagnostic::new(mistake.to_string());
        let source = Arc::new(Source {
            title: "--where".to_owned(),
            text: mistake.text,
            dir: PathBuf::new(),
        });
        let range = mistake.span;
        let told = told.at(&Place { source, range }, "");
        Self::from(Diagnostics::from(match mistake.hint {
            Some(hint) => told.help(hint),
            None => told,
        }))
    }
}

impl From<tinylm_registry::Error> for Failure {
    fn from(error: tinylm_registry::Error) -> Self {
        let error = match error {
            tinylm_registry::Error::Filter(mistake) => return mistake.into(),
            error => error,
        };
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
        let code = if error.is_damage {
            DAMAGED
        } else {
            STAGE_FAILED
        };
        let failure = Self::new(code, error.message);
        notes
            .into_iter()
            .fold(failure, |failure, (name, note)| match note {
                Some(note) => failure.note(name, note),
                None => failure,
            })
    }
}
