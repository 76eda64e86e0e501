//! `tinylm init`, `update`, `doctor`, `stages` and `datasets`: what comes before a run.

use std::{fs, num::NonZero, path::Path, thread};

use serde_json::{Value, json};
use tinylm_pipeline::{
    Kind, Resolve, Roles,
    settings::{Setting, Shape},
    spec,
};
use tinylm_registry::{Registry, Store};

use crate::{
    args::{InitArgs, ListArgs, StagesArgs, UpdateArgs},
    console::bytes,
    failure::{DAMAGED, Failure},
    print_line,
    project::{Project, outside, quoted},
};

/// The first experiment: it runs as it is, on rows written in it.
const FIRST: &str = include_str!("first.yaml");

/// The quickstart and what it reads, for those who have no checkout.
const QUICKSTART: [(&str, &str); 3] = [
    (
        "experiments/quickstart.yaml",
        include_str!("../../experiments/quickstart.yaml"),
    ),
    (
        "data/chitchat.jsonl",
        include_str!("../../data/chitchat.jsonl"),
    ),
    (
        "data/dialogues.txt",
        include_str!("../../data/dialogues.txt"),
    ),
];

pub(crate) fn init(project: &Project, args: &InitArgs) -> Result<(), Failure> {
    if args.quickstart {
        for (name, text) in QUICKSTART {
            write_new(project, Path::new(name), text)?;
        }
    } else {
        write_new(project, &args.file, FIRST)?;
    }
    let file = match args.quickstart {
        true => QUICKSTART[0].0.to_owned(),
        false => args.file.display().to_string(),
    };
    print_line(&format!(
        "try `tinylm plan {file}`, then `tinylm run {file}`"
    ));
    Ok(())
}

/// Writes a file that is not there yet, and the folders that it is in. One that says the same
/// already is left as it is.
fn write_new(project: &Project, file: &Path, text: &str) -> Result<(), Failure> {
    let path = project.current_dir.join(file);
    let shown = file.display();
    if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        print_line(&format!("found {shown}"));
        return Ok(());
    }
    let folder = path.parent().unwrap_or(&project.current_dir);
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::File::create_new(&path))
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| {
        let failure = Failure::wrong(format!("`{shown}`: {error}"));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.help(
                "it says something else already: give another name, or begin in another folder",
            ),
            _ => failure,
        }
    })?;
    print_line(&format!("wrote {shown}"));
    Ok(())
}

pub(crate) fn update(project: &Project, args: &UpdateArgs) -> Result<(), Failure> {
    let mut context = project.context();
    // What a cache holds may be old: only the hub itself says what is there now.
    context.outside.hf_cache = None;
    let mut n_sources = 0;
    for experiment in project.load(&args.file)? {
        for stage in &experiment.stages {
            let before = context.sources(stage, Resolve::Never)?;
            let after = context.sources(stage, Resolve::Always)?;
            for pinned in &after.pins {
                n_sources += 1;
                let known = before.pins.iter().find(|old| old.id == pinned.id);
                let word = match known {
                    None => "new",
                    Some(old) if old.pin == pinned.pin => "same",
                    Some(_) => "changed",
                };
                print_line(&format!("{word:<8} {}", pinned.id));
            }
        }
    }
    if n_sources == 0 {
        print_line("nothing in this experiment comes from outside");
    }
    Ok(())
}

pub(crate) fn datasets(args: &ListArgs) -> Result<(), Failure> {
    let datasets = tinylm_stages::datasets::datasets();
    if args.json {
        print_line(&json!(datasets).to_string());
        return Ok(());
    }
    for (idx, dataset) in datasets.iter().enumerate() {
        if idx > 0 {
            print_line("");
        }
        print_line(&format!(
            "{} ({}, {})",
            dataset.name, dataset.size, dataset.licence
        ));
        print_line(&format!("  {}; shape `{}`", dataset.about, dataset.shape));
        print_line(&format!("  {}", dataset.line));
    }
    Ok(())
}

pub(crate) fn stages(project: &Project, args: &StagesArgs) -> Result<(), Failure> {
    let catalog = &project.catalog;
    if args.json {
        let kinds: Vec<Value> = catalog.iter().map(kind_json).collect();
        print_line(&Value::Array(kinds).to_string());
        return Ok(());
    }
    let Some(name) = &args.kind else {
        for kind in catalog {
            print_line(&format!("{:<10} {}", kind.name, kind.about));
        }
        print_line("\n`tinylm stages KIND` lists its settings.");
        return Ok(());
    };
    let Some(kind) = catalog.iter().find(|kind| kind.name == name) else {
        let names = || catalog.iter().map(|kind| kind.name);
        let failure = Failure::wrong(format!("no stage kind is called `{name}`"));
        return Err(match spec::nearest(name, names()) {
            Some(near) => failure.help(format!("did you mean `{near}`?")),
            None => failure.help(format!("there are {}", quoted(names()))),
        });
    };
    print_kind(kind);
    Ok(())
}

