//! The meaning of what is typed: something to say, or a command.

use std::path::PathBuf;

use tinylm_stages::shared::speak::Manner;

use super::knob::Knob;

pub(super) const HELP: &str = "\
/temp [V]     0 always takes the most likely word; higher is more surprising
/top-k [N]    choose among this many of the most likely tokens; 0 is all
/top-p [P]    choose among the most likely tokens that together have this probability
/length [N]   most tokens of an answer; -1 is no end
/seed [N]     the same seed gives the same answers; each without a number shows it
/system TEXT  what is said before the first turn; without TEXT, nothing
/reset        begin anew
/retry        answer the last turn again, in other words
/save FILE    write the conversation as JSON; /save! over a file that is there
/help         this list
/quit         leave (also quit, exit, ##)
A line that ends with \\ goes on in the next one, and so does all between two \"\"\".";

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    Say(String),
    /// A number to be changed, or without a value shown.
    Turn(Knob, Option<String>),
    System(Option<String>),
    Reset,
    Retry,
    Save {
        path: PathBuf,
        over: bool,
    },
    Help,
    Quit,
    Nothing,
    Wrong(String),
}

/// Returns what a line means. Without a slash a command must be complete, so that
/// "length matters" is something to say.
pub(super) fn parse(line: &str) -> Line {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let knob = Knob::ALL
        .into_iter()
        .find(|knob| word.strip_prefix('/').unwrap_or(word) == knob.word());
    let given = Some(rest.to_owned()).filter(|text| !text.is_empty());
    match (line, word, knob) {
        ("", ..) => Line::Nothing,
        ("quit" | "exit" | "##" | "/quit" | "/exit", ..) => Line::Quit,
        (_, _, Some(knob)) if word.starts_with('/') => Line::Turn(knob, given),
        (_, "temp" | "length", Some(knob)) if knob.set(&Manner::default(), rest).is_ok() => {
            Line::Turn(knob, given)
        }
        (_, "/system", _) => Line::System(given),
        (_, "/reset", _) => Line::Reset,
        (_, "/retry", _) => Line::Retry,
        (_, "/help", _) => Line::Help,
        (_, "/save" | "/save!", _) => match given {
            None => Line::Wrong("where to? `/save talk.json`".to_owned()),
            Some(path) => Line::Save {
                path: PathBuf::from(path),
                over: word == "/save!",
            },
        },
        (_, command, _) if command.starts_with('/') => {
            Line::Wrong(format!("there is no `{command}`; /help lists the commands"))
        }
        _ => Line::Say(line.to_owned()),
    }
}

/// Lines on their way to one turn: those that end with a backslash, or stand between `\"\"\"`.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<String>,
    is_quoted: bool,
}

const QUOTE: &str = "\"\"\"";

impl Lines {
    /// Takes a line; returns what is meant once it is whole.
    pub(super) fn add(&mut self, line: &str) -> Option<Line> {
        let mut line = line.trim_end();
        if self.begun.is_empty()
            && !self.is_quoted
            && let Some(rest) = line.trim_start().strip_prefix(QUOTE)
        {
            self.is_quoted = true;
            line = rest;
        }
        let (text, goes_on) = match self.is_quoted {
            true => match line.strip_suffix(QUOTE) {
                Some(text) => (text, false),
                None => (line, true),
            },
            false => match line.strip_suffix('\\') {
                Some(text) => (text, true),
                None => (line, false),
            },
        };
        self.begun.push(text.to_owned());
        (!goes_on).then(|| self.end())
    }

    pub(super) fn is_begun(&self) -> bool {
        self.is_quoted || !self.begun.is_empty()
    }

    /// Returns what was typed so far, whole or not.
    pub(super) fn end(&mut self) -> Line {
        let Lines { begun, is_quoted } = std::mem::take(self);
        let text = begun.join("\n");
        match text.trim() {
            "" => Line::Nothing,
            text if is_quoted => Line::Say(text.to_owned()),
            text => parse(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_speech() {
        let say = |text: &str| Line::Say(text.to_owned());
        let turn = |knob, value: &str| Line::Turn(knob, Some(value.to_owned()));
        let save = |path: &str, over| Line::Save {
            path: path.into(),
            over,
        };
        for (line, meaning) in [
            ("  ", Line::Nothing),
            ("##", Line::Quit),
            ("exit", Line::Quit),
            ("exit through the door", say("exit through the door")),
            ("temp 0.5", turn(Knob::Temperature, "0.5")),
            ("temp files are where ?", say("temp files are where ?")),
            ("temp", say("temp")),
            ("seed 5", say("seed 5")),
            ("length 20", turn(Knob::Length, "20")),
            ("length matters", say("length matters")),
            ("/temp 0", turn(Knob::Temperature, "0")),
            ("/temp", Line::Turn(Knob::Temperature, None)),
            ("/top-k 5", turn(Knob::TopK, "5")),
            ("/top-p 0.5", turn(Knob::TopP, "0.5")),
            ("/seed", Line::Turn(Knob::Seed, None)),
            ("/system be kind", Line::System(Some("be kind".into()))),
            ("/system", Line::System(None)),
            ("/save a b.json", save("a b.json", false)),
            ("/save! a.json", save("a.json", true)),
            (
                "/sing",
                Line::Wrong("there is no `/sing`; /help lists the commands".into()),
            ),
            (" how are you ? ", say("how are you ?")),
        ] {
            assert_eq!(parse(line), meaning, "{line}");
        }
    }

    #[test]
    fn a_number_that_cannot_be_changes_nothing() {
        let manner = Manner::default();
        for (knob, value, told) in [
            (Knob::Length, "-3", "say it like `/length 256`"),
            (Knob::Length, "0", "say it like `/length 256`"),
            (Knob::Seed, "-1", "say it like `/seed 42`"),
            (Knob::TopP, "2", "`top_p` is 2, it must be between 0 and 1"),
        ] {
            assert_eq!(knob.set(&manner, value).unwrap_err(), told);
        }
        let endless = Knob::Length.set(&manner, "-1").unwrap();
        assert_eq!(Knob::Length.told(&endless), "answers have no end");
        assert_eq!(Knob::TopP.set(&manner, "0.5").unwrap().sampling.top_p, 0.5);
    }

    #[test]
    fn a_turn_may_have_several_lines() {
        let typed = |lines: &[&str]| -> Vec<Line> {
            let mut whole = Lines::default();
            lines.iter().filter_map(|line| whole.add(line)).collect()
        };
        let say = |text: &str| Line::Say(text.to_owned());
        assert_eq!(
            typed(&["one \\", "two", "three"]),
            [say("one \ntwo"), say("three")]
        );
        assert_eq!(
            typed(&["\"\"\"/temp is", "", "a command\\", "no\"\"\"", "hi"]),
            [say("/temp is\n\na command\\\nno"), say("hi")]
        );
        assert_eq!(typed(&["\"\"\"one line\"\"\""]), [say("one line")]);
        let system = Line::System(Some("be kind\nand short".to_owned()));
        assert_eq!(typed(&["/system be kind\\", "and short"]), [system]);
        assert_eq!(typed(&["\"\"\"", "never ends"]), []);
    }
}
