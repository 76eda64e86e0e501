//! The README: every command in it runs, and every name in it is the name of something.
//!
//! The command lines are the README's own. What differs is the experiments that they name:
//! each is its small variant of `experiments/smoke/`, because the real ones take minutes in
//! a debug build and hours on real text.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    harness::{Project, copy_folder},
    skipped::skipped,
};

/// The beginnings of commands that are not run here, and why.
const NOT_RUN: [(&str, &str); 3] = [
    ("cargo test --release", "this is one of its tests"),
    ("cargo bench", "it takes minutes and prints only times"),
    ("cargo build", "this test was built"),
];

/// How the README calls the binary.
const CALLS: [&str; 2] = ["cargo run --release -- ", "tinylm "];

#[test]
fn every_command_block_runs_in_the_order_in_which_they_stand() {
    let project = small_copy();
    let mut n_run = 0;
    for command in commands(&readme()) {
        if let Some((_, why)) = NOT_RUN.iter().find(|(start, _)| command.starts_with(start)) {
            skipped(&format!("`{command}`: {why}"));
            continue;
        }
        let args = CALLS.iter().find_map(|call| command.strip_prefix(call));
        let args = args.unwrap_or_else(|| panic!("nobody knows how to run `{command}`"));
        let output = project.output(&mut project.shell(&format!("tinylm {args}")));
        assert_eq!(output.code, Some(0), "{command}\n{output}");
        if args.starts_with("run ") && !args.contains("--dry-run") {
            assert_eq!(project.last_run("status"), "done", "{command}\n{output}");
        }
        n_run += 1;
    }
    assert!(n_run >= 3, "only {n_run} commands were run");
}

/// The project's experiments and data, every experiment being its small variant.
fn small_copy() -> Project {
    let project = Project::new();
    for folder in ["experiments", "data"] {
        copy_folder(&root().join(folder), &project.path("whole").join(folder));
    }
    copy_folder(&root().join("data"), &project.path("data"));
    for variant in files_below(&root().join("experiments/smoke")) {
        let stem = variant.file_stem().unwrap().to_str().unwrap();
        let (file, up) = match stem.strip_prefix("ablation_") {
            Some(ablation) => (format!("ablations/{ablation}"), "../.."),
            None => (stem.to_owned(), ".."),
        };
        project.write(
            &format!("experiments/{file}.yaml"),
            &format!("name: {stem}\nextends: {up}/whole/experiments/smoke/{stem}.yaml\n"),
        );
    }
    project
}

/// The lines behind `$ ` in blocks marked as `console`; one that ends in `\` goes on.
fn commands(readme: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let (mut is_console, mut goes_on) = (false, false);
    for line in readme.lines() {
        if line.starts_with("```") {
            is_console = line.trim_end() == "```console";
            continue;
        }
        let typed = match (is_console, goes_on) {
            (true, true) => Some(line.trim_start()),
            (true, false) => line.strip_prefix("$ "),
            (false, _) => None,
        };
        let Some(typed) = typed else { continue };
        let whole = typed.strip_suffix('\\');
        match (goes_on, commands.last_mut()) {
            (true, Some(last)) => last.push_str(whole.unwrap_or(typed)),
            _ => commands.push(whole.unwrap_or(typed).to_owned()),
        }
        goes_on = whole.is_some();
    }
    commands
}

#[test]
fn every_command_and_flag_that_is_named_exists() {
    let project = Project::new();
    let readme = readme();
    let rows: Vec<Vec<&str>> = tables(&readme, "| command ").collect();
    assert!(rows.len() >= 5, "there is no table of commands");
    let mut helps = Helps {
        project: &project,
        texts: HashMap::new(),
    };
    for row in rows {
        let named: Vec<&str> = spans(row[0]).collect();
        assert!(!named.is_empty(), "{row:?} names no command");
        for span in &named {
            helps.check(span);
        }
        for span in row[1..].iter().flat_map(|cell| spans(cell)) {
            let first = words(span).first().copied();
            if first.is_some_and(is_flag) {
                let of_row = named.iter().any(|command| helps.has(command, span));
                assert!(of_row, "none of {named:?} has `{span}`");
            } else if named
                .iter()
                .any(|command| words(command).first().copied() == first)
            {
                helps.check(span);
            }
        }
    }
    let prose = without_blocks(&readme);
    let typed = spans(&prose).map(str::to_owned).chain(commands(&readme));
    for span in typed {
        if let Some(args) = CALLS.iter().find_map(|call| span.strip_prefix(call)) {
            helps.check(args);
        }
    }
}

