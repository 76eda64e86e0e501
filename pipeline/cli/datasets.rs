//! `tinylm datasets`: the known datasets and their shapes.

use serde_json::json;

use crate::{
    failure::Failure,
    list::ListArgs,
    output::{print_json, print_line},
};

pub(crate) fn datasets(args: &ListArgs) -> Result<(), Failure> {
    let datasets = tinylm_stages::datasets::datasets();
    if args.json {
        print_json(&json!(datasets));
        return Ok(());
    }
    for (idx, dataset) in datasets.iter().enumerate() {
        if idx > 0 {
            print_line("");
        }
        print_line(format!(
            "{} ({}, {})",
            dataset.name, dataset.size, dataset.licence
        ));
        print_line(format!("  {}; shape `{}`", dataset.about, dataset.shape));
        print_line(format!("  {}", dataset.line));
    }
    Ok(())
}
