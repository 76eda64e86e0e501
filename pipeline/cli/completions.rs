//! `tinylm completions`: a shell's completions.
//!
//! The script asks this binary at each press of the key, so that it knows the runs, stages and kinds
//! that there are now. A script written down once could only know the flags.

use std::ffi::OsStr;

use clap::Args;
use clap_complete::{
    ArgValueCompleter, CompletionCandidate, Shell,
    env::{EnvCompleter, Shells},
};
use tinylm_pipeline::{Content, spec};
use tinylm_registry::{RunQuery, StageRow};

use crate::{failure::Failure, output::print_line, project::Project};

/// The variable by which a script asks.
pub(crate) const ASKS: &str = "TINYLM_COMPLETE";

/// More runs than this are no help to somebody who looks for one.
const RUNS_MAX: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

pub(crate) fn print(args: &CompletionsArgs) -> Result<(), Failure> {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let shell: &dyn EnvCompleter = shells
        .completer(&name)
        .ok_or_else(|| Failure::wrong(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    shell
        .write_registration(ASKS, "tinylm", "tinylm", "tinylm", &mut script)
        .map_err(|error| Failure::wrong(format!("the script cannot be written: {error}")))?;
    let script = String::from_utf8_lossy(&script);
    print_line(match args.shell {
        Shell::Bash => BASH.to_owned() + &script.replace("-F _clap_complete_tinylm", "-F _tinylm"),
        _ => script.into_owned(),
    });
    Ok(())
}

/// For bash an `@` is a word of its own, so that `@last` would be two: they are joined again.
const BASH: &str = r#"_tinylm() {
    local joined=() before="" at=$COMP_CWORD idx
    for idx in "${!COMP_WORDS[@]}"; do
        if [[ $before == @ ]]; then
            joined[${#joined[@]} - 1]="@${COMP_WORDS[idx]}"
            ((idx <= COMP_CWORD)) && ((at -= 1))
        else
            joined+=("${COMP_WORDS[idx]}")
        fi
        before=${COMP_WORDS[idx]}
    done
    local COMP_WORDS=("${joined[@]}") COMP_CWORD=$at
    _clap_complete_tinylm "$@"
}
"#;

/// Completes the name of a run, or behind a slash that of one of its stages.
pub(crate) fn runs() -> ArgValueCompleter {
    in_registry(None)
}

/// The same, of stages that make a model.
pub(crate) fn models() -> ArgValueCompleter {
    in_registry(Some(Content::Model))
}

fn in_registry(made: Option<Content>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |word: &OsStr| {
        fitting(word, |word| run_names(word, made).unwrap_or_default())
    })
}

/// Completes a stage of the experiment file that the command line names.
pub(crate) fn stages() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| fitting(word, |_| stage_names().unwrap_or_default()))
}

pub(crate) fn kinds() -> ArgValueCompleter {
    let kinds = || {
        let kinds = tinylm_stages::catalog().into_iter();
        kinds.map(|kind| (kind.name.to_owned(), kind.about.to_owned()))
    };
    ArgValueCompleter::new(move |word: &OsStr| fitting(word, |_| kinds().collect()))
}

/// The names, each with a word about it, that begin as the word does.
fn fitting(
    word: &OsStr,
    names: impl Fn(&str) -> Vec<(String, String)>,
) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else {
        return Vec::new();
    };
    // Of a list divided by commas the last part is being written.
    let (before, word) = match word.rsplit_once(',') {
        Some((before, word)) => (format!("{before},"), word),
        None => (String::new(), word),
    };
    let names = names(word).into_iter();
    let fitting = names.filter(|(name, _)| name.starts_with(word));
    let candidates = fitting.map(|(name, about)| {
        CompletionCandidate::new(format!("{before}{name}")).help(Some(about.into()))
    });
    candidates.collect()
}

fn run_names(word: &str, made: Option<Content>) -> Option<Vec<(String, String)>> {
    let (project, _) = Project::of_words();
    let registry = project.registry().ok()?;
    if let Some((run, _)) = word.split_once('/') {
        let stages = registry.stages(&registry.find_run(run).ok()?.id).ok()?;
        let is_meant = |stage: &StageRow| made.is_none() || project.makes(&stage.kind) == made;
        let stages = stages.into_iter().filter(is_meant);
        let named = stages.map(|stage| (format!("{run}/{}", stage.name), stage.kind));
        return Some(named.collect());
    }
    let query = RunQuery {
        limit: Some(RUNS_MAX),
        ..RunQuery::default()
    };
    let runs = registry.runs(&query).ok()?.into_iter();
    let mut names: Vec<_> = runs
        .map(|run| {
            let about = format!("{}, {}", run.experiment, run.status.as_str());
            (run.name, about)
        })
        .collect();
    names.push(("@last".to_owned(), "the last run".to_owned()));
    Some(names)
}

fn stage_names() -> Option<Vec<(String, String)>> {
    let (project, words) = Project::of_words();
    let mut files = words
        .iter()
        .filter(|word| word.ends_with(".yaml") || word.ends_with(".yml"));
    let request = spec::Request {
        file: files.next()?.into(),
        current_dir: project.current_dir.clone(),
        ..spec::Request::default()
    };
    let experiments = spec::load(&request, &project.catalog).ok()?;
    let stages = experiments.into_iter().next()?.stages.into_iter();
    Some(
        stages
            .map(|stage| (stage.name, stage.kind.name.to_owned()))
            .collect(),
    )
}
