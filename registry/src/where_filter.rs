//! `--where 'loss < 3 and tag = "baby" and status = done'`.
//!
//! A small language of its own rather than SQL: what a person compares (fields of a run, settings,
//! metrics, tags) lies in four tables, and a mistake should be pointed at in what was typed.
//!
//! ```text
//! either     = both ("or" both)*
//! both       = one ("and" one)*
//! one        = "not" one | "(" either ")" | NAME OPERATOR VALUE
//! OPERATOR   = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"      (~ is "contains")
//! ```
//!
//! Two numbers are compared as numbers, anything else as text; a VALUE needs quotes only if it
//! holds spaces, brackets or operators. Where a name has several values (tags; a metric that
//! several stages have), one that fits is enough, and `!=` says that none does.

use std::{iter::Peekable, ops::Range};

/// A parsed condition on runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    text: String,
    condition: Condition,
}

/// A mistake in a condition; `span` is where, in bytes of `text`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct FilterError {
    pub text: String,
    pub span: Range<usize>,
    pub what: String,
    pub hint: Option<String>,
}

/// Deeper nesting is a slip or an attack, and each level takes some of the stack.
const DEPTH_MAX: usize = 100;

/// A value to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Number(f64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Either(Box<Condition>, Box<Condition>),
    Both(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare {
        name: String,
        span: Range<usize>,
        operator: Operator,
        value: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    ContainsNot,
}

const OPERATORS: [(&str, Operator); 8] = [
    ("=", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("~", Operator::Contains),
    ("!~", Operator::ContainsNot),
];

impl Filter {
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let tokens = tokens(text)?;
        let mut parser = Parser {
            text,
            tokens: tokens.into_iter().peekable(),
            depth: 0,
        };
        let condition = parser.either()?;
        match parser.tokens.next() {
            None => Ok(Filter {
                text: text.to_owned(),
                condition,
            }),
            Some(token) => Err(parser.error(token.span, "expected `and`, `or` or the end")),
        }
    }

    /// The names that are compared, each once for every place, with those places.
    #[must_use]
    pub fn names(&self) -> Vec<(&str, Range<usize>)> {
        let mut names = Vec::new();
        self.condition.collect_names(&mut names);
        names
    }

    /// Returns whether the condition holds, given the values of every name.
    pub fn holds<'a>(&self, facts: &impl Fn(&str) -> &'a [Fact]) -> bool {
        self.condition.holds(facts)
    }

    /// The mistake of using a name that no run knows.
    #[must_use]
    pub fn unknown(&self, name: &str, span: Range<usize>, nearest: &[&str]) -> FilterError {
        FilterError {
            text: self.text.clone(),
            span,
            what: format!("no run has a field, setting or metric `{name}`"),
            hint: Some(match nearest.first() {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`tinylm show RUN` lists what a run has".to_owned(),
            }),
        }
    }
}

impl Condition {
    fn holds<'a>(&self, facts: &impl Fn(&str) -> &'a [Fact]) -> bool {
        match self {
            Condition::Either(a, b) => a.holds(facts) || b.holds(facts),
            Condition::Both(a, b) => a.holds(facts) && b.holds(facts),
            Condition::Not(a) => !a.holds(facts),
            Condition::Compare {
                name,
                operator,
                value,
                ..
            } => operator.holds(facts(name), value),
        }
    }

    fn collect_names<'a>(&'a self, names: &mut Vec<(&'a str, Range<usize>)>) {
        match self {
            Condition::Either(a, b) | Condition::Both(a, b) => {
                a.collect_names(names);
                b.collect_names(names);
            }
            Condition::Not(a) => a.collect_names(names),
            Condition::Compare { name, span, .. } => names.push((name, span.clone())),
        }
    }
}

impl Operator {
    fn holds(self, facts: &[Fact], value: &str) -> bool {
        match self {
            Operator::NotEqual => !Operator::Equal.holds(facts, value),
            Operator::ContainsNot => !Operator::Contains.holds(facts, value),
            _ => facts.iter().any(|fact| self.holds_for(fact, value)),
        }
    }

