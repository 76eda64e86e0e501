//! The files of a model as a download brings them: which of them are the model.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tinylm_model::folder::SHAPE_NAME;
use tinylm_pipeline::{At, StageError};

use crate::shared::{
    files::files_below,
    tokens::{CHAT_TEMPLATE_NAME, TOKENIZER_NAME},
};

/// Files by their names in the folder.
pub(super) type Files = BTreeMap<String, PathBuf>;

/// A model among the files that were brought.
pub(super) enum Found {
    HuggingFace(Files),
    Gguf(PathBuf),
    Llama2c(PathBuf, PathBuf),
}

impl Found {
    pub(super) fn below(folder: &Path, file: Option<&str>) -> Result<Self, StageError> {
        let files: Files = files_below(folder)?.into_iter().collect();
        let ending = |end: &str| -> Vec<&String> {
            files.keys().filter(|name| name.ends_with(end)).collect()
        };
        if let Some(file) = file {
            let path = files.get(file).ok_or_else(|| no_such_file(file, &files))?;
            return Self::single(file, path, &files);
        }
        let (gguf, bin) = (ending(".gguf"), ending(".bin"));
        let bin: Vec<&String> = bin
            .into_iter()
            .filter(|name| !is_vocabulary(name))
            .collect();
        match (
            files.contains_key("config.json"),
            gguf.as_slice(),
            bin.as_slice(),
        ) {
            (true, _, _) => Ok(Self::HuggingFace(files)),
            (false, [file], _) | (false, [], [file]) => Self::single(file, &files[*file], &files),
            (false, [], []) => Err(no_model(&files)),
            (false, _, _) => {
                let names: Vec<&str> = gguf.iter().chain(&bin).map(|name| name.as_str()).collect();
                let message = format!("there are several models: {}", names.join(", "));
                Err(StageError::new(message)
                    .help("name one in `file`")
                    .is_final())
            }
        }
    }

    fn single(name: &str, path: &Path, files: &Files) -> Result<Self, StageError> {
        if name.ends_with(".gguf") {
            return Ok(Self::Gguf(path.to_owned()));
        }
        if is_pickle(path)? {
            return Err(pickle(name));
        }
        let vocabulary = files.iter().find(|(name, _)| is_vocabulary(name));
        let (_, vocabulary) = vocabulary.ok_or_else(|| {
            let message = format!(
                "`{name}` looks like a model of llama2.c, and its `tokenizer.bin` is missing"
            );
            StageError::new(message).is_final()
        })?;
        Ok(Self::Llama2c(path.to_owned(), vocabulary.clone()))
    }
}

/// The files of an adapter, and those of its tokenizer where it brought one with new tokens.
pub(super) struct Adapter {
    pub(super) settings: PathBuf,
    pub(super) weights: PathBuf,
    pub(super) tokenizer: Files,
}

const OF_TOKENIZER: [&str; 3] = [TOKENIZER_NAME, "tokenizer_config.json", CHAT_TEMPLATE_NAME];

impl Adapter {
    pub(super) fn below(folder: &Path) -> Result<Self, StageError> {
        let mut files: Files = files_below(folder)?.into_iter().collect();
        let mut take = |name: &str| {
            let message = format!("the adapter has no `{name}`");
            let help = "PEFT's `save_pretrained` writes it; a pickle is not read here";
            let missing = || StageError::new(message).help(help).is_final();
            files.remove(name).ok_or_else(missing)
        };
        let settings = take("adapter_config.json")?;
        let weights = take("adapter_model.safetensors")?;
        if is_pickle(&weights)? {
            return Err(pickle("adapter_model.safetensors"));
        }
        let has_tokenizer = files.contains_key(TOKENIZER_NAME);
        files.retain(|name, _| has_tokenizer && OF_TOKENIZER.contains(&&**name));
        Ok(Self {
            settings,
            weights,
            tokenizer: files,
        })
    }
}

fn is_vocabulary(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    base.starts_with("tok") && base.ends_with(".bin")
}

