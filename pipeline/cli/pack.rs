//! `tinylm pack` and `tinylm unpack`: a run as one file, for whoever shares no store.
//!
//! Inside is a shared store that holds this run alone, so what is unpacked is verified as what is pulled is.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use tinylm_registry::{
    Condition, Digest, Home, KeyRecord, Patient, Registry, Store, keys::read_key, names,
};
use tinylm_remote::{
    Mode, Remote, Settings, SharedRun,
    pack::{self, PackError, PackHead},
};
use tinylm_reports::bytes;

use crate::{
    completions,
    failure::{Failure, STAGE_FAILED},
    output::{print_line, say},
    project::{Project, quoted},
    push::{Taking, hold_store},
    shared::store_behind,
    shared_run::{self, shared_run},
    signals::listen_for_signals,
};

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// The run
    #[arg(add = completions::runs())]
    pub(crate) run: String,
    /// The file; without it, `RUN.tar.zst` here
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Leave the artifacts out: what they are is told by their digests, which `verify` compares
    #[arg(long)]
    pub(crate) digests: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// What `tinylm pack` wrote
    pub(crate) file: PathBuf,
}

pub(crate) fn pack(project: &Project, args: &PackArgs) -> Result<(), Failure> {
    let (home, registry) = (project.checked_home()?, project.registry_to_write()?);
    let run = shared_run(&registry, &args.run)?;
    let interrupt = listen_for_signals()?;
    let _store = hold_store(project, &home, "tinylm pack", &interrupt.asked)?;
    if registry.history(&run.id)?.is_none() {
        return Err(Failure::wrong(format!("{} is still at work", run.name))
            .help("pack it when it has ended"));
    }
    let records = match args.digests {
        true => Vec::new(),
        false => records(&home, &run)?,
    };
    let out = args.output.clone();
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{}.tar.zst", run.name)));
    let out = project.current_dir.join(out);
    refuse_to_write_over(project, &out)?;
    let folder = Folder::new(&home, &run.id)?;
    let remote = folder.remote(Mode::Write)?;
    let store = store_behind(&home, Some(&remote));
    for record in &records {
        let pushed = store.push(record, &Patient);
        pushed.map_err(|error| not_packed(&error.to_string()))?;
    }
    let head = PackHead::new(&run.name, &run.experiment, !args.digests);
    let text = registry.source(&run.id)?.text;
    let given = shared_run::give(&registry, &remote, run.clone(), &Patient);
    given.map_err(|why| not_packed(&why.0))?;
    let size = write(&out, &head, &text, &folder.0)?;
    let what = match (args.digests, run.stages.len()) {
        (true, n) => format!("the digests of {n} artifacts"),
        (false, n) => format!("{n} artifacts"),
    };
    let told = format!("{}  {}: {what}", project.shown(&out), bytes(size));
    say(&project.global, told.as_str());
    Ok(())
}

/// The records of a run whose artifacts are all here.
fn records(home: &Home, run: &SharedRun) -> Result<Vec<KeyRecord>, Failure> {
    let store = Store::new(home.clone());
    let mut records = Vec::new();
    let mut lacking = Vec::new();
    for stage in &run.stages {
        match kept(home, &store, &stage.key)? {
            Some(record) => records.push(record),
            None => lacking.push(stage.name.as_str()),
        }
    }
    match lacking.is_empty() {
        true => Ok(records),
        false => {
            let message = format!(
                "not all that {} made is still here, not {}",
                run.name,
                quoted(lacking)
            );
            Err(Failure::wrong(message)
                .help("run its experiment again to make them, or pack what they are: `--digests`"))
        }
    }
}

fn kept(home: &Home, store: &Store, key: &Digest) -> Result<Option<KeyRecord>, Failure> {
    let Some(record) = read_key(home, key)? else {
        return Ok(None);
    };
    let condition = store.condition(&record.artifact)?;
    Ok(matches!(condition, Condition::Whole(_)).then_some(record))
}

