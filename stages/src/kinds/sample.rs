//! Lets a model answer prompts, so that what was trained can be read.
//!
//! Writes `samples.jsonl` (a line per answer, with all that was asked) and `samples.md`
//! (the same for people), and tells each answer as it comes. The same recipe makes the
//! same bytes: every random number is a function of the seed, the sample and the token.

use std::{fmt::Write as _, fs};

use serde_json::{Value, json};
use tinylm_model::{config::ReadPrecision, folder::Which, sampler::Sampling};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    At, Content, Metrics, Role as InputRole, Roles, Stage, StageError, StageIo, choices,
    settings::{LocalPath, NoSettings, SettingError},
};

use crate::shared::{
    decimal::decimal,
    speak::{Answer, End, Manner, Prompt, SpeakError, Speaker, Variety},
    template::Role,
};

pub struct Sample;

choices! {
    /// The form of a prompt.
    pub enum Form {
        /// Turns where the model's template has them, else text.
        Auto = "auto",
        /// A user's turn; the model answers.
        Chat = "chat",
        /// The beginning of a text; the model goes on.
        Text = "text",
    }
}

tinylm_pipeline::settings! {
    /// Answers to prompts.
    pub struct SampleSettings {
        /// The prompts.
        pub prompts: Vec<String> = Vec::new(),
        /// A file with a prompt on each line, asked after `prompts`.
        pub prompts_file: Option<LocalPath> = None,
        /// The form of a prompt: a user's turn or the beginning of a text.
        pub form: Form = Form::Auto,
        /// Said before a user's turn.
        pub system: Option<String> = None,
        /// Answers per prompt.
        pub samples: usize = 1,
        /// Most tokens of an answer.
        pub max_tokens: usize = 128,
        /// 0 always takes the most likely token.
        pub temperature: f64 = decimal(Sampling::default().temperature),
        /// Chooses among this many of the most likely tokens; 0 is all.
        pub top_k: usize = Sampling::default().top_k,
        /// Chooses among the most likely tokens that together have this probability.
        pub top_p: f64 = decimal(Sampling::default().top_p),
        /// Chooses among tokens at least this fraction as likely as the most likely one.
        pub min_p: f64 = decimal(Sampling::default().min_p),
        /// Tokens said lately count as this much less likely.
        pub repeat_penalty: f64 = decimal(Sampling::default().repeat_penalty),
        /// How many of the last tokens the penalty looks at.
        pub repeat_last_n: usize = Sampling::default().repeat_last_n,
        /// Texts at which an answer ends, besides the template's own marks.
        pub stop: Vec<String> = Vec::new(),
        /// Goes on past the template's marks, up to `max_tokens`.
        pub nonstop: bool = false,
        /// Which of the model's weights.
        pub weights: Which = Which::Best => neutral Which::Best,
        /// Numbers the weights are rounded to.
        pub precision: ReadPrecision = ReadPrecision::F32,
        /// Instead of the experiment's seed.
        pub seed: Option<u64> = None,
    }
}

