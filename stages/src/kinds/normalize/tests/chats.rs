//! Talk in all the forms in which people keep it: it becomes dialogues, or somebody is told.

use super::*;

/// What a run said to whoever looks, warnings and all.
fn told(outcome: &Outcome) -> String {
    let told = outcome.events.iter().filter_map(|event| match event {
        Event::Note { message } => Some(message.clone()),
        Event::Warning { message } => Some(format!("warning: {message}")),
        _ => None,
    });
    told.collect::<Vec<_>>().join("\n")
}

/// An outcome, and the folder that it stands in.
struct Done(
    Outcome,
    #[expect(dead_code, reason = "kept as long as what is in it")] Corpus,
);

impl std::ops::Deref for Done {
    type Target = Outcome;

    fn deref(&self) -> &Outcome {
        &self.0
    }
}

#[track_caller]
fn run(name: &str, text: &str, settings: &str) -> Done {
    let corpus = Corpus::new(&[(name, text.as_bytes())]);
    let outcome = corpus.run(settings);
    Done(
        outcome.unwrap_or_else(|error| panic!("{name} {text}: {error:?}")),
        corpus,
    )
}

#[track_caller]
fn refused(name: &str, text: &str) -> StageError {
    let corpus = Corpus::new(&[(name, text.as_bytes())]);
    let error = corpus.run("").unwrap_err();
    assert!(error.is_final, "{error:?}");
    error
}

