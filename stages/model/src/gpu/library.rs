//! Which cuBLASLt multiplies for the GPUs of this process: the first that is found, or none.
//!
//! Looked for once, where it usually lies: what TINYLM_CUBLASLT says comes before all, then what the loader knows, the
//! toolkit, and the active Python, whose PyTorch brings one along. A setting that cannot be had is an error; of all
//! others, whatever cannot be opened counts as not there, for tinylm needs none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::cublaslt::Opened;

/// The library's path, or `none`.
pub(crate) const SETTING: &str = "TINYLM_CUBLASLT";
const NONE: &str = "none";

/// The versions whose functions are those of `cublaslt.rs`, newest first.
const MAJORS: [usize; 2] = [13, 12];

/// The library of this process, with a driver of this version (13010 for 13.1); the error is one of the setting.
pub(crate) fn of_process(driver: i32) -> Result<Option<&'static Opened>, String> {
    static FOUND: OnceLock<Result<Option<Opened>, String>> = OnceLock::new();
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match FOUND.get_or_init(|| find(set, driver)) {
        Ok(found) => Ok(found.as_ref()),
        Err(why) => Err(why.clone()),
    }
}

/// The same in an environment of these variables.
pub(crate) fn find(
    set: impl Fn(&str) -> Option<OsString>,
    driver: i32,
) -> Result<Option<Opened>, String> {
    match set(SETTING) {
        Some(named) if named == NONE => Ok(None),
        Some(named) => opened(Path::new(&named)).map(Some),
        None => {
            let majors: Vec<usize> = MAJORS.into_iter().filter(|m| runs(*m, driver)).collect();
            let mut places = places(set, &majors).into_iter();
            let is_known = |found: &Opened| majors.contains(&found.major());
            Ok(places.find_map(|path| Opened::open(&path).ok().filter(is_known)))
        }
    }
}

/// Whether a driver runs what a library of this version brings.
fn runs(major: usize, driver: i32) -> bool {
    usize::try_from(driver / 1000).is_ok_and(|newest| major <= newest)
}

/// The library that a setting names.
fn opened(path: &Path) -> Result<Opened, String> {
    let named = format!("`{}`, which {SETTING} names", path.display());
    let else_own = format!("{SETTING}={NONE} takes tinylm's own products");
    if !path.is_file() {
        return Err(format!("there is no file {named}; {else_own}"));
    }
    // A name without a folder would be the loader's to find.
    let whole = std::path::absolute(path).map_err(|error| error.to_string())?;
    let opened = Opened::open(&whole)
        .map_err(|why| format!("{named}, is no cuBLASLt: {why}; {else_own}"))?;
    match MAJORS.contains(&opened.major()) {
        true => Ok(opened),
        false => Err(format!(
            "{named}, is cuBLASLt {}, and tinylm knows 12 and 13; {else_own}",
            opened.version()
        )),
    }
}

/// All that may be it, in order, and in one place the newest first; names without a folder are for the loader.
pub(crate) fn places(set: impl Fn(&str) -> Option<OsString>, majors: &[usize]) -> Vec<PathBuf> {
    let place = |name: &str, folders: fn(PathBuf) -> Vec<PathBuf>| {
        set(name).map_or_else(Vec::new, |value| folders(PathBuf::from(value)))
    };
    let toolkits = ["CUDA_PATH", "CUDA_HOME"].map(|name| place(name, |at| vec![at.join("lib64")]));
    let pythons = ["VIRTUAL_ENV", "CONDA_PREFIX"].map(|name| place(name, in_python));
    let names = majors.iter().map(|major| format!("libcublasLt.so.{major}"));
    let names: Vec<PathBuf> = names.map(PathBuf::from).collect();
    let mut paths = names.clone();
    for folders in toolkits.into_iter().chain(pythons) {
        let each = names
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        paths.extend(each.filter(|path| path.is_file()));
    }
    paths
}

/// Where packages of NVIDIA's lie in an environment of Python's: `lib/python*/site-packages/nvidia/*/lib`.
fn in_python(environment: PathBuf) -> Vec<PathBuf> {
    let pythons = entries(&environment.join("lib")).into_iter();
    let packages = pythons.flat_map(|python| entries(&python.join("site-packages/nvidia")));
    packages.map(|package| package.join("lib")).collect()
}

/// What a folder holds, by name; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
