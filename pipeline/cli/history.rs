//! The recipe with which a stage was last made or found: what "was 64, is now 96" compares with.

use tinylm_pipeline::spec::Experiment;
use tinylm_registry::{Home, Registry, keys};

/// Returns the recipe with which this experiment's stage was last made or found.
pub(crate) fn last_recipe(
    registry: &Registry,
    home: &Home,
    experiment: &Experiment,
    stage: &str,
) -> Option<Vec<(String, String)>> {
    let file = experiment.file.display().to_string();
    let last = registry.last_stage(&experiment.name, &file, stage).ok()??;
    if let Some(record) = last
        .key
        .parse()
        .ok()
        .and_then(|key| keys::read_key(home, &key).ok()?)
    {
        return Some(record.recipe);
    }
    let lines = last.recipe?;
    let entries = lines.lines().filter_map(|line| line.split_once(" = "));
    Some(
        entries
            .map(|(path, value)| (path.to_owned(), value.to_owned()))
            .collect(),
    )
}
