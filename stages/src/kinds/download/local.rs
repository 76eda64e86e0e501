//! The user's own files, and rows written in the experiment.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
};

use serde_json::{Value, json};
use tinylm_pipeline::{At, LocalFile, StageError, copy_file};

use super::{arrivals::Arrivals, sample::Sampler};

/// Writes rows as `rows.jsonl`; a row that is only a string is a text.
pub(super) fn write_rows(
    rows: &[Value],
    arrivals: &Arrivals,
    sampler: &mut Sampler,
) -> Result<(), StageError> {
    let path = arrivals.partial("rows");
    let mut file = BufWriter::new(File::create(&path).at(&path)?);
    for row in rows {
        let row = match row {
            Value::String(text) => json!({ "text": text }),
            other => other.clone(),
        };
        writeln!(file, "{row}").at(&path)?;
    }
    file.flush().at(&path)?;
    arrivals.put(&path, "rows.jsonl", sampler)
}

/// Copies the files that `path` names and checks each copy against the digest in the key.
pub(super) fn copy_files(arrivals: &Arrivals, sampler: &mut Sampler) -> Result<(), StageError> {
    let files = chosen(arrivals.io.local_files("path"), &arrivals.settings.files);
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let mut done = 0;
    for file in files {
        if sampler.is_full() {
            break;
        }
        arrivals.io.progress(done, Some(total), "bytes")?;
        copy(file, arrivals, sampler)?;
        done += file.bytes;
    }
    arrivals.io.progress(total, Some(total), "bytes")
}

/// Returns those of the files that one of the globs takes, or all where there is none.
pub(super) fn chosen<'a>(mut files: Vec<&'a LocalFile>, globs: &[String]) -> Vec<&'a LocalFile> {
    // Checked when the settings were.
    let globs = globs
        .iter()
        .filter_map(|glob| glob::Pattern::new(glob).ok());
    let globs: Vec<glob::Pattern> = globs.collect();
    files.retain(|file| globs.is_empty() || globs.iter().any(|glob| glob.matches(&file.name)));
    files
}

fn copy(file: &LocalFile, arrivals: &Arrivals, sampler: &mut Sampler) -> Result<(), StageError> {
    let copied = arrivals.partial(&file.name);
    fs::remove_file(&copied).ok();
    // `fs::copy` shares the blocks where the file system can. The copy is what is hashed:
    // the original may still change.
    copy_file(&file.path, &copied)?;
    make_writable(&copied)?;
    if let Err(error) = file.check(&copied) {
        fs::remove_file(&copied).at(&copied)?;
        return Err(error);
    }
    // The name is a path below the folder that was walked, so colons and backslashes are its own.
    arrivals.put_as(&copied, &file.name, sampler)
}

/// A copy of a file that may not be written to could not be removed or cut.
fn make_writable(path: &std::path::Path) -> Result<(), StageError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).at(path)?;
    }
    Ok(())
}

pub(super) fn nothing_taken(globs: &[String]) -> StageError {
    let (message, help) = match globs {
        [] => (
            "there is not one file to take".to_owned(),
            "what `path`, the archive or the repository holds is empty",
        ),
        globs => (
            format!("no file fits `files`: {}", globs.join(", ")),
            "`files: []` takes every file",
        ),
    };
    StageError::new(message).help(help).is_final()
}

/// Two files that would have one name once they are opened, or cut.
pub(super) fn held_twice(name: &str) -> StageError {
    StageError::new(format!("two of the files hold a `{name}`"))
        .help("give each a stage of its own, or set `open: false`")
        .is_final()
}
