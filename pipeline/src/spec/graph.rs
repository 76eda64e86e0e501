//! From trees to stages: who reads whom, in an order in which each comes after what it reads.
//!
//! A [`Unit`] is one experiment file; those under `use` are units of their own, with their own
//! seed and folder. Only stages that are read join from them, so only those are checked: a
//! mistake in a part of another file that nobody reads is not this experiment's business.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
};

use serde_json::Value;

use super::{
    check::{Checked, Declared},
    diagnostic::{Diagnostic, Diagnostics},
    experiment::StageSpec,
    keys::{STAGE_KEYS, names},
    limits::{retries, timeout},
    nearest::nearest,
    paths::paths,
    resources::resources,
    roles::{Read, StageId, check_filled, check_role},
    tree::{Data, Entry, Map, Node, Place},
};
use crate::kind::Kind;
use crate::role::Roles;

/// One experiment file, all edits made.
pub(crate) struct Unit {
    /// Stands before its stages' names: empty, or `stories.`.
    pub(crate) prefix: String,
    pub(crate) home_file: PathBuf,
    pub(crate) seed: u64,
    pub(crate) stages: Map,
    /// Aliases under `use` and the units they name; `None` for one that could not be read.
    pub(crate) uses: Vec<(String, Option<usize>)>,
}

impl Unit {
    /// The names of its stages, as the first file sees them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let names = self.stages.names();
        names.map(|name| format!("{}{name}", self.prefix))
    }
}

/// A stage as read, with references resolved but not yet in order.
struct Draft {
    spec: Option<StageSpec>,
    name: String,
    reads: Vec<Read>,
}

/// Returns every stage of the first unit and what they read, in order.
pub(crate) fn stages(units: &[Unit], catalog: &[Kind], wrong: &mut Diagnostics) -> Vec<StageSpec> {
    let graph = Graph::new(units, catalog);
    let (ids, drafts) = graph.drafts(wrong);
    let order = in_order(&ids, &drafts, wrong);
    let mut specs: Vec<(Option<StageSpec>, Vec<Read>)> = Vec::new();
    let names: HashMap<StageId, String> = ids
        .iter()
        .zip(&drafts)
        .map(|(id, draft)| (*id, draft.name.clone()))
        .collect();
    for draft in drafts {
        specs.push((draft.spec, draft.reads));
    }
    let stages = order.into_iter().filter_map(|idx| {
        let (spec, reads) = std::mem::take(&mut specs[idx]);
        let mut spec = spec?;
        spec.inputs = by_role(&reads, &names, spec.kind.roles);
        Some(spec)
    });
    stages.collect()
}

struct Graph<'a> {
    units: &'a [Unit],
    catalog: &'a [Kind],
    /// Each unit's stages by name.
    names: Vec<HashMap<&'a str, usize>>,
}

impl<'a> Graph<'a> {
    fn new(units: &'a [Unit], catalog: &'a [Kind]) -> Self {
        let names = units.iter().map(|unit| {
            let names = unit.stages.names().enumerate();
            names.map(|(idx, name)| (name, idx)).collect()
        });
        Self {
            units,
            catalog,
            names: names.collect(),
        }
    }

    /// Reads the stages of the first unit and everything that they read.
    fn drafts(&self, wrong: &mut Diagnostics) -> (Vec<StageId>, Vec<Draft>) {
        let own = self.units.first().map_or(0, |unit| unit.stages.0.len());
        let mut waiting: VecDeque<StageId> = (0..own).map(|idx| (0, idx)).collect();
        let mut known: HashMap<StageId, ()> = waiting.iter().map(|id| (*id, ())).collect();
        let (mut ids, mut drafts) = (Vec::new(), Vec::new());
        while let Some(id) = waiting.pop_front() {
            let draft = self.draft(id, wrong);
            for target in draft.reads.iter().filter_map(|read| read.target) {
                if known.insert(target, ()).is_none() {
                    waiting.push_back(target);
                }
            }
            ids.push(id);
            drafts.push(draft);
        }
        (ids, drafts)
    }

