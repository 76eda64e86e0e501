//! Runs any program as a stage.
//!
//! Reads whatever the author names and writes exactly the declared outputs: what else
//! the program leaves is not part of the artifact, and a program that succeeds without
//! writing one of them has failed. `{in.ROLE}`, `{in.ROLE.0}` and `{out}` become plain
//! absolute paths, never quoted, because the words of `run` go to the program as they
//! are; quoting is the business of whoever asks for a shell.
//!
//! The program sees of the environment what any program needs, and what the author asks for with
//! `env`: a token that was exported for a download is none of its business. What it prints is kept
//! as the stage's log, without the secrets that are known to be some.
//!
//! The program's own `files` are in the key and are copied into the folder it runs in,
//! so editing the script re-runs the stage and moving it does not.

use std::{
    borrow::Cow,
    fs,
    io::{BufRead, BufReader, PipeReader, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command as Process, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    At, Content, LocalPath, Metrics, NoSettings, Roles, SettingError, Stage, StageError, StageIo,
    copy_file,
    secrets::{MASK, Secrets, is_secret, spellings},
    settings, sys, threads,
};

/// How often the program is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub struct Command;

settings! {
    /// Settings of `command`.
    pub struct CommandSettings {
        /// The program and its arguments; `{in.ROLE}` and `{out}` become paths.
        pub run: Vec<String>,
        /// Files or folders below `{out}` that it must write: they are the artifact.
        pub outputs: Vec<String>,
        /// The program's own files, copied into the folder it runs in.
        pub files: Vec<LocalPath> = Vec::new(),
        /// Variables of the environment that it sees beside the usual ones, by name.
        pub env: Vec<String> = Vec::new() => neutral Vec::<String>::new(),
    }
}

/// What programs find their way with.
const USUAL: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "TMPDIR",
    "NO_COLOR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYENV_ROOT",
    "JAVA_HOME",
    "CUDA_VISIBLE_DEVICES",
    // By which an attempt's processes are known; see `pipeline/DESIGN.md`.
    "TINYLM_ATTEMPT",
];

/// The longest part of a line that is held before it is written to the log.
const PIECE_LEN: u64 = 1 << 16;
/// How long is waited for output behind the end of a program, which another one may hold open.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Stage for Command {
    type Settings = CommandSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "command";
    const ABOUT: &'static str = "runs a program; its declared outputs are the artifact";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const METRICS: &'static [Key] = &[("seconds", "How long its program ran.")];
    const ROLES: Roles = Roles::Any;

    fn canonical(settings: CommandSettings) -> Result<CommandSettings, SettingError> {
        if settings.run.is_empty() {
            return Err(SettingError::new("run", "names no program"));
        }
        if settings.outputs.is_empty() {
            return Err(SettingError::new(
                "outputs",
                "names no file, so nothing could read this",
            ));
        }
        for (idx, output) in settings.outputs.iter().enumerate() {
            let path = Path::new(output);
            let is_inside = path
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            if !is_inside || output.is_empty() {
                let message = format!("`{output}` is not a path below `{{out}}`");
                return Err(SettingError::new(format!("outputs.{idx}"), message));
            }
        }
        Ok(settings)
    }

    fn run(
        settings: &CommandSettings,
        _: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let words: Vec<String> = settings
            .run
            .iter()
            .map(|word| with_paths(word, io))
            .collect::<Result<_, _>>()?;
        let folder = io.out().parent().unwrap_or(io.out());
        copy_files(settings.files.len(), folder, io)?;
        let out = identity(io.out())?;
        let started = Instant::now();
        let (child, log) = start(&words, folder, settings, io)?;
        let status = wait(child, started, io);
        // Also of a program that was told to stop: its last words say where it was.
        log.finish();
        let status = status?;
        if !status.success() {
            return Err(failed(&words[0], status));
        }
        if io.out().is_symlink() {
            return Err(refused(io.out(), "is a link and not a folder"));
        }
        if identity(io.out())? != out {
            return Err(refused(
                io.out(),
                "is not the folder that was made for the program",
            ));
        }
        keep_only(&settings.outputs, io.out())?;
        Ok(Metrics::default().number("seconds", started.elapsed().as_secs_f64()))
    }
}

