//! The files of a repository on the hub, brought into the artifact one after the other.

use tinylm_pipeline::StageError;

use super::{arrivals::Arrivals, sample::Sampler};
use crate::shared::{
    hub::{Pinned, Repo},
    net::Net,
};

/// Brings the wanted files of a repository into the artifact.
pub(super) fn fetch(
    repo: &Repo,
    net: &Net,
    arrivals: &Arrivals,
    sampler: &mut Sampler,
) -> Result<(), StageError> {
    bring(&Pinned::new(repo, net, arrivals.io)?, arrivals, sampler)
}

/// Brings the files of a pin, one after the other.
pub(super) fn bring(
    pinned: &Pinned,
    arrivals: &Arrivals,
    sampler: &mut Sampler,
) -> Result<(), StageError> {
    pinned.origin();
    let mut before = 0;
    for file in &pinned.files {
        if sampler.is_full() {
            break;
        }
        let identity = format!("{}@{}/{}", pinned.name(), pinned.commit, file.name);
        let partial = arrivals.partial(&identity);
        pinned.bring(file, &partial, sampler.cut(&file.name), before)?;
        arrivals.put(&partial, &file.name, sampler)?;
        before += file.expected.bytes.unwrap_or(0);
    }
    Ok(())
}
