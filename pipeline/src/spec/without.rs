//! `without`: an experiment but for some of its stages.
//!
//! It promises that one key takes a source out of a file whose other stages stay right, and that none of
//! them becomes another experiment by it. `simple: null` alone would leave every list that names the stage
//! wrong, and so would have each reader copy those lists.
//!
//! One law decides what else goes: a stage that has lost all that filled one of its roles. So a list of
//! documents is shorter by one, and a trainer without its shards is no stage any more; nor is a `dedupe`
//! without the evaluation set that it was to look for, though it could run: whoever wants that says it
//! in the file. The law is applied to stages whose names are all resolved, so it knows no borders
//! between files.

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    experiment::{Experiment, LeftOut, StageSpec},
    tree::{Data, Node},
};

/// The `without` of one file.
#[derive(Debug, Clone)]
pub(crate) struct Without {
    /// Stands before the names of the file's stages.
    pub(crate) prefix: String,
    pub(crate) node: Node,
}

impl Experiment {
    /// Whether something that reads these stages stays when they are left out.
    pub fn can_do_without(&self, names: &[&str]) -> bool {
        let named = names.iter().map(|&name| name.to_owned()).collect();
        let left_out = closure(&self.stages, named);
        let is_gone = |name: &str| left_out.names().any(|gone| gone == name);
        self.stages
            .iter()
            .any(|stage| !is_gone(&stage.name) && stage.reads().any(is_gone))
    }
}

/// Takes stages out, and what has lost a role by that; `known` are the names that may be meant.
pub(crate) fn leave_out(
    stages: &mut Vec<StageSpec>,
    wanted: &[Without],
    known: &[String],
    wrong: &mut Diagnostics,
) -> LeftOut {
    let mut named: Vec<String> = Vec::new();
    for without in wanted {
        for name in names(without, known, wrong) {
            // A stage of a file under `use` that nobody reads is not there in the first place.
            let is_there = stages.iter().any(|stage| stage.name == name);
            if is_there && !named.contains(&name) {
                named.push(name);
            }
        }
    }
    let left_out = closure(stages, named);
    let is_gone = |name: &str| left_out.names().any(|gone| gone == name);
    let n_before = stages.len();
    stages.retain(|stage| !is_gone(&stage.name));
    if let (Some(without), true) = (wanted.first(), stages.is_empty() && n_before > 0) {
        wrong.push(
            Diagnostic::new("`without` leaves no stage")
                .at(&without.node.place, "all others read what is left out"),
        );
    }
    for stage in &mut *stages {
        for (_, read) in &mut stage.inputs {
            read.retain(|name| !is_gone(name));
        }
    }
    drop_unread(stages, &left_out);
    left_out
}

/// Stages of a file under `use` are there because they are read.
fn drop_unread(stages: &mut Vec<StageSpec>, left_out: &LeftOut) {
    while !left_out.named.is_empty() {
        let read: Vec<String> = stages
            .iter()
            .flat_map(|stage| stage.reads().map(str::to_owned))
            .collect();
        let n_before = stages.len();
        stages.retain(|stage| !stage.name.contains('.') || read.contains(&stage.name));
        if stages.len() == n_before {
            return;
        }
    }
}

/// Returns `named` and what goes with them.
fn closure(stages: &[StageSpec], named: Vec<String>) -> LeftOut {
    let mut left_out = LeftOut {
        named,
        with_them: Vec::new(),
    };
    if left_out.named.is_empty() {
        return left_out;
    }
    // Each stage comes after what it reads.
    for stage in stages {
        let is_gone = |name: &str| left_out.names().any(|gone| gone == name);
        if is_gone(&stage.name) {
            continue;
        }
        let mut filled = stage.inputs.iter().filter(|(_, names)| !names.is_empty());
        let lost = filled.find(|(_, names)| names.iter().all(|name| is_gone(name)));
        if let Some((role, _)) = lost {
            let gone = (stage.name.clone(), role.clone());
            left_out.with_them.push(gone);
        }
    }
    left_out
}

/// Reads the names; one that is no stage is said to be so.
fn names(without: &Without, known: &[String], wrong: &mut Diagnostics) -> Vec<String> {
    let Without { prefix, node } = without;
    let no_list = |node: &Node| {
        Diagnostic::new("`without` must be a list of stages")
            .at(&node.place, format!("this is {}", node.sort()))
    };
    let items = match &node.data {
        Data::Null | Data::Broken => &[],
        Data::List(items) => items.as_slice(),
        Data::Text(_) => std::slice::from_ref(node),
        _ => {
            wrong.push(no_list(node));
            &[]
        }
    };
    let mut names = Vec::new();
    for item in items.iter().filter(|item| !item.is_broken()) {
        let Some(name) = item.as_text() else {
            wrong.push(no_list(item));
            continue;
        };
        let whole = format!("{prefix}{name}");
        if known.contains(&whole) {
            names.push(whole);
            continue;
        }
        let of_file = known
            .iter()
            .filter_map(|name| name.strip_prefix(prefix.as_str()));
        wrong.push(
            Diagnostic::new(format!("`without` names `{name}`, which is no stage"))
                .at(&item.place, "no stage has this name")
                .hint(name, of_file),
        );
    }
    names
}
