//! A refused setting: where it stands, why it cannot be, and what to write instead.

/// A setting with a value it cannot have; `path` is relative to `with`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct SettingError {
    pub path: String,
    pub message: String,
    pub help: Option<String>,
}

impl SettingError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            help: None,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
