//! The form of a dialogue, found out from a chat template in Jinja.
//!
//! A template is a program. It is asked to write a few dialogues whose contents occur nowhere
//! else; what it writes between them are the marks. Whatever it does that marks cannot say
//! (turns that change their neighbours, tools) shows in one of the dialogues being written
//! otherwise than the marks found would write it, and then there is no form.
//!
//! The program is foreign: it sees nothing but the dialogue, is stopped after so many steps, and runs
//! in a process of its own, because a template that refers to itself or nests without end takes memory
//! or stack that no count of steps bounds.

use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig, value::Serde};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tinylm_pipeline::apart::apart;

use super::{OwnForm, OwnMark, OwnTurn};

const STEPS_MAX: u64 = 100_000;

/// Tokens by the names that a template calls them by.
pub struct Names<'a> {
    pub bos: Option<&'a str>,
    pub eos: &'a str,
    /// Every token that no text can produce.
    pub specials: &'a [String],
}

/// Contents that no template holds.
const SYSTEM: &str = "qXsysQ";
const ASKED: [&str; 2] = ["qXaskQ", "qXaskagainQ"];
const SAID: [&str; 2] = ["qXsayQ", "qXsayagainQ"];

/// Returns the form that a template writes, or why it has none.
pub fn form_of(template: &str, names: &Names<'_>) -> Result<OwnForm, String> {
    bounded(|| found_form(template, names))
}

/// What a template does, done where it can take nothing from this process.
fn bounded<T: Serialize + DeserializeOwned>(
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let told = apart(|| serde_json::to_vec(&work()).unwrap_or_default());
    match told.map_err(|error| error.to_string())? {
        Some(told) => serde_json::from_slice(&told).map_err(|error| error.to_string())?,
        None => Err("it takes more memory, time or depth than a template may".to_owned()),
    }
}

fn found_form(template: &str, names: &Names<'_>) -> Result<OwnForm, String> {
    let probe = Probe::new(template, names)?;
    let one = probe.write(&[("user", ASKED[0])], true)?;
    let two = [
        ("user", ASKED[0]),
        ("assistant", SAID[0]),
        ("user", ASKED[1]),
        ("assistant", SAID[1]),
    ];
    let whole = probe.write(&two, false)?;
    let (before, rest) = cut(&whole, ASKED[0])?;
    let (between, rest) = cut(rest, SAID[0])?;
    let (again, rest) = cut(rest, ASKED[1])?;
    let (between_again, after) = cut(rest, SAID[1])?;
    if between != between_again {
        return Err("it writes its second turn otherwise than its first".to_owned());
    }
    // A question without an answer ends where the question's turn does.
    let asked = probe.write(&[("user", ASKED[0])], false)?;
    let (_, closed) = cut(&asked, ASKED[0])?;
    let open_answer = between.strip_prefix(closed);
    let open_answer = open_answer.ok_or("it closes a question otherwise before an answer")?;
    let opened = again.strip_prefix(after);
    let open_question = opened.ok_or("it closes an answer otherwise at the end")?;
    let start = before.strip_suffix(open_question);
    let start = start.ok_or("it opens its first question otherwise than its second")?;
    let begun = format!("{before}{}{between}", ASKED[0]);
    if one != begun && Some(one.as_str()) != begun.strip_suffix(' ') {
        return Err("it begins an answer otherwise than it writes one".to_owned());
    }
    let (frame, system, default_system) = probe.system(start, open_question)?;
    let marks = |text: &str| marks(text, names);
    Ok(OwnForm {
        stops: stops(&marks(after), names.eos),
        bos: names.bos.map(str::to_owned),
        eos: names.eos.to_owned(),
        before_dialogue: marks(&frame),
        before_text: names.bos.map(hidden).into_iter().collect(),
        after_text: vec![hidden(names.eos)],
        system: OwnTurn {
            open: marks(&system.0),
            close: marks(&system.1),
        },
        user: OwnTurn {
            open: opening(open_question, names),
            close: marks(closed),
        },
        assistant: OwnTurn {
            open: opening(open_answer, names),
            close: marks(after),
        },
        default_system,
        knows_turns: true,
    })
}

/// Returns how a template writes some dialogues, for holding a form against it.
pub fn written_by(
    template: &str,
    names: &Names<'_>,
    dialogues: &[Vec<(&str, &str)>],
) -> Result<Vec<String>, String> {
    bounded(|| {
        let probe = Probe::new(template, names)?;
        let written = dialogues.iter().map(|turns| probe.write(turns, false));
        written.collect()
    })
}