/// Replaces `{out}` and `{in.…}`; all other braces stay.
fn with_paths(word: &str, io: &StageIo) -> Result<String, StageError> {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(start) = rest.find('{') {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find('}').map(|end| &rest[1..end]);
        let path = match end {
            Some("out") => Some(io.out()),
            Some(name) => match name.strip_prefix("in.") {
                Some(name) => Some(input_path(name, io)?),
                None => None,
            },
            None => None,
        };
        match (path, end) {
            (Some(path), Some(name)) => {
                text.push_str(utf8(path)?);
                rest = &rest[name.len() + 2..];
            }
            _ => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// Finds an input by its role, by `ROLE.IDX` in a list, or (for a plain list) by its stage's name.
fn input_path<'a>(name: &str, io: &StageIo<'a>) -> Result<&'a Path, StageError> {
    if let [input] = io.inputs(name)[..] {
        return Ok(&input.path);
    }
    if let Some((role, idx)) = name.rsplit_once('.')
        && let Some(input) = idx
            .parse()
            .ok()
            .and_then(|idx: usize| io.inputs(role).get(idx).copied())
    {
        return Ok(&input.path);
    }
    // The roles of a plain list are positions, so there the stages' names are free.
    let is_listed = |role: &str| role.parse::<usize>().is_ok();
    let mut inputs = io.all_inputs().iter();
    if let Some(input) = inputs.find(|input| input.stage == name && is_listed(&input.role)) {
        return Ok(&input.path);
    }
    let known: Vec<String> = io
        .all_inputs()
        .iter()
        .map(|input| {
            if is_listed(&input.role) {
                &input.stage
            } else {
                &input.role
            }
        })
        .map(|name| format!("`{{in.{name}}}`"))
        .collect();
    let error = StageError::new(format!("`{{in.{name}}}` names no input of this stage")).is_final();
    Err(if known.is_empty() {
        error.help("give the stage `inputs`")
    } else {
        error.help(format!("it has {}", known.join(", ")))
    })
}

fn utf8(path: &Path) -> Result<&str, StageError> {
    path.to_str()
        .ok_or_else(|| StageError::new(format!("`{}` is not UTF-8", path.display())).is_final())
}

/// Copies the program's own files beside `out`, if they are still what the key says.
fn copy_files(n_files: usize, folder: &Path, io: &StageIo) -> Result<(), StageError> {
    for idx in 0..n_files {
        for file in io.local_files(&format!("files.{idx}")) {
            let target = folder.join(&file.name);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).at(parent)?;
            }
            copy_file(&file.path, &target)?;
            file.check(&target)?;
        }
    }
    Ok(())
}

/// Starts the program in the attempt's folder; what it prints goes into the stage's log.
fn start(
    words: &[String],
    folder: &Path,
    settings: &CommandSettings,
    io: &StageIo,
) -> Result<(Child, Log), StageError> {
    let (reader, writer) = std::io::pipe().at("a pipe")?;
    let other = writer.try_clone().at("a pipe")?;
    let mut process = Process::new(&words[0]);
    let is_seen = |name: &str| {
        USUAL.contains(&name) || name.starts_with("LC_") || settings.env.iter().any(|n| n == name)
    };
    let seen = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_seen));
    process
        .args(&words[1..])
        .current_dir(folder)
        .env_clear()
        .envs(seen)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(other);
    let child = sys::die_with_parent(&mut process)
        .spawn()
        .map_err(|error| {
            let error =
                StageError::new(format!("`{}` could not be started", words[0])).cause(error);
            error.help("is it installed, and on the PATH?").is_final()
        })?;
    // Its ends of the pipe close with it, so that reading has an end.
    drop(process);
    Ok((child, Log::start(reader, secrets(settings, io))?))
}

