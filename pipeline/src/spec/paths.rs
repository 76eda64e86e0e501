//! The files of this machine that an experiment names, and whether they are there.

use std::path::PathBuf;

use super::{
    check::absolute,
    diagnostic::{Diagnostic, Diagnostics},
    experiment::Experiment,
    tree::{Data, Node, Place},
};
use crate::{
    local::named_files,
    settings::{Setting, Shape},
};

impl Experiment {
    /// Refuses the experiment where a file that a stage names is not there, at the name. Nothing is
    /// told of one that was not read from its file.
    pub fn check_paths(&self) -> Result<(), Diagnostics> {
        let mut wrong = Diagnostics::default();
        for stage in &self.stages {
            for (path, place) in &stage.paths {
                let Err(error) = named_files(path) else {
                    continue;
                };
                let reads = || format!("stage `{}` reads it", stage.name);
                let label = error.cause.unwrap_or_else(reads);
                let told = Diagnostic::new(error.message).at(place, label);
                wrong.push(match error.help {
                    Some(help) => told.help(help),
                    None => told,
                });
            }
        }
        wrong.or(())
    }
}

/// Returns the paths under `with` or `watch`, made absolute, with the places of their names.
pub(crate) fn paths(node: Option<&Node>, list: &[Setting]) -> Vec<(PathBuf, Place)> {
    let mut found = Vec::new();
    if let Some(node) = node {
        in_map(node, list, &mut found);
    }
    found
}

fn in_map(node: &Node, list: &[Setting], found: &mut Vec<(PathBuf, Place)>) {
    for entry in node.as_map().into_iter().flat_map(|map| &map.0) {
        if let Some(setting) = list.iter().find(|setting| setting.name == entry.name) {
            in_value(&entry.node, &setting.shape, found);
        }
    }
}

fn in_value(node: &Node, shape: &Shape, found: &mut Vec<(PathBuf, Place)>) {
    match (shape, &node.data) {
        (Shape::Path, Data::Text(text)) => {
            let path = absolute(&node.home.dir, text).map(PathBuf::from);
            found.extend(path.map(|path| (path, node.place.clone())));
        }
        (Shape::Map(list, _), Data::Map(_)) => in_map(node, list, found),
        (Shape::List(inner), Data::List(items)) => {
            items.iter().for_each(|item| in_value(item, inner, found));
        }
        (Shape::Table(inner), Data::Map(map)) => {
            map.0
                .iter()
                .for_each(|entry| in_value(&entry.node, inner, found));
        }
        _ => {}
    }
}