impl Stage for Sample {
    type Settings = SampleSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "sample";
    const ABOUT: &'static str = "answers prompts with a model";
    const REVISION: u32 = 2;
    const MAKES: Content = Content::Samples;
    const METRICS: &'static [Key] = &[
        ("answers", "Answers that were written."),
        ("tokens_per_answer", "Their mean length."),
        ("end_rate", "The share that ended by itself."),
        ("distinct_1", "Different words over all words."),
        ("distinct_2", "Different pairs of words over all pairs."),
        (
            "repetition",
            "The share of what repeats what the same answer said before.",
        ),
    ];
    const ROLES: Roles =
        Roles::Fixed(&[InputRole::one("model", "what answers").takes(&[Content::Model])]);
    const HEAVY: bool = true;
    const ON_DEVICE: bool = true;
    const SEEDED: bool = true;

    fn canonical(settings: SampleSettings) -> Result<SampleSettings, SettingError> {
        if let Err(error) = sampling(&settings).check() {
            return Err(SettingError::new("", error.to_string()));
        }
        if settings.prompts.is_empty() && settings.prompts_file.is_none() {
            return Err(SettingError::new("prompts", "there is nothing to answer"));
        }
        for (name, n) in [
            ("samples", settings.samples),
            ("max_tokens", settings.max_tokens),
        ] {
            if n == 0 {
                return Err(SettingError::new(name, "must be at least 1"));
            }
        }
        Ok(settings)
    }

    fn run(settings: &SampleSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        let folder = &io.input("model")?.path;
        let weights = (settings.weights, settings.precision);
        let mut speaker = Speaker::of_stage(io, folder, weights)?;
        let manner = Manner {
            sampling: sampling(settings),
            seed: settings.seed.unwrap_or_else(|| io.seed()),
            max_tokens: settings.max_tokens,
            stop: settings.stop.clone(),
            nonstop: settings.nonstop,
            n_candidates: 0,
        };
        let texts = all_prompts(settings, io)?;
        let n_all = (texts.len() * settings.samples) as u64;
        let mut prompts = Vec::new();
        for text in &texts {
            let prompt = prompt(&speaker, settings, text)?;
            prompts.extend(std::iter::repeat_n(prompt, settings.samples));
        }
        let mut lines = String::new();
        let mut page = String::new();
        let mut answers = Vec::new();
        io.progress(0, Some(n_all), "answers")?;
        // Each draws other numbers, or equal prompts would all answer alike.
        let done = speaker.answer_all(
            &prompts,
            &manner,
            &|| !io.is_cancelled(),
            &mut |idx, answer| {
                let (text, sample_idx) = (&texts[idx / settings.samples], idx % settings.samples);
                io.sample(None, text, &answer.text);
                writeln!(lines, "{}", line(settings, text, sample_idx, &answer)).ok();
                write_answer(&mut page, text, sample_idx, &answer);
                answers.push(answer);
                io.progress(answers.len() as u64, Some(n_all), "answers")
            },
        )?;
        if !done {
            return Err(StageError::cancelled());
        }
        for (name, text) in [("samples.jsonl", lines), ("samples.md", page)] {
            let path = io.out().join(name);
            fs::write(&path, text).at(&path)?;
        }
        Ok(metrics(&answers))
    }
}

fn sampling(settings: &SampleSettings) -> Sampling {
    Sampling {
        temperature: settings.temperature as f32,
        top_k: settings.top_k,
        top_p: settings.top_p as f32,
        min_p: settings.min_p as f32,
        repeat_penalty: settings.repeat_penalty as f32,
        repeat_last_n: settings.repeat_last_n,
    }
}

fn all_prompts(settings: &SampleSettings, io: &StageIo) -> Result<Vec<String>, StageError> {
    let mut prompts = settings.prompts.clone();
    for file in io.local_files("prompts_file") {
        let text = String::from_utf8(file.read()?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            StageError::new(format!("`{}` is not UTF-8 at byte {at}", file.name)).is_final()
        })?;
        let lines = text.lines().map(str::trim_end);
        prompts.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
    }
    match prompts.is_empty() {
        true => Err(StageError::new("the prompts file has no prompt in it").is_final()),
        false => Ok(prompts),
    }
}

fn prompt(speaker: &Speaker, settings: &SampleSettings, text: &str) -> Result<Prompt, SpeakError> {
    let chat = match settings.form {
        Form::Auto => speaker.is_chat(),
        Form::Chat => true,
        Form::Text => false,
    };
    if !chat {
        return speaker.text_prompt(text);
    }
    let turns = [(Role::User, text.to_owned())];
    speaker.chat_prompt(settings.system.as_deref(), &turns, settings.max_tokens)
}

fn line(settings: &SampleSettings, prompt: &str, sample: usize, answer: &Answer) -> Value {
    json!({
        "prompt": prompt,
        "system": settings.system,
        "sample": sample,
        "text": answer.text,
        "tokens": answer.n_tokens,
        "end": answer.end.name(),
    })
}

fn write_answer(page: &mut String, prompt: &str, sample: usize, answer: &Answer) {
    // Writing to a string cannot fail.
    if sample == 0 {
        let title = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
        writeln!(page, "## {title}\n").ok();
    }
    for line in answer.text.trim().lines() {
        writeln!(page, "> {line}").ok();
    }
    writeln!(page).ok();
}

