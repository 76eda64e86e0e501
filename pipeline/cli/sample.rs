//! `tinylm sample`: a model goes on from prompts.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tinylm_reports::clean_lines;
use tinylm_stages::shared::{
    speak::{Answer, Manner, Prompt, Said, Speaker},
    template::Role,
};

use crate::{
    completions,
    failure::Failure,
    manner::{MannerArgs, at_least_one, spellings},
    model,
    output::{Shown, eprint, print_piece},
    project::{self, Project},
    wrap::Wrap,
};

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// RUN, RUN/STAGE, RUN/STAGE@STEP or a model folder
    #[arg(add = completions::models())]
    pub(crate) model: String,
    /// What to go on from; given more than once, one after the other
    #[arg(short, long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file with a prompt on each line
    #[arg(short, long, value_name = "FILE", aliases = spellings("file"))]
    file: Option<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE", aliases = spellings("output"))]
    output: Option<PathBuf>,
    /// Answers per prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one, aliases = spellings("samples"))]
    samples: usize,
    /// A prompt is the beginning of a text, also when the model knows turns
    #[arg(long, conflicts_with = "chat")]
    text: bool,
    /// A prompt is a user's turn, also when the model's template is plain
    #[arg(long)]
    chat: bool,
    /// List the N best candidates of each step with their probabilities
    #[arg(long, value_name = "N", default_value_t = 0, aliases = spellings("show-steps"))]
    show_steps: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The same, as it was first spelled
    #[arg(
        long,
        value_enum,
        default_value = "text",
        hide = true,
        conflicts_with = "json"
    )]
    format: Format,
    /// Wait this long after each token
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    #[command(flatten)]
    pub(crate) manner: MannerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl SampleArgs {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

pub(crate) fn run(project: &Project, args: &SampleArgs) -> Result<(), Failure> {
    let manner = args.manner.manner(args.show_steps)?;
    let prompts = prompts(args)?;
    let found = model::find(project, &args.model)?;
    let mut speaker = found.open(&args.manner)?;
    if let Some(others) = found.others("sample").filter(|_| !project.global.quiet) {
        eprint(format!("note: {} is taken; {others}", found.name));
    }
    let mut out = Out::open(args)?;
    let mut rows = Vec::new();
    for (prompt_idx, text) in prompts.iter().enumerate() {
        let is_chat = args.chat || (!args.text && speaker.is_chat());
        let prompt = prompt(&speaker, args, text, is_chat)?;
        for sample_idx in 0..args.samples {
            let draw = (prompt_idx * args.samples + sample_idx) as u64;
            let begin = match args.format() {
                Format::Json => None,
                Format::Text if args.show_steps > 0 => None,
                Format::Text if is_chat && prompts.len() == 1 => Some(String::new()),
                Format::Text if is_chat => Some(format!("> {text}\n")),
                Format::Text => Some(text.clone()),
            };
            let several = prompts.len() * args.samples > 1;
            let (answer, steps) =
                speak(&mut speaker, &prompt, draw, &manner, args, begin, &mut out)?;
            if args.format() == Format::Text {
                out.write(if several { "\n\n" } else { "\n" })?;
            } else {
                rows.push(row(text, sample_idx, &answer, manner.seed, steps));
            }
            note_cropped(&answer);
        }
    }
    if args.format() == Format::Json {
        let rows = Shown::json(&Value::Array(rows).to_string());
        out.write(&format!("{rows}\n"))?;
    }
    Ok(())
}

/// Writes an answer while it comes; returns it with the candidates of each step.
fn speak(
    speaker: &mut Speaker,
    prompt: &Prompt,
    draw: u64,
    manner: &Manner,
    args: &SampleArgs,
    begin: Option<String>,
    out: &mut Out,
) -> Result<(Answer, Vec<Value>), Failure> {
    let mut written = Ok(());
    let streams = begin.is_some();
    if let Some(begin) = begin {
        out.write(&begin)?;
    }
    let mut steps: Vec<(u16, Vec<(u16, f32)>)> = Vec::new();
    let answer = speaker.answer(prompt, draw, manner, &mut |said: &Said<'_>| {
        if manner.n_candidates > 0 && !said.candidates.is_empty() {
            let listed = said.candidates.iter().map(|c| (c.id, c.probability));
            steps.push((said.id, listed.collect()));
        }
        if streams {
            written = out.write(&clean_lines(said.text));
            if args.delay > 0 {
                thread::sleep(Duration::from_millis(args.delay));
            }
        }
        written.is_ok()
    })?;
    written?;
    let name = |id: u16| {
        speaker
            .tokenizer()
            .decode_all(&[u32::from(id)])
            .unwrap_or_default()
    };
    let mut listed = Vec::new();
    for (idx, (chosen, candidates)) in steps.into_iter().enumerate() {
        if args.format() == Format::Text {
            out.write(&step_line(idx, chosen, &candidates, name))?;
        }
        let candidates = candidates
            .iter()
            .map(|(id, p)| json!({"id": id, "text": name(*id), "probability": p}));
        let candidates: Vec<Value> = candidates.collect();
        listed.push(json!({"id": chosen, "text": name(chosen), "candidates": candidates}));
    }
    if args.format() == Format::Text && !streams {
        out.write(&clean_lines(&answer.text))?;
    }
    Ok((answer, listed))
}

