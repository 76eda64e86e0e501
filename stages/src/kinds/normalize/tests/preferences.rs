//! Rows of two answers, in the forms that TRL reads.

use super::*;

const PAIRS: &str = "{ format: preferences }";

#[test]
fn a_prompt_stands_in_its_column_or_is_what_both_answers_begin_with() {
    let rows = [
        r#"{"prompt": "hi", "chosen": "hello", "rejected": "go"}"#,
        r#"{"prompt": "hi", "chosen": "hello", "rejected": "go", "system": "Be."}"#,
        r#"{"prompt": [{"role": "user", "content": "hi"}], "chosen": [{"role": "assistant", "content": "hello"}], "rejected": [{"role": "assistant", "content": "go"}]}"#,
        r#"{"prompt": "hi", "chosen": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "rejected": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "go"}]}"#,
        r#"{"chosen": "\n\nHuman: hi\n\nAssistant: you\n\nHuman: so\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: you\n\nHuman: so\n\nAssistant: go"}"#,
        r#"{"question": "hi", "chosen": "hello", "rejected": "go"}"#,
    ];
    insta::assert_snapshot!(normalized("a.jsonl", &rows.join("\n"), PAIRS), @"
    <user>hi<assistant>hello<rejected>go
    <system>Be.<user>hi<assistant>hello<rejected>go
    <user>hi<assistant>hello<rejected>go
    <user>hi<assistant>hello<rejected>go
    <user>hi<assistant>you<user>so<assistant>hello<rejected>go
    <user>hi<assistant>hello<rejected>go
    ");
}

#[test]
fn without_the_format_such_rows_are_what_they_were() {
    let row = r#"{"prompt": "hi", "chosen": "hello", "rejected": "go"}"#;
    assert_eq!(normalized("a.jsonl", row, "{}"), "<user>hi<assistant>hello");
}

#[test]
fn what_is_no_pair_is_rejected_with_its_reason() {
    let rows = [
        r#"{"prompt": "hi", "chosen": "hello"}"#,
        r#"{"prompt": "hi", "chosen": "hello", "rejected": "hello"}"#,
        r#"{"chosen": "hello", "rejected": "go"}"#,
        r#"{"prompt": "hi", "chosen": "hello", "rejected": null}"#,
        r#"{"prompt": "hi", "chosen": "hello", "rejected": " "}"#,
        r#"{"prompt": "hi", "chosen": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}]}"#,
        r#"{"prompt": "hi", "chosen": "hello", "rejected": "go"}"#,
    ];
    let corpus = Corpus::new(&[("a.jsonl", rows.join("\n").as_bytes())]);
    let outcome = corpus
        .run("{ format: preferences, rejects_max: 1.0 }")
        .unwrap();
    let reasons = rejected(&outcome).into_iter();
    let reasons: Vec<String> = reasons.map(|(row, why)| format!("{row}: {why}")).collect();
    insta::assert_snapshot!(reasons.join("\n"), @"
    1: has no `rejected`
    2: has the same answer twice
    3: has no prompt
    4: `rejected` is null, not a list
    5: turn 3 is empty
    6: has answers of more than one turn
    ");
    let refused = corpus
        .run("{ format: preferences, pairs: exchanges }")
        .unwrap_err();
    assert!(
        refused.message.contains("has pairs of its own"),
        "{refused:?}"
    );
}
