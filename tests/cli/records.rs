//! The traces of a run in the registry, and a person's view of them.

use std::process::Command;

use serde_json::Value;

use crate::{harness::Project, skipped::skipped};

fn json(project: &Project, args: &str) -> Value {
    let output = project.tinylm(args).success();
    serde_json::from_str(&output.stdout).unwrap()
}

/// Makes the project a repository with one commit; returns whether there is a git to do so.
fn committed(project: &Project) -> bool {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b.c"]);
        let output = git.args(args).current_dir(project.path("")).output();
        output.is_ok_and(|output| output.status.success())
    };
    git(&["init", "-q"]) && git(&["add", "."]) && git(&["commit", "-q", "-m", "one"])
}

#[test]
fn a_run_remembers_what_it_was_made_from_where_and_at_what_cost() {
    let project = Project::chain();
    let has_git = committed(&project);
    project
        .tinylm("run chain.yaml -S seed=7 --threads 1")
        .success();

    let run = json(&project, "show @last --json");
    assert_eq!(run["experiment"], "chain");
    assert_eq!(run["seed"], 7);
    assert_eq!(run["status"], "done");
    assert_eq!(run["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        run["command"]
            .as_str()
            .unwrap()
            .ends_with("run chain.yaml -S seed=7 --threads 1")
    );
    assert!(run["started_at"].as_i64() < run["ended_at"].as_i64());
    assert!(run["host"]["cores"].as_u64() > Some(0), "{run}");
    let params = run["params"].as_array().unwrap();
    let outputs = params
        .iter()
        .find(|param| param["name"] == "first.outputs")
        .unwrap();
    assert_eq!(outputs["value"], r#"["first.txt"]"#);
    assert_eq!(run["metrics"]["corpus.bytes"], 20.0);
    let shown = project.tinylm("show @last").success().stdout;
    assert!(shown.contains("bytes 20"), "{shown}");

    let stage = json(&project, "show @last/sorted --json");
    assert_eq!(stage["stage"]["inputs"].to_string(), r#"{"0":["corpus"]}"#);
    let execution = &stage["execution"];
    assert!(
        execution["peak_memory_bytes"].as_u64() > Some(1 << 20),
        "{stage}"
    );
    assert!(execution["cpu_seconds"].as_f64() > Some(0.0), "{stage}");
    assert_eq!(execution["device"], "cpu");
    assert_eq!(execution["artifact"], stage["stage"]["artifact"]);
    assert!(
        execution["recipe"]
            .as_str()
            .unwrap()
            .contains("kind = command")
    );

    if !has_git {
        skipped("there is no git, so no commit was recorded");
        return;
    }
    assert_eq!(run["git_commit"].as_str().unwrap().len(), 40);
    assert_eq!(run["git_dirty"], false);
    project.write("corpus.txt", "date\n");
    project.tinylm("run chain.yaml").success();
    let changed = json(&project, "show @last --json");
    assert_eq!(changed["git_commit"], run["git_commit"]);
    assert_eq!(changed["git_dirty"], true);
}

#[test]
fn quiet_prints_the_results_and_nothing_else() {
    let project = Project::new();
    project.tinylm("init mine.yaml").success();
    let loud = project.tinylm("run mine.yaml").success();
    let quiet = project.tinylm("run mine.yaml --quiet").success();
    assert!(
        quiet.stdout.starts_with("answers> how are you?\n"),
        "{quiet}"
    );
    assert!(
        loud.stdout.contains(&format!("\n\n{}\n", quiet.stdout)),
        "{loud}"
    );
    assert_eq!(quiet.stderr, "");
}

#[test]
fn quiet_says_nothing_of_what_went_well_and_all_of_what_did_not() {
    let project = Project::chain();
    for _ in 0..2 {
        let run = project.tinylm("run chain.yaml --quiet").success();
        assert_eq!(run.to_string(), "");
    }
    project.replace("chain.yaml", "head -n 1", "exit 3; head -n 1");
    let run = project.tinylm("-q run chain.yaml").failure(1);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("stage `first` failed"), "{run}");
}

#[test]
fn what_is_long_goes_through_a_pager_on_a_terminal_only() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let shown = |command: &str| {
        let line = format!(
            "PAGER='cat > paged.txt' TERM=xterm script -qec 'stty rows 12 cols 80; {command}' /dev/null"
        );
        std::fs::remove_file(project.path("paged.txt")).ok();
        let mut shell = project.shell(&line);
        project.output(shell.stdin(std::process::Stdio::null()))
    };
    let paged = shown("tinylm report");
    if paged.code == Some(127) {
        skipped("there is no `script` to make a terminal with");
        return;
    }
    assert_eq!(paged.success().stdout, "");
    assert!(project.read("paged.txt").starts_with(&project.newest()));
    // A text that fits is shown at once, and a pipe is no terminal.
    for command in ["tinylm runs", "tinylm report | cat"] {
        assert!(shown(command).stdout.contains(&project.newest()));
        assert!(!project.path("paged.txt").exists(), "{command}");
    }
}

#[test]
fn colour_is_for_terminals_and_can_be_forbidden() {
    let project = Project::chain();
    let plan = |prefix: &str| {
        let line = format!("TERM=xterm {prefix} script -qec 'tinylm plan chain.yaml' /dev/null");
        project.output(&mut project.shell(&line))
    };
    let colored = plan("NO_COLOR=");
    if colored.code == Some(127) {
        skipped("there is no `script` to make a terminal with");
        return;
    }
    assert!(colored.success().stdout.contains("\u{1b}[33mdirty"));
    let plain = plan("NO_COLOR=1").success();
    assert!(plain.stdout.contains("dirty    corpus"), "{plain}");
    assert!(!plain.stdout.contains('\u{1b}'), "{plain}");
    project.tinylm("run chain.yaml").success();
    let line = "TERM=xterm NO_COLOR= script -qec 'tinylm runs' /dev/null";
    let runs = project.output(&mut project.shell(line)).success();
    assert!(runs.stdout.contains("\u{1b}[32mdone"), "{runs}");
    let piped = project.tinylm("plan chain.yaml").success();
    assert!(!piped.stdout.contains('\u{1b}'), "{piped}");
}
