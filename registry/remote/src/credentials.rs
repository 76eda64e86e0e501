//! Credentials and the like, found where the tools of AWS find them.
//!
//! In this order: variables, a web identity, the profile's files, a container's or the machine's own
//! role. Variables hold before what the project says, which holds before the profile. None of it is
//! written down, and an error's text has its secrets masked.

use std::{collections::BTreeMap, fs, path::PathBuf};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::{address::OpenError, settings::Settings};

/// A section of the files: its names and values.
type Section = BTreeMap<String, String>;

/// What is asked of a server of S3, and the secrets that go with it.
pub(crate) fn builder(
    settings: &Settings,
    bucket: &str,
) -> Result<(AmazonS3Builder, Vec<String>), OpenError> {
    let variable = |name: &str| {
        let value = settings.variables.get(name);
        value.filter(|value| !value.is_empty()).cloned()
    };
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (name, value) in &settings.variables {
        let key = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>();
        if let (Ok(key), false) = (key, value.is_empty()) {
            builder = builder.with_config(key, value);
        }
    }
    let profile = Profile::read(settings, &variable)?;
    let has_own = variable("AWS_ACCESS_KEY_ID").is_some()
        || variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some()
        || variable("AWS_SKIP_SIGNATURE").is_some();
    let mut secrets: Vec<String> = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
        .into_iter()
        .filter_map(variable)
        .collect();
    if !has_own && let Some((id, secret, token)) = profile.keys()? {
        builder = builder
            .with_access_key_id(id)
            .with_secret_access_key(&secret);
        secrets.push(secret);
        if let Some(token) = token {
            builder = builder.with_token(&token);
            secrets.push(token);
        }
    }
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let region = region.or_else(|| settings.region.clone());
    if let Some(region) = region.or_else(|| profile.get("region")) {
        builder = builder.with_region(region);
    }
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let endpoint = endpoint.or_else(|| settings.endpoint.clone());
    if let Some(endpoint) = endpoint.or_else(|| profile.get("endpoint_url")) {
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint);
    }
    Ok((builder, secrets))
}

/// What the files say of one profile; where both say something, that of credentials holds.
struct Profile {
    name: String,
    values: Section,
}

impl Profile {
    fn read(
        settings: &Settings,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, OpenError> {
        let named = variable("AWS_PROFILE").or_else(|| settings.profile.clone());
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        let file = |name: &str, usual: &str| {
            let named = variable(name).map(PathBuf::from);
            named.or_else(|| Some(settings.user_home.as_ref()?.join(usual)))
        };
        let mut values = Section::new();
        let files = [
            (
                file("AWS_CONFIG_FILE", ".aws/config"),
                format!("profile {name}"),
            ),
            (
                file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
                name.clone(),
            ),
        ];
        for (path, section) in files {
            let text = path.and_then(|path| fs::read_to_string(path).ok());
            let sections = text.map(|text| sections(&text)).unwrap_or_default();
            for wanted in [&name, &section] {
                values.extend(sections.get(wanted).cloned().unwrap_or_default());
            }
        }
        if named.is_some() && values.is_empty() {
            let message = format!("there is no profile `{name}` of AWS here");
            let help = "`aws configure list-profiles` lists those there are";
            return Err(OpenError::new(message).help(help));
        }
        Ok(Self { name, values })
    }

    fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// The key's id, the secret, and perhaps a token.
    fn keys(&self) -> Result<Option<(String, String, Option<String>)>, OpenError> {
        let id = self.get("aws_access_key_id");
        if let Some((id, secret)) = id.zip(self.get("aws_secret_access_key")) {
            return Ok(Some((id, secret, self.get("aws_session_token"))));
        }
        let elsewhere = [
            "sso_session",
            "sso_start_url",
            "credential_process",
            "role_arn",
        ];
        match elsewhere
            .iter()
            .find(|name| self.values.contains_key(**name))
        {
            Some(way) => {
                let name = &self.name;
                let message = format!(
                    "profile `{name}` gets its credentials by `{way}`, which tinylm does not do"
                );
                let help = "`eval \"$(aws configure export-credentials --format env)\"` sets them as variables";
                Err(OpenError::new(message).help(help))
            }
            None => Ok(None),
        }
    }
}

/// The sections of such a file; what cannot be understood is passed over, as the tools of AWS do.
fn sections(text: &str) -> BTreeMap<String, Section> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        // A value may be a section of its own, whose lines are set in.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = name.trim().to_owned();
        } else if let Some((name, value)) = line.split_once('=') {
            let section = sections.entry(current.clone()).or_default();
            section.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# of the lab
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = default-secret

[lab]
aws_access_key_id=AKLAB
aws_secret_access_key=lab-secret
aws_session_token = lab-token
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
[profile lab]
region = eu-central-1
endpoint_url = http://minio.lab:9000
s3 =
  addressing_style = path
[profile people]
sso_session = people
";

    fn settings(variables: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        let variables = variables.iter();
        let settings = Settings {
            variables: variables
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
            user_home: Some(home.path().to_owned()),
            ..Settings::default()
        };
        (home, settings)
    }

    fn found(settings: &Settings) -> (String, String, Option<String>, Option<String>) {
        let (builder, _) = builder(settings, "bucket").unwrap();
        let value = |key| builder.get_config_value(&key);
        (
            value(AmazonS3ConfigKey::AccessKeyId).unwrap(),
            value(AmazonS3ConfigKey::SecretAccessKey).unwrap(),
            value(AmazonS3ConfigKey::Region),
            value(AmazonS3ConfigKey::Endpoint),
        )
    }

    #[test]
    fn variables_hold_before_the_project_and_that_before_the_profile() {
        let of = |one: (&str, &str, Option<&str>, Option<&str>)| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            (one.0.to_owned(), one.1.to_owned(), own(one.2), own(one.3))
        };
        let (_home, mut project) = settings(&[]);
        let expected = of(("AKDEFAULT", "default-secret", Some("eu-west-1"), None));
        assert_eq!(found(&project), expected);
        project.region = Some("us-east-2".to_owned());
        project.profile = Some("lab".to_owned());
        let endpoint = Some("http://minio.lab:9000");
        let expected = of(("AKLAB", "lab-secret", Some("us-east-2"), endpoint));
        assert_eq!(found(&project), expected);
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKENV"),
            ("AWS_SECRET_ACCESS_KEY", "env-secret"),
            ("AWS_REGION", "ap-south-1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ];
        let (_home, env) = settings(&variables);
        let endpoint = Some("http://127.0.0.1:1");
        let expected = of(("AKENV", "env-secret", Some("ap-south-1"), endpoint));
        assert_eq!(found(&env), expected);
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_refused_with_what_to_do() {
        let (_home, absent) = settings(&[("AWS_PROFILE", "none")]);
        let error = builder(&absent, "bucket").err().unwrap();
        assert_eq!(error.message, "there is no profile `none` of AWS here");
        let (_home, people) = settings(&[("AWS_PROFILE", "people")]);
        let error = builder(&people, "bucket").err().unwrap();
        assert!(error.message.contains("by `sso_session`"), "{error}");
        assert!(error.help.unwrap().contains("export-credentials"));
    }

    #[test]
    fn secrets_are_known_so_that_they_can_be_masked() {
        let (_home, lab) = settings(&[("AWS_PROFILE", "lab")]);
        let (_, secrets) = builder(&lab, "bucket").unwrap();
        assert_eq!(secrets, ["lab-secret", "lab-token"]);
    }
}
