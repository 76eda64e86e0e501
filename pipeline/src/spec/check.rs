//! The settings under `with:` and `watch:`, checked against the kind's declaration.
//!
//! Unknown names, missing settings and settings that exclude each other are found by
//! walking the declaration, all of them at once; typing comes after, so that a typing
//! error is about a value and never about a name. Typing has the last word on values:
//! the declaration is asked only to say it in words when typing has refused, and for the
//! ranges of numbers, so that a schema made from it can refuse nothing that is taken here.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map as JsonMap, Value};

use super::{
    deeper::deeper,
    diagnostic::{Diagnostic, Diagnostics, listed},
    nearest::nearest,
    tree::{Data, Entry, Map, Node, Place},
};
use crate::settings::{Setting, SettingError, Shape, with_defaults};

/// The settings of one stage as its kind declares them.
pub(crate) struct Declared<'a> {
    /// `with` or `watch`.
    pub(crate) section: &'static str,
    pub(crate) stage: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) list: &'a [Setting],
    /// Returns the kinds that have a setting of this name.
    pub(crate) owners: &'a dyn Fn(&str) -> Vec<&'static str>,
    pub(crate) exclusive: &'a [&'a [&'a str]],
    pub(crate) canonical: fn(&Value) -> Result<Value, SettingError>,
    /// Where to point when nothing was written.
    pub(crate) place: &'a Place,
}

/// Settings as the author gave them and as the stage gets them.
pub(crate) struct Checked {
    pub(crate) given: Value,
    pub(crate) full: Value,
}

