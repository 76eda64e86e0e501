//! Damaged stores, damaged registries, full disks and homes that cannot be written to.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use crate::{
    harness::{Output, Project, copy_for_others},
    skipped::skipped,
};

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
fn two_keys_that_make_the_same_bytes_share_them_and_heal_them_for_each_other() {
    let project = Project::new();
    project.write(
        "twins.yaml",
        "stages:
  a: { kind: command, with: { run: [sh, -c, \"echo same > '{out}/x'\"], outputs: [x] } }
  b: { kind: command, with: { run: [sh, -c, \"printf 'same\\\\n' > '{out}/x'\"], outputs: [x] } }
",
    );
    project.tinylm("run twins.yaml -j 2").success();
    assert_eq!(project.outcomes(), "a made, b made");
    let folder = project.artifact_folder("a");
    assert_eq!(project.artifact_folder("b"), folder);
    let usage = project.tinylm("cache du").success();
    assert!(usage.stdout.contains("5 B in 1 artifacts"), "{usage}");

    fs::write(folder.join("x"), "sane\n").unwrap();
    let plan = project.tinylm("plan twins.yaml").success();
    assert_eq!(
        plan.stdout.matches("its artifact is damaged").count(),
        2,
        "{plan}"
    );
    project.tinylm("run twins.yaml -j 1").success();
    // The one has made again what the other was looking for.
    assert_eq!(project.outcomes(), "a made, b hit");
    project.tinylm("cache verify").success();

    // The bytes stay for as long as either needs them.
    project.tinylm("run twins.yaml --until b").success();
    let names = project.tinylm("runs --json").success();
    let runs: serde_json::Value = serde_json::from_str(&names.stdout).unwrap();
    for run in &runs.as_array().unwrap()[1..] {
        let name = run["name"].as_str().unwrap();
        project.tinylm(&format!("rm {name}")).success();
    }
    project.tinylm("gc").success();
    project.tinylm("run twins.yaml --until b").success();
    assert_eq!(project.outcomes(), "b hit");
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
fn rot_that_no_stat_shows_is_healed_once_verify_has_found_it() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let sorted = project.artifact_folder("sorted").join("sorted.txt");
    fs::write(&sorted, "apple\nbanana\ncherrj\n").unwrap();
    trust(&sorted);
    project.tinylm("run chain.yaml").success();
    let hits = "corpus hit, sorted hit, first hit";
    assert_eq!(project.outcomes(), hits, "the disk rots in silence");

    project.tinylm("cache verify").failure(3);
    let plan = project.tinylm("plan chain.yaml").success();
    let said = "dirty    sorted  its artifact is damaged: `";
    assert!(plan.stdout.contains(said), "{plan}");
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted made, first hit");
    assert_eq!(
        fs::read_to_string(&sorted).unwrap(),
        "apple\nbanana\ncherry\n"
    );
    project.tinylm("cache verify").success();
}

/// Makes the manifest of an artifact believe in a file as it is now, as if the disk had changed
/// it behind the file system's back.
fn trust(file: &Path) {
    let path = file.ancestors().nth(2).unwrap().join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let stat = fs::metadata(file).unwrap();
    let known = &mut manifest["files"][0];
    known["mtime_ns"] = (stat.mtime() * 1_000_000_000 + stat.mtime_nsec()).into();
    known["ctime_ns"] = (stat.ctime() * 1_000_000_000 + stat.ctime_nsec()).into();
    known["inode"] = stat.ino().into();
    known["settled"] = true.into();
    fs::write(&path, manifest.to_string()).unwrap();
}

#[test]
fn what_was_made_from_bytes_that_changed_meanwhile_is_not_recorded() {
    let harms: [fn(&Path); 2] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "cherry\napple\nbandana\n").unwrap(),
    ];
    for harm in harms {
        let project = Project::chain();
        project.tinylm("run chain.yaml --until corpus").success();
        let corpus = project.artifact_folder("corpus").join("corpus.txt");
        // The stage has read its input, and stands still until the harm is done.
        project.replace(
            "chain.yaml",
            "sorted.txt'\"]",
            &format!(
                "sorted.txt'; touch {}; while [ ! -e {} ]; do sleep 0.01; done\"]",
                project.path("has-read").display(),
                project.path("go-on").display()
            ),
        );
        let run = project.start("run chain.yaml");
        project.wait_for("has-read");
        harm(&corpus);
        project.write("go-on", "");
        let output = project.wait(run).failure(1);
        let said = "stage `sorted` failed: what it read of `corpus` was changed meanwhile";
        assert!(output.stderr.contains(said), "{output}");
        assert!(output.stderr.contains("corpus.txt` "), "{output}");
        assert!(output.stderr.contains("made anew"), "{output}");

        project.tinylm("run chain.yaml").success();
        assert_eq!(project.outcomes(), "corpus made, sorted made, first made");
        let sorted = project.artifact("sorted", "sorted.txt");
        assert_eq!(sorted, "apple\nbanana\ncherry\n");
    }
}

#[test]
fn a_program_that_puts_a_link_in_the_place_of_its_work_folder_costs_nobody_a_file() {
    let project = Project::new();
    let precious = project.path("precious");
    for folder in ["checkpoints", "out", "attempt"] {
        project.write(&format!("precious/{folder}/kept.txt"), "kept\n");
    }
    let swap = format!(
        "key=$(dirname $(dirname '{{out}}')); mv $key $key.moved; ln -s {} $key; exit 1",
        precious.display()
    );
    project.write(
        "evil.yaml",
        &format!("stages:\n  evil: {{ kind: command, with: {{ run: [sh, -c, \"{swap}\"], outputs: [x] }} }}\n"),
    );
    let is_untouched = || {
        let kept = files_below(&precious);
        assert_eq!(
            kept,
            ["attempt/kept.txt", "checkpoints/kept.txt", "out/kept.txt"]
        );
    };
    project.tinylm("run evil.yaml").failure(1);
    is_untouched();
    for command in ["run evil.yaml --force evil", "run evil.yaml"] {
        let output = project.tinylm(command).failure(1);
        assert!(
            output
                .stderr
                .contains("` is a link, and nothing is made or removed behind one"),
            "{output}"
        );
        assert!(
            output.stderr.contains("help: look at what it leads to"),
            "{output}"
        );
        is_untouched();
    }
    let last = project.last_run("name");
    project.tinylm(&format!("rm {last}")).success();
    project.tinylm("gc").success();
    is_untouched();
}

#[test]
fn a_folder_of_locks_that_became_a_link_is_left_alone() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    project.write("precious/kept.txt", "kept\n");
    let locks = project.path(".tinylm/locks");
    fs::rename(&locks, project.path("moved")).unwrap();
    std::os::unix::fs::symlink(project.path("precious"), &locks).unwrap();
    for command in ["gc", "run chain.yaml"] {
        let output = project.tinylm(command);
        assert_ne!(output.code, Some(0), "{output}");
        assert!(output.stderr.contains("locks` is a link"), "{output}");
    }
    assert_eq!(files_below(&project.path("precious")), ["kept.txt"]);
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => found.extend(
                files_below(&path)
                    .into_iter()
                    .map(|below| format!("{name}/{below}")),
            ),
            false => found.push(name),
        }
    }
    found.sort();
    found
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
fn a_truncated_log_of_the_registry_costs_nothing_that_the_journals_do_not_say() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let log = project.path(".tinylm/registry.sqlite-wal");
    let bytes = fs::read(&log).unwrap();
    assert!(
        !bytes.is_empty(),
        "the last run left its log for the next to read"
    );
    fs::write(&log, &bytes[..bytes.len() / 2]).unwrap();
    for command in ["runs", "plan chain.yaml", "gc", "doctor"] {
        project.tinylm(command).success();
    }
    let says_rebuild = |project: &Project| {
        let doctor = project.tinylm("doctor").success();
        doctor.stdout.contains("`tinylm doctor --rebuild`")
    };
    assert!(says_rebuild(&project));
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");
    assert!(
        !says_rebuild(&project),
        "a hit has the journal of its maker read"
    );
    let rebuilt = project.tinylm("doctor --rebuild").success();
    assert!(rebuilt.stdout.contains("2 runs"), "{rebuilt}");
    assert!(!rebuilt.stdout.contains("--rebuild"), "{rebuilt}");
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
        skipped("this user may not mount a small file system");
        return;
    }
    // While `fill` is there, the stage itself fills the disk after it has written its output.
    let (fill, filler) = (project.path("fill"), home.join("filler"));
    let fills = format!(
        "; [ ! -e {} ] || head -c 2000000 /dev/zero > {}; true\"]",
        fill.display(),
        filler.display()
    );
    project.replace(
        "chain.yaml",
        "sorted.txt'\"]",
        &format!("sorted.txt'{fills}"),
    );
    fs::write(&fill, "").unwrap();
    let full = project.tinylm("run chain.yaml --home small/home");
    fs::remove_file(&fill).unwrap();
    fs::remove_file(&filler).unwrap();
    let verified = project.tinylm("cache verify --home small/home");
    let again = project.tinylm("run chain.yaml --home small/home");
    Command::new("umount")
        .arg("-l")
        .arg(&home)
        .status()
        .unwrap();
    let full = full.failure(1);
    assert_eq!(full.stderr.matches("error: ").count(), 1, "{full}");
    let said = "error: stage `sorted` failed: no room left to write `[ROOT]/small/home/store/";
    assert!(full.stderr.contains(said), "{full}");
    assert!(full.stderr.contains(", which needs "), "{full}");
    assert!(full.stderr.contains("help: make room"), "{full}");
    verified.success();
    assert!(
        again.success().stdout.contains("1 hit"),
        "the download was kept"
    );
    assert_eq!(project.read("corpus.txt"), "cherry\napple\nbanana\n");
}

