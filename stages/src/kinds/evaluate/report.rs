//! The numbers of an evaluation, as its file has them and as metrics.

use serde_json::{Map, Value, json};
use tinylm_model::shards::ROLE_NAMES;
use tinylm_pipeline::Metrics;
use tinylm_pipeline::spec::keys::Key;

use super::{generated::Generated, tally::Tally};

/// The names of what `report` puts down as a number.
pub(super) const METRICS: &[Key] = &[
    ("loss", "The mean loss of a token, in nats."),
    (
        "perplexity",
        "e to the loss: among how many tokens the model wavers.",
    ),
    (
        "bits_per_byte",
        "The loss over bytes in bits: comparable between vocabularies.",
    ),
    (
        "accuracy_top1",
        "How often the likeliest token is the right one.",
    ),
    (
        "accuracy_top5",
        "How often the right one is among the five likeliest.",
    ),
    ("byte_perplexity", "The perplexity of a byte."),
    ("word_perplexity", "The perplexity of a word."),
    (
        "unigram_perplexity",
        "What the frequencies of the tokens alone would reach.",
    ),
    (
        "f32_perplexity",
        "The perplexity without rounded weights, beside one with them.",
    ),
    (
        "precision_cost",
        "By how much rounding raises the perplexity, as a share.",
    ),
    ("documents", "Documents that were read."),
    ("tokens_read", "Tokens that were read."),
    ("tokens", "Tokens that count in the loss."),
    ("bytes", "Bytes of text that they stand for."),
    ("words", "Words that they stand for."),
    ("by_source.*", "The same numbers of one source's documents."),
    ("by_role.*", "The same numbers of one role's turns."),
    (
        "generated.*",
        "Of answers that the model wrote: how many end, repeat themselves, differ.",
    ),
    ("by_task.*", "The accuracy of one task."),
    (
        "core",
        "The mean of the CORE tasks' accuracies, 0 at chance and 1 at best.",
    ),
    ("core_stderr", "Its standard error."),
    (
        "minimal_pairs",
        "The mean accuracy over the BLiMP paradigms.",
    ),
    ("minimal_pairs_stderr", "Its standard error."),
];

pub(super) fn report(
    read: &str,
    tally: &Tally,
    unigram: f64,
    generated: Option<Generated>,
) -> Map<String, Value> {
    let mut report = Map::new();
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("read", json!(read));
    put("documents", json!(tally.n_documents));
    put("tokens_read", json!(tally.n_read));
    put("score", json!(tally.scored));
    put("tokens", json!(tally.all.n));
    put("bytes", json!(tally.size.n_bytes));
    put("words", json!(tally.size.n_words));
    let all = tally.all.json();
    for name in ["loss", "perplexity", "accuracy_top1", "accuracy_top5"] {
        put(name, all[name].clone());
    }
    put("unigram_perplexity", json!(unigram));
    if tally.size.n_bytes > 0 {
        let per_byte = tally.all.nll / tally.size.n_bytes as f64;
        put("bits_per_byte", json!(per_byte / std::f64::consts::LN_2));
        put("byte_perplexity", json!(per_byte.exp()));
    }
    if tally.size.n_words > 0 {
        let per_word = tally.all.nll / tally.size.n_words as f64;
        put("word_perplexity", json!(per_word.exp()));
    }
    let by_source = tally
        .by_source
        .iter()
        .map(|(name, sums)| (name.clone(), sums.json()));
    put("by_source", Value::Object(by_source.collect()));
    let role = |idx: u8| ROLE_NAMES[usize::from(idx)].to_owned();
    let by_role = tally
        .by_role
        .iter()
        .map(|(idx, sums)| (role(*idx), sums.json()));
    put("by_role", Value::Object(by_role.collect()));
    if let Some(generated) = generated {
        let n = generated.n as f64;
        put(
            "generated",
            json!({
                "continuations": generated.n,
                "tokens_per_answer": generated.n_tokens as f64 / n,
                "end_rate": generated.n_ended as f64 / n,
                "distinct_1": generated.variety.distinct_1,
                "distinct_2": generated.variety.distinct_2,
                "repetition": generated.variety.repetition,
            }),
        );
    }
    report
}

/// The numbers of the report, those of its parts named `PART.NAME`.
pub(super) fn metrics(report: &Value) -> Metrics {
    let mut metrics = Metrics::default();
    collect(&mut metrics, "", report);
    metrics
}

fn collect(metrics: &mut Metrics, prefix: &str, value: &Value) {
    let Value::Object(map) = value else { return };
    for (name, value) in map {
        let path = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        match value.as_f64() {
            Some(number) => metrics.0.push((path, number)),
            None => collect(metrics, &path, value),
        }
    }
}