/// What must not stand in a log: tokens, wherever they are kept, what the program was given under a
/// name that tells, and what addresses on its command line hold.
fn secrets(settings: &CommandSettings, io: &StageIo) -> Vec<String> {
    let outside = io.outside();
    let known = [&outside.hf_token, &outside.kaggle_key].map(Clone::clone);
    let telling = settings.env.iter().filter(|name| is_secret(name));
    let given = telling.map(|name| std::env::var(name).ok());
    let mut secrets = Secrets::of(&settings.run.join("\n")).into_vec();
    secrets.extend(known.into_iter().chain(given).flatten());
    secrets.retain(|secret| secret.len() >= 8 && !MASK.contains(secret.as_str()));
    let spelt = secrets.iter().flat_map(|secret| spellings(secret));
    let spelt: Vec<String> = spelt.collect();
    secrets.extend(spelt);
    secrets
}

/// The thread that writes down what a program prints.
struct Log {
    thread: JoinHandle<()>,
}

impl Log {
    fn start(reader: PipeReader, secrets: Vec<String>) -> Result<Self, StageError> {
        let keep = move || {
            copy_masked(BufReader::new(reader), std::io::stderr(), &secrets);
        };
        let thread = threads::spawn(keep);
        let thread = thread.map_err(|error| StageError::no_thread(&error))?;
        Ok(Self { thread })
    }

    /// Waits for the last words, but not for a program that was left running and holds the pipe.
    fn finish(self) {
        let until = Instant::now() + LAST_WORDS;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Copies lines without the secrets in them; one of any length, a piece at a time.
fn copy_masked(mut from: impl BufRead, mut to: impl Write, secrets: &[String]) {
    // A piece may end inside of a secret, so that much of it waits for the next one.
    let held_len = secrets.iter().map(|secret| secret.len() - 1).max();
    let mut piece = Vec::new();
    while (&mut from)
        .take(PIECE_LEN)
        .read_until(b'\n', &mut piece)
        .is_ok_and(|n_read| n_read > 0)
    {
        let shown = masked(&piece, secrets);
        let held_len = held_len.filter(|_| !shown.ends_with(b"\n")).unwrap_or(0);
        let (now, held) = shown.split_at(shown.len().saturating_sub(held_len));
        to.write_all(now).ok();
        piece = held.to_vec();
    }
    to.write_all(&piece).ok();
}

fn masked<'a>(line: &'a [u8], secrets: &[String]) -> Cow<'a, [u8]> {
    let mut masked = Cow::Borrowed(line);
    for secret in secrets {
        while let Some(at) = memchr::memmem::find(&masked, secret.as_bytes()) {
            let end = at + secret.len();
            masked = Cow::Owned([&masked[..at], MASK.as_bytes(), &masked[end..]].concat());
        }
    }
    masked
}

