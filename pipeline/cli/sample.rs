//! `tinylm sample`: a model goes on from prompts.
//!
//! Flags and defaults are llama.cpp's where both have them; the spellings of the systems
//! that tinylm unites are taken too, from one table, and left out of `--help`.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::{Value, json};
use tinylm_model::{config::Precision, sampler::Sampling};
use tinylm_pipeline::settings::Choice;
use tinylm_stages::shared::{
    speak::{Answer, Manner, Prompt, Said, SpeakError, Speaker},
    template::Role,
};

use crate::{
    failure::Failure,
    project::{Project, now_ms, quoted},
    runs::find_stage,
};

/// Other spellings of a flag, by its name.
const SPELLINGS: &[(&str, &[&str])] = &[
    ("temperature", &["temp", "Temp"]),
    ("top-k", &["top_k", "Top_K", "topk"]),
    ("top-p", &["top_p"]),
    ("min-p", &["min_p"]),
    ("repeat-penalty", &["repeat_penalty", "repetition_penalty"]),
    ("repeat-last-n", &["repeat_last_n"]),
    (
        "predict",
        &[
            "n-predict",
            "max-tokens",
            "max_tokens",
            "max_new_tokens",
            "max_length",
            "length",
        ],
    ),
    ("file", &["prompt-file", "prompt_file"]),
    ("output", &["output_file"]),
    ("samples", &["num_samples", "num-samples"]),
    ("nonstop", &["non-stop", "non_stop", "ignore-eos"]),
    ("show-steps", &["show_steps"]),
    ("system", &["system-prompt", "system_prompt"]),
    ("stop", &["reverse-prompt"]),
    ("precision", &["dtype"]),
];

fn spellings(name: &str) -> impl Iterator<Item = &'static str> {
    let found = SPELLINGS.iter().find(|(known, _)| *known == name);
    found.map_or(&[][..], |(_, others)| others).iter().copied()
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// RUN, RUN/STAGE or a model folder
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
    /// How to write answers
    #[arg(long, value_enum, default_value = "text")]
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

/// How answers are made, for `sample` and `chat` alike.
#[derive(Debug, Args)]
pub(crate) struct MannerArgs {
    /// 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = Sampling::default().temperature, allow_negative_numbers = true, aliases = spellings("temperature"))]
    pub(crate) temperature: f32,
    /// Choose among this many of the most likely tokens; 0 is all
    #[arg(long, value_name = "N", default_value_t = Sampling::default().top_k, aliases = spellings("top-k"))]
    pub(crate) top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = Sampling::default().top_p, aliases = spellings("top-p"))]
    top_p: f32,
    /// Choose among tokens at least this fraction as likely as the most likely one
    #[arg(long, value_name = "P", default_value_t = Sampling::default().min_p, aliases = spellings("min-p"))]
    min_p: f32,
    /// Tokens said lately count as this much less likely
    #[arg(long, value_name = "X", default_value_t = Sampling::default().repeat_penalty, aliases = spellings("repeat-penalty"))]
    repeat_penalty: f32,
    /// How many of the last tokens the penalty looks at
    #[arg(long, value_name = "N", default_value_t = Sampling::default().repeat_last_n, aliases = spellings("repeat-last-n"))]
    repeat_last_n: usize,
    /// Most tokens of an answer; -1 is no end
    #[arg(
        short = 'n', long, value_name = "N", default_value_t = Manner::default().max_tokens, value_parser = length,
        allow_negative_numbers = true, aliases = spellings("predict"),
    )]
    pub(crate) predict: usize,
    /// The same seed gives the same answers; without one, each time others
    #[arg(short, long, value_name = "N")]
    seed: Option<u64>,
    /// Also stop at this text
    #[arg(long, value_name = "TEXT", aliases = spellings("stop"))]
    stop: Vec<String>,
    /// Go on past the marks that end an answer
    #[arg(long, aliases = spellings("nonstop"))]
    nonstop: bool,
    /// What is said before the first turn
    #[arg(long, value_name = "TEXT", aliases = spellings("system"))]
    pub(crate) system: Option<String>,
    /// Numbers the weights are rounded to
    #[arg(long, value_parser = choice::<Precision>(), default_value = "f32", aliases = spellings("precision"))]
    precision: Precision,
    /// Threads; without it, one for each core
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
}

