//! From trees to stages: who reads whom, in an order in which each comes after what it reads.
//!
//! A [`Unit`] is one experiment file; those under `use` are units of their own, with their own
//! seed and folder. Only stages that are read join from them, so only those are checked: a
//! mistake in a part of another file that nobody reads is not this experiment's business.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use super::{
    check::{Checked, Declared},
    diagnostic::{Diagnostic, Diagnostics},
    experiment::StageSpec,
    nearest::nearest,
    tree::{Data, Entry, Map, Node, Place},
};
use crate::kind::Kind;
use crate::role::{Role, Roles};

/// What may stand in a stage.
const STAGE_KEYS: [&str; 6] = ["kind", "inputs", "with", "watch", "retries", "timeout"];

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

/// A stage of a unit, by position.
type StageId = (usize, usize);

/// A stage as read, with references resolved but not yet in order.
struct Draft {
    spec: Option<StageSpec>,
    name: String,
    reads: Vec<Read>,
}

struct Read {
    role: String,
    target: Option<StageId>,
    place: Place,
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
            if !STAGE_KEYS.contains(&key.name.as_str()) {
                wrong.push(unknown_stage_key(key, &entry.name));
            }
        }
        let kind = self.kind(unit, entry, map, wrong);
        draft.reads = self.reads(unit_idx, entry, map.get("inputs"), kind, wrong);
        let retries = retries(&entry.name, map.get("retries"), wrong);
        let timeout = timeout(&entry.name, map.get("timeout"), wrong);
        let Some(kind) = kind else {
            return draft;
        };
        let declared = Declared {
            section: "with",
            stage: &entry.name,
            kind: kind.name,
            list: &(kind.settings)(),
            exclusive: kind.exclusive,
            canonical: kind.canonical,
            place: &entry.place,
        };
        let with = declared.check(map.get("with"), wrong);
        let declared = Declared {
            section: "watch",
            list: &(kind.watch)(),
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
                home_file: unit.home_file.clone(),
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
            Found::Stage(id) => read.target = Some(id),
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
        .hint(&key.name, STAGE_KEYS)
}

fn check_role(entry: &Entry, role: &Entry, kind: Option<Kind>, wrong: &mut Diagnostics) {
    let Some(kind) = kind else {
        return;
    };
    let Roles::Fixed(roles) = kind.roles else {
        return;
    };
    if roles.iter().any(|known| known.name == role.name) {
        return;
    }
    let diagnostic = Diagnostic::new(format!(
        "stage `{}`: a `{}` stage has no role `{}`",
        entry.name, kind.name, role.name
    ))
    .at(&role.place, "unknown");
    wrong.push(match roles {
        [] => diagnostic.help(format!("a `{}` stage reads nothing", kind.name)),
        _ => diagnostic.hint(&role.name, roles.iter().map(|role| role.name)),
    });
}

/// Required roles that nothing fills, and single ones that several stages fill.
fn check_filled(entry: &Entry, roles: &[Role], reads: &[Read], wrong: &mut Diagnostics) {
    for role in roles {
        let filling: Vec<&Read> = reads.iter().filter(|read| read.role == role.name).collect();
        match filling.as_slice() {
            [] if role.required => wrong.push(
                Diagnostic::new(format!(
                    "nothing fills the role `{}` of stage `{}`",
                    role.name, entry.name
                ))
                .at(&entry.place, format!("reads no `{}`", role.name))
                .help(format!("`{}`: {}", role.name, role.about)),
            ),
            [_, second, ..] if !role.many => wrong.push(
                Diagnostic::new(format!(
                    "the role `{}` of stage `{}` takes one stage, not {}",
                    role.name,
                    entry.name,
                    filling.len()
                ))
                .at(&second.place, "one too many"),
            ),
            _ => {}
        }
    }
}

/// A missing value has no width of its own; its name does.
fn place_or(node: &Node, name: &Place) -> Place {
    match node.data {
        Data::Null => name.clone(),
        _ => node.place.clone(),
    }
}

fn retries(stage: &str, node: Option<&Node>, wrong: &mut Diagnostics) -> Option<u32> {
    let node = node.filter(|node| !node.is_null() && !node.is_broken())?;
    let retries = match &node.data {
        Data::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    if retries.is_none() {
        wrong.push(
            Diagnostic::new(format!(
                "`retries` of stage `{stage}` must be a whole number"
            ))
            .at(&node.place, format!("this is {}", node.sort())),
        );
    }
    retries
}

fn timeout(stage: &str, node: Option<&Node>, wrong: &mut Diagnostics) -> Option<Duration> {
    let node = node.filter(|node| !node.is_null() && !node.is_broken())?;
    let timeout = match &node.data {
        Data::Number(number) => number.as_f64().and_then(seconds),
        Data::Text(text) => parse_duration(text),
        _ => None,
    };
    if timeout.is_none() {
        wrong.push(
            Diagnostic::new(format!("`timeout` of stage `{stage}` must be a duration"))
                .at(&node.place, "")
                .help("write seconds, or a duration such as `90s`, `30m`, `2h` or `1h30m`"),
        );
    }
    timeout
}

/// Reads `90s`, `2h` or `1h30m`: numbers with units, added up.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_len = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after.trim_start();
        if rest.is_empty() {
            return seconds(total);
        }
    }
}

/// A time-out of nothing would end every attempt, so it is refused.
fn seconds(number: f64) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(number).ok()?;
    (!duration.is_zero()).then_some(duration)
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
