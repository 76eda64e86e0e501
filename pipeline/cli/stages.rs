//! `tinylm stages`: the kinds and their settings.

use clap::Args;
use serde_json::{Value, json};
use tinylm_pipeline::{
    Kind, Roles,
    settings::{Setting, Shape},
    spec,
};

use crate::{
    failure::Failure,
    output::{print_json, print_line},
    project::{Project, quoted},
};

#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Only this kind, with its settings
    pub(crate) kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn stages(project: &Project, args: &StagesArgs) -> Result<(), Failure> {
    let catalog = &project.catalog;
    if args.json {
        let kinds = match &args.kind {
            Some(name) => vec![kind_json(find(catalog, name)?)],
            None => catalog.iter().map(kind_json).collect(),
        };
        print_json(&Value::Array(kinds));
        return Ok(());
    }
    let Some(name) = &args.kind else {
        for kind in catalog {
            print_line(format!("{:<10} {}", kind.name, kind.about));
        }
        print_line("\n`tinylm stages KIND` lists its settings.");
        return Ok(());
    };
    print_kind(find(catalog, name)?);
    Ok(())
}

fn find<'a>(catalog: &'a [Kind], name: &str) -> Result<&'a Kind, Failure> {
    let names = || catalog.iter().map(|kind| kind.name);
    catalog
        .iter()
        .find(|kind| kind.name == name)
        .ok_or_else(|| {
            let failure = Failure::wrong(format!("no stage kind is called `{name}`"));
            match spec::nearest(name, names()) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.help(format!("there are {}", quoted(names()))),
            }
        })
}

fn print_kind(kind: &Kind) {
    print_line(format!("{}: {}", kind.name, kind.about));
    print_line(format!("makes {}", kind.makes));
    if let Roles::Fixed(roles) = kind.roles
        && !roles.is_empty()
    {
        print_line("\ninputs:");
        for role in roles {
            let many = if role.many { ", one or more" } else { "" };
            let optional = if role.required { "" } else { ", optional" };
            print_line(format!("  {}{many}{optional}: {}", role.name, role.about));
        }
    }
    for (section, list) in [("with", (kind.settings)()), ("watch", (kind.watch)())] {
        if !list.is_empty() {
            print_line(format!("\n{section}:"));
            print_settings(&list, 1);
        }
    }
}

fn print_settings(list: &[Setting], depth: usize) {
    let indent = "  ".repeat(depth);
    for setting in list {
        let default = match &setting.default {
            None => " (must be given)".to_owned(),
            Some(Value::Null | Value::Object(_)) => String::new(),
            Some(value) => format!(" = {value}"),
        };
        let shape = shape_word(&setting.shape);
        print_line(format!("{indent}{}: {shape}{default}", setting.name));
        for line in wrapped(&setting.about, 76 - 2 * depth) {
            print_line(format!("{indent}    {line}"));
        }
        if let Shape::Map(inner, _) = &setting.shape {
            print_settings(inner, depth + 1);
        }
    }
}

fn shape_word(shape: &Shape) -> String {
    match shape {
        Shape::Value(word) => (*word).to_owned(),
        Shape::Choice(words) => words.join(" | "),
        Shape::Path => "path".to_owned(),
        Shape::Map(..) => "settings".to_owned(),
        Shape::List(inner) => format!("list of {}", shape_word(inner)),
        Shape::Table(inner) => format!("map of {}", shape_word(inner)),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The roles of a kind; null where the author names them.
fn inputs_json(kind: &Kind) -> Value {
    let Roles::Fixed(roles) = kind.roles else {
        return Value::Null;
    };
    let roles = roles.iter().map(|role| {
        let takes = role.takes.iter().map(ToString::to_string);
        json!({
            "role": role.name,
            "about": role.about,
            "takes": takes.collect::<Vec<_>>(),
            "required": role.required,
            "many": role.many,
        })
    });
    roles.collect()
}

fn kind_json(kind: &Kind) -> Value {
    let settings = |list: Vec<Setting>| -> Vec<Value> {
        let list = list.iter();
        list.map(|setting| {
            json!({
                "name": setting.name,
                "about": setting.about,
                "shape": shape_word(&setting.shape),
                "default": setting.default,
                "required": setting.default.is_none(),
            })
        })
        .collect()
    };
    json!({
        "kind": kind.name,
        "about": kind.about,
        "revision": kind.revision,
        "makes": kind.makes.to_string(),
        "inputs": inputs_json(kind),
        "settings": settings((kind.settings)()),
        "watch": settings((kind.watch)()),
    })
}
