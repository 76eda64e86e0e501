//! Odd names of projects, inputs and outputs: they work, or are refused by name.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Output, Project};

/// A download and a program that copies what it brought; no shell, so that nothing needs quotes.
const COPY: &str = "\
stages:
  text: { kind: download, with: { path: 'in/*' } }
  copy:
    kind: command
    inputs: [text]
    with: { run: [cp, -r, '{in.text}', '{out}/copied'], outputs: [copied] }
";

/// Makes a project in a folder of this name below `project`.
fn inside(project: &Project, name: &OsStr) -> PathBuf {
    let folder = project.path("").join(name);
    fs::create_dir_all(folder.join("in")).unwrap();
    fs::write(folder.join("in/a.txt"), "x\n").unwrap();
    fs::write(folder.join("copy.yaml"), COPY).unwrap();
    folder
}

fn tinylm_in(project: &Project, folder: &Path, args: &[&str]) -> Output {
    project.output(project.command(args).current_dir(folder))
}

#[test]
fn a_project_may_live_in_any_folder_whose_name_is_text() {
    let project = Project::new();
    let names = [
        "with spaces",
        "two\nlines",
        "draft [v2] *?",
        "don't \"$HOME\" `x`",
        "100% #1?a=b&c",
        "пример 例",
        "-rf",
    ];
    for name in names {
        let folder = inside(&project, name.as_ref());
        let run = tinylm_in(&project, &folder, &["run", "copy.yaml"]);
        assert!(run.success().stdout.contains("2 made"), "{name}");
        let again = tinylm_in(&project, &folder, &["run", "copy.yaml"]).success();
        assert!(again.stdout.contains("2 hit"), "{name}: {again}");
        let place = tinylm_in(&project, &folder, &["cache", "path", "@last/copy"]);
        let place = place
            .success()
            .stdout
            .replace("[ROOT]/", &project.path("").to_string_lossy());
        let copied = Path::new(place.strip_suffix('\n').unwrap()).join("copied/a.txt");
        assert_eq!(fs::read_to_string(copied).unwrap(), "x\n", "{name}");
    }
}

