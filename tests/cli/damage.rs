//! Damaged stores, damaged registries, full disks and homes that cannot be written to.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::harness::Project;

#[test]
fn a_damaged_artifact_is_a_miss_that_heals() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let damage: [fn(&std::path::Path); 3] = [
        |file| fs::write(file, "other words\n").unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| fs::remove_file(file).unwrap(),
    ];
    for harm in damage {
        let folder = project.artifact_folder("sorted");
        harm(&folder.join("sorted.txt"));
        let plan = project.tinylm("plan chain.yaml").success();
        assert!(
            plan.stdout
                .contains("dirty    sorted  its artifact is damaged"),
            "{plan}"
        );
        project.tinylm("run chain.yaml").success();
        assert_eq!(project.outcomes(), "corpus hit, sorted made, first hit");
        assert_eq!(
            project.artifact("sorted", "sorted.txt"),
            "apple\nbanana\ncherry\n"
        );
    }
}

#[test]
fn silent_rot_is_found_by_verify() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    project.tinylm("cache verify").success();
    fs::write(
        project.artifact_folder("first").join("first.txt"),
        "abble\n",
    )
    .unwrap();
    let output = project.tinylm("cache verify").failure(3);
    assert!(output.stdout.contains("damaged"), "{output}");
    assert!(
        output.stderr.contains("run the experiment again"),
        "{output}"
    );
}

#[test]
fn a_truncated_registry_ends_the_command_before_anything_runs() {
    let project = Project::chain();
    project.tinylm("run chain.yaml --until corpus").success();
    for file in ["registry.sqlite-wal", "registry.sqlite-shm"] {
        fs::remove_file(project.path(".tinylm").join(file)).ok();
    }
    let registry = project.path(".tinylm/registry.sqlite");
    let bytes = fs::read(&registry).unwrap();
    fs::write(&registry, &bytes[..bytes.len() / 2]).unwrap();
    let output = project.tinylm("run chain.yaml").failure(3);
    assert!(output.stderr.contains("registry.sqlite"), "{output}");
    assert!(output.stderr.contains("help: "), "{output}");
    assert_eq!(output.stdout, "", "nothing ran");
}

#[test]
fn gc_frees_exactly_what_removed_runs_leave() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    project.replace("chain.yaml", "sort '", "sort -r '");
    project.tinylm("run chain.yaml").success();
    let last = project.last_run("name");
    let dry = project.tinylm("gc --dry-run").success();
    assert!(dry.stdout.contains("would free 0 B"), "{dry}");
    project.tinylm(&format!("rm {last}")).success();
    let dry = project.tinylm("gc --dry-run --json").success();
    let done = project.tinylm("gc --json").success();
    assert_eq!(dry.stdout, done.stdout, "a dry run lists exactly what goes");
    assert!(done.stdout.contains("artifact"), "{done}");
    project.replace("chain.yaml", "sort -r '", "sort '");
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn odd_files_are_refused_by_name_and_odd_names_work() {
    let project = Project::new();
    project.write("a folder/with spaces.txt", "x\n");
    project.write(
        "odd names.yaml",
        "stages:
  text: { kind: download, with: { path: 'a folder' } }
  link: { kind: command, inputs: [text], with: { run: [ln, -s, /etc/passwd, '{out}/link'], outputs: [link] } }
",
    );
    let output = project.tinylm_words(&["run", "odd names.yaml"]).failure(1);
    assert_eq!(project.outcomes(), "text made, link failed");
    assert!(
        output.stderr.contains("link` is a symbolic link"),
        "{output}"
    );
    assert_eq!(project.artifact("text", "with spaces.txt"), "x\n");
}

#[test]
fn a_full_disk_is_one_error_and_the_same_command_succeeds_later() {
    let project = Project::chain();
    let home = project.path("small");
    fs::create_dir(&home).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&home)
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        println!("SKIPPED: this user may not mount a small file system");
        return;
    }
    project
        .tinylm("run chain.yaml --home small/home --until corpus")
        .success();
    let filler = home.join("filler");
    fs::write(&filler, vec![0; 1 << 20]).ok();
    project.replace("chain.yaml", "sort '", "seq 100000 > '{out}/n'; sort '");
    let output = project.tinylm("run chain.yaml --home small/home");
    fs::remove_file(&filler).unwrap();
    project.replace("chain.yaml", "seq 100000 > '{out}/n'; ", "");
    let again = project.tinylm("run chain.yaml --home small/home");
    Command::new("umount")
        .arg("-l")
        .arg(&home)
        .status()
        .unwrap();
    assert!(output.code == Some(1) || output.code == Some(3), "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    again.success();
    assert_eq!(project.read("corpus.txt"), "cherry\napple\nbanana\n");
}

#[test]
fn a_read_only_home_serves_hits_and_says_it_was_not_recorded() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    // Root may write anywhere, so the run is made as a user without rights.
    let folder = project.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = env!("CARGO_BIN_EXE_tinylm");
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            binary,
            "run",
            "chain.yaml",
        ])
        .current_dir(&folder)
        .output();
    let Some(output) = output.ok().filter(|output| {
        let text = String::from_utf8_lossy(&output.stderr);
        !text.contains("setpriv:")
    }) else {
        println!("SKIPPED: this user cannot become another one");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Permission denied") && text.is_empty() {
        println!("SKIPPED: another user cannot reach {binary}");
        return;
    }
    assert!(output.status.success(), "{text}{said}");
    assert_eq!(text.matches("hit ").count(), 3, "{text}{said}");
    assert!(said.contains("this run was not recorded"), "{text}{said}");
}