/// ` 3  " fine"  62.1%   " good"  20.3%`
fn step_line(
    idx: usize,
    chosen: u16,
    candidates: &[(u16, f32)],
    name: impl Fn(u16) -> String,
) -> String {
    let mut line = format!("{:>4}  {:<14}", idx + 1, format!("{:?}", name(chosen)));
    for (id, probability) in candidates {
        let mark = if *id == chosen { '*' } else { ' ' };
        line.push_str(&format!(
            " {mark}{:<12} {:>5.1}%",
            format!("{:?}", name(*id)),
            100.0 * probability
        ));
    }
    line.push('\n');
    line
}

fn row(prompt: &str, sample: usize, answer: &Answer, seed: u64, steps: Vec<Value>) -> Value {
    let mut row = json!({
        "prompt": prompt,
        "sample": sample,
        "text": answer.text,
        "tokens": answer.n_tokens,
        "end": answer.end.name(),
        "seed": seed,
    });
    if !steps.is_empty() {
        row["steps"] = Value::Array(steps);
    }
    row
}

fn note_cropped(answer: &Answer) {
    if answer.n_cropped > 0 {
        let line = format!(
            "note: the prompt is too long; its first {} tokens were left out",
            answer.n_cropped
        );
        eprint(line);
    }
}

fn prompt(
    speaker: &Speaker,
    args: &SampleArgs,
    text: &str,
    is_chat: bool,
) -> Result<Prompt, Failure> {
    if !is_chat {
        return Ok(speaker.text_prompt(text)?);
    }
    let turns = [(Role::User, text.to_owned())];
    Ok(speaker.chat_prompt(args.manner.system.as_deref(), &turns, args.manner.predict)?)
}

fn prompts(args: &SampleArgs) -> Result<Vec<String>, Failure> {
    let mut prompts = args.prompt.clone();
    if let Some(path) = &args.file {
        let bytes = fs::read(path)
            .map_err(|error| Failure::wrong(format!("`{}`: {error}", path.display())))?;
        let text = utf8(bytes, &path.display().to_string())?;
        let lines = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty());
        prompts.extend(lines.map(str::to_owned));
    }
    if prompts.is_empty() && !io::stdin().is_terminal() {
        let mut bytes = Vec::new();
        let read = io::stdin().read_to_end(&mut bytes);
        read.map_err(|error| Failure::wrong(format!("standard input: {error}")))?;
        let text = utf8(bytes, "standard input")?;
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.is_empty() {
            prompts.push(text.to_owned());
        }
    }
    match prompts.is_empty() {
        true => Err(Failure::wrong("there is no prompt")
            .help("give one with `--prompt`, `--file` or on standard input")),
        false => Ok(prompts),
    }
}

fn utf8(bytes: Vec<u8>, name: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::wrong(format!("`{name}` is not UTF-8 at byte {at}"))
    })
}

/// A terminal or a file, written as text comes.
enum Out {
    Terminal(Wrap),
    Pipe,
    File(fs::File, String),
}

impl Out {
    fn open(args: &SampleArgs) -> Result<Out, Failure> {
        let Some(path) = &args.output else {
            let is_read = args.format() == Format::Text && io::stdout().is_terminal();
            return Ok(match is_read {
                true => Out::Terminal(Wrap::new(project::stdout_width())),
                false => Out::Pipe,
            });
        };
        let name = path.display().to_string();
        match fs::File::create(path) {
            Ok(file) => Ok(Out::File(file, name)),
            Err(error) => Err(Failure::wrong(format!("`{name}`: {error}"))),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let (written, name) = match self {
            Out::Terminal(wrap) => (print_piece(wrap.push(text)), "standard output"),
            Out::Pipe => (print_piece(text), "standard output"),
            Out::File(file, name) => (file.write_all(text.as_bytes()), name.as_str()),
        };
        written.map_err(|error| match error.kind() {
            // Nobody reads on (`| head`): that is no mistake.
            io::ErrorKind::BrokenPipe => Failure::said(0),
            _ => Failure::new(1, format!("`{name}`: {error}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        sample: SampleArgs,
    }

    #[test]
    fn every_spelling_in_the_table_is_taken_and_none_is_shown() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        for (name, others) in crate::manner::SPELLINGS {
            assert!(help.contains(&format!("--{name}")), "{name} is no flag");
            for other in *others {
                assert!(!help.contains(&format!("--{other} ")), "{other} is shown");
                let flag = format!("--{other}");
                let known = [
                    vec!["x", "m", &flag],
                    vec!["x", "m", &flag, "1"],
                    vec!["x", "m", &flag, "f32"],
                ];
                assert!(
                    known.iter().any(|args| Cli::try_parse_from(args).is_ok()),
                    "{other}"
                );
            }
        }
    }

    #[test]
    fn json_is_asked_for_as_everywhere_else_and_as_before() {
        for words in [&["--json"][..], &["--format", "json"]] {
            let words = ["x", "m"].iter().chain(words);
            let sample = Cli::try_parse_from(words).unwrap().sample;
            assert_eq!(sample.format(), Format::Json);
        }
    }

    #[test]
    fn nan_is_refused_before_a_model_is_looked_for() {
        let cli = Cli::try_parse_from(["x", "m", "--temp", "NaN"]).unwrap();
        let failure = cli.sample.manner.manner(0).unwrap_err();
        assert_eq!(
            failure.render(false).to_string(),
            "error: `temperature` is NaN, it must be 0 or more"
        );
    }
}
