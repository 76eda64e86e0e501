//! Dialogues written as one text, with marks that say whose turn begins.
//!
//! A content is a stretch of the text: inside of it every byte is kept, blank lines and spaces at
//! the ends of lines included. A line in the middle of a turn may look as if somebody began to
//! speak (`Model: HP 4100`), so within one dialogue a role has one name, a system prompt stands
//! before everything else, and a name is indented only where the first one is.

use std::borrow::Cow;

use super::said::{Names, Turn, excerpt, in_turn, push_joined, role, spoken};
use crate::shared::template::Role;

/// So long may a known name be, with its brackets.
const NAME_MAX: usize = 16;

/// A line that begins with who speaks.
#[derive(Debug, Clone, Copy)]
struct Mark<'a> {
    role: Role,
    name: &'a str,
    /// How many names of its role are believed before it; none before one that was given by hand.
    rank: Option<usize>,
    is_indented: bool,
    /// Where the line begins, and what is said.
    start: usize,
    content: usize,
}

fn mark<'a>(line: &'a str, start: usize, names: &Names) -> Option<Mark<'a>> {
    let colon = line.find(':')?;
    let name = line[..colon].trim().trim_start_matches("<bos>");
    let name = name.trim_start_matches('<').trim_end_matches('>');
    let (role, rank) = match names.get(name) {
        Some(role) => (*role, None),
        None if name.len() > NAME_MAX => return None,
        None => spoken(name).map(|(role, rank)| (role, Some(rank)))?,
    };
    Some(Mark {
        role,
        name,
        rank,
        is_indented: line.starts_with(char::is_whitespace),
        start,
        content: start + colon + 1,
    })
}

/// Returns who speaks in a line, where it begins with a name.
pub(super) fn speaker(line: &str, names: &Names) -> Option<Role> {
    mark(line, 0, names).map(|mark| mark.role)
}

/// Reads turns that begin with a name each: `User: ..`, `AI: ..`.
pub(super) fn speakers<'a>(text: &'a str, names: &Names) -> Result<Vec<Turn<'a>>, String> {
    let mut start = 0;
    let mut marks = Vec::new();
    for line in text.split_inclusive('\n') {
        let found = mark(line, start, names);
        if found.is_none() && marks.is_empty() && !line.trim().is_empty() {
            return Err(format!("`{}` names no speaker", excerpt(line.trim_end())));
        }
        marks.extend(found);
        start += line.len();
    }
    let marks = kept(marks);
    let ends = marks.iter().skip(1).map(|mark| mark.start);
    let ends = ends.chain([text.len()]);
    let said = marks.iter().zip(ends).map(|(mark, end)| {
        let said = text[mark.content..end].trim();
        let said = said.strip_suffix("<eos>").map_or(said, str::trim_end);
        (mark.role, Cow::Borrowed(said))
    });
    Ok(said.collect())
}

/// Returns the marks that begin turns, without those that are part of what somebody says.
fn kept(marks: Vec<Mark>) -> Vec<Mark> {
    let Some(first) = marks.first().copied() else {
        return marks;
    };
    let is_aligned = |mark: &Mark| first.is_indented || !mark.is_indented;
    let mut marks: Vec<Mark> = marks.into_iter().filter(is_aligned).collect();
    let n_before = marks
        .iter()
        .take_while(|mark| mark.role == Role::System)
        .count();
    let rest = marks.split_off(n_before);
    for role in [Role::User, Role::Assistant] {
        let names = || rest.iter().filter(|mark| mark.role == role);
        let opening = rest.first().filter(|mark| mark.role == role);
        let believed = opening.or_else(|| names().min_by_key(|mark| mark.rank));
        let name = believed.map_or("", |mark| mark.name);
        let is_name = |mark: &&Mark| mark.rank.is_none() || mark.name == name;
        marks.extend(names().filter(is_name).copied());
    }
    marks.sort_by_key(|mark| mark.start);
    marks
}

/// The marks of `### Human: .. ### Assistant: ..` and of `### Instruction: .. ### Response: ..`:
/// a text has those of one, since `### Input:` may be a heading in what somebody says.
const HEADINGS: [&[(&str, Role)]; 2] = [
    &[
        ("System", Role::System),
        ("Human", Role::User),
        ("User", Role::User),
        ("Assistant", Role::Assistant),
    ],
    &[
        ("System", Role::System),
        ("Instruction", Role::User),
        ("Input", Role::User),
        ("Response", Role::Assistant),
    ],
];
const HEADING: &str = "### ";

