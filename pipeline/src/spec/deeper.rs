//! Settings that stand deeper than their author wrote: `lr` for `train.lr`.

use crate::settings::{Setting, Shape};

/// Returns the dotted paths of all settings whose path ends with `path`.
pub(crate) fn deeper(list: &[Setting], path: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    walk(list, &mut Vec::new(), path, &mut found);
    found
}

fn walk<'a>(list: &'a [Setting], at: &mut Vec<&'a str>, wanted: &[&str], found: &mut Vec<String>) {
    for setting in list {
        at.push(setting.name);
        if at.ends_with(wanted) {
            found.push(at.join("."));
        }
        if let Shape::Map(inner, _) = &setting.shape {
            walk(inner, at, wanted, found);
        }
        at.pop();
    }
}