fn metrics(answers: &[Answer]) -> Metrics {
    let variety = Variety::of(answers.iter().map(|answer| answer.text.as_str()));
    let n = answers.len().max(1) as f64;
    let n_ended = answers
        .iter()
        .filter(|answer| answer.end == End::Stop)
        .count();
    let n_tokens: usize = answers.iter().map(|answer| answer.n_tokens).sum();
    Metrics::default()
        .count("answers", answers.len() as u64)
        .number("tokens_per_answer", n_tokens as f64 / n)
        .number("end_rate", n_ended as f64 / n)
        .number("distinct_1", variety.distinct_1)
        .number("distinct_2", variety.distinct_2)
        .number("repetition", variety.repetition)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;
    use tinylm_pipeline::{
        Event,
        testing::{Outcome, StageTest},
    };

    use super::*;
    use crate::shared::speak::fixture::{config, write_model};

    const FOUR: &str = "{prompts: ['how are you ?', 'hi'], samples: 2, max_tokens: 12, seed: 5}";

    fn model() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_model(&dir.path().join("model"), &config());
        dir
    }

    fn sample(dir: &Path, settings: &str) -> Result<Outcome, StageError> {
        StageTest::new(dir)
            .input("model", &dir.join("model"))
            .run::<Sample>(settings)
    }

    fn read(outcome: &Outcome, name: &str) -> String {
        fs::read_to_string(outcome.out.join(name)).unwrap()
    }

    #[test]
    fn each_prompt_is_answered_as_often_as_asked() {
        let dir = model();
        let outcome = sample(dir.path(), FOUR).unwrap();
        let text = read(&outcome, "samples.jsonl");
        let rows: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let asked: Vec<_> = rows
            .iter()
            .map(|row| (row["prompt"].as_str().unwrap(), row["sample"].clone()))
            .collect();
        assert_eq!(
            asked,
            [
                ("how are you ?", json!(0)),
                ("how are you ?", json!(1)),
                ("hi", json!(0)),
                ("hi", json!(1))
            ]
        );
        let told = outcome.events.iter().filter_map(|event| match event {
            Event::Sample {
                step: None,
                prompt,
                text,
            } => Some((prompt.clone(), text.clone())),
            _ => None,
        });
        let written = rows.iter().map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("prompt"), text("text"))
        });
        assert_eq!(told.collect::<Vec<_>>(), written.collect::<Vec<_>>());
        assert_eq!(read(&outcome, "samples.md").matches("## ").count(), 2);
        assert_eq!(outcome.metrics.get("answers"), Some(4.0));
    }

    #[test]
    fn the_same_recipe_gives_the_same_bytes_and_another_seed_others() {
        let dir = model();
        let first = read(&sample(dir.path(), FOUR).unwrap(), "samples.jsonl");
        let again = read(&sample(dir.path(), FOUR).unwrap(), "samples.jsonl");
        assert_eq!(first, again);
        let other = read(
            &sample(dir.path(), &FOUR.replace("seed: 5", "seed: 6")).unwrap(),
            "samples.jsonl",
        );
        assert_ne!(first, other);
    }

    #[test]
    fn prompts_come_from_a_file_too() {
        let dir = model();
        let path = dir.path().join("prompts.txt");
        fs::write(&path, "one\r\n\ntwo\n").unwrap();
        let bare = StageTest::new(dir.path()).input("model", &dir.path().join("model"));
        let test = bare.clone().local_file("prompts_file", &path);
        let settings = "{prompts: [zero], prompts_file: prompts.txt, max_tokens: 2}";
        let outcome = test.run::<Sample>(settings).unwrap();
        let text = read(&outcome, "samples.jsonl");
        let prompts = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["prompt"].clone());
        assert_eq!(prompts.collect::<Vec<_>>(), ["zero", "one", "two"]);

        fs::write(&path, b"fine\n\xff").unwrap();
        let error = test.run::<Sample>(settings).unwrap_err();
        assert!(
            error.message.contains("changed while it was read"),
            "{error}"
        );
        let test = bare.local_file("prompts_file", &path);
        let error = test.run::<Sample>(settings).unwrap_err();
        assert_eq!(error.message, "`prompts.txt` is not UTF-8 at byte 5");
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let dir = model();
        let message = |settings: &str| sample(dir.path(), settings).unwrap_err().message;
        assert_eq!(message("{}"), "`prompts`: there is nothing to answer");
        assert_eq!(
            message("{prompts: [a], samples: 0}"),
            "`samples`: must be at least 1"
        );
        assert!(
            message("{prompts: [a], temperature: -1}")
                .contains("`temperature` is -1, it must be 0 or more")
        );
        assert!(message("{prompts: [a], temperature: .nan}").contains("temperature"));
        // Above the vocabulary is all of it.
        sample(dir.path(), "{prompts: [a], top_k: 100000, max_tokens: 2}").unwrap();
    }

    #[test]
    fn what_is_no_model_fails_for_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("model")).unwrap();
        let error = sample(dir.path(), "{prompts: [a]}").unwrap_err();
        assert!(error.is_final);
        assert!(
            error
                .message
                .ends_with("is no model: it has no `tinylm.json`"),
            "{}",
            error.message
        );
    }
}