struct Helps<'a> {
    project: &'a Project,
    texts: HashMap<String, String>,
}

impl Helps<'_> {
    /// Checks that `runs --where 'loss < 3'` names a command and flags that it has.
    fn check(&mut self, span: &str) {
        for flag in words(span).into_iter().filter(|word| is_flag(word)) {
            assert!(self.has(span, flag), "`{span}`: there is no `{flag}`");
        }
        self.help(span);
    }

    fn has(&mut self, span: &str, flag: &str) -> bool {
        let flag = flag.split([' ', '=']).next().unwrap();
        let help = self.help(span);
        help.split(|c: char| !c.is_alphanumeric() && c != '-')
            .any(|word| word == flag)
    }

    /// The `--help` of the command that a span begins with.
    fn help(&mut self, span: &str) -> &str {
        let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        let words = words(span);
        let mut n_names = words.iter().take_while(|word| is_name(word)).count();
        // Only `cache` has commands of its own; elsewhere a second word is an argument.
        n_names = n_names.min(if words.first() == Some(&"cache") {
            2
        } else {
            1
        });
        let command = words[..n_names].join(" ");
        self.texts.entry(command.clone()).or_insert_with(|| {
            let help = self.project.tinylm(&format!("{command} --help"));
            assert_eq!(help.code, Some(0), "`{span}`: {help}");
            help.stdout
        })
    }
}

/// The words of a usage such as `show RUN[/STAGE]` or `report [RUN] [--compare A B ...]`.
fn words(usage: &str) -> Vec<&str> {
    let words = usage.split([' ', '[', ']', '(', ')', '|', ',']);
    words.filter(|word| !word.is_empty()).collect()
}

fn is_flag(word: &str) -> bool {
    word.starts_with("--") || (word.len() == 2 && word.starts_with('-'))
}

#[test]
fn it_is_read_in_five_minutes() {
    let n_words = readme().split_whitespace().count();
    assert!(n_words <= 900, "{n_words} words");
}

#[test]
fn every_file_that_is_named_exists() {
    let readme = readme();
    let speed = fs::read_to_string(root().join("reports/SPEED.md")).unwrap();
    let prose = without_blocks(&readme) + &without_blocks(&speed);
    let mut n_experiments = 0;
    for span in spans(&prose).filter(|span| is_path(span)) {
        let places = ["", "experiments", "experiments/ablations"];
        let exists = |place: &&str| root().join(place).join(span).exists();
        assert!(places.iter().any(exists), "there is no `{span}`");
        n_experiments += usize::from(span.ends_with(".yaml"));
    }
    assert!(
        n_experiments >= 5,
        "only {n_experiments} experiments are named"
    );
    for command in commands(&readme) {
        let files = command
            .split_whitespace()
            .filter(|word| word.ends_with(".yaml"));
        for file in files {
            assert!(
                root().join(file).exists(),
                "`{command}`: there is no `{file}`"
            );
        }
    }
    for link in prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let is_inside = !link.contains("://") && !link.starts_with('#');
        assert!(
            !is_inside || root().join(link).exists(),
            "there is no `{link}`"
        );
    }
    let crates = [
        "",
        "pipeline",
        "registry",
        "reports",
        "stages",
        "stages/model",
    ];
    let manifest = |name| fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
    let manifests = crates.map(manifest).concat();
    for bench in spans(&prose).filter(|span| span.starts_with("cargo bench")) {
        let names = bench
            .split(' ')
            .skip(2)
            .filter(|word| !word.starts_with('-'));
        for name in names {
            let line = format!("name = \"{name}\"");
            assert!(manifests.contains(&line), "`{bench}`: there is no `{name}`");
        }
    }
}

/// Whether a span is the path of something in the repository, not a pattern or a path elsewhere.
fn is_path(span: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./".contains(c);
    let has_ending = [".yaml", ".py", ".rs", ".sh", "/"]
        .iter()
        .any(|end| span.ends_with(end));
    has_ending && span.chars().all(is_plain) && !span.starts_with('.')
}

/// The cells of the rows below every heading row that begins so.
fn tables<'a>(readme: &'a str, heading: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    let mut lines = readme.lines();
    let mut is_inside = false;
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            if line.starts_with(heading) {
                is_inside = lines.next().is_some();
            } else if !line.starts_with('|') {
                is_inside = false;
            } else if is_inside {
                return Some(line.trim_matches('|').split(" | ").collect());
            }
        }
    })
}

/// The texts between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn without_blocks(readme: &str) -> String {
    let mut is_inside = false;
    let mut prose = String::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            is_inside = !is_inside;
        } else if !is_inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
