//! The world as one command sees it: the environment, the home, the terminal.
//!
//! The only place that reads the environment. Everything below is handed values.

use std::{
    collections::BTreeMap,
    env,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use tinylm_pipeline::now_ms;
use tinylm_pipeline::{Content, Context, Kind, Outside, Site, read_plain};
use tinylm_registry::{FileSystem, Home, Registry};
use tinylm_reports::terminal::TerminalOptions;

use crate::{failure::Failure, global::Global};

pub(crate) struct Project {
    pub(crate) global: Global,
    pub(crate) current_dir: PathBuf,
    pub(crate) catalog: Vec<Kind>,
}

impl Project {
    pub(crate) fn new(global: Global) -> Result<Self, Failure> {
        let current_dir = env::current_dir()
            .map_err(|error| Failure::wrong(format!("the current folder is gone: {error}")))?;
        Ok(Self {
            global,
            current_dir,
            catalog: tinylm_stages::catalog(),
        })
    }

    /// A command line that is still being written, and the project that it is about.
    pub(crate) fn of_words() -> (Self, Vec<String>) {
        let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
        let words: Vec<String> = words.collect();
        let home = words.iter().enumerate().find_map(|(idx, word)| {
            let next = || (word == "--home").then(|| words.get(idx + 1)).flatten();
            word.strip_prefix("--home=").or(next().map(String::as_str))
        });
        let home = home.map(PathBuf::from).or_else(|| folder("TINYLM_HOME"));
        let project = Self {
            global: Global {
                home,
                quiet: true,
                verbose: false,
            },
            current_dir: env::current_dir().unwrap_or_default(),
            catalog: tinylm_stages::catalog(),
        };
        (project, words)
    }

    /// Returns the home: the one named, or the nearest above, or the one that would be made here.
    pub(crate) fn home(&self) -> Home {
        let home = match &self.global.home {
            Some(home) => Home::at(self.current_dir.join(home)),
            None => Home::find(&self.current_dir)
                .unwrap_or_else(|| Home::at(self.current_dir.join(".tinylm"))),
        };
        match home.may_be_shared() {
            true => home.shared(&index_folder()),
            false => home,
        }
    }

    /// Returns the home unless this tinylm cannot work in it, such as one that a newer one laid out.
    pub(crate) fn checked_home(&self) -> Result<Home, Failure> {
        let home = self.home();
        if home.root().exists() && !home.root().is_dir() {
            let root = home.root().display();
            return Err(Failure::wrong(format!("the home `{root}` is not a folder"))
                .help("name a folder with `--home`, or take what is there away"));
        }
        home.check()?;
        Ok(home)
    }

    pub(crate) fn context(&self) -> Context {
        let mut outside = outside();
        outside.tell = (!self.global.quiet).then_some(|line: &str| crate::output::eprint(line));
        Context::new(self.home(), outside)
    }

    /// Returns what a recorded stage of this kind made, unless only another tinylm knows the kind.
    pub(crate) fn makes(&self, kind: &str) -> Option<Content> {
        let known = self.catalog.iter().find(|known| known.name == kind);
        known.map(|kind| kind.makes)
    }

    /// Opens the registry to read it; without one there is nothing to read.
    pub(crate) fn registry(&self) -> Result<Registry, Failure> {
        let home = self.checked_home()?;
        Registry::open_to_read(&home)?.ok_or_else(|| self.no_runs(&home))
    }

    /// Opens the registry to write to it, which never makes one: what is changed is there.
    pub(crate) fn registry_to_write(&self) -> Result<Registry, Failure> {
        let home = self.checked_home()?;
        if !Registry::is_begun(&home)? {
            return Err(self.no_runs(&home));
        }
        home.refuse_read_only()?;
        Ok(Registry::open(&home)?)
    }

    fn no_runs(&self, home: &Home) -> Failure {
        let quickstart = "experiments/quickstart.yaml";
        let help = match self.current_dir.join(quickstart).is_file() {
            true => format!("`tinylm run {quickstart}` makes the first"),
            false => "`tinylm init` writes an experiment to begin with".to_owned(),
        };
        let root = home.root().display();
        Failure::wrong(format!("there are no runs in `{root}` yet")).help(help)
    }

    /// Returns what is known of the cluster that stages run on, if they are to run on one.
    pub(crate) fn site(&self, executor: Option<&str>) -> Result<Option<Site>, Failure> {
        if executor != Some("slurm") {
            return Ok(None);
        }
        Ok(Some(match self.site_file() {
            Some(path) => Site::read(&path)?,
            None => Site::default(),
        }))
    }

    /// Returns the site file: the one named, or the first there is.
    pub(crate) fn site_file(&self) -> Option<PathBuf> {
        let of_user = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
        let usual = [
            Some(self.home().root().join("site.yaml")),
            of_user.map(|config| config.join("tinylm/site.yaml")),
            Some(PathBuf::from("/etc/tinylm/site.yaml")),
        ];
        folder("TINYLM_SITE").or_else(|| usual.into_iter().flatten().find(|path| path.is_file()))
    }

    /// How reports and tables are drawn on the terminal there is.
    pub(crate) fn terminal_options(&self) -> TerminalOptions {
        TerminalOptions {
            width: stdout_width(),
            colour: stdout_has_color(),
            is_full: self.global.verbose,
            ..TerminalOptions::default()
        }
    }

    /// Returns the line for a shell that shows long results a page at a time, as git finds it; none
    /// where nobody sits before a terminal.
    pub(crate) fn pager(&self) -> Option<String> {
        // Where there is no `less`, what is long scrolls by.
        const USUAL: &str = "if command -v less >/dev/null; then exec less; else exec cat; fi";
        let is_dumb = env::var("TERM").as_deref() == Ok("dumb");
        if is_dumb || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return None;
        }
        let pager = env::var("PAGER").unwrap_or_else(|_| USUAL.to_owned());
        let line = format!("export LESS=\"${{LESS-FRX}}\"; {pager}");
        (!matches!(pager.trim(), "" | "cat")).then_some(line)
    }

    /// Returns a path as a person would write it from here.
    pub(crate) fn shown(&self, path: &Path) -> String {
        let short = path.strip_prefix(&self.current_dir).unwrap_or(path);
        short.display().to_string()
    }
}

pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Reads from the environment what concerns stages.
pub(crate) fn outside() -> Outside {
    let text = |name: &str| {
        let value = env::var(name).ok()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    let flag =
        |name: &str| text(name).is_some_and(|value| !matches!(&*value, "0" | "false" | "no"));
    let kaggle = text("KAGGLE_USERNAME").zip(text("KAGGLE_KEY"));
    let (kaggle_user, kaggle_key) = kaggle.or_else(stored_kaggle_key).unzip();
    Outside {
        hf_endpoint: text("HF_ENDPOINT"),
        hf_token: text("HF_TOKEN").or_else(|| {
            let is_wanted = !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN");
            is_wanted.then(stored_token).flatten()
        }),
        hf_cache: folder("HF_HUB_CACHE").or_else(|| Some(hf_home()?.join("hub"))),
        offline: flag("HF_HUB_OFFLINE") || flag("TINYLM_OFFLINE"),
        kaggle_endpoint: text("KAGGLE_API_ENDPOINT"),
        kaggle_user,
        kaggle_key,
        tell: None,
        stop: Arc::default(),
    }
}

/// The scheduler's job that this process is in.
pub(crate) fn scheduler_job() -> Option<String> {
    env::var("SLURM_JOB_ID").ok()
}

/// The variables of the environment whose names begin like this.
pub(crate) fn variables(start: &str) -> BTreeMap<String, String> {
    let all = env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        name.starts_with(start)
            .then(|| (name, value.trim().to_owned()))
    });
    all.collect()
}

pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let value = env::var_os(name).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

/// The folder of the hub's own tools, found as they find it.
fn hf_home() -> Option<PathBuf> {
    let caches = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("HF_HOME").or_else(|| Some(caches()?.join("huggingface")))
}

/// The token that `hf auth login` wrote down.
fn stored_token() -> Option<String> {
    let path = folder("HF_TOKEN_PATH").or_else(|| Some(hf_home()?.join("token")))?;
    let token = String::from_utf8(read_plain(&path).ok()?).ok()?;
    let token = token.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// The user and the key in `kaggle.json`, where Kaggle's own tools look for it.
fn stored_kaggle_key() -> Option<(String, String)> {
    let folder = folder("KAGGLE_CONFIG_DIR").or_else(|| Some(folder("HOME")?.join(".kaggle")))?;
    let stored = read_plain(&folder.join("kaggle.json")).ok()?;
    let stored: serde_json::Value = serde_json::from_slice(&stored).ok()?;
    let text = |name: &str| stored[name].as_str().map(str::to_owned);
    text("username").zip(text("key"))
}

/// Whether what goes to standard error may be coloured.
pub(crate) fn stderr_has_color() -> bool {
    std::io::stderr().is_terminal() && allows_color()
}

/// The same for standard output.
pub(crate) fn stdout_has_color() -> bool {
    std::io::stdout().is_terminal() && allows_color()
}

fn allows_color() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && env::var("TERM").as_deref() != Ok("dumb")
}

pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The width of the terminal on standard output; 80 where there is none.
pub(crate) fn stdout_width() -> usize {
    if let Some(columns) = env::var("COLUMNS").ok().and_then(|text| text.parse().ok()) {
        return columns;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { 80 } else { columns }
}

/// The height of the terminal on standard output; endless where there is none.
pub(crate) fn stdout_height() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    match size.map_or(0, |size| usize::from(size.ws_row)) {
        0 => usize::MAX,
        rows => rows,
    }
}

/// Where this machine keeps the registries of homes that it shares with others: on a disk of its own.
fn index_folder() -> PathBuf {
    if let Some(folder) = folder("TINYLM_INDEX") {
        return folder;
    }
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let is_own = |folder: &PathBuf| !FileSystem::of(folder).is_some_and(|system| system.is_shared);
    match cache.filter(is_own) {
        Some(cache) => cache.join("tinylm/index"),
        // Where even the users' own folders are shared: lost at the next start, and read again.
        None => env::temp_dir().join(format!("tinylm-{}", rustix::process::getuid().as_raw())),
    }
}
