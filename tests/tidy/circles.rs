//! No circle of files: within a crate, what a file uses never leads back to it.
//!
//! Cargo forbids circles of crates and nothing forbids those of files, which is where a reader gets
//! lost. An edge is a path in code (`use super::Row`, `row::parse(..)`) whose front names another file; what a
//! parent only passes on with `pub use` counts as the file that it comes from. Tests do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The folder of each crate's sources.
const SOURCES: [&str; 11] = [
    "registry/src",
    "registry/remote/src",
    "reports/src",
    "reports/live/src",
    "pipeline/src",
    "pipeline/cli",
    "pipeline/settings/src",
    "stages/exchange/src",
    "stages/model/src",
    "stages/serve/src",
    "stages/src",
];

/// A file of a crate, by its module's path.
type Module = Vec<String>;

#[test]
fn no_file_uses_what_uses_it() {
    let mut circles = Vec::new();
    for folder in SOURCES {
        for circle in circles_of(&edges(&modules(folder))) {
            circles.push(format!("{folder}: {}", circle.join(", ")));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn no_kind_of_stage_uses_another() {
    let modules = modules("stages/src");
    let kind = |module: &Module| match module.as_slice() {
        [kinds, kind, ..] if kinds == "kinds" => Some(kind.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    for (module, used) in edges(&modules) {
        let others = used.iter().filter(|other| kind(other) != kind(module));
        let others = others.filter(|other| kind(other).is_some() && kind(module).is_some());
        found
            .extend(others.map(|other| format!("{} uses {}", module.join("::"), other.join("::"))));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The files below a folder and their code, without comments, tests and strings.
fn modules(folder: &str) -> BTreeMap<Module, String> {
    let root = super::root().join(folder);
    let mut modules = BTreeMap::new();
    super::visit(&root, &mut |path, text| {
        let module = module_of(path.strip_prefix(&root).unwrap());
        let is_test = module.iter().any(|name| name.starts_with("tests"));
        if !is_test {
            modules.insert(module, code(text));
        }
    });
    modules
}

fn module_of(path: &Path) -> Module {
    let path = path.with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    names
        .filter(|name| !["lib", "main", "mod"].contains(&name.as_str()))
        .collect()
}

fn code(text: &str) -> String {
    let is_end = |(idx, _): &(usize, &str)| {
        let next = text[*idx..].lines().nth(1).unwrap_or_default();
        next.ends_with("mod tests {")
    };
    let end = text.match_indices("#[cfg(test)]").find(is_end);
    let text = &text[..end.map_or(text.len(), |(idx, _)| idx)];
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

fn edges(modules: &BTreeMap<Module, String>) -> BTreeMap<&Module, BTreeSet<Module>> {
    let passed_on: BTreeMap<(Module, String), Module> = modules
        .iter()
        .flat_map(|(module, code)| passed_on(module, code, modules))
        .collect();
    let uses = |(module, code): (_, &String)| {
        let mut used = BTreeSet::new();
        for path in paths(code) {
            used.extend(file_of(module, &path, modules, &passed_on));
        }
        used.remove(module);
        (module, used)
    };
    modules.iter().map(uses).collect()
}

/// The items that `pub use` gives a second home, with their first.
fn passed_on(
    module: &Module,
    code: &str,
    modules: &BTreeMap<Module, String>,
) -> Vec<((Module, String), Module)> {
    let mut found = Vec::new();
    for (_, tree) in uses(code).filter(|(is_public, _)| *is_public) {
        for path in flattened(tree) {
            let item = path.last().unwrap().clone();
            let home = file_of(module, &path, modules, &BTreeMap::new());
            found.extend(home.map(|home| ((module.clone(), item), home)));
        }
    }
    found
}

/// The file that a path names: the longest part of it that is one.
fn file_of(
    module: &Module,
    path: &[String],
    modules: &BTreeMap<Module, String>,
    passed_on: &BTreeMap<(Module, String), Module>,
) -> Option<Module> {
    let mut path = path.iter();
    let mut at = module.clone();
    let first = path.next()?;
    match first.as_str() {
        "crate" => at.clear(),
        "self" => {}
        "super" => drop(at.pop()),
        child => {
            at.push(child.to_owned());
            modules.get(&at)?;
        }
    }
    for name in path {
        let below = [at.as_slice(), std::slice::from_ref(name)].concat();
        if name == "super" {
            at.pop();
        } else if modules.contains_key(&below) {
            at = below;
        } else {
            return Some(
                passed_on
                    .get(&(at.clone(), name.clone()))
                    .cloned()
                    .unwrap_or(at),
            );
        }
    }
    // A module named for itself is an edge to it, but the root is what `crate::` begins with.
    (!at.is_empty()).then_some(at)
}

/// Every path that code uses, private imports and paths in line alike.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut rest = code.to_owned();
    let mut found = Vec::new();
    for (is_public, tree) in uses(code) {
        rest = rest.replace(tree, "");
        if !is_public {
            found.extend(flattened(tree));
        }
    }
    let is_path = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let inline = rest
        .split(is_path)
        .filter(|word| word.contains("::") && !word.ends_with(':'));
    found.extend(inline.map(|word| word.split("::").map(str::to_owned).collect()));
    found
}

/// Each `use`: whether it is public, and its tree.
fn uses(code: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = code;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find("use ")?;
            let before = rest[..at].rsplit('\n').next().unwrap_or_default().trim();
            let after = &rest[at + 4..];
            let is_use = before.is_empty() || before.starts_with("pub");
            let Some(end) = after.find(';').filter(|_| is_use) else {
                rest = after;
                continue;
            };
            rest = &after[end..];
            return Some((before.starts_with("pub"), &after[..end]));
        }
    })
}

/// The paths of a tree such as `a::{b, c::d}`.
fn flattened(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((front, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        return vec![
            path.split("::")
                .map(|name| name.trim().to_owned())
                .collect(),
        ];
    };
    let front: Vec<String> = front
        .split("::")
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    // Words of a text, not an import.
    let Some((inner, _)) = inner.rsplit_once('}') else {
        return Vec::new();
    };
    let items = items(inner);
    let paths = items.iter().flat_map(|item| flattened(item));
    paths.map(|path| [front.clone(), path].concat()).collect()
}

/// The parts between commas that stand in no braces.
fn items(inner: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0, 0);
    let mut found = Vec::new();
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|item| !item.is_empty());
    found
}

/// Groups of files each of which leads to all others of its group.
fn circles_of(edges: &BTreeMap<&Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = edges
        .keys()
        .map(|module| (*module, reached_from(module, edges)))
        .collect();
    let in_circle = |module: &&&Module| reached[**module].contains(**module);
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for module in reached.keys().filter(in_circle) {
        let others = reached[module].iter().copied();
        let group = others.filter(|other| reached[other].contains(module));
        circles.insert(group.map(|module| module.join("::")).collect());
    }
    circles.into_iter().collect()
}

fn reached_from<'a>(
    module: &Module,
    edges: &'a BTreeMap<&Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = edges[module].iter().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(edges.get(next).into_iter().flatten());
        }
    }
    reached
}

#[test]
fn a_circle_is_found_through_what_a_parent_passes_on() {
    let modules: BTreeMap<Module, String> = [
        (vec!["a"], "pub use b::B;\nmod b;\nmod c;"),
        (vec!["a", "b"], "use std::fmt;\nuse super::{c::C};"),
        (vec!["a", "c"], "use crate::a::B;"),
        (vec!["a", "d"], "use super::{b::B, c};\nfn f() { c::g() }"),
    ]
    .into_iter()
    .map(|(module, code)| {
        (
            module.into_iter().map(str::to_owned).collect(),
            code.to_owned(),
        )
    })
    .collect();
    assert_eq!(circles_of(&edges(&modules)), [["a::b", "a::c"]]);
}
