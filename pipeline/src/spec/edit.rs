//! `-S` and sweeps: values put into the tree as if they had been written there.

use std::{path::Path, sync::Arc};

use serde_json::Value;

use super::{
    deeper::deeper,
    diagnostic::{Diagnostic, Diagnostics},
    experiment::Experiment,
    extends::{child, settings_shape, unset_others},
    nearest::nearest,
    tree::{Data, Entry, Map, Node, Place, Source},
    yaml,
};
use crate::{kind::Kind, settings::Shape};

/// More runs than anyone starts on purpose.
const COMBINATIONS_MAX: usize = 1000;

/// One value and where it goes: `base.train.lr=3e-4`.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    path: Vec<Segment>,
    /// The whole path.
    place: Place,
    value: Node,
}

#[derive(Debug, Clone)]
struct Segment {
    name: String,
    place: Place,
}

/// One path and the values that it takes in turn.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    path: Vec<Segment>,
    place: Place,
    values: Vec<Node>,
}

/// One combination of a sweep: its edits, and what they set.
pub(crate) type Point = (Vec<Edit>, Vec<(String, Value)>);

/// Reads what followed each `-S`.
pub(crate) fn overrides(texts: &[String], dir: &Path, wrong: &mut Diagnostics) -> Vec<Edit> {
    let edits = texts.iter().filter_map(|text| {
        let (path, place, mut values) = assignment("-S", text, dir, wrong)?;
        match values.len() {
            1 => Some(Edit {
                path,
                place,
                value: values.remove(0),
            }),
            0 => {
                wrong.push(
                    Diagnostic::new(format!("`-S {text}` has no value"))
                        .at(&place, "")
                        .help("write `null` for nothing and `''` for an empty text"),
                );
                None
            }
            _ => {
                wrong.push(
                    Diagnostic::new(format!("`-S {text}` has more than one value"))
                        .at(&values[1].place, "a second value")
                        .help("quote a text with commas, write `[a, b]` for a list, or `--sweep` for a run with each"),
                );
                None
            }
        }
    });
    edits.collect()
}

/// Reads what stands under `sweep` in the file and what followed each `--sweep`, which wins.
pub(crate) fn sweeps(
    in_file: Option<&Node>,
    texts: &[String],
    dir: &Path,
    wrong: &mut Diagnostics,
) -> Vec<Sweep> {
    let mut sweeps = Vec::new();
    match in_file.map(|node| (node, &node.data)) {
        None | Some((_, Data::Null)) => {}
        Some((_, Data::Map(map))) => {
            sweeps.extend(map.0.iter().filter_map(|entry| sweep_in_file(entry, wrong)));
        }
        Some((node, _)) => wrong.push(
            Diagnostic::new("`sweep` must be a map of setting to a list of values")
                .at(&node.place, format!("this is {}", node.sort()))
                .help("write `sweep: { base.train.lr: [1e-3, 3e-4] }`"),
        ),
    }
    for text in texts {
        let Some((path, place, values)) = assignment("--sweep", text, dir, wrong) else {
            continue;
        };
        let sweep = Sweep {
            path,
            place,
            values,
        };
        if sweep.values.is_empty() {
            wrong.push(sweep.empty());
            continue;
        }
        match sweeps
            .iter_mut()
            .find(|known| names(&known.path) == names(&sweep.path))
        {
            Some(known) => *known = sweep,
            None => sweeps.push(sweep),
        }
    }
    sweeps
}

/// The runs of a sweep are compared stage by stage: all have the same ones, and what differs is a
/// setting of one of them.
pub(crate) fn check_swept(sweeps: &[Sweep], experiments: &[Experiment], wrong: &mut Diagnostics) {
    let Some(first) = experiments.first() else {
        return;
    };
    let has_others = |other: &Experiment| other.left_out != first.left_out;
    let differ = experiments.iter().any(has_others);
    for sweep in sweeps {
        let name = names(&sweep.path);
        if differ && sweep.path.last().is_some_and(|part| part.name == "without") {
            wrong.push(
                Diagnostic::new("`without` cannot be swept")
                    .at(&sweep.place, "its runs would have other stages")
                    .help("run the file once for each, with `-S without=STAGE`"),
            );
        } else if first.left_out.has(&name) {
            wrong.push(
                Diagnostic::new(format!("the sweep of `{name}` would make the same runs"))
                    .at(&sweep.place, "`without` leaves the stage out"),
            );
        }
    }
}

