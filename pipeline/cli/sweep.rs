//! The end of a sweep: its runs below each other, and what can be done with them.

use tinylm_registry::Status;

use crate::{
    failure::Failure,
    lookup::runs_of_sweep,
    output::{print_line, say},
    project::Project,
    runs::listed,
};

/// Prints the runs of a sweep in the order in which they ran.
pub(crate) fn print(project: &Project, sweep: &str) -> Result<(), Failure> {
    // A home that cannot be written to has no record of them.
    let Ok(registry) = project.registry() else {
        return Ok(());
    };
    let runs = runs_of_sweep(&registry, sweep)?;
    let Some(first) = runs.first() else {
        return Ok(());
    };
    print_line("");
    print_line(listed(project, &registry, &runs, &[])?);
    let name = &first.name;
    let n_left = runs.iter().filter(|run| run.status != Status::Done).count();
    say(
        &project.global,
        &match n_left {
            0 => format!("`tinylm report --sweep {name}` puts them side by side"),
            n => format!(
                "{n} of {} are not done; `tinylm resume {name} --sweep` goes on with them",
                runs.len()
            ),
        },
    );
    Ok(())
}
