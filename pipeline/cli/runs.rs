//! `tinylm runs`: the runs that fit.

use clap::Args;
use serde_json::{Value, json};
use tinylm_registry::{Fact, Filter, Registry, Run, RunQuery};
use tinylm_reports::block::Tone;

use crate::{
    failure::Failure,
    output::{Shown, print_json, print_line},
    pager,
    project::Project,
};

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only runs whose name, experiment, tags or notes contain this
    pub(crate) search: Option<String>,
    /// Only runs for which this holds: 'loss < 3 and tag = "baby"'
    #[arg(long = "where", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Order by a field, setting or metric; `-NAME` for the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// These in place of the usual columns: fields, settings and metrics, such as `lr,loss`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// At most this many
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn runs(project: &Project, args: &RunsArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
    let sorted_by = args.sort.as_deref();
    let sorted_by = sorted_by.map(|name| name.trim_start_matches('-').to_owned());
    let named = filter.as_ref().map(Filter::names).unwrap_or_default();
    let named = named.into_iter().map(|(name, _)| name.to_owned());
    let wanted: Vec<String> = sorted_by.into_iter().chain(named).collect();
    let query = RunQuery {
        filter,
        search: args.search.clone(),
        sort: args.sort.clone(),
        limit: args.limit,
        ..RunQuery::default()
    };
    let runs = registry.runs(&query)?;
    if args.json && !args.columns.is_empty() {
        print_json(&columns_json(&registry, &runs, &args.columns)?);
        return Ok(());
    }
    if args.json {
        let rows: Result<Vec<Value>, Failure> =
            runs.iter().map(|run| run_json(&registry, run)).collect();
        print_json(&Value::Array(rows?));
        return Ok(());
    }
    if runs.is_empty() {
        print_line("no run fits");
        return Ok(());
    }
    let table = match &args.columns[..] {
        [] => listed(project, &registry, &runs, &wanted)?,
        names => {
            let table = tinylm_reports::columns(&registry, &runs, names)?;
            Shown::table(&table, &project.terminal_options()).trimmed()
        }
    };
    pager::print(project, table);
    Ok(())
}

/// The columns asked for, run by run; of a name with several values the list.
fn columns_json(registry: &Registry, runs: &[Run], names: &[String]) -> Result<Value, Failure> {
    let mut rows: Vec<Value> = runs.iter().map(|run| json!({ "name": run.name })).collect();
    for name in names {
        let values = registry.values(runs, name)?;
        for (run, row) in runs.iter().zip(&mut rows) {
            let values = values.get(&run.id).map_or(&[][..], Vec::as_slice);
            row[name] = match values {
                [] => Value::Null,
                [one] => fact_json(one),
                several => several.iter().map(fact_json).collect(),
            };
        }
    }
    Ok(Value::Array(rows))
}

fn fact_json(fact: &Fact) -> Value {
    match fact {
        Fact::Number(number) => json!(number),
        Fact::Text(text) => json!(text),
    }
}

/// Returns runs below each other; `wanted` are metrics asked for by name.
pub(crate) fn listed(
    project: &Project,
    registry: &Registry,
    runs: &[Run],
    wanted: &[String],
) -> Result<Shown, Failure> {
    let listing = tinylm_reports::listing(registry, runs, wanted)?;
    let options = project.terminal_options();
    let table = Shown::table(&listing.table, &options).trimmed();
    Ok(match listing.headline {
        Some(name) => {
            let remark = format!("headline: {name}");
            let remark = Shown::painted(&remark, Tone::Quiet, options.colour);
            table.then("\n").then(remark)
        }
        None => table,
    })
}

pub(crate) fn run_json(registry: &Registry, run: &Run) -> Result<Value, Failure> {
    let mut row = serde_json::to_value(run).unwrap_or_default();
    let metrics = registry.final_metrics(&run.id)?;
    let metrics = metrics.iter().map(|metric| {
        (
            format!("{}.{}", metric.stage, metric.name),
            json!(metric.value),
        )
    });
    row["metrics"] = Value::Object(metrics.collect());
    Ok(row)
}
