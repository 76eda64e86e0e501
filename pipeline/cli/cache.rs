//! `tinylm cache`: looking into the artifact store.

use clap::{Args, Subcommand};
use serde_json::json;
use tinylm_registry::{Condition, Digest, Patient, Store, keys};
use tinylm_reports::{bytes, thousands};

use crate::{
    failure::{DAMAGED, Failure, STAGE_FAILED},
    list::ListArgs,
    lookup::find_stage,
    output::{print_json, print_line},
    project::Project,
};

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Hash every artifact again and name the damaged ones
    Verify(ListArgs),
    /// Print where a stage's artifact is: RUN/STAGE, a key or a digest
    Path { what: String },
    /// Say how much room the store takes
    Du(DuArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Of the team's store, which is listed whole
    #[arg(long)]
    pub(crate) remote: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

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
        print_json(&serde_json::Value::Array(rows.collect()));
    } else {
        for (digest, path, what) in &damaged {
            print_line(format!(
                "damaged  {}  `{}` {what}",
                digest.short(),
                project.shown(path)
            ));
        }
        let n_whole = digests.len() - damaged.len();
        print_line(format!(
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
    print_line(store.files(&digest).display().to_string());
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

fn du(project: &Project, args: &DuArgs) -> Result<(), Failure> {
    if args.remote {
        return du_remote(project, args.json);
    }
    let home = project.checked_home()?;
    let usage = Store::new(home.clone()).usage()?;
    if args.json {
        print_json(&json!([usage]));
        return Ok(());
    }
    print_line(format!(
        "{} in {} artifacts in `{}`",
        bytes(usage.bytes),
        thousands(usage.n_artifacts),
        project.shown(&home.artifacts())
    ));
    Ok(())
}

fn du_remote(project: &Project, as_json: bool) -> Result<(), Failure> {
    let remote = project.remote_to_read()?;
    let usage = remote.usage(&Patient).map_err(|error| {
        Failure::new(
            STAGE_FAILED,
            format!("{} cannot be listed: {error}", remote.shown()),
        )
    })?;
    if as_json {
        print_json(&json!([{
            "remote": remote.shown(),
            "n_keys": usage.n_keys,
            "n_artifacts": usage.n_artifacts,
            "n_objects": usage.n_objects,
            "bytes": usage.bytes,
        }]));
        return Ok(());
    }
    print_line(format!(
        "{} in {} artifacts under {} keys, {} objects in {}",
        bytes(usage.bytes),
        thousands(usage.n_artifacts),
        thousands(usage.n_keys),
        thousands(usage.n_objects),
        remote.shown()
    ));
    Ok(())
}
