//! `without`: an experiment but for some of its stages.
//!
//! It promises that one key takes a source out of a file whose other stages stay right. One source
//! wants a key that its reader does not have, another is gone from the hub; `simple: null` alone would
//! leave every list that names the stage wrong, and so would have each reader copy those lists.
//!
//! One law decides what else goes: a stage that has lost all that it read, or all that filled a role
//! which must be filled. A list of documents is shorter by one, and a trainer without its shards is no
//! stage any more.

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    experiment::{Experiment, LeftOut, StageSpec},
    tree::{Data, Entry, Map, Node},
};
use crate::{kind::Kind, role::Roles};

impl Experiment {
    /// Whether something of the experiment that reads this stage stays when it is left out.
    pub fn can_do_without(&self, stage: &str) -> bool {
        let readers: Vec<Reader> = self.stages.iter().map(Reader::of_spec).collect();
        let gone = closure(&readers, &[stage.to_owned()]);
        let is_gone = |name: &String| gone.contains(name);
        readers
            .iter()
            .any(|reader| !is_gone(&reader.name) && reader.names().any(is_gone))
    }
}

/// A stage as far as the law asks.
struct Reader {
    name: String,
    /// Whether it must be filled, and what fills it.
    roles: Vec<(bool, Vec<String>)>,
}

impl Reader {
    fn of_spec(stage: &StageSpec) -> Self {
        let roles = stage.inputs.iter();
        Self {
            name: stage.name.clone(),
            roles: roles
                .map(|(role, names)| (is_needed(Some(stage.kind), Some(role)), names.clone()))
                .collect(),
        }
    }

    fn of_entry(entry: &Entry, catalog: &[Kind]) -> Self {
        let stage = entry.node.as_map();
        let kind = stage.and_then(|stage| stage.get("kind")?.as_text());
        let kind = catalog
            .iter()
            .find(|known| Some(known.name) == kind)
            .copied();
        let roles = match stage.and_then(|stage| stage.get("inputs")) {
            Some(Node {
                data: Data::List(items),
                ..
            }) => match kind.map(|kind| kind.roles) {
                // Each has a role of its own, named by its place.
                Some(Roles::Any) => items.iter().map(|item| (true, texts(item))).collect(),
                _ => vec![(
                    is_needed(kind, None),
                    items.iter().flat_map(texts).collect(),
                )],
            },
            Some(Node {
                data: Data::Map(roles),
                ..
            }) => {
                let roles = roles.0.iter();
                roles
                    .map(|role| (is_needed(kind, Some(&role.name)), texts(&role.node)))
                    .collect()
            }
            _ => Vec::new(),
        };
        Self {
            name: entry.name.clone(),
            roles,
        }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.roles.iter().flat_map(|(_, names)| names)
    }

    /// Whether it has lost all that it read, or all that filled a role which must be filled.
    fn is_lost(&self, gone: &[String]) -> bool {
        let is_gone = |name: &String| gone.contains(name);
        let mut filled = self.roles.iter().filter(|(_, names)| !names.is_empty());
        let has_lost_all = self.names().next().is_some() && self.names().all(is_gone);
        has_lost_all || filled.any(|(is_needed, names)| *is_needed && names.iter().all(is_gone))
    }
}

/// Whether a role must be filled; without a name, the one that a list fills.
fn is_needed(kind: Option<Kind>, role: Option<&str>) -> bool {
    let Some(Roles::Fixed(roles)) = kind.map(|kind| kind.roles) else {
        return true;
    };
    let found = match role {
        Some(name) => roles.iter().find(|role| role.name == name),
        None => roles.first(),
    };
    found.is_none_or(|role| role.required)
}

/// Returns `named` and then what goes with them, in the order of the file.
fn closure(readers: &[Reader], named: &[String]) -> Vec<String> {
    let mut gone = named.to_vec();
    loop {
        let is_next = |reader: &&Reader| !gone.contains(&reader.name) && reader.is_lost(&gone);
        let next: Vec<String> = readers
            .iter()
            .filter(is_next)
            .map(|reader| reader.name.clone())
            .collect();
        if next.is_empty() {
            return gone;
        }
        gone.extend(next);
    }
}

/// Takes the stages that `without` names out of a file, and what then has nothing left to read.
pub(crate) fn leave_out(tree: &mut Map, catalog: &[Kind], wrong: &mut Diagnostics) -> LeftOut {
    let Some(without) = tree.remove("without") else {
        return LeftOut::default();
    };
    let Some(stages) = tree.get_mut("stages").and_then(Node::as_map_mut) else {
        return LeftOut::default();
    };
    let named = named(&without.node, stages, wrong);
    if named.is_empty() {
        return LeftOut::default();
    }
    let readers: Vec<Reader> = stages
        .0
        .iter()
        .map(|entry| Reader::of_entry(entry, catalog))
        .collect();
    let gone = closure(&readers, &named);
    if gone.len() == stages.0.len() {
        wrong.push(
            Diagnostic::new("`without` leaves no stage")
                .at(&without.node.place, "all others read what is left out"),
        );
        return LeftOut::default();
    }
    stages.0.retain(|entry| !gone.contains(&entry.name));
    for entry in &mut stages.0 {
        if let Some(inputs) = entry
            .node
            .as_map_mut()
            .and_then(|map| map.get_mut("inputs"))
        {
            forget(inputs, &gone);
        }
    }
    let with_them = gone[named.len()..].to_vec();
    LeftOut { named, with_them }
}

/// Reads the names, each once; one that is no stage is said to be so.
fn named(node: &Node, stages: &Map, wrong: &mut Diagnostics) -> Vec<String> {
    let items = match &node.data {
        Data::Null | Data::Broken => return Vec::new(),
        Data::List(items) => items.as_slice(),
        Data::Text(_) => std::slice::from_ref(node),
        _ => {
            wrong.push(
                Diagnostic::new("`without` must be a list of stages")
                    .at(&node.place, format!("this is {}", node.sort())),
            );
            return Vec::new();
        }
    };
    let mut named: Vec<String> = Vec::new();
    for item in items.iter().filter(|item| !item.is_broken()) {
        match item.as_text() {
            Some(name) if named.iter().any(|known| known == name) => {}
            Some(name) if stages.get(name).is_some() => named.push(name.to_owned()),
            Some(name) => wrong.push(
                Diagnostic::new(format!("`without` names `{name}`, which is no stage"))
                    .at(&item.place, "no stage has this name")
                    .hint(name, stages.names()),
            ),
            None => wrong.push(
                Diagnostic::new("`without` must be a list of stages")
                    .at(&item.place, format!("this is {}", item.sort())),
            ),
        }
    }
    named
}

/// Takes the names of stages that are gone out of `inputs`.
fn forget(inputs: &mut Node, gone: &[String]) {
    let is_gone = |node: &Node| {
        node.as_text()
            .is_some_and(|name| gone.iter().any(|one| one == name))
    };
    match &mut inputs.data {
        Data::List(items) => items.retain(|item| !is_gone(item)),
        Data::Map(roles) => {
            roles.0.retain(|role| !is_gone(&role.node));
            for role in &mut roles.0 {
                if let Data::List(items) = &mut role.node.data {
                    items.retain(|item| !is_gone(item));
                }
            }
        }
        _ => {}
    }
}

/// The names in a role: one, or a list.
fn texts(node: &Node) -> Vec<String> {
    match &node.data {
        Data::List(items) => items.iter().flat_map(texts).collect(),
        Data::Text(name) => vec![name.clone()],
        _ => Vec::new(),
    }
}