/// Reads a number of tokens; -1, as in llama.cpp, is no end.
pub(crate) fn length(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(usize::MAX),
        _ => at_least_one(text),
    }
}

/// Reads one of the words of a choice.
fn choice<C: Choice + Send + Sync>() -> impl TypedValueParser<Value = C> {
    let words = C::ALL.iter().map(|choice| choice.word());
    PossibleValuesParser::new(words).try_map(|word| C::of_word(&word).ok_or("it is no choice"))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("it must be a whole number".to_owned()),
    }
}

pub(crate) fn run(project: &Project, args: &SampleArgs) -> Result<(), Failure> {
    let manner = args.manner.manner(args.show_steps)?;
    let prompts = prompts(args)?;
    let mut speaker = open(project, &args.model, &args.manner)?;
    let mut out = Out::open(args.output.as_deref())?;
    let mut rows = Vec::new();
    for (prompt_idx, text) in prompts.iter().enumerate() {
        let is_chat = args.chat || (!args.text && speaker.is_chat());
        let prompt = prompt(&speaker, args, text, is_chat)?;
        for sample_idx in 0..args.samples {
            let draw = (prompt_idx * args.samples + sample_idx) as u64;
            let begin = match args.format {
                Format::Json => None,
                Format::Text if args.show_steps > 0 => None,
                Format::Text if is_chat && prompts.len() == 1 => Some(String::new()),
                Format::Text if is_chat => Some(format!("> {text}\n")),
                Format::Text => Some(text.clone()),
            };
            let several = prompts.len() * args.samples > 1;
            let (answer, steps) =
                speak(&mut speaker, &prompt, draw, &manner, args, begin, &mut out)?;
            if args.format == Format::Text {
                out.write(if several { "\n\n" } else { "\n" })?;
            } else {
                rows.push(row(text, sample_idx, &answer, manner.seed, steps));
            }
            note_cropped(&answer);
        }
    }
    if args.format == Format::Json {
        out.write(&format!("{}\n", Value::Array(rows)))?;
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
            written = out.write(&printable(said.text));
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
        if args.format == Format::Text {
            out.write(&step_line(idx, chosen, &candidates, name))?;
        }
        let candidates = candidates
            .iter()
            .map(|(id, p)| json!({"id": id, "text": name(*id), "probability": p}));
        let candidates: Vec<Value> = candidates.collect();
        listed.push(json!({"id": chosen, "text": name(chosen), "candidates": candidates}));
    }
    if args.format == Format::Text && !streams {
        out.write(&printable(&answer.text))?;
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
            "note: the prompt is too long; its first {} tokens were left out\n",
            answer.n_cropped
        );
        io::stderr().write_all(line.as_bytes()).ok();
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

impl MannerArgs {
    pub(crate) fn manner(&self, n_candidates: usize) -> Result<Manner, Failure> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
        };
        sampling
            .check()
            .map_err(|error| Failure::wrong(error.to_string()))?;
        Ok(Manner {
            sampling,
            seed: self.seed.unwrap_or_else(|| now_ms().unsigned_abs()),
            max_tokens: self.predict,
            stop: self.stop.clone(),
            nonstop: self.nonstop,
            n_candidates,
        })
    }
}

/// Opens RUN, RUN/STAGE or a folder.
pub(crate) fn open(project: &Project, model: &str, args: &MannerArgs) -> Result<Speaker, Failure> {
    let folder = folder(project, model)?;
    let cores = || thread::available_parallelism().map_or(1, |n| n.get());
    Ok(Speaker::open(
        &folder,
        args.precision,
        args.threads.unwrap_or_else(cores),
    )?)
}

