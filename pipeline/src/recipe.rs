//! The recipe of a stage: everything its bytes depend on, and the key that names it.
//!
//! One function, [`walk`], visits everything that is in the key as `path = value`
//! entries. [`key`] hashes what it visits; [`explanation`] writes it down. Because
//! there is no second list, `tinylm plan` cannot say something else than the key.
//!
//! The encoding is `tinylm-recipe-1`: for each entry, in the order visited, the path
//! and the value, each preceded by its length as a little-endian u64, hashed with
//! blake3. Values are JSON scalars (`"8192"` is not `8192`), path components are
//! joined by dots and dots inside a component are escaped, so no two recipes share
//! an encoding. Map keys are visited in sorted order: the order in which an author
//! wrote settings, or in which we declare them, is no part of a recipe.

use std::fmt;

use serde_json::Value;
use tinylm_registry::Digest;

use crate::{
    io::{LocalFile, Pinned},
    kind::Kind,
    secrets::Secrets,
    settings::{Setting, Shape},
};

/// Names the encoding; another one would be another key for everything.
const FORMAT: &str = "tinylm-recipe-1";

/// Everything that a stage's bytes depend on.
pub struct Recipe<'a> {
    pub kind: &'a Kind,
    /// Canonical settings, as under `with`.
    pub settings: &'a Value,
    pub seed: u64,
    /// Role, and the contents digests of what fills it, in order.
    pub inputs: &'a [(String, Vec<Digest>)],
    pub local_files: &'a [LocalFile],
    pub pins: &'a [Pinned],
    /// Settings that only say where a pinned source is; the pin stands for them.
    pub places: &'a [String],
}

/// One `path = value` of a recipe.
pub type Entry = (String, String);

/// The use made of each entry: it is hashed, or it is written down.
trait Visit {
    fn entry(&mut self, path: &str, value: &str);
}

struct Hash(blake3::Hasher);

impl Visit for Hash {
    fn entry(&mut self, path: &str, value: &str) {
        for text in [path, value] {
            self.0.update(&(text.len() as u64).to_le_bytes());
            self.0.update(text.as_bytes());
        }
    }
}

struct Explain {
    entries: Vec<Entry>,
    secrets: Secrets,
}

impl Visit for Explain {
    fn entry(&mut self, path: &str, value: &str) {
        self.entries
            .push((path.to_owned(), self.secrets.mask(value)));
    }
}

/// Returns the digest that names the recipe.
pub fn key(recipe: &Recipe) -> Digest {
    let mut hash = Hash(blake3::Hasher::new());
    walk(recipe, &mut hash);
    Digest::from_bytes(*hash.0.finalize().as_bytes())
}

/// Returns the recipe as text, entry by entry, without the secrets of addresses.
pub fn explanation(recipe: &Recipe) -> Vec<Entry> {
    let mut explain = Explain {
        entries: Vec::new(),
        secrets: Secrets::of(&recipe.settings.to_string()),
    };
    walk(recipe, &mut explain);
    explain.entries
}

fn walk(recipe: &Recipe, visit: &mut impl Visit) {
    visit.entry("format", FORMAT);
    visit.entry("kind", recipe.kind.name);
    visit.entry("revision", &recipe.kind.revision.to_string());
    if recipe.kind.seeded {
        visit.entry("seed", &recipe.seed.to_string());
    }
    let mut in_settings = InSettings { recipe, visit };
    in_settings.map(&(recipe.kind.settings)(), recipe.settings, "");
    for file in recipe.local_files {
        let path = format!("files.{}.{}", file.setting, escaped(&file.name));
        visit.entry(&path, &file.digest);
    }
    for (idx, pinned) in recipe.pins.iter().enumerate() {
        leaves(&pinned.pin.identity, &format!("source.{idx}"), visit);
    }
    for (role, digests) in recipe.inputs {
        for (idx, digest) in digests.iter().enumerate() {
            visit.entry(&format!("in.{}.{idx}", escaped(role)), &digest.to_string());
        }
    }
}

/// The settings' part of the walk, which knows what to leave out.
struct InSettings<'r, 'v, V> {
    recipe: &'r Recipe<'r>,
    visit: &'v mut V,
}

impl<V: Visit> InSettings<'_, '_, V> {
    fn map(&mut self, list: &[Setting], value: &Value, prefix: &str) {
        let Value::Object(map) = value else {
            return leaves(value, &format!("with.{prefix}"), self.visit);
        };
        let mut names: Vec<&String> = map.keys().collect();
        names.sort();
        for name in names {
            let path = dotted(prefix, name);
            let setting = list.iter().find(|setting| setting.name == name);
            if self.is_left_out(setting, &map[name], &path) {
                continue;
            }
            match setting.map(|setting| &setting.shape) {
                Some(Shape::Map(inner, _)) => self.map(inner, &map[name], &path),
                _ => leaves(&map[name], &format!("with.{path}"), self.visit),
            }
        }
    }

