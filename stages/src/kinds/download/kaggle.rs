//! Kaggle, with the user's own key.
//!
//! A dataset is pinned by its version number; Kaggle publishes no digests, so the size
//! of what arrives is what can be checked, and the zip's own checksums.

use serde_json::{Value, json};
use tinylm_pipeline::{Pin, Remote, StageError};

use super::{arrivals::Arrivals, sample::Sampler};
use crate::shared::{
    expected::Expected,
    net::{Failure, Net, Request},
};

const ENDPOINT: &str = "https://www.kaggle.com";

pub(super) fn remote(name: &str) -> Remote {
    Remote {
        id: format!("kaggle {name}"),
        places: vec!["kaggle".to_owned()],
    }
}

fn request(net: &Net, path: &str) -> Result<Request, StageError> {
    let (Some(user), Some(key)) = (&net.outside.kaggle_user, &net.outside.kaggle_key) else {
        let message = "Kaggle wants to know who asks";
        return Err(StageError::new(message)
            .help(
                "make a key at https://www.kaggle.com/settings and set KAGGLE_USERNAME and KAGGLE_KEY, \
                 or save its `kaggle.json` in `~/.kaggle`",
            )
            .is_final());
    };
    let endpoint = net.outside.kaggle_endpoint.as_deref().unwrap_or(ENDPOINT);
    Ok(Request {
        basic: Some((user.clone(), key.clone())),
        ..Request::new(format!("{}/api/v1/{path}", endpoint.trim_end_matches('/')))
    })
}

fn failed(name: &str, failure: Failure) -> StageError {
    match failure {
        Failure::Answer { status: 401, .. } => {
            StageError::new("Kaggle does not know this user and key")
                .help("look at KAGGLE_USERNAME and KAGGLE_KEY, or at `~/.kaggle/kaggle.json`")
                .is_final()
        }
        Failure::Answer { status: 403, .. } => {
            StageError::new(format!("Kaggle refuses `{name}` to you"))
                .help(format!(
                    "accept its terms at https://www.kaggle.com/datasets/{name}"
                ))
                .is_final()
        }
        Failure::Answer { status: 404, .. } => {
            StageError::new(format!("Kaggle has no dataset `{name}`"))
                .help("write `owner/name` as in the address of its page, https://www.kaggle.com/datasets/owner/name; a private one needs its owner's key")
                .is_final()
        }
        other => super::url::failed(name, other),
    }
}

pub(super) fn resolve(name: &str, net: &Net) -> Result<Pin, StageError> {
    net.check_online(name)?;
    let request = request(net, &format!("datasets/view/{name}"))?;
    let view = net
        .json(&request)
        .map_err(|failure| failed(name, failure))?;
    let version = view.get("currentVersionNumber").and_then(Value::as_u64);
    let version =
        version.ok_or_else(|| StageError::new(format!("Kaggle names no version of `{name}`")))?;
    Ok(Pin {
        identity: json!({ "kaggle": name, "version": version }),
        detail: Value::Null,
    })
}

pub(super) fn fetch(
    name: &str,
    net: &Net,
    arrivals: &Arrivals,
    sampler: &mut Sampler,
) -> Result<(), StageError> {
    let io = arrivals.io;
    net.check_online(name)?;
    let pin = io.pin(&remote(name).id);
    let version = pin.and_then(|pin| pin.identity.get("version")?.as_u64());
    let version =
        version.ok_or_else(|| StageError::new(format!("`kaggle {name}` is not pinned")))?;
    io.origin(json!({ "kaggle": name, "version": version }));
    let path = format!("datasets/download/{name}?datasetVersionNumber={version}");
    let partial = arrivals.partial(&format!("kaggle {name} {version}"));
    net.fetch(
        &request(net, &path)?,
        &Expected::default(),
        &partial,
        None,
        io,
        &|done| io.progress(done, None, "bytes"),
    )
    .map_err(|failure| failed(name, failure))?;
    arrivals.put(&partial, "dataset.zip", sampler)
}