impl Declared<'_> {
    pub(crate) fn check(&self, node: Option<&Node>, wrong: &mut Diagnostics) -> Option<Checked> {
        let empty = Map::default();
        let map = match node.map(|node| &node.data) {
            None | Some(Data::Null) => &empty,
            Some(Data::Map(map)) => map,
            Some(Data::Broken) => return None,
            Some(_) => {
                let node = node?;
                wrong.push(
                    Diagnostic::new(format!(
                        "`{}` of stage `{}` must be a map of settings",
                        self.section, self.stage
                    ))
                    .at(&node.place, format!("this is {}", node.sort())),
                );
                return None;
            }
        };
        let before = wrong.0.len();
        let given = self.map(map, self.list, self.exclusive, "", self.place, wrong);
        let full = with_defaults(self.list, &Value::Object(given.clone()));
        let incomplete = wrong.0.len() > before || node.is_some_and(Node::has_broken);
        match (self.canonical)(&full) {
            Ok(_) if incomplete => None,
            Ok(_) if self.out_of_range(map, wrong) => None,
            Ok(full) => Some(Checked {
                given: Value::Object(given),
                full,
            }),
            Err(error) => {
                match self.in_words(map, &error) {
                    Some(found) => wrong.push(self.wrong_value(&found)),
                    // Typing may only complain of what is missing.
                    None if incomplete => {}
                    None => wrong.push(self.refused(map, &error)),
                }
                None
            }
        }
    }

    /// Tells of numbers that lie outside of what they are declared to be, and that their kind took.
    fn out_of_range(&self, map: &Map, wrong: &mut Diagnostics) -> bool {
        let mut found = Vec::new();
        out_of_range(map, self.list, "", &mut found);
        for value in &found {
            wrong.push(self.wrong_value(value));
        }
        !found.is_empty()
    }

    /// Returns the known entries of `map` as plain data with absolute paths, and reports the rest.
    fn map(
        &self,
        map: &Map,
        list: &[Setting],
        exclusive: &[&[&str]],
        path: &str,
        place: &Place,
        wrong: &mut Diagnostics,
    ) -> JsonMap<String, Value> {
        let mut given = JsonMap::new();
        for entry in &map.0 {
            let path = join(path, &entry.name);
            match list.iter().find(|setting| setting.name == entry.name) {
                None => wrong.push(self.unknown(entry, &path, list)),
                Some(setting) => {
                    let value = self.value(&entry.node, &setting.shape, &path, &entry.place, wrong);
                    given.insert(entry.name.clone(), value);
                }
            }
        }
        for setting in list {
            if setting.default.is_none() && map.get(setting.name).is_none() {
                wrong.push(self.missing(setting, &join(path, setting.name), place));
            }
        }
        for group in exclusive {
            self.exclude(map, group, wrong);
        }
        given
    }

    fn value(
        &self,
        node: &Node,
        shape: &Shape,
        path: &str,
        place: &Place,
        wrong: &mut Diagnostics,
    ) -> Value {
        match (shape, &node.data) {
            (Shape::Path, Data::Text(text)) => match absolute(&node.home.dir, text) {
                Some(path) => Value::String(path),
                None => {
                    let folder = node.home.dir.display();
                    wrong.push(
                        Diagnostic::new(format!(
                            "the folder `{folder}` has a name that is not UTF-8"
                        ))
                        .at(&node.place, "counts from there")
                        .help("write an absolute path, or move the file"),
                    );
                    Value::Null
                }
            },
            (Shape::Map(list, exclusive), Data::Map(map)) => {
                Value::Object(self.map(map, list, exclusive, path, place, wrong))
            }
            (Shape::List(inner), Data::List(items)) => {
                let items = items.iter().enumerate();
                items
                    .map(|(idx, item)| {
                        let path = join(path, &idx.to_string());
                        self.value(item, inner, &path, &item.place, wrong)
                    })
                    .collect()
            }
            (Shape::Table(inner), Data::Map(map)) => {
                let entries = map.0.iter().map(|entry| {
                    let path = join(path, &entry.name);
                    let value = self.value(&entry.node, inner, &path, &entry.place, wrong);
                    (entry.name.clone(), value)
                });
                Value::Object(entries.collect())
            }
            _ => node.to_value(),
        }
    }

    fn unknown(&self, entry: &Entry, path: &str, list: &[Setting]) -> Diagnostic {
        let names = list.iter().map(|setting| setting.name);
        let diagnostic = Diagnostic::new(format!(
            "stage `{}`: `{}` has no {} `{path}`",
            self.stage,
            self.kind,
            self.noun()
        ))
        .at(&entry.place, "unknown");
        if list.is_empty() {
            return diagnostic.help(format!("there is nothing to set under `{}`", self.section));
        }
        let written: Vec<&str> = path.split('.').collect();
        if let [one] = deeper(self.list, &written).as_slice() {
            return diagnostic.help(format!("did you mean `{one}`?"));
        }
        match nearest(&entry.name, names.clone()) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic.help(match (self.owners)(path).as_slice() {
                [] => format!("there is {}", listed(&names.collect::<Vec<_>>())),
                owners => format!("`{path}` is a setting of {}", listed(owners)),
            }),
        }
    }

    fn noun(&self) -> &'static str {
        match self.section {
            "with" => "setting",
            _ => "`watch` setting",
        }
    }

    fn missing(&self, setting: &Setting, path: &str, place: &Place) -> Diagnostic {
        Diagnostic::new(format!("stage `{}` needs the setting `{path}`", self.stage))
            .at(place, format!("`{}` is missing", setting.name))
            .help(format!("`{}`: {}", setting.name, setting.about))
    }

    fn exclude(&self, map: &Map, group: &[&str], wrong: &mut Diagnostics) {
        let set = map
            .0
            .iter()
            .filter(|entry| group.contains(&entry.name.as_str()) && !entry.node.is_null());
        let set: Vec<&Entry> = set.collect();
        let [first, others @ ..] = set.as_slice() else {
            return;
        };
        if others.is_empty() {
            return;
        }
        let names: Vec<&str> = set.iter().map(|entry| entry.name.as_str()).collect();
        let mut diagnostic = Diagnostic::new(format!(
            "stage `{}`: {} exclude each other",
            self.stage,
            listed(&names)
        ))
        .at(&first.place, "either this");
        for other in others {
            diagnostic = diagnostic.at(&other.place, "or this");
        }
        wrong.push(diagnostic);
    }

    fn wrong_value(&self, found: &WrongValue) -> Diagnostic {
        let title = format!(
            "stage `{}`: `{}` must be {}",
            self.stage, found.path, found.expected
        );
        let diagnostic = Diagnostic::new(title).at(&found.place, found.label.clone());
        match &found.help {
            Some(help) => diagnostic.help(help.clone()),
            None => diagnostic,
        }
    }

    /// The value that typing refused, as its declaration puts it: the one that the error
    /// names, or the first when it names none or something around it.
    fn in_words(&self, map: &Map, error: &SettingError) -> Option<WrongValue> {
        let mut found = Vec::new();
        wrong_values(map, self.list, "", &mut found);
        let named: Vec<&str> = segments(&error.path).collect();
        let is_about_type = ["invalid type", "data did not match", "invalid value"]
            .iter()
            .any(|words| error.message.starts_with(words));
        let is_inside = |value: &WrongValue| {
            let path: Vec<&str> = segments(&value.path).collect();
            path.starts_with(&named)
        };
        let is_it = |value: &WrongValue| {
            is_inside(value)
                && (value.is_sure
                    || is_about_type && segments(&value.path).eq(named.iter().copied()))
        };
        found.into_iter().find(is_it)
    }

    /// The complaint of typing, pointing at the value it is about or the nearest thing around it.
    fn refused(&self, map: &Map, error: &SettingError) -> Diagnostic {
        let message = plainly(&error.message);
        let is_clause = [
            "must ",
            "is ",
            "has ",
            "needs ",
            "cannot ",
            "names ",
            "excludes ",
        ]
        .iter()
        .any(|verb| message.starts_with(verb));
        let title = match error.path.as_str() {
            "" => format!("stage `{}`: {message}", self.stage),
            path if is_clause => format!("stage `{}`: `{path}` {message}", self.stage),
            path => format!("stage `{}`: `{path}`: {message}", self.stage),
        };
        let place = place_of(map, &error.path).unwrap_or_else(|| self.place.clone());
        let diagnostic = Diagnostic::new(title).at(&place, "");
        match &error.help {
            Some(help) => diagnostic.help(help.clone()),
            None => diagnostic,
        }
    }
}

