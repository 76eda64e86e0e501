//! `--driver slurm`: this command again, in a job of its own.
//!
//! The cluster may start that job more than once. What an earlier start began stands in a file beside the job's
//! log, so that the next goes on with that run and begins no other.

use std::{env, fs};

use tinylm_pipeline::slurm::{is_driver_job, submit_driver};
use tinylm_registry::{Error, Home, Place};

use crate::{
    failure::Failure,
    job::{HowArgs, this_program},
    output::print_line,
    project::{Project, scheduler_job},
};

/// Puts the command into a job, if it is to be there; returns whether that was done.
pub(crate) fn is_elsewhere(
    project: &Project,
    how: &HowArgs,
    is_forced: bool,
) -> Result<bool, Failure> {
    let (Some(_), Some(site)) = (&how.driver, project.site(how.executor.as_deref())?) else {
        return Ok(false);
    };
    if is_forced {
        return Err(Failure::wrong(
            "the job of a driver may be started more than once, and would force anew",
        )
        .help("leave `--driver slurm` or `--force` out"));
    }
    let home = project.checked_home()?;
    home.create()?;
    home.logs().create_folder()?;
    let home_flag = format!("--home={}", home.root().display());
    let given = env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let words = [home_flag].into_iter().chain(words(given));
    let words: Vec<String> = words.collect();
    let log = home.logs().join("driver-%j.out");
    let job = submit_driver(&site, &this_program()?, &words, &project.current_dir, &log)?;
    print_line(format!(
        "the driver is job {job}: `tinylm watch` follows it, `scancel {job}` stops it"
    ));
    Ok(true)
}

/// Writes down which run the driver of a job begins.
pub(crate) fn begins(project: &Project, run_id: &str) -> Result<(), Failure> {
    match begun(&project.checked_home()?) {
        Some(place) => Ok(place.write_atomic(run_id.as_bytes())?),
        None => Ok(()),
    }
}

/// The run that an earlier start of this driver's job began, if it came to be recorded.
pub(crate) fn begun_before(project: &Project) -> Result<Option<String>, Failure> {
    // The number of a job is given again, its restarts are its own.
    if env::var("SLURM_RESTART_COUNT").map_or(true, |n| n == "0") {
        return Ok(None);
    }
    let place = begun(&project.checked_home()?);
    let Some(run_id) = place.and_then(|place| fs::read_to_string(place).ok()) else {
        return Ok(None);
    };
    match project.registry_to_write()?.run(&run_id) {
        Ok(_) => Ok(Some(run_id)),
        Err(Error::UnknownRun { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn begun(home: &Home) -> Option<Place> {
    let job = scheduler_job().filter(|_| is_driver_job())?;
    Some(home.logs().below(format!("driver-{job}.run")))
}

/// The words of a command without those that put it elsewhere, or that say where the home is: that is
/// said once, as a whole path.
fn words(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut words = Vec::new();
    let mut all = all.peekable();
    while let Some(word) = all.next() {
        match word.as_str() {
            "--driver" | "--home" => drop(all.next()),
            _ if word.starts_with("--driver=") || word.starts_with("--home=") => {}
            _ => words.push(word),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_in_the_job_is_the_same_but_for_where_it_is() {
        let of = |line: &str| words(line.split(' ').map(str::to_owned)).join(" ");
        let whole = "run x.yaml --executor slurm -S a.b=c";
        assert_eq!(
            of("--home h run x.yaml --driver slurm --executor slurm -S a.b=c"),
            whole
        );
        assert_eq!(
            of("run x.yaml --executor slurm --driver=slurm -S a.b=c"),
            whole
        );
    }
}
