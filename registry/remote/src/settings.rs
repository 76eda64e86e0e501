//! What is to be opened, and the file of a project that says so.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::address::OpenError;

/// Whether a remote is only asked, or given too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Read,
    /// Asked and given.
    Write,
}

impl Mode {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    pub fn parse(word: &str) -> Result<Self, OpenError> {
        match word {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => {
                let shown = word.escape_debug();
                let error = OpenError::new(format!("`{shown}` is no mode of a remote store"));
                Err(error.help("there is `read`, and `write`, which reads too"))
            }
        }
    }
}

/// What is to be opened, and how.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `s3://BUCKET/PREFIX`, `file:///FOLDER`, or `http(s)://HOST/PATH` to read only.
    pub url: String,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub region: Option<String>,
    #[serde(default)]
    pub profile: Option<String>,
    /// The `AWS_` variables of the environment.
    #[serde(skip)]
    pub variables: BTreeMap<String, String>,
    /// Where the tools of AWS look for their files.
    #[serde(skip)]
    pub user_home: Option<PathBuf>,
    /// The longest that nothing may come.
    #[serde(skip)]
    pub patience: Option<Duration>,
}

impl Settings {
    /// Reads the file in which a project names its remote.
    pub fn parse(text: &str) -> Result<Self, OpenError> {
        serde_yaml::from_str(text).map_err(|error| {
            let help = "it may say `url`, `mode: read` or `write`, `endpoint`, `region`, `profile`";
            OpenError::new(error.to_string()).help(help)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_names_its_remote_and_a_slip_is_told() {
        let settings = Settings::parse("url: s3://lab/tiny\nmode: write\nprofile: lab\n").unwrap();
        assert_eq!(settings.url, "s3://lab/tiny");
        assert_eq!(settings.mode, Mode::Write);
        assert_eq!(settings.profile.as_deref(), Some("lab"));
        for slip in [
            "url: s3://a\nmod: write",
            "mode: write",
            "url: s3://a\nmode: both",
        ] {
            assert!(Settings::parse(slip).is_err(), "{slip}");
        }
    }
}