fn sweep_in_file(entry: &Entry, wrong: &mut Diagnostics) -> Option<Sweep> {
    let path = path(&entry.name, &entry.place, wrong)?;
    let Data::List(values) = &entry.node.data else {
        wrong.push(
            Diagnostic::new(format!(
                "the sweep of `{}` must be a list of values",
                entry.name
            ))
            .at(&entry.node.place, format!("this is {}", entry.node.sort())),
        );
        return None;
    };
    let sweep = Sweep {
        path,
        place: entry.place.clone(),
        values: values.clone(),
    };
    if sweep.values.is_empty() {
        wrong.push(sweep.empty());
        return None;
    }
    Some(sweep)
}

impl Sweep {
    fn empty(&self) -> Diagnostic {
        Diagnostic::new(format!(
            "the sweep of `{}` has no values",
            names(&self.path)
        ))
        .at(&self.place, "")
    }
}

/// Returns every combination; the last path changes fastest. A path that `-S` fixes is not swept.
pub(crate) fn points(sweeps: &[Sweep], fixed: &[Edit], wrong: &mut Diagnostics) -> Vec<Point> {
    let is_fixed = |sweep: &&Sweep| {
        let name = names(&sweep.path);
        !fixed.iter().any(|edit| names(&edit.path) == name)
    };
    let swept: Vec<&Sweep> = sweeps.iter().filter(is_fixed).collect();
    let count = swept
        .iter()
        .try_fold(1usize, |count, sweep| count.checked_mul(sweep.values.len()));
    if let Some(last) = swept.last()
        && count.is_none_or(|count| count > COMBINATIONS_MAX)
    {
        wrong.push(
            Diagnostic::new(format!(
                "the sweep has more than {COMBINATIONS_MAX} combinations"
            ))
            .at(&last.place, "with this"),
        );
        return Vec::new();
    }
    let mut points: Vec<Point> = vec![(Vec::new(), Vec::new())];
    for sweep in swept {
        points = points
            .iter()
            .flat_map(|point| sweep.values.iter().map(move |value| (point, value)))
            .map(|((edits, set), value)| {
                let (mut edits, mut set) = (edits.clone(), set.clone());
                set.push((names(&sweep.path), value.to_value()));
                edits.push(Edit {
                    path: sweep.path.clone(),
                    place: sweep.place.clone(),
                    value: value.clone(),
                });
                (edits, set)
            })
            .collect();
    }
    points
}

/// Puts one value into an experiment's tree, or returns the edit with the alias of the used
/// file that it is for.
pub(crate) fn apply(
    edit: &Edit,
    tree: &mut Map,
    catalog: &[Kind],
    wrong: &mut Diagnostics,
) -> Option<(String, Edit)> {
    let (first, rest) = edit.path.split_first()?;
    if rest.is_empty() && first.name == "seed" {
        tree.insert(entry(first, edit.value.clone()));
        return None;
    }
    if rest.is_empty() && first.name == "without" {
        leave_out_too(first, &edit.value, tree);
        return None;
    }
    if first.name == "vars" && !rest.is_empty() {
        set_variable(edit, rest, tree, wrong);
        return None;
    }
    let stages = tree.get_mut("stages").and_then(Node::as_map_mut);
    if let Some(stage) = stages.and_then(|stages| stages.get_mut(&first.name)) {
        set_setting(edit, rest, stage, catalog, wrong);
        return None;
    }
    let uses = tree.get("use").and_then(Node::as_map);
    if uses.is_some_and(|uses| uses.get(&first.name).is_some()) && !rest.is_empty() {
        let edit = Edit {
            path: rest.to_vec(),
            ..edit.clone()
        };
        return Some((first.name.clone(), edit));
    }
    if first.name == "watch" && !rest.is_empty() {
        set_watch(edit, rest, tree, wrong);
        return None;
    }
    wrong.push(unknown_target(edit, first, tree, catalog));
    None
}

/// Adds to the stages that the file leaves out; `null` brings them back.
fn leave_out_too(named: &Segment, value: &Node, tree: &mut Map) {
    let items = |node: &Node| match &node.data {
        Data::Null => Vec::new(),
        Data::List(items) => items.clone(),
        _ => vec![node.clone()],
    };
    let mut node = value.clone();
    if let (Some(before), false) = (tree.get("without"), value.is_null()) {
        node.data = Data::List([items(before), items(value)].concat());
    }
    tree.insert(entry(named, node));
}

