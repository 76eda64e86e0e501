//! `tinylm language`: everything that an experiment file may say, on one page.
//!
//! Generated from the lists that files are checked with, so that it cannot say what is not so.

use tinylm_model::config::Preset;
use tinylm_pipeline::{
    Kind,
    settings::Choice,
    spec::keys::{FILE_KEYS, Key, RESOURCE_KEYS, STAGE_KEYS, WATCH_KEYS},
};
use tinylm_registry::load;
use tinylm_reports::thousands;
use tinylm_stages::{
    kinds::normalize::EXAMPLES,
    shared::template::{Role, Spacing, Template, written},
};

use crate::{pager, project::Project, stages};

pub(crate) fn language(project: &Project) {
    pager::print(project, page(&project.catalog).join("\n"));
}

const FORM: &str = "\
An experiment is a YAML file of stages. Each is of a kind, reads what others
have made, and makes one artifact. What the file says of a stage decides the
stage's key: two stages of one key are one artifact, in whatever file they
stand, and what has been made is not made again.

  name: mine
  seed: 1
  vars: { width: 64 }
  stages:
    data:   { kind: download,  with: { path: my.jsonl } }
    chat:   { kind: normalize, inputs: [data] }
    tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 1000 } }
    shards: { kind: binarize,  inputs: { documents: chat, tokenizer: tokens } }
    model:
      kind: pretrain
      inputs: [shards]
      with:
        model: { preset: mini, d_model: \"${width}\" }
        train: { epochs: 2 }

Another file says only what it has otherwise:

  extends: mine.yaml
  stages:
    model: { with: { train: { lr: 3e-4 } } }

Another goes on with its stages, under a name of its choosing:

  use: { base: mine.yaml }
  stages:
    said: { kind: sample, inputs: [base.model], with: { prompts: [hello] } }

And another has a run for each combination of values:

  extends: mine.yaml
  sweep:
    model.train.lr: [1e-3, 3e-4]
    model.train.batch: [8, 16]

On a command line `-S STAGE.path=VALUE` replaces a setting, such as
`-S model.train.lr=1e-3`; of an end alone, such as `lr`, you are told which are
meant. `tinylm init` writes a first file, `tinylm plan FILE` says what it would
run, and `tinylm schema` is this page for editors, which complete and check.

Below stand the keys of a file and of a stage, the presets of models, the
templates of dialogues, the formats of data, and the kinds of stages with all
that they read, can be set to and tell (`tinylm stages KIND` prints one alone).";

/// What a recorder tells of a stage, whatever its kind.
const LOADS: [Key; 2] = [
    (
        load::CPU,
        "Cores that were busy since the point before. Its steps are seconds.",
    ),
    (
        load::MEMORY,
        "The most bytes that were held since the point before, likewise.",
    ),
];

fn page(catalog: &[Kind]) -> Vec<String> {
    let mut lines = vec![FORM.to_owned()];
    for (title, keys) in [
        ("At the top of a file", &FILE_KEYS[..]),
        ("Under `watch` at the top of a file", &WATCH_KEYS[..]),
        ("In a stage", &STAGE_KEYS[..]),
        ("Under `resources` of a stage", &RESOURCE_KEYS[..]),
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
    add_templates(&mut lines);
    add_formats(&mut lines);
    lines.push("\nKinds of stages:".to_owned());
    for kind in catalog {
        lines.extend(stages::hanging(
            &format!("{}: {}", kind.name, kind.about),
            2,
        ));
    }
    lines.push("\nOf each that works for some seconds the machine's load is recorded:".to_owned());
    for (name, about) in LOADS {
        lines.extend(stages::hanging(&format!("{name}: {about}"), 2));
    }
    for kind in catalog {
        lines.push(format!("\n{}", "-".repeat(72)));
        lines.extend(stages::kind_lines(kind));
        if !kind.metrics.is_empty() {
            lines.push("\nnumbers that it tells:".to_owned());
        }
        for (name, about) in kind.metrics {
            lines.extend(stages::hanging(&format!("{name}: {about}"), 2));
        }
    }
    lines
}

/// One dialogue in every template, written by what writes them for a model.
fn add_templates(lines: &mut Vec<String>) {
    lines.push("\nTemplates of `tokenizer`, each of the same dialogue:".to_owned());
    for template in Template::ALL {
        lines.push(format!("\n  {}:", template.word()));
        let turns = [(Role::User, "hello"), (Role::Assistant, "hi")];
        let text = written(&template.pieces(turns, Spacing::Nowhere));
        lines.extend(text.lines().map(|line| format!("      {line}")));
    }
}

/// A file of every format, and what it becomes.
fn add_formats(lines: &mut Vec<String>) {
    lines.push("\nFormats of `normalize`, each with a file and what it becomes:".to_owned());
    for example in &EXAMPLES {
        let (format, ending) = (example.format, example.ending);
        lines.push(String::new());
        let told = format!("{}: {}", format.word(), format.about());
        lines.extend(stages::hanging(&told, 2));
        lines.push(format!("    a .{ending} file"));
        for line in example.text.replace('\t', "<tab>").lines() {
            match line {
                "" => lines.push(String::new()),
                line => lines.extend(stages::hanging(line, 6)),
            }
        }
        lines.push("    becomes".to_owned());
        lines.extend(example.becomes.lines().map(|line| format!("      {line}")));
    }
}