fn print_kind(kind: &Kind) {
    print_line(&format!("{}: {}", kind.name, kind.about));
    if let Roles::Fixed(roles) = kind.roles
        && !roles.is_empty()
    {
        print_line("\ninputs:");
        for role in roles {
            let many = if role.many { ", one or more" } else { "" };
            let optional = if role.required { "" } else { ", optional" };
            print_line(&format!("  {}{many}{optional}: {}", role.name, role.about));
        }
    }
    for (section, list) in [("with", (kind.settings)()), ("watch", (kind.watch)())] {
        if !list.is_empty() {
            print_line(&format!("\n{section}:"));
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
        print_line(&format!("{indent}{}: {shape}{default}", setting.name));
        for line in wrapped(&setting.about, 76 - 2 * depth) {
            print_line(&format!("{indent}    {line}"));
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
        "settings": settings((kind.settings)()),
        "watch": settings((kind.watch)()),
    })
}

/// One line of `doctor`: what was looked at, whether it is well, what was found.
struct Finding {
    what: &'static str,
    is_well: bool,
    found: String,
}

pub(crate) fn doctor(project: &Project, args: &ListArgs) -> Result<(), Failure> {
    let findings = findings(project);
    if args.json {
        let rows = findings.iter();
        let rows =
            rows.map(|one| json!({"what": one.what, "well": one.is_well, "found": one.found}));
        print_line(&Value::Array(rows.collect()).to_string());
    } else {
        for one in &findings {
            let word = if one.is_well { "well" } else { "WRONG" };
            print_line(&format!("{word:<6} {:<9} {}", one.what, one.found));
        }
    }
    match findings.iter().all(|one| one.is_well) {
        true => Ok(()),
        false => Err(Failure::said(DAMAGED)),
    }
}

fn findings(project: &Project) -> Vec<Finding> {
    let home = project.home();
    let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut findings = vec![Finding {
        what: "machine",
        is_well: true,
        found: format!(
            "{n_cores} cores; kernels for {}",
            tinylm_model::kernels::name()
        ),
    }];
    let mut add = |what, result: Result<String, String>| {
        let is_well = result.is_ok();
        let found = result.unwrap_or_else(|error| error);
        findings.push(Finding {
            what,
            is_well,
            found,
        });
    };
    let root = home.root().display().to_string();
    if !home.root().is_dir() {
        add("home", Ok(format!("none yet; a run would make `{root}`")));
    } else {
        add(
            "home",
            match (home.check(), home.is_writable()) {
                (Err(error), _) => Err(error.to_string()),
                (Ok(_), false) => Err(format!(
                    "`{root}` cannot be written to: hits only, nothing recorded"
                )),
                (Ok(_), true) => Ok(root),
            },
        );
        let registry = Registry::open_to_read(&home.registry_path());
        let checked = registry.and_then(|registry| {
            registry.map_or(Ok(0), |registry| {
                registry.verify()?;
                Ok(registry.runs(&tinylm_registry::RunQuery::default())?.len())
            })
        });
        add(
            "registry",
            checked
                .map(|n| format!("{n} runs"))
                .map_err(|error| error.to_string()),
        );
        let usage = Store::new(home.clone()).usage();
        add(
            "store",
            usage
                .map(|usage| format!("{} in {} artifacts", bytes(usage.bytes), usage.n_artifacts))
                .map_err(|error| error.to_string()),
        );
    }
    let place = if home.root().is_dir() {
        home.root()
    } else {
        &project.current_dir
    };
    let free = rustix::fs::statvfs(place).map(|stat| stat.f_bavail * stat.f_frsize);
    add(
        "disk",
        match free {
            Ok(free) if free < 1_000_000_000 => Err(format!("only {} are free", bytes(free))),
            Ok(free) => Ok(format!("{} are free", bytes(free))),
            Err(error) => Err(error.to_string()),
        },
    );
    let outside = outside();
    let token = if outside.hf_token.is_some() {
        "with"
    } else {
        "without"
    };
    let endpoint = outside.hf_endpoint.as_deref().unwrap_or("the public hub");
    add(
        "hub",
        Ok(match outside.offline {
            true => "offline: nothing is asked of the network".to_owned(),
            false => format!("{endpoint}, {token} a token"),
        }),
    );
    let cuda = if cfg!(feature = "cuda") {
        "built in"
    } else {
        "not built in (`--features cuda`)"
    };
    add("cuda", Ok(cuda.to_owned()));
    findings
}
