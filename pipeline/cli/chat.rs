//! `tinylm chat`: talking to a model.
//!
//! On a terminal lines are edited and remembered, and answers are broken between words; elsewhere
//! each line of standard input is a turn. Ctrl-C ends the answer that is coming, not the program,
//! and neither does an answer that cannot be given. Remarks of the program stand in parentheses.

mod knob;
mod line;

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::json;
use tinylm_reports::{block::Tone, clean_lines};
use tinylm_stages::shared::{
    speak::{Answer, End, Manner, Said, Speaker},
    template::Role,
};

use crate::{
    completions,
    failure::Failure,
    manner::MannerArgs,
    model,
    output::{Shown, eprint, print_piece, tell},
    project::{self, Project},
    wrap::Wrap,
};
use knob::Knob;
use line::{HELP, Line, Lines};

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// RUN, RUN/STAGE, RUN/STAGE@STEP or a model folder
    #[arg(add = completions::models())]
    pub(crate) model: String,
    /// Say this, print the answer and leave
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    #[command(flatten)]
    manner: MannerArgs,
}

const PROMPT: (&str, &str) = ("> ", "\x1b[1;36m> \x1b[0m");
/// Before the further lines of a turn.
const PROMPT_ON: (&str, &str) = (". ", "\x1b[36m. \x1b[0m");

pub(crate) fn run(project: &Project, args: &ChatArgs) -> Result<(), Failure> {
    let manner = args.manner.manner(0)?;
    let found = model::find(project, &args.model)?;
    let speaker = found.open(&args.manner)?;
    let mut chat = Chat::new(speaker, manner, args.manner.system.clone());
    chat.is_quiet = project.global.quiet;
    if found.has_heard_no_talk(project) {
        chat.remark(&format!(
            "nothing that it was trained on is a dialogue: it goes on with a text and does not answer; \
             `tinylm sample {} --text` lets it",
            args.model
        ));
    }
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
    let weights = found.weights(args.manner.weights);
    chat.remark(&format!("talking to {}{weights}", found.name));
    if let Some(others) = found.others("chat") {
        chat.remark(&others);
    }
    chat.remark("/help lists the commands, /quit leaves");
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
    is_terminal: bool,
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
            is_terminal: io::stdout().is_terminal(),
            is_quiet: false,
        }
    }

    /// Reads turns from standard input that is no terminal.
    fn lines(&mut self) -> Result<(), Failure> {
        let mut lines = Lines::default();
        for line in io::stdin().lock().split(b'\n') {
            let line = line.map_err(|error| Failure::wrong(format!("standard input: {error}")))?;
            let line = String::from_utf8(line)
                .map_err(|_| Failure::wrong("standard input is not UTF-8"))?;
            if let Some(line) = lines.add(&line)
                && !self.obey(line)?
            {
                return Ok(());
            }
        }
        self.obey(lines.end()).map(drop)
    }

    fn converse(&mut self, history: &Path) -> Result<(), Failure> {
        let no_terminal = |error: ReadlineError| Failure::new(1, format!("the terminal: {error}"));
        let mut editor = DefaultEditor::new().map_err(no_terminal)?;
        // No history yet, or one that cannot be kept, is no reason not to talk.
        let _ = editor.load_history(history);
        // Only with a helper is a prompt's style looked at.
        editor.set_helper(self.has_color.then_some(()));
        let mut lines = Lines::default();
        loop {
            let prompt = if lines.is_begun() { PROMPT_ON } else { PROMPT };
            match editor.readline(&prompt) {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    let Some(line) = lines.add(&line) else {
                        continue;
                    };
                    self.interrupted.store(false, Ordering::Relaxed);
                    match self.obey(line) {
                        Ok(true) => {}
                        Ok(false) => break,
                        // One turn that cannot be answered does not end a conversation.
                        Err(failure) => eprint(failure.render(self.has_color)),
                    }
                }
                Err(ReadlineError::Interrupted) if lines.is_begun() => {
                    lines.end();
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
            Line::Turn(knob, value) => self.turn(knob, value.as_deref()),
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
            Line::Save { path, over } => self.save(&path, over),
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

    /// Changes a number if there is a new value, and tells what it is then.
    fn turn(&mut self, knob: Knob, value: Option<&str>) {
        if let Some(value) = value {
            match knob.set(&self.manner, value) {
                Ok(manner) => self.manner = manner,
                Err(why) => return eprint(why),
            }
            if knob == Knob::Seed {
                // As if the conversation had begun with it.
                self.n_answers = 0;
            }
        }
        self.remark(&knob.told(&self.manner));
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
        let mut wrap = self.is_terminal.then(|| Wrap::new(project::stdout_width()));
        let mut listen = |said: &Said<'_>| {
            // Templates with spaces around their tags make answers begin with one.
            let text = if started {
                said.text
            } else {
                said.text.trim_start()
            };
            started |= !text.is_empty();
            let text = clean_lines(text);
            let printed = match &mut wrap {
                Some(wrap) => print_piece(wrap.push(&text)),
                None => print_piece(&text),
            };
            printed.is_ok() && !interrupted.load(Ordering::Relaxed)
        };
        let answer = self
            .speaker
            .answer(&prompt, self.n_answers, &self.manner, &mut listen)?;
        self.n_answers += 1;
        tell(wrap.map_or_else(String::new, |mut wrap| wrap.finish()));
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

    fn save(&self, path: &Path, over: bool) {
        let shown = path.display();
        match self.write(path, over) {
            Ok(()) => self.remark(&format!("saved to `{shown}`")),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => eprint(format!(
                "`{shown}` is there already; `/save! {shown}` writes over it"
            )),
            Err(error) => eprint(format!("`{shown}`: {error}")),
        }
    }

    /// Writes one dialogue in the shape that `normalize` reads.
    fn write(&self, path: &Path, over: bool) -> io::Result<()> {
        let system = self
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text}));
        let turns = self
            .turns
            .iter()
            .map(|(role, text)| json!({"role": role, "content": text}));
        let messages: Vec<_> = system.chain(turns).collect();
        let mut file = match over {
            true => fs::File::create(path)?,
            false => fs::File::create_new(path)?,
        };
        writeln!(file, "{}", json!({ "messages": messages }))
    }
}
