//! What files of a person's own would become, found out before an experiment is written for them.
//!
//! The stages of data themselves are carried out, in a folder that is the caller's to remove and on the first rows of
//! the files, with the settings that are to be written. So nothing said here can disagree with the run: what cannot be
//! read is refused now rather than after a download, and what is held back for validation is known, since that follows
//! from the digests of the documents. Guessing from the file's name and size, as `init` did at first, wrote
//! experiments whose last stage failed when the training was over.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{
    At, Device, Input, LocalFile, Metrics, NoSettings, Outside, Ranks, Settings, Stage, StageError,
    StageIo, io::Assignment, kind::typed, settings::with_defaults,
};

use crate::{
    kinds::{
        binarize::Held,
        dedupe::Dedupe,
        download::{Download, is_packed},
        normalize::{Normalize, survey},
    },
    shared::{
        documents::{Digest, Documents},
        files::{digest, files_below},
    },
};

/// So many rows are looked at; of a text, a row may be megabytes.
const ROWS_MAX: u64 = 20_000;
const TEXTS_MAX: u64 = 4;
/// With fewer dialogues than this, each is cut into its questions and answers.
const DIALOGUES_MIN: usize = 50;
/// The shares that are held back: the first that leaves something on both sides.
const SHARES: [f64; 3] = [0.1, 0.2, 0.3];

/// The folder in which the files are laid out.
const FILES: &str = "files";

/// What a chat would become.
#[derive(Debug)]
pub struct Chat {
    /// The settings of `normalize` that make it that.
    pub settings: Map<String, Value>,
    /// What it was taken for, in words.
    pub told: String,
    /// What can be held back, with something on both sides.
    pub held: Option<Held>,
    /// The bytes of what is said, where all of it was looked at.
    pub n_bytes: Option<u64>,
}

/// Returns what a file or folder of talk would become.
pub fn chat(path: &Path, scratch: &Path, n_threads: usize) -> Result<Chat, StageError> {
    found(path, scratch, n_threads).map_err(|error| by_its_name(error, scratch))
}

fn found(path: &Path, scratch: &Path, n_threads: usize) -> Result<Chat, StageError> {
    let desk = Desk::new(path, scratch, n_threads)?;
    let look = desk.with("look", desk.files(), survey::chat)?;
    let mut settings = look.settings.clone();
    let mut made = desk.documents(&settings)?;
    let n_dialogues = made.n_dialogues();
    let share = Held::Share(SHARES[0]);
    let mut held = Some(share).filter(|held| n_dialogues >= DIALOGUES_MIN && made.leaves(*held));
    if held.is_none() {
        settings.insert("pairs".to_owned(), json!("exchanges"));
        made = desk.documents(&settings)?;
        let shares = SHARES.into_iter().map(Held::Documents);
        held = shares.into_iter().find(|held| made.leaves(*held));
    }
    Ok(Chat {
        told: told(&look, &made, n_dialogues),
        n_bytes: made.is_all.then_some(made.n_bytes),
        settings,
        held,
    })
}

/// Returns the settings of `normalize` that read a file or folder as raw text, if it can be read so.
pub fn text(
    path: &Path,
    scratch: &Path,
    n_threads: usize,
) -> Result<Map<String, Value>, StageError> {
    let desk = Desk::new(path, scratch, n_threads)?;
    let marked = desk.with("look", desk.files(), survey::marked)?;
    let mut settings = Map::from_iter([("format".to_owned(), json!("text"))]);
    settings.extend(marked.map(|encoding| ("encoding".to_owned(), json!(encoding))));
    let mut looked_at = settings.clone();
    looked_at.insert("max_rows".to_owned(), json!(TEXTS_MAX));
    let sources = [("sources", desk.files())];
    let made = desk.run::<Normalize>("texts", &Value::Object(looked_at), &sources);
    made.map_err(|error| {
        let error = by_its_name(error, scratch);
        let place = |name: &String| match path.is_dir() {
            true => path.join(name),
            false => path.to_owned(),
        };
        let other = desk.not_utf_8(&error).filter(|_| marked.is_none());
        match other.as_ref().map(place) {
            // There is no experiment yet to name an encoding in.
            Some(file) => error.help(survey::save_as_utf_8(&file.to_string_lossy())),
            None => error,
        }
    })?;
    Ok(settings)
}

