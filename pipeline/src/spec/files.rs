//! Reads experiment files: the one asked for, what it extends and what it uses.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Experiment, Request, SEED,
    check::resolved,
    diagnostic::{Diagnostic, Diagnostics},
    graph::{self, Unit},
    nearest::nearest,
    tree::{Data, Map, Node, Place, Source},
    yaml,
};
use crate::stage::Kind;

/// What may stand at the top of a file.
const KEYS: [&str; 7] = ["name", "seed", "extends", "use", "vars", "sweep", "stages"];

pub(crate) fn load(request: &Request, catalog: &[Kind]) -> Result<Vec<Experiment>, Diagnostics> {
    let loader = Loader {
        current_dir: real(&request.current_dir),
    };
    let file = File::read(&loader, &request.file, None)?;
    let mut wrong = Diagnostics::default();
    let head = head(&file.tree, &mut wrong);
    let unit = Unit {
        prefix: String::new(),
        home_file: file.path.clone(),
        seed: head.seed,
        stages: head.stages,
        uses: Vec::new(),
    };
    let stages = graph::stages(&[unit], catalog, &mut wrong);
    let stem = file
        .path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let experiment = Experiment {
        name: head.name.or(stem).unwrap_or_default(),
        about: about(&file.source.text),
        text: file.source.text.clone(),
        seed: head.seed,
        stages,
        sweep_point: Vec::new(),
        file: file.path,
    };
    wrong.or(vec![experiment])
}

/// What all files of one request are read with.
struct Loader {
    current_dir: PathBuf,
}

/// A file that was read.
struct File {
    /// Absolute and without links in its folder.
    path: PathBuf,
    source: Arc<Source>,
    tree: Map,
}

impl File {
    /// Reads one file; `named` is where another file names it.
    fn read(loader: &Loader, path: &Path, named: Option<&Place>) -> Result<Self, Diagnostics> {
        let refused = |title: String| {
            let diagnostic = Diagnostic::new(title);
            match named {
                Some(place) => diagnostic.at(place, ""),
                None => diagnostic,
            }
        };
        let path = loader.absolute(path);
        let title = loader.title(&path);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let diagnostic = refused(format!("there is no file `{title}`"));
                match nearest_file(&path) {
                    Some(near) => {
                        diagnostic.help(format!("did you mean `{}`?", loader.title(&near)))
                    }
                    None => diagnostic,
                }
            }
            _ => refused(format!("cannot read `{title}`: {error}")),
        })?;
        if path.to_str().is_none() {
            return Err(refused(format!("the path `{title}` is not UTF-8")).into());
        }
        let source = Arc::new(Source {
            title,
            text: decoded(&bytes),
            dir: path.parent().unwrap_or(&path).to_owned(),
        });
        if let Err(error) = std::str::from_utf8(bytes.strip_prefix(BOM).unwrap_or(&bytes)) {
            let start = error.valid_up_to();
            let place = Place {
                source,
                range: start..start + 1,
            };
            return Err(Diagnostic::new("the file is not UTF-8")
                .at(&place, "")
                .into());
        }
        let tree = yaml::parse_file(&source)?;
        match tree.data {
            Data::Map(tree) => Ok(Self { path, source, tree }),
            Data::Null => Err(refused(format!("`{}` is empty", source.title))
                .help("an experiment has at least `stages`")
                .into()),
            _ => Err(Diagnostic::new("an experiment must be a map with `stages`")
                .at(&tree.place, format!("this is {}", tree.sort()))
                .into()),
        }
    }
}

impl Loader {
    /// The folder loses its links, so that a leading `..` in it can be resolved without asking.
    fn absolute(&self, path: &Path) -> PathBuf {
        let path = resolved(&self.current_dir, path);
        match (path.parent(), path.file_name()) {
            (Some(dir), Some(name)) => real(dir).join(name),
            _ => path,
        }
    }

    /// What messages call a file: its path from the current folder where it is below that.
    fn title(&self, path: &Path) -> String {
        let short = path.strip_prefix(&self.current_dir).unwrap_or(path);
        short.display().to_string()
    }
}

/// What stands at the top of a file, typed.
struct Head {
    name: Option<String>,
    seed: u64,
    stages: Map,
}

fn head(tree: &Map, wrong: &mut Diagnostics) -> Head {
    for entry in &tree.0 {
        if !KEYS.contains(&entry.name.as_str()) {
            wrong.push(
                Diagnostic::new(format!("an experiment has no key `{}`", entry.name))
                    .at(&entry.place, "unknown")
                    .hint(&entry.name, KEYS),
            );
        }
    }
    Head {
        name: tree.get("name").and_then(|node| name(node, wrong)),
        seed: tree
            .get("seed")
            .and_then(|node| seed(node, wrong))
            .unwrap_or(SEED),
        stages: stages(tree, wrong),
    }
}

fn name(node: &Node, wrong: &mut Diagnostics) -> Option<String> {
    match &node.data {
        Data::Null => None,
        Data::Text(text) if !text.trim().is_empty() => Some(text.clone()),
        _ => {
            wrong.push(
                Diagnostic::new("`name` must be text")
                    .at(&node.place, format!("this is {}", node.sort())),
            );
            None
        }
    }
}

fn seed(node: &Node, wrong: &mut Diagnostics) -> Option<u64> {
    let seed = match &node.data {
        Data::Null => return None,
        Data::Number(number) => number.as_u64(),
        _ => None,
    };
    if seed.is_none() {
        wrong.push(
            Diagnostic::new("`seed` must be a whole number from 0 on")
                .at(&node.place, format!("this is {}", node.sort())),
        );
    }
    seed
}

fn stages(tree: &Map, wrong: &mut Diagnostics) -> Map {
    match tree.get("stages").map(|node| (node, &node.data)) {
        Some((_, Data::Map(map))) if !map.0.is_empty() => return map.clone(),
        Some((_, Data::Null | Data::Map(_))) | None => {
            let diagnostic = Diagnostic::new("the experiment has no stages");
            wrong.push(match tree.entry("stages").or(tree.0.first()) {
                Some(entry) => diagnostic.at(&entry.place, ""),
                None => diagnostic,
            });
        }
        Some((node, _)) => wrong.push(
            Diagnostic::new("`stages` must be a map of name to stage")
                .at(&node.place, format!("this is {}", node.sort()))
                .help("write `NAME: { kind: ..., inputs: [...], with: {...} }`"),
        ),
    }
    Map::default()
}

/// Returns the comment at the head of a file without its `#`.
fn about(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let comment = lines.map_while(|line| line.strip_prefix('#'));
    let lines: Vec<&str> = comment.map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}

const BOM: &[u8] = "\u{feff}".as_bytes();

/// A byte-order mark is no part of the text, and a byte that is no text takes the place of
/// one character, so that what is wrong can be shown.
fn decoded(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the experiment file whose name is closest to one that is not there.
fn nearest_file(path: &Path) -> Option<PathBuf> {
    let dir = path.parent()?;
    let name = path.file_name()?.to_str()?;
    let entries = fs::read_dir(dir).ok()?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"))
        .collect();
    names.sort();
    nearest(name, &names).map(|near| dir.join(near))
}

/// Returns a folder without links, or as it is when it cannot be asked.
fn real(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}
