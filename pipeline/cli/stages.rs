//! `tinylm stages`: the kinds and their settings.

use clap::Args;
use serde_json::{Value, json};
use tinylm_pipeline::{
    Kind, Roles,
    settings::{Setting, Shape},
    spec,
};
use tinylm_reports::wrapped;

use crate::{
    completions,
    failure::Failure,
    output::{print_json, print_line},
    pager,
    project::{Project, quoted},
};

#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Only this kind, with its settings
    #[arg(add = completions::kinds())]
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
    pager::print(project, kind_lines(find(catalog, name)?).join("\n"));
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

pub(crate) fn kind_lines(kind: &Kind) -> Vec<String> {
    let mut lines = hanging(&format!("{}: {}", kind.name, kind.about), 0);
    lines.push(format!("makes {}", kind.makes));
    if let Roles::Fixed(roles) = kind.roles
        && !roles.is_empty()
    {
        lines.push("\ninputs:".to_owned());
        for role in roles {
            let many = if role.many { ", one or more" } else { "" };
            let optional = if role.required { "" } else { ", optional" };
            let line = format!("{}{many}{optional}: {}", role.name, role.about);
            lines.extend(hanging(&line, 2));
        }
    }
    for (section, list) in [("with", (kind.settings)()), ("watch", (kind.watch)())] {
        if !list.is_empty() {
            lines.push(format!("\n{section}:"));
            add_settings(&list, 1, &mut lines);
        }
    }
    lines
}

fn add_settings(list: &[Setting], depth: usize, lines: &mut Vec<String>) {
    for setting in list {
        let default = match &setting.default {
            None => " (must be given)".to_owned(),
            Some(Value::Null | Value::Object(_)) => String::new(),
            Some(value) => format!(" = {value}"),
        };
        let shape = shape_word(&setting.shape);
        let line = format!("{}: {shape}{default}", setting.name);
        lines.extend(hanging(&line, 2 * depth));
        lines.extend(indented(&setting.about, 2 * depth + 4));
        match &setting.shape {
            Shape::Map(inner, _) => add_settings(inner, depth + 1, lines),
            Shape::Choice(words, abouts) => {
                let told = words.iter().zip(abouts);
                for (word, about) in told.filter(|(_, about)| !about.is_empty()) {
                    lines.extend(hanging(&format!("{word}: {about}"), 2 * depth + 4));
                }
            }
            _ => {}
        }
    }
}

/// Text in lines of at most 80 columns, those after the first further in.
pub(crate) fn hanging(text: &str, indent: usize) -> Vec<String> {
    let mut lines = indented(text, indent);
    if lines.len() > 1 {
        let rest = wrapped(text, 80 - indent)[1..].join(" ");
        lines.truncate(1);
        lines.extend(indented(&rest, indent + 4));
    }
    lines
}

fn indented(text: &str, indent: usize) -> Vec<String> {
    let gap = " ".repeat(indent);
    let lines = wrapped(text, 80 - indent);
    lines.iter().map(|line| format!("{gap}{line}")).collect()
}

fn shape_word(shape: &Shape) -> String {
    match shape {
        Shape::Value(word) | Shape::Own(word, _) => (*word).to_owned(),
        Shape::Number(numbers) => numbers.word().to_owned(),
        Shape::Choice(words, _) => words.join(" | "),
        Shape::Path => "path".to_owned(),
        Shape::Map(..) => "settings".to_owned(),
        Shape::List(inner) => format!("list of {}", shape_word(inner)),
        Shape::Table(inner) => format!("map of {}", shape_word(inner)),
    }
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
