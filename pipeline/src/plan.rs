//! The stages that would run, and why.
//!
//! A plan walks the stages in order and asks of each what the runner would ask: its
//! key, and whether the store has it whole. It cannot see past the first dirty stage,
//! since inputs count by contents: what reads a dirty stage is pending, and may turn
//! out fresh when the dirty one writes the same bytes as before (early cut-off).

use std::collections::HashMap;

use tinylm_registry::{Digest, KeyRecord};

use crate::{
    context::{Context, Kept, Resolve, recipe},
    error::StageError,
    recipe::{Change, Entry, changes, explanation, key},
    spec::{Experiment, StageSpec},
};

/// Returns the recipe of a stage's last execution in this experiment, if there was one.
pub type History<'a> = dyn Fn(&str) -> Option<Vec<Entry>> + Sync + 'a;

#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Fresh(Box<KeyRecord>),
    Dirty,
    Pending,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub name: String,
    pub kind: &'static str,
    pub state: State,
    pub key: Option<Digest>,
    /// Differences from its last execution.
    pub changes: Vec<Change>,
    /// Reasons that are not a difference: never run, damaged, forced.
    pub reasons: Vec<String>,
    /// Dirty or pending stages that it reads.
    pub waits_for: Vec<String>,
}

/// The wishes that a plan obeys.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    pub force: Vec<String>,
}

/// Plans every stage of the experiment, in order.
pub fn plan(
    experiment: &Experiment,
    context: &Context,
    history: &History,
    options: &PlanOptions,
) -> Result<Vec<Planned>, StageError> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut artifacts: HashMap<&str, Digest> = HashMap::new();
    for stage in &experiment.stages {
        let one = plan_stage(stage, &artifacts, context, history, options)?;
        if let State::Fresh(record) = &one.state {
            artifacts.insert(&stage.name, record.artifact);
        }
        planned.push(one);
    }
    Ok(planned)
}

fn plan_stage(
    stage: &StageSpec,
    artifacts: &HashMap<&str, Digest>,
    context: &Context,
    history: &History,
    options: &PlanOptions,
) -> Result<Planned, StageError> {
    let sources = context.sources(stage, Resolve::Never)?;
    let waits_for = missing_inputs(stage, artifacts);
    let inputs = known_inputs(stage, artifacts);
    let recipe = recipe(stage, &inputs, &sources);
    let is_known = waits_for.is_empty() && sources.unpinned.is_empty();
    let key = is_known.then(|| key(&recipe));

    let mut reasons = Vec::new();
    if options.force.contains(&stage.name) {
        reasons.push("forced".to_owned());
    } else if let Some(key) = &key {
        match context.kept(key)? {
            Kept::Whole(record) => return Ok(fresh(stage, *key, record)),
            kept => reasons.extend(kept.loss()),
        }
    }
    for remote in &sources.unpinned {
        reasons.push(format!("`{}` is not pinned yet", remote.id));
    }
    let last = history(&stage.name);
    let changes = last.as_deref().map_or_else(Vec::new, |last| {
        changes(last, &explanation(&recipe), is_known)
    });
    if last.is_none() && reasons.is_empty() {
        reasons.push("never run".to_owned());
    } else if changes.is_empty() && reasons.is_empty() && is_known {
        reasons.push("its artifact is gone".to_owned());
    }
    Ok(Planned {
        name: stage.name.clone(),
        kind: stage.kind.name,
        state: if is_known {
            State::Dirty
        } else {
            State::Pending
        },
        key,
        changes,
        reasons,
        waits_for,
    })
}

fn fresh(stage: &StageSpec, key: Digest, record: Box<KeyRecord>) -> Planned {
    Planned {
        name: stage.name.clone(),
        kind: stage.kind.name,
        state: State::Fresh(record),
        key: Some(key),
        changes: Vec::new(),
        reasons: Vec::new(),
        waits_for: Vec::new(),
    }
}

fn missing_inputs(stage: &StageSpec, artifacts: &HashMap<&str, Digest>) -> Vec<String> {
    let missing = stage.reads().filter(|name| !artifacts.contains_key(name));
    missing.map(str::to_owned).collect()
}

fn known_inputs(
    stage: &StageSpec,
    artifacts: &HashMap<&str, Digest>,
) -> Vec<(String, Vec<Digest>)> {
    let digests = |names: &[String]| {
        let found = names.iter().filter_map(|name| artifacts.get(name.as_str()));
        found.copied().collect()
    };
    let roles = stage.inputs.iter();
    roles
        .map(|(role, names)| (role.clone(), digests(names)))
        .collect()
}

impl Planned {
    /// Returns why it is dirty or pending, reason by reason.
    pub fn why(&self, full: bool) -> Vec<String> {
        let mut why = self.reasons.clone();
        why.extend(self.changes.iter().map(|change| change.in_words(full)));
        if !self.waits_for.is_empty() {
            let names: Vec<String> = self
                .waits_for
                .iter()
                .map(|name| format!("`{name}`"))
                .collect();
            // Its inputs come first only when nothing of its own changed.
            why.retain(|reason| reason != "never run");
            why.push(format!("reads {}", names.join(", ")));
        }
        why
    }
}