    fn is_left_out(&self, setting: Option<&Setting>, value: &Value, path: &str) -> bool {
        let is_neutral = setting.is_some_and(|setting| setting.neutral.as_ref() == Some(value));
        // The seed is visited once, whether the file or the stage set it.
        let is_seed = path == "seed";
        let is_place = self.recipe.places.iter().any(|place| place == path);
        let is_path = setting.is_some_and(|setting| is_path(&setting.shape));
        is_neutral || is_seed || is_place || (is_path && !value.is_null())
    }
}

fn is_path(shape: &Shape) -> bool {
    match shape {
        Shape::Path => true,
        Shape::List(inner) => is_path(inner),
        _ => false,
    }
}

/// Visits every scalar of `value`; empty maps and lists count as scalars.
fn leaves(value: &Value, path: &str, visit: &mut impl Visit) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort();
            for name in names {
                leaves(&map[name], &dotted(path, name), visit);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (idx, item) in items.iter().enumerate() {
                leaves(item, &dotted(path, &idx.to_string()), visit);
            }
        }
        scalar => visit.entry(path, &scalar.to_string()),
    }
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        escaped(name)
    } else {
        format!("{prefix}.{}", escaped(name))
    }
}

fn escaped(name: &str) -> String {
    name.replace('\\', r"\\").replace('.', r"\.")
}

/// A difference between two explanations of the same stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub was: Option<String>,
    pub now: Option<String>,
}

/// Returns what differs, in the order of `now`, then what is gone.
///
/// Inputs that are not known yet are absent from `now`; pass `inputs_known: false`
/// so that they do not read as gone.
pub fn changes(was: &[Entry], now: &[Entry], inputs_known: bool) -> Vec<Change> {
    let value_in = |entries: &[Entry], path: &str| {
        let found = entries.iter().find(|(known, _)| known == path);
        found.map(|(_, value)| value.clone())
    };
    let mut changes: Vec<Change> = now
        .iter()
        .map(|(path, value)| (path, value, value_in(was, path)))
        .filter(|(_, value, old)| old.as_ref() != Some(value))
        .map(|(path, value, was)| Change {
            path: path.clone(),
            was,
            now: Some(value.clone()),
        })
        .collect();
    let is_compared =
        |path: &str| inputs_known || !(path.starts_with("in.") || path.starts_with("source."));
    let gone = was
        .iter()
        .filter(|(path, _)| is_compared(path) && value_in(now, path).is_none());
    changes.extend(gone.map(|(path, value)| Change {
        path: path.clone(),
        was: Some(value.clone()),
        now: None,
    }));
    changes
}

/// Longest value printed whole on a terminal.
const VALUE_SHOWN_MAX: usize = 40;

impl Change {
    /// Returns the change in words; `full` prints long values whole.
    pub fn in_words(&self, full: bool) -> String {
        let (area, rest) = self.path.split_once('.').unwrap_or((&self.path, ""));
        match area {
            "with" => self.setting_in_words(rest, full),
            "seed" => self.setting_in_words("seed", full),
            "files" => {
                let file = rest.split_once('.').map_or(rest, |(_, file)| file);
                self.contents_in_words(&format!("`{}`", file.replace(r"\.", ".")))
            }
            "source" => "its source is another revision".to_owned(),
            "in" => {
                let role = rest.rsplit_once('.').map_or(rest, |(role, _)| role);
                self.contents_in_words(&format!("its `{role}`"))
            }
            "revision" => "its code changed".to_owned(),
            "kind" => format!("it is a `{}` now", self.now.as_deref().unwrap_or("?")),
            _ => format!("`{}` changed", self.path),
        }
    }

    fn setting_in_words(&self, name: &str, full: bool) -> String {
        let shown = |value: &Option<String>| value.as_deref().map(|value| shown(value, full));
        match (shown(&self.was), shown(&self.now)) {
            (Some(was), Some(now)) => format!("`{name}` was {was}, is now {now}"),
            (None, Some(now)) => format!("`{name}` is new: {now}"),
            (Some(was), None) => format!("`{name}` is gone, was {was}"),
            (None, None) => format!("`{name}` changed"),
        }
    }

    fn contents_in_words(&self, what: &str) -> String {
        match (&self.was, &self.now) {
            (None, _) => format!("{what} is new"),
            (_, None) => format!("{what} is gone"),
            _ => format!("{what} has other contents"),
        }
    }
}