/// A value that its declared shape rules out.
struct WrongValue {
    path: String,
    expected: String,
    label: String,
    help: Option<String>,
    place: Place,
    /// Unsure is a shape in words of its kind's own: only typing knows what fits it.
    is_sure: bool,
}

fn wrong_values(map: &Map, list: &[Setting], path: &str, found: &mut Vec<WrongValue>) {
    for entry in &map.0 {
        let Some(setting) = list.iter().find(|setting| setting.name == entry.name) else {
            continue;
        };
        let optional = setting.default == Some(Value::Null);
        if !(entry.node.is_null() && optional) {
            wrong_in(&entry.node, &setting.shape, &join(path, &entry.name), found);
        }
    }
}

fn out_of_range(map: &Map, list: &[Setting], path: &str, found: &mut Vec<WrongValue>) {
    for entry in &map.0 {
        let Some(setting) = list.iter().find(|setting| setting.name == entry.name) else {
            continue;
        };
        let path = join(path, &entry.name);
        match (&setting.shape, &entry.node.data) {
            (Shape::Map(list, _), Data::Map(map)) => out_of_range(map, list, &path, found),
            (Shape::Number(numbers), Data::Number(number))
                if number.as_f64().is_some_and(|n| !numbers.range.holds(n)) =>
            {
                found.push(WrongValue {
                    path,
                    expected: numbers.range.to_string(),
                    label: String::new(),
                    help: None,
                    place: entry.node.place.clone(),
                    is_sure: true,
                });
            }
            _ => {}
        }
    }
}

fn wrong_in(node: &Node, shape: &Shape, path: &str, found: &mut Vec<WrongValue>) {
    let mut refused = |expected: String, help: Option<String>| {
        found.push(WrongValue {
            path: path.to_owned(),
            expected,
            label: match (shape, &node.data) {
                (Shape::Choice(..), Data::Text(_)) => "not one of them".to_owned(),
                _ => format!("this is {}", node.sort()),
            },
            help,
            place: node.place.clone(),
            is_sure: !matches!(shape, Shape::Own(..) | Shape::Value("value")),
        });
    };
    match (shape, &node.data) {
        (_, Data::Broken) => {}
        (Shape::Value("true or false"), Data::Bool(_))
        | (Shape::Value("text"), Data::Text(_))
        | (Shape::Path, Data::Text(_)) => {}
        (Shape::Number(numbers), Data::Number(number)) if !numbers.is_whole || !number.is_f64() => {
        }
        (Shape::Number(numbers), _) => {
            let word = numbers.word();
            refused(with_article(word), spelling_help(word, node));
        }
        (Shape::Value(word) | Shape::Own(word, _), _) => {
            refused(with_article(word), spelling_help(word, node))
        }
        (Shape::Choice(words, _), Data::Text(text)) if words.contains(&text.as_str()) => {}
        (Shape::Choice(words, _), _) => {
            let near = node
                .as_text()
                .and_then(|text| nearest(text, words.iter().copied()));
            let help = near.map(|near| format!("did you mean `{near}`?"));
            refused(format!("one of {}", alternatives(words)), help);
        }
        (Shape::Map(list, _), Data::Map(map)) => wrong_values(map, list, path, found),
        (Shape::List(inner), Data::List(items)) => {
            for (idx, item) in items.iter().enumerate() {
                wrong_in(item, inner, &join(path, &idx.to_string()), found);
            }
        }
        (Shape::Table(inner), Data::Map(map)) => {
            for entry in &map.0 {
                wrong_in(&entry.node, inner, &join(path, &entry.name), found);
            }
        }
        (Shape::Path, _) => refused("a path".to_owned(), None),
        (Shape::Map(..), _) => refused("a map of settings".to_owned(), None),
        (Shape::List(_), _) => refused("a list".to_owned(), None),
        (Shape::Table(_), _) => refused("a map".to_owned(), None),
    }
}

