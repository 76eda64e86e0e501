//! `tinylm cache` and `tinylm gc`: looking after the artifact store.

use std::sync::atomic::AtomicBool;

use serde_json::json;
use tinylm_registry::{Condition, Digest, Lock, Registry, RunQuery, Status, Store, gc, keys};

use crate::{
    args::{CacheCommand, GcArgs, ListArgs},
    console::{bytes, grouped},
    eprint,
    failure::{DAMAGED, Failure},
    print_line,
    project::Project,
    runs::find_stage,
};

pub(crate) fn cache(project: &Project, command: &CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Verify(args) => verify(project, args),
        CacheCommand::Path { what } => path(project, what),
        CacheCommand::Du(args) => du(project, args),
    }
}

fn verify(project: &Project, args: &ListArgs) -> Result<(), Failure> {
    let store = Store::new(project.checked_home()?);
    let digests = store.list()?;
    let mut damaged = Vec::new();
    for digest in &digests {
        if let Condition::Damaged { path, what } = store.verify(digest)? {
            damaged.push((digest, path, what));
        }
    }
    if args.json {
        let rows = damaged
            .iter()
            .map(|(digest, path, what)| json!({"artifact": digest, "path": path, "what": what}));
        print_line(&serde_json::Value::Array(rows.collect()).to_string());
    } else {
        for (digest, path, what) in &damaged {
            print_line(&format!(
                "damaged  {}  `{}` {what}",
                digest.short(),
                project.shown(path)
            ));
        }
        let n_whole = digests.len() - damaged.len();
        print_line(&format!(
            "{n_whole} of {} artifacts are whole",
            digests.len()
        ));
    }
    match damaged.len() {
        0 => Ok(()),
        1 => Err(Failure::new(DAMAGED, "1 artifact is damaged").help(HEALS)),
        n => Err(Failure::new(DAMAGED, format!("{n} artifacts are damaged")).help(HEALS)),
    }
}

const HEALS: &str =
    "run the experiment again: a damaged artifact counts as missing and is made anew";

/// Finds an artifact by RUN/STAGE, by key or by digest, or the beginning of either.
fn path(project: &Project, what: &str) -> Result<(), Failure> {
    let home = project.checked_home()?;
    let store = Store::new(home.clone());
    let digest = match what.split_once('/') {
        Some((run, stage)) => {
            let registry = project.registry()?;
            let run = registry.find_run(run)?;
            let stages = registry.stages(&run.id)?;
            let stage = find_stage(&stages, &run, stage)?;
            stage
                .artifact
                .as_deref()
                .and_then(|digest| digest.parse().ok())
                .ok_or_else(|| {
                    let name = &stage.name;
                    Failure::wrong(format!("`{name}` of {} has no artifact", run.name))
                })?
        }
        None => find_digest(&home, &store, what)?,
    };
    print_line(&store.files(&digest).display().to_string());
    Ok(())
}

fn find_digest(
    home: &tinylm_registry::Home,
    store: &Store,
    start: &str,
) -> Result<Digest, Failure> {
    let begins = |digest: &Digest| digest.to_string().starts_with(start);
    let mut found: Vec<Digest> = store.list()?.into_iter().filter(begins).collect();
    let of_keys = keys::list_keys(home)?;
    for key in of_keys.iter().filter(|key| begins(key)) {
        found.extend(keys::read_key(home, key)?.map(|record| record.artifact));
    }
    found.sort();
    found.dedup();
    match found[..] {
        [digest] if !start.is_empty() => Ok(digest),
        [] => Err(
            Failure::wrong(format!("nothing in the store begins with `{start}`"))
                .help("give RUN/STAGE, a key or a digest"),
        ),
        _ => Err(Failure::wrong(format!(
            "`{start}` could be any of {} artifacts",
            found.len()
        ))
        .help("give more of it, or RUN/STAGE")),
    }
}

fn du(project: &Project, args: &ListArgs) -> Result<(), Failure> {
    let home = project.checked_home()?;
    let usage = Store::new(home.clone()).usage()?;
    if args.json {
        print_line(&json!([usage]).to_string());
        return Ok(());
    }
    print_line(&format!(
        "{} in {} artifacts in `{}`",
        bytes(usage.bytes),
        grouped(usage.n_artifacts),
        project.shown(&home.artifacts())
    ));
    Ok(())
}

pub(crate) fn gc(project: &Project, args: &GcArgs) -> Result<(), Failure> {
    let plan = swept(project, args.dry_run)?;
    if args.json {
        print_line(&json!(plan.items).to_string());
        return Ok(());
    }
    for item in &plan.items {
        let what = format!("{:?}", item.what).to_lowercase();
        let from = item.from.as_deref().unwrap_or("");
        let size = bytes(item.bytes);
        let line = format!(
            "{what:<11}  {size:>8}  {}  {from}",
            project.shown(&item.path)
        );
        print_line(line.trim_end());
    }
    let (would, size) = (
        if args.dry_run { "would free" } else { "freed" },
        bytes(plan.bytes()),
    );
    print_line(&format!("{would} {size} in {} places", plan.items.len()));
    if plan.n_unknown > 0 {
        let n = plan.n_unknown;
        print_line(&format!(
            "{n} kept because the registry does not know the run that made them"
        ));
    }
    Ok(())
}

/// Removes what no run needs, or only lists it.
fn swept(project: &Project, is_dry_run: bool) -> Result<gc::Plan, Failure> {
    let home = project.checked_home()?;
    if !home.root().is_dir() {
        return Ok(gc::Plan::default());
    }
    // Made if it is lost: what an unknown run made is kept, so an empty registry frees little.
    let registry = Registry::open(&home.registry_path())?;
    if is_dry_run {
        return Ok(gc::plan(&home, &registry)?);
    }
    let never = AtomicBool::new(false);
    let note = format!("`tinylm gc` (process {})", std::process::id());
    let say = |holder: &str| {
        if !project.global.quiet {
            eprint(&format!(
                "waiting for {}",
                runs_under_way(&registry, holder)
            ));
        }
    };
    match Lock::wait_exclusive(&home.store_lock(), &note, &never, say)? {
        Some(lock) => Ok(gc::sweep(&home, &registry, &lock)?),
        None => Ok(gc::Plan::default()),
    }
}

/// Names the runs that hold the store. Its lock knows only the last that came, which may have
/// ended; the registry knows all but those that could not be recorded.
fn runs_under_way(registry: &Registry, holder: &str) -> String {
    let runs = registry.runs(&RunQuery::default()).unwrap_or_default();
    let running = runs.iter().filter(|run| run.status == Status::Running);
    let names: Vec<&str> = running.map(|run| run.name.as_str()).collect();
    match names.len() {
        0 => holder.to_owned(),
        1 => format!("run {}", names[0]),
        _ => format!("runs {}", names.join(", ")),
    }
}
