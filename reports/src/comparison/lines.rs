//! Which stage of one run is which stage of another.
//!
//! Stages are matched by name and kind first, and what is left over by kind, in the order of the
//! graph: one experiment calls its model `base`, another `model`.

use std::collections::BTreeMap;

use crate::report::{Report, Stage};

/// The stages of several runs, matched: a line is one stage in each run that has it.
pub(super) struct Lines {
    pub(super) lines: Vec<StageLine>,
    /// By run, the line of each stage.
    pub(super) of_stage: Vec<BTreeMap<String, usize>>,
}

pub(super) struct StageLine {
    pub(super) label: String,
    pub(super) kind: String,
    /// By run, the place of its stage.
    pub(super) stages: Vec<Option<usize>>,
}

impl Lines {
    pub(super) fn of(runs: &[Report]) -> Lines {
        let mut lines: Vec<StageLine> = Vec::new();
        let mut of_stage = vec![BTreeMap::new(); runs.len()];
        let mut by_name: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (run_idx, run) in runs.iter().enumerate() {
            let mut left_over = Vec::new();
            for (stage_idx, stage) in run.stages.iter().enumerate() {
                let name = (stage.row.name.clone(), stage.row.kind.clone());
                match by_name.get(&name) {
                    Some(&line_idx) if lines[line_idx].stages[run_idx].is_none() => {
                        lines[line_idx].stages[run_idx] = Some(stage_idx);
                        of_stage[run_idx].insert(stage.row.name.clone(), line_idx);
                    }
                    _ => left_over.push(stage_idx),
                }
            }
            for stage_idx in left_over {
                let stage = &run.stages[stage_idx];
                let names_taken = |line: &StageLine| {
                    run.stages
                        .iter()
                        .any(|other| other.row.name == line.label && other.row.kind == line.kind)
                };
                let free = lines.iter().position(|line| {
                    line.kind == stage.row.kind
                        && line.stages[run_idx].is_none()
                        && !names_taken(line)
                });
                let line_idx = free.unwrap_or_else(|| {
                    lines.push(StageLine {
                        label: stage.row.name.clone(),
                        kind: stage.row.kind.clone(),
                        stages: vec![None; runs.len()],
                    });
                    lines.len() - 1
                });
                lines[line_idx].stages[run_idx] = Some(stage_idx);
                by_name
                    .entry((stage.row.name.clone(), stage.row.kind.clone()))
                    .or_insert(line_idx);
                of_stage[run_idx].insert(stage.row.name.clone(), line_idx);
            }
        }
        Lines { lines, of_stage }
    }

    pub(super) fn stage<'a>(
        &self,
        runs: &'a [Report],
        line: &StageLine,
        run_idx: usize,
    ) -> Option<&'a Stage> {
        runs[run_idx].stages.get(line.stages[run_idx]?)
    }

    /// Returns a run's name for a setting as the first run would call it.
    pub(super) fn setting_name(&self, run_idx: usize, name: &str) -> String {
        let line = name
            .split_once('.')
            .and_then(|(stage, rest)| Some((self.of_stage[run_idx].get(stage)?, rest)));
        match line {
            Some((&line_idx, rest)) => format!("{}.{rest}", self.lines[line_idx].label),
            None => name.to_owned(),
        }
    }
}
