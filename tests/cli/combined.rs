//! The first command of all, `tinylm run experiments/combined_41m.yaml`, with the file as it ships:
//! every source of it in its real layout and under its real name, some dialogues long.
//!
//! Not a smoke variant: nothing in the file is changed but the address of GitHub, which is a variable
//! of it, so that what a newcomer types is what is tested.

use std::{fs, io::Write, path::Path, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use serde_json::{Value, json};

use crate::{
    harness::{Output, Project},
    hub::Hub,
};

const GENERAL: &str = "datasets/cosmosai471/General_Conversation_Mixed_Dataset";
const EVERYDAY: &str = "datasets/HuggingFaceTB/everyday-conversations-llama3.1-2k";
const TINYCHAT: &str = "datasets/starhopp3r/TinyChat";
const DAILY: &str = "datasets/roskoN/dailydialog";
const FILE: &str = "experiments/combined_41m.yaml";

#[test]
fn the_combined_file_runs_as_it_ships() {
    let hub = hub();
    let project = project();
    // Whoever has no key is told what to type, and everything else is there by then.
    let nobody = run(&project, &hub, &["run", FILE, "--keep-going"], None).failure(1);
    let told = format!(
        "or leave out what failed: `tinylm run {FILE} -S vars.github={} -S without=simple`",
        hub.address()
    );
    assert!(nobody.stderr.contains(&told), "{told}\n{nobody}");

    let run = run(&project, &hub, &["run", FILE], Some("me")).success();
    let listed = project.tinylm("runs --json").success().stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let metrics = &listed[0]["metrics"];
    let documents = |stage: &str| {
        metrics[format!("{stage}.documents")]
            .as_f64()
            .unwrap_or(0.0)
    };
    // Neighbouring turns of the three splits, four dialogues of four turns each.
    assert_eq!(documents("daily_chat"), 36.0);
    assert_eq!(documents("general_chat"), 3.0);
    assert_eq!(documents("simple_chat"), 4.0);
    assert_eq!(documents("shipped_chat"), 58.0);
    // Six lines in twos.
    assert_eq!(documents("everyday_chat"), 6.0);
    assert_eq!(documents("conv_ai_chat"), 2.0);
    assert_eq!(documents("conv_ai_2_chat"), 6.0);
    // A request, its question, the answer, of twelve rows.
    assert_eq!(documents("conv_ai_3_chat"), 24.0);
    assert_eq!(documents("tinychat_chat"), 15.0);

    let shown = |stage: &str| {
        project
            .tinylm(&format!("show @last/{stage}"))
            .success()
            .stdout
    };
    let general = shown("general_chat");
    assert!(
        general.contains("i am assistant , nice to meet you !"),
        "{general}"
    );
    let said = general.split("documents, ").nth(1).unwrap();
    assert!(!said.contains("luna"), "{general}");
    let everyday = shown("everyday_chat");
    assert!(everyday.contains("hi , how are you ?"), "{everyday}");
    assert!(!everyday.contains("user :"), "{everyday}");
    assert!(run.stdout.contains("perplexity: perplexity "), "{run}");
    assert!(run.stdout.contains("answers> how are you ?\n"), "{run}");
    assert!(run.stdout.contains("  ... and 10 more"), "{run}");
}

#[test]
fn a_source_that_is_left_out_costs_what_reads_it_and_nothing_else() {
    let hub = hub();
    let project = project();
    let until = ["run", FILE, "--until", "clean"];
    run(&project, &hub, &until, Some("me")).success();
    let without = [&until[..], &["-S", "without=[simple, tinychat]"]].concat();
    let left = run(&project, &hub, &without, None).success();
    for line in [
        "left out simple          `without` names it\n",
        "left out tinychat        `without` names it\n",
        "left out simple_chat     its `sources` is left out\n",
        "left out tinychat_chat   its `sources` is left out\n",
    ] {
        assert!(left.stdout.contains(line), "{line}{left}");
    }
    let made: Vec<&str> = left
        .stdout
        .lines()
        .filter(|line| line.starts_with("made"))
        .collect();
    assert_eq!(made.len(), 1, "{left}");
    assert!(made[0].contains("clean"), "{left}");
}

/// The file in a folder of its own, with the one source that ships.
fn project() -> Project {
    let project = Project::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [FILE, "data/dialogues.txt"] {
        project.write(name, &fs::read_to_string(root.join(name)).unwrap());
    }
    project
}

fn run(project: &Project, hub: &Hub, args: &[&str], user: Option<&str>) -> Output {
    let github = format!("vars.github={}", hub.address());
    let mut command = project.command(args);
    command.args(["-S", &github]);
    command.env_remove("TINYLM_OFFLINE");
    command.env("HF_ENDPOINT", hub.address());
    command.env("KAGGLE_API_ENDPOINT", hub.address());
    if let Some(user) = user {
        command
            .env("KAGGLE_USERNAME", user)
            .env("KAGGLE_KEY", "secret");
    }
    project.output(&mut command)
}

/// All that the file names, each as its origin has it.
fn hub() -> Hub {
    let hub = Hub::start();
    for split in ["train", "validation", "test"] {
        hub.file(DAILY, &format!("{split}.zip"), &daily_zip(split), true);
    }
    hub.file(DAILY, "dailydialog.py", b"import datasets\n", false);
    let general = json!([
        { "text": "Hello", "response": "Hi there! How can I help you today?" },
        { "text": "Who are you?", "response": "I am Luna, nice to meet you!" },
        { "text": "luna, tell me a joke", "response": "Why did the hen cross the road? LUNA knows." },
    ]);
    hub.file(
        GENERAL,
        "general_conversation.json",
        general.to_string().as_bytes(),
        false,
    );
    hub.page(
        "/api/v1/datasets/view/grafstor/simple-dialogs-for-chatbot",
        br#"{"currentVersionNumber": 2}"#,
    );
    let pairs = b"hi, how are you doing?\ti'm fine. how about yourself?\n\
        i'm fine. how about yourself?\ti'm pretty good. thanks for asking.\n\
        no problem. so how have you been?\ti've been great. what about you?\n\
        what school do you go to?\ti go to pcc.\n";
    hub.page(
        "/api/v1/datasets/download/grafstor/simple-dialogs-for-chatbot",
        &zip(&[("dialogs.txt", pairs)]),
    );
    hub.file(
        EVERYDAY,
        "data/train_sft-00000-of-00001.parquet",
        &everyday(),
        true,
    );
    let github = "/DeepPavlov/convai/raw/master";
    hub.page(&format!("{github}/2017/data/train_full.json"), &conv_ai());
    hub.page(
        &format!("{github}/2018/data/summer_wild_evaluation_dialogs.json"),
        &conv_ai_2(),
    );
    for (name, rows) in [("train", 11), ("dev", 1)] {
        let path = format!("/aliannejadi/ClariQ/raw/master/data/{name}.tsv");
        hub.page(&path, &clariq(rows, name));
    }
    let tinychat: String = (0..3)
        .map(|n| {
            format!(
                "[INST] What is number {n}? [/INST] It is a number. [INST] Is it {n} times nice? \
                 [/INST] Yes, very {n}. [INST] Bye {n}! [/INST] See you soon, {n}.\n"
            )
        })
        .collect();
    hub.file(TINYCHAT, "tinychat.txt", tinychat.as_bytes(), true);
    hub.file("t5-small", "tokenizer.json", tokenizer().as_bytes(), false);
    // A commit is what it holds, so no two repositories have one in common.
    let repos = [DAILY, GENERAL, EVERYDAY, TINYCHAT, "t5-small"];
    for (n, repo) in repos.into_iter().enumerate() {
        hub.commit(repo, &format!("{n:040x}"));
    }
    hub
}

/// A split as its authors zipped it: texts, and labels that are no text.
fn daily_zip(split: &str) -> Vec<u8> {
    let dialogues: String = (0..4)
        .map(|n| {
            format!(
                "Say , Jim , how about {split} number {n} ? __eou__ You know that is tempting but is \
                 really not good for our fitness {n} . __eou__ What do you mean ? It will help us \
                 {n} times . __eou__ I guess you ’ re right {n} . __eou__\n"
            )
        })
        .collect();
    let labels = "3 4 2 2\n".repeat(4);
    let name = |sort: &str| format!("{split}/dialogues_{sort}{split}.txt");
    zip(&[
        (&name(""), dialogues.as_bytes()),
        (&name("act_"), labels.as_bytes()),
        (&name("emotion_"), labels.as_bytes()),
    ])
}

fn everyday() -> Vec<u8> {
    let completion = "User: Hi, how are you?\nAI: Hello! I'm doing well.\nUser: What is a good book for \
         a rainy day?\nAI: A mystery, perhaps.\nUser: Thanks!\nAI: You're welcome.";
    let other = completion.replace("rainy", "sunny").replace("Hi,", "Hey,");
    let texts = |texts: [&str; 2]| Arc::new(StringArray::from_iter_values(texts)) as ArrayRef;
    let table = RecordBatch::try_from_iter([
        ("topic", texts(["Books", "Books"])),
        (
            "prompt",
            texts(["Generate a dialogue", "Generate a dialogue"]),
        ),
        ("completion", texts([completion, &other])),
    ])
    .unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();
    bytes
}

fn conv_ai() -> Vec<u8> {
    let said = |who: &str, text: &str| json!({ "userId": who, "text": text, "evaluation": 0 });
    json!([{
        "dialogId": 1,
        "context": "A paragraph about rivers.",
        "users": [{ "id": "Alice", "userType": "Human" }, { "id": "Bob", "userType": "Bot" }],
        "evaluation": [{ "userId": "Alice", "quality": 3, "breadth": 2, "engagement": 4 }],
        "thread": [
            said("Alice", "Hello, have you read it?"),
            said("Bob", "Yes, rivers are long."),
            said("Alice", "How long is the longest?"),
        ],
    }])
    .to_string()
    .into_bytes()
}

fn conv_ai_2() -> Vec<u8> {
    let dialogue = |n: usize, score: Value, found: Value| {
        let turn = |idx: usize, text: String| {
            let (who, class) = [("participant2", "Human"), ("participant1", "Bot")][idx % 2];
            json!({ "id": idx, "sender": who, "text": text, "sender_class": class })
        };
        json!({
            "dialog_id": format!("0x{n}"),
            "dialog": [
                turn(0, format!("Hi! I like {n} cats.")),
                turn(1, format!("I have {n} dogs, and you?")),
                turn(2, format!("No dogs, only {n} fish.")),
                turn(3, format!("Fish are quiet friends, all {n}.")),
            ],
            "bot_profile": [["I have dogs."]],
            "user_profile": [["I like cats."]],
            "eval_score": score,
            "profile_match": found,
        })
    };
    // Both ways in which the file says that nobody judged.
    json!([
        dialogue(3, json!(4), json!(1)),
        dialogue(5, Value::Null, json!(""))
    ])
    .to_string()
    .into_bytes()
}

/// Rows, and in the training set one that needs no question and has none.
fn clariq(n_rows: usize, name: &str) -> Vec<u8> {
    let mut text =
        "topic_id\tinitial_request\ttopic_desc\tclarification_need\tfacet_id\tfacet_desc\t\
         question_id\tquestion\tanswer\n"
            .to_owned();
    for n in 0..n_rows {
        text += &format!(
            "{n}\tTell me about {name} dinosaurs {n}.\tFind dinosaurs.\t4\tF{n}\tPictures\tQ{n}\t\
             are you looking for {name} pictures {n}\tyes the {n} best {name} ones\n"
        );
    }
    if name == "train" {
        text += "99\tWhat is the height of K2?\tFind it.\t1\tF99\tHeight\tQ00001\t\t\n";
    }
    text.into_bytes()
}

/// A vocabulary of the same make as T5's, and much smaller.
fn tokenizer() -> String {
    let path = "stages/tests/fixtures/tokens/unigram.json";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    fixture["tokenizer"].as_str().unwrap().to_owned()
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
