//! YAML text to a tree with places: the only file that knows either parser.
//!
//! `serde_yaml` says what each value is, an event parser says where it stands, and the
//! two are walked side by side. `serde_yaml` is archived upstream; swapping it touches
//! nothing outside this file. Where the two disagree about a document's shape the value
//! is `serde_yaml`'s and its place is that of what it stands in.
//!
//! Scalars follow YAML 1.2: `no` is text, `0x10` a number, `010` and `30%` text.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use saphyr_parser::{Event, Parser, Span};
use serde_json::Number;
use serde_yaml::Value as Yaml;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    tree::{Data, Entry, Map, Node, Place, Source},
};

/// Deeper nesting is refused by `serde_yaml` too.
const DEPTH_MAX: usize = 128;

const TOO_DEEP: &str = "this nests too deeply";

/// Returns the tree of a whole file.
pub(crate) fn parse_file(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    Text {
        source,
        text: &source.text,
        shift: 0,
    }
    .parse()
}

/// Returns the flow values that `source` lists from byte `start` on, separated by commas.
pub(crate) fn parse_values(source: &Arc<Source>, start: usize) -> Result<Vec<Node>, Diagnostics> {
    let text = format!("[{}]", &source.text[start..]);
    let whole = Text {
        source,
        text: &text,
        shift: start as isize - 1, // the bracket
    };
    match whole.parse()?.data {
        Data::List(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// A text to parse, and what to add to a position in it to find it in its source.
struct Text<'a> {
    source: &'a Arc<Source>,
    text: &'a str,
    shift: isize,
}

/// The shape of a document and where its parts are.
struct Outline {
    range: Range<usize>,
    parts: Parts,
    /// How deep the parts nest, aliases followed: bounded, so that walking it needs little stack.
    depth: usize,
}

enum Parts {
    Scalar(String),
    List(Vec<Rc<Outline>>),
    Map(Vec<(Rc<Outline>, Rc<Outline>)>),
    Unknown,
}

impl Text<'_> {
    fn parse(&self) -> Result<Node, Diagnostics> {
        let outline = self.outline()?;
        let mut wrong = Diagnostics::default();
        self.find_duplicates(&outline, &mut wrong, &mut HashSet::new());
        wrong.or(())?;
        let tree: Yaml = serde_yaml::from_str(self.text).map_err(|error| self.refused(&error))?;
        let mut wrong = Diagnostics::default();
        let node = self.node(&tree, &outline, &outline, &mut wrong);
        wrong.or(node)
    }

    fn place(&self, range: &Range<usize>) -> Place {
        let end = self.source.text.len();
        let moved = |idx: usize| idx.saturating_add_signed(self.shift).min(end);
        Place {
            source: self.source.clone(),
            range: moved(range.start)..moved(range.end),
        }
    }

    fn refused(&self, error: &serde_yaml::Error) -> Diagnostics {
        let at = error.location().map_or(0, |at| at.index());
        // Something missing at the end is missing after the last thing written.
        let at = at.min(self.text.trim_end().len());
        let message = without_positions(&error.to_string());
        let message = match message.as_str() {
            "deserializing from YAML containing more than one document is not supported" => {
                "there is more than one YAML document in this file".to_owned()
            }
            "EOF while parsing a value" => "there is nothing in it".to_owned(),
            "repetition limit exceeded" => "its aliases make it too large".to_owned(),
            _ => message,
        };
        let mut diagnostic =
            Diagnostic::new("this is not valid YAML").at(&self.place(&(at..at)), message);
        if self.line_of(at).trim_start_matches(' ').starts_with('\t') {
            diagnostic = diagnostic.help("indent with spaces; YAML allows no tabs there");
        }
        diagnostic.into()
    }

    fn line_of(&self, idx: usize) -> &str {
        let head = self.text.get(..idx).unwrap_or(self.text);
        let start = head.rfind('\n').map_or(0, |newline| newline + 1);
        self.text[start..].lines().next().unwrap_or_default()
    }

    /// All names that a map has twice. Each part is visited once, however often an alias repeats it.
    fn find_duplicates<'o>(
        &self,
        outline: &'o Rc<Outline>,
        wrong: &mut Diagnostics,
        seen: &mut HashSet<*const Outline>,
    ) {
        if !seen.insert(Rc::as_ptr(outline)) {
            return;
        }
        match &outline.parts {
            Parts::Scalar(_) | Parts::Unknown => {}
            Parts::List(items) => {
                for item in items {
                    self.find_duplicates(item, wrong, seen);
                }
            }
            Parts::Map(entries) => {
                let mut names: HashMap<&'o str, &'o Range<usize>> = HashMap::new();
                for (name, value) in entries {
                    if let Parts::Scalar(text) = &name.parts {
                        match names.get(text.as_str()) {
                            Some(first) => wrong.push(
                                Diagnostic::new(format!("`{text}` is written twice"))
                                    .at(&self.place(&name.range), "again here")
                                    .at(&self.place(first), "first here"),
                            ),
                            None => drop(names.insert(text, &name.range)),
                        }
                    }
                    self.find_duplicates(value, wrong, seen);
                }
            }
        }
    }

    fn node(
        &self,
        tree: &Yaml,
        outline: &Outline,
        around: &Outline,
        wrong: &mut Diagnostics,
    ) -> Node {
        let range = match outline.parts {
            Parts::Unknown => &around.range,
            _ => &outline.range,
        };
        let place = self.place(range);
        let data = match tree {
            Yaml::Null => Data::Null,
            Yaml::Bool(value) => Data::Bool(*value),
            Yaml::String(text) => Data::Text(text.clone()),
            Yaml::Number(number) => match plain_number(number) {
                Some(number) => Data::Number(number),
                None => {
                    wrong.push(Diagnostic::new("a number must be finite").at(&place, ""));
                    Data::Null
                }
            },
            Yaml::Sequence(items) => Data::List(self.items(items, outline, wrong)),
            Yaml::Mapping(map) => Data::Map(self.entries(map, outline, wrong)),
            Yaml::Tagged(tagged) => {
                wrong.push(
                    Diagnostic::new("tags mean nothing here")
                        .at(&place, format!("has the tag `{}`", tagged.tag)),
                );
                Data::Null
            }
        };
        Node::new(data, place)
    }

    fn items(&self, items: &[Yaml], outline: &Outline, wrong: &mut Diagnostics) -> Vec<Node> {
        let known: &[Rc<Outline>] = match &outline.parts {
            Parts::List(known) if known.len() == items.len() => known,
            _ => &[],
        };
        let unknown = unknown();
        let items = items.iter().enumerate();
        items
            .map(|(idx, item)| {
                let part = known.get(idx).unwrap_or(&unknown);
                self.node(item, part, outline, wrong)
            })
            .collect()
    }

    fn entries(
        &self,
        map: &serde_yaml::Mapping,
        outline: &Outline,
        wrong: &mut Diagnostics,
    ) -> Map {
        let known: &[(Rc<Outline>, Rc<Outline>)] = match &outline.parts {
            Parts::Map(known) if known.len() == map.len() => known,
            _ => &[],
        };
        let unknown = (unknown(), unknown());
        let mut entries = Vec::with_capacity(map.len());
        for (idx, (name, value)) in map.iter().enumerate() {
            let (name_part, part) = known.get(idx).unwrap_or(&unknown);
            let name_node = self.node(name, name_part, outline, wrong);
            let name = match (name_node.as_text(), &name_part.parts) {
                (Some(text), _) => text.to_owned(),
                (None, Parts::Scalar(text)) => text.clone(),
                _ => {
                    wrong.push(
                        Diagnostic::new("a name must be text")
                            .at(&name_node.place, format!("this is {}", name_node.sort())),
                    );
                    continue;
                }
            };
            entries.push(Entry {
                name,
                place: name_node.place,
                node: self.node(value, part, outline, wrong),
            });
        }
        merged(Map(entries))
    }

    /// Reads the events; what cannot be read is `Unknown`, for `serde_yaml` to complain about.
    /// Endless nesting is refused here: reading it there takes minutes.
    fn outline(&self) -> Result<Rc<Outline>, Diagnostics> {
        let mut builder = Builder::new(self.text);
        for event in Parser::new_from_str(self.text) {
            let (event, span) = match event {
                Ok(event) => event,
                // It looks ahead, so it may meet the end of its own patience before we do.
                Err(error) if error.info() == "recursion limit exceeded" => {
                    let start = builder.byte(error.marker().index());
                    builder.endless(start..start + 1, TOO_DEEP);
                    break;
                }
                Err(_) => break,
            };
            if builder.take(event, span).is_none() {
                break;
            }
        }
        match builder.endless {
            None => Ok(builder.root.unwrap_or_else(unknown)),
            Some((range, what)) => {
                let place = self.place(&range);
                Err(Diagnostic::new("this is not valid YAML")
                    .at(&place, what)
                    .into())
            }
        }
    }
}