struct Probe<'a> {
    environment: Environment<'a>,
    names: &'a Names<'a>,
}

impl<'a> Probe<'a> {
    fn new(template: &str, names: &'a Names<'a>) -> Result<Self, String> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(|error| error.to_string())?);
        environment.set_fuel(Some(STEPS_MAX));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |reason: String| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
            },
        );
        environment.add_function("strftime_now", |_: String| "01 Jan 2026");
        // Marks what an assistant says, for training; it writes nothing.
        let mut template = template.to_owned();
        for word in ["generation", "endgeneration"] {
            for (open, close) in [("{%-", "-%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%", "%}")] {
                template = template.replace(&format!("{open} {word} {close}"), "");
            }
        }
        environment
            .add_template_owned("chat", template)
            .map_err(|error| error.to_string())?;
        Ok(Self { environment, names })
    }

    fn write(&self, turns: &[(&str, &str)], add_generation_prompt: bool) -> Result<String, String> {
        let turns = turns.iter();
        let messages: Vec<serde_json::Value> = turns
            .map(|(role, content)| json!({"role": role, "content": content}))
            .collect();
        let template = self.environment.get_template("chat");
        let written = template.and_then(|template| {
            template.render(context! {
                messages => Value::from(Serde(&messages)),
                add_generation_prompt,
                bos_token => self.names.bos.unwrap_or(""),
                eos_token => self.names.eos,
            })
        });
        written.map_err(|error| error.to_string())
    }

    /// Returns what stands before a dialogue, before and behind a system message, and the system
    /// message that is there where nobody says one. `start` stands before the first turn.
    fn system(&self, start: &str, open_question: &str) -> Result<Found, String> {
        let with = self.write(&[("system", SYSTEM), ("user", ASKED[0])], false);
        let Ok(with) = with else {
            // It refuses one: a line of its own will do.
            return Ok((start.to_owned(), (String::new(), "\n".to_owned()), None));
        };
        let (before, rest) = cut(&with, SYSTEM)?;
        let (behind, _) = cut(rest, ASKED[0])?;
        let close = behind.strip_suffix(open_question);
        let close = close.ok_or("it opens a question otherwise behind a system message")?;
        let turn = |open: &str| (open.to_owned(), close.to_owned());
        if let Some(open) = before.strip_prefix(start) {
            return Ok((start.to_owned(), turn(open), None));
        }
        // A default message stands in `start`, written as any other would be.
        let text = start
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(close));
        let text = text.ok_or("it begins otherwise with a system message")?;
        let frame = self
            .names
            .bos
            .filter(|bos| before.starts_with(bos))
            .unwrap_or("");
        Ok((
            frame.to_owned(),
            turn(&before[frame.len()..]),
            Some(text.to_owned()),
        ))
    }
}

/// The frame, a system turn's opening and closing, and the default message.
type Found = (String, (String, String), Option<String>);

fn cut<'t>(text: &'t str, at: &str) -> Result<(&'t str, &'t str), String> {
    let cut = text.split_once(at);
    cut.ok_or_else(|| "it leaves out or changes what is said".to_owned())
}

fn hidden(name: &str) -> OwnMark {
    OwnMark::Hidden(name.to_owned())
}

/// The marks before a content. The space behind a colon belongs to what is said.
fn opening(text: &str, names: &Names<'_>) -> Vec<OwnMark> {
    let is_colon = text.ends_with(": ");
    marks(&text[..text.len() - usize::from(is_colon)], names)
}

/// The tokens at which an answer ends: that of a turn, and that of a text.
fn stops(close: &[OwnMark], eos: &str) -> Vec<String> {
    let mut stops = Vec::new();
    if let Some(OwnMark::Token(name)) = close.first() {
        stops.push(name.clone());
    }
    if !stops.iter().any(|stop| stop == eos) {
        stops.push(eos.to_owned());
    }
    stops
}

