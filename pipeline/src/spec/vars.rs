//! `${name}` in values.
//!
//! A value that is nothing but `${name}` becomes the variable's value, whatever its type, and
//! points to where that was written. Inside a longer text the variable must be a scalar and
//! appears as it was written. `$${` is a literal `${`. Variables may name each other.

use std::collections::HashMap;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    tree::{Data, Map, Node, Place},
};

/// More than any experiment needs; variables that double each other reach it in a moment.
const SIZE_MAX: usize = 1 << 22;

/// Fills in every value of an experiment but `vars` themselves.
pub(crate) fn fill(tree: &mut Map, wrong: &mut Diagnostics) {
    let vars = match tree.get("vars").map(|node| (node, &node.data)) {
        Some((_, Data::Map(map))) => map.clone(),
        None | Some((_, Data::Null)) => Map::default(),
        Some((node, _)) => {
            wrong.push(
                Diagnostic::new("`vars` must be a map of name to value")
                    .at(&node.place, format!("this is {}", node.sort())),
            );
            Map::default()
        }
    };
    let mut filler = Filler {
        vars: &vars,
        filled: HashMap::new(),
        open: Vec::new(),
        size: 0,
        wrong,
    };
    for entry in &mut tree.0 {
        // A sweep's values are filled in where they are put.
        if !matches!(entry.name.as_str(), "vars" | "sweep" | "extends") {
            filler.fill(&mut entry.node);
        }
    }
}

struct Filler<'a> {
    vars: &'a Map,
    /// `None` for a variable that cannot be had, which has been said.
    filled: HashMap<String, Option<Node>>,
    /// The variables being filled in, each naming the next.
    open: Vec<String>,
    size: usize,
    wrong: &'a mut Diagnostics,
}

/// A piece of a text with variables.
enum Piece<'a> {
    Text(&'a str),
    Var(&'a str),
}

impl Filler<'_> {
    fn fill(&mut self, node: &mut Node) {
        match &mut node.data {
            Data::Text(text) if text.contains("${") => {
                let text = std::mem::take(text);
                match self.filled_in(&text, node) {
                    Some(filled) => *node = filled,
                    None => node.data = Data::Broken,
                }
            }
            Data::List(items) => {
                for item in items {
                    self.fill(item);
                }
            }
            Data::Map(map) => {
                for entry in &mut map.0 {
                    self.fill(&mut entry.node);
                }
            }
            _ => {}
        }
    }

    fn filled_in(&mut self, text: &str, node: &Node) -> Option<Node> {
        let pieces = match pieces(text) {
            Ok(pieces) => pieces,
            Err(open) => {
                let place = place_in(node, open);
                self.wrong.push(
                    Diagnostic::new("a `${` has no `}`")
                        .at(&place, "")
                        .help("write `$${` for a literal `${`"),
                );
                return None;
            }
        };
        if let [Piece::Var(name)] = pieces.as_slice() {
            return self.value(name, node);
        }
        let mut filled = String::new();
        let mut home = None;
        for piece in &pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Var(name) => {
                    let value = self.value(name, node)?;
                    if filled.is_empty() {
                        home = Some(value.home.clone());
                    }
                    filled.push_str(&self.scalar(name, &value, node)?);
                }
            }
        }
        let mut filled = Node::new(Data::Text(filled), node.place.clone());
        filled.home = home.unwrap_or_else(|| node.home.clone());
        Some(filled)
    }

    fn scalar(&mut self, name: &str, value: &Node, node: &Node) -> Option<String> {
        match &value.data {
            Data::Text(text) => Some(text.clone()),
            Data::Bool(value) => Some(value.to_string()),
            Data::Number(number) => Some(as_written(value).unwrap_or_else(|| number.to_string())),
            _ => {
                self.wrong.push(
                    Diagnostic::new(format!("the variable `{name}` cannot stand inside a text"))
                        .at(&place_in(node, &format!("${{{name}}}")), "")
                        .at(&value.place, format!("this is {}", value.sort())),
                );
                None
            }
        }
    }

    /// Returns a variable's value with its own variables filled in.
    fn value(&mut self, name: &str, node: &Node) -> Option<Node> {
        if let Some(known) = self.filled.get(name) {
            let known = known.clone()?;
            return self.within_bounds(known, node);
        }
        let written = format!("${{{name}}}");
        let Some(entry) = self.vars.entry(name) else {
            self.wrong.push(
                Diagnostic::new(format!("there is no variable `{name}`"))
                    .at(&place_in(node, &written), "not in `vars`")
                    .hint(name, self.vars.names())
                    .help(format!("`$${{{name}}}` stands for the text `{written}`")),
            );
            self.filled.insert(name.to_owned(), None);
            return None;
        };
        if let Some(begin) = self.open.iter().position(|open| open == name) {
            let names = self.open[begin..].iter().map(String::as_str).chain([name]);
            let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            self.wrong.push(
                Diagnostic::new(format!(
                    "variables name each other in a circle: {}",
                    names.join(" names ")
                ))
                .at(&place_in(node, &written), ""),
            );
            return None;
        }
        self.open.push(name.to_owned());
        let mut value = entry.node.clone();
        self.fill(&mut value);
        self.open.pop();
        let value = (!value.has_broken()).then_some(value);
        self.filled.insert(name.to_owned(), value.clone());
        self.within_bounds(value?, node)
    }

    fn within_bounds(&mut self, value: Node, node: &Node) -> Option<Node> {
        let before = self.size;
        self.size = self.size.saturating_add(size(&value));
        if self.size <= SIZE_MAX {
            return Some(value);
        }
        if before <= SIZE_MAX {
            self.wrong.push(
                Diagnostic::new("the variables make this experiment too large")
                    .at(&node.place, "with this"),
            );
        }
        None
    }
}

/// Cuts a text at its variables, or returns a `${` without an end with what follows it.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, &str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            // `$${`: the second dollar opens nothing.
            pieces.push(Piece::Text(&rest[..at - 1]));
            pieces.push(Piece::Text("${"));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let Some(end) = rest[at..].find('}') else {
            return Err(&rest[at..]);
        };
        pieces.push(Piece::Var(&rest[at + 2..at + end]));
        rest = &rest[at + end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// The place of `part` in a value, or of the whole value where it was written in another way.
fn place_in(node: &Node, part: &str) -> Place {
    let mut place = node.place.clone();
    let found = place.source.text.get(place.range.clone());
    if let Some(at) = found.and_then(|written| written.find(part)) {
        place.range.start += at;
        place.range.end = place.range.start + part.len();
    }
    place
}

/// A number in the author's own spelling: `1e-3`, not `0.001`.
fn as_written(node: &Node) -> Option<String> {
    let text = node.place.source.text.get(node.place.range.clone())?;
    let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    number.then(|| text.trim_end().to_owned())
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::Text(text) => text.len() + 1,
        Data::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Data::Map(map) => 1 + map.0.iter().map(|entry| size(&entry.node)).sum::<usize>(),
        _ => 1,
    }
}