fn with_article(words: &str) -> String {
    let counted = ["number", "whole number", "share", "list", "map"];
    match counted.iter().any(|word| words.starts_with(word)) {
        true => format!("a {words}"),
        false => words.to_owned(),
    }
}

/// Puts what typing says about a number that does not fit into the words of an author.
fn plainly(message: &str) -> String {
    let number = message
        .strip_prefix("invalid value: integer `")
        .and_then(|rest| rest.split_once("`, expected "));
    let Some((number, ty)) = number else {
        return message.to_owned();
    };
    let max = match ty {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => u64::MAX,
        _ => return message.to_owned(),
    };
    match number.starts_with('-') {
        true => "must not be negative".to_owned(),
        false => format!("must be at most {max}"),
    }
}

/// How to write what was probably meant.
fn spelling_help(word: &str, node: &Node) -> Option<String> {
    match (word, &node.data) {
        ("text", Data::Number(_) | Data::Bool(_)) => {
            let value = node.to_value();
            Some(format!("quotes make it text: \"{value}\""))
        }
        ("number" | "whole number", Data::Text(text)) => {
            let digits: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
            let better = digits != *text && digits.parse::<f64>().is_ok();
            better.then(|| format!("write `{digits}`"))
        }
        ("whole number", Data::Number(number)) => {
            let value = number.as_f64()?;
            let whole = value.fract() == 0.0 && value.abs() < 1e15;
            whole.then(|| format!("write `{value:.0}`"))
        }
        ("true or false", Data::Text(text)) => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => Some("write `true`".to_owned()),
            "no" | "off" | "n" => Some("write `false`".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[', ']']).filter(|part| !part.is_empty())
}

/// Returns the place of the value at a path such as `train.lr` or `rows[0].text`, or of the
/// nearest thing around it that was written.
fn place_of(map: &Map, path: &str) -> Option<Place> {
    let mut map = Some(map);
    let mut list: Option<&Vec<Node>> = None;
    let mut place = None;
    for segment in segments(path) {
        let (at, node) = if let Some(entry) = map.and_then(|map| map.entry(segment)) {
            (&entry.place, &entry.node)
        } else if let Some(item) = list
            .zip(segment.parse::<usize>().ok())
            .and_then(|(list, idx)| list.get(idx))
        {
            (&item.place, item)
        } else {
            break;
        };
        (map, list) = (None, None);
        place = Some(match &node.data {
            Data::Map(inner) => {
                map = Some(inner);
                at.clone()
            }
            Data::List(items) => {
                list = Some(items);
                at.clone()
            }
            _ => node.place.clone(),
        });
    }
    place
}

/// Returns "`a`, `b` or `c`".
fn alternatives(words: &[&str]) -> String {
    let ticked: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match ticked.as_slice() {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => ticked.concat(),
    }
}

/// Returns `text` as an absolute path, or `None` when the folder's own name is not UTF-8.
pub(crate) fn absolute(dir: &Path, text: &str) -> Option<String> {
    let home = || text.strip_prefix("~/").zip(std::env::home_dir());
    let joined = match home() {
        Some((below, home)) => home.join(below),
        None => resolved(dir, Path::new(text)),
    };
    joined.to_str().map(str::to_owned)
}

/// Joins without asking the file system, so that a glob or a file that is not there yet can be
/// named too. `dir` has no links in it, so its end may be taken off by a leading `..`.
pub(crate) fn resolved(dir: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    let mut joined = dir.to_owned();
    let mut leading = true;
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if leading => {
                joined.pop();
            }
            other => {
                leading = false;
                joined.push(other);
            }
        }
    }
    joined
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_begin_at_the_home_of_its_user() {
        let home = std::env::home_dir().unwrap();
        let wanted = home.join("data/a.txt").display().to_string();
        let found = |text: &str| absolute(Path::new("/project"), text).unwrap();
        assert_eq!(found("~/data/a.txt"), wanted);
        assert_eq!(found("./~/a.txt"), "/project/~/a.txt");
        assert_eq!(found("~a.txt"), "/project/~a.txt");
    }
}