    fn draft(&self, (unit_idx, idx): StageId, wrong: &mut Diagnostics) -> Draft {
        let unit = &self.units[unit_idx];
        let entry = &unit.stages.0[idx];
        let name = format!("{}{}", unit.prefix, entry.name);
        let mut draft = Draft {
            spec: None,
            name: name.clone(),
            reads: Vec::new(),
        };
        check_name("a stage", entry, wrong);
        if entry.node.is_broken() {
            return draft;
        }
        let Some(map) = entry.node.as_map() else {
            wrong.push(
                Diagnostic::new(format!(
                    "stage `{}` must be a map with a `kind`",
                    entry.name
                ))
                .at(
                    &place_or(&entry.node, &entry.place),
                    format!("this is {}", entry.node.sort()),
                ),
            );
            return draft;
        };
        for key in &map.0 {
            if !names(&STAGE_KEYS).any(|known| known == key.name) {
                wrong.push(unknown_stage_key(key, &entry.name));
            }
        }
        let kind = self.kind(unit, entry, map, wrong);
        draft.reads = self.reads(unit_idx, entry, map.get("inputs"), kind, wrong);
        let retries = retries(&entry.name, map.get("retries"), wrong);
        let timeout = timeout(&entry.name, map.get("timeout"), wrong);
        let resources = resources(&entry.name, map.get("resources"), wrong);
        let Some(kind) = kind else {
            return draft;
        };
        let declared = Declared {
            section: "with",
            stage: &entry.name,
            kind: kind.name,
            list: &(kind.settings)(),
            owners: &|name| self.owners(name),
            exclusive: kind.exclusive,
            canonical: kind.canonical,
            place: &entry.place,
        };
        let with = declared.check(map.get("with"), wrong);
        let declared = Declared {
            section: "watch",
            list: &(kind.watch)(),
            owners: &|_| Vec::new(),
            exclusive: &[],
            canonical: kind.canonical_watch,
            ..declared
        };
        let watch = declared.check(map.get("watch"), wrong);
        if let (Some(Checked { given, full }), Some(watch)) = (with, watch) {
            draft.spec = Some(StageSpec {
                name,
                kind,
                inputs: Vec::new(),
                seed: full
                    .get("seed")
                    .and_then(Value::as_u64)
                    .unwrap_or(unit.seed),
                with: full,
                given,
                watch: watch.full,
                retries: retries.unwrap_or(0),
                timeout,
                resources,
                home_file: unit.home_file.clone(),
                paths: paths(map.get("with"), &(kind.settings)()),
                place: Some(entry.place.clone()),
            });
        }
        draft
    }

    fn kind(&self, unit: &Unit, entry: &Entry, map: &Map, wrong: &mut Diagnostics) -> Option<Kind> {
        let kinds = || self.catalog.iter().map(|kind| kind.name);
        let Some(node) = map.get("kind").filter(|node| !node.is_null()) else {
            let diagnostic = Diagnostic::new(format!("stage `{}` has no `kind`", entry.name))
                .at(&entry.place, "");
            wrong.push(match meant_stage(unit, entry) {
                Some(near) => diagnostic.help(format!("did you mean the stage `{near}`?")),
                None => diagnostic.hint("", kinds()),
            });
            return None;
        };
        if node.is_broken() {
            return None;
        }
        let Some(name) = node.as_text() else {
            wrong.push(
                Diagnostic::new(format!("the kind of stage `{}` must be a name", entry.name))
                    .at(&node.place, format!("this is {}", node.sort())),
            );
            return None;
        };
        let known = self.catalog.iter().find(|kind| kind.name == name);
        if known.is_none() {
            wrong.push(
                Diagnostic::new(format!(
                    "stage `{}` is of an unknown kind `{name}`",
                    entry.name
                ))
                .at(&node.place, "no kind has this name")
                .hint(name, kinds()),
            );
        }
        known.copied()
    }

