//! Reads experiment files: the one asked for, what it extends and what it uses.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{
    check::resolved,
    diagnostic::{Diagnostic, Diagnostics, one_line},
    edit::{self, Edit},
    experiment::{Experiment, LeftOut, SEED, StageSpec},
    extends::merge,
    graph::{self, Unit},
    keys::{FILE_KEYS, names},
    nearest::nearest,
    request::Request,
    tree::{Data, Entry, Map, Node, Place, Source},
    vars, watch,
    without::{Without, leave_out},
    yaml,
};
use crate::{kind::Kind, plain_file::open_plain};

/// More than any experiment needs, its rows written in it.
const BYTES_MAX: u64 = 64 << 20;

/// Reads an experiment: one for each combination of a sweep, which is usually one.
pub fn load(request: &Request, catalog: &[Kind]) -> Result<Vec<Experiment>, Diagnostics> {
    let loader = Loader {
        catalog,
        current_dir: real(&request.current_dir),
    };
    let file = loader.read_extended(&request.file)?;
    let mut wrong = Diagnostics::default();
    let dir = &loader.current_dir;
    let fixed = edit::overrides(&request.overrides, dir, &mut wrong);
    let sweeps = edit::sweeps(file.tree.get("sweep"), &request.sweep, dir, &mut wrong);
    let mut experiments = Vec::new();
    for (mut edits, point) in edit::points(&sweeps, &fixed, &mut wrong) {
        edits.extend(fixed.iter().cloned());
        experiments.push(loader.experiment(&file, &edits, point, &mut wrong));
    }
    edit::check_swept(&sweeps, &experiments, &mut wrong);
    wrong.or(experiments)
}

/// The givens with which all files of one request are read.
struct Loader<'a> {
    catalog: &'a [Kind],
    current_dir: PathBuf,
}