fn folder(project: &Project, model: &str) -> Result<PathBuf, Failure> {
    let path = project.current_dir.join(model);
    if path.is_dir() {
        return Ok(path);
    }
    if path.is_file() {
        let failure = Failure::wrong(format!("`{model}` is a file, and a model is a folder"));
        return Err(failure.help("give the folder that holds it"));
    }
    if model.starts_with(['.', '/', '~']) {
        return Err(Failure::wrong(format!("there is no folder `{model}`")));
    }
    let no_folder =
        |failure: Failure| failure.note("note", format!("`{model}` is no folder either"));
    let registry = project.registry().map_err(no_folder)?;
    let (name, stage) = match model.split_once('/') {
        Some((run, stage)) => (run, Some(stage)),
        None => (model, None),
    };
    let run = registry
        .find_run(name)
        .map_err(|error| no_folder(error.into()))?;
    let stages = registry.stages(&run.id)?;
    let makes_model = |kind: &str| matches!(kind, "pretrain" | "finetune");
    let stage = match stage {
        Some(stage) => find_stage(&stages, &run, stage)?,
        None => {
            let models = stages.iter().filter(|stage| makes_model(&stage.kind));
            let made = models.clone().rfind(|stage| stage.artifact.is_some());
            made.ok_or_else(|| match models.clone().next() {
                Some(stage) => {
                    Failure::wrong(format!("`{}` of {} has not finished", stage.name, run.name))
                        .help(format!("`tinylm resume {}`", run.name))
                }
                None => Failure::wrong(format!("{} has no stage that makes a model", run.name))
                    .help("name another run; `tinylm runs` lists them"),
            })?
        }
    };
    let digest = stage
        .artifact
        .as_deref()
        .and_then(|digest| digest.parse().ok());
    let Some(digest) = digest else {
        return Err(Failure::wrong(format!(
            "`{}` of {} has no artifact",
            stage.name, run.name
        )));
    };
    if !makes_model(&stage.kind) {
        let models = stages.iter().filter(|stage| makes_model(&stage.kind));
        let failure = Failure::wrong(format!(
            "`{}` of {} is no model but a `{}`",
            stage.name, run.name, stage.kind
        ));
        return Err(failure.help(format!(
            "its models: {}",
            quoted(models.map(|stage| stage.name.as_str()))
        )));
    }
    let files = project.home().artifact_files(&digest);
    if !files.is_dir() {
        let failure = Failure::wrong(format!(
            "the model of `{}` of {} is no longer in the store",
            stage.name, run.name
        ));
        return Err(failure.help(format!("`tinylm run {}` makes it again", run.file)));
    }
    Ok(files.to_path_buf())
}

impl From<SpeakError> for Failure {
    fn from(error: SpeakError) -> Self {
        let failure = Failure::wrong(error.to_string());
        let source = std::error::Error::source(&error).map(ToString::to_string);
        match source.filter(|source| *source != error.to_string()) {
            Some(source) => failure.note("cause", source),
            None => failure,
        }
    }
}

/// A model's words cannot move the cursor, colour the screen or turn a line around.
pub(crate) fn printable(text: &str) -> String {
    let is_harmful = |c: char| match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    text.replace(is_harmful, "\u{fffd}")
}

/// Standard output or a file, written as text comes.
struct Out {
    to: Box<dyn Write>,
    name: String,
}

impl Out {
    fn open(path: Option<&Path>) -> Result<Out, Failure> {
        let Some(path) = path else {
            let to = Box::new(io::stdout());
            return Ok(Out {
                to,
                name: "standard output".to_owned(),
            });
        };
        let name = path.display().to_string();
        let file =
            fs::File::create(path).map_err(|error| Failure::wrong(format!("`{name}`: {error}")))?;
        Ok(Out {
            to: Box::new(file),
            name,
        })
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let written = self
            .to
            .write_all(text.as_bytes())
            .and_then(|()| self.to.flush());
        written.map_err(|error| match error.kind() {
            // Nobody reads on (`| head`): that is no mistake.
            io::ErrorKind::BrokenPipe => Failure::said(0),
            _ => Failure::new(1, format!("`{}`: {error}", self.name)),
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
        for (name, others) in SPELLINGS {
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
    fn nan_is_refused_before_a_model_is_looked_for() {
        let cli = Cli::try_parse_from(["x", "m", "--temp", "NaN"]).unwrap();
        let failure = cli.sample.manner.manner(0).unwrap_err();
        assert_eq!(
            failure.render(false),
            "error: `temperature` is NaN, it must be 0 or more"
        );
    }
}