/// Takes the place where files are looked at out of what is said of them.
fn by_its_name(mut error: StageError, scratch: &Path) -> StageError {
    let place = format!("{}/", scratch.join(FILES).display());
    error.message = error.message.replace(&place, "");
    error.cause = error.cause.map(|cause| cause.replace(&place, ""));
    error
}

/// "at least 412 dialogues between Anna and Bob; the model answers as Bob".
fn told(look: &survey::Look, made: &Made, n_dialogues: usize) -> String {
    let counted = |n: usize, what: &str| match n {
        1 => format!("one {what}"),
        n => format!("{n} {what}s"),
    };
    let least = if made.is_all { "" } else { "at least " };
    let mut told = format!("{least}{}", counted(n_dialogues, "dialogue"));
    if made.documents.len() > n_dialogues {
        told.push_str(&format!(
            " of {}",
            counted(made.documents.len(), "exchange")
        ));
    }
    if let Some(assistant) = &look.assistant {
        let shown = look.users.iter().take(3).map(String::as_str);
        let mut names: Vec<&str> = shown.collect();
        if look.users.len() > names.len() {
            names.push("others");
        }
        let names = names.join(", ");
        told.push_str(&format!(" between {names} and {assistant}"));
    }
    if let Some(format) = look.format {
        told.push_str(&format!(" (`{}`)", format.name()));
    }
    if let Some(assistant) = &look.assistant {
        told.push_str(&format!("; the model answers as {assistant}"));
    }
    told
}

/// What the stages of data made of the first rows.
struct Made {
    documents: Vec<(Digest, Digest)>,
    n_bytes: u64,
    is_all: bool,
}

impl Made {
    fn n_dialogues(&self) -> usize {
        let groups = self.documents.iter().map(|(group, _)| group);
        groups.collect::<HashSet<_>>().len()
    }

    /// Whether some of the documents are held back, and most are not.
    fn leaves(&self, held: Held) -> bool {
        let taken = self.documents.iter();
        let n_held = taken.filter(|(group, id)| held.takes(group, id)).count();
        n_held > 0 && 2 * n_held <= self.documents.len()
    }
}

/// A place to carry out stages at, without a store or another process.
struct Desk<'a> {
    scratch: &'a Path,
    n_threads: usize,
}

