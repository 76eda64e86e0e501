//! What is true of a cluster and not of an experiment: its partitions, its setup, its patience.
//!
//! It stands in a file of its own, so that an experiment runs anywhere as it is. Whatever `sbatch`
//! takes from its environment (`SBATCH_PARTITION` and its like) holds too, as people have it set up.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    error::{At, StageError},
    resources::{Resources, Time},
};

/// The `slurm` part of a site file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// Given to `sbatch` as they are: `--partition=gpu`, `--account=...`.
    pub options: Vec<String>,
    /// Lines of the job's script before tinylm: `module load ...`.
    pub setup: String,
    /// Words before tinylm on the node: `apptainer exec --nv image.sif`.
    pub container: String,
    /// This program as the nodes find it, where that is elsewhere.
    pub program: Option<PathBuf>,
    /// For stages that do not say.
    pub resources: Resources,
    /// For a driver in a job of its own.
    pub driver: Resources,
    /// Whether light stages that ask for nothing share an allocation, which waits this long for more.
    pub linger: Time,
    /// Jobs in the queue or at work at the same time.
    pub jobs: usize,
    /// How often the scheduler is asked about all jobs at once.
    pub ask_every: Time,
    /// How long before its time is up a job is told to save and go on in another allocation.
    pub stop_before: Time,
    /// How long a job must be gone before it counts as dead: what it wrote last may take as long to
    /// be seen from another machine.
    pub settle: Time,
}

impl Default for Site {
    fn default() -> Self {
        let seconds = |n| Time(Duration::from_secs(n));
        Self {
            options: Vec::new(),
            setup: String::new(),
            container: String::new(),
            program: None,
            resources: Resources::default(),
            driver: Resources {
                cpus: Some(1),
                ..Resources::default()
            },
            linger: seconds(60),
            jobs: 64,
            ask_every: seconds(15),
            stop_before: seconds(120),
            settle: seconds(30),
        }
    }
}

/// How jobs are asked for.
pub(crate) struct Asked {
    pub(crate) site: Site,
    pub(crate) program: PathBuf,
}

/// A site file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SiteFile {
    slurm: Site,
}

impl Site {
    /// Reads a site file.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let text = fs::read_to_string(path).at(path)?;
        let file: Result<SiteFile, _> = serde_yaml::from_str(&text);
        let file = file.map_err(|error| {
            StageError::new(format!("the site file `{}` cannot be understood", path.display()))
                .cause(error)
                .help("under `slurm` there is options, setup, container, program, resources, driver, linger, jobs, ask_every, stop_before, settle")
                .is_final()
        })?;
        Ok(file.slurm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_file_says_what_it_says_and_a_mistake_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.yaml");
        let text = "slurm:\n  options: [--partition=gpu]\n  ask_every: 30s\n  resources: { memory: 2G..8G, cpus: 4 }\n";
        fs::write(&path, text).unwrap();
        let site = Site::read(&path).unwrap();
        assert_eq!(site.options, ["--partition=gpu"]);
        assert_eq!(site.ask_every.0.as_secs(), 30);
        assert_eq!(site.resources.memory.unwrap().to_string(), "2G..8G");
        assert_eq!(site.settle, Site::default().settle);

        fs::write(&path, "slurm:\n  option: [--partition=gpu]\n").unwrap();
        let error = Site::read(&path).unwrap_err();
        let cause = error.cause.unwrap();
        assert!(
            cause.contains("option") && cause.contains("line 2"),
            "{cause}"
        );
    }
}
