//! A store that a team shares: what one has made, another fetches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Output, Project};

/// A chain whose middle stage makes many small files and one that is larger.
fn project() -> Project {
    let project = Project::chain();
    let many = "mkdir '{out}/deep'; for n in 1 2 3 4 5; do echo $n > \"{out}/deep/$n\"; done; \
                : > '{out}/empty'; head -c 400000 /dev/zero > '{out}/large'; ";
    project.replace(
        "chain.yaml",
        "\"sort '{in.corpus}/corpus.txt'",
        &format!(
            "\"{}sort '{{in.corpus}}/corpus.txt'",
            many.replace('"', "\\\"")
        ),
    );
    project.replace(
        "chain.yaml",
        "[sorted.txt]",
        "[sorted.txt, large, empty, deep]",
    );
    project
}

/// `tinylm` in a project, with a remote in a folder.
fn sharing(project: &Project, shared: &Path, mode: &str, args: &str) -> Command {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    command
        .env("TINYLM_REMOTE", format!("file://{}", shared.display()))
        .env("TINYLM_REMOTE_MODE", mode);
    command
}

fn run(project: &Project, shared: &Path, mode: &str) -> Output {
    project.output(&mut sharing(project, shared, mode, "run chain.yaml"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn a_teammate_with_an_empty_home_hits_every_stage() {
    let shared = tempfile::tempdir().unwrap();
    let ours = project();
    let made = run(&ours, shared.path(), "write").success();
    assert!(
        made.stderr.contains("pushed 3 artifacts to file://"),
        "{made}"
    );
    assert_eq!(ours.outcomes(), "corpus made, sorted made, first made");
    assert_eq!(
        files_below(&ours.path(".tinylm/pushes")),
        [] as [PathBuf; 0]
    );

    let theirs = project();
    let hit = run(&theirs, shared.path(), "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
    let name = ours.newest();
    let from = format!("from {name}, 400 kB fetched from file://");
    assert!(hit.stdout.contains(&from), "{hit}");
    theirs.tinylm("cache verify").success();
    for file in ["sorted.txt", "empty", "deep/1"] {
        assert_eq!(
            theirs.artifact("sorted", file),
            ours.artifact("sorted", file)
        );
    }

    // From then on it is theirs: nobody is asked.
    fs::rename(shared.path(), shared.path().with_extension("away")).unwrap();
    let fresh = run(&theirs, shared.path(), "read").success();
    assert_eq!(fresh.stderr.matches("warning").count(), 0, "{fresh}");
    assert!(!fresh.stdout.contains("fetched"), "{fresh}");
    fs::rename(shared.path().with_extension("away"), shared.path()).unwrap();
}