/// What else stands under `watch` is told when it is read.
fn set_watch(edit: &Edit, path: &[Segment], tree: &mut Map, wrong: &mut Diagnostics) {
    if tree.get("watch").is_none_or(Node::is_null) {
        tree.insert(Entry {
            name: "watch".to_owned(),
            place: edit.place.clone(),
            node: Node::new(Data::Map(Map::default()), edit.place.clone()),
        });
    }
    if let Some(watch) = tree.get_mut("watch").and_then(Node::as_map_mut) {
        set(watch, None, path, &edit.value, wrong);
    }
}

fn set_variable(edit: &Edit, path: &[Segment], tree: &mut Map, wrong: &mut Diagnostics) {
    let vars = tree.get_mut("vars").and_then(Node::as_map_mut);
    match vars {
        Some(vars) if vars.get(&path[0].name).is_some() => {
            set(vars, None, path, &edit.value, wrong);
        }
        vars => {
            let name = &path[0].name;
            let known = vars.map(|vars| vars.names().collect()).unwrap_or_default();
            let known: Vec<&str> = known;
            wrong.push(
                Diagnostic::new(format!("there is no variable `{name}`"))
                    .at(&path[0].place, "not in `vars`")
                    .hint(name, known),
            );
        }
    }
}

fn set_setting(
    edit: &Edit,
    path: &[Segment],
    stage: &mut Node,
    catalog: &[Kind],
    wrong: &mut Diagnostics,
) {
    let name = names(&edit.path);
    if path.is_empty() {
        wrong.push(
            Diagnostic::new(format!("`{name}` is a stage, not a setting"))
                .at(&edit.place, "")
                .help(format!("write `{name}.SETTING=VALUE`")),
        );
        return;
    }
    // Anything but a map is refused when the stage is read.
    let Some(stage) = stage.as_map_mut() else {
        return;
    };
    let kind = stage.get("kind").and_then(Node::as_text);
    let kind = catalog.iter().find(|known| Some(known.name) == kind);
    let shape = kind.map(settings_shape);
    if stage.get("with").is_none_or(Node::is_null) {
        let with = Node::new(Data::Map(Map::default()), edit.place.clone());
        stage.insert(Entry {
            name: "with".to_owned(),
            place: edit.place.clone(),
            node: with,
        });
    }
    if let Some(with) = stage.get_mut("with").and_then(Node::as_map_mut) {
        set(with, shape.as_ref(), path, &edit.value, wrong);
    }
}

fn unknown_target(edit: &Edit, first: &Segment, tree: &Map, catalog: &[Kind]) -> Diagnostic {
    let inside = |key: &str| tree.get(key).and_then(Node::as_map);
    let stages = inside("stages").into_iter().flat_map(Map::names);
    let aliases = inside("use").into_iter().flat_map(Map::names);
    let known: Vec<&str> = stages
        .chain(aliases)
        .chain(["seed", "vars", "watch", "without"])
        .collect();
    let name = &first.name;
    let diagnostic = Diagnostic::new(format!("there is no stage `{name}`"))
        .at(&first.place, "no stage has this name");
    let settings = settings_called(edit, tree, catalog);
    if !settings.is_empty() {
        let settings: Vec<String> = settings.iter().map(|path| format!("`{path}`")).collect();
        return diagnostic.help(format!("did you mean {}?", settings.join(" or ")));
    }
    if let Some(near) = nearest(name, known.iter().copied()) {
        return diagnostic.help(format!("did you mean `{near}`?"));
    }
    match edit.path.as_slice() {
        [_] => diagnostic.help(format!("name the stage it is for: `STAGE.{name}=VALUE`")),
        _ => diagnostic.hint(name, known),
    }
}

/// Returns the settings of stages of this file that end like the path of an edit.
fn settings_called(edit: &Edit, tree: &Map, catalog: &[Kind]) -> Vec<String> {
    let path: Vec<&str> = edit.path.iter().map(|part| part.name.as_str()).collect();
    let stages = tree.get("stages").and_then(Node::as_map);
    let mut found = Vec::new();
    for stage in stages.into_iter().flat_map(|stages| &stages.0) {
        let kind = stage
            .node
            .as_map()
            .and_then(|stage| stage.get("kind")?.as_text());
        let Some(kind) = catalog.iter().find(|known| Some(known.name) == kind) else {
            continue;
        };
        let paths = deeper(&(kind.settings)(), &path).into_iter();
        found.extend(paths.map(|path| format!("{}.{path}", stage.name)));
    }
    found
}

