//! `tinylm chat`: talking to a model.
//!
//! On a terminal lines are edited and remembered; elsewhere each line of standard input
//! is a turn. Ctrl-C ends the answer that is coming, not the program, and neither does an
//! answer that cannot be given. What the program says of itself stands in parentheses.

use std::{
    fs,
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::json;
use tinylm_reports::block::Tone;
use tinylm_stages::shared::{
    speak::{Answer, End, Manner, Said, Speaker},
    template::Role,
};

use crate::{
    failure::Failure,
    manner::{MannerArgs, length},
    model::open,
    output::{Shown, eprint, print_piece, tell},
    project::{self, Project},
};

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// RUN, RUN/STAGE or a model folder
    pub(crate) model: String,
    /// Say this, print the answer and leave
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    #[command(flatten)]
    manner: MannerArgs,
}

const PROMPT: &str = "> ";
const PROMPT_STYLED: &str = "\x1b[1;36m> \x1b[0m";

const HELP: &str = "\
/temp V       0 always takes the most likely word; higher is more surprising
/top-k N      choose among this many of the most likely tokens; 0 is all
/length N     most tokens of an answer; -1 is no end
/system TEXT  what is said before the first turn; without TEXT, nothing
/reset        begin anew
/retry        answer the last turn again, in other words
/save FILE    write the conversation as JSON
/help         this list
/quit         leave (also quit, exit, ##)";

/// The meaning of a line.
#[derive(Debug, Clone, PartialEq)]
enum Line {
    Say(String),
    Temperature(f32),
    TopK(usize),
    Length(usize),
    System(Option<String>),
    Reset,
    Retry,
    Save(PathBuf),
    Help,
    Quit,
    Nothing,
    Wrong(String),
}

pub(crate) fn run(project: &Project, args: &ChatArgs) -> Result<(), Failure> {
    let manner = args.manner.manner(0)?;
    let speaker = open(project, &args.model, &args.manner)?;
    let mut chat = Chat::new(speaker, manner, args.manner.system.clone());
    if let Some(prompt) = &args.prompt {
        return chat.say(prompt.clone());
    }
    if !io::stdin().is_terminal() {
        return chat.lines();
    }
    let registered =
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&chat.interrupted));
    registered.map_err(|error| Failure::new(1, format!("Ctrl-C cannot be caught: {error}")))?;
    chat.has_color = project::stderr_has_color();
    chat.is_quiet = project.global.quiet;
    chat.remark(&format!(
        "talking to {}; /help lists the commands, /quit leaves",
        args.model
    ));
    chat.converse(&project.home().root().join("chat_history"))
}

struct Chat {
    speaker: Speaker,
    manner: Manner,
    system: Option<String>,
    turns: Vec<(Role, String)>,
    /// Answers so far: each draws numbers of its own.
    n_answers: u64,
    /// Turns that had left the context when the screen last said so.
    n_left_out: usize,
    interrupted: Arc<AtomicBool>,
    has_color: bool,
    /// Only answers and mistakes are shown.
    is_quiet: bool,
}

impl Chat {
    fn new(speaker: Speaker, mut manner: Manner, system: Option<String>) -> Chat {
        if !speaker.is_chat() {
            // A plain model ends its turn by beginning the other's.
            manner.stop.push("\nUser:".to_owned());
        }
        Chat {
            speaker,
            manner,
            system,
            turns: Vec::new(),
            n_answers: 0,
            n_left_out: 0,
            interrupted: Arc::default(),
            has_color: false,
            is_quiet: false,
        }
    }

    /// Reads turns from standard input that is no terminal.
    fn lines(&mut self) -> Result<(), Failure> {
        for line in io::stdin().lock().split(b'\n') {
            let line = line.map_err(|error| Failure::wrong(format!("standard input: {error}")))?;
            let line = String::from_utf8(line)
                .map_err(|_| Failure::wrong("standard input is not UTF-8"))?;
            if !self.obey(parse(&line))? {
                break;
            }
        }
        Ok(())
    }

