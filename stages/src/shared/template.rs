//! Chat templates as data: the marks before, between and after contents.
//!
//! One function, [`Template::pieces`], says what a dialogue is made of. Its tokens are
//! those pieces encoded one by one, the text that others' tools render is those pieces
//! written one after the other, and the Jinja template that they render it with is made
//! from the same marks. Nobody ever searches a text for tags: a user who writes
//! `<|im_end|>` has written ten ordinary characters.
//!
//! A tool that renders a string and encodes it whole must get the ids of the pieces. So
//! every piece begins and ends at a special token or where tokenizers cut anyway: a line's
//! end, or a space. Tokenizers whose words carry the space before them need one in places
//! where others need none; [`Spacing`] says where.

use std::fmt;

use serde::{Deserialize, Serialize};
use tinylm_pipeline::choices;

choices! {
    /// How a dialogue is written as text.
    pub enum Template {
        /// `<|im_start|>user` newline, content, `<|im_end|>` newline.
        Chatml = "chatml",
        /// `<bos><system>..<user>..<assistant>..<eos>`.
        Tags = "tags",
        /// `<start><user>..<end><bot>..<end>`.
        StartEnd = "start-end",
        /// `User: ..` and `Assistant: ..` lines; raw text stays as it is.
        Plain = "plain",
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    /// An answer that is worse than the assistant's before it. It ends a pair of answers, is no turn
    /// of any template, and is encoded as the assistant's in its place.
    Rejected,
}

/// Where a tokenizer needs a space, so that a word behind a mark is the word it is in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// A word is the same with and without a space (WordPiece), or begins a line without
    /// one (byte-level).
    Nowhere,
    /// Words carry the space before them (`▁word`), and one is put before
    /// whatever begins a text or stands behind a special token.
    BehindText,
    /// Behind special tokens too: one is only put before the beginning of a whole text.
    Everywhere,
}

/// A part of a document that is encoded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub what: What,
    /// How it is written; empty for a token that is not (the `<|endoftext|>` behind a document).
    pub text: &'a str,
    /// Whether a space is written before it, which belongs to it.
    pub space: bool,
    /// Whose turn it belongs to, its tags included; none outside any turn.
    pub role: Option<Role>,
    /// Whether it ends its turn: what a model must learn to write in order to stop.
    pub closes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Somebody's words: encoded with special tokens switched off.
    Content,
    /// One token, taken by its id.
    Special(&'static str),
    /// Ordinary text of the template (`user` newline): encoded like content.
    Tag,
}

/// A piece of a form: a special token or ordinary text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Token(&'static str),
    Text(&'static str),
    /// A token that separates documents and is no part of the text.
    Hidden(&'static str),
}

use Mark::{Hidden, Text, Token};

/// Everything that tells one template from another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// In the order in which ids are given to those that a tokenizer lacks.
    pub(crate) specials: &'static [&'static str],
    /// The tokens at which a reply ends, and so generation stops.
    pub(crate) stops: &'static [&'static str],
    pub(crate) bos: Option<&'static str>,
    pub(crate) eos: &'static str,
    pub(crate) before_dialogue: &'static [Mark],
    pub(crate) after_dialogue: &'static [Mark],
    pub(crate) before_text: &'static [Mark],
    pub(crate) after_text: &'static [Mark],
    /// Opening and closing of a turn, by role: system, user, assistant. The first mark
    /// of an assistant's closing is the one that a model must learn.
    pub(crate) turns: [(&'static [Mark], &'static [Mark]); 3],
}

const END_OF_TEXT: &str = "<|endoftext|>";
const IM_START: Mark = Token("<|im_start|>");
const IM_CLOSE: &[Mark] = &[Token("<|im_end|>"), Text("\n")];
const END: &[Mark] = &[Token("<end>")];

static CHATML: Form = Form {
    specials: &["<|im_start|>", "<|im_end|>", END_OF_TEXT],
    stops: &["<|im_end|>", END_OF_TEXT],
    bos: None,
    eos: END_OF_TEXT,
    before_dialogue: &[],
    after_dialogue: &[Hidden(END_OF_TEXT)],
    before_text: &[],
    after_text: &[Hidden(END_OF_TEXT)],
    turns: [
        (&[IM_START, Text("system\n")], IM_CLOSE),
        (&[IM_START, Text("user\n")], IM_CLOSE),
        (&[IM_START, Text("assistant\n")], IM_CLOSE),
    ],
};