impl<'a> Desk<'a> {
    /// Lays out the files as `download` would: archives opened, the others where they are.
    fn new(path: &Path, scratch: &'a Path, n_threads: usize) -> Result<Self, StageError> {
        let desk = Self { scratch, n_threads };
        let files = match path.is_dir() {
            true => files_below(path)?,
            false => {
                let name = path.file_name().unwrap_or_default();
                vec![(name.to_string_lossy().into_owned(), path.to_owned())]
            }
        };
        let (packed, plain): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(name, _)| is_packed(name));
        match packed.is_empty() {
            true => fs::create_dir_all(desk.files()).at(desk.files())?,
            false => desk.open(path, packed)?,
        }
        for (name, path) in plain {
            let link = desk.files().join(name);
            let folder = link.parent().unwrap_or(scratch);
            fs::create_dir_all(folder).at(folder)?;
            std::os::unix::fs::symlink(&path, &link).at(&link)?;
        }
        Ok(desk)
    }

    /// The file of which an error tells, if it is not UTF-8.
    fn not_utf_8(&self, error: &StageError) -> Option<String> {
        let is_told = |name: &str| {
            let told = [Some(&error.message), error.cause.as_ref()];
            told.into_iter().flatten().any(|told| told.contains(name))
        };
        let files = files_below(&self.files()).ok()?.into_iter();
        let mut files = files.filter(|(name, _)| is_told(name));
        let (name, path) = files.next()?;
        let bytes = fs::read(path).ok()?;
        str::from_utf8(&bytes).is_err().then_some(name)
    }

    fn files(&self) -> PathBuf {
        self.scratch.join(FILES)
    }

    fn open(&self, path: &Path, packed: Vec<(String, PathBuf)>) -> Result<(), StageError> {
        let mut local_files = Vec::new();
        for (name, path) in packed {
            local_files.push(LocalFile {
                setting: "path".to_owned(),
                bytes: fs::metadata(&path).at(&path)?.len(),
                digest: digest(&path)?.to_string(),
                name,
                path,
            });
        }
        let settings = settings::<Download>(&json!({ "path": path }))?;
        let assignment = Assignment {
            local_files,
            ..self.assignment(FILES, &[])?
        };
        carried_out(&assignment, |io| {
            Download::run(&settings, &NoSettings {}, io)
        })?;
        Ok(())
    }

    /// Returns the documents that the written experiment would make of the first rows.
    fn documents(&self, chosen: &Map<String, Value>) -> Result<Made, StageError> {
        let mut settings = chosen.clone();
        settings.insert("max_rows".to_owned(), json!(ROWS_MAX));
        let sources = [("sources", self.files())];
        let (chat, metrics) = self.run::<Normalize>("chat", &Value::Object(settings), &sources)?;
        let inputs = [("documents", chat)];
        let (clean, _) = self.run::<Dedupe>("clean", &json!({}), &inputs)?;
        let mut made = Made {
            documents: Vec::new(),
            n_bytes: 0,
            is_all: metrics.get("rows").is_some_and(|n| n < ROWS_MAX as f64),
        };
        for group in Documents::open(&[&clean])?.row_groups() {
            let rows = group.read()?;
            made.n_bytes += rows.n_bytes() as u64;
            let documents = rows.iter().map(|document| (document.group, document.id));
            made.documents.extend(documents);
        }
        Ok(made)
    }

    /// Carries out a stage into a folder of its own, which replaces an earlier one of that name.
    fn run<S: Stage<Watch = NoSettings>>(
        &self,
        name: &str,
        given: &Value,
        inputs: &[(&str, PathBuf)],
    ) -> Result<(PathBuf, Metrics), StageError> {
        let settings = settings::<S>(given)?;
        let assignment = self.assignment(name, inputs)?;
        let metrics = carried_out(&assignment, |io| S::run(&settings, &NoSettings {}, io))?;
        Ok((assignment.out, metrics))
    }

    /// Looks at files as a stage would.
    fn with<T>(
        &self,
        name: &str,
        files: PathBuf,
        look: impl FnOnce(&StageIo) -> Result<T, StageError>,
    ) -> Result<T, StageError> {
        let assignment = self.assignment(name, &[("sources", files)])?;
        carried_out(&assignment, look)
    }

    fn assignment(&self, name: &str, inputs: &[(&str, PathBuf)]) -> Result<Assignment, StageError> {
        let out = self.scratch.join(name);
        let checkpoints = self.scratch.join(format!("{name}-checkpoints"));
        for folder in [&out, &checkpoints] {
            if folder.exists() {
                fs::remove_dir_all(folder).at(folder)?;
            }
            fs::create_dir_all(folder).at(folder)?;
        }
        let inputs = inputs.iter().map(|(role, path)| Input {
            role: (*role).to_owned(),
            stage: name.to_owned(),
            path: path.clone(),
            digest: String::new(),
        });
        Ok(Assignment {
            inputs: inputs.collect(),
            local_files: Vec::new(),
            pins: Vec::new(),
            out,
            checkpoints,
            seed: 0,
            threads: self.n_threads,
            device: Device::Cpu,
            ranks: Ranks::default(),
        })
    }
}

fn settings<S: Stage>(given: &Value) -> Result<S::Settings, StageError> {
    Ok(S::canonical(typed(&with_defaults(
        &S::Settings::list(),
        given,
    ))?)?)
}

/// Whoever writes an experiment hears the errors; the rest is for the run to say.
fn carried_out<T>(
    assignment: &Assignment,
    work: impl FnOnce(&StageIo) -> Result<T, StageError>,
) -> Result<T, StageError> {
    let cancel = AtomicBool::new(false);
    let outside = Outside::default();
    let say = |_| {};
    work(&StageIo::new(assignment, &outside, &cancel, &say))
}
