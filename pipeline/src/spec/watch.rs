//! `watch` at the top of a file: what is written while the run goes on, for other programs to look at.
//!
//! None of it is a stage's, so none of it is in a key: a run is watched or not, and makes the same.

use std::path::{Path, PathBuf};

use super::{
    check::resolved,
    diagnostic::{Diagnostic, Diagnostics},
    keys::{WATCH_KEYS, names},
    tree::{Data, Map, Node},
};

/// Returns the folder under `tensorboard`, if there is one.
pub(crate) fn tensorboard(tree: &Map, wrong: &mut Diagnostics) -> Option<PathBuf> {
    let node = tree.get("watch")?;
    let map = match &node.data {
        Data::Null | Data::Broken => return None,
        Data::Map(map) => map,
        _ => {
            let told = Diagnostic::new("`watch` must be a map").at(&node.place, this_is(node));
            wrong.push(told.help("write `watch: { tensorboard: FOLDER }`"));
            return None;
        }
    };
    for entry in &map.0 {
        if !names(&WATCH_KEYS).any(|key| key == entry.name) {
            let told = format!("`watch` of an experiment has no key `{}`", entry.name);
            let told = Diagnostic::new(told).at(&entry.place, "unknown");
            wrong.push(told.hint(&entry.name, names(&WATCH_KEYS)));
        }
    }
    let folder = map.get("tensorboard")?;
    match &folder.data {
        Data::Null | Data::Broken => None,
        Data::Text(text) if !text.is_empty() => Some(resolved(&folder.home.dir, Path::new(text))),
        _ => {
            let told = Diagnostic::new("`watch.tensorboard` must be a folder's path");
            wrong.push(told.at(&folder.place, this_is(folder)));
            None
        }
    }
}

fn this_is(node: &Node) -> String {
    format!("this is {}", node.sort())
}