static TAGS: Form = Form {
    specials: &["<bos>", "<eos>", "<system>", "<user>", "<assistant>"],
    stops: &["<eos>"],
    bos: Some("<bos>"),
    eos: "<eos>",
    before_dialogue: &[Token("<bos>")],
    after_dialogue: &[],
    before_text: &[Hidden("<bos>")],
    after_text: &[Hidden("<eos>")],
    turns: [
        (&[Token("<system>")], &[]),
        (&[Token("<user>")], &[]),
        (&[Token("<assistant>")], &[Token("<eos>")]),
    ],
};

static START_END: Form = Form {
    specials: &["<end>", "<start>", "<sep>", "<user>", "<bot>"],
    stops: &["<end>"],
    bos: Some("<start>"),
    eos: "<end>",
    before_dialogue: &[Token("<start>")],
    after_dialogue: &[],
    before_text: &[Hidden("<start>")],
    after_text: &[Hidden("<end>")],
    turns: [
        (&[Token("<sep>")], &[]),
        (&[Token("<user>")], END),
        (&[Token("<bot>")], END),
    ],
};

static PLAIN: Form = Form {
    specials: &[END_OF_TEXT],
    stops: &[END_OF_TEXT],
    bos: None,
    eos: END_OF_TEXT,
    before_dialogue: &[],
    after_dialogue: &[],
    before_text: &[],
    after_text: &[Hidden(END_OF_TEXT)],
    turns: [
        (&[], &[Text("\n")]),
        (&[Text("User:")], &[Text("\n")]),
        (&[Text("Assistant:")], &[Token(END_OF_TEXT), Text("\n")]),
    ],
};

impl Template {
    pub const ALL: [Self; 4] = [Self::Chatml, Self::Tags, Self::StartEnd, Self::Plain];

    pub(crate) fn form(self) -> &'static Form {
        match self {
            Self::Chatml => &CHATML,
            Self::Tags => &TAGS,
            Self::StartEnd => &START_END,
            Self::Plain => &PLAIN,
        }
    }

    /// Returns the word for it in an experiment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chatml => "chatml",
            Self::Tags => "tags",
            Self::StartEnd => "start-end",
            Self::Plain => "plain",
        }
    }

    /// Returns the tokens that must be one id each, in the order in which missing ones get ids.
    pub fn specials(self) -> &'static [&'static str] {
        self.form().specials
    }

    /// Returns the tokens that end a reply.
    pub fn stops(self) -> &'static [&'static str] {
        self.form().stops
    }

    pub fn bos(self) -> Option<&'static str> {
        self.form().bos
    }

    pub fn eos(self) -> &'static str {
        self.form().eos
    }

    /// Returns what a dialogue is made of; without turns, nothing but its frame.
    pub fn pieces<'a>(
        self,
        turns: impl IntoIterator<Item = (Role, &'a str)>,
        spacing: Spacing,
    ) -> Vec<Piece<'a>> {
        self.form().pieces(turns, spacing)
    }

    /// Returns what a model is given so that it writes the next reply: the dialogue so
    /// far and the opening of an assistant's turn.
    pub fn prompt<'a>(
        self,
        turns: impl IntoIterator<Item = (Role, &'a str)>,
        spacing: Spacing,
    ) -> Vec<Piece<'a>> {
        self.form().prompt(turns, spacing)
    }

    /// Returns what a raw text is made of: itself between the marks of a document.
    pub fn text_pieces(self, text: &str, spacing: Spacing) -> Vec<Piece<'_>> {
        self.form().text_pieces(text, spacing)
    }

    /// Returns the text of a `chat_template.jinja` that writes what [`written`] writes of
    /// the pieces of a dialogue, but for the tokens that separate documents.
    pub fn jinja(self, spacing: Spacing) -> String {
        self.jinja_of_turns(|role| self.form().jinja_turn(role, spacing), spacing)
    }

    /// Returns [`Template::jinja`] with `{% generation %}` round what a model learns to write, so
    /// that others' trainers can tell it from what it only reads.
    pub fn jinja_with_generation(self, spacing: Spacing) -> String {
        self.jinja_of_turns(|role| self.form().jinja_marked_turn(role, spacing), spacing)
    }

    fn jinja_of_turns(self, turn: impl Fn(Role) -> String, spacing: Spacing) -> String {
        let form = self.form();
        let frame = form.frame();
        let mut jinja = format!("{frame}{{% for message in messages %}}");
        for (role, keyword) in Role::ALL.into_iter().zip(["if", "elif", "elif"]) {
            let (name, turn) = (role.name(), turn(role));
            jinja += &format!("{{% {keyword} message['role'] == '{name}' %}}{turn}");
        }
        let mut open = Vec::new();
        form.push_open(Role::Assistant, spacing, &mut open);
        let open = quoted(&written(&open)).unwrap_or_default();
        jinja
            + &format!(
                "{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {open} }}}}{{% endif %}}"
            )
    }
}

