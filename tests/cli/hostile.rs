//! Names, notes, logs and models' words that would command the terminal they are shown on.

use tinylm_registry::{Home, Registry};

use crate::harness::{Output, Project};

/// An escape sequence, the same in one C1 character, a line turned around, a name that hides.
const EVIL: &str = "a\x1b]0;owned\x07\u{9b}31mb\u{202e}c\u{2066}d\u{200b}e";

const EXPERIMENT: &str = r#"
name: evil
stages:
  corpus:
    kind: download
    with: { path: "a\e]0;owned\a\u009b31mb\u202ec\u2066d\u200be.txt" }
  said:
    kind: command
    inputs: [corpus]
    with:
      run: [sh, -c, "cat '{in.corpus}'/* >&2; cp '{in.corpus}'/* '{out}/said.txt'; exit $CODE"]
      outputs: [said.txt]
"#;

#[track_caller]
fn is_clean(output: &Output) {
    let commands = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hidden = |c: char| commands(c) || turns(c) || c == '\u{200b}';
    let text = output.to_string();
    assert!(!text.contains(hidden), "{text:?}");
    assert!(!text.is_empty());
}

#[test]
fn no_name_note_log_or_sample_reaches_the_terminal_as_a_command() {
    let project = Project::new();
    project.write("evil.yaml", &EXPERIMENT.replace("$CODE", "0"));
    project.write(&format!("{EVIL}.txt"), &format!("{EVIL}\n"));
    let tagged = ["run", "evil.yaml", "-v", "--tag", EVIL];
    is_clean(&project.tinylm_words(&tagged).failure(2));
    is_clean(&project.tinylm("run evil.yaml -v").success());
    let note = ["note", "@last", EVIL, "seen"];
    let _ = project.tinylm_words(&note).success();
    let registry = Registry::open(&Home::at(project.path(".tinylm"))).unwrap();
    let last = registry.find_run("@last").unwrap();
    // As an older version took it.
    registry.add_tag(&last.id, EVIL).unwrap();
    let execution = registry.stages(&last.id).unwrap()[1].execution_id.clone();
    let sample = (None, EVIL.to_owned(), EVIL.to_owned());
    registry
        .append_samples(&execution.unwrap(), &[sample], 0)
        .unwrap();

    project.write("evil.yaml", &EXPERIMENT.replace("$CODE", "3"));
    is_clean(&project.tinylm("run evil.yaml -v").failure(1));
    for command in [
        "plan evil.yaml",
        "runs",
        "runs --json",
        "show @last",
        "show @last --json",
        "show @last/corpus",
        "show @last/said",
        "report @last -v",
        "report @last --markdown",
        "report @last --json",
        "report @last --csv",
        "runs owned",
    ] {
        is_clean(&project.tinylm(command).success());
    }
    let first = ["report", last.name.as_str(), "-v"];
    let told = project.tinylm_words(&first).success();
    is_clean(&told);
    assert!(told.stdout.contains("seen") && told.stdout.contains("Samples of said"));
    is_clean(&project.tinylm_words(&["show", EVIL]).failure(2));
    is_clean(
        &project
            .tinylm_words(&["report", "--where", EVIL])
            .failure(2),
    );
}
