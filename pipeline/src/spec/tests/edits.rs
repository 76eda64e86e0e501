//! `extends`, `use`, `vars`, `-S` and sweeps.

use insta::assert_snapshot;

use super::*;

const PARENT: &str = r#"
name: parent
seed: 7
stages:
  corpus: { kind: download, with: { hub: someone/else } }
  chat: { kind: normalize, inputs: [corpus], with: { template: start-end, renames: { a: b, c: d }, rules: [{ find: x }] } }
  tokens: { kind: tokenizer, inputs: [chat], with: { files: [words.txt] } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }
  base: { kind: pretrain, inputs: [shards], with: { model: { preset: small }, train: { lr: 1e-3, epochs: 2 } } }
"#;

#[track_caller]
fn right(result: Result<Experiment, Diagnostics>) -> Experiment {
    result.unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn a_child_file_says_only_what_differs() {
    let desk = Desk::new(&[
        ("parents/parent.yaml", PARENT),
        (
            "child.yaml",
            r#"
extends: parents/parent.yaml
stages:
  corpus: { with: { path: here.txt } }
  chat: { with: { renames: { a: null, e: f }, rules: [] } }
  tokens: { kind: tokenizer }
  base: { with: { model: { layers: 3 }, train: { epochs: null } } }
"#,
        ),
        (
            "grandchild.yaml",
            "extends: child.yaml\nname: third\nseed: null\nstages: { base: null, shards: null, tokens: { with: { files: [more.txt] } } }",
        ),
    ]);
    assert_snapshot!(desk.hide_root(&told(&right(desk.load("child.yaml", &[])))), @r#"
    child seed 7
    corpus: download with {"hub":null,"path":"[DIR]/here.txt","url":null,"rows":null}
    chat: normalize sources=corpus with {"template":"start-end","renames":{"c":"d","e":"f"},"rules":[],"lenient":false}
    tokens: tokenizer with {"vocab_size":4096,"files":[]}
    shards: binarize documents=chat tokenizer=tokens with {"validation":0.02}
    base: pretrain shards=shards with {"model":{"preset":null,"layers":3},"train":{"epochs":1.0,"lr":0.001,"batch":32,"warmup":0},"seed":null} watch {"samples":[],"keep_checkpoints":2}
    "#);
    assert_snapshot!(desk.hide_root(&told(&right(desk.load("grandchild.yaml", &[])))), @r#"
    third seed 1337
    corpus: download with {"hub":null,"path":"[DIR]/here.txt","url":null,"rows":null}
    chat: normalize sources=corpus with {"template":"start-end","renames":{"c":"d","e":"f"},"rules":[],"lenient":false}
    tokens: tokenizer with {"vocab_size":4096,"files":["[DIR]/more.txt"]}
    "#);
    // It reads its own file's paths, whatever it extends.
    let parent = right(desk.load("parents/parent.yaml", &[]));
    assert!(told(&parent).contains("[DIR]/words.txt"));
    assert!(parent.file.ends_with("parents/parent.yaml"));
}

#[test]
fn a_mistake_is_shown_in_the_file_that_makes_it() {
    let desk = Desk::new(&[
        (
            "parents/parent.yaml",
            &*PARENT.replace("epochs: 2", "epochs: two"),
        ),
        (
            "child.yaml",
            "extends: parents/parent.yaml\nstages:\n  base: { with: { train: { lrr: 1 } } }\n  tokesn: { with: { vocab_size: 3 } }\n",
        ),
    ]);
    assert_snapshot!(desk.load("child.yaml", &["base.train.batch=many"]).unwrap_err(), @"
    error: stage `base`: `pretrain` has no setting `train.lrr`
     --> child.yaml:3:28
      |
    3 |   base: { with: { train: { lrr: 1 } } }
      |                            ^^^ unknown
      |
      = help: did you mean `lr`?

    error: stage `tokesn` has no `kind`
     --> child.yaml:4:3
      |
    4 |   tokesn: { with: { vocab_size: 3 } }
      |   ^^^^^^
      |
      = help: did you mean the stage `tokens`?

    error: stage `base`: `train.epochs` must be a number
     --> parents/parent.yaml:9:106
      |
    9 |   base: { kind: pretrain, inputs: [shards], with: { model: { preset: small }, train: { lr: 1e-3, epochs: two } } }
      |                                                                                                          ^^^ this is text
    ");
}

#[test]
fn files_that_extend_or_use_each_other_are_refused() {
    let desk = Desk::new(&[
        ("a.yaml", "extends: b.yaml"),
        ("b.yaml", "extends: sub/../c.yaml"),
        ("c.yaml", "extends: a.yaml"),
        (
            "d.yaml",
            "use: { e: e.yaml }\nstages: { a: { kind: download } }",
        ),
        (
            "e.yaml",
            "use: { d: d.yaml }\nstages: { a: { kind: download } }",
        ),
        ("f.yaml", "extends: a.yml\nstages: {}"),
        ("g.yaml", "extends: [a.yml]\nstages: {}"),
        ("sub/x", ""),
    ]);
    let told = ["a.yaml", "d.yaml", "f.yaml", "g.yaml"]
        .map(|file| desk.load(file, &[]).unwrap_err().render(false));
    assert_snapshot!(told.join("\n\n"), @"
    error: files extend each other in a circle: `a.yaml` extends `b.yaml` extends `c.yaml` extends `a.yaml`
     --> c.yaml:1:10
      |
    1 | extends: a.yaml
      |          ^^^^^^

    error: files use each other in a circle: `d.yaml` uses `e.yaml` uses `d.yaml`
     --> e.yaml:1:11
      |
    1 | use: { d: d.yaml }
      |           ^^^^^^

    error: there is no file `a.yml`
     --> f.yaml:1:10
      |
    1 | extends: a.yml
      |          ^^^^^
      |
      = help: did you mean `a.yaml`?

    error: `extends` must be a file's path
     --> g.yaml:1:10
      |
    1 | extends: [a.yml]
      |          ^^^^^^^ this is a list
    ");
}

#[test]
fn a_used_files_stages_join_as_far_as_they_are_read() {
    let desk = Desk::new(&[
        ("stories/parent.yaml", PARENT),
        (
            "main.yaml",
            r#"
use: { stories: stories/parent.yaml, again: middle.yaml }
stages:
  talk: { kind: evaluate, inputs: { model: stories.base, shards: mine } }
  mine: { kind: binarize, inputs: { documents: again.deep.chat, tokenizer: stories.tokens } }
"#,
        ),
        (
            "middle.yaml",
            "seed: 3\nuse: { deep: stories/parent.yaml }\nstages: { broken: { kind: nonsense } }",
        ),
    ]);
    let experiment = right(desk.load(
        "main.yaml",
        &["stories.base.train.lr=0.5", "stories.seed=9"],
    ));
    assert_snapshot!(desk.hide_root(&told(&experiment)), @r#"
    main seed 1337
    stories.corpus: download with {"hub":"someone/else","path":null,"url":null,"rows":null} seed 9
    stories.chat: normalize sources=stories.corpus with {"template":"start-end","renames":{"a":"b","c":"d"},"rules":[{"find":"x","times":1}],"lenient":false} seed 9
    stories.tokens: tokenizer documents=stories.chat with {"vocab_size":4096,"files":["[DIR]/stories/words.txt"]} seed 9
    stories.shards: binarize documents=stories.chat tokenizer=stories.tokens with {"validation":0.02} seed 9
    stories.base: pretrain shards=stories.shards with {"model":{"preset":"small","layers":null},"train":{"epochs":2.0,"lr":0.5,"batch":32,"warmup":0},"seed":null} watch {"samples":[],"keep_checkpoints":2} seed 9
    again.deep.corpus: download with {"hub":"someone/else","path":null,"url":null,"rows":null} seed 7
    again.deep.chat: normalize sources=again.deep.corpus with {"template":"start-end","renames":{"a":"b","c":"d"},"rules":[{"find":"x","times":1}],"lenient":false} seed 7
    mine: binarize documents=again.deep.chat tokenizer=stories.tokens with {"validation":0.02}
    talk: evaluate model=stories.base shards=mine with {}
    "#);
    let homes: Vec<&str> = experiment
        .stages
        .iter()
        .map(|stage| base_name(&stage.home_file))
        .collect();
    assert!(homes.contains(&"parent.yaml") && homes.contains(&"main.yaml"));
}

#[test]
fn a_stage_that_a_used_file_lacks_is_refused_with_the_nearest() {
    let desk = Desk::new(&[
        ("parent.yaml", PARENT),
        (
            "main.yaml",
            "use: { stories: parent.yaml }\nstages:\n  a: { kind: evaluate, inputs: { model: stories.bsae, shards: storeis.shards } }\n",
        ),
    ]);
    assert_snapshot!(desk.load("main.yaml", &[]).unwrap_err(), @"
    error: stage `a` reads `stories.bsae`, which nothing writes
     --> main.yaml:3:41
      |
    3 |   a: { kind: evaluate, inputs: { model: stories.bsae, shards: storeis.shards } }
      |                                         ^^^^^^^^^^^^ no stage has this name
      |
      = help: did you mean `stories.base`?

    error: stage `a` reads `storeis.shards`, which nothing writes
     --> main.yaml:3:63
      |
    3 |   a: { kind: evaluate, inputs: { model: stories.bsae, shards: storeis.shards } }
      |                                                               ^^^^^^^^^^^^^^ no stage has this name
      |
      = help: did you mean `stories.shards`?
    ");
}

#[test]
fn variables_stand_for_values() {
    let desk = Desk::new(&[
        (
            "lib/vars.yaml",
            "vars: { data: corpus, rate: 1e-3, words: [a, b], who: me }\nstages: {}",
        ),
        (
            "main.yaml",
            r#"
extends: lib/vars.yaml
vars: { who: you, file: "${data}/chat.jsonl" }
name: run-${rate}
stages:
  one: { kind: download, with: { path: "${file}" } }
  two: { kind: download, with: { path: "data/${who}.txt" } }
  go: { kind: command, inputs: [one], with: { run: "${words}", outputs: ["$${who}", "$${who} is ${who}", "$5 ${rate}"] } }
  base: { kind: pretrain, inputs: [go], with: { train: { lr: "${rate}" } } }
"#,
        ),
    ]);
    let experiment = right(desk.load("main.yaml", &["vars.who=she"]));
    assert_snapshot!(desk.hide_root(&told(&experiment)), @r#"
    run-1e-3 seed 1337
    one: download with {"hub":null,"path":"[DIR]/lib/corpus/chat.jsonl","url":null,"rows":null}
    two: download with {"hub":null,"path":"[DIR]/data/she.txt","url":null,"rows":null}
    go: command 0=one with {"run":["a","b"],"outputs":["${who}","${who} is she","$5 1e-3"],"files":[]}
    base: pretrain shards=go with {"model":{"preset":null,"layers":null},"train":{"epochs":1.0,"lr":0.001,"batch":32,"warmup":0},"seed":null} watch {"samples":[],"keep_checkpoints":2}
    "#);
}

#[test]
fn wrong_variables_are_refused() {
    let wrong = refused(
        r#"
vars: { lr: fast, a: "${b}", b: "x${a}", list: [1] }
stages:
  one: { kind: download, with: { hub: "${HOME}/x", path: "${", url: "x${list}" } }
  two: { kind: download, with: { hub: "${a}" } }
  six: { kind: pretrain, inputs: [one], with: { train: { lr: "${lr}", epochs: "${l}" } } }
"#,
    );
    assert_snapshot!(wrong, @r#"
    error: variables name each other in a circle: `a` names `b` names `a`
     --> a.yaml:2:35
      |
    2 | vars: { lr: fast, a: "${b}", b: "x${a}", list: [1] }
      |                                   ^^^^

    error: stage `one`: `hub`, `path` and `url` exclude each other
     --> a.yaml:4:34
      |
    4 |   one: { kind: download, with: { hub: "${HOME}/x", path: "${", url: "x${list}" } }
      |                                  ^^^               ----        --- or this
      |                                  |                 |
      |                                  either this       or this

    error: there is no variable `HOME`
     --> a.yaml:4:40
      |
    4 |   one: { kind: download, with: { hub: "${HOME}/x", path: "${", url: "x${list}" } }
      |                                        ^^^^^^^ not in `vars`
      |
      = help: there is `lr`, `a`, `b` and `list`
      = help: `$${HOME}` stands for the text `${HOME}`

    error: a `${` has no `}`
     --> a.yaml:4:59
      |
    4 |   one: { kind: download, with: { hub: "${HOME}/x", path: "${", url: "x${list}" } }
      |                                                           ^^
      |
      = help: write `$${` for a literal `${`

    error: the variable `list` cannot stand inside a text
     --> a.yaml:4:71
      |
    2 | vars: { lr: fast, a: "${b}", b: "x${a}", list: [1] }
      |                                                --- this is a list
    3 | stages:
    4 |   one: { kind: download, with: { hub: "${HOME}/x", path: "${", url: "x${list}" } }
      |                                                                       ^^^^^^^

    error: the role `shards` of stage `six` takes shards
     --> a.yaml:6:35
      |
    6 |   six: { kind: pretrain, inputs: [one], with: { train: { lr: "${lr}", epochs: "${l}" } } }
      |                                   ^^^ `download` makes files
      |
      = help: `shards`: the tokens

    error: there is no variable `l`
     --> a.yaml:6:80
      |
    6 |   six: { kind: pretrain, inputs: [one], with: { train: { lr: "${lr}", epochs: "${l}" } } }
      |                                                                                ^^^^ not in `vars`
      |
      = help: did you mean `lr`?
      = help: `$${l}` stands for the text `${l}`
    "#);
}

#[test]
fn variables_that_double_each_other_are_stopped() {
    let mut text = "vars:\n  v0: [x, x]\n".to_owned();
    for idx in 1..60 {
        text += &format!("  v{idx}: ['${{v{0}}}', '${{v{0}}}']\n", idx - 1);
    }
    text += "stages: { a: { kind: download, with: { rows: '${v59}' } } }\n";
    assert!(refused(&text).contains("too large"));
}

#[test]
fn an_override_is_an_edit_of_the_file() {
    let desk = Desk::new(&[("sub/parent.yaml", PARENT), ("x.txt", "")]);
    let experiment = right(desk.load(
        "sub/parent.yaml",
        &[
            "seed=11",
            "corpus.path=x.txt",
            "base.model.layers=2",
            "base.train.lr=3e-4",
            "base.train={ epochs: 9 }",
            "base.train.batch=8",
            "chat.rules.0.times=0x10",
            "chat.renames.z='a, b'",
            "base.seed=5",
        ],
    ));
    assert_snapshot!(desk.hide_root(&told(&experiment)), @r#"
    parent seed 11
    corpus: download with {"hub":null,"path":"[ROOT]/x.txt","url":null,"rows":null}
    chat: normalize sources=corpus with {"template":"start-end","renames":{"a":"b","c":"d","z":"a, b"},"rules":[{"find":"x","times":16}],"lenient":false}
    tokens: tokenizer documents=chat with {"vocab_size":4096,"files":["[DIR]/words.txt"]}
    shards: binarize documents=chat tokenizer=tokens with {"validation":0.02}
    base: pretrain shards=shards with {"model":{"preset":null,"layers":2},"train":{"epochs":9.0,"lr":0.001,"batch":8,"warmup":0},"seed":5} watch {"samples":[],"keep_checkpoints":2} seed 5
    "#);
}

#[test]
fn wrong_overrides_are_refused_at_once() {
    let desk = Desk::new(&[("a.yaml", PARENT)]);
    let wrong = desk.load(
        "a.yaml",
        &[
            "bsae.train.lr=1",
            "base.train.lrr=1",
            "base.train.batch=many",
            "base=1",
            "lr=1",
            "seeed=1",
            "vars.x=1",
            "base..lr=1",
            "base.train.lr",
            "base.train.lr=",
            "base.train.lr=1,2",
            "base.train.lr=[1",
            "chat.rules.7.times=2",
            "corpus.hub=a",
            "corpus.path.x=a",
            "=1",
        ],
    );
    assert_snapshot!(wrong.unwrap_err(), @"
    error: `base..lr` names no setting
     --> -S:1:1
      |
    1 | base..lr=1
      | ^^^^^^^^ a name is empty
      |
      = help: write `STAGE.SETTING`, such as `base.train.lr`

    error: `-S base.train.lr` sets nothing
     --> -S:1:1
      |
    1 | base.train.lr
      | ^^^^^^^^^^^^^ has no `=`
      |
      = help: write `-S STAGE.SETTING=VALUE`

    error: `-S base.train.lr=` has no value
     --> -S:1:1
      |
    1 | base.train.lr=
      | ^^^^^^^^^^^^^
      |
      = help: write `null` for nothing and `''` for an empty text

    error: `-S base.train.lr=1,2` has more than one value
     --> -S:1:17
      |
    1 | base.train.lr=1,2
      |                 ^ a second value
      |
      = help: quote a text with commas, write `[a, b]` for a list, or `--sweep` for a run with each

    error: this is not valid YAML
     --> -S:1:17
      |
    1 | base.train.lr=[1
      |                 ^ did not find expected ',' or ']', while parsing a flow sequence

    error: `` names no setting
     --> -S:1:1
      |
    1 | =1
      | ^ a name is empty
      |
      = help: write `STAGE.SETTING`, such as `base.train.lr`

    error: there is no stage `bsae`
     --> -S:1:1
      |
    1 | bsae.train.lr=1
      | ^^^^ no stage has this name
      |
      = help: did you mean `base`?

    error: `base` is a stage, not a setting
     --> -S:1:1
      |
    1 | base=1
      | ^^^^
      |
      = help: write `base.SETTING=VALUE`

    error: there is no stage `lr`
     --> -S:1:1
      |
    1 | lr=1
      | ^^ no stage has this name
      |
      = help: did you mean `base.train.lr`?

    error: there is no stage `seeed`
     --> -S:1:1
      |
    1 | seeed=1
      | ^^^^^ no stage has this name
      |
      = help: did you mean `seed`?

    error: there is no variable `x`
     --> -S:1:6
      |
    1 | vars.x=1
      |      ^ not in `vars`

    error: `rules` has no item `7`
     --> -S:1:12
      |
    1 | chat.rules.7.times=2
      |            ^
      |
      = help: its only item is `0`

    error: stage `corpus`: `path` must be a path
     --> -S:1:8
      |
    1 | corpus.path.x=a
      |        ^^^^ this is a map

    error: stage `base`: `pretrain` has no setting `train.lrr`
     --> -S:1:12
      |
    1 | base.train.lrr=1
      |            ^^^ unknown
      |
      = help: did you mean `lr`?

    error: stage `base`: `train.batch` must be a whole number
     --> -S:1:18
      |
    1 | base.train.batch=many
      |                  ^^^^ this is text
    ");
}

#[test]
fn a_sweep_is_one_experiment_for_each_combination() {
    let desk = Desk::new(&[(
        "a.yaml",
        &*format!("sweep: {{ base.train.lr: [1e-3, 3e-4], seed: [1, 2] }}\n{PARENT}"),
    )]);
    let points = |overrides: &[&str], sweep: &[&str]| {
        let mut request = desk.request("a.yaml");
        request.overrides = overrides.iter().map(|&text| text.to_owned()).collect();
        request.sweep = sweep.iter().map(|&text| text.to_owned()).collect();
        let experiments = load(&request, CATALOG).unwrap_or_else(|wrong| panic!("{wrong}"));
        let lines = experiments.iter().map(|experiment| {
            let base = &experiment.stages[4];
            let point: Vec<String> = experiment
                .sweep_point
                .iter()
                .map(|(path, value)| format!("{path}={value}"))
                .collect();
            let train = &base.with["train"];
            format!(
                "{} | seed {} lr {} epochs {}",
                point.join(" "),
                base.seed,
                train["lr"],
                train["epochs"]
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(points(&[], &[]), @"
    base.train.lr=0.001 seed=1 | seed 1 lr 0.001 epochs 2.0
    base.train.lr=0.001 seed=2 | seed 2 lr 0.001 epochs 2.0
    base.train.lr=0.0003 seed=1 | seed 1 lr 0.0003 epochs 2.0
    base.train.lr=0.0003 seed=2 | seed 2 lr 0.0003 epochs 2.0
    ");
    assert_snapshot!(points(&["seed=5"], &["base.train.lr=1,2,3", "base.train.epochs=7"]), @"
    base.train.lr=1 base.train.epochs=7 | seed 5 lr 1.0 epochs 7.0
    base.train.lr=2 base.train.epochs=7 | seed 5 lr 2.0 epochs 7.0
    base.train.lr=3 base.train.epochs=7 | seed 5 lr 3.0 epochs 7.0
    ");
}

#[test]
fn a_wrong_sweep_is_refused_once() {
    let desk = Desk::new(&[(
        "a.yaml",
        &*format!(
            "sweep: {{ base.train.lr: 3, base.train.epochs: [], bsae.x: [1, 2, 3], base.train.batch: [8, many] }}\n{PARENT}"
        ),
    )]);
    assert_snapshot!(desk.load("a.yaml", &[]).unwrap_err(), @"
    error: the sweep of `base.train.lr` must be a list of values
     --> a.yaml:1:25
      |
    1 | sweep: { base.train.lr: 3, base.train.epochs: [], bsae.x: [1, 2, 3], base.train.batch: [8, many] }
      |                         ^ this is a whole number

    error: the sweep of `base.train.epochs` has no values
     --> a.yaml:1:28
      |
    1 | sweep: { base.train.lr: 3, base.train.epochs: [], bsae.x: [1, 2, 3], base.train.batch: [8, many] }
      |                            ^^^^^^^^^^^^^^^^^

    error: there is no stage `bsae`
     --> a.yaml:1:51
      |
    1 | sweep: { base.train.lr: 3, base.train.epochs: [], bsae.x: [1, 2, 3], base.train.batch: [8, many] }
      |                                                   ^^^^ no stage has this name
      |
      = help: did you mean `base`?

    error: stage `base`: `train.batch` must be a whole number
     --> a.yaml:1:92
      |
    1 | sweep: { base.train.lr: 3, base.train.epochs: [], bsae.x: [1, 2, 3], base.train.batch: [8, many] }
      |                                                                                            ^^^^ this is text
    ");
    let mut request = desk.request("a.yaml");
    request.sweep = (0..40).map(|idx| format!("corpus.s{idx}=1,2")).collect();
    let wrong = load(&request, CATALOG).unwrap_err().render(false);
    assert!(wrong.contains("more than 1000 combinations"), "{wrong}");
}

#[test]
fn an_experiment_survives_being_recorded() {
    let desk = Desk::new(&[("a.yaml", super::meaning::EXAMPLE)]);
    let experiment = right(desk.load("a.yaml", &[]));
    let recorded = experiment.resolved();
    let text = serde_json::to_string(&recorded).unwrap();
    let restored =
        Experiment::from_resolved(&serde_json::from_str(&text).unwrap(), CATALOG).unwrap();
    assert_eq!(restored.resolved(), recorded);
    assert_eq!(told(&restored), told(&experiment));

    let mut cut = recorded.clone();
    cut["stages"].as_array_mut().unwrap().remove(0);
    let unknown = Experiment::from_resolved(&cut, CATALOG).unwrap_err();
    assert_snapshot!(unknown, @"stage `chat` reads `dialogs`, which is not recorded before it");
    let unknown = Experiment::from_resolved(&recorded, &CATALOG[1..]).unwrap_err();
    assert_snapshot!(unknown, @"stage `dialogs` is of the kind `download`, which this version does not have");
}

#[test]
fn a_setting_named_without_its_stage_or_its_map_is_found() {
    let text = "stages:\n  a: { kind: pretrain }\n  b: { kind: pretrain }\n";
    let desk = Desk::new(&[("a.yaml", text)]);
    let said = |edit: &str| desk.load("a.yaml", &[edit]).unwrap_err().to_string();
    let help = "did you mean `a.train.lr` or `b.train.lr`?";
    assert!(said("lr=1").contains(help), "{}", said("lr=1"));
    assert!(said("train.lr=1").contains(help), "{}", said("train.lr=1"));
    let help = "did you mean `train.lr`?";
    assert!(said("a.lr=1").contains(help), "{}", said("a.lr=1"));
}
