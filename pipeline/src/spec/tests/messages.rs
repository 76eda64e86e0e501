//! Messages about wrong files.

use insta::assert_snapshot;

use super::*;

#[test]
fn a_mistyped_stage_is_shown_with_the_nearest_one() {
    let wrong = refused(
        "stages:\n  corpus: { kind: download }\n  unique: { kind: normalize, inputs: [corpus] }\n  tokens: { kind: tokenizer, inputs: [unqiue] }\n",
    );
    assert_snapshot!(wrong, @"
    error: stage `tokens` reads `unqiue`, which nothing writes
     --> a.yaml:4:39
      |
    4 |   tokens: { kind: tokenizer, inputs: [unqiue] }
      |                                       ^^^^^^ no stage has this name
      |
      = help: did you mean `unique`?
    ");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let wrong = refused(
        r#"
nmae: x
seed: -1
stages:
  a: { kind: dowload, inpust: [b] }
  b: { kind: normalize, inputs: [c], with: { templtae: chatml, lenient: yes, rules: [{ time: 2 }] } }
  c: { kind: pretrain, with: { train: { lr: fast } }, watch: { sample: [] }, timeout: soon }
  d: { kind: pretrain, inputs: { shards: [a, b] }, with: { train: { lr: 0 } } }
  e: { kind: normalize, inputs: [a], with: { template: chat-ml } }
  f: { kind: download, with: { hub: x, url: y } }
"#,
    );
    assert_snapshot!(wrong, @"
    error: an experiment has no key `nmae`
     --> a.yaml:2:1
      |
    2 | nmae: x
      | ^^^^ unknown
      |
      = help: did you mean `name`?

    error: `seed` must be a whole number from 0 on
     --> a.yaml:3:7
      |
    3 | seed: -1
      |       ^^ this is a negative number

    error: stage `a` is of an unknown kind `dowload`
     --> a.yaml:5:14
      |
    5 |   a: { kind: dowload, inpust: [b] }
      |              ^^^^^^^ no kind has this name
      |
      = help: did you mean `download`?

    error: stage `a` has an unknown key `inpust`
     --> a.yaml:5:23
      |
    5 |   a: { kind: dowload, inpust: [b] }
      |                       ^^^^^^ unknown
      |
      = help: did you mean `inputs`?

    error: stage `b`: `normalize` has no setting `templtae`
     --> a.yaml:6:46
      |
    6 |   b: { kind: normalize, inputs: [c], with: { templtae: chatml, lenient: yes, rules: [{ time: 2 }] } }
      |                                              ^^^^^^^^ unknown
      |
      = help: did you mean `template`?

    error: stage `b` needs the setting `rules.0.find`
     --> a.yaml:6:86
      |
    6 |   b: { kind: normalize, inputs: [c], with: { templtae: chatml, lenient: yes, rules: [{ time: 2 }] } }
      |                                                                                      ^^^^^^^^^^^ `find` is missing
      |
      = help: `find`: The text to find.

    error: stage `b`: `normalize` has no setting `rules.0.time`
     --> a.yaml:6:88
      |
    6 |   b: { kind: normalize, inputs: [c], with: { templtae: chatml, lenient: yes, rules: [{ time: 2 }] } }
      |                                                                                        ^^^^ unknown
      |
      = help: did you mean `times`?

    error: nothing fills the role `shards` of stage `c`
     --> a.yaml:7:3
      |
    7 |   c: { kind: pretrain, with: { train: { lr: fast } }, watch: { sample: [] }, timeout: soon }
      |   ^ reads no `shards`
      |
      = help: `shards`: the tokens

    error: stage `c`: `train.lr` must be a number
     --> a.yaml:7:45
      |
    7 |   c: { kind: pretrain, with: { train: { lr: fast } }, watch: { sample: [] }, timeout: soon }
      |                                             ^^^^ this is text

    error: stage `c`: `pretrain` has no `watch` setting `sample`
     --> a.yaml:7:64
      |
    7 |   c: { kind: pretrain, with: { train: { lr: fast } }, watch: { sample: [] }, timeout: soon }
      |                                                                ^^^^^^ unknown
      |
      = help: did you mean `samples`?

    error: `timeout` of stage `c` must be a duration
     --> a.yaml:7:87
      |
    7 |   c: { kind: pretrain, with: { train: { lr: fast } }, watch: { sample: [] }, timeout: soon }
      |                                                                                       ^^^^
      |
      = help: write seconds, or a duration such as `90s`, `30m`, `2h` or `1h30m`

    error: the role `shards` of stage `d` takes one stage, not 2
     --> a.yaml:8:46
      |
    8 |   d: { kind: pretrain, inputs: { shards: [a, b] }, with: { train: { lr: 0 } } }
      |                                              ^ one too many

    error: stage `d`: `train.lr` must be above 0
     --> a.yaml:8:73
      |
    8 |   d: { kind: pretrain, inputs: { shards: [a, b] }, with: { train: { lr: 0 } } }
      |                                                                         ^
      |
      = help: try `1e-3`

    error: stage `e`: `template` must be one of `chatml` or `start-end`
     --> a.yaml:9:56
      |
    9 |   e: { kind: normalize, inputs: [a], with: { template: chat-ml } }
      |                                                        ^^^^^^^ not one of them
      |
      = help: did you mean `chatml`?

    error: stage `f`: `hub` and `url` exclude each other
      --> a.yaml:10:32
       |
    10 |   f: { kind: download, with: { hub: x, url: y } }
       |                                ^^^     --- or this
       |                                |
       |                                either this
    ");
}

#[test]
fn roles_and_references_are_checked() {
    let wrong = refused(
        r#"
stages:
  a: { kind: download, inputs: [b], with: [1] }
  b: { kind: normalize, inputs: a }
  c: { kind: binarize, inputs: { document: b, tokenizer: [1, b] } }
  d: { inputs: [zzzzz], retries: -1, timeout: 0 }
  e: { kind: [download], extra: 1 }
  f: { kind: binarize, inputs: [b, b], with: { validation: null } }
  g: { kind: tokenizer, with: { vocab_size: 70000, files: here.txt } }
  h: { kind: tokenizer, with: { vocab_size: -3 } }
  i: { kind: command, inputs: [a], with: { run: [1, sh] } }
  j: { kind: pretrain, inputs: [b], with: { train: { batch: 1e3, epochs: 1_000 }, model: tiny } }
"#,
    );
    assert_snapshot!(wrong, @r#"
    error: a `download` stage reads nothing
     --> a.yaml:3:32
      |
    3 |   a: { kind: download, inputs: [b], with: [1] }
      |                                ^^^ `a` has inputs

    error: `with` of stage `a` must be a map of settings
     --> a.yaml:3:43
      |
    3 |   a: { kind: download, inputs: [b], with: [1] }
      |                                           ^^^ this is a list

    error: `inputs` of stage `b` must be a list of stages or a map of role to stage
     --> a.yaml:4:33
      |
    4 |   b: { kind: normalize, inputs: a }
      |                                 ^ this is text
      |
      = help: write `[a]`

    error: nothing fills the role `documents` of stage `c`
     --> a.yaml:5:3
      |
    5 |   c: { kind: binarize, inputs: { document: b, tokenizer: [1, b] } }
      |   ^ reads no `documents`
      |
      = help: `documents`: the text

    error: stage `c`: a `binarize` stage has no role `document`
     --> a.yaml:5:34
      |
    5 |   c: { kind: binarize, inputs: { document: b, tokenizer: [1, b] } }
      |                                  ^^^^^^^^ unknown
      |
      = help: did you mean `documents`?

    error: an input of stage `c` must be a stage's name
     --> a.yaml:5:59
      |
    5 |   c: { kind: binarize, inputs: { document: b, tokenizer: [1, b] } }
      |                                                           ^ this is a whole number

    error: the role `tokenizer` of stage `c` takes one stage, not 2
     --> a.yaml:5:62
      |
    5 |   c: { kind: binarize, inputs: { document: b, tokenizer: [1, b] } }
      |                                                              ^ one too many

    error: stage `d` has no `kind`
     --> a.yaml:6:3
      |
    6 |   d: { inputs: [zzzzz], retries: -1, timeout: 0 }
      |   ^
      |
      = help: there is `download`, `normalize`, `tokenizer`, `binarize`, `pretrain`, `evaluate` and `command`

    error: stage `d` reads `zzzzz`, which nothing writes
     --> a.yaml:6:17
      |
    6 |   d: { inputs: [zzzzz], retries: -1, timeout: 0 }
      |                 ^^^^^ no stage has this name

    error: `retries` of stage `d` must be a whole number
     --> a.yaml:6:34
      |
    6 |   d: { inputs: [zzzzz], retries: -1, timeout: 0 }
      |                                  ^^ this is a negative number

    error: `timeout` of stage `d` must be a duration
     --> a.yaml:6:47
      |
    6 |   d: { inputs: [zzzzz], retries: -1, timeout: 0 }
      |                                               ^
      |
      = help: write seconds, or a duration such as `90s`, `30m`, `2h` or `1h30m`

    error: the kind of stage `e` must be a name
     --> a.yaml:7:14
      |
    7 |   e: { kind: [download], extra: 1 }
      |              ^^^^^^^^^^ this is a list

    error: stage `e` has an unknown key `extra`
     --> a.yaml:7:26
      |
    7 |   e: { kind: [download], extra: 1 }
      |                          ^^^^^ unknown
      |
      = help: there is `kind`, `inputs`, `with`, `watch`, `retries`, `timeout` and `resources`

    error: nothing fills the role `tokenizer` of stage `f`
     --> a.yaml:8:3
      |
    8 |   f: { kind: binarize, inputs: [b, b], with: { validation: null } }
      |   ^ reads no `tokenizer`
      |
      = help: `tokenizer`: what cuts it

    error: the role `documents` of stage `f` takes one stage, not 2
     --> a.yaml:8:36
      |
    8 |   f: { kind: binarize, inputs: [b, b], with: { validation: null } }
      |                                    ^ one too many

    error: stage `f`: `validation` must be a number
     --> a.yaml:8:60
      |
    8 |   f: { kind: binarize, inputs: [b, b], with: { validation: null } }
      |                                                            ^^^^ this is nothing

    error: stage `g`: `vocab_size` must be at most 65535
     --> a.yaml:9:45
      |
    9 |   g: { kind: tokenizer, with: { vocab_size: 70000, files: here.txt } }
      |                                             ^^^^^

    error: stage `h`: `vocab_size` must not be negative
      --> a.yaml:10:45
       |
    10 |   h: { kind: tokenizer, with: { vocab_size: -3 } }
       |                                             ^^

    error: stage `i` needs the setting `outputs`
      --> a.yaml:11:3
       |
    11 |   i: { kind: command, inputs: [a], with: { run: [1, sh] } }
       |   ^ `outputs` is missing
       |
       = help: `outputs`: What it makes.

    error: stage `i`: `run.0` must be text
      --> a.yaml:11:50
       |
    11 |   i: { kind: command, inputs: [a], with: { run: [1, sh] } }
       |                                                  ^ this is a whole number
       |
       = help: quotes make it text: "1"

    error: the role `shards` of stage `j` takes shards
      --> a.yaml:12:33
       |
    12 |   j: { kind: pretrain, inputs: [b], with: { train: { batch: 1e3, epochs: 1_000 }, model: tiny } }
       |                                 ^ `normalize` makes documents
       |
       = help: `shards`: the tokens

    error: stage `j`: `model` must be a map of settings
      --> a.yaml:12:90
       |
    12 |   j: { kind: pretrain, inputs: [b], with: { train: { batch: 1e3, epochs: 1_000 }, model: tiny } }
       |                                                                                          ^^^^ this is text
    "#);
}

#[test]
fn a_circle_is_shown_with_its_lines() {
    let wrong = refused(
        "stages:\n  a: { kind: normalize, inputs: [b] }\n  b: { kind: normalize, inputs: [c] }\n  c: { kind: normalize, inputs: [a] }\n  d: { kind: normalize, inputs: [d] }\n",
    );
    assert_snapshot!(wrong, @"
    error: stages read each other in a circle: `a` reads `b` reads `c` reads `a`
     --> a.yaml:2:34
      |
    2 |   a: { kind: normalize, inputs: [b] }
      |                                  ^ `a` reads `b`
    3 |   b: { kind: normalize, inputs: [c] }
      |                                  - `b` reads `c`
    4 |   c: { kind: normalize, inputs: [a] }
      |                                  - `c` reads `a`

    error: stage `d` reads itself
     --> a.yaml:5:34
      |
    5 |   d: { kind: normalize, inputs: [d] }
      |                                  ^ `d` reads `d`
    ");
}

#[test]
fn a_name_written_twice_is_shown_twice() {
    let wrong = refused(
        "stages:\n  a: { kind: download }\n  b: { kind: download }\n  a: { kind: download, kind: download }\n",
    );
    assert_snapshot!(wrong, @"
    error: `a` is written twice
     --> a.yaml:4:3
      |
    2 |   a: { kind: download }
      |   - first here
    3 |   b: { kind: download }
    4 |   a: { kind: download, kind: download }
      |   ^ again here

    error: `kind` is written twice
     --> a.yaml:4:24
      |
    4 |   a: { kind: download, kind: download }
      |        ---- first here ^^^^ again here
    ");
}

#[test]
fn what_is_no_experiment_is_refused_by_name() {
    let told: Vec<String> = [
        "",
        "# nothing\n",
        "[1]",
        "stages: []",
        "stages: {}",
        "name: x",
        "stages: {a: 1, b: , 'c.d': {kind: download}}",
    ]
    .iter()
    .map(|text| refused(text))
    .collect();
    assert_snapshot!(told.join("\n\n"), @"
    error: `a.yaml` is empty
     |
     = help: an experiment has at least `stages`

    error: `a.yaml` is empty
     |
     = help: an experiment has at least `stages`

    error: an experiment must be a map with `stages`
     --> a.yaml:1:1
      |
    1 | [1]
      | ^^^ this is a list

    error: `stages` must be a map of name to stage
     --> a.yaml:1:9
      |
    1 | stages: []
      |         ^^ this is a list
      |
      = help: write `NAME: { kind: ..., inputs: [...], with: {...} }`

    error: the experiment has no stages
     --> a.yaml:1:1
      |
    1 | stages: {}
      | ^^^^^^

    error: the experiment has no stages
     --> a.yaml:1:1
      |
    1 | name: x
      | ^

    error: stage `a` must be a map with a `kind`
     --> a.yaml:1:13
      |
    1 | stages: {a: 1, b: , 'c.d': {kind: download}}
      |             ^ this is a whole number

    error: stage `b` must be a map with a `kind`
     --> a.yaml:1:16
      |
    1 | stages: {a: 1, b: , 'c.d': {kind: download}}
      |                ^ this is nothing

    error: a stage cannot be called `c.d`
     --> a.yaml:1:21
      |
    1 | stages: {a: 1, b: , 'c.d': {kind: download}}
      |                     ^^^^^
      |
      = help: names are made of letters, digits, `_` and `-`
    ");
}

#[test]
fn a_kinds_own_words_say_what_fits() {
    let wrong = refused(
        "stages:\n  a: { kind: download }\n  b: { kind: pretrain, inputs: [a], with: { train: { warmup: [30] } } }\n  c: { kind: pretrain, inputs: [a], with: { train: { warmup: 30%, lr: -1 } } }\n",
    );
    assert_snapshot!(wrong, @"
    error: the role `shards` of stage `b` takes shards
     --> a.yaml:3:33
      |
    3 |   b: { kind: pretrain, inputs: [a], with: { train: { warmup: [30] } } }
      |                                 ^ `download` makes files
      |
      = help: `shards`: the tokens

    error: stage `b`: `train.warmup` must be a number, or a share such as 30%
     --> a.yaml:3:62
      |
    3 |   b: { kind: pretrain, inputs: [a], with: { train: { warmup: [30] } } }
      |                                                              ^^^^ this is a list

    error: the role `shards` of stage `c` takes shards
     --> a.yaml:4:33
      |
    4 |   c: { kind: pretrain, inputs: [a], with: { train: { warmup: 30%, lr: -1 } } }
      |                                 ^ `download` makes files
      |
      = help: `shards`: the tokens

    error: stage `c`: `train.lr` must be above 0
     --> a.yaml:4:71
      |
    4 |   c: { kind: pretrain, inputs: [a], with: { train: { warmup: 30%, lr: -1 } } }
      |                                                                       ^^
      |
      = help: try `1e-3`
    ");
}

#[test]
fn a_number_outside_of_the_range_that_is_declared_is_refused_though_its_kind_takes_it() {
    let wrong = refused(
        "stages:\n  a: { kind: command, with: { run: [x], outputs: [y] } }\n  b: { kind: pretrain, inputs: [a], with: { train: { batch: 4097 } } }\n",
    );
    assert_snapshot!(wrong, @"
    error: stage `b`: `train.batch` must be from 0 to 4096
     --> a.yaml:3:61
      |
    3 |   b: { kind: pretrain, inputs: [a], with: { train: { batch: 4097 } } }
      |                                                             ^^^^
    ");
}

#[test]
fn the_top_of_a_file_is_checked() {
    let told: Vec<String> = [
        "name: 12\nseed: x\nvars: [a]\nuse: x.yaml\nsweep: [1]\nstages: { a: { kind: download } }",
        "name: ''\nuse: { a.b: 1, c: d.yaml }\nstages: { a: { kind: download } }",
    ]
    .iter()
    .map(|text| refused(text))
    .collect();
    assert_snapshot!(told.join("\n\n"), @r#"
    error: `name` must be text
     --> a.yaml:1:7
      |
    1 | name: 12
      |       ^^ this is a whole number
      |
      = help: quotes make it text: "12"

    error: `seed` must be a whole number from 0 on
     --> a.yaml:2:7
      |
    2 | seed: x
      |       ^ this is text

    error: `vars` must be a map of name to value
     --> a.yaml:3:7
      |
    3 | vars: [a]
      |       ^^^ this is a list

    error: `use` must be a map of alias to file
     --> a.yaml:4:6
      |
    4 | use: x.yaml
      |      ^^^^^^ this is text
      |
      = help: write `use: { ALIAS: other.yaml }`, then `inputs: [ALIAS.STAGE]`

    error: `sweep` must be a map of setting to a list of values
     --> a.yaml:5:8
      |
    5 | sweep: [1]
      |        ^^^ this is a list
      |
      = help: write `sweep: { base.train.lr: [1e-3, 3e-4] }`

    error: `name` must not be empty
     --> a.yaml:1:7
      |
    1 | name: ''
      |       ^^

    error: an alias cannot be called `a.b`
     --> a.yaml:2:8
      |
    2 | use: { a.b: 1, c: d.yaml }
      |        ^^^
      |
      = help: names are made of letters, digits, `_` and `-`

    error: `use` of `a.b` must be a file's path
     --> a.yaml:2:13
      |
    2 | use: { a.b: 1, c: d.yaml }
      |             ^ this is a whole number

    error: there is no file `d.yaml`
     --> a.yaml:2:19
      |
    2 | use: { a.b: 1, c: d.yaml }
      |                   ^^^^^^
    "#);
}

#[test]
fn line_ends_do_not_move_what_is_shown() {
    let text = "stages:\n  a: { kind: dowload }\n  b: { kind: normalize, inputs: [x\u{e9}x], with: { a: 1 } }\n";
    let told = refused(text);
    assert_eq!(refused(&text.replace('\n', "\r\n")), told);
    assert!(told.contains("a.yaml:3:48"), "{told}");
}

#[test]
fn yaml_that_cannot_be_read_is_shown_where_it_breaks() {
    let told: Vec<String> = [
        "stages:\n\ta: 1\n",
        "stages: {a: [}\n",
        "stages: 'a\n",
        "a: 1\n---\nb: 2\n",
        "a: *b\n",
        "a: !tag 1\nstages: {a: .inf}\n",
        "[a]: 1\n",
    ]
    .iter()
    .map(|text| refused(text))
    .collect();
    assert_snapshot!(told.join("\n\n"), @"
    error: this is not valid YAML
     --> a.yaml:2:1
      |
    2 |     a: 1
      | ^ found character that cannot start any token, while scanning for the next token
      |
      = help: indent with spaces; YAML allows no tabs there

    error: this is not valid YAML
     --> a.yaml:1:14
      |
    1 | stages: {a: [}
      |              ^ did not find expected node content, while parsing a flow node

    error: this is not valid YAML
     --> a.yaml:1:11
      |
    1 | stages: 'a
      |           ^ found unexpected end of stream, while scanning a quoted scalar

    error: this is not valid YAML
     --> a.yaml:1:1
      |
    1 | a: 1
      | ^ there is more than one YAML document in this file

    error: this is not valid YAML
     --> a.yaml:1:4
      |
    1 | a: *b
      |    ^ unknown anchor

    error: tags mean nothing here
     --> a.yaml:1:4
      |
    1 | a: !tag 1
      |    ^^^^^^ has the tag `!tag`

    error: a number must be finite
     --> a.yaml:2:13
      |
    2 | stages: {a: .inf}
      |             ^^^^

    error: a name must be text
     --> a.yaml:1:1
      |
    1 | [a]: 1
      | ^^^ this is a list
    ");
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_nearest() {
    let desk = Desk::new(&[("experiments/tiny.yaml", "")]);
    let wrong = desk.load("experiments/tinny.yaml", &[]).unwrap_err();
    assert_snapshot!(wrong, @"
    error: there is no file `experiments/tinny.yaml`
     |
     = help: did you mean `experiments/tiny.yaml`?
    ");
    let wrong = desk.load("experiments", &[]).unwrap_err();
    assert_snapshot!(wrong, @"
    error: `experiments` is a folder
     |
     = help: name an experiment file in it
    ");
}

#[test]
fn bytes_that_are_no_text_are_shown() {
    let desk = Desk::new(&[]);
    desk.write("a.yaml", b"stages:\n  caf\xe9: { kind: download }\n");
    assert_snapshot!(desk.load("a.yaml", &[]).unwrap_err(), @"
    error: the file is not UTF-8
     --> a.yaml:2:6
      |
    2 |   caf�: { kind: download }
      |      ^
    ");
}

#[test]
fn a_stage_that_makes_something_else_than_a_role_takes_is_refused_where_it_is_named() {
    let wrong = refused(
        "stages:
  corpus: { kind: download }
  text: { kind: normalize, inputs: [corpus] }
  model: { kind: pretrain, inputs: [text] }
",
    );
    assert_snapshot!(wrong, @"
    error: the role `shards` of stage `model` takes shards
     --> a.yaml:4:37
      |
    4 |   model: { kind: pretrain, inputs: [text] }
      |                                     ^^^^ `normalize` makes documents
      |
      = help: `shards`: the tokens
    ");
}

#[test]
fn an_own_program_may_fill_any_role() {
    loaded(
        "stages:
  own: { kind: command, with: { run: [x], outputs: [y] } }
  model: { kind: pretrain, inputs: [own] }
",
    );
}

#[test]
fn what_cannot_be_left_out_is_told() {
    let stages = "stages:
  near: { kind: download, with: { path: a } }
  far: { kind: download, with: { hub: a/b } }
  one: { kind: normalize, inputs: [near, far] }
";
    let told = [
        format!("without: [fra, 3]\n{stages}"),
        format!("without: [near, far]\n{stages}"),
        format!("without: {{ far: true }}\n{stages}"),
        format!("sweep: {{ without: [far, near] }}\n{stages}"),
        format!("without: far\nsweep: {{ far.hub: [b/c, c/d] }}\n{stages}"),
    ];
    assert_snapshot!(told.map(|text| refused(&text)).join("\n\n"), @"
    error: `without` names `fra`, which is no stage
     --> a.yaml:1:11
      |
    1 | without: [fra, 3]
      |           ^^^ no stage has this name
      |
      = help: did you mean `far`?

    error: `without` must be a list of stages
     --> a.yaml:1:16
      |
    1 | without: [fra, 3]
      |                ^ this is a whole number

    error: `without` leaves no stage
     --> a.yaml:1:10
      |
    1 | without: [near, far]
      |          ^^^^^^^^^^^ all others read what is left out

    error: `without` must be a list of stages
     --> a.yaml:1:10
      |
    1 | without: { far: true }
      |          ^^^^^^^^^^^^^ this is a map

    error: `without` cannot be swept
     --> a.yaml:1:10
      |
    1 | sweep: { without: [far, near] }
      |          ^^^^^^^ its runs would have other stages
      |
      = help: run the file once for each, with `-S without=STAGE`

    error: the sweep of `far.hub` would make the same runs
     --> a.yaml:2:10
      |
    2 | sweep: { far.hub: [b/c, c/d] }
      |          ^^^^^^^ `without` leaves the stage out
    ");
}