    /// Returns the kinds that have a setting of this name.
    fn owners(&self, name: &str) -> Vec<&'static str> {
        let has = |kind: &&Kind| (kind.settings)().iter().any(|setting| setting.name == name);
        self.catalog
            .iter()
            .filter(has)
            .map(|kind| kind.name)
            .collect()
    }

    fn reads(
        &self,
        unit: usize,
        entry: &Entry,
        inputs: Option<&Node>,
        kind: Option<Kind>,
        wrong: &mut Diagnostics,
    ) -> Vec<Read> {
        let mut reads = Vec::new();
        match inputs.map(|node| (node, &node.data)) {
            None | Some((_, Data::Null)) => {}
            Some((_, Data::Broken)) => return reads,
            Some((node, Data::List(items))) => {
                let main = match kind.map(|kind| kind.roles) {
                    Some(Roles::Fixed(roles)) => roles.first().map(|role| role.name),
                    Some(Roles::Any) | None => None,
                };
                if let (Some(kind), None) = (kind, main)
                    && !items.is_empty()
                    && matches!(kind.roles, Roles::Fixed(_))
                {
                    wrong.push(
                        Diagnostic::new(format!("a `{}` stage reads nothing", kind.name))
                            .at(&node.place, format!("`{}` has inputs", entry.name)),
                    );
                }
                for (idx, item) in items.iter().enumerate() {
                    let role = main.map_or_else(|| idx.to_string(), str::to_owned);
                    reads.push(self.read(unit, entry, role, item, wrong));
                }
            }
            Some((_, Data::Map(map))) => {
                for role in &map.0 {
                    check_role(entry, role, kind, wrong);
                    let items = match &role.node.data {
                        Data::List(items) => items.as_slice(),
                        Data::Null => &[],
                        _ => std::slice::from_ref(&role.node),
                    };
                    for item in items {
                        reads.push(self.read(unit, entry, role.name.clone(), item, wrong));
                    }
                }
            }
            Some((node, _)) => {
                let mut diagnostic = Diagnostic::new(format!(
                    "`inputs` of stage `{}` must be a list of stages or a map of role to stage",
                    entry.name
                ))
                .at(&node.place, format!("this is {}", node.sort()));
                if let Some(text) = node.as_text() {
                    diagnostic = diagnostic.help(format!("write `[{text}]`"));
                }
                wrong.push(diagnostic);
                return reads;
            }
        }
        if let Some(Kind {
            roles: Roles::Fixed(roles),
            ..
        }) = kind
        {
            check_filled(entry, roles, &reads, wrong);
        }
        reads
    }

    /// One reference. One that is wrong still fills its role, so that it is not missed as well.
    fn read(
        &self,
        unit: usize,
        entry: &Entry,
        role: String,
        item: &Node,
        wrong: &mut Diagnostics,
    ) -> Read {
        let mut read = Read {
            role,
            target: None,
            kind: None,
            place: item.place.clone(),
        };
        let Some(name) = item.as_text() else {
            if !item.is_broken() {
                wrong.push(
                    Diagnostic::new(format!(
                        "an input of stage `{}` must be a stage's name",
                        entry.name
                    ))
                    .at(&item.place, format!("this is {}", item.sort())),
                );
            }
            return read;
        };
        match self.find(unit, name) {
            Found::Stage(id) => {
                read.target = Some(id);
                read.kind = self.known_kind(id);
            }
            // The file behind the alias could not be read, which has been said.
            Found::Unreadable => {}
            Found::Nothing => {
                let told = unknown_stage(entry, name, item);
                let names = match wrong.are_many() {
                    true => Vec::new(),
                    false => self.names_seen_from(unit),
                };
                wrong.push(match nearest(name, &names) {
                    Some(near) => told.help(format!("did you mean `{near}`?")),
                    None => told,
                });
            }
        }
        read
    }

    /// Returns the kind of a stage as far as it is written well; what is wrong is told elsewhere.
    fn known_kind(&self, (unit, idx): StageId) -> Option<Kind> {
        let stage = self.units[unit].stages.0[idx].node.as_map()?;
        let name = stage.get("kind")?.as_text()?;
        let known = self.catalog.iter().find(|kind| kind.name == name);
        known.copied()
    }

    fn find(&self, unit: usize, name: &str) -> Found {
        if let Some(idx) = self.names[unit].get(name) {
            return Found::Stage((unit, *idx));
        }
        let Some((alias, rest)) = name.split_once('.') else {
            return Found::Nothing;
        };
        let mut uses = self.units[unit].uses.iter();
        match uses.find(|(known, _)| known == alias) {
            None => Found::Nothing,
            Some((_, None)) => Found::Unreadable,
            Some((_, Some(used))) => self.find(*used, rest),
        }
    }

    /// The names that a stage of this unit could read, those of used files with their aliases.
    fn names_seen_from(&self, unit: usize) -> Vec<String> {
        let unit = &self.units[unit];
        let mut names: Vec<String> = unit.stages.names().map(str::to_owned).collect();
        for (alias, used) in &unit.uses {
            if let Some(used) = used {
                let inner = self.names_seen_from(*used);
                names.extend(inner.iter().map(|name| format!("{alias}.{name}")));
            }
        }
        names
    }
}

fn unknown_stage(entry: &Entry, name: &str, item: &Node) -> Diagnostic {
    let title = format!(
        "stage `{}` reads `{name}`, which nothing writes",
        entry.name
    );
    Diagnostic::new(title).at(&item.place, "no stage has this name")
}

enum Found {
    Stage(StageId),
    Unreadable,
    Nothing,
}