/// Waits for the program; asked to stop, it is given the time that our own caller gives us.
fn wait(mut child: Child, started: Instant, io: &StageIo) -> Result<ExitStatus, StageError> {
    loop {
        if let Some(status) = child.try_wait().at("/proc")? {
            return match io.is_cancelled() {
                true => Err(StageError::cancelled()),
                false => Ok(status),
            };
        }
        if !io.is_cancelled() {
            io.progress(started.elapsed().as_secs(), None, "seconds")?;
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn failed(program: &str, status: ExitStatus) -> StageError {
    // `ExitStatus` prints as "exit status: 3" or "signal: 9 (SIGKILL)".
    StageError::new(format!("`{program}` ended with {status}"))
        .help("`tinylm show RUN/STAGE` prints what it wrote before that")
}

/// Removes from `out` what was not declared; fails when something declared is not there.
///
/// The program may have put a link where a folder was. Nothing is removed before every folder that
/// is looked into is known to be one: behind a link stands what is not ours.
fn keep_only(outputs: &[String], out: &Path) -> Result<(), StageError> {
    for output in outputs {
        refuse_links_on_the_way(out, output)?;
        if fs::symlink_metadata(out.join(output)).is_err() {
            let message = format!("the program succeeded but did not write `{{out}}/{output}`");
            return Err(StageError::new(message).is_final());
        }
    }
    let declared: Vec<PathBuf> = outputs.iter().map(|output| out.join(output)).collect();
    remove_others(out, &declared)
}

/// Which folder this is, whatever it is called: the program may have put another one, or a link to
/// one, in its place or in that of a folder around it.
fn identity(folder: &Path) -> Result<(u64, u64), StageError> {
    let metadata = fs::metadata(folder).at(folder)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn refused(folder: &Path, what: &str) -> StageError {
    StageError::new(format!("`{}` {what}", folder.display()))
        .help("let the program write into `{out}` as it finds it, and leave the folders around it alone")
        .is_final()
}

/// Refuses `out` itself and the folders between it and `output` when they are links.
fn refuse_links_on_the_way(out: &Path, output: &str) -> Result<(), StageError> {
    let path = out.join(output);
    let folders = path.ancestors().skip(1);
    for folder in folders.take_while(|folder| folder.starts_with(out)) {
        if folder.is_symlink() {
            return Err(refused(folder, "is a link and not a folder"));
        }
    }
    Ok(())
}

/// `folder` is a folder and no link.
fn remove_others(folder: &Path, declared: &[PathBuf]) -> Result<(), StageError> {
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let path = entry.path();
        // Of the entry itself: a link to a folder is not one.
        let is_folder = entry.file_type().at(&path)?.is_dir();
        if declared.contains(&path) {
            continue;
        }
        let leads_to_declared = declared.iter().any(|kept| kept.starts_with(&path));
        if leads_to_declared && is_folder {
            remove_others(&path, declared)?;
        } else if is_folder {
            fs::remove_dir_all(&path).at(&path)?;
        } else {
            fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;
    use tinylm_pipeline::testing::StageTest;

    use super::*;

    fn files_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_artifact_is_exactly_the_declared_outputs() {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "b\na\n").unwrap();
        let test = StageTest::new(dir.path()).input("corpus", dir.path());
        let outcome = test
            .run::<Command>(
                r#"
                run: [sh, -c, "sort {in.corpus}/a.txt > {out}/sorted.txt; echo ${x:-y} {z} > {out}/other"]
                outputs: [sorted.txt]
                "#,
            )
            .unwrap();
        assert_eq!(files_in(&outcome.out), ["sorted.txt"]);
        let sorted = fs::read_to_string(outcome.out.join("sorted.txt")).unwrap();
        assert_eq!(sorted, "a\nb\n");
    }

    #[test]
    fn success_without_a_declared_output_is_a_failure() {
        let dir = tempdir().unwrap();
        let test = StageTest::new(dir.path());
        let error = test
            .run::<Command>("{ run: ['true'], outputs: [x.txt] }")
            .unwrap_err();
        assert!(error.message.contains("{out}/x.txt"), "{error}");
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_refused_and_nothing_behind_it_is_touched() {
        let dir = tempdir().unwrap();
        let precious = dir.path().join("precious");
        let make = "mkdir -p {out}/deep;";
        let programs = [
            ("rmdir {out}/deep {out}; ln -s PRECIOUS {out}", "kept.txt"),
            (
                "rmdir {out}/deep; ln -s PRECIOUS {out}/deep",
                "deep/kept.txt",
            ),
            ("ln -s PRECIOUS {out}/deep/er", "deep/er/kept.txt"),
        ];
        for (idx, (program, output)) in programs.iter().enumerate() {
            fs::create_dir_all(precious.join("inner")).unwrap();
            for file in ["kept.txt", "other.txt", "inner/more.txt"] {
                fs::write(precious.join(file), file).unwrap();
            }
            let program = program.replace("PRECIOUS", &precious.to_string_lossy());
            let test = StageTest::new(&dir.path().join(idx.to_string()));
            let settings = format!("{{ run: [sh, -c, '{make} {program}'], outputs: [{output}] }}");
            let error = test.run::<Command>(&settings).unwrap_err();
            assert!(
                error.message.ends_with("is a link and not a folder"),
                "{error}"
            );
            assert_eq!(files_in(&precious), ["inner", "kept.txt", "other.txt"]);
            assert_eq!(files_in(&precious.join("inner")), ["more.txt"]);
        }
    }

    #[test]
    fn a_folder_of_the_same_name_behind_a_link_further_up_is_refused_and_left_alone() {
        let dir = tempdir().unwrap();
        let precious = dir.path().join("precious");
        let program = format!(
            "attempt=$(dirname {{out}}); there={}/$(basename {{out}}); mkdir -p $there; \
             touch $there/x $there/kept.txt; mv $attempt $attempt.moved; ln -s {} $attempt",
            precious.display(),
            precious.display()
        );
        let test = StageTest::new(&dir.path().join("test"));
        let settings = format!("{{ run: [sh, -c, '{program}'], outputs: [x] }}");
        let error = test.run::<Command>(&settings).unwrap_err();
        let said = "is not the folder that was made for the program";
        assert!(error.message.ends_with(said), "{error}");
        let inner = fs::read_dir(&precious).unwrap().next().unwrap().unwrap();
        assert_eq!(files_in(&inner.path()), ["kept.txt", "x"]);
    }

    #[test]
    fn links_that_were_not_declared_go_and_what_they_lead_to_stays() {
        let dir = tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("kept.txt"), "").unwrap();
        let program = format!("touch {{out}}/x; ln -s {} {{out}}/link", precious.display());
        let test = StageTest::new(&dir.path().join("test"));
        let settings = format!("{{ run: [sh, -c, '{program}'], outputs: [x] }}");
        let outcome = test.run::<Command>(&settings).unwrap();
        assert_eq!(files_in(&outcome.out), ["x"]);
        assert_eq!(files_in(&precious), ["kept.txt"]);
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand_in_a_line() {
        let secrets = ["hf_abcdefgh".to_owned(), "12345678".to_owned()];
        let line = b"a hf_abcdefgh 12345678hf_abcdefgh\n";
        let shown = masked(line, &secrets);
        assert_eq!(&*shown, b"a [secret] [secret][secret]\n");
        assert!(matches!(masked(b"nothing", &secrets), Cow::Borrowed(_)));
    }

    #[test]
    fn a_secret_is_masked_also_where_a_long_line_is_cut() {
        let secret = "hf_abcdefgh".to_owned();
        for n_before in PIECE_LEN as usize - 12..PIECE_LEN as usize + 2 {
            let line = [&vec![b'x'; n_before], secret.as_bytes(), b"yz"].concat();
            let mut log = Vec::new();
            copy_masked(line.as_slice(), &mut log, std::slice::from_ref(&secret));
            let wanted = [&vec![b'x'; n_before], MASK.as_bytes(), b"yz"].concat();
            assert!(log == wanted, "behind {n_before} bytes");
        }
    }

    #[test]
    fn its_own_files_are_copied_beside_it() {
        let dir = tempdir().unwrap();
        let script = dir.path().join("make.sh");
        fs::write(&script, "echo made > out/made.txt\n").unwrap();
        let test = StageTest::new(dir.path()).local_file("files.0", &script);
        let settings = "{ run: [sh, make.sh], outputs: [made.txt], files: [make.sh] }";
        let mut test = test;
        test.dir = dir.path().join("attempt");
        // `StageTest` names its folder out-command; the script writes through {out} in real life.
        fs::create_dir_all(test.dir.join("out")).unwrap();
        let settings = settings.replace(
            "[sh, make.sh]",
            r#"[sh, -c, "sh make.sh; mv out/made.txt {out}"]"#,
        );
        let outcome = test.run::<Command>(&settings).unwrap();
        assert_eq!(files_in(&outcome.out), ["made.txt"]);
    }

    #[test]
    fn an_unknown_input_is_named_with_the_ones_there_are() {
        let dir = tempdir().unwrap();
        let test = StageTest::new(dir.path()).input("corpus", dir.path());
        let error = test
            .run::<Command>("{ run: [cat, '{in.corpsu}'], outputs: [x] }")
            .unwrap_err();
        assert_eq!(error.help.as_deref(), Some("it has `{in.corpus}`"));
    }
}
