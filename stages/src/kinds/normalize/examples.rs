//! A file of each format, and the documents that it becomes: for the reference of the language.
//!
//! A test runs every one of them, so that the reference shows what is so.

use super::shapes::Format;

/// A file of a format.
pub struct Example {
    pub format: Format,
    /// The ending of its name.
    pub ending: &'static str,
    pub text: &'static str,
    /// Its turns, each with who speaks, or its texts.
    pub becomes: &'static str,
}

const HELLO: &str = "user: hello\nassistant: hi";

/// One of each format but `auto`, which is any of them.
pub const EXAMPLES: [Example; 21] = [
    Example {
        format: Format::Messages,
        ending: "jsonl",
        text: r#"{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::Tree,
        ending: "jsonl",
        text: r#"{"prompt": {"text": "hello", "role": "prompter", "replies": [{"text": "hi", "role": "assistant", "rank": 0, "replies": []}]}}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::Turns,
        ending: "csv",
        text: "conversation_id,speaker,text\n1,user,hello\n1,assistant,hi\n",
        becomes: HELLO,
    },
    Example {
        format: Format::Utterances,
        ending: "jsonl",
        text: r#"{"dialog": ["hello", "hi"]}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::Pairs,
        ending: "csv",
        text: "question,answer\nhello,hi\n",
        becomes: HELLO,
    },
    Example {
        format: Format::Preferences,
        ending: "jsonl",
        text: r#"{"prompt": "hello", "chosen": "hi", "rejected": "what"}"#,
        becomes: "user: hello\nassistant: hi\nrejected: what",
    },
    Example {
        format: Format::DialogStudio,
        ending: "jsonl",
        text: r#"{"log": [{"user utterance": "hello", "system response": "hi"}]}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::ConvAi2,
        ending: "jsonl",
        text: r#"{"dialog": [{"sender": "participant1", "text": "hello"}, {"sender": "participant2", "text": "hi"}]}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::ConvAi,
        ending: "jsonl",
        text: r#"{"users": [{"id": "a"}, {"id": "b"}], "thread": [{"userId": "a", "text": "hello"}, {"userId": "b", "text": "hi"}]}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::ClariQ,
        ending: "jsonl",
        text: r#"{"initial_request": "hello", "question": "who is there", "answer": "a friend"}"#,
        becomes: "user: hello\nassistant: who is there\nuser: a friend",
    },
    Example {
        format: Format::Speakers,
        ending: "txt",
        text: "User: hello\nAI: hi\n",
        becomes: HELLO,
    },
    Example {
        format: Format::Headings,
        ending: "jsonl",
        text: "{\"text\": \"### Human: hello### Assistant: hi\"}",
        becomes: HELLO,
    },
    Example {
        format: Format::Inst,
        ending: "jsonl",
        text: r#"{"text": "[INST] hello [/INST] hi"}"#,
        becomes: HELLO,
    },
    Example {
        format: Format::Eou,
        ending: "txt",
        text: "hello __eou__ hi __eou__\n",
        becomes: HELLO,
    },
    Example {
        format: Format::Chatml,
        ending: "txt",
        text: "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n",
        becomes: HELLO,
    },
    Example {
        format: Format::Whatsapp,
        ending: "txt",
        text: "[01.03.23, 10:00:10] Anna: hello\n[01.03.23, 10:00:40] Bob: hi\n",
        becomes: HELLO,
    },
    Example {
        format: Format::PersonaChat,
        ending: "txt",
        text: "1 hello\thi\n2 who are you\ta friend\n",
        becomes: "user: hello\nassistant: hi\nuser: who are you\nassistant: a friend",
    },
    Example {
        format: Format::Text,
        ending: "txt",
        text: "Once upon a time.\n",
        becomes: "Once upon a time.",
    },
    Example {
        format: Format::Lines,
        ending: "txt",
        text: "A first text.\nA second.\n",
        becomes: "A first text.\n\nA second.",
    },
    Example {
        format: Format::Paragraphs,
        ending: "txt",
        text: "A first\ntext.\n\nA second.\n",
        becomes: "A first\ntext.\n\nA second.",
    },
    Example {
        format: Format::Stories,
        ending: "txt",
        text: "A first text.\n<|endoftext|>\nA second.\n",
        becomes: "A first text.\n\nA second.",
    },
];