/// Runs `tinylm` as a user without rights, for root may write anywhere; nothing where that is not
/// possible.
fn as_nobody(project: &Project, args: &str) -> Option<Output> {
    let who = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let output = project.output(&mut project.shell(&format!("{who} ./tinylm {args}")));
    let is_refused = output.stderr.contains("setpriv") && !output.stderr.contains("error: ");
    (!is_refused).then_some(output)
}

#[test]
fn a_read_only_home_serves_hits_and_says_it_was_not_recorded() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    copy_for_others(&project, 0o755);
    let Some(output) = as_nobody(&project, "run chain.yaml") else {
        skipped("this user cannot become another one");
        return;
    };
    let output = output.success();
    assert_eq!(output.stdout.matches("hit ").count(), 3, "{output}");
    assert!(
        output.stderr.contains("this run was not recorded"),
        "{output}"
    );

    project.replace("chain.yaml", "head -n 1", "head -n 2");
    let failed = as_nobody(&project, "run chain.yaml").unwrap().failure(1);
    assert!(!failed.to_string().contains("tinylm resume"), "{failed}");
    assert!(
        failed.stdout.contains("; go on with the same command"),
        "{failed}"
    );
}

#[test]
fn what_would_change_a_read_only_home_says_that_it_is_one_and_what_to_do() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    copy_for_others(&project, 0o755);
    for command in [
        "gc",
        "rm @last",
        "tag @last good",
        "note @last good",
        "resume",
    ] {
        let Some(output) = as_nobody(&project, command) else {
            skipped("this user cannot become another one");
            return;
        };
        let output = output.failure(1);
        insta::allow_duplicates! {
            insta::assert_snapshot!(output, @"
            error: the home `[ROOT]/.tinylm` may only be read
              help: give the command as somebody who may write there, or copy the home and name the copy (`--home`)
            ");
        }
    }
}