/// A pack may be written anew, and nothing else that is there.
fn refuse_to_write_over(project: &Project, out: &Path) -> Result<(), Failure> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let shown = project.shown(out);
    let is_there = match std::fs::symlink_metadata(out) {
        Err(_) => false,
        Ok(about) if about.is_file() => {
            let mut start = [0; 4];
            let read = File::open(out).and_then(|mut file| file.read_exact(&mut start));
            read.is_err() || start != ZSTD
        }
        Ok(_) => true,
    };
    let folder = out.parent().filter(|folder| !folder.is_dir());
    match (is_there, folder) {
        (true, _) => Err(Failure::wrong(format!("`{shown}` is there and is no pack"))
            .help("choose another name with `-o`")),
        (false, Some(folder)) => {
            let folder = project.shown(folder);
            Err(Failure::wrong(format!("there is no folder `{folder}`")).help("make it first"))
        }
        (false, None) => Ok(()),
    }
}

/// Writes the file beside its name first, so that no half of it is ever under it.
fn write(out: &Path, head: &PackHead, text: &str, remote: &Path) -> Result<u64, Failure> {
    let mut half = out.as_os_str().to_owned();
    half.push(format!(".{}.part", names::new_id()));
    let half = PathBuf::from(half);
    let written = || {
        let file = File::create_new(&half)?;
        pack::write(&file, head, text, remote)?;
        file.sync_all()?;
        std::fs::rename(&half, out)?;
        Ok(std::fs::metadata(out)?.len())
    };
    written().map_err(|error: std::io::Error| {
        std::fs::remove_file(&half).ok();
        not_packed(&format!("`{}`: {error}", out.display()))
    })
}

pub(crate) fn unpack(project: &Project, args: &UnpackArgs) -> Result<(), Failure> {
    let home = project.home();
    let path = project.current_dir.join(&args.file);
    let shown = project.shown(&path);
    let file = File::open(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::wrong(format!("there is no file `{shown}`")),
        _ => Failure::wrong(format!("`{shown}`: {error}")),
    })?;
    home.create()?;
    home.refuse_read_only()?;
    let interrupt = listen_for_signals()?;
    let _store = hold_store(project, &home, "tinylm unpack", &interrupt.asked)?;
    let folder = Folder::new(&home, "unpack")?;
    let head = pack::read(file, &folder.0).map_err(|error| refused(&shown, &error))?;
    let remote = folder.remote(Mode::Read)?;
    let wrong = |why: String| refused(&shown, &PackError::NotOne(why));
    let run = remote.read_run(&head.run, &Patient);
    let run = run.map_err(|error| wrong(error.to_string()))?;
    let run = run.ok_or_else(|| wrong(format!("it has no run `{}`", head.run)))?;
    let taking = Taking {
        project,
        home: &home,
        remote: &remote,
        from: &shown,
        interrupt: &interrupt,
        is_of_run_alone: true,
    };
    if head.has_artifacts {
        return taking.take(&run);
    }
    let taken = taking.taken(&Registry::open(&home)?, &run);
    let taken = taken.map_err(|why| wrong(why.0))?;
    let name = taken.unwrap_or(run.name);
    if !project.global.quiet {
        print_line(format!("known    {name}: `tinylm show {name}`"));
        print_line(format!(
            "without artifacts: `tinylm verify {name}` makes them again and compares"
        ));
    }
    Ok(())
}

fn refused(file: &str, error: &PackError) -> Failure {
    let failure = Failure::wrong(format!("`{file}`: {error}"));
    match error {
        PackError::NotOne(_) => failure.help("nothing of it was taken; ask for it anew"),
        PackError::Newer(_) => failure.help("use the newer tinylm that wrote it"),
        PackError::Io(_) => failure.help("nothing of it was taken"),
    }
}

fn not_packed(why: &str) -> Failure {
    Failure::new(STAGE_FAILED, format!("the run was not packed: {why}"))
}

/// A folder in the home for a shared store of one run, gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(home: &Home, name: &str) -> Result<Self, Failure> {
        let place = home.staging().below(format!("{name}-{}", names::new_id()));
        place.create_folder()?;
        let path = std::path::absolute(&place);
        let path = path.map_err(|error| not_packed(&error.to_string()))?;
        Ok(Self(path))
    }

    fn remote(&self, mode: Mode) -> Result<std::sync::Arc<Remote>, Failure> {
        let settings = Settings {
            url: format!("file://{}", self.0.display()),
            mode,
            ..Settings::default()
        };
        Ok(std::sync::Arc::new(crate::shared::open(&settings)?))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