/// Returns the safetensors files of a folder: one, or all parts of it.
pub(super) fn weights_of(files: &Files) -> Result<Vec<PathBuf>, StageError> {
    let is_part = |name: &str| match files.contains_key("model.safetensors") {
        true => name == "model.safetensors",
        false => name.ends_with(".safetensors"),
    };
    let parts = files.iter().filter(|(name, _)| is_part(name));
    let mut paths = Vec::new();
    for (name, path) in parts {
        if is_pickle(path)? {
            return Err(pickle(name));
        }
        paths.push(path.clone());
    }
    if !paths.is_empty() {
        return Ok(paths);
    }
    let pickled = files
        .keys()
        .find(|name| name.ends_with(".bin") || name.ends_with(".pt"));
    match pickled {
        Some(name) => Err(pickle(name)),
        None => Err(no_model(files)),
    }
}

/// PyTorch's own files are programs in an archive or by themselves.
fn is_pickle(path: &Path) -> Result<bool, StageError> {
    let mut start = [0; 9];
    let mut file = fs::File::open(path).at(path)?;
    let n = file.read(&mut start).at(path)?;
    Ok(begins_pickle(&start[..n]))
}

/// A length of 0x..80 stands first in some of safetensors' and llama2.c's files too: the former go on
/// with a brace behind it, the latter's lengths end in zeros where a pickle has its first instruction.
fn begins_pickle(start: &[u8]) -> bool {
    let is_bare = matches!(start, [0x80, 2..=5, instruction, ..] if *instruction != 0);
    start.starts_with(b"PK\x03\x04") || is_bare && start.get(8) != Some(&b'{')
}

fn pickle(name: &str) -> StageError {
    StageError::new(format!(
        "`{name}` is a pickle, which is a program and is not run here"
    ))
    .help("take the model's safetensors files, or convert it with its own tools")
    .is_final()
}

fn no_such_file(file: &str, files: &Files) -> StageError {
    let names: Vec<&str> = files.keys().take(10).map(String::as_str).collect();
    StageError::new(format!("there is no `{file}` among the files"))
        .help(format!("there are: {}", names.join(", ")))
        .is_final()
}

fn no_model(files: &Files) -> StageError {
    if files.contains_key(SHAPE_NAME) {
        return StageError::new(format!("with `{SHAPE_NAME}` these files are a model as tinylm keeps it"))
            .help("`tinylm chat FOLDER` and `tinylm serve FOLDER` read it as it is; `tinylm export` writes what can be imported")
            .is_final();
    }
    let names: Vec<&str> = files.keys().take(10).map(String::as_str).collect();
    StageError::new(format!("there is no model among these files: {}", names.join(", ")))
        .help("`config.json` with safetensors files, a `.gguf`, or a `.bin` of llama2.c with `tokenizer.bin` can be imported; `files` of the download chooses what is brought")
        .is_final()
}

/// The value of a JSON file among others, if it is there.
pub(super) fn json_of(files: &Files, name: &str) -> Result<Option<Value>, StageError> {
    let Some(path) = files.get(name) else {
        return Ok(None);
    };
    let bytes = fs::read(path).at(path)?;
    let value = serde_json::from_slice(&bytes);
    value
        .map(Some)
        .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())).is_final())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_looks_like_a_pickle_is_none() {
        let safetensors = |length: u64| [length.to_le_bytes().as_slice(), b"{"].concat();
        for length in [0x80_u64, 0x0280, 0x0580, 0x1_0280] {
            assert!(!begins_pickle(&safetensors(length)), "{length:#x}");
        }
        // The width of a llama2.c model.
        for width in [128_i32, 640, 1152] {
            let header = [width.to_le_bytes(), 352_i32.to_le_bytes()].concat();
            assert!(!begins_pickle(&header), "{width}");
        }
        for pickle in [
            b"PK\x03\x04archive".as_slice(),
            b"\x80\x02}q\x00(X\x01\x00\x00\x00a",
            b"\x80\x04\x95\x10\x00\x00\x00\x00\x00",
        ] {
            assert!(begins_pickle(pickle));
        }
    }
}
