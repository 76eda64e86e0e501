//! The parts of a report: a head, and sections made of blocks.
//!
//! Every printer (terminal, page, Markdown) is given the same [`Document`] and decides how a block
//! looks where it prints, never what is told. Figures are written as text here already, so that all
//! printers round alike; the exact value stands beside it for tables that are sorted.
//!
//! Text in a block is as it was recorded. A printer cleans it as the last thing it does.

use tinylm_registry::Outcome;

use crate::curve::Curve;

/// One run or several, as they are told.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    pub head: Head,
    /// The story first, then what it rests on.
    pub sections: Vec<Section<'a>>,
}

/// The few things a reader came for.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub title: String,
    /// The experiment of the run.
    pub of: String,
    pub status: Option<Cell>,
    pub question: String,
    /// A sentence, in pieces of different tone.
    pub verdict: Vec<Cell>,
    pub figures: Vec<Fact>,
    /// Of the tinylm that ran.
    pub version: String,
}

#[derive(Clone, Debug)]
pub struct Section<'a> {
    pub title: String,
    pub remark: String,
    pub blocks: Vec<Block<'a>>,
    /// Whether the story is whole without it.
    pub is_detail: bool,
    /// Whether one screen has no room for it: a terminal treats it as a detail, a page does not.
    pub is_long: bool,
}

#[derive(Clone, Debug)]
pub enum Block<'a> {
    /// The subject of the blocks behind it.
    Title(String, String),
    Facts(Vec<Fact>),
    Table(Table),
    ByRun(ByRun),
    Chart(Chart<'a>),
    Samples(Samples),
    Events(Vec<Event>),
    /// A text to be shown line by line: an error, a note.
    Text(String),
    Graph(Graph),
    Parallel(Parallel),
    Plot(Plot),
    /// Folded: only some readers open it.
    Fold(String, Vec<Block<'a>>),
}

#[derive(Clone, Debug)]
pub struct Fact {
    pub label: String,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    /// Something to be typed or compared letter by letter.
    Code(String),
    Tags(Vec<String>),
}

/// The meaning of a text, not its look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    /// A heading or the name of the thing.
    Strong,
    /// May be skipped.
    Quiet,
    Good,
    Warn,
    Bad,
    /// The best of several.
    Best,
    /// The n-th of several things drawn together.
    Series(usize),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
    /// The figure that the text rounds, for sorting.
    pub exact: Option<f64>,
    /// All of what the text is the start of.
    pub whole: Option<String>,
    /// The difference from the first of several.
    pub change: Option<(String, Tone)>,
    /// Where a live page tells more of it: `run/NAME` or `run/NAME/STAGE`.
    pub at: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// Whether rows with the same first cell belong together, and it is said once.
    pub is_grouped: bool,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub title: String,
    pub holds: Holds,
    /// Whether it may be left out where there is little room.
    pub is_spare: bool,
}

/// The contents of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Never broken over lines.
    Names,
    Texts,
    /// Names of settings and files, which differ at their ends, and values.
    Codes,
    Figures,
    Digests,
}

/// Things told of each run, a line a thing and a column a run; or the other way where runs are many.
#[derive(Clone, Debug)]
pub struct ByRun {
    /// Who the runs are: a row each.
    pub heads: Table,
    pub names: Vec<String>,
    pub groups: Vec<Group>,
    /// A remark on the table that has a row for each run.
    pub remark: String,
    /// Whether metrics were asked for by name, so that none is too many.
    pub is_asked: bool,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub title: String,
    pub remark: String,
    pub holds: Holds,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// The stage or the whole that several lines have in common.
    pub of: String,
    pub name: String,
    /// A cell for each run.
    pub cells: Vec<Cell>,
    /// How soon it gets a column where runs are rows; none is no news there.
    pub rank: Option<usize>,
}

/// Curves that share their axes.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    pub title: String,
    pub metric: String,
    /// Whether it is drawn large.
    pub is_main: bool,
    pub series: Vec<Series<'a>>,
}

#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// Series with one key are hidden together.
    pub key: String,
    pub name: String,
    /// Where a live page tells more of who recorded it.
    pub at: String,
    /// The letter of its run, where there are several.
    pub letter: Option<String>,
    pub colour: usize,
    pub curve: &'a Curve,
    /// Whether its points are few, and drawn as marks.
    pub has_marks: bool,
    /// Its place among the runs by the number they are judged by.
    pub rank: usize,
}

#[derive(Clone, Debug)]
pub struct Samples {
    pub n_runs: usize,
    pub prompts: Vec<Prompt>,
}