    fn converse(&mut self, history: &Path) -> Result<(), Failure> {
        let no_terminal = |error: ReadlineError| Failure::new(1, format!("the terminal: {error}"));
        let mut editor = DefaultEditor::new().map_err(no_terminal)?;
        // No history yet, or one that cannot be kept, is no reason not to talk.
        let _ = editor.load_history(history);
        // Only with a helper is a prompt's style looked at.
        editor.set_helper(self.has_color.then_some(()));
        loop {
            match editor.readline(&(PROMPT, PROMPT_STYLED)) {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    self.interrupted.store(false, Ordering::Relaxed);
                    match self.obey(parse(&line)) {
                        Ok(true) => {}
                        Ok(false) => break,
                        // One turn that cannot be answered does not end a conversation.
                        Err(failure) => eprint(failure.render(self.has_color)),
                    }
                }
                Err(ReadlineError::Interrupted) => self.remark("/quit leaves"),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(no_terminal(error)),
            }
        }
        if history.parent().is_some_and(Path::is_dir) {
            let _ = editor.save_history(history);
        }
        Ok(())
    }

    /// Returns whether to go on.
    fn obey(&mut self, line: Line) -> Result<bool, Failure> {
        match line {
            Line::Quit => return Ok(false),
            Line::Nothing => {}
            Line::Help => tell(HELP),
            Line::Wrong(why) => eprint(&why),
            Line::Temperature(temperature) => self.set_temperature(temperature),
            Line::TopK(n) => {
                self.manner.sampling.top_k = n;
                self.remark(&match n {
                    0 => "choosing among all tokens".to_owned(),
                    n => format!("choosing among the {n} most likely tokens"),
                });
            }
            Line::Length(n) => {
                self.manner.max_tokens = n;
                self.remark(&match n {
                    usize::MAX => "answers have no end".to_owned(),
                    n => format!("answers have at most {n} tokens"),
                });
            }
            Line::System(text) => {
                self.remark(match text {
                    Some(_) => "said before the first turn from now on",
                    None => "nothing is said before the first turn",
                });
                self.system = text;
            }
            Line::Reset => {
                self.turns.clear();
                self.n_left_out = 0;
                self.remark("a new conversation");
            }
            Line::Save(path) => match self.save(&path) {
                Ok(()) => self.remark(&format!("saved to `{}`", path.display())),
                Err(error) => eprint(format!("`{}`: {error}", path.display())),
            },
            Line::Retry => match self.turns.pop() {
                Some((Role::Assistant, _)) => self.reply()?,
                Some(turn) => {
                    self.turns.push(turn);
                    self.reply()?;
                }
                None => eprint("there is no turn to answer yet"),
            },
            Line::Say(text) => self.say(text)?,
        }
        Ok(true)
    }

    fn set_temperature(&mut self, temperature: f32) {
        let before = self.manner.sampling;
        self.manner.sampling.temperature = temperature;
        match self.manner.sampling.check() {
            Ok(()) => self.remark(&format!("the temperature is {temperature}")),
            Err(error) => {
                self.manner.sampling = before;
                eprint(error.to_string());
            }
        }
    }

    fn say(&mut self, text: String) -> Result<(), Failure> {
        self.turns.push((Role::User, text));
        let replied = self.reply();
        if replied.is_err() {
            self.turns.pop();
        }
        replied
    }

    fn reply(&mut self) -> Result<(), Failure> {
        let prompt = self.speaker.chat_prompt(
            self.system.as_deref(),
            &self.turns,
            self.manner.max_tokens,
        )?;
        if prompt.n_turns_left_out > self.n_left_out {
            self.remark(&format!(
                "the oldest turns no longer fit the model's context; left out: {}",
                prompt.n_turns_left_out
            ));
        }
        self.n_left_out = prompt.n_turns_left_out;
        let interrupted = Arc::clone(&self.interrupted);
        let mut started = false;
        let mut listen = |said: &Said<'_>| {
            // Templates with spaces around their tags make answers begin with one.
            let text = if started {
                said.text
            } else {
                said.text.trim_start()
            };
            started |= !text.is_empty();
            print_piece(text).is_ok() && !interrupted.load(Ordering::Relaxed)
        };
        let answer = self
            .speaker
            .answer(&prompt, self.n_answers, &self.manner, &mut listen)?;
        self.n_answers += 1;
        tell("");
        self.note(&answer);
        self.turns
            .push((Role::Assistant, answer.text.trim().to_owned()));
        Ok(())
    }

    fn note(&self, answer: &Answer) {
        if answer.n_cropped > 0 {
            self.remark(&format!(
                "your turn is too long: {} of its tokens were left out",
                answer.n_cropped
            ));
        }
        if answer.n_slides > 0 {
            self.remark("the answer outgrew the model's context: the oldest is forgotten");
        }
        match answer.end {
            End::Interrupted => self.remark("stopped"),
            _ if answer.text.trim().is_empty() => self.remark("no answer"),
            End::Length | End::Stop => {}
        }
    }

    /// Says something that is no part of the conversation.
    fn remark(&self, text: &str) {
        if !self.is_quiet {
            let text = format!("({text})");
            eprint(Shown::painted(&text, Tone::Quiet, self.has_color));
        }
    }

    /// One dialogue in the shape that `normalize` reads.
    fn save(&self, path: &Path) -> io::Result<()> {
        let system = self
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text}));
        let turns = self
            .turns
            .iter()
            .map(|(role, text)| json!({"role": role, "content": text}));
        let messages: Vec<_> = system.chain(turns).collect();
        fs::write(path, format!("{}\n", json!({ "messages": messages })))
    }
}