/// A JSON scalar as a person would write it.
fn shown(value: &str, full: bool) -> String {
    let plain = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|inner| !inner.is_empty() && !inner.contains(['"', '\\', ' ']));
    let text = plain.unwrap_or_else(|| value.strip_suffix(".0").unwrap_or(value));
    if full || text.chars().count() <= VALUE_SHOWN_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(VALUE_SHOWN_MAX - 1).collect();
    format!("{start}…")
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words(false))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        content::Content,
        error::StageError,
        io::StageIo,
        metrics::Metrics,
        role::{Role, Roles},
        settings::with_defaults,
        stage::Stage,
    };

    crate::settings! {
        /// Settings of a stage that does nothing.
        struct FakeSettings {
            /// A size.
            pub size: usize = 64,
            /// Added later.
            pub margin: f64 = 0.0 => neutral 0.0,
            /// A seed.
            pub seed: Option<u64> = None,
        }
    }

    struct Fake;

    impl Stage for Fake {
        type Settings = FakeSettings;
        type Watch = crate::NoSettings;
        const KIND: &'static str = "fake";
        const ABOUT: &'static str = "Does nothing.";
        const REVISION: u32 = 1;
        const MAKES: Content = Content::Documents;
        const ROLES: Roles = Roles::Fixed(&[Role::many("documents", "What it reads.")]);
        const SEEDED: bool = true;

        fn run(
            _: &FakeSettings,
            _: &crate::NoSettings,
            _: &StageIo,
        ) -> Result<Metrics, StageError> {
            Ok(Metrics::default())
        }
    }

    const FAKE: Kind = Kind::of::<Fake>();

    fn with_recipe<T>(given: Value, seed: u64, input: &str, f: impl Fn(&Recipe) -> T) -> T {
        let filled = with_defaults(&(FAKE.settings)(), &given);
        let settings = (FAKE.canonical)(&filled).unwrap();
        let inputs = [(
            "documents".to_owned(),
            vec![Digest::of_bytes(input.as_bytes())],
        )];
        f(&Recipe {
            kind: &FAKE,
            settings: &settings,
            seed,
            inputs: &inputs,
            local_files: &[],
            pins: &[],
            places: &[],
        })
    }

    fn key_of(given: Value, seed: u64, input: &str) -> Digest {
        with_recipe(given, seed, input, key)
    }

    #[test]
    fn only_what_bytes_depend_on_changes_the_key() {
        let base = key_of(json!({}), 1, "a");
        assert_eq!(
            base,
            key_of(json!({"size": 64}), 1, "a"),
            "a spelled-out default"
        );
        assert_eq!(
            base,
            key_of(json!({"margin": 0}), 1, "a"),
            "a neutral value"
        );
        assert_eq!(
            base,
            key_of(json!({"seed": 1}), 1, "a"),
            "a seed is counted once"
        );
        assert_ne!(base, key_of(json!({"size": 65}), 1, "a"));
        assert_ne!(base, key_of(json!({"margin": 0.5}), 1, "a"));
        assert_ne!(base, key_of(json!({}), 2, "a"));
        assert_ne!(base, key_of(json!({}), 1, "b"));
    }

    #[test]
    fn the_encoding_of_version_1_never_moves() {
        let key = key_of(json!({}), 1, "a");
        insta::assert_snapshot!(key, @"cc73963b61cfbde3b9e8bca5052c931b37870a045cd6137dcdadbeeaf28e134b");
    }

    #[test]
    fn a_changed_setting_is_named_with_both_values() {
        let was = with_recipe(json!({}), 1, "a", explanation);
        let now = with_recipe(json!({"size": 96}), 1, "b", explanation);
        let words: Vec<String> = changes(&was, &now, true)
            .iter()
            .map(Change::to_string)
            .collect();
        assert_eq!(
            words,
            [
                "`size` was 64, is now 96",
                "its `documents` has other contents"
            ]
        );
    }

    #[test]
    fn the_key_differs_exactly_when_the_explanation_does() {
        let variants = [
            json!({}),
            json!({"size": 1}),
            json!({"margin": 1}),
            json!({"size": 64}),
        ];
        for a in &variants {
            for b in &variants {
                let same_key = key_of(a.clone(), 1, "x") == key_of(b.clone(), 1, "x");
                let same_text = with_recipe(a.clone(), 1, "x", explanation)
                    == with_recipe(b.clone(), 1, "x", explanation);
                assert_eq!(same_key, same_text, "{a} {b}");
            }
        }
    }
}
