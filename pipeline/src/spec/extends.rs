//! `extends`: one tree laid over another.
//!
//! Maps merge, lists and scalars replace, `null` deletes. Two rules need to know the kinds:
//! setting one of several exclusive settings unsets the others, so that a child can say
//! `path` where its parent said `hub`; and a stage that names its `kind` is another stage,
//! so it replaces the parent's whole.
//!
//! The parent's `name` is not taken over: it says which experiment this is, and the child is
//! another one.

use super::tree::{Data, Entry, Map, Node};
use crate::{kind::Kind, settings::Shape};

/// Returns `over` laid over `base`.
pub(crate) fn merge(mut base: Map, over: Map, catalog: &[Kind]) -> Map {
    base.remove("name");
    for entry in over.0 {
        match (entry.name.as_str(), base.get_mut("stages")) {
            ("stages", Some(stages)) => merge_entry(stages, entry, |stages, over| {
                for stage in over.0 {
                    put_stage(stages, stage, catalog);
                }
            }),
            _ => put(&mut base, entry, None),
        }
    }
    base
}

/// The shape of the setting `name` among settings of this shape.
pub(crate) fn child<'a>(shape: Option<&'a Shape>, name: &str) -> Option<&'a Shape> {
    match shape? {
        Shape::Map(list, _) => {
            let setting = list.iter().find(|setting| setting.name == name)?;
            Some(&setting.shape)
        }
        Shape::Table(inner) | Shape::List(inner) => Some(inner),
        _ => None,
    }
}

/// Drops from `map` what excludes the setting `name`.
pub(crate) fn unset_others(map: &mut Map, shape: Option<&Shape>, name: &str) {
    let Some(Shape::Map(_, exclusive)) = shape else {
        return;
    };
    for group in exclusive.iter().filter(|group| group.contains(&name)) {
        for other in group.iter().filter(|other| **other != name) {
            map.remove(other);
        }
    }
}

/// The settings of a kind as one shape.
pub(crate) fn settings_shape(kind: &Kind) -> Shape {
    Shape::Map((kind.settings)(), kind.exclusive)
}

fn put_stage(stages: &mut Map, over: Entry, catalog: &[Kind]) {
    let names_kind = |node: &Node| node.as_map().is_some_and(|map| map.get("kind").is_some());
    let replaces = !over.node.is_null() && names_kind(&over.node);
    match stages.get_mut(&over.name) {
        Some(base) if !replaces && !over.node.is_null() => {
            let kind = base.as_map().and_then(|map| map.get("kind")?.as_text());
            let kind = catalog.iter().find(|known| Some(known.name) == kind);
            let with = kind.map(settings_shape);
            let watch = kind.map(|kind| Shape::Map((kind.watch)(), &[]));
            merge_entry(base, over, |stage, over| {
                for entry in over.0 {
                    let shape = match entry.name.as_str() {
                        "with" => with.as_ref(),
                        "watch" => watch.as_ref(),
                        _ => None,
                    };
                    put(stage, entry, shape);
                }
            });
        }
        Some(_) if over.node.is_null() => drop(stages.remove(&over.name)),
        // As it was written: a `null` in it is a value.
        _ => stages.insert(over),
    }
}

/// Lays one entry over what a map has, if anything; `shape` is that of the entry's value.
fn put(map: &mut Map, mut over: Entry, shape: Option<&Shape>) {
    if over.node.is_null() {
        map.remove(&over.name);
        return;
    }
    match map.get_mut(&over.name) {
        Some(base) if base.as_map().is_some() => {
            merge_entry(base, over, |map, over| lay(map, over, shape));
        }
        _ => {
            // Nothing to merge with, but what is deleted is not set either.
            if let Data::Map(inner) = &mut over.node.data {
                let mut laid = Map::default();
                lay(&mut laid, std::mem::take(inner), shape);
                *inner = laid;
            }
            map.insert(over);
        }
    }
}

fn lay(map: &mut Map, over: Map, shape: Option<&Shape>) {
    // First all that is unset, so that two exclusive settings of the child are both seen.
    for entry in over.0.iter().filter(|entry| !entry.node.is_null()) {
        unset_others(map, shape, &entry.name);
    }
    for entry in over.0 {
        let inner = child(shape, &entry.name).cloned();
        put(map, entry, inner.as_ref());
    }
}

/// Merges two maps with `merge`; anything else is replaced.
fn merge_entry(base: &mut Node, over: Entry, merge: impl FnOnce(&mut Map, Map)) {
    match (&mut base.data, over.node.data) {
        (Data::Map(map), Data::Map(over)) => merge(map, over),
        (_, data) => *base = Node { data, ..over.node },
    }
}