/// Returns pieces as text.
pub fn written(pieces: &[Piece]) -> String {
    let parts = pieces
        .iter()
        .flat_map(|piece| [if piece.space { " " } else { "" }, piece.text]);
    parts.collect()
}

/// Returns a text as a Jinja literal, unless it is empty.
fn quoted(text: &str) -> Option<String> {
    let text = text.replace('\n', "\\n");
    (!text.is_empty()).then(|| format!("'{text}'"))
}

/// Returns a Jinja expression that writes some terms, unless there are none.
fn output(terms: impl IntoIterator<Item = Option<String>>) -> String {
    let terms: Vec<String> = terms.into_iter().flatten().collect();
    match terms.is_empty() {
        true => String::new(),
        false => format!("{{{{ {} }}}}", terms.join(" + ")),
    }
}

/// Returns marks that belong to no turn. They are all tokens.
fn outside<'a>(marks: &'static [Mark]) -> impl Iterator<Item = Piece<'a>> {
    marks.iter().map(|mark| mark.piece(None, false))
}

/// The name of a turn's content in Jinja.
const CONTENT: &str = "message['content']";

impl Form {
    /// See [`Template::pieces`].
    pub(crate) fn pieces<'a>(
        &self,
        turns: impl IntoIterator<Item = (Role, &'a str)>,
        spacing: Spacing,
    ) -> Vec<Piece<'a>> {
        let mut pieces: Vec<Piece> = outside(self.before_dialogue).collect();
        for (role, text) in turns {
            self.push_turn(role, text, spacing, &mut pieces);
        }
        pieces.extend(outside(self.after_dialogue));
        pieces
    }

    /// See [`Template::prompt`].
    pub(crate) fn prompt<'a>(
        &self,
        turns: impl IntoIterator<Item = (Role, &'a str)>,
        spacing: Spacing,
    ) -> Vec<Piece<'a>> {
        let mut pieces = self.pieces(turns, spacing);
        pieces.truncate(pieces.len() - self.after_dialogue.len());
        self.push_open(Role::Assistant, spacing, &mut pieces);
        pieces
    }

    /// See [`Template::text_pieces`].
    pub(crate) fn text_pieces<'a>(&self, text: &'a str, spacing: Spacing) -> Vec<Piece<'a>> {
        let content = Piece {
            what: What::Content,
            text,
            space: spacing == Spacing::Everywhere,
            role: None,
            closes: false,
        };
        let before = outside(self.before_text);
        before
            .chain([content])
            .chain(outside(self.after_text))
            .collect()
    }

    /// Returns what is written before and behind a turn's content.
    pub(crate) fn around(&self, role: Role, spacing: Spacing) -> (String, String) {
        let mut pieces = Vec::new();
        self.push_turn(role, "", spacing, &mut pieces);
        let (open, content, close) = around_content(&pieces);
        (written(open) + content, written(close))
    }

    /// Returns what is written before the first turn.
    pub(crate) fn frame(&self) -> String {
        written(&outside(self.before_dialogue).collect::<Vec<Piece>>())
    }

    fn jinja_turn(&self, role: Role, spacing: Spacing) -> String {
        let (open, close) = self.around(role, spacing);
        output([quoted(&open), Some(CONTENT.to_owned()), quoted(&close)])
    }

    fn jinja_marked_turn(&self, role: Role, spacing: Spacing) -> String {
        if role != Role::Assistant {
            return self.jinja_turn(role, spacing);
        }
        let mut pieces = Vec::new();
        self.push_turn(role, "", spacing, &mut pieces);
        let (open, content, close) = around_content(&pieces);
        let (learnt, behind) = close.split_at(1.min(close.len()));
        let open = output([quoted(&written(open))]);
        let content = [
            quoted(content),
            Some(CONTENT.to_owned()),
            quoted(&written(learnt)),
        ];
        let (content, behind) = (output(content), output([quoted(&written(behind))]));
        format!("{open}{{% generation %}}{content}{{% endgeneration %}}{behind}")
    }

    /// The marks around a turn. A rejected answer is written as the one that it was rejected for.
    fn turn(&self, role: Role) -> (&'static [Mark], &'static [Mark]) {
        match role {
            Role::Rejected => self.turns[Role::Assistant as usize],
            role => self.turns[role as usize],
        }
    }

    fn push_open(&self, role: Role, spacing: Spacing, pieces: &mut Vec<Piece<'_>>) {
        let (open, _) = self.turn(role);
        let mut behind = Behind::Text;
        for mark in open {
            pieces.push(mark.piece(Some(role), spacing.before_tag(behind)));
            behind = mark.leaves_behind();
        }
    }

    fn push_turn<'a>(
        &self,
        role: Role,
        text: &'a str,
        spacing: Spacing,
        pieces: &mut Vec<Piece<'a>>,
    ) {
        self.push_open(role, spacing, pieces);
        let (open, close) = self.turn(role);
        let behind = open
            .last()
            .map_or(Behind::Text, |mark| mark.leaves_behind());
        pieces.push(Piece {
            what: What::Content,
            text,
            space: spacing.before_content(behind),
            role: Some(role),
            closes: false,
        });
        let mut behind = Behind::Text;
        for (mark_idx, mark) in close.iter().enumerate() {
            pieces.push(Piece {
                closes: mark_idx == 0,
                ..mark.piece(Some(role), spacing.before_tag(behind))
            });
            behind = mark.leaves_behind();
        }
    }
}