/// Further forms in which two turns say the same.
const FORMS: [(&str, &str, &str); 24] = [
    (
        "whatsapp",
        "a.txt",
        "15/01/2023, 14:23 - Anna: hi\n15/01/2023, 14:24 - Bob: ho\n",
    ),
    (
        "whatsapp",
        "b.txt",
        "[1/15/23, 2:23:00\u{202f}PM] Anna: hi\r\n[1/15/23, 2:24:00\u{202f}PM] Bob: ho\r\n",
    ),
    (
        "whatsapp",
        "signal.txt",
        "[2023-01-15 14:23] Anna: hi\n[2023-01-15 14:24] Me: ho\n",
    ),
    (
        "personachat",
        "train.txt",
        "1 partner's persona: i ski.\n2 hi\tho\t\tno|ho\n",
    ),
    (
        "turns",
        "slack.json",
        r#"[{"type": "message", "user": "U1", "text": "hi", "ts": "1504022400.000"}, {"type": "message", "subtype": "channel_join", "user": "U3", "text": "<@U3> has joined", "ts": "1504022401.0"}, {"type": "message", "user": "U2", "text": "ho", "ts": "1504022402.0"}]"#,
    ),
    (
        "turns",
        "result.json",
        r#"{"name": "Anna", "type": "personal_chat", "id": 1, "messages": [{"id": 1, "type": "service", "date": "2023-01-15T14:22:00", "actor": "Anna", "action": "joined", "text": ""}, {"id": 2, "type": "message", "date": "2023-01-15T14:23:00", "from": "Anna", "text": ["h", {"type": "bold", "text": "i"}]}, {"id": 3, "type": "message", "date": "2023-01-15T14:24:00", "from": "Bob", "text": "ho"}]}"#,
    ),
    (
        "turns",
        "message_1.json",
        r#"{"participants": [{"name": "Anna"}, {"name": "Bob"}], "messages": [{"sender_name": "Bob", "timestamp_ms": 1673792640000, "content": "ho"}, {"sender_name": "Anna", "timestamp_ms": 1673792580000, "content": "hi"}, {"sender_name": "Anna", "timestamp_ms": 1673792500000, "photos": [{"uri": "x.jpg"}]}], "title": "Anna"}"#,
    ),
    (
        "turns",
        "oasst.jsonl",
        "{\"message_id\": \"a\", \"parent_id\": null, \"message_tree_id\": \"a\", \"text\": \"hi\", \"role\": \"prompter\", \"rank\": null}\n{\"message_id\": \"b\", \"parent_id\": \"a\", \"message_tree_id\": \"a\", \"text\": \"hm\", \"role\": \"assistant\", \"rank\": 1}\n{\"message_id\": \"c\", \"parent_id\": \"a\", \"message_tree_id\": \"a\", \"text\": \"ho\", \"role\": \"assistant\", \"rank\": 0}\n",
    ),
    (
        "turns",
        "utterances.jsonl",
        "{\"id\": \"L2\", \"conversation_id\": \"L1\", \"text\": \"ho\", \"speaker\": \"u2\", \"reply-to\": \"L1\", \"timestamp\": null}\n{\"id\": \"L1\", \"conversation_id\": \"L1\", \"text\": \"hi\", \"speaker\": \"u0\", \"reply-to\": null, \"timestamp\": null}\n",
    ),
    (
        "turns",
        "flat.csv",
        "conversation_id,role,content\n1,user,hi\n1,assistant,ho\n",
    ),
    (
        "tree",
        "trees.jsonl",
        r#"{"message_tree_id": "a", "prompt": {"text": "hi", "role": "prompter", "replies": [{"text": "hm", "role": "assistant", "rank": 1, "replies": []}, {"text": "ho", "role": "assistant", "rank": 0, "replies": []}]}}"#,
    ),
    (
        "messages",
        "parts.jsonl",
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}, {"role": "assistant", "content": "ho"}]}"#,
    ),
    (
        "messages",
        "items.json",
        r#"[{"id": "x", "items": [{"from": "human", "value": "hi"}, {"from": "bing", "value": "ho"}]}]"#,
    ),
    (
        "messages",
        "sides.jsonl",
        r#"{"conversation": [{"human": "hi", "assistant": "ho"}]}"#,
    ),
    (
        "messages",
        "columns.jsonl",
        r#"{"messages": {"role": ["user", "assistant"], "content": ["hi", "ho"]}}"#,
    ),
    (
        "messages",
        "text.csv",
        "id,conversations\n1,\"[{\"\"from\"\": \"\"human\"\", \"\"value\"\": \"\"hi\"\"}, {\"\"from\"\": \"\"gpt\"\", \"\"value\"\": \"\"ho\"\"}]\"\n",
    ),
    (
        "utterances",
        "ultrachat.jsonl",
        r#"{"id": "0", "data": ["hi", "ho"]}"#,
    ),
    (
        "chatml",
        "a.jsonl",
        r#"{"text": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>"}"#,
    ),
    (
        "inst",
        "b.jsonl",
        r#"{"text": "<s>[INST] hi [/INST] ho </s>"}"#,
    ),
    ("eou", "c.jsonl", r#"{"text": "hi __eou__ ho __eou__"}"#),
    (
        "headings",
        "d.jsonl",
        r####"{"text": "### Human: hi### Assistant: ho"}"####,
    ),
    (
        "headings",
        "d.txt",
        "### Instruction:\nhi\n\n### Response:\nho\n",
    ),
    (
        "speakers",
        "hh.jsonl",
        r#"{"chosen": "\n\nHuman: hi\n\nAssistant: ho", "rejected": "\n\nHuman: hi\n\nAssistant: no"}"#,
    ),
    ("speakers", "hh.txt", "Human: hi\n\nAssistant: ho\n"),
];

#[test]
fn every_form_of_talk_is_recognised_and_says_the_same() {
    for (format, name, text) in FORMS {
        let outcome = run(name, text, "");
        assert_eq!(texts(&outcome), ["<user>hi<assistant>ho"], "{text}");
        assert_eq!(stats(&outcome)["files"][0]["format"], format, "{text}");
        assert_eq!(stats(&outcome)["rejected"], 0, "{text}");
        let said = format!("`{name}` is read as `{format}`: ");
        assert!(told(&outcome).contains(&said), "{}", told(&outcome));
    }
}

#[test]
fn what_became_of_all_rows_is_said_in_one_line() {
    let good = "{\"prompt\": \"a\", \"response\": \"b\"}\n".repeat(19);
    let rows = format!("{good}{{\"prompt\": null, \"response\": \"b\"}}\n");
    let corpus = Corpus::new(&[
        ("a.jsonl", rows.as_bytes()),
        ("b.jsonl", good.as_bytes()),
        ("c.txt", b"Once.\n"),
    ]);
    let outcome = corpus.run("bounds: {chars_max: 3}").unwrap();
    insta::assert_snapshot!(told(&outcome), @"2 files are read as `pairs`, `c.txt` is read as `text`: 40 rows, 1 rejected, 1 left out");
}

