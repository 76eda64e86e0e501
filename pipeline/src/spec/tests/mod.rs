//! The meaning of experiment files, and the messages about wrong ones.
//!
//! The catalog here is made up: the shapes of the real kinds in a few lines each.

mod catalog;
mod edits;
mod laws;
mod meaning;
mod messages;

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use catalog::CATALOG;
use serde_json::Value;

/// A folder of experiment files.
struct Desk(TempDir);

impl Desk {
    fn new(files: &[(&str, &str)]) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            desk.write(name, text.as_bytes());
        }
        desk
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn request(&self, file: &str) -> Request {
        Request {
            file: file.into(),
            overrides: Vec::new(),
            sweep: Vec::new(),
            current_dir: self.0.path().to_owned(),
        }
    }

    fn load(&self, file: &str, overrides: &[&str]) -> Result<Experiment, Diagnostics> {
        let mut request = self.request(file);
        request.overrides = overrides.iter().map(|&text| text.to_owned()).collect();
        let mut experiments = load(&request, CATALOG)?;
        assert_eq!(experiments.len(), 1);
        Ok(experiments.remove(0))
    }

    /// The folder's name as it stands in loaded experiments.
    fn root(&self) -> String {
        let root = fs::canonicalize(self.0.path()).unwrap();
        root.to_str().unwrap().to_owned()
    }

    fn hide_root(&self, text: &str) -> String {
        text.replace(&self.root(), "[ROOT]")
    }
}

/// Loads one file's text, which must be right.
#[track_caller]
fn loaded(text: &str) -> Experiment {
    let desk = Desk::new(&[("a.yaml", text)]);
    match desk.load("a.yaml", &[]) {
        Ok(experiment) => experiment,
        Err(wrong) => panic!("{wrong}"),
    }
}

/// Returns what is said about one file's text, which must be wrong.
#[track_caller]
fn refused(text: &str) -> String {
    let desk = Desk::new(&[("a.yaml", text)]);
    let wrong = desk.load("a.yaml", &[]).unwrap_err();
    assert!(!wrong.is_empty());
    desk.hide_root(&wrong.render(false))
}

/// An experiment as text, one line a fact, without what depends on the machine.
fn told(experiment: &Experiment) -> String {
    let dir = experiment.file.parent().unwrap();
    let mut text = format!("{} seed {}\n", experiment.name, experiment.seed);
    for stage in &experiment.stages {
        text += &format!("{}: {}", stage.name, stage.kind.name);
        for (role, stages) in &stage.inputs {
            text += &format!(" {role}={}", stages.join("+"));
        }
        text += &format!(" with {}", stage.with);
        if stage.watch != Value::Object(Default::default()) {
            text += &format!(" watch {}", stage.watch);
        }
        if stage.seed != experiment.seed {
            text += &format!(" seed {}", stage.seed);
        }
        text += "\n";
    }
    text.replace(&*dir.to_string_lossy(), "[DIR]")
}

fn base_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}