/// Returns what stands before a turn's content, the space that belongs to it, and what follows.
fn around_content<'p, 'a>(
    pieces: &'p [Piece<'a>],
) -> (&'p [Piece<'a>], &'static str, &'p [Piece<'a>]) {
    let at = pieces.iter().position(|piece| piece.what == What::Content);
    let (open, rest) = pieces.split_at(at.unwrap_or(0));
    (open, if rest[0].space { " " } else { "" }, &rest[1..])
}

/// The place of a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Special,
    /// A tag that its line goes on behind (`User:`).
    Colon,
    /// Any other text, or nothing.
    Text,
}

impl Spacing {
    fn before_tag(self, behind: Behind) -> bool {
        self != Self::Nowhere && behind != Behind::Special
    }

    fn before_content(self, behind: Behind) -> bool {
        match self {
            Self::Nowhere => behind == Behind::Colon,
            Self::BehindText => behind != Behind::Special,
            Self::Everywhere => true,
        }
    }
}

impl Mark {
    /// A token never has a space before it.
    fn piece(self, role: Option<Role>, space: bool) -> Piece<'static> {
        let (what, text, space) = match self {
            Token(token) => (What::Special(token), token, false),
            Hidden(token) => (What::Special(token), "", false),
            Text(text) => (What::Tag, text, space),
        };
        Piece {
            what,
            text,
            space,
            role,
            closes: false,
        }
    }

    fn leaves_behind(self) -> Behind {
        match self {
            Token(_) | Hidden(_) => Behind::Special,
            Text(text) if text.ends_with(':') => Behind::Colon,
            Text(_) => Behind::Text,
        }
    }
}

