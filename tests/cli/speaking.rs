//! Using a model: `sample` and `chat`, on a terminal and off it, with good input and bad.

use std::{ffi::OsStr, fs, io::Write, os::unix::ffi::OsStrExt, process::Stdio};

use serde_json::{Value, json};

use crate::{
    harness::{Output, Project},
    skipped::skipped,
    terminal::{CTRL_C, CTRL_D, Terminal},
};

/// A model that has seen little and says much: what it says does not matter here.
const TALKER: &str = "\
name: talker
stages:
  rows:
    kind: download
    with:
      rows:
        - { prompt: \"how are you ?\", response: \"i am fine . and you ?\" }
        - { prompt: \"what is your name ?\", response: \"my name is tiny .\" }
  chat: { kind: normalize, inputs: [rows] }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, d_model: 32, n_heads: 2, n_layers: 1, d_ff: 64, context: 64 }
      train: { steps: 2, batch: 2, validate_every: 0 }
";

/// A project with a trained model, as a run and as a folder.
pub(crate) fn talker() -> Project {
    talker_that_reads(64)
}

/// The same with room for longer dialogues.
pub(crate) fn talker_that_reads(context: usize) -> Project {
    let project = Project::new();
    let context = format!("context: {context}");
    project.write("talker.yaml", &TALKER.replace("context: 64", &context));
    project.tinylm("run talker.yaml").success();
    copy_model(&project, "model");
    project
}

pub(crate) fn copy_model(project: &Project, name: &str) {
    let to = project.path(name);
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(project.artifact_folder("model")).unwrap() {
        let file = entry.unwrap();
        let bytes = fs::read(file.path()).unwrap();
        fs::write(to.join(file.file_name()), bytes).unwrap();
    }
}

/// The model in a terminal, its first prompt on the screen.
fn chat(project: &Project, flags: &[&str]) -> Option<Terminal> {
    let args = [&["chat", "model"], flags].concat();
    let Some(mut terminal) = Terminal::open(&project.command(&args)) else {
        skipped("there is no `script` to make a terminal with");
        return None;
    };
    terminal.wait_for("(talking to `model`: the weights of the last step, 2)");
    terminal.wait_for("(/help lists the commands, /quit leaves)");
    terminal.wait_for("> ");
    Some(terminal)
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let project = talker();
    let Some(mut chat) = chat(&project, &["--nonstop", "--predict", "-1"]) else {
        return;
    };
    chat.enter("how are you ?");
    // It has no end, so it is still coming, and the context is outgrown long since.
    chat.wait_for_bytes(2_000);
    chat.press(CTRL_C);
    chat.wait_for("(the answer outgrew the model's context: the oldest is forgotten)\n");
    chat.wait_for("(stopped)\n");
    chat.wait_for("> ");

    chat.enter("/length 5");
    chat.wait_for("(answers have at most 5 tokens)\n");
    // Words typed before the prompt is there would be echoed twice.
    chat.wait_for("> ");
    chat.enter("and now ?");
    let answered = chat.wait_for("\n> ");
    assert!(!answered.contains("(stopped)"), "{answered}");

    // At the prompt there is nothing to stop: it stays.
    chat.press(CTRL_C);
    chat.wait_for("(/quit leaves)\n");
    chat.wait_for("> ");
    let raw = chat.raw();
    assert!(raw.contains("\x1b[1;36m> \x1b[0m"), "the prompt stands out");
    assert!(
        raw.contains("\x1b[2m(stopped)\x1b[0m"),
        "remarks stand back"
    );
    chat.press(CTRL_D);
    assert_eq!(chat.end(), 0);
}

#[test]
fn a_conversation_is_steered_saved_and_begun_anew() {
    let project = talker();
    let Some(mut chat) = chat(&project, &["--seed", "1"]) else {
        return;
    };
    let said = [
        ("/help", "/retry        answer the last turn again"),
        ("/retry", "there is no turn to answer yet"),
        ("/temp 0.5", "(the temperature is 0.5)"),
        ("temp 0.7", "(the temperature is 0.7)"),
        ("/temp NaN", "`temperature` is NaN, it must be 0 or more"),
        ("/temp hot", "say it like `/temp 0.8`"),
        ("/temp", "(the temperature is 0.7)"),
        (
            "/top-p 0.5",
            "(choosing among the most likely tokens that add up to 0.5)",
        ),
        ("/seed 7", "(the seed is 7)"),
        ("/top-k 5", "(choosing among the 5 most likely tokens)"),
        ("/length 0", "say it like `/length 256`"),
        ("length 9", "(answers have at most 9 tokens)"),
        ("/sing", "there is no `/sing`; /help lists the commands"),
        (
            "/system be kind",
            "(said before the first turn from now on)",
        ),
    ];
    for (line, answer) in said {
        chat.enter(line);
        chat.wait_for(answer);
        chat.wait_for("\n> ");
    }
    let saved = |chat: &mut Terminal, name: &str| -> Vec<(String, String)> {
        chat.enter(&format!("/save {name}"));
        chat.wait_for(&format!("(saved to `{name}`)\n"));
        chat.wait_for("> ");
        let dialogue: Value = serde_json::from_str(&project.read(name)).unwrap();
        let turns = dialogue["messages"].as_array().unwrap().iter();
        let text = |turn: &Value, field: &str| turn[field].as_str().unwrap().to_owned();
        turns
            .map(|turn| (text(turn, "role"), text(turn, "content")))
            .collect()
    };
    chat.enter("how are you ?");
    chat.wait_for("\n> ");
    let first = saved(&mut chat, "first.json");
    assert_eq!(first[0], ("system".to_owned(), "be kind".to_owned()));
    assert_eq!(first[1], ("user".to_owned(), "how are you ?".to_owned()));
    assert_eq!(first[2].0, "assistant");

    chat.enter("/retry");
    chat.wait_for("\n> ");
    let again = saved(&mut chat, "again.json");
    assert_eq!(again[..2], first[..2]);
    assert_ne!(again[2], first[2], "in other words");

    let before = project.read("first.json");
    chat.enter("/save first.json");
    chat.wait_for("`first.json` is there already; `/save! first.json` writes over it\n");
    chat.wait_for("> ");
    assert_eq!(project.read("first.json"), before);

    chat.enter("/reset");
    chat.wait_for("(a new conversation)\n");
    chat.wait_for("> ");
    assert_eq!(saved(&mut chat, "empty.json"), first[..1]);
    chat.enter("how are \\");
    chat.wait_for("\n. ");
    chat.enter("you ?");
    chat.wait_for("\n> ");
    assert_eq!(saved(&mut chat, "lines.json")[1].1, "how are \nyou ?");
    chat.enter("##");
    assert_eq!(chat.end(), 0);

    // Lines are remembered from one conversation to the next.
    assert!(
        project
            .read(".tinylm/chat_history")
            .contains("how are you ?")
    );
}

#[test]
fn answers_end_at_the_edge_of_the_terminal() {
    let project = talker();
    let flags = ["--nonstop", "--predict", "300", "--seed", "3"];
    let Some(mut chat) = chat(&project, &flags) else {
        return;
    };
    chat.enter("how are you ?");
    let answered = chat.wait_for("\n> ");
    let columns = answered.lines().map(tinylm_reports::width).max();
    assert!(columns <= Some(80), "{answered}");
    assert!(answered.lines().count() > 5, "{answered}");
}

#[test]
fn of_two_models_the_last_is_taken_and_the_screen_says_how_to_take_the_other() {
    let project = Project::new();
    let two = "  more: { kind: finetune, inputs: { model: model, shards: shards }, with: { train: { steps: 1, validate_every: 0 } } }\n";
    project.write("talker.yaml", &format!("{TALKER}{two}"));
    project.tinylm("run talker.yaml").success();
    let run = project.newest();
    let sampled = project.tinylm("sample @last --prompt hi -n 4").success();
    let told = format!(
        "note: `more` of {run} is taken; the run has others: `tinylm sample {run}/model`\n"
    );
    assert_eq!(sampled.stderr, told);
    let named = project.tinylm(&format!("sample {run}/model --prompt hi -n 4"));
    assert_eq!(named.success().stderr, "");
    let Some(mut chat) = Terminal::open(&project.command(&["chat", "@last"])) else {
        skipped("there is no `script` to make a terminal with");
        return;
    };
    chat.wait_for(&format!(
        "(talking to `more` of {run}: the weights of the last step, 1)"
    ));
    chat.wait_for(&format!("(the run has others: `tinylm chat {run}/model`)"));
    chat.wait_for("> ");
    chat.press(CTRL_D);
    assert_eq!(chat.end(), 0);
}

#[test]
fn weights_of_the_last_step_are_taken_where_they_are_asked_for() {
    let project = talker();
    fs::remove_file(project.path("model/last.safetensors")).unwrap();
    let best = "sample model --prompt hi -n 4 --weights best";
    project.tinylm(best).success();
    let last = project.tinylm("sample model --prompt hi -n 4 --weights last");
    let refused = last.failure(2);
    assert!(
        refused.stderr.contains("has no `last.safetensors`"),
        "{refused}"
    );
    let stages = project.tinylm("stages evaluate").success();
    assert!(
        stages.stdout.contains("weights: best | last = \"best\""),
        "{stages}"
    );
}

#[test]
fn a_stage_that_makes_no_model_is_told_by_what_it_makes() {
    let project = talker();
    let refused = project.tinylm("chat @last/chat --prompt hi").failure(2);
    assert!(
        refused.stderr.contains("makes documents, not a model"),
        "{refused}"
    );
    assert!(
        refused.stderr.contains("help: its models: `model`"),
        "{refused}"
    );
}

#[test]
fn the_oldest_turns_leave_a_full_context_and_the_screen_says_so() {
    let project = talker();
    let Some(mut chat) = chat(&project, &["--length", "8", "--nonstop"]) else {
        return;
    };
    let mut told = String::new();
    for _ in 0..6 {
        chat.enter("what is your name ?");
        told.push_str(&chat.wait_for("\n> "));
    }
    let left_out: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("no longer fit the model's context; left out: "))
        .map(|(_, n)| n.trim_end_matches(')'))
        .collect();
    assert!(left_out.starts_with(&["2", "4"]), "{told}");
    chat.enter(&"many words ".repeat(40));
    chat.wait_for("(your turn is too long: ");
    chat.wait_for("\n> ");
    chat.enter("/quit");
    assert_eq!(chat.end(), 0);
}