#[test]
fn a_home_on_two_file_systems_is_told_by_name_and_leaves_the_store_clean() {
    let project = Project::chain();
    for folder in ["store", "work"] {
        let mount = format!("mkdir -p .tinylm/{folder} && mount -t tmpfs none .tinylm/{folder}");
        let line = "tinylm run chain.yaml; code=$?; ls .tinylm/store/staging; exit $code";
        let Some(output) = project.with_mount(&mount, line) else {
            skipped("nothing can be mounted here");
            return;
        };
        let output = output.failure(1);
        let said = "` are on different file systems";
        assert_eq!(output.stderr.matches(said).count(), 1, "{output}");
        assert!(
            output.stderr.contains("help: a home is one file system"),
            "{output}"
        );
        assert!(!output.to_string().contains("cross-device"), "{output}");
        assert!(output.stdout.ends_with("\n"), "{output}");
        let last = output.stdout.lines().last().unwrap();
        assert!(last.contains("1 failed"), "staging is not empty: {output}");
    }
}

#[test]
fn a_copy_that_finds_no_room_names_where_it_was_to_go() {
    let project = Project::chain();
    project.write("corpus.txt", &"cherry\n".repeat(1 << 19));
    let mount = "mkdir -p .tinylm && mount -t tmpfs -o size=1m none .tinylm";
    let Some(output) = project.with_mount(mount, "tinylm run chain.yaml") else {
        skipped("nothing can be mounted here");
        return;
    };
    let output = output.failure(1);
    let said = output.stderr.lines().find(|line| line.starts_with("error"));
    let said = said.unwrap();
    assert!(said.contains("`[ROOT]/.tinylm/work/"), "{output}");
    assert!(!said.contains("`[ROOT]/corpus.txt`"), "{output}");
    assert!(
        output.stderr.contains("No space left on device"),
        "{output}"
    );
}