const TRIP: &str = "\
15/01/2023, 14:20 - Messages and calls are end-to-end encrypted.
15/01/2023, 14:21 - Anna: Shall we go?
15/01/2023, 14:21 - Anna: On Sunday

or on Monday.
15/01/2023, 14:25 - Bob: Sunday.
15/01/2023, 23:30 - Bob: <Media omitted>
15/01/2023, 23:59 - Anna: Where to?
16/01/2023, 08:10 - Bob: The lake.
16/01/2023, 08:11 - Carl: Me too!
16/01/2023, 08:12 - Bob: Fine.
17/01/2023, 12:00 - Carl: Late again.
";

#[test]
fn a_silence_ends_a_conversation_once_it_was_answered() {
    let outcome = run("chat.txt", TRIP, "");
    insta::assert_snapshot!(texts(&outcome).join("\n--\n"), @"
    <user>Shall we go?
    On Sunday

    or on Monday.<assistant>Sunday.
    --
    <user>Where to?<assistant>The lake.<user>Me too!<assistant>Fine.
    ");
    insta::assert_snapshot!(told(&outcome), @"
    the assistant is `Bob`, who wrote 3 of 8 messages; the user is `Anna`, `Carl`; `assistant: NAME` chooses another
    `chat.txt` is read as `whatsapp`: 10 rows, 0 rejected, 3 left out
    ");
    let left_out: Vec<String> = rejected(&outcome)
        .iter()
        .map(|(row, why)| format!("{row} {why}"))
        .collect();
    insta::assert_snapshot!(left_out.join("\n"), @"
    1 is the app's own
    7 is a notice in place of words
    12 nobody answers in it
    ");
}

#[test]
fn the_assistant_is_whoever_is_named() {
    let outcome = run("chat.txt", TRIP, "{assistant: Carl, pause_minutes: 10000}");
    insta::assert_snapshot!(texts(&outcome).join("\n--\n"), @"
    <user>Shall we go?
    On Sunday

    or on Monday.
    Sunday.
    Where to?
    The lake.<assistant>Me too!<user>Fine.<assistant>Late again.
    ");
    let by_hand = run(
        "chat.txt",
        TRIP,
        "{roles: {Carl: assistant}, pause_minutes: 10000}",
    );
    assert_eq!(texts(&by_hand), texts(&outcome));

    let called_like_a_role = run("chat.txt", &TRIP.replace("Carl", "Ai"), "");
    let last = texts(&called_like_a_role).pop().unwrap();
    assert!(last.ends_with("<user>Me too!<assistant>Fine."), "{last}");

    let corpus = Corpus::new(&[("chat.txt", TRIP.as_bytes())]);
    let error = corpus.run("assistant: carl").unwrap_err();
    insta::assert_snapshot!(format!("{error:?}"), @r#"StageError { message: "`assistant: carl` is nobody who speaks", cause: Some("there are `Anna`, `Bob`, `Carl`"), kept: None, help: Some("names count as they are written in the file, capitals too"), cancelled: false, is_final: true, is_damage: false }"#);
    let alone = refused(
        "chat.txt",
        &TRIP.replace("Bob", "Anna").replace("Carl", "Anna"),
    );
    insta::assert_snapshot!(format!("{alone:?}"), @r#"StageError { message: "a dialogue has two sides", cause: Some("`Anna` speaks alone"), kept: None, help: Some("`format: text` reads it as raw text"), cancelled: false, is_final: true, is_damage: false }"#);
}

#[test]
fn slacks_threads_are_conversations_of_their_own() {
    let message = |user: &str, text: &str, at: u32, thread: &str| {
        format!("{{\"user\": \"{user}\", \"text\": \"{text}\", \"ts\": \"{at}.0\"{thread}}}")
    };
    let thread = ", \"thread_ts\": \"100.0\"";
    let day = [
        message("U1", "how?", 100, thread),
        message("U1", "lunch?", 101, ""),
        message("U2", "like this", 102, thread),
        message("U2", "yes", 103, ""),
        message("U1", "thanks", 104, thread),
    ];
    let day = format!("[{}]", day.join(","));
    let users = br#"[{"id": "U1", "name": "anna"}]"#;
    let corpus = Corpus::new(&[
        ("general/2023-01-01.json", day.as_bytes()),
        ("users.json", users),
    ]);
    let outcome = corpus.run("assistant: U2").unwrap();
    let wanted = [
        "<user>how?<assistant>like this<user>thanks",
        "<user>lunch?<assistant>yes",
    ];
    assert_eq!(texts(&outcome), wanted);
}

#[test]
fn of_a_tree_every_message_is_a_document_or_on_record() {
    let row = |id: &str, parent: &str, role: &str, rank: &str| {
        format!(
            "{{\"message_id\": \"{id}\", \"parent_id\": {parent}, \"role\": \"{role}\", \"text\": \"{id}\", \"rank\": {rank}}}\n"
        )
    };
    let rows = [
        row("a", "null", "prompter", "null"),
        row("b", "\"a\"", "assistant", "1"),
        row("c", "\"b\"", "prompter", "null"),
        row("d", "\"a\"", "assistant", "0"),
        row("e", "\"d\"", "prompter", "null"),
        row("f", "\"nowhere\"", "prompter", "null"),
    ];
    let outcome = run("oasst.jsonl", &rows.concat(), "rejects_max: 0.5");
    assert_eq!(texts(&outcome), ["<user>a<assistant>d<user>e"]);
    let left: Vec<u64> = rejected(&outcome).iter().map(|(row, _)| *row).collect();
    assert_eq!(left, [6, 2, 3]);
    assert_eq!(outcome.metrics.get("rows"), Some(6.0));
}

#[test]
fn conversations_of_a_table_need_not_stand_together() {
    let said = |talk: usize, n: usize| {
        let role = ["user", "assistant"][n % 2];
        format!("{talk},{role},{talk}.{n}\n")
    };
    let rows: String = (0..4)
        .flat_map(|n| (0..3).map(move |talk| said(talk, n)))
        .collect();
    let written = normalized(
        "a.csv",
        &format!("talk,role,content\n{rows}"),
        "{columns: {conversation: talk}}",
    );
    insta::assert_snapshot!(written, @"
    <user>0.0<assistant>0.1<user>0.2<assistant>0.3
    <user>1.0<assistant>1.1<user>1.2<assistant>1.3
    <user>2.0<assistant>2.1<user>2.2<assistant>2.3
    ");
}

#[test]
fn a_third_speaker_of_a_table_is_rejected_unless_one_is_named() {
    let rows = "conversation_id,speaker,text\n1,a,hi\n1,b,ho\n2,a,hi\n2,b,ho\n2,c,hm\n";
    let outcome = run("a.csv", rows, "rejects_max: 0.7");
    assert_eq!(texts(&outcome), ["<user>hi<assistant>ho"]);
    assert_eq!(
        rejected(&outcome),
        [(4, "`c` is a third speaker".to_owned())]
    );
    let named = run("a.csv", rows, "assistant: b");
    assert_eq!(
        texts(&named),
        ["<user>hi<assistant>ho", "<user>hi<assistant>ho<user>hm"]
    );
}

#[test]
fn personas_are_system_prompts_and_silence_is_nobodys() {
    let text = "\
1 your persona: i ski.
2 your persona: i cook.
3 __SILENCE__\thello\t\ta|b
4 hi\tdo you ski?\t\ta|b
1 hi\tho
";
    insta::assert_snapshot!(normalized("train.txt", text, ""), @"
    <system>i ski.
    i cook.<assistant>hello<user>hi<assistant>do you ski?
    <user>hi<assistant>ho
    ");
}

#[test]
fn talk_that_cannot_be_put_together_is_refused() {
    for (name, text, cause, help) in [
        (
            "a.jsonl",
            "{\"role\": \"user\", \"content\": \"hi\"}\n{\"role\": \"assistant\", \"content\": \"ho\"}\n",
            "`role` says who speaks and `content` what",
            "`columns: {conversation: NAME}`",
        ),
        (
            "movie_lines.txt",
            "L1045 +++$+++ u0 +++$+++ m0 +++$+++ BIANCA +++$+++ They do not!\n",
            "Cornell's movie dialogues",
            "`utterances.jsonl`",
        ),
        (
            "question.jsonl",
            "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Write.\", \"Again.\"]}\n",
            "may be questions of one user",
            "`columns`",
        ),
    ] {
        let error = refused(name, text);
        assert!(error.cause.as_deref().unwrap().contains(cause), "{error:?}");
        assert!(error.help.as_deref().unwrap().contains(help), "{error:?}");
    }
    let question = r#"{"question_id": 81, "turns": ["hi", "ho"]}"#;
    let settings = "columns: {messages: turns}";
    assert_eq!(
        normalized("a.jsonl", question, settings),
        "<user>hi<assistant>ho"
    );
    let rows = "{\"role\": \"user\", \"content\": \"hi\"}\n{\"role\": \"assistant\", \"content\": \"ho\"}\n";
    assert_eq!(
        normalized("a.jsonl", rows, "format: turns"),
        "<user>hi<assistant>ho"
    );
    assert_eq!(normalized("a.jsonl", rows, "format: text"), "hi\nho");
}

#[test]
fn raw_text_that_looks_like_talk_is_warned_of() {
    let warned = |name: &str, text: &str| told(&run(name, text, ""));
    let sitcom = "Amanda: I baked cookies.\nJerry: Sure!\nAmanda: Tomorrow?\nJerry: Yes.\n";
    insta::assert_snapshot!(warned("samsum.txt", sitcom), @"
    warning: `samsum.txt` is read as raw text, and most of its lines begin with a name, like `Amanda:` and `Jerry:`: `{format: speakers, roles: {Amanda: user, Jerry: assistant}}` would read them as turns; `format: text` says that it is
    `samsum.txt` is read as `text`: 1 rows, 0 rejected
    ");
    let mixed = "{\"text\": \"User: hi\\nAI: ho\"}\n{\"text\": \"Once upon a time.\"}\n";
    insta::assert_snapshot!(warned("mixed.jsonl", mixed), @"
    warning: `mixed.jsonl` is read as raw text, and 50 % of its first rows hold turns (`format: speakers`); `format: text` says that it is
    `mixed.jsonl` is read as `text`: 2 rows, 0 rejected
    ");
    let tweets = "{\"user\": \"a\", \"text\": \"x\"}\n{\"user\": \"b\", \"text\": \"y\"}\n{\"user\": \"c\", \"text\": \"z\"}\n";
    insta::assert_snapshot!(warned("tweets.jsonl", tweets), @"
    warning: `tweets.jsonl` is read as raw text, and `user` says who speaks and `text` what, a turn a row: `format: turns` would put them together; `format: text` says that it is
    `tweets.jsonl` is read as `text`: 3 rows, 0 rejected
    ");
    let llama = "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>";
    insta::assert_snapshot!(warned("llama.txt", llama), @"
    warning: `llama.txt` is read as raw text, and `<|start_header_id|>` in it marks turns, in a way that no format here reads; `format: text` says that it is
    `llama.txt` is read as `text`: 1 rows, 0 rejected
    ");

    // Plays, books with an author, and what `format` says.
    let play = "First Citizen:\nBefore we proceed, hear me.\n\nAll:\nSpeak.\n";
    assert!(!warned("play.txt", play).contains("warning"));
    let books = "{\"author\": \"Poe\", \"text\": \"Once.\", \"date\": \"1845\"}\n".repeat(4);
    assert!(!warned("books.jsonl", &books).contains("warning"));
    assert!(!told(&run("samsum.txt", sitcom, "format: text")).contains("warning"));
}

#[test]
fn lists_of_one_file_are_not_merged_without_a_word() {
    let row = r#"[{"prompt": "hi", "response": "ho"}]"#;
    let text = format!("{{\"train\": {row}, \"test\": {row}}}");
    let outcome = run("a.json", &text, "");
    assert_eq!(texts(&outcome).len(), 2);
    assert!(told(&outcome).contains("warning: `a.json` holds the lists `train`, `test`"));
    let one = run(
        "a.json",
        &format!("{{\"version\": 1, \"data\": {row}}}"),
        "",
    );
    assert!(!told(&one).contains("warning"), "{}", told(&one));
}

#[test]
fn contents_of_turns_are_kept_to_the_byte() {
    let text =
        "\n\nHuman: It says:\nModel: HP 4100\n\n  and more:  \n\tend\n\nAssistant: A\n\n- b  \n- c";
    let row = serde_json::json!({ "chosen": text }).to_string();
    let wanted = "<user>It says:\nModel: HP 4100\n\n  and more:  \n\tend<assistant>A\n\n- b  \n- c";
    assert_eq!(normalized("a.jsonl", &row, ""), wanted);
    // In a text file, where a paragraph is looked at alone, a known name answers.
    let (text, wanted) = (
        text.replace("Model:", "It:"),
        wanted.replace("Model:", "It:"),
    );
    assert_eq!(normalized("a.txt", &text, "format: speakers"), wanted);
}

#[test]
fn a_table_of_turns_is_read_of_parquet_with_all_that_binds_them() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, StringArray};
    let text = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let bytes = parquet_of(&[
        ("message_id", text(&[Some("a"), Some("b"), Some("c")])),
        ("parent_id", text(&[None, Some("a"), Some("a")])),
        ("text", text(&[Some("hi"), Some("no"), Some("ho")])),
        (
            "role",
            text(&[Some("prompter"), Some("assistant"), Some("assistant")]),
        ),
        ("lang", text(&[Some("en"), Some("en"), Some("en")])),
        (
            "rank",
            Arc::new(Float64Array::from(vec![None, Some(1.0), Some(0.0)])),
        ),
        ("message_tree_id", text(&[Some("a"), Some("a"), Some("a")])),
    ]);
    let corpus = Corpus::new(&[("oasst.parquet", &bytes)]);
    assert_eq!(texts(&corpus.run("").unwrap()), ["<user>hi<assistant>ho"]);
    let role_and_text = parquet_of(&[
        ("text", text(&[Some("hi"), Some("ho")])),
        ("role", text(&[Some("prompter"), Some("assistant")])),
    ]);
    let corpus = Corpus::new(&[("a.parquet", &role_and_text)]);
    let error = corpus.run("").unwrap_err();
    assert!(error.cause.unwrap().contains("`role` says who speaks"));
}

#[test]
fn a_long_chat_is_held_in_pieces_that_do_not_depend_on_threads() {
    let line = |n: usize| {
        let (hour, minute) = (n / 60 % 24, n % 60);
        let day = 1 + n / 1440 % 28;
        let who = ["Anna", "Bob"][n % 2];
        let words = "some words of talk ".repeat(4);
        format!("{day:02}/01/2023, {hour:02}:{minute:02} - {who}: {words}{n}\n")
    };
    let log: String = (0..60_000).map(line).collect();
    let corpus = Corpus::new(&[("chat.txt", log.as_bytes())]);
    let digest = |threads: usize| {
        let mut test = corpus.test();
        test.threads = threads;
        let outcome = test
            .run::<Normalize>("{pause_minutes: 1, row_bytes_max: 1000000}")
            .unwrap();
        assert_eq!(outcome.metrics.get("rows"), Some(60_000.0));
        let path = outcome.out.join("documents-00000.parquet");
        blake3::hash(&fs::read(path).unwrap())
    };
    assert_eq!(digest(1), digest(3));
}

#[test]
fn quotes_around_every_field_of_a_table_are_none_of_its_words() {
    let quoted = "\"prompt\"\t\"response\"\n\"hi\"\t\"\"\"ho\"\"\"\n";
    assert_eq!(normalized("a.tsv", quoted, ""), "<user>hi<assistant>\"ho\"");
    let said = "which one?\t\"deal or no deal\"\n\"deal or no deal\"\t\"a \"\"b\"\"\"\n";
    let wanted = "<user>which one?<assistant>\"deal or no deal\"\n<user>\"deal or no deal\"<assistant>a \"b\"";
    assert_eq!(normalized("dialogs.txt", said, ""), wanted);
}