impl Role {
    /// Those that speak.
    pub const ALL: [Self; 3] = [Self::System, Self::User, Self::Assistant];

    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Rejected => "rejected",
        }
    }

    /// Returns the role of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter().chain([Self::Rejected]);
        all.find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALOGUE: [(Role, &str); 5] = [
        (Role::System, "Be brief."),
        (Role::User, "how are you ?"),
        (Role::Assistant, "fine ."),
        (Role::User, "good"),
        (Role::Assistant, "bye"),
    ];

    const SPACINGS: [Spacing; 3] = [Spacing::Nowhere, Spacing::BehindText, Spacing::Everywhere];

    fn text(template: Template, spacing: Spacing) -> String {
        written(&template.pieces(DIALOGUE, spacing))
    }

    #[test]
    fn each_template_writes_its_form() {
        let texts = Template::ALL.map(|template| text(template, Spacing::Nowhere));
        insta::assert_snapshot!(texts.join("\n----\n"), @r"
        <|im_start|>system
        Be brief.<|im_end|>
        <|im_start|>user
        how are you ?<|im_end|>
        <|im_start|>assistant
        fine .<|im_end|>
        <|im_start|>user
        good<|im_end|>
        <|im_start|>assistant
        bye<|im_end|>

        ----
        <bos><system>Be brief.<user>how are you ?<assistant>fine .<eos><user>good<assistant>bye<eos>
        ----
        <start><sep>Be brief.<user>how are you ?<end><bot>fine .<end><user>good<end><bot>bye<end>
        ----
        Be brief.
        User: how are you ?
        Assistant: fine .<|endoftext|>
        User: good
        Assistant: bye<|endoftext|>
        ");
    }

    #[test]
    fn words_that_carry_their_space_have_one_behind_text() {
        let of = |template: Template, turns: usize, spacing| {
            written(&template.pieces(DIALOGUE.into_iter().skip(1).take(turns), spacing))
        };
        assert_eq!(
            of(Template::Chatml, 2, Spacing::BehindText),
            "<|im_start|>user\n how are you ?<|im_end|>\n<|im_start|>assistant\n fine .<|im_end|>\n"
        );
        assert_eq!(
            of(Template::Plain, 3, Spacing::BehindText),
            " User: how are you ? \n Assistant: fine .<|endoftext|>\n User: good \n"
        );
        assert_eq!(
            of(Template::StartEnd, 2, Spacing::BehindText),
            of(Template::StartEnd, 2, Spacing::Nowhere)
        );
        assert_eq!(
            of(Template::StartEnd, 2, Spacing::Everywhere),
            "<start><user> how are you ?<end><bot> fine .<end>"
        );
    }

    #[test]
    fn generation_is_marked_round_what_is_learnt_and_changes_nothing_else() {
        for (template, spacing) in Template::ALL
            .into_iter()
            .flat_map(|template| SPACINGS.map(|spacing| (template, spacing)))
        {
            let marked = template.jinja_with_generation(spacing);
            assert_eq!(marked.matches("{% generation %}").count(), 1);
            // Where the marks are taken out, expressions stand beside each other for their sum.
            let plain = marked
                .replace("{% generation %}", "")
                .replace("{% endgeneration %}", "");
            let plain = plain.replace(" }}{{ ", " + ").replace("' + '", "");
            assert_eq!(plain, template.jinja(spacing));
        }
        let marked = Template::Chatml.jinja_with_generation(Spacing::Nowhere);
        let learnt =
            "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}";
        assert!(marked.contains(learnt), "{marked}");
    }

    #[test]
    fn a_reply_is_always_closed_by_what_generation_stops_at() {
        for template in Template::ALL {
            let pieces = template.pieces(DIALOGUE, Spacing::Nowhere);
            let closing: Vec<What> = pieces
                .iter()
                .filter(|piece| piece.closes && piece.role == Some(Role::Assistant))
                .map(|piece| piece.what)
                .collect();
            assert_eq!(closing.len(), 2, "{template:?}");
            for what in closing {
                let What::Special(token) = what else {
                    panic!("{template:?} closes a reply with text");
                };
                assert!(template.stops().contains(&token));
            }
        }
    }

    #[test]
    fn every_token_of_a_template_is_declared() {
        for template in Template::ALL {
            let raw = template.text_pieces("x", Spacing::Nowhere);
            for piece in template
                .pieces(DIALOGUE, Spacing::Nowhere)
                .iter()
                .chain(&raw)
            {
                if let What::Special(token) = piece.what {
                    assert!(template.specials().contains(&token), "{token}");
                }
            }
            assert_eq!(serde_json::json!(template), template.name());
        }
    }

    #[test]
    fn a_prompt_is_the_beginning_of_the_dialogue_that_follows() {
        for (template, spacing) in Template::ALL
            .into_iter()
            .flat_map(|template| SPACINGS.map(|spacing| (template, spacing)))
        {
            let prompt = template.prompt(DIALOGUE[..4].iter().copied(), spacing);
            let whole = template.pieces(DIALOGUE, spacing);
            assert_eq!(prompt, whole[..prompt.len()]);
            assert_eq!(whole[prompt.len()].text, "bye");
        }
    }
}