/// Returns what a line means. Without a slash a command must be complete, so that
/// "length matters" is something to say.
fn parse(line: &str) -> Line {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match (line, word) {
        ("", _) => Line::Nothing,
        ("quit" | "exit" | "##" | "/quit" | "/exit", _) => Line::Quit,
        (_, "temp") => rest
            .parse()
            .map_or_else(|_| Line::Say(line.to_owned()), Line::Temperature),
        (_, "length") => length(rest).map_or_else(|_| Line::Say(line.to_owned()), Line::Length),
        (_, "/temp") => number(rest.parse(), "/temp 0.8", Line::Temperature),
        (_, "/top-k") => number(rest.parse(), "/top-k 40", Line::TopK),
        (_, "/length") => number(length(rest), "/length 256", Line::Length),
        (_, "/system") => Line::System(Some(rest.to_owned()).filter(|text| !text.is_empty())),
        (_, "/reset") => Line::Reset,
        (_, "/retry") => Line::Retry,
        (_, "/help") => Line::Help,
        (_, "/save") if rest.is_empty() => Line::Wrong("where to? `/save talk.json`".to_owned()),
        (_, "/save") => Line::Save(PathBuf::from(rest)),
        (_, command) if command.starts_with('/') => {
            Line::Wrong(format!("there is no `{command}`; /help lists the commands"))
        }
        _ => Line::Say(line.to_owned()),
    }
}

fn number<T, E>(parsed: Result<T, E>, example: &str, line: fn(T) -> Line) -> Line {
    match parsed {
        Ok(number) => line(number),
        Err(_) => Line::Wrong(format!("say it like `{example}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_speech() {
        for (line, meaning) in [
            ("  ", Line::Nothing),
            ("##", Line::Quit),
            ("exit", Line::Quit),
            (
                "exit through the door",
                Line::Say("exit through the door".into()),
            ),
            ("temp 0.5", Line::Temperature(0.5)),
            (
                "temp files are where ?",
                Line::Say("temp files are where ?".into()),
            ),
            ("length 20", Line::Length(20)),
            ("length matters", Line::Say("length matters".into())),
            ("/temp 0", Line::Temperature(0.0)),
            ("/top-k 5", Line::TopK(5)),
            ("/length -1", Line::Length(usize::MAX)),
            ("/temp", Line::Wrong("say it like `/temp 0.8`".into())),
            (
                "/length -3",
                Line::Wrong("say it like `/length 256`".into()),
            ),
            ("/length 0", Line::Wrong("say it like `/length 256`".into())),
            ("/system be kind", Line::System(Some("be kind".into()))),
            ("/system", Line::System(None)),
            ("/save a b.json", Line::Save("a b.json".into())),
            (
                "/sing",
                Line::Wrong("there is no `/sing`; /help lists the commands".into()),
            ),
            (" how are you ? ", Line::Say("how are you ?".into())),
        ] {
            assert_eq!(parse(line), meaning, "{line}");
        }
    }
}