    fn holds_for(self, fact: &Fact, value: &str) -> bool {
        if self == Operator::Contains {
            return fact.text().to_lowercase().contains(&value.to_lowercase());
        }
        let order = match (fact.number(), value.parse::<f64>()) {
            (Some(fact), Ok(value)) => fact.partial_cmp(&value),
            _ => Some(fact.text().as_str().cmp(value)),
        };
        order.is_some_and(|order| match self {
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
            _ => order.is_eq(),
        })
    }
}

impl Fact {
    /// The number it is or spells; settings are recorded as text.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Fact::Number(number) => Some(*number),
            Fact::Text(text) => text.parse().ok(),
        }
    }

    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Fact::Number(number) => number.to_string(),
            Fact::Text(text) => text.clone(),
        }
    }
}

struct Token {
    kind: TokenKind,
    span: Range<usize>,
}

#[derive(PartialEq)]
enum TokenKind {
    Word(String),
    Quoted(String),
    Operator(Operator),
    Open,
    Close,
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, TokenKind::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

struct Parser<'a, I: Iterator<Item = Token>> {
    text: &'a str,
    tokens: Peekable<I>,
    depth: usize,
}

impl<I: Iterator<Item = Token>> Parser<'_, I> {
    fn either(&mut self) -> Result<Condition, FilterError> {
        let mut condition = self.both()?;
        while self.tokens.next_if(|token| token.is_word("or")).is_some() {
            condition = Condition::Either(Box::new(condition), Box::new(self.both()?));
        }
        Ok(condition)
    }

    fn both(&mut self) -> Result<Condition, FilterError> {
        let mut condition = self.one()?;
        while self.tokens.next_if(|token| token.is_word("and")).is_some() {
            condition = Condition::Both(Box::new(condition), Box::new(self.one()?));
        }
        Ok(condition)
    }

    fn one(&mut self) -> Result<Condition, FilterError> {
        if self.depth == DEPTH_MAX {
            let end = self.text.len();
            return Err(self.error(0..end, "this is nested too deeply"));
        }
        self.depth += 1;
        let condition = self.negated_or_bracketed();
        self.depth -= 1;
        condition
    }

    fn negated_or_bracketed(&mut self) -> Result<Condition, FilterError> {
        if self.tokens.next_if(|token| token.is_word("not")).is_some() {
            return Ok(Condition::Not(Box::new(self.one()?)));
        }
        if self
            .tokens
            .next_if(|token| token.kind == TokenKind::Open)
            .is_some()
        {
            let condition = self.either()?;
            let closed = self.tokens.next_if(|token| token.kind == TokenKind::Close);
            return closed
                .map(|_| condition)
                .ok_or_else(|| self.expected("`)`"));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Condition, FilterError> {
        let (name, span) = match self.tokens.next() {
            Some(Token {
                kind: TokenKind::Word(name),
                span,
            }) => (name, span),
            Some(token) => return Err(self.error(token.span, "expected a name")),
            None => return Err(self.expected("a name")),
        };
        let operator = match self.tokens.peek() {
            Some(Token {
                kind: TokenKind::Operator(operator),
                ..
            }) => *operator,
            _ => return Err(self.expected("a comparison such as `=` or `<`")),
        };
        self.tokens.next();
        let value = match self.tokens.peek() {
            Some(Token {
                kind: TokenKind::Word(value) | TokenKind::Quoted(value),
                ..
            }) => value.clone(),
            _ => return Err(self.expected("a value")),
        };
        self.tokens.next();
        Ok(Condition::Compare {
            name,
            span,
            operator,
            value,
        })
    }

    fn expected(&mut self, what: &str) -> FilterError {
        let end = self.text.len();
        let span = self
            .tokens
            .peek()
            .map_or(end..end, |token| token.span.clone());
        self.error(span, &format!("expected {what}"))
    }

    fn error(&self, span: Range<usize>, what: &str) -> FilterError {
        error(self.text, span, what)
    }
}

fn error(text: &str, span: Range<usize>, what: &str) -> FilterError {
    FilterError {
        text: text.to_owned(),
        span,
        what: what.to_owned(),
        hint: None,
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let (kind, bytes) = match first {
            space if space.is_whitespace() => {
                start += space.len_utf8();
                continue;
            }
            '(' => (TokenKind::Open, 1),
            ')' => (TokenKind::Close, 1),
            '"' | '\'' => {
                let Some((value, _)) = rest[1..].split_once(first) else {
                    return Err(error(text, start..text.len(), "this quote is never closed"));
                };
                (TokenKind::Quoted(value.to_owned()), value.len() + 2)
            }
            symbol if is_symbol(symbol) => {
                let symbols = prefix(rest, is_symbol);
                (operator(text, symbols, start)?, symbols.len())
            }
            _ => {
                let word = prefix(rest, is_in_word);
                (TokenKind::Word(word.to_owned()), word.len())
            }
        };
        let span = start..start + bytes;
        start = span.end;
        tokens.push(Token { kind, span });
    }
    Ok(tokens)
}

fn operator(text: &str, symbols: &str, start: usize) -> Result<TokenKind, FilterError> {
    // The doubled sign is what a programmer's fingers type.
    let known = if symbols == "==" { "=" } else { symbols };
    let found = OPERATORS.iter().find(|(spelling, _)| *spelling == known);
    found
        .map(|(_, operator)| TokenKind::Operator(*operator))
        .ok_or_else(|| FilterError {
            hint: Some("there are = != < <= > >= ~ and !~".into()),
            ..error(
                text,
                start..start + symbols.len(),
                &format!("`{symbols}` is no comparison"),
            )
        })
}

fn prefix(text: &str, fits: fn(char) -> bool) -> &str {
    &text[..text.find(|c| !fits(c)).unwrap_or(text.len())]
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '~')
}

