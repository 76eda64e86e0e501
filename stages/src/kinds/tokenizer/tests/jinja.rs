//! As much of Jinja as chat templates are written in here, made for their tests alone.
//!
//! It knows `for message in messages`, `if`, `elif` and `else` over equalities and
//! `add_generation_prompt`, and sums of strings; anything else in a template is a panic.

use crate::shared::template::Role;

type Message<'a> = (Role, &'a str);

enum Part<'a> {
    Text(&'a str),
    /// Between `{{` and `}}`.
    Value(&'a str),
    /// Between `{%` and `%}`.
    Tag(&'a str),
}

struct Renderer<'a> {
    parts: Vec<Part<'a>>,
    messages: &'a [Message<'a>],
    add_generation_prompt: bool,
}

pub(super) fn render(template: &str, messages: &[Message], add_generation_prompt: bool) -> String {
    let renderer = Renderer {
        parts: parts(template),
        messages,
        add_generation_prompt,
    };
    let mut out = String::new();
    let end = renderer.block(0, None, true, &mut out);
    assert_eq!(end, renderer.parts.len(), "a tag too many");
    out
}

fn parts(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        parts.push(Part::Text(&rest[..at]));
        let is_value = rest[at..].starts_with("{{");
        let close = if is_value { "}}" } else { "%}" };
        let (inner, behind) = rest[at + 2..].split_once(close).unwrap();
        parts.push(match is_value {
            true => Part::Value(inner.trim()),
            false => Part::Tag(inner.trim()),
        });
        rest = behind;
    }
    parts.push(Part::Text(rest));
    parts
}

impl Renderer<'_> {
    /// Writes the parts from `at` on, if they are `live`, up to the tag that ends them.
    fn block(
        &self,
        mut at: usize,
        message: Option<Message>,
        live: bool,
        out: &mut String,
    ) -> usize {
        while let Some(part) = self.parts.get(at) {
            at = match part {
                Part::Text(text) if live => {
                    out.push_str(text);
                    at + 1
                }
                Part::Value(sum) if live => {
                    out.push_str(&value(sum, message));
                    at + 1
                }
                Part::Text(_) | Part::Value(_) => at + 1,
                Part::Tag("for message in messages") => {
                    for &message in self.messages.iter().filter(|_| live) {
                        self.block(at + 1, Some(message), true, out);
                    }
                    self.block(at + 1, None, false, out) + 1
                }
                Part::Tag(tag) if tag.starts_with("if ") => self.branches(at, message, live, out),
                Part::Tag(_) => return at,
            };
        }
        at
    }

    /// Writes the first branch whose condition holds; returns what stands behind `endif`.
    fn branches(
        &self,
        mut at: usize,
        message: Option<Message>,
        mut live: bool,
        out: &mut String,
    ) -> usize {
        loop {
            let takes = match self.parts[at] {
                Part::Tag("endif") => return at + 1,
                Part::Tag("else") => live,
                Part::Tag(tag) => live && self.holds(tag.trim_start_matches("el"), message),
                _ => unreachable!("a block ends at a tag"),
            };
            at = self.block(at + 1, message, takes, out);
            live &= !takes;
        }
    }

    fn holds(&self, condition: &str, message: Option<Message>) -> bool {
        match condition.strip_prefix("if ").unwrap().split_once(" == ") {
            Some((left, right)) => value(left, message) == value(right, message),
            None if condition == "if add_generation_prompt" => self.add_generation_prompt,
            None => panic!("`{condition}`"),
        }
    }
}

fn value(sum: &str, message: Option<Message>) -> String {
    let terms = sum.split(" + ").map(|term| match (term.trim(), message) {
        ("message['role']", Some((role, _))) => role.name().to_owned(),
        ("message['content']", Some((_, content))) => content.to_owned(),
        (literal, _) => {
            let inner = literal
                .strip_prefix('\'')
                .and_then(|text| text.strip_suffix('\''));
            inner
                .unwrap_or_else(|| panic!("`{literal}`"))
                .replace("\\n", "\n")
        }
    });
    terms.collect()
}
