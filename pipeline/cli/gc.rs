//! `tinylm gc`: removing what no run needs.

use std::{sync::atomic::AtomicBool, time::Duration};

use clap::Args;
use serde_json::json;
use tinylm_registry::{Home, Lock, Patient, Registry, RunQuery, Status, gc};
use tinylm_reports::bytes;

use crate::{
    failure::{Failure, STAGE_FAILED},
    output::{eprint, print_json, print_line},
    project::Project,
};

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// List exactly what would go, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// First take away the claims of machines, and the jobs of clusters, that cannot be seen from here
    /// and are gone for good
    #[arg(long)]
    pub(crate) abandoned: bool,
    /// Of the team's store instead: what no key speaks of, if it is older than a week
    ///
    /// Parts of a large file whose push was killed stay in a bucket of S3 beside that: no list has them. A rule
    /// of the bucket takes them away (`AbortIncompleteMultipartUpload`; registry/remote/DESIGN.md has the command).
    #[arg(long, conflicts_with = "abandoned")]
    pub(crate) remote: bool,
    /// With --remote: the keys too that were pushed more than so many days ago
    #[arg(long, value_name = "DAYS", requires = "remote")]
    pub(crate) older_than: Option<u32>,
}

pub(crate) fn gc(project: &Project, args: &GcArgs) -> Result<(), Failure> {
    if args.remote {
        return gc_remote(project, args);
    }
    let plan = swept(project, args)?;
    if args.json {
        print_json(&json!(plan.items));
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
    print_line(format!("{would} {size} in {} places", plan.items.len()));
    if plan.n_unknown > 0 {
        let n = plan.n_unknown;
        print_line(format!(
            "{n} kept because the registry does not know the run that made them"
        ));
    }
    Ok(())
}

/// Removes what no run needs, or only lists it.
fn swept(project: &Project, args: &GcArgs) -> Result<gc::Plan, Failure> {
    let home = project.checked_home()?;
    if !home.root().is_dir() {
        return Ok(gc::Plan::default());
    }
    home.refuse_read_only()?;
    // Made if it is lost: what an unknown run made is kept, so an empty registry frees little.
    let registry = Registry::open(&home)?;
    if args.dry_run {
        return Ok(gc::plan(&home, &registry)?);
    }
    let never = AtomicBool::new(false);
    let note = format!("`tinylm gc` (process {})", std::process::id());
    let say = |holder: &str| {
        if !project.global.quiet {
            eprint(format!("waiting for {}", runs_under_way(&registry, holder)));
        }
    };
    match Lock::wait_exclusive(&home.store_lock(), &note, &never, say)? {
        Some(lock) => {
            refuse_claimed(&home, args.abandoned)?;
            Ok(gc::sweep(&home, &registry, &lock)?)
        }
        None => Ok(gc::Plan::default()),
    }
}

/// Refuses while somebody of another machine may be at work, unless that is said to be gone.
fn refuse_claimed(home: &Home, is_abandoned: bool) -> Result<(), Failure> {
    let claims = home.claims()?;
    let jobs = home.jobs()?;
    if is_abandoned {
        for place in claims.iter().map(|(place, _)| place).chain(&jobs) {
            place.remove()?;
        }
        return Ok(());
    }
    let Some(holder) = claims
        .first()
        .map(|(_, holder)| format!("{} on {}", holder.note, holder.host))
    else {
        return match jobs.first() {
            None => Ok(()),
            Some(job) => Err(Failure::wrong(format!("a job of a cluster may be at work in `{}`", job.display()))
                .help("`tinylm resume` its run first; if the job is gone for good: `tinylm gc --abandoned`")),
        };
    };
    Err(Failure::wrong(format!("{holder} may be at work"))
        .help("wait for it; if that machine is gone for good: `tinylm gc --abandoned`"))
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

/// Removes from the team's store what no key speaks of, or only counts it.
fn gc_remote(project: &Project, args: &GcArgs) -> Result<(), Failure> {
    let remote = project.remote_to_write()?;
    let days = args.older_than.map(u64::from);
    let keys_older = days.map(|days| Duration::from_secs(days * 24 * 3600));
    let swept = remote.sweep(keys_older, args.dry_run, &Patient);
    let swept = swept.map_err(|error| {
        Failure::new(
            STAGE_FAILED,
            format!("{} cannot be swept: {error}", remote.shown()),
        )
    })?;
    if args.json {
        let (keys, objects) = (swept.n_keys, swept.n_objects);
        print_json(&json!([{"n_keys": keys, "n_objects": objects, "bytes": swept.bytes}]));
        return Ok(());
    }
    let would = if args.dry_run { "would free" } else { "freed" };
    print_line(format!(
        "{would} {} in {} objects of {}, {} of them keys",
        bytes(swept.bytes),
        swept.n_objects,
        remote.shown(),
        swept.n_keys
    ));
    Ok(())
}