#[derive(Clone, Debug)]
pub struct Prompt {
    pub text: String,
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    /// The runs that wrote it, by their places.
    pub runs: Vec<usize>,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub tone: Tone,
    pub level: String,
    pub stage: String,
    pub text: String,
}

/// The stages of a run and what they read. Where nothing can be drawn, the table of stages tells it.
#[derive(Clone, Debug)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

/// Runs as lines over the settings that differ, ending at what came of them. Where nothing can be
/// drawn, the tables of effects and of runs tell it.
#[derive(Clone, Debug)]
pub struct Parallel {
    pub axes: Vec<Upright>,
    pub lines: Vec<Across>,
}

/// An axis that stands.
#[derive(Clone, Debug)]
pub struct Upright {
    pub title: String,
    /// What stands at it, with places from 0 at the foot to 1.
    pub marks: Vec<(f64, String)>,
}

/// A run as a line from axis to axis.
#[derive(Clone, Debug)]
pub struct Across {
    pub name: String,
    /// Where a live page tells more of it.
    pub at: String,
    /// Its places; none where the run has no such value.
    pub places: Vec<Option<f64>>,
    /// From 0 for the worst to 1 for the best.
    pub merit: f64,
}

/// Points in groups, and the line that each group should lie on. Both axes are in decades.
#[derive(Clone, Debug)]
pub struct Plot {
    pub title: String,
    pub x_title: String,
    pub y_title: String,
    pub groups: Vec<PlotGroup>,
}

#[derive(Clone, Debug)]
pub struct PlotGroup {
    pub letter: char,
    pub name: String,
    pub colour: usize,
    pub line: Vec<(f64, f64)>,
    pub dots: Vec<Dot>,
}

#[derive(Clone, Debug)]
pub struct Dot {
    pub x: f64,
    pub y: f64,
    pub name: String,
    /// Where a live page tells more of it.
    pub at: String,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub kind: String,
    pub outcome: Outcome,
    /// The outcome in words.
    pub told: String,
    /// Where a live page tells more of it.
    pub at: String,
    /// The places of the nodes it reads.
    pub reads: Vec<usize>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(title: impl Into<String>, blocks: Vec<Block<'a>>) -> Section<'a> {
        Section {
            title: title.into(),
            remark: String::new(),
            blocks,
            is_detail: false,
            is_long: false,
        }
    }

    pub(crate) fn remark(self, remark: impl Into<String>) -> Section<'a> {
        let remark = remark.into();
        Section { remark, ..self }
    }

    pub(crate) fn detail(self) -> Section<'a> {
        Section {
            is_detail: true,
            ..self
        }
    }

    pub(crate) fn long(self, is_long: bool) -> Section<'a> {
        Section { is_long, ..self }
    }
}

impl Fact {
    pub(crate) fn text(label: impl Into<String>, value: impl Into<String>) -> Fact {
        Fact {
            label: label.into(),
            value: Value::Text(value.into()),
        }
    }

    pub(crate) fn code(label: impl Into<String>, value: impl Into<String>) -> Fact {
        Fact {
            label: label.into(),
            value: Value::Code(value.into()),
        }
    }
}

impl Value {
    /// Returns the value where it has one shape only.
    pub(crate) fn joined(&self) -> String {
        match self {
            Value::Text(text) | Value::Code(text) => text.clone(),
            Value::Tags(tags) => tags.join(", "),
        }
    }
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Cell {
        Cell {
            text: text.into(),
            tone,
            ..Cell::default()
        }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Cell {
        Cell::new(text, Tone::Plain)
    }

    pub(crate) fn quiet(text: impl Into<String>) -> Cell {
        Cell::new(text, Tone::Quiet)
    }

    /// The cell of what is not there.
    pub(crate) fn missing() -> Cell {
        Cell::quiet("–")
    }

    pub(crate) fn figure(exact: f64, text: impl Into<String>) -> Cell {
        Cell {
            exact: Some(exact),
            ..Cell::plain(text)
        }
    }

    pub(crate) fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }

    pub(crate) fn at(self, place: String) -> Cell {
        let at = Some(place);
        Cell { at, ..self }
    }
}

impl Column {
    pub(crate) fn new(title: impl Into<String>, holds: Holds) -> Column {
        Column {
            title: title.into(),
            holds,
            is_spare: false,
        }
    }

    pub(crate) fn spare(self) -> Column {
        Column {
            is_spare: true,
            ..self
        }
    }
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>, rows: Vec<Vec<Cell>>) -> Table {
        Table {
            columns,
            rows,
            is_grouped: false,
        }
    }
}