/// Puts events together without recursion, because a hostile text may nest without end.
struct Builder {
    /// The byte that each character starts at.
    bytes: Vec<usize>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Outline>>,
    root: Option<Rc<Outline>>,
    /// The value that nests too deeply, and how.
    endless: Option<(Range<usize>, &'static str)>,
}

struct Open {
    anchor: usize,
    start: usize,
    is_map: bool,
    parts: Vec<Rc<Outline>>,
}

impl Builder {
    fn new(text: &str) -> Self {
        let mut bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).collect();
        bytes.push(text.len());
        Self {
            bytes,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            root: None,
            endless: None,
        }
    }

    /// Returns `None` when there is no point in going on.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let range = self.byte(span.start.index())..self.byte(span.end.index());
        match event {
            Event::Scalar(text, _, anchor, _) => {
                self.close(anchor, range, Parts::Scalar(text.into_owned()))
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, range.start, false),
            Event::MappingStart(anchor, _) => self.open(anchor, range.start, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop()?;
                let range = open.start..range.end.max(open.start);
                let parts = match open.is_map {
                    true => Parts::Map(pairs(open.parts)),
                    false => Parts::List(open.parts),
                };
                self.close(open.anchor, range, parts)
            }
            Event::Alias(anchor) => {
                let Some(named) = self.anchors.get(&anchor).cloned() else {
                    return self.endless(range, "this alias stands inside what it names");
                };
                if named.depth + self.open.len() > DEPTH_MAX {
                    return self.endless(range, "what this names nests too deeply here");
                }
                self.put(named)
            }
            _ => Some(()),
        }
    }

    fn open(&mut self, anchor: usize, start: usize, is_map: bool) -> Option<()> {
        if self.open.len() == DEPTH_MAX {
            return self.endless(start..start + 1, TOO_DEEP);
        }
        self.open.push(Open {
            anchor,
            start,
            is_map,
            parts: Vec::new(),
        });
        Some(())
    }

    fn endless(&mut self, range: Range<usize>, what: &'static str) -> Option<()> {
        self.endless = Some((range, what));
        None
    }

    fn close(&mut self, anchor: usize, range: Range<usize>, parts: Parts) -> Option<()> {
        let depth = match &parts {
            Parts::Scalar(_) | Parts::Unknown => 0,
            Parts::List(items) => deepest(items.iter()),
            Parts::Map(entries) => deepest(entries.iter().map(|(_, value)| value)),
        };
        let outline = Rc::new(Outline {
            range,
            parts,
            depth,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, outline.clone());
        }
        self.put(outline)
    }

    /// Stops after the first document: a second one is refused anyway.
    fn put(&mut self, outline: Rc<Outline>) -> Option<()> {
        match self.open.last_mut() {
            Some(open) => {
                open.parts.push(outline);
                Some(())
            }
            None => {
                self.root = Some(outline);
                None
            }
        }
    }

    fn byte(&self, character: usize) -> usize {
        let last = self.bytes.len() - 1; // the end of the text is always there
        self.bytes[character.min(last)]
    }
}

