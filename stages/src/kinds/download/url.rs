//! An address on the web.
//!
//! With a digest in the settings nothing has to be asked before the download; without
//! one the first look takes it, and the lock keeps it. That look reads the whole body and
//! keeps none of it: the key, and with it the folder that is the download's own, is only
//! known when the digest is, and `tinylm update` looks without downloading at all.

use std::path::Path;

use serde_json::{Value, json};
use tinylm_pipeline::{
    Pin, Remote, StageError,
    secrets::{MASK, masked},
};

use super::{arrivals::Arrivals, sample::Sampler, settings::DownloadSettings};
use crate::shared::{
    expected::{Algorithm, Expected},
    net::{Failure, Net, Request},
};

pub(super) fn remote(url: &str) -> Remote {
    Remote {
        id: format!("url {}", masked(url)),
        places: vec!["url".to_owned()],
    }
}

/// An address with its variables filled in; it is shown as it was written, without its secrets.
fn request(url: &str) -> Result<Request, StageError> {
    let refused = |what: String| StageError::new(what).is_final();
    if url.contains(MASK) {
        let shown = masked(url);
        let what = format!("the secret of `{shown}` was not written down");
        let help = "give the first command again, or run the file that has it (what is made is a hit); \
                    written as `{env.NAME}` it would be read from the variable NAME";
        return Err(refused(what).help(help));
    }
    let mut filled = String::new();
    let mut rest = url;
    while let Some((before, after)) = rest.split_once("{env.") {
        let (name, behind) = after
            .split_once('}')
            .ok_or_else(|| refused("a `{env.` in `url` has no `}`".to_owned()))?;
        let value = std::env::var(name).map_err(|_| {
            refused(format!("`url` names the variable {name}, which is not set")).help(format!(
                "set it in the environment: `{name}=... tinylm run ...`"
            ))
        })?;
        filled.push_str(before);
        filled.push_str(&value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(Request {
        url: filled,
        shown: masked(url),
        ..Request::default()
    })
}

fn given(settings: &DownloadSettings) -> Option<(Algorithm, &str, &String)> {
    let blake3 = settings
        .blake3
        .as_ref()
        .map(|digest| (Algorithm::Blake3, "blake3", digest));
    let sha256 = || {
        settings
            .sha256
            .as_ref()
            .map(|digest| (Algorithm::Sha256, "sha256", digest))
    };
    blake3.or_else(sha256)
}

pub(super) fn resolve(
    url: &str,
    settings: &DownloadSettings,
    net: &Net,
) -> Result<Pin, StageError> {
    if let Some((_, name, digest)) = given(settings) {
        return Ok(Pin {
            identity: json!({ name: digest.to_ascii_lowercase() }),
            detail: Value::Null,
        });
    }
    let request = request(url)?;
    net.check_online(&request.shown)?;
    let (digest, n_bytes) = net
        .digest(&request)
        .map_err(|failure| failed(&request.shown, failure))?;
    Ok(Pin {
        identity: json!({ "blake3": digest }),
        detail: json!({ "bytes": n_bytes }),
    })
}

pub(super) fn failed(what: &str, failure: Failure) -> StageError {
    match failure {
        Failure::Stage(error) => error,
        Failure::Answer { status: 404, .. } => {
            StageError::new(format!("there is nothing at `{what}`")).is_final()
        }
        Failure::Answer { status, .. } => {
            StageError::new(format!("`{what}` is refused: the server answers {status}")).is_final()
        }
        Failure::Passing { why, .. } => StageError::new(format!("`{what}` does not come"))
            .cause(why)
            .help("run the same command again when the network is better"),
    }
}

pub(super) fn fetch(
    url: &str,
    settings: &DownloadSettings,
    net: &Net,
    arrivals: &Arrivals,
    sampler: &mut Sampler,
) -> Result<(), StageError> {
    let io = arrivals.io;
    let expected = expected(url, settings, arrivals);
    let request = request(url)?;
    let shown = request.shown.as_str();
    io.origin(json!({ "url": shown }));
    net.check_online(shown)?;
    let name = file_name(url);
    let partial = arrivals.partial(&format!("{shown} {:?}", expected.digests));
    let total = expected.bytes;
    let cut = sampler.cut(&name);
    net.fetch(&request, &expected, &partial, cut, io, &|done| {
        io.progress(done, total, "bytes")
    })
    .map_err(|failure| failed(shown, failure))?;
    arrivals.put(&partial, &name, sampler)
}

fn expected(url: &str, settings: &DownloadSettings, arrivals: &Arrivals) -> Expected {
    let mut digests = Vec::new();
    let all = [
        (Algorithm::Blake3, &settings.blake3),
        (Algorithm::Sha256, &settings.sha256),
    ];
    for (algorithm, digest) in all {
        digests.extend(digest.clone().map(|digest| (algorithm, digest)));
    }
    let pin = arrivals.io.pin(&remote(url).id);
    let pinned = pin.and_then(|pin| pin.identity.get("blake3")?.as_str());
    if let (true, Some(digest)) = (digests.is_empty(), pinned) {
        digests.push((Algorithm::Blake3, digest.to_owned()));
    }
    Expected {
        bytes: pin.and_then(|pin| pin.detail.get("bytes")?.as_u64()),
        digests,
    }
}

/// Returns the last part of the path; what stands behind `?` or `#` is no part of it.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, path)| path);
    let name = path.split_once('/').map_or("", |(_, path)| path);
    let name = Path::new(name).file_name().and_then(|name| name.to_str());
    name.filter(|name| !name.is_empty())
        .unwrap_or("data.txt")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_in_its_address() {
        assert_eq!(
            file_name("https://x.org/a/b.jsonl.gz?raw=1#top"),
            "b.jsonl.gz"
        );
        assert_eq!(file_name("https://x.org"), "data.txt");
        assert_eq!(file_name("https://x.org/"), "data.txt");
    }
}
