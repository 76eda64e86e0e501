//! Where a remote is, as a person writes it, and as it may be shown: without its secrets.

use std::{fmt, path::PathBuf};

/// Why a remote cannot be opened: a mistake in what it is called, told before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenError {
    pub message: String,
    pub help: Option<&'static str>,
}

impl OpenError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn help(self, help: &'static str) -> Self {
        Self {
            help: Some(help),
            ..self
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenError {}

const FORMS: &str =
    "it is `s3://BUCKET/PREFIX`, `file:///FOLDER`, or `https://HOST/PATH` to read only";

/// A parsed address.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    S3 {
        bucket: String,
        prefix: String,
    },
    File(PathBuf),
    /// The address whole, and without its secrets.
    Http {
        url: String,
        shown: String,
    },
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let url = url.trim();
        let unknown = || {
            let shown = without_secrets(url);
            OpenError::new(format!("`{shown}` is no address of a remote store")).help(FORMS)
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
        match scheme {
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let is_sound = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                if bucket.is_empty() || !bucket.chars().all(is_sound) {
                    let message = "the name of the remote store's bucket is not one";
                    return Err(OpenError::new(message).help(FORMS));
                }
                Ok(Self::S3 {
                    bucket: bucket.to_owned(),
                    prefix: prefix.trim_matches('/').to_owned(),
                })
            }
            "file" => {
                let folder = PathBuf::from(rest);
                let is_whole = folder.is_absolute();
                is_whole.then_some(Self::File(folder)).ok_or_else(|| {
                    OpenError::new(format!("`{url}` names no folder from the root on")).help(FORMS)
                })
            }
            "http" | "https" if !rest.is_empty() => Ok(Self::Http {
                url: url.to_owned(),
                shown: without_secrets(url),
            }),
            _ => Err(unknown()),
        }
    }

    pub(crate) fn refuse_to_write(&self) -> Result<(), OpenError> {
        match self {
            Self::Http { .. } => {
                let message = format!("`{}` can only be read", self.shown());
                Err(OpenError::new(message).help("`s3://` and `file://` take what is made"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => format!("s3://{bucket}"),
            Self::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
            Self::File(folder) => format!("file://{}", folder.display()),
            Self::Http { shown, .. } => shown.clone(),
        }
    }

    /// What an error's text must not show.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let Self::Http { url, .. } = self else {
            return Vec::new();
        };
        let (user, query) = parts(url);
        let password = user.and_then(|user| user.split_once(':')).map(|one| one.1);
        let secrets = [user, password, query].into_iter().flatten();
        secrets.map(str::to_owned).collect()
    }
}

/// An address without what stands before an `@` or behind a `?`.
fn without_secrets(url: &str) -> String {
    let (user, query) = parts(url);
    let mut shown = url.to_owned();
    if let Some(query) = query {
        shown.truncate(shown.len() - query.len() - 1);
    }
    match user {
        Some(user) => shown.replacen(&format!("{user}@"), "", 1),
        None => shown,
    }
}

/// What stands before the `@` of the host, and behind the `?`.
fn parts(url: &str) -> (Option<&str>, Option<&str>) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, query) = match rest.split_once(['?', '#']) {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let host = place.split('/').next().unwrap_or_default();
    (host.rsplit_once('@').map(|(user, _)| user), query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let shown = |url| Address::parse(url).map(|address| address.shown()).unwrap();
        assert_eq!(shown("s3://bucket/a/b/"), "s3://bucket/a/b");
        assert_eq!(shown("s3://bucket"), "s3://bucket");
        assert_eq!(shown("file:///mnt/shared"), "file:///mnt/shared");
        let secret = "https://me:hunter2@host/x?token=abcdef";
        assert_eq!(shown(secret), "https://host/x");
        let secrets = Address::parse(secret).unwrap().secrets();
        assert_eq!(secrets, ["me:hunter2", "hunter2", "token=abcdef"]);
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_its_secrets() {
        for url in [
            "bucket/prefix",
            "ftp://me:hunter2@host/x",
            "s3://",
            "s3://a b/c",
            "file://x",
        ] {
            let error = Address::parse(url).err().unwrap();
            assert_eq!(error.help, Some(FORMS), "{url}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }
}