/// Puts the entries of a map under `<<` (or of several) where they are not written themselves.
/// Not in YAML 1.2, but what people expect of an anchor.
fn merged(mut map: Map) -> Map {
    let is_map = |node: &Node| node.as_map().is_some();
    let merges = map.get("<<").is_some_and(|node| match &node.data {
        Data::List(items) => items.iter().all(is_map),
        _ => is_map(node),
    });
    if !merges {
        return map;
    }
    let sources = match map.remove("<<").map(|entry| entry.node.data) {
        Some(Data::List(items)) => items.into_iter().map(|item| item.data).collect(),
        other => other.into_iter().collect::<Vec<Data>>(),
    };
    for source in sources {
        if let Data::Map(source) = source {
            for entry in source.0 {
                if map.entry(&entry.name).is_none() {
                    map.0.push(entry);
                }
            }
        }
    }
    map
}

fn pairs(parts: Vec<Rc<Outline>>) -> Vec<(Rc<Outline>, Rc<Outline>)> {
    let mut parts = parts.into_iter();
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((name, value));
    }
    pairs
}

fn deepest<'o>(parts: impl Iterator<Item = &'o Rc<Outline>>) -> usize {
    1 + parts.map(|part| part.depth).max().unwrap_or(0)
}

fn unknown() -> Rc<Outline> {
    Rc::new(Outline {
        range: 0..0,
        parts: Parts::Unknown,
        depth: 0,
    })
}

fn plain_number(number: &serde_yaml::Number) -> Option<Number> {
    if let Some(value) = number.as_u64() {
        return Some(value.into());
    }
    if let Some(value) = number.as_i64() {
        return Some(value.into());
    }
    Number::from_f64(number.as_f64()?)
}

/// Returns a parser's message without its "at line 3 column 5", which the caret shows.
fn without_positions(message: &str) -> String {
    let mut rest = message;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(" at line ") {
        kept.push_str(before);
        let digits = |c: char| c.is_ascii_digit();
        let after = after.trim_start_matches(digits);
        let after = after.strip_prefix(" column ").unwrap_or(after);
        rest = after.trim_start_matches(digits);
    }
    kept.push_str(rest);
    kept
}
