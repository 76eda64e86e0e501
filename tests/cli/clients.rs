//! `serve` as its clients see it: what they send without being asked to, what they ask for that is not there, and
//! the clients themselves.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    serving::served,
    skipped::skipped,
    speaking::{talker, talker_that_reads},
};

/// Where, what is added to a question that is a good one, the parameter that is refused, and a piece of the message.
const REFUSED: &str = r#"
chat | { "grammar": "root ::= x" } | grammar | is not supported
chat | { "guided_regex": "x" } | guided_regex | is not supported
chat | { "structured_outputs": { "regex": "x" } } | structured_outputs | is not supported
chat | { "prediction": { "type": "content" } } | prediction | is not supported
chat | { "mirostat": 2 } | mirostat | is not supported
chat | { "typical_p": 0.5 } | typical_p | is not supported
chat | { "modalities": ["text", "audio"] } | modalities | is not supported
chat | { "store": true } | store | is not supported
chat | { "prompt": "hi" } | prompt | is not supported
text | { "best_of": 2 } | best_of | is not supported
text | { "suffix": "x" } | suffix | is not supported
text | { "on_overflow": "error" } | on_overflow | is not supported
chat | { "messages": [{ "role": "user", "content": "hi" }, { "role": "assistant", "tool_calls": [{ "id": "1" }] }] } | messages | messages[1]: `tool_calls` is not supported
chat | { "stream_options": "x" } | stream_options | include_usage
chat | { "stream_options": { "include_usge": true } } | stream_options | include_usage
chat | { "top_logprobs": 2 } | top_logprobs | goes with `logprobs: true`
chat | { "max_tokns": 5 } | max_tokns | did you mean `max_tokens`?
text | { "max_tokns": false } | max_tokns | did you mean `max_tokens`?
chat | { "nonsense": 1 } | nonsense | `nonsense` is no parameter here
tokenize | { "contents": "x" } | contents | did you mean `content`?
tokenize | { "with_pieces": true } | with_pieces | is not supported
detokenize | { "token": 1 } | token | did you mean `tokens`?
template | { "chat_template": "x" } | chat_template | is not supported
"#;

/// What langchain, lm-eval, Open WebUI and others send where nobody has asked them to, and what changes nothing.
const PASSES: &str = r#"
text | { "best_of": 1, "suffix": "", "n": 1, "echo": false, "logprobs": null, "seed": null, "frequency_penalty": 0 }
text | { "best_of": 1.0, "min_tokens": 0, "use_beam_search": false, "skip_special_tokens": true, "repetition_penalty": 1 }
text | { "temperature": 0, "logprobs": 1, "seed": 1234, "echo": true }
chat | { "modalities": ["text"], "user": "ada", "metadata": { "a": "b" }, "store": false, "tools": [], "tool_choice": "auto" }
chat | { "response_format": { "type": "text" }, "stream_options": null, "parallel_tool_calls": true, "max_tokns": null }
chat | { "stream_options": { "include_usage": true, "include_obfuscation": false }, "service_tier": "auto" }
chat | { "top_logprobs": 0, "logprobs": false, "cache_prompt": true, "mirostat": 0, "grammar": "", "chat_template_kwargs": {} }
chat | { "messages": [{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "hi", "refusal": null, "annotations": [], "tool_calls": null }, { "role": "user", "content": "hi" }] }
chat | { "messages": [{ "role": "user", "name": "ada", "content": [{ "type": "text", "text": "hi" }] }] }
template | { "add_generation_prompt": true }
tokenize | { "with_pieces": false, "add_special_tokens": false }
"#;

/// The address of a row, and a good question there with what the row adds.
#[track_caller]
fn question(place: &str, more: &str) -> (&'static str, Value) {
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let (path, mut body) = match place {
        "chat" => (
            "/v1/chat/completions",
            json!({ "messages": hi, "max_tokens": 1 }),
        ),
        "text" => (
            "/v1/completions",
            json!({ "prompt": "hi", "max_tokens": 1 }),
        ),
        "template" => ("/apply-template", json!({ "messages": hi })),
        "tokenize" => ("/tokenize", json!({ "content": "hi" })),
        "detokenize" => ("/detokenize", json!({ "tokens": [1] })),
        _ => panic!("{place}"),
    };
    let more: Value = serde_json::from_str(more).unwrap();
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    (path, body)
}

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.trim().lines().map(|row| row.split(" | ").collect())
}

#[test]
fn a_parameter_is_read_or_refused_by_its_name_and_what_asks_for_nothing_passes() {
    let project = talker();
    let server = served(&project, &[]);
    for row in rows(REFUSED) {
        let [place, more, param, said] = row[..] else {
            panic!("{row:?}")
        };
        let (path, body) = question(place, more);
        let answer = server.post(path, &body);
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        let error = &told["error"];
        assert_eq!(
            (answer.status, &error["param"]),
            (400, &json!(param)),
            "{more}: {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(said), "{more}: {message}");
        assert!(answer.head.contains("x-should-retry: false"), "{more}");
    }
    for row in rows(PASSES) {
        let [place, more] = row[..] else {
            panic!("{row:?}")
        };
        let (path, body) = question(place, more);
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 200, "{more}: {}", answer.body);
    }
}

#[test]
fn curl_gets_a_stream_and_a_refusal() {
    let project = talker();
    let server = served(&project, &[]);
    let asked = |more: &str| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--no-buffer",
            "--fail-with-body",
            "--max-time",
            "60",
        ]);
        curl.args(["--header", "content-type: application/json", "--data"]);
        curl.arg(format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"max_tokens\":8,\"ignore_eos\":true,{more}}}"));
        curl.arg(format!("http://{}/v1/chat/completions", server.addr));
        let told = curl.output().ok()?;
        Some((told.status.code(), String::from_utf8(told.stdout).unwrap()))
    };
    let Some((code, told)) = asked("\"stream\":true") else {
        skipped("there is no curl");
        return;
    };
    assert_eq!(code, Some(0), "{told}");
    assert!(told.matches("data: {").count() > 2, "{told}");
    assert!(told.ends_with("data: [DONE]\n\n"), "{told}");
    // Its code for an answer of 400 or more.
    let (code, told) = asked("\"stream\":true,\"tools\":[{}]").unwrap();
    assert_eq!(code, Some(22), "{told}");
    assert!(told.contains("\"param\":\"tools\""), "{told}");
}

/// Where `openai` for node was installed, if it was.
fn node_clients() -> Option<PathBuf> {
    let modules = PathBuf::from(env::var_os("NODE_PATH")?);
    let has_client = modules.join("openai").is_dir() && modules.ends_with("node_modules");
    has_client.then(|| modules.parent().map(Path::to_owned))?
}

#[test]
fn clients_that_people_have_are_answered() {
    let knows = Command::new("python3")
        .args(["-c", "import openai, langchain_openai"])
        .output();
    if !knows.is_ok_and(|knows| knows.status.success()) {
        skipped("this Python has no `openai` and `langchain_openai`");
        return;
    }
    let project = talker_that_reads(256);
    let server = served(&project, &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/serve/benches/clients_peer.py");
    let mut peer = Command::new("python3");
    peer.arg(script).arg(format!("http://{}", server.addr));
    match node_clients() {
        Some(folder) => {
            peer.arg(folder);
        }
        None => skipped("`NODE_PATH` leads to no `openai` for node"),
    }
    let told = peer.output().unwrap();
    let said = String::from_utf8_lossy(&told.stdout);
    let wrong = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{said}{wrong}");
    assert!(said.contains("ok     langchain, a stream"), "{said}");
}
