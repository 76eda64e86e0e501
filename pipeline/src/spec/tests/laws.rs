//! Laws of every file, right or wrong.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{catalog::setting_names, meaning::EXAMPLE, *};

/// The lines that each describe one stage, in the file's order.
const STAGES: [&str; 6] = [
    "  corpus: { kind: download, with: { hub: someone/else } }",
    "  chat: { kind: normalize, inputs: [corpus] }",
    "  tokens: { kind: tokenizer, inputs: [chat] }",
    "  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }",
    "  base: { kind: pretrain, inputs: [shards] }",
    "  answer: { kind: evaluate, inputs: { model: base, shards: shards } }",
];

fn by_name(mut experiment: Experiment) -> String {
    experiment.stages.sort_by(|a, b| a.name.cmp(&b.name));
    told(&experiment)
}

/// Neither reading nor rendering may panic, and what is refused is refused for a reason.
fn read(desk: &Desk, bytes: &[u8], overrides: &[&str]) {
    desk.write("a.yaml", bytes);
    if let Err(wrong) = desk.load("a.yaml", overrides) {
        assert!(!wrong.is_empty());
        assert!(wrong.render(false).contains("error: "));
        assert!(!wrong.render(true).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_stages_in_the_file_means_nothing(order in Just(STAGES.to_vec()).prop_shuffle()) {
        let right = loaded(&format!("stages:\n{}\n", STAGES.join("\n")));
        let shuffled = loaded(&format!("stages:\n{}\n", order.join("\n")));
        for (idx, stage) in shuffled.stages.iter().enumerate() {
            let before = &shuffled.stages[..idx];
            let mut read = stage.inputs.iter().flat_map(|(_, stages)| stages);
            prop_assert!(read.all(|name| before.iter().any(|known| known.name == *name)));
        }
        prop_assert_eq!(by_name(right), by_name(shuffled));
    }

    #[test]
    fn an_override_equals_an_edit(
        lr in 1e-6f64..1.0,
        batch in 1usize..1000,
        seed in any::<u64>(),
        preset in "[a-z][a-z0-9-]{0,12}",
    ) {
        let text = |with: &str, seed: &str| format!(
            "{seed}\nstages:\n{}\n  base: {{ kind: pretrain, inputs: [shards], with: {{ {with} }} }}\n",
            STAGES[..4].join("\n"),
        );
        let edited = text(
            &format!("model: {{ preset: '{preset}' }}, train: {{ lr: {lr}, batch: {batch} }}"),
            &format!("seed: {seed}"),
        );
        let desk = Desk::new(&[("a.yaml", &*text("model: { layers: 2 }, train: { lr: 1 }", "seed: 1"))]);
        let overrides = [
            format!("seed={seed}"),
            format!("base.model.preset='{preset}'"),
            format!("base.train.lr={lr}"),
            format!("base.train.batch={batch}"),
        ];
        let overridden = desk.load("a.yaml", &overrides.each_ref().map(String::as_str));
        let overridden = overridden.unwrap_or_else(|wrong| panic!("{wrong}"));
        let edited = loaded(&edited);
        prop_assert_eq!(told(&edited), told(&overridden));
        prop_assert_eq!(&edited.stages[4].given["train"], &overridden.stages[4].given["train"]);
    }

    #[test]
    fn no_text_makes_reading_panic(text in "[ -~\t\r\n\u{e9}\u{feff}\u{1f600}]{0,80}", setting in "[ -~]{0,30}") {
        let desk = Desk::new(&[]);
        read(&desk, text.as_bytes(), &[]);
        read(&desk, EXAMPLE.as_bytes(), &[&setting, &format!("base.{setting}")]);
        read(&desk, format!("stages: {{ a: {text} }}").as_bytes(), &[]);
        read(&desk, format!("stages:\n  a: {{ kind: normalize, inputs: {text}, with: {text} }}").as_bytes(), &[]);
    }

    #[test]
    fn no_damage_to_a_file_makes_reading_panic(
        damage in vec((any::<prop::sample::Index>(), 0usize..6, select(pieces())), 1..6),
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (at, cut, piece) in damage {
            let start = at.index(bytes.len());
            let end = (start + cut).min(bytes.len());
            bytes.splice(start..end, piece.bytes());
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        read(&Desk::new(&[]), &bytes, &["base.train.lr=1", "seed=2", "chat.rules.0.find=x"]);
    }
}

/// The pieces that damage puts in: YAML's own signs, names that mean something, and bytes of all sorts.
fn pieces() -> Vec<String> {
    let signs = [
        "", ":", ": ", "{", "}", "[", "]", ",", "-", "\n", "\n  ", "\t", "'", "\"", "&a ", "*a",
        "!t ", "|", ">", "#", "${", "}", "$${x}", "null", "~", "1e999", "-1", "0x", "é",
        "\u{feff}", "\r\n", "---", "...", "? ", "<<: ", "%",
    ];
    let signs = signs.into_iter().chain(setting_names());
    signs.map(str::to_owned).collect()
}

#[test]
fn deep_nesting_and_repeated_aliases_are_refused_quickly() {
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for idx in 1..40 {
        bomb += &format!("a{idx}: &a{idx} [*a{0}, *a{0}, *a{0}]\n", idx - 1);
    }
    let desk = Desk::new(&[]);
    for text in [deep, bomb, format!("a: {}", "{a: ".repeat(3000))] {
        desk.write("a.yaml", text.as_bytes());
        assert!(desk.load("a.yaml", &[]).is_err());
    }
}

#[test]
fn a_long_chain_of_stages_is_ordered() {
    let mut text = "stages:\n".to_owned();
    for idx in (1..3000).rev() {
        text += &format!("  s{idx}: {{ kind: normalize, inputs: [s{}] }}\n", idx - 1);
    }
    text += "  s0: { kind: download }\n";
    let experiment = loaded(&text);
    assert_eq!(experiment.stages.len(), 3000);
    assert_eq!(experiment.stages[0].name, "s0");
    assert_eq!(experiment.stages[2999].name, "s2999");
}

#[test]
fn hundreds_of_mistakes_are_all_told() {
    let mut text = "stages:\n".to_owned();
    for idx in 0..300 {
        text += &format!(
            "  stage-{idx}: {{ kind: normalize, inputs: [nothing-{idx}], with: {{ templat: 1 }} }}\n"
        );
    }
    let told = refused(&text);
    assert_eq!(told.matches("error: ").count(), 600);
    assert!(told.contains("--> a.yaml:301:"));
}

#[test]
fn line_ends_marks_and_aliases_change_nothing() {
    let plain = told(&loaded(EXAMPLE));
    assert_eq!(told(&loaded(&EXAMPLE.replace('\n', "\r\n"))), plain);
    assert_eq!(told(&loaded(&format!("\u{feff}{EXAMPLE}"))), plain);
    let aliased = EXAMPLE
        .replace(
            "with: { hub: roskoN/dailydialog }",
            "with: &w { hub: roskoN/dailydialog }",
        )
        .replace("with: { path: ../data/chitchat.jsonl }", "with: *w");
    let aliased = loaded(&aliased);
    assert_eq!(aliased.stages[0].with, aliased.stages[1].with);
}

/// Two sources by their own ways into one corpus, and all that follows.
const TWO_SOURCES: &str = "
stages:
  near:   { kind: download, with: { path: near.jsonl } }
  far:    { kind: download, with: { hub: someone/far } }
  one:    { kind: normalize, inputs: [near] }
  two:    { kind: normalize, inputs: { sources: [far] } }
  clean:  { kind: normalize, inputs: [one, two] }
  tokens: { kind: tokenizer, inputs: [clean] }
  shards: { kind: binarize,  inputs: { documents: clean, tokenizer: tokens } }
  base:   { kind: pretrain,  inputs: [shards] }
  lines:  { kind: command, inputs: [one, two], with: { run: [cat], outputs: [lines.txt] } }
";

#[test]
fn without_a_source_all_is_as_if_it_had_never_stood_there() {
    let desk = Desk::new(&[("a.yaml", TWO_SOURCES)]);
    for setting in ["without=far", "without=[far]", "without=[far, two]"] {
        let left = desk.load("a.yaml", &[setting]).unwrap();
        let by_hand = TWO_SOURCES
            .lines()
            .filter(|line| {
                !["far:", "two:", "lines:"]
                    .iter()
                    .any(|name| line.contains(name))
            })
            .map(|line| line.replace("[one, two]", "[one]"));
        desk.write("b.yaml", by_hand.collect::<Vec<_>>().join("\n").as_bytes());
        let by_hand = desk.load("b.yaml", &[]).unwrap();
        assert_eq!(
            told(&left).replace("a seed", "b seed"),
            told(&by_hand),
            "{setting}"
        );
        let mut names: Vec<&str> = left.left_out.names().collect();
        names.sort_unstable();
        // A program counts on each of its inputs.
        assert_eq!(names, ["far", "lines", "two"]);
    }
}

/// Else a `dedupe` would look for no evaluation set any more, and nobody would have said so.
#[test]
fn a_stage_that_loses_all_of_a_role_goes_though_it_could_do_without() {
    let text = "
stages:
  data: { kind: download, with: { path: a.jsonl } }
  chat: { kind: normalize, inputs: [data] }
  tokens: { kind: tokenizer, inputs: [chat] }
  other: { kind: tokenizer, inputs: [chat] }
";
    let desk = Desk::new(&[("a.yaml", text)]);
    let left = desk.load("a.yaml", &["without=chat"]).unwrap();
    let why: Vec<String> = left.left_out.told().map(|(_, why)| why).collect();
    assert_eq!(
        why,
        [
            "`without` names it",
            "its `documents` is left out",
            "its `documents` is left out"
        ]
    );
}

#[test]
fn without_is_added_to_on_a_command_line_and_replaced_by_who_extends() {
    let child = "extends: a.yaml\nwithout: [far]\n";
    let grandchild = "extends: child.yaml\nwithout: []\n";
    let desk = Desk::new(&[
        ("a.yaml", TWO_SOURCES),
        ("child.yaml", child),
        ("grandchild.yaml", grandchild),
    ]);
    let left = |file: &str, set: &[&str]| {
        let loaded = desk.load(file, set).unwrap();
        loaded.left_out.named.join(" ")
    };
    assert_eq!(left("child.yaml", &[]), "far");
    assert_eq!(left("grandchild.yaml", &[]), "");
    assert_eq!(left("child.yaml", &["without=base"]), "far base");
    assert_eq!(
        left("a.yaml", &["without=far", "without=[base]"]),
        "far base"
    );
    assert_eq!(left("child.yaml", &["without=null"]), "");
}

#[test]
fn without_knows_no_borders_between_files() {
    let user = "
use: { b: a.yaml }
stages:
  next: { kind: normalize, inputs: [b.one, b.two] }
";
    let within = format!("without: [far]\n{TWO_SOURCES}");
    let used_within = user.replace("a.yaml", "within.yaml");
    let desk = Desk::new(&[
        ("a.yaml", TWO_SOURCES),
        ("user.yaml", user),
        ("within.yaml", &within),
        ("used.yaml", &used_within),
    ]);
    for (file, set) in [
        ("user.yaml", "without=b.far"),
        ("user.yaml", "b.without=far"),
        ("used.yaml", "seed=1"),
    ] {
        let loaded = desk.load(file, &[set]).unwrap();
        let stages: Vec<&str> = loaded
            .stages
            .iter()
            .map(|stage| stage.name.as_str())
            .collect();
        assert_eq!(stages, ["b.near", "b.one", "next"], "{file} {set}");
        assert_eq!(loaded.left_out.named, ["b.far"]);
    }
    // What nobody reads any more does not stay for that.
    let left = desk.load("user.yaml", &["without=b.two"]).unwrap();
    assert_eq!(left.stages.len(), 3);
}

#[test]
fn an_experiment_can_do_without_what_others_stand_beside() {
    let experiment = loaded(TWO_SOURCES);
    let can: Vec<&str> = experiment
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .filter(|name| experiment.can_do_without(&[name]))
        .collect();
    assert_eq!(can, ["near", "far", "one", "two"]);
    assert!(!experiment.can_do_without(&["near", "far"]));
    assert!(!loaded(EXAMPLE).can_do_without(&["chat"]));
}

#[test]
fn a_headline_that_is_left_out_is_none() {
    let text = format!("headline: base.loss\n{TWO_SOURCES}");
    let desk = Desk::new(&[("a.yaml", &text)]);
    assert_eq!(
        desk.load("a.yaml", &["without=base"]).unwrap().headline,
        None
    );
}