fn is_in_word(c: char) -> bool {
    !c.is_whitespace() && !is_symbol(c) && !matches!(c, '(' | ')' | '"' | '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn holds(filter: &str) -> bool {
        let facts = |name: &str| -> &'static [Fact] {
            match name {
                "loss" => const { &[Fact::Number(2.5)] },
                "tag" => Box::leak(Box::new(
                    ["baby", "first try"].map(|tag| Fact::Text(tag.into())),
                )),
                "lr" => Box::leak(Box::new([Fact::Text("1e-3".into())])),
                "status" => Box::leak(Box::new([Fact::Text("done".into())])),
                _ => &[],
            }
        };
        Filter::parse(filter).unwrap().holds(&facts)
    }

    #[test]
    fn conditions_hold_as_they_read() {
        for filter in [
            "loss < 3",
            "loss<3 and tag = \"baby\"",
            "tag = 'first try' and status=done",
            "loss > 3 or lr = 0.001",
            "not (loss > 3) and not status = failed",
            "tag ~ TRY",
            "tag != other",
            "nothing != 1",
            "loss == 2.50",
            "loss > 3 and loss > 3 or loss < 3",
            "NOT loss > 3",
            "status > cancelled",
        ] {
            assert!(holds(filter), "{filter}");
        }
        for filter in [
            "loss > 3",
            "tag != baby",
            "nothing = 1",
            "nothing < 1",
            "tag !~ try",
            "loss > 3 and (loss < 3 or loss < 4)",
        ] {
            assert!(!holds(filter), "{filter}");
        }
    }

    #[test]
    fn a_mistake_is_pointed_at() {
        let mistakes = [
            "loss <",
            "loss 3",
            "(loss < 3",
            "loss < 3 tag = x",
            "loss => 3",
            "tag = \"ba",
            "= 3",
            "",
        ];
        let pointed: Vec<String> = mistakes
            .iter()
            .map(|text| {
                let error = Filter::parse(text).unwrap_err();
                let caret = "^".repeat(error.span.len().max(1));
                format!("{text}\n{:1$}{caret} {error}", "", error.span.start)
            })
            .collect();
        insta::assert_snapshot!(pointed.join("\n"), @r#"
        loss <
              ^ expected a value
        loss 3
             ^ expected a comparison such as `=` or `<`
        (loss < 3
                 ^ expected `)`
        loss < 3 tag = x
                 ^^^ expected `and`, `or` or the end
        loss => 3
             ^^ `=>` is no comparison
        tag = "ba
              ^^^ this quote is never closed
        = 3
        ^ expected a name

        ^ expected a name
        "#);
    }

    #[test]
    fn nesting_ends_somewhere() {
        for (open, close) in [("(", ")"), ("not ", "")] {
            let nested = |n: usize| format!("{}loss < 3{}", open.repeat(n), close.repeat(n));
            assert!(Filter::parse(&nested(50)).is_ok());
            let error = Filter::parse(&nested(100_000)).unwrap_err();
            assert_eq!(error.what, "this is nested too deeply");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}