/// Returns where each heading of a kind begins and ends, and who speaks behind it.
fn found(text: &str, kind: &[(&str, Role)]) -> Vec<(usize, usize, Role)> {
    let heads = text.match_indices(HEADING).filter_map(|(start, _)| {
        let name = &text[start + HEADING.len()..];
        let (known, role) = kind.iter().find(|(known, _)| {
            let behind = name.strip_prefix(known);
            behind.is_some_and(|behind| behind.starts_with(':'))
        })?;
        Some((start, start + HEADING.len() + known.len() + 1, *role))
    });
    heads.collect()
}

/// Returns who speaks behind the headings of a text.
pub(super) fn heads(text: &str) -> Vec<Role> {
    let heads = HEADINGS.iter().flat_map(|kind| found(text, kind));
    heads.map(|(.., role)| role).collect()
}

/// Returns who speaks behind the heading that a text begins with.
pub(super) fn headed(text: &str) -> Option<Role> {
    let line = text.trim_start().lines().next()?;
    let heads = HEADINGS.iter().flat_map(|kind| found(line, kind));
    let mut first = heads.filter(|(start, ..)| *start == 0);
    first.next().map(|(.., role)| role)
}

/// Reads turns that begin with a heading each; what stands before the first is a system prompt.
pub(super) fn headings(text: &str) -> Result<Vec<Turn<'_>>, String> {
    let spoken = |(.., role): &&(usize, usize, Role)| *role != Role::System;
    let read = HEADINGS.map(|kind| found(text, kind));
    let first = |heads: &Vec<(usize, usize, Role)>| heads.iter().find(spoken).map(|head| head.0);
    let begun = read.iter().filter(|heads| first(heads).is_some());
    let heads = begun
        .min_by_key(|heads| first(heads))
        .ok_or("has no `### Human:` and no `### Instruction:`")?;
    let starts = heads.iter().map(|head| head.0);
    let contents = heads.iter().map(|(_, end, role)| (*end, *role));
    let contents = [(0, Role::System)].into_iter().chain(contents);
    let mut turns = Vec::with_capacity(heads.len());
    for ((from, role), to) in contents.zip(starts.chain([text.len()])) {
        let said = text[from..to].trim();
        // No input is how an instruction says that it needs none.
        if !said.is_empty() || role == Role::Assistant {
            push_joined(&mut turns, role, Cow::Borrowed(said));
        }
    }
    Ok(turns)
}

/// Reads `[INST] .. [/INST] ..`, with Llama's system prompt where there is one.
pub(super) fn inst(text: &str) -> Result<Vec<Turn<'_>>, String> {
    let text = text.trim();
    let text = text.strip_prefix("<s>").unwrap_or(text);
    let mut parts = text.split("[INST]");
    if parts.next().is_some_and(|before| !before.trim().is_empty()) {
        return Err("does not begin with `[INST]`".to_owned());
    }
    let mut turns = Vec::new();
    for part in parts {
        let (asked, answered) = part
            .split_once("[/INST]")
            .ok_or("an `[INST]` has no `[/INST]`")?;
        let mut asked = asked.trim();
        if let Some((system, behind)) = asked
            .strip_prefix("<<SYS>>")
            .and_then(|asked| asked.split_once("<</SYS>>"))
        {
            turns.push((Role::System, Cow::Borrowed(system.trim())));
            asked = behind.trim();
        }
        turns.push((Role::User, Cow::Borrowed(asked)));
        let answered = answered.trim().trim_end_matches("<s>").trim_end();
        let answered = answered.strip_suffix("</s>").unwrap_or(answered).trim();
        if !answered.is_empty() {
            turns.push((Role::Assistant, Cow::Borrowed(answered)));
        }
    }
    Ok(turns)
}

pub(super) const END_OF_UTTERANCE: &str = "__eou__";

pub(super) fn eou(text: &str) -> Result<Vec<Turn<'_>>, String> {
    let text = text.trim();
    let text = text.strip_suffix(END_OF_UTTERANCE).unwrap_or(text);
    let said = text.split(END_OF_UTTERANCE).enumerate();
    Ok(said
        .map(|(idx, said)| (in_turn(idx), Cow::Borrowed(said.trim())))
        .collect())
}