/// A dot stands between alias and stage, a slash between run and stage.
pub(crate) fn check_name(what: &str, entry: &Entry, wrong: &mut Diagnostics) {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    if entry.name.is_empty() || !entry.name.chars().all(allowed) {
        wrong.push(
            Diagnostic::new(format!("{what} cannot be called `{}`", entry.name))
                .at(&entry.place, "")
                .help("names are made of letters, digits, `_` and `-`"),
        );
    }
}

/// The stage of an extended file that a stage without a kind was most likely meant to change.
fn meant_stage<'a>(unit: &'a Unit, entry: &Entry) -> Option<&'a str> {
    let others = unit.stages.0.iter();
    let extended = others.filter(|other| other.place.source != entry.place.source);
    nearest(&entry.name, extended.map(|other| other.name.as_str()))
}

fn unknown_stage_key(key: &Entry, stage: &str) -> Diagnostic {
    Diagnostic::new(format!("stage `{stage}` has an unknown key `{}`", key.name))
        .at(&key.place, "unknown")
        .hint(&key.name, names(&STAGE_KEYS))
}

/// A missing value has no width of its own; its name does.
fn place_or(node: &Node, name: &Place) -> Place {
    match node.data {
        Data::Null => name.clone(),
        _ => node.place.clone(),
    }
}

/// Gathers references by role: in the order the kind declares its roles, or by name where the
/// author named them, so that the order of a map's keys means nothing.
fn by_role(
    reads: &[Read],
    names: &HashMap<StageId, String>,
    roles: Roles,
) -> Vec<(String, Vec<String>)> {
    let mut inputs: Vec<(String, Vec<String>)> = Vec::new();
    for read in reads {
        let Some(stage) = read.target.and_then(|id| names.get(&id)) else {
            continue;
        };
        match inputs.iter_mut().find(|(role, _)| *role == read.role) {
            Some((_, stages)) => stages.push(stage.clone()),
            None => inputs.push((read.role.clone(), vec![stage.clone()])),
        }
    }
    match roles {
        Roles::Fixed(roles) => inputs.sort_by_key(|(role, _)| {
            let declared = roles.iter();
            declared.take_while(|known| known.name != role).count()
        }),
        Roles::Any => inputs.sort_by_key(|(role, _)| (role.parse::<usize>().ok(), role.clone())),
    }
    inputs
}

/// Returns positions in `drafts` such that each comes after what it reads and otherwise in the
/// order of the file; reports every circle. Without recursion: a chain may be long.
fn in_order(ids: &[StageId], drafts: &[Draft], wrong: &mut Diagnostics) -> Vec<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let positions: HashMap<StageId, usize> = ids.iter().copied().zip(0..).collect();
    let target = |read: &Read| read.target.and_then(|id| positions.get(&id)).copied();
    let mut marks = vec![Mark::New; drafts.len()];
    let mut order = Vec::with_capacity(drafts.len());
    for start in 0..drafts.len() {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        // Each open stage with the number of its references that have been followed.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((at, followed)) = path.last_mut() {
            let Some(read) = drafts[*at].reads.get(*followed) else {
                marks[*at] = Mark::Done;
                order.push(*at);
                path.pop();
                continue;
            };
            *followed += 1;
            let Some(next) = target(read) else {
                continue;
            };
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, 0));
                }
                Mark::Open => {
                    let begin = path.iter().position(|(open, _)| *open == next);
                    wrong.push(circle(drafts, &path[begin.unwrap_or(0)..]));
                }
            }
        }
    }
    order
}

/// `path` holds the stages of a circle, each with one more than the reference that leads on.
fn circle(drafts: &[Draft], path: &[(usize, usize)]) -> Diagnostic {
    let name = |idx: usize| drafts[path[idx % path.len()].0].name.as_str();
    let title = match path {
        [_] => format!("stage `{}` reads itself", name(0)),
        _ => {
            let names: Vec<String> = (0..=path.len())
                .map(|idx| format!("`{}`", name(idx)))
                .collect();
            format!(
                "stages read each other in a circle: {}",
                names.join(" reads ")
            )
        }
    };
    let mut diagnostic = Diagnostic::new(title);
    for (idx, (stage, followed)) in path.iter().enumerate() {
        if let Some(read) = drafts[*stage].reads.get(followed.saturating_sub(1)) {
            let label = format!("`{}` reads `{}`", name(idx), name(idx + 1));
            diagnostic = diagnostic.at(&read.place, label);
        }
    }
    diagnostic
}