/// Sets the value at `path`, making maps on the way and unsetting what excludes it.
fn set(
    map: &mut Map,
    shape: Option<&Shape>,
    path: &[Segment],
    value: &Node,
    wrong: &mut Diagnostics,
) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if !value.is_null() {
        unset_others(map, shape, &first.name);
    }
    if rest.is_empty() {
        map.insert(entry(first, value.clone()));
        return;
    }
    if map.get(&first.name).is_none() {
        map.insert(entry(first, empty_map(first)));
    }
    if let Some(node) = map.get_mut(&first.name) {
        set_inside(node, child(shape, &first.name), first, rest, value, wrong);
    }
}

fn set_inside(
    node: &mut Node,
    shape: Option<&Shape>,
    named: &Segment,
    path: &[Segment],
    value: &Node,
    wrong: &mut Diagnostics,
) {
    if let (Data::List(items), Some((first, rest))) = (&mut node.data, path.split_first()) {
        let idx = first.name.parse::<usize>().ok();
        let n_items = items.len();
        match (idx.and_then(|idx| items.get_mut(idx)), rest) {
            (Some(item), []) => *item = value.clone(),
            (Some(item), _) => set_inside(item, child(shape, ""), first, rest, value, wrong),
            (None, _) => wrong.push(no_item(named, first, n_items)),
        }
        return;
    }
    if node.as_map().is_none() {
        *node = empty_map(named);
    }
    if let Some(map) = node.as_map_mut() {
        set(map, shape, path, value, wrong);
    }
}

fn no_item(list: &Segment, asked: &Segment, n_items: usize) -> Diagnostic {
    let told = Diagnostic::new(format!("`{}` has no item `{}`", list.name, asked.name));
    let told = told.at(&asked.place, "");
    match n_items {
        0 => told.help("it is empty: set the whole list"),
        1 => told.help("its only item is `0`"),
        n => told.help(format!("its items are `0` to `{}`", n - 1)),
    }
}

fn entry(segment: &Segment, node: Node) -> Entry {
    Entry {
        name: segment.name.clone(),
        place: segment.place.clone(),
        node,
    }
}

fn empty_map(segment: &Segment) -> Node {
    Node::new(Data::Map(Map::default()), segment.place.clone())
}

/// Reads `PATH=VALUE,VALUE`.
fn assignment(
    option: &str,
    text: &str,
    dir: &Path,
    wrong: &mut Diagnostics,
) -> Option<(Vec<Segment>, Place, Vec<Node>)> {
    let source = Arc::new(Source {
        title: option.to_owned(),
        text: text.to_owned(),
        dir: dir.to_owned(),
    });
    let place = |range| Place {
        source: source.clone(),
        range,
    };
    let Some((name, _)) = text.split_once('=') else {
        wrong.push(
            Diagnostic::new(format!("`{option} {text}` sets nothing"))
                .at(&place(0..text.len()), "has no `=`")
                .help(format!("write `{option} STAGE.SETTING=VALUE`")),
        );
        return None;
    };
    let whole = place(0..name.len());
    let path = path(name, &whole, wrong)?;
    match yaml::parse_values(&source, name.len() + 1) {
        Ok(values) => Some((path, whole, values)),
        Err(refused) => {
            wrong.extend(refused);
            None
        }
    }
}

/// Cuts `base.train.lr` at its dots.
fn path(text: &str, place: &Place, wrong: &mut Diagnostics) -> Option<Vec<Segment>> {
    // A name in quotes is longer than what it says; then only the whole can be pointed at.
    let exact = place.source.text.get(place.range.clone()) == Some(text);
    let mut start = place.range.start;
    let mut path = Vec::new();
    for name in text.split('.') {
        let mut segment = place.clone();
        if exact {
            segment.range = start..start + name.len();
        }
        start += name.len() + 1;
        if name.trim().is_empty() {
            wrong.push(
                Diagnostic::new(format!("`{text}` names no setting"))
                    .at(place, "a name is empty")
                    .help("write `STAGE.SETTING`, such as `base.train.lr`"),
            );
            return None;
        }
        path.push(Segment {
            name: name.to_owned(),
            place: segment,
        });
    }
    Some(path)
}

fn names(path: &[Segment]) -> String {
    let names: Vec<&str> = path.iter().map(|segment| segment.name.as_str()).collect();
    names.join(".")
}
