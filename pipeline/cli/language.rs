//! `tinylm language`: everything that an experiment file may say, on one page.
//!
//! Generated from the lists that files are checked with, so that it cannot say what is not so.

use tinylm_model::config::Preset;
use tinylm_pipeline::{
    Kind,
    settings::Choice,
    spec::keys::{FILE_KEYS, Key, STAGE_KEYS, WATCH_KEYS},
};
use tinylm_reports::thousands;

use crate::{pager, project::Project, stages};

pub(crate) fn language(project: &Project) {
    pager::print(project, page(&project.catalog).join("\n"));
}

const FORM: &str = "\
An experiment is a YAML file. What it says of a stage decides the stage's key:
two stages of one key are one artifact, in whatever file they stand.

  name: mine
  vars: { width: 256 }
  stages:
    data:  { kind: download,  with: { path: my.jsonl } }
    chat:  { kind: normalize, inputs: [data] }
    model:
      kind: pretrain
      inputs: { shards: shards }
      with: { model: { preset: mini, d_model: ${width} } }

On a command line `-S STAGE.path=VALUE` replaces a setting; where only one
setting ends so, the end is enough: `-S lr=1e-3`.";

fn page(catalog: &[Kind]) -> Vec<String> {
    let mut lines = vec![FORM.to_owned()];
    for (title, keys) in [
        ("At the top of a file", &FILE_KEYS[..]),
        ("Under `watch` at the top of a file", &WATCH_KEYS[..]),
        ("In a stage", &STAGE_KEYS[..]),
    ] {
        lines.push(format!("\n{title}:"));
        for (name, about) in keys as &[Key] {
            lines.extend(stages::hanging(&format!("{name}: {about}"), 2));
        }
    }
    lines.push("\nPresets of models, at a vocabulary of 8,000:".to_owned());
    for preset in Preset::ALL {
        let config = preset.config(8000);
        lines.push(format!(
            "  {:<10} {:>10} parameters: width {}, {} layers, {} heads, context {}",
            preset.word(),
            thousands(config.n_params() as u64),
            config.d_model,
            config.n_layers,
            config.n_heads,
            config.context,
        ));
    }
    lines.push("\nKinds of stages:".to_owned());
    for kind in catalog {
        lines.push(format!("\n{}", "-".repeat(72)));
        lines.extend(stages::kind_lines(kind));
        if !kind.metrics.is_empty() {
            let metrics = format!("tells: {}", kind.metrics.join(", "));
            lines.push(String::new());
            lines.extend(stages::hanging(&metrics, 0));
        }
    }
    lines
}