pub(super) fn chatml<'a>(text: &'a str, names: &Names) -> Result<Vec<Turn<'a>>, String> {
    let mut parts = text.split("<|im_start|>");
    if parts.next().is_some_and(|before| !before.trim().is_empty()) {
        return Err("there is text before the first `<|im_start|>`".to_owned());
    }
    let mut turns = Vec::new();
    for part in parts {
        let (name, rest) = part.split_once('\n').ok_or("a turn has no content")?;
        let role = role(name, names).ok_or_else(|| format!("unknown role `{}`", excerpt(name)))?;
        let (content, after) = rest.split_once("<|im_end|>").unwrap_or((rest, ""));
        if !after.trim().is_empty() {
            return Err("there is text behind an `<|im_end|>`".to_owned());
        }
        turns.push((role, Cow::Borrowed(content.trim())));
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(turns: Result<Vec<Turn>, String>) -> String {
        let turns = turns.unwrap();
        let turns = turns.iter().map(|(role, text)| format!("<{role}>{text}"));
        turns.collect()
    }

    fn spoken_by(text: &str) -> String {
        said(speakers(text, &Names::new()))
    }

    #[test]
    fn a_line_inside_a_turn_begins_none() {
        for (text, wanted) in [
            (
                "User: It says:\nModel: HP 4100\nAssistant: A printer.",
                "<user>It says:\nModel: HP 4100<assistant>A printer.",
            ),
            (
                "User: specs?\nAssistant: These:\nSystem: Linux\nuser: root\n  User: me\nUser: thanks",
                "<user>specs?<assistant>These:\nSystem: Linux\nuser: root\n  User: me<user>thanks",
            ),
            (
                "Model: I am\nUser: who?\nAssistant: nobody",
                "<assistant>I am<user>who?\nAssistant: nobody",
            ),
            (
                "System: be kind\nHuman: hi\nAI: ho\nAI: again",
                "<system>be kind<user>hi<assistant>ho<assistant>again",
            ),
            (
                "  User: hi\n  Bot: ho <eos>\n<user>: x",
                "<user>hi<assistant>ho <eos>\n<user>: x",
            ),
            (
                "<bos><user>: hi <eos>\n<bot>: ho <eos>\n",
                "<user>hi<assistant>ho",
            ),
        ] {
            assert_eq!(spoken_by(text), wanted, "{text}");
        }
    }

    #[test]
    fn names_by_hand_all_speak() {
        let names = ["Anna", "Bob"].map(|name| (name.to_owned(), Role::User));
        let names = Names::from_iter(names);
        let text = "Anna: a\nBob: b\nAssistant: c";
        assert_eq!(said(speakers(text, &names)), "<user>a<user>b<assistant>c");
        assert!(
            speakers("Carl: a", &names)
                .unwrap_err()
                .contains("`Carl: a`")
        );
    }

    #[test]
    fn headings_begin_turns_in_the_middle_of_a_line_too() {
        for (text, wanted) in [
            (
                "### Human: What is it?### Assistant: A *thing*.\n\n### Input: x### Human: ok",
                "<user>What is it?<assistant>A *thing*.\n\n### Input: x<user>ok",
            ),
            (
                "Below is a task.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3",
                "<system>Below is a task.<user>Add.\n1 2<assistant>3",
            ),
        ] {
            assert_eq!(said(headings(text)), wanted);
        }
        assert!(headings("### Notes: none").is_err());
    }

    #[test]
    fn a_system_prompt_of_llama_is_none_of_the_users_words() {
        let text =
            "<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nhi [/INST] ho </s><s>[INST] x [/INST] y";
        let wanted = "<system>be kind<user>hi<assistant>ho<user>x<assistant>y";
        assert_eq!(said(inst(text)), wanted);
    }

    proptest! {
        /// What is between two speakers' lines is what was said, to the byte.
        #[test]
        fn contents_are_kept_to_the_byte(contents in prop::collection::vec("[a:\n\r\t <>#é]{1,12}", 2..6)) {
            let contents: Vec<&str> = contents.iter().map(|text| text.trim()).collect();
            let text: Vec<String> = contents
                .iter()
                .enumerate()
                .map(|(idx, text)| format!("{}: {text}\n", ["Human", "AI"][idx % 2]))
                .collect();
            let text = text.concat();
            let read = speakers(&text, &Names::new()).unwrap();
            let read: Vec<&str> = read.iter().map(|(_, text)| &**text).collect();
            prop_assert_eq!(read, contents);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(User:|AI:|### Human:|\\[INST\\]|\\[/INST\\]|[a:\n<> é]){0,12}") {
            let _ = (speakers(&text, &Names::new()), headings(&text), inst(&text));
        }
    }
}