/// Cuts a text at special tokens, the longest where several begin.
fn marks(mut text: &str, names: &Names<'_>) -> Vec<OwnMark> {
    let mut marks = Vec::new();
    let found = |text: &str| {
        let specials = names.specials.iter().filter(|special| !special.is_empty());
        let found = specials.filter_map(|special| Some((text.find(special.as_str())?, special)));
        found.min_by_key(|(at, special)| (*at, std::cmp::Reverse(special.len())))
    };
    while let Some((at, special)) = found(text) {
        if at > 0 {
            marks.push(OwnMark::Text(text[..at].to_owned()));
        }
        marks.push(OwnMark::Token(special.clone()));
        text = &text[at + special.len()..];
    }
    if !text.is_empty() {
        marks.push(OwnMark::Text(text.to_owned()));
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::template::{Role, Spacing, Template, written};

    fn names(specials: &[String]) -> Names<'_> {
        Names {
            bos: Some("<s>"),
            eos: "</s>",
            specials,
        }
    }

    fn specials() -> Vec<String> {
        let ours = Template::ALL
            .iter()
            .flat_map(|template| template.specials());
        let names = ours.copied().chain(["<s>", "</s>"]);
        names.map(str::to_owned).collect()
    }

    fn form(template: &str) -> Result<OwnForm, String> {
        form_of(template, &names(&specials()))
    }

    const DIALOGUES: [&[(Role, &str)]; 3] = [
        &[(Role::User, "hi")],
        &[
            (Role::User, "hi"),
            (Role::Assistant, "you"),
            (Role::User, "a b\nc"),
        ],
        &[
            (Role::System, "Be."),
            (Role::User, "hi"),
            (Role::Assistant, "you"),
        ],
    ];

    /// Holds the marks found against what the template itself writes.
    fn writes_the_same(template: &str) {
        let form = form(template).unwrap();
        for dialogue in DIALOGUES {
            let turns: Vec<(&str, &str)> = dialogue
                .iter()
                .map(|(role, text)| (role.name(), *text))
                .collect();
            let theirs = written_by(template, &names(&specials()), &[turns]).unwrap();
            let ours = written(
                &form
                    .leaked()
                    .pieces(form.with_system(dialogue), Spacing::Nowhere),
            );
            assert_eq!([ours], theirs[..], "{template}");
        }
    }

    /// As SmolLM2 has it: a system message that is there unless another is given.
    const WITH_DEFAULT: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    /// As TinyLlama's and Zephyr's.
    const BY_LINES: &str = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";

    #[test]
    fn the_marks_of_a_template_write_what_it_writes() {
        for template in Template::ALL {
            writes_the_same(&template.jinja(Spacing::Nowhere));
        }
        writes_the_same(WITH_DEFAULT);
        writes_the_same(BY_LINES);
        let found = form(WITH_DEFAULT).unwrap();
        assert_eq!(found.default_system.as_deref(), Some("Be kind."));
        assert_eq!(found.stops, ["<|im_end|>", "</s>"]);
    }

    #[test]
    fn a_generation_block_writes_nothing_of_its_own() {
        let plain = Template::Tags.jinja(Spacing::Nowhere);
        let marked = plain.replace("{{ '<assistant>'", "{% generation %}{{ '<assistant>'");
        let marked = marked.replace(
            "{% endif %}{% endfor %}",
            "{%- endgeneration -%}{% endif %}{% endfor %}",
        );
        assert_eq!(form(&marked), form(&plain));
    }

    #[test]
    fn what_marks_cannot_say_is_refused_with_its_reason() {
        let refusals = [
            // Llama 2 puts the system message into the first question.
            "{% if messages[0]['role'] == 'system' %}{% set s = '<<' + messages[0]['content'] + '>>' %}{% else %}{% set s = '' %}{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[I]' + (s if loop.index0 < 2 else '') + m['content'] + '[/I]' }}{% elif m['role'] == 'assistant' %}{{ m['content'] + '</s>' }}{% endif %}{% endfor %}",
            "{{ messages[-1]['content'] }}",
            "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
            "{{ raise_exception('only with tools') }}",
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
            &format!("{{{{ {}1 }}}}", "-".repeat(1_000_000)),
            "{{ '{:>99999999999}'.format(5) }}",
            "{% for",
        ];
        let reasons = refusals.map(|template| form(template).unwrap_err());
        insta::assert_snapshot!(reasons.join("\n"), @"
        it opens a question otherwise behind a system message
        it leaves out or changes what is said
        it leaves out or changes what is said
        invalid operation: only with tools (in chat:1)
        engine ran out of fuel (in chat:1)
        it takes more memory, time or depth than a template may
        it takes more memory, time or depth than a template may
        it takes more memory, time or depth than a template may
        syntax error: unexpected end of input, expected identifier (in chat:1)
        ");
    }
}