#[test]
fn a_project_or_home_whose_name_is_no_text_is_refused_before_anything_is_written() {
    let project = Project::new();
    let odd = OsStr::from_bytes(b"odd-\xff");
    let folder = inside(&project, odd);
    for args in [
        &["run", "copy.yaml"][..],
        &["plan", "copy.yaml"],
        &["runs"],
        &["gc"],
    ] {
        let output = tinylm_in(&project, &folder, args).failure(2);
        assert!(output.stderr.contains("odd-\u{fffd}"), "{output}");
        assert!(output.stderr.contains("is not UTF-8"), "{output}");
        assert!(output.stderr.contains("help: "), "{output}");
    }
    assert!(!folder.join(".tinylm").exists());

    let plain = inside(&project, "plain".as_ref());
    let home = plain.join(odd);
    fs::create_dir(&home).unwrap();
    let mut command = project.command(&["run", "copy.yaml", "--home"]);
    let output = project
        .output(command.arg(&home).current_dir(&plain))
        .failure(2);
    assert!(
        output.stderr.contains("odd-\u{fffd}` is not UTF-8"),
        "{output}"
    );
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn odd_names_and_links_among_the_inputs_arrive_as_what_they_are() {
    let project = Project::new();
    let folder = inside(&project, "here".as_ref());
    let names = [
        "a.txt",
        "new\nline.txt",
        "sp ace.txt",
        "star*",
        "12:30",
        r"back\slash",
        "-n",
    ];
    for name in names {
        fs::write(folder.join("in").join(name), name).unwrap();
    }
    fs::write(project.path("elsewhere.txt"), "linked").unwrap();
    symlink("../../elsewhere.txt", folder.join("in/link.txt")).unwrap();
    symlink("in", folder.join("linked folder")).unwrap();
    for path in ["in", "in/*", "linked folder", "linked folder/*"] {
        fs::write(folder.join("copy.yaml"), COPY.replace("in/*", path)).unwrap();
        tinylm_in(&project, &folder, &["run", "copy.yaml"]).success();
        let place = tinylm_in(&project, &folder, &["cache", "path", "@last/copy"]).success();
        let place = place
            .stdout
            .trim()
            .replace("[ROOT]/", &project.path("").to_string_lossy());
        let copied = Path::new(&place).join("copied");
        for name in names {
            assert_eq!(
                fs::read_to_string(copied.join(name)).unwrap(),
                name,
                "{path}"
            );
        }
        let link = copied.join("link.txt");
        assert!(!link.is_symlink());
        assert_eq!(fs::read_to_string(link).unwrap(), "linked");
    }
    let runs = tinylm_in(&project, &folder, &["runs"]).success();
    assert_eq!(runs.stdout.lines().skip(1).count(), 4);
    let plan = tinylm_in(&project, &folder, &["plan", "copy.yaml"]).success();
    assert!(plan.stdout.ends_with("has nothing to do.\n"), "{plan}");
}

#[test]
fn inputs_that_cannot_be_taken_are_refused_by_name_before_anything_runs() {
    let project = Project::new();
    let folder = inside(&project, "here".as_ref());
    let odd = folder.join("in").join(OsStr::from_bytes(b"odd-\xff.txt"));
    let link = folder.join("in/link");
    let makes: [(&str, &dyn Fn()); 4] = [
        ("in/odd-\u{fffd}.txt` is not UTF-8", &|| {
            fs::write(&odd, "").unwrap()
        }),
        ("in/link` is a link to nothing", &|| {
            symlink("nothing", &link).unwrap()
        }),
        ("in/link` is a link to a folder that it is in", &|| {
            symlink(".", &link).unwrap()
        }),
        ("in/link` is neither a file nor a folder", &|| {
            let made = Command::new("mkfifo").arg(&link).status().unwrap();
            assert!(made.success());
        }),
    ];
    for (said, make) in makes {
        make();
        fs::write(folder.join("copy.yaml"), COPY.replace("in/*", "in")).unwrap();
        for command in ["plan", "run"] {
            let output = tinylm_in(&project, &folder, &[command, "copy.yaml"]).failure(2);
            assert!(output.stderr.contains(said), "{output}");
            assert!(output.stderr.contains("help: "), "{output}");
            assert_eq!(output.stdout, "", "nothing ran");
        }
        fs::remove_file(&odd).ok();
        fs::remove_file(&link).ok();
    }
}

#[test]
fn odd_outputs_are_kept_or_refused_by_name() {
    let project = Project::new();
    let with = |run: &str, output: &str| {
        let run = run.replace('\'', "''");
        project.write(
            "out.yaml",
            &format!(
                "stages:\n  odd: {{ kind: command, with: {{ run: [sh, -c, '{run}'], outputs: [{output}] }} }}\n"
            ),
        );
        project.tinylm("run out.yaml")
    };
    with(
        "printf x > \"{out}/$(printf \"new\\nline\")\"",
        r#""new\nline""#,
    )
    .success();
    assert_eq!(project.artifact("odd", "new\nline"), "x");
    let output = with(
        "mkdir {out}/d; touch {out}/d/\"$(printf \"odd-\\377\")\"",
        "d",
    )
    .failure(1);
    assert!(
        output.stderr.contains("d/odd-\u{fffd}` is not UTF-8"),
        "{output}"
    );
    assert!(output.stderr.contains("help: rename it"), "{output}");
    let output = with("mkfifo {out}/pipe", "pipe").failure(1);
    assert!(output.stderr.contains("pipe` is a named pipe"), "{output}");
    project.write("precious/kept.txt", "x");
    project.write("precious/other.txt", "y");
    let precious = project.path("precious").display().to_string();
    for links in [
        "rmdir {out}; ln -s PRECIOUS {out}",
        "ln -s PRECIOUS {out}/d",
    ] {
        let output = if links.ends_with("/d") {
            "d/kept.txt"
        } else {
            "kept.txt"
        };
        let output = with(&links.replace("PRECIOUS", &precious), output).failure(1);
        assert!(
            output.stderr.contains("is a link and not a folder"),
            "{output}"
        );
        assert_eq!(project.read("precious/kept.txt"), "x");
        assert_eq!(
            project.read("precious/other.txt"),
            "y",
            "what is behind a link is not ours"
        );
    }
}
