//! Mistakes in an experiment file, each pointing at what its author has to change.
//!
//! A mistake is data until it is rendered, so that all of them can be collected,
//! sorted and freed of repetitions (a sweep makes the same one once per combination).

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{
    nearest::nearest,
    tree::{Place, Source},
};
use crate::secrets::{masked, starred};

/// One mistake: what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub title: String,
    /// The first is where the mistake is; the others belong to it.
    pub places: Vec<(Place, String)>,
    pub help: Vec<String>,
}

/// At least one mistake, as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// A place, how it is drawn, and its label.
type Marked<'a> = (AnnotationKind, &'a Place, &'a str);

impl Diagnostic {
    /// A mistake that is in no file, until `at` says otherwise.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: said(&title.into()),
            places: Vec::new(),
            help: Vec::new(),
        }
    }

    /// Points at a place; the label says what is wrong with what stands there, and may be empty.
    #[must_use]
    pub fn at(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.places.push((place.clone(), said(&label.into())));
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(said(&help.into()));
        self
    }

    /// Adds "did you mean" when one of `names` is close to `name`, else says which there are.
    #[must_use]
    pub fn hint<'a>(self, name: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        match nearest(name, names.iter().copied()) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None if names.is_empty() => self,
            None => self.help(format!("there is {}", listed(&names))),
        }
    }

    pub fn render(&self, color: bool) -> String {
        let mut group = Group::with_title(Level::ERROR.primary_title(&self.title));
        for (source, places) in self.by_source() {
            let (window, line) = window(&source.text, &places);
            let text = starred(&source.text[window.clone()]);
            let mut snippet = Snippet::source(text).path(&source.title).line_start(line);
            for (kind, place, label) in places {
                let shown = shown(&source.text, &place.range);
                let annotation = kind.span(shown.start - window.start..shown.end - window.start);
                let label = Some(label).filter(|label| !label.is_empty());
                snippet = snippet.annotation(match label {
                    Some(label) => annotation.label(label),
                    None => annotation,
                });
            }
            group = group.element(snippet);
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer(color).render(&[group])
    }

    /// The places grouped by the text they are in, in the order of first mention.
    fn by_source(&self) -> Vec<(&Arc<Source>, Vec<Marked<'_>>)> {
        let mut groups: Vec<(&Arc<Source>, Vec<Marked<'_>>)> = Vec::new();
        for (idx, (place, label)) in self.places.iter().enumerate() {
            let kind = match idx {
                0 => AnnotationKind::Primary,
                _ => AnnotationKind::Context,
            };
            let marked = (kind, place, label.as_str());
            let known = groups
                .iter_mut()
                .find(|(source, _)| Arc::ptr_eq(source, &place.source));
            match known {
                Some((_, places)) => places.push(marked),
                None => groups.push((&place.source, vec![marked])),
            }
        }
        groups
    }

    fn place(&self) -> Option<&Place> {
        let (place, _) = self.places.first()?;
        Some(place)
    }
}

impl Diagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether so much is wrong that nobody will read what each was meant to be; finding
    /// that out takes a look at every name there is.
    pub(crate) fn are_many(&self) -> bool {
        self.0.len() > 100
    }

    /// Returns `value` when nothing is wrong; else the mistakes, each once, in the order of the file.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            return Ok(value);
        }
        self.tidy();
        Err(self)
    }

    /// Sorts what is in one text by line, texts by first mention, and drops repetitions.
    pub(crate) fn tidy(&mut self) {
        let places = self.0.iter().filter_map(Diagnostic::place);
        let mut sources: Vec<Arc<Source>> = Vec::new();
        for place in places {
            if !sources.contains(&place.source) {
                sources.push(place.source.clone());
            }
        }
        let order = |diagnostic: &Diagnostic| {
            let place = diagnostic.place()?;
            let source = sources.iter().position(|known| *known == place.source);
            Some((source, place.range.start))
        };
        self.0.sort_by_cached_key(order);
        let mut seen: Vec<Diagnostic> = Vec::new();
        for diagnostic in self.0.drain(..) {
            // Only what stands at the same place can be the same.
            let at = order(&diagnostic);
            let mut alike = seen.iter().rev().take_while(|known| order(known) == at);
            if !alike.any(|known| *known == diagnostic) {
                seen.push(diagnostic);
            }
        }
        self.0 = seen;
    }

    /// Returns all mistakes as text for a terminal, with an empty line between two. Of more than
    /// anyone would mend before trying again, only the first ones and how many there are.
    pub fn render(&self, color: bool) -> String {
        const SHOWN_MAX: usize = 1000;
        let shown = self.0.iter().take(SHOWN_MAX);
        let mut rendered: Vec<String> = shown.map(|one| one.render(color)).collect();
        if self.0.len() > SHOWN_MAX {
            let n_more = self.0.len() - SHOWN_MAX;
            rendered.push(format!("error: and {n_more} more mistakes"));
        }
        rendered.join("\n\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Returns "`a`, `b` and `c`"; of many names only the first few.
pub(crate) fn listed(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 12;
    let ticked: Vec<String> = names
        .iter()
        .take(SHOWN_MAX)
        .map(|name| format!("`{name}`"))
        .collect();
    match ticked.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        _ if names.len() > SHOWN_MAX => {
            format!("{} and {} more", ticked.join(", "), names.len() - SHOWN_MAX)
        }
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn renderer(color: bool) -> Renderer {
    if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
}

/// A message may quote what it is about, but not the secrets in it.
fn said(text: &str) -> String {
    one_line(&masked(text))
}

/// Names come from files and may hold anything; a message is one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

/// The lines from the first to the last of some places, and the number of the first: all that
/// the renderer has to see of a long file.
fn window(text: &str, places: &[Marked<'_>]) -> (Range<usize>, usize) {
    let shown = || places.iter().map(|(_, place, _)| shown(text, &place.range));
    let first = shown().map(|range| range.start).min().unwrap_or(0);
    let last = shown().map(|range| range.end).max().unwrap_or(0);
    let start = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[last..]
        .find('\n')
        .map_or(text.len(), |newline| last + newline + 1);
    (start..end, text[..start].matches('\n').count() + 1)
}

/// The part of `range` on its first line, cut to whole characters: a caret under a
/// block of many lines says less than one under its beginning.
fn shown(text: &str, range: &Range<usize>) -> Range<usize> {
    let start = boundary(text, range.start);
    let end = boundary(text, range.end).max(start);
    let line = &text[start..end];
    let line = line.split(['\n', '\r']).next().unwrap_or_default();
    start..start + line.trim_end().len()
}

fn boundary(text: &str, mut idx: usize) -> usize {
    idx = idx.min(text.len());
    while !text.is_char_boundary(idx) {
        idx -= 1;
    }
    idx
}