impl Loader<'_> {
    fn experiment(
        &self,
        file: &File,
        edits: &[Edit],
        sweep_point: Vec<(String, Value)>,
        wrong: &mut Diagnostics,
    ) -> Experiment {
        let (mut units, mut without) = (Vec::new(), Vec::new());
        let top = self.unit(
            (file, ""),
            edits,
            (&mut units, &mut without),
            &mut Vec::new(),
            wrong,
        );
        let stem = file.path.file_stem().map(|stem| stem.to_string_lossy());
        let mut stages = graph::stages(&units, self.catalog, wrong);
        let known: Vec<String> = units.iter().flat_map(Unit::names).collect();
        let left_out = leave_out(&mut stages, &without, &known, wrong);
        Experiment {
            name: top
                .name
                .unwrap_or_else(|| stem.unwrap_or_default().into_owned()),
            headline: top
                .headline
                .and_then(|node| checked_headline(&node, (&stages, &left_out), wrong)),
            about: about(&file.source.text),
            text: file.source.text.clone(),
            seed: units.first().map_or(SEED, |unit| unit.seed),
            left_out,
            stages,
            sweep_point,
            file: file.path.clone(),
            tensorboard: top.tensorboard,
        }
    }

    /// Adds a file and what it uses to `units`, itself first, and returns what is of no use to a file
    /// that uses it.
    /// `inside` are the files whose `use` led here.
    fn unit(
        &self,
        (file, prefix): (&File, &str),
        edits: &[Edit],
        (units, without): (&mut Vec<Unit>, &mut Vec<Without>),
        inside: &mut Vec<PathBuf>,
        wrong: &mut Diagnostics,
    ) -> Top {
        let mut tree = file.tree.clone();
        let passed_on: Vec<(String, Edit)> = edits
            .iter()
            .filter_map(|edit| edit::apply(edit, &mut tree, self.catalog, wrong))
            .collect();
        vars::fill(&mut tree, wrong);
        if let Some(entry) = tree.remove("without") {
            without.push(Without {
                prefix: prefix.to_owned(),
                node: entry.node,
            });
        }
        let head = head(&tree, &file.source, wrong);
        let idx = units.len();
        units.push(Unit {
            prefix: prefix.to_owned(),
            home_file: file.path.clone(),
            seed: head.seed,
            stages: head.stages,
            uses: Vec::new(),
        });
        inside.push(file.path.clone());
        for entry in &head.uses.0 {
            let edits = passed_on.iter().filter(|(alias, _)| *alias == entry.name);
            let edits: Vec<Edit> = edits.map(|(_, edit)| edit.clone()).collect();
            let prefix = format!("{prefix}{}.", entry.name);
            let used = self.used(entry, inside, wrong).map(|used| {
                let idx = units.len();
                let so_far = (&mut *units, &mut *without);
                self.unit((&used, &prefix), &edits, so_far, inside, wrong);
                idx
            });
            units[idx].uses.push((entry.name.clone(), used));
        }
        inside.pop();
        head.top
    }

    /// Reads the file that an alias names.
    fn used(&self, alias: &Entry, inside: &[PathBuf], wrong: &mut Diagnostics) -> Option<File> {
        graph::check_name("an alias", alias, wrong);
        if alias.node.is_broken() {
            return None;
        }
        let Some(text) = alias.node.as_text() else {
            wrong.push(
                Diagnostic::new(format!("`use` of `{}` must be a file's path", alias.name))
                    .at(&alias.node.place, format!("this is {}", alias.node.sort())),
            );
            return None;
        };
        let path = self.absolute(&resolved(&alias.node.home.dir, Path::new(text)));
        if let Some(begin) = inside.iter().position(|open| *open == path) {
            let circle = self.circle(&inside[begin..], &path, "uses");
            wrong.push(
                Diagnostic::new(format!("files use each other in a circle: {circle}"))
                    .at(&alias.node.place, ""),
            );
            return None;
        }
        match self.read_extending(&path, Some(&alias.node.place), &mut Vec::new()) {
            Ok(file) => Some(file),
            Err(refused) => {
                wrong.extend(refused);
                None
            }
        }
    }

    fn read_extended(&self, path: &Path) -> Result<File, Diagnostics> {
        self.read_extending(path, None, &mut Vec::new())
    }

    /// Reads a file and lays it over the one that it extends. `inside` are the files that
    /// extend this one; `named` is where the last of them says so.
    fn read_extending(
        &self,
        path: &Path,
        named: Option<&Place>,
        inside: &mut Vec<PathBuf>,
    ) -> Result<File, Diagnostics> {
        let mut file = File::read(self, path, named)?;
        let Some(extends) = file.tree.remove("extends") else {
            return Ok(file);
        };
        let node = extends.node;
        let base = match &node.data {
            Data::Null => return Ok(file),
            Data::Text(text) => self.absolute(&resolved(&node.home.dir, Path::new(text))),
            _ => {
                return Err(Diagnostic::new("`extends` must be a file's path")
                    .at(&node.place, format!("this is {}", node.sort()))
                    .into());
            }
        };
        inside.push(file.path.clone());
        if let Some(begin) = inside.iter().position(|open| *open == base) {
            let circle = self.circle(&inside[begin..], &base, "extends");
            return Err(
                Diagnostic::new(format!("files extend each other in a circle: {circle}"))
                    .at(&node.place, "")
                    .into(),
            );
        }
        let base = self.read_extending(&base, Some(&node.place), inside)?;
        file.tree = merge(base.tree, file.tree, self.catalog);
        Ok(file)
    }

    fn circle(&self, files: &[PathBuf], again: &Path, verb: &str) -> String {
        let files = files.iter().map(PathBuf::as_path).chain([again]);
        let titles: Vec<String> = files
            .map(|path| format!("`{}`", self.title(path)))
            .collect();
        titles.join(&format!(" {verb} "))
    }

    /// The folder loses its links, so that a leading `..` in it can be resolved without asking.
    fn absolute(&self, path: &Path) -> PathBuf {
        let path = resolved(&self.current_dir, path);
        match (path.parent(), path.file_name()) {
            (Some(dir), Some(name)) => real(dir).join(name),
            _ => path,
        }
    }

    /// The name of a file in messages: its path from the current folder where it is below that.
    fn title(&self, path: &Path) -> String {
        match path.strip_prefix(&self.current_dir) {
            Ok(short) if short.as_os_str().is_empty() => ".".to_owned(),
            short => short.unwrap_or(path).display().to_string(),
        }
    }
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
    fn read(loader: &Loader<'_>, path: &Path, named: Option<&Place>) -> Result<Self, Diagnostics> {
        let refused = |title: String| {
            let diagnostic = Diagnostic::new(title);
            match named {
                Some(place) => diagnostic.at(place, ""),
                None => diagnostic,
            }
        };
        let path = loader.absolute(path);
        let title = loader.title(&path);
        let bytes = read_bytes(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let diagnostic = refused(format!("there is no file `{title}`"));
                match nearest_file(&path) {
                    Some(near) => {
                        diagnostic.help(format!("did you mean `{}`?", loader.title(&near)))
                    }
                    None if named.is_none() => {
                        diagnostic.help(format!("`tinylm init {title}` writes one to begin with"))
                    }
                    None => diagnostic,
                }
            }
            io::ErrorKind::IsADirectory => {
                refused(format!("`{title}` is a folder")).help("name an experiment file in it")
            }
            _ => refused(format!("cannot read `{title}`: {error}")),
        })?;
        if path.to_str().is_none() {
            let path = path.display();
            let told = refused(format!("the path `{path}` is not UTF-8"));
            return Err(told.help("rename the part of it that is not").into());
        }
        if bytes.len() as u64 > BYTES_MAX {
            let mb = BYTES_MAX >> 20;
            let told = refused(format!("`{title}` is larger than {mb} MB"));
            return Err(told
                .help("keep data in files of its own, and name them")
                .into());
        }
        let source = Arc::new(Source {
            title: one_line(&title),
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

/// Reads no more of a file than shows that it is too long.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path)?
        .take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The top of a file, typed.
struct Head {
    top: Top,
    seed: u64,
    stages: Map,
    /// Alias to file.
    uses: Map,
}

/// What concerns the runs of a file, and not its stages.
struct Top {
    name: Option<String>,
    headline: Option<Node>,
    tensorboard: Option<PathBuf>,
}

fn head(tree: &Map, source: &Arc<Source>, wrong: &mut Diagnostics) -> Head {
    for entry in &tree.0 {
        if !names(&FILE_KEYS).any(|key| key == entry.name) {
            wrong.push(
                Diagnostic::new(format!("an experiment has no key `{}`", entry.name))
                    .at(&entry.place, "unknown")
                    .hint(&entry.name, names(&FILE_KEYS)),
            );
        }
    }
    Head {
        top: Top {
            name: tree.get("name").and_then(|node| name(node, wrong)),
            headline: tree.get("headline").filter(|node| !node.is_null()).cloned(),
            tensorboard: watch::tensorboard(tree, wrong),
        },
        seed: tree
            .get("seed")
            .and_then(|node| seed(node, wrong))
            .unwrap_or(SEED),
        stages: stages(tree, source, wrong),
        uses: uses(tree, wrong),
    }
}

fn uses(tree: &Map, wrong: &mut Diagnostics) -> Map {
    match tree.get("use").map(|node| (node, &node.data)) {
        None | Some((_, Data::Null | Data::Broken)) => {}
        Some((_, Data::Map(map))) => return map.clone(),
        Some((node, _)) => wrong.push(
            Diagnostic::new("`use` must be a map of alias to file")
                .at(&node.place, format!("this is {}", node.sort()))
                .help("write `use: { ALIAS: other.yaml }`, then `inputs: [ALIAS.STAGE]`"),
        ),
    }
    Map::default()
}

fn name(node: &Node, wrong: &mut Diagnostics) -> Option<String> {
    match &node.data {
        Data::Null | Data::Broken => None,
        Data::Text(text) if !text.trim().is_empty() => Some(text.clone()),
        Data::Text(_) => {
            wrong.push(Diagnostic::new("`name` must not be empty").at(&node.place, ""));
            None
        }
        _ => {
            wrong.push(
                Diagnostic::new("`name` must be text")
                    .at(&node.place, format!("this is {}", node.sort()))
                    .help(format!("quotes make it text: \"{}\"", node.to_value())),
            );
            None
        }
    }
}

/// Returns `STAGE.METRIC` if the stage is one of the experiment's and may tell it; nothing if it is left
/// out.
fn checked_headline(
    node: &Node,
    (stages, left_out): (&[StageSpec], &LeftOut),
    wrong: &mut Diagnostics,
) -> Option<String> {
    if node.is_broken() {
        return None;
    }
    let Some(text) = node.as_text() else {
        wrong.push(
            Diagnostic::new("`headline` must be `STAGE.METRIC`")
                .at(&node.place, format!("this is {}", node.sort())),
        );
        return None;
    };
    let is_of = |stage: &StageSpec| {
        let rest = text.strip_prefix(&stage.name);
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
    };
    // `base.eval` may be a stage of a file under `use`, and `base` a stage of this one.
    let of = stages.iter().filter(|stage| is_of(stage));
    let Some(stage) = of.max_by_key(|stage| stage.name.len()) else {
        if left_out.has(text) {
            return None;
        }
        let stage = text.rsplit_once('.').map_or(text, |(stage, _)| stage);
        wrong.push(
            Diagnostic::new("`headline` must be `STAGE.METRIC`")
                .at(&node.place, "no stage has this name")
                .hint(stage, stages.iter().map(|stage| stage.name.as_str())),
        );
        return None;
    };
    let (kind, metric) = (&stage.kind, &text[stage.name.len() + 1..]);
    if !kind.tells(metric) {
        let told = format!("a `{}` stage tells no `{metric}`", kind.name);
        let unknown = Diagnostic::new("`headline` names no metric").at(&node.place, told);
        wrong.push(unknown.hint(metric, names(kind.metrics)));
        return None;
    }
    Some(text.to_owned())
}

fn seed(node: &Node, wrong: &mut Diagnostics) -> Option<u64> {
    let seed = match &node.data {
        Data::Null | Data::Broken => return None,
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

fn stages(tree: &Map, source: &Arc<Source>, wrong: &mut Diagnostics) -> Map {
    match tree.get("stages").map(|node| (node, &node.data)) {
        Some((_, Data::Map(map))) if !map.0.is_empty() => return map.clone(),
        Some((_, Data::Broken)) => {}
        Some((_, Data::Null | Data::Map(_))) | None => {
            let start = Place {
                source: source.clone(),
                range: 0..0,
            };
            let place = tree.entry("stages").map_or(&start, |entry| &entry.place);
            wrong.push(Diagnostic::new("the experiment has no stages").at(place, ""));
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
    let entries = fs::read_dir(dir).ok()?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"))
        .collect();
    names.sort();
    // The ending is no part of what was mistyped: `d.yaml` is not close to `a.yaml`.
    let stems = names
        .iter()
        .filter_map(|name| Path::new(name).file_stem()?.to_str());
    let near = nearest(path.file_stem()?.to_str()?, stems)?.to_owned();
    let found = names.iter().find(|name| {
        name.strip_prefix(&near)
            .is_some_and(|end| end.starts_with(".y"))
    });
    found.map(|name| dir.join(name))
}

/// Returns a folder without links, or as it is when it cannot be asked.
fn real(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}