/// Runs `tinylm` with some bytes on standard input.
fn fed(project: &Project, args: &str, input: &[u8]) -> Output {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may refuse its arguments without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    project.wait(child)
}

#[test]
fn off_a_terminal_each_line_is_a_turn_and_only_answers_are_printed() {
    let project = talker();
    let script = b"/length 4\nhow are you ?\nand you ?\n/save talk.json\nquit\nnever read\n";
    let talk = fed(&project, "chat model --temp 0", script).success();
    assert_eq!(talk.stdout.lines().count(), 2, "{talk}");
    assert!(talk.stderr.contains("(saved to `talk.json`)"), "{talk}");
    assert_eq!(project.read("talk.json").matches("\"role\"").count(), 4);

    let once = fed(&project, "chat model --temp 0 -n 4 --prompt hi", b"").success();
    assert_eq!(once.stdout.lines().count(), 1, "{once}");

    let bad = fed(&project, "chat model", b"\xff\n").failure(2);
    assert!(bad.stderr.contains("standard input is not UTF-8"), "{bad}");
}

#[test]
fn a_model_of_an_earlier_version_still_speaks() {
    let project = talker();
    copy_model(&project, "old");
    let said = project.tinylm("sample old -p hi -n 8 --seed 3").success();
    let chatted = fed(&project, "chat old -n 8 --seed 3", b"hi\n").success();
    let file = |name: &str| project.path("old").join(name);
    fs::rename(file("tinylm.json"), file("config.json")).unwrap();
    let again = project.tinylm("sample old -p hi -n 8 --seed 3").success();
    assert_eq!(again.stdout, said.stdout);
    let again = fed(&project, "chat old -n 8 --seed 3", b"hi\n").success();
    assert_eq!(again.stdout, chatted.stdout);
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let project = talker();
    let broken = |name: &str, file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        copy_model(&project, name);
        let path = project.path(name).join(file);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    };
    let replaced = |old: &'static str, new: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(old), "{text}");
            text.replace(old, new).into_bytes()
        }
    };
    let halved = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    broken("short-weights", "model.safetensors", &halved);
    broken("short-config", "tinylm.json", &halved);
    broken("short-tokenizer", "tokenizer.json", &halved);
    broken(
        "no-heads",
        "tinylm.json",
        &replaced(r#""n_heads": 2"#, r#""n_heads": 0"#),
    );
    broken(
        "wider",
        "tinylm.json",
        &replaced(r#""d_model": 32"#, r#""d_model": 64"#),
    );
    broken(
        "deeper",
        "tinylm.json",
        &replaced(r#""n_layers": 1"#, r#""n_layers": 2"#),
    );
    broken("huge", "tinylm.json", &|bytes| {
        let wide = replaced(r#""d_model": 32"#, r#""d_model": 65536"#)(bytes);
        replaced(r#""n_layers": 1"#, r#""n_layers": 65536"#)(wide)
    });
    broken("foreign", "tinylm.json", &|_| {
        br#"{ "architectures": ["LlamaForCausalLM"], "hidden_size": 32 }"#.to_vec()
    });
    // The tokenizer of an experiment with fewer words, then the first experiment again.
    copy_model(&project, "other-words");
    let fewer = "run talker.yaml -S tokens.vocab_size=262 --until tokens";
    project.tinylm(fewer).success();
    for file in ["tokenizer.json", "generation.json"] {
        let text = project.artifact("tokens", file);
        project.write(&format!("other-words/{file}"), &text);
    }
    project.tinylm("run talker.yaml").success();
    fs::create_dir(project.path("empty")).unwrap();
    project.write("notes.txt", "not a model");

    for (model, complaint) in [
        ("nowhere", "no run is called `nowhere`"),
        ("nowhere", "`nowhere` is no folder either"),
        ("./no/where", "there is no folder `./no/where`"),
        ("@last/tokens", "`tokens` of"),
        ("@last/modle", "did you mean `model`?"),
        (
            "notes.txt",
            "`notes.txt` is a file, and a model is a folder",
        ),
        ("empty", "is no model: it has no `tinylm.json`"),
        (
            "short-weights",
            "model.safetensors` is damaged or cut short",
        ),
        ("short-config", "tinylm.json` does not describe a model"),
        ("short-tokenizer", "cannot parse"),
        ("no-heads", "`n_heads` must be at least 1"),
        ("wider", "the configuration needs"),
        ("deeper", "is missing from the weights"),
        ("huge", "the configuration needs"),
        (
            "foreign",
            "tinylm.json` does not describe a model of this program",
        ),
        ("other-words", "they do not belong together"),
    ] {
        for command in ["sample", "chat"] {
            let refused = fed(&project, &format!("{command} {model} --prompt hi"), b"");
            let refused = refused.failure(2);
            assert!(refused.stderr.contains(complaint), "{model}: {refused}");
            assert_eq!(refused.stdout, "", "{model}");
        }
    }

    let artifact = project.artifact_folder("model");
    fs::remove_dir_all(artifact).unwrap();
    let gone = project.tinylm("sample @last --prompt hi").failure(2);
    assert!(gone.stderr.contains("is no longer in the store"), "{gone}");
}

#[test]
fn prompts_and_settings_that_cannot_be_are_refused_and_the_rest_makes_sense() {
    let project = talker();
    fs::write(project.path("bad.txt"), b"fine\nnot \xff fine\n").unwrap();
    project.write("blank.txt", "\n\n");
    for (flags, complaint) in [
        (
            "--prompt hi --temp NaN",
            "`temperature` is NaN, it must be 0 or more",
        ),
        (
            "--prompt hi --temp -1",
            "`temperature` is -1, it must be 0 or more",
        ),
        (
            "--prompt hi --temp inf",
            "`temperature` is inf, it must be 0 or more",
        ),
        (
            "--prompt hi --top-p 1.5",
            "`top_p` is 1.5, it must be between 0 and 1",
        ),
        (
            "--prompt hi --min-p NaN",
            "`min_p` is NaN, it must be between 0 and 1",
        ),
        (
            "--prompt hi --repeat-penalty 0",
            "`repeat_penalty` is 0, it must be above 0",
        ),
        ("--prompt hi --top-k -1", "'-1'"),
        ("--prompt hi --samples 0", "it must be at least 1"),
        ("--prompt hi --predict 0", "it must be at least 1"),
        ("--prompt hi --threads 0", "it must be at least 1"),
        ("--prompt hi --output no/where.txt", "`no/where.txt`"),
        ("--file bad.txt", "`bad.txt` is not UTF-8 at byte 9"),
        ("--file blank.txt", "there is no prompt"),
        ("--file nothing.txt", "`nothing.txt`"),
        ("", "there is no prompt"),
    ] {
        let refused = project.tinylm(&format!("sample model {flags}")).failure(2);
        assert!(refused.stderr.contains(complaint), "{flags}: {refused}");
        assert_eq!(refused.stdout, "", "{flags}");
    }
    let bad = fed(&project, "sample model", b"caf\xe9").failure(2);
    assert!(
        bad.stderr
            .contains("`standard input` is not UTF-8 at byte 3"),
        "{bad}"
    );

    let mut command = project.command(&["sample", "model", "--prompt"]);
    let refused = command.arg(OsStr::from_bytes(b"caf\xe9")).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("invalid UTF-8"));

    // A turn may be empty; the beginning of a text cannot.
    let words = ["sample", "model", "--prompt", "", "-n", "3"];
    project.tinylm_words(&words).success();
    let refused = project
        .tinylm_words(&[&words[..], &["--text"]].concat())
        .failure(2);
    assert!(
        refused.stderr.contains("the prompt has no tokens"),
        "{refused}"
    );

    // Cold is always the same, and more candidates than there are tokens are all of them.
    let greedy = |flags: &str| {
        let args = format!("sample model --prompt hi -n 8 --nonstop {flags}");
        project.tinylm(&args).success().stdout
    };
    assert_eq!(greedy("--temp 0 --seed 1"), greedy("--temp 0 --seed 2"));
    assert_eq!(
        greedy("--seed 7 --top-k 0 --top-p 1 --min-p 0"),
        greedy("--seed 7 --top-k 1000000 --top-p 1 --min-p 0")
    );

    let long = "many words ".repeat(40);
    let cropped = project.tinylm_words(&["sample", "model", "--prompt", &long, "-n", "3"]);
    let cropped = cropped.success();
    assert!(
        cropped.stderr.contains("note: the prompt is too long"),
        "{cropped}"
    );
}

#[test]
fn the_spellings_of_the_five_systems_mean_the_same_and_are_not_shown() {
    let project = talker();
    project.write("prompts.txt", "hi\nhow are you ?\n");
    let ours = "--temperature 0.9 --top-k 200 --top-p 1 --min-p 0 --predict 12 --nonstop";
    let answered = |flags: &str| {
        let args = format!("sample model --seed 3 {flags}");
        project.tinylm(&args).success().stdout
    };
    let wanted = answered(&format!("{ours} --file prompts.txt"));
    for theirs in [
        "--temp 0.9 --top_k 200 --top_p 1 --min_p 0 --max_tokens 12 --non_stop --prompt_file prompts.txt",
        "--Temp 0.9 --Top_K 200 --top-p 1 --min-p 0 --max_new_tokens 12 --nonstop --prompt-file prompts.txt",
        "--temp 0.9 --topk 200 --top-p 1 --min-p 0 --n-predict 12 --ignore-eos --dtype f32 --file prompts.txt",
    ] {
        assert_eq!(answered(theirs), wanted, "{theirs}");
    }
    for command in ["sample", "chat"] {
        let help = project.tinylm(&format!("{command} --help")).success();
        for hidden in ["--temp ", "top_k", "Top_K", "max_tokens", "prompt_file"] {
            assert!(!help.stdout.contains(hidden), "{hidden} is shown: {help}");
        }
    }
}

#[test]
fn answers_come_as_text_as_json_and_into_a_file() {
    let project = talker();
    project.write("prompts.txt", "hi\nhow are you ?\n");
    let flags = "--file prompts.txt --samples 2 --predict 6 --nonstop --seed 5";
    let json = project.tinylm(&format!(
        "sample model {flags} --format json --show-steps 3"
    ));
    let rows: Vec<Value> = serde_json::from_str(&json.success().stdout).unwrap();
    let asked: Vec<_> = rows
        .iter()
        .map(|row| (row["prompt"].as_str().unwrap(), row["sample"].clone()))
        .collect();
    assert_eq!(
        asked,
        [
            ("hi", json!(0)),
            ("hi", json!(1)),
            ("how are you ?", json!(0)),
            ("how are you ?", json!(1))
        ]
    );
    for row in &rows {
        assert_eq!(
            (&row["tokens"], &row["end"]),
            (&json!(6), &json!("length")),
            "{row}"
        );
        let steps = row["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 6);
        for step in steps {
            let candidates = step["candidates"].as_array().unwrap();
            let probabilities: Vec<f64> = candidates
                .iter()
                .map(|candidate| candidate["probability"].as_f64().unwrap())
                .collect();
            assert_eq!(probabilities.len(), 3);
            assert!(probabilities.is_sorted_by(|a, b| a >= b), "{step}");
            assert!(probabilities.iter().sum::<f64>() <= 1.0 + 1e-6, "{step}");
        }
    }

    // The same answers, each behind its prompt, with nothing in them that moves the cursor.
    let text = project
        .tinylm(&format!("sample model {flags}"))
        .success()
        .stdout;
    let mut wanted = String::new();
    for row in &rows {
        let answer = row["text"].as_str().unwrap();
        let answer = tinylm_reports::clean_lines(answer);
        wanted.push_str(&format!(
            "> {}\n{answer}\n\n",
            row["prompt"].as_str().unwrap()
        ));
    }
    assert_eq!(text, wanted);
    let quiet = project
        .tinylm(&format!("sample model {flags} --output answers.txt"))
        .success();
    assert_eq!(
        (quiet.stdout.as_str(), project.read("answers.txt")),
        ("", text)
    );

    let steps = project
        .tinylm("sample model --prompt hi --temp 0 --predict 4 --nonstop --show-steps 2")
        .success();
    let lines: Vec<&str> = steps.stdout.lines().take(4).collect();
    for (idx, line) in lines.iter().enumerate() {
        assert!(
            line.trim_start().starts_with(&format!("{}  ", idx + 1)),
            "{steps}"
        );
        assert_eq!(
            (line.matches('%').count(), line.matches('*').count()),
            (2, 1),
            "{steps}"
        );
    }
}

#[test]
fn an_answer_is_printed_while_it_comes() {
    let project = talker();
    let mut command =
        project.command(&["sample", "model", "--prompt", "hi", "--nonstop", "-n", "-1"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut screen = child.stdout.take().unwrap();
    // It has no end, so what is read here came before one.
    let mut beginning = [0; 4_000];
    std::io::Read::read_exact(&mut screen, &mut beginning).unwrap();
    drop(screen);
    // Nobody reads on, and that is no mistake.
    assert_eq!(project.wait(child).code, Some(0));
}

#[test]
fn a_gpu_that_cannot_be_had_is_told_by_whatever_would_read_on_it() {
    let project = talker();
    // No machine has so many of them.
    let far = "--device cuda:63";
    for command in [
        format!("sample model {far} -p hi"),
        format!("chat model {far} -p hi"),
        format!("serve model {far} --port 0"),
    ] {
        let output = project.tinylm(&command).failure(2);
        let words = "error: the model cannot be read on the GPU: ";
        assert!(output.stderr.starts_with(words), "{output}");
        let help = "help: `--device cpu` reads it here; `tinylm doctor` tells of the GPU";
        assert!(output.stderr.contains(help), "{output}");
    }
    project.tinylm("sample model --device cpu -p hi").success();
}
