//! Looking at what is there: runs, stages, graphs.

use insta::assert_snapshot;

use crate::{harness::Project, living::learning, skipped::skipped};

#[test]
fn runs_are_filtered_tagged_noted_and_removed() {
    let project = Project::chain();
    project.tinylm("run chain.yaml --tag baby").success();
    project.tinylm("run chain.yaml").success();
    let tagged = project
        .tinylm_words(&["runs", "--where", r#"tag = "baby""#])
        .success();
    assert_eq!(tagged.stdout.lines().skip(1).count(), 1, "{tagged}");
    project.tinylm("note @last a second look").success();
    let found = project.tinylm_words(&["runs", "second look"]).success();
    assert_eq!(found.stdout.lines().skip(1).count(), 1, "{found}");
    let wrong = project
        .tinylm_words(&["runs", "--where", "loss <"])
        .failure(2);
    assert!(wrong.stderr.starts_with("error: "), "{wrong}");
    let last = project.last_run("name");
    project.tinylm(&format!("rm {last}")).success();
    assert_ne!(project.last_run("name"), last);
    project.tinylm(&format!("show {last}")).failure(2);
}

#[test]
fn a_tagged_run_is_removed_only_when_that_is_said_and_a_change_is_answered() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let name = project.last_run("name");
    let said = |args: &str| {
        let output = project.tinylm(args).success();
        output.stdout.replace(&name, "NAME")
    };
    assert_eq!(said("tag @last good kept"), "NAME: #good #kept\n");
    assert_eq!(said("note @last a second look"), "NAME: noted\n");
    assert_eq!(said("--quiet note @last a third"), "");
    let refused = project.tinylm("rm @last").failure(2);
    let told = format!("error: {name} is tagged: #good #kept\n  help: `--tagged` removes it");
    assert!(refused.stderr.starts_with(&told), "{refused}");
    assert_eq!(project.last_run("name"), name);
    assert!(said("rm @last --tagged").starts_with("removed NAME"));
    project.tinylm("run chain.yaml --tag good").success();
    let tags = project.tinylm("tag @last good --delete").success();
    assert!(tags.stdout.ends_with(": no tags\n"), "{tags}");
    project.tinylm("rm @last").success();
}

#[test]
fn the_columns_asked_for_are_listed_in_their_order() {
    let project = Project::chain();
    project
        .tinylm("run chain.yaml --tag kept --tag old")
        .success();
    let named = "runs --columns corpus.bytes,status,tag,run";
    let runs = project.tinylm(named).success().stdout;
    let words = |line: Option<&str>| {
        let words = line.unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let mut lines = runs.lines();
    assert_eq!(words(lines.next()), "run corpus.bytes status tag run");
    let row = words(lines.next());
    assert!(row.contains(" 20 done kept old "), "{runs}");
    // Whatever heads the table can be asked for, though a `command` has a setting `run`.
    let name = row.split(' ').next().unwrap();
    assert!(row.ends_with(&format!(" {name}")), "{runs}");
    let runs = project.tinylm("runs --columns run,experiment,took,tags --sort -took");
    let row = words(runs.success().stdout.lines().nth(1));
    assert!(row.starts_with(&format!("{name} {name} chain ")), "{row}");
    assert!(row.ends_with(" kept old"), "{row}");
    let json = project
        .tinylm("runs --columns corpus.bytes,tag --json")
        .success();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json[0]["corpus.bytes"], 20.0);
    assert_eq!(json[0]["tag"], serde_json::json!(["kept", "old"]));
    let wrong = project.tinylm("runs --columns statsu").failure(2);
    assert!(wrong.stderr.contains("did you mean `status`?"), "{wrong}");
}

#[test]
fn runs_that_fit_are_listed_and_removed_only_when_that_is_said() {
    let project = Project::chain();
    project.tinylm("run chain.yaml --tag good").success();
    for _ in 0..2 {
        project.tinylm("run chain.yaml").success();
    }
    let names = || {
        project
            .tinylm("runs")
            .success()
            .stdout
            .matches("chain")
            .count()
    };
    let rm = |more: &[&str]| {
        let words = [&["rm", "--where", "experiment = chain"], more].concat();
        project.tinylm_words(&words).success().stdout
    };
    let listed = rm(&[]);
    assert!(listed.ends_with("`--yes` removes 2 runs; 1 passed over, going on or tagged\n"));
    assert_eq!((listed.matches(" chain ").count(), names()), (2, 3));
    assert!(rm(&["--yes"]).ends_with("2 removed; 1 passed over, going on or tagged\n"));
    assert_eq!(names(), 1);
    assert!(rm(&["--yes", "--tagged"]).ends_with("1 removed\n"));
    assert!(rm(&["--yes"]).ends_with("no run to remove\n"));
    project.tinylm("rm").failure(2);
    project.tinylm("rm @last --yes").failure(2);
}

/// Presses the tabulator key behind some words, in a real shell.
fn completed(project: &Project, shell: &str, words: &str) -> Option<Vec<String>> {
    let version = project.output(&mut project.shell(&format!("{shell} --version")));
    if version.code != Some(0) {
        skipped(&format!("there is no `{shell}`"));
        return None;
    }
    let script = match shell {
        "bash" => {
            // As bash does it, an `@` is a word by itself, and yet part of the one that is completed.
            let asked = "COMP_WORDS=(${WORDS//@/@ }); case $LAST in @?*) COMP_WORDS+=(@ \"${LAST#@}\");; *) COMP_WORDS+=(\"$LAST\");; esac; \
                COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tinylm tinylm \"$LAST\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
            format!("source <(tinylm completions bash); {asked}")
        }
        // `compadd` is what a completion says its words with.
        "zsh" => "autoload -Uz compinit; compinit -u -d $PWD/.zcompdump; source <(tinylm completions zsh); \
                 _describe() { print -l -- ${(P)${@[-1]}%%:*} }; \
                 words=(${=WORDS} \"$LAST\"); CURRENT=${#words}; _clap_dynamic_completer_tinylm"
            .to_owned(),
        // A line without a tab, which is a word without a description, is a failure to split.
        _ => "tinylm completions fish | source; complete -C \"$WORDS $LAST\" | string split -f1 \\t; true".to_owned(),
    };
    let (before, last) = words.rsplit_once(' ').unwrap();
    let mut command = project.shell(&format!("exec {shell} -c \"$SCRIPT\""));
    command
        .env("SCRIPT", script)
        .env("WORDS", before)
        .env("LAST", last);
    command.env("HOME", project.path(""));
    let said = project.output(&mut command).success();
    Some(said.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn a_shell_completes_runs_stages_and_kinds_that_there_are_now() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let name = project.newest();
    for shell in ["bash", "zsh", "fish"] {
        let stage = format!("{name}/sorted");
        for (words, wanted) in [
            (format!("tinylm report {}", &name[..4]), name.as_str()),
            (format!("tinylm show {name}/so"), stage.as_str()),
            ("tinylm run chain.yaml --until sor".to_owned(), "sorted"),
            ("tinylm stages tok".to_owned(), "tokenizer"),
            ("tinylm show @la".to_owned(), "@last"),
            ("tinylm show @last/so".to_owned(), "@last/sorted"),
            ("tinylm export @last --to cs".to_owned(), "csv"),
        ] {
            let Some(offered) = completed(&project, shell, &words) else {
                break;
            };
            assert_eq!(offered, [wanted], "{shell}: {words}");
        }
    }
}

#[test]
fn what_speaks_is_completed_by_models_alone() {
    let project = learning(2);
    project.tinylm("run learning.yaml").success();
    for command in ["serve", "chat", "sample"] {
        let words = format!("tinylm {command} @last/");
        let Some(offered) = completed(&project, "bash", &words) else {
            return;
        };
        assert_eq!(offered, ["@last/model"], "{command}");
    }
    // The numbers of any stage can be exported.
    for command in ["show", "export"] {
        let all = completed(&project, "bash", &format!("tinylm {command} @last/")).unwrap();
        assert!(all.len() > 1, "{command}: {all:?}");
    }
}

#[test]
fn the_headline_is_the_number_that_the_file_names() {
    let project = Project::chain();
    let named = "name: chain\nheadline: corpus.bytes\n";
    project.replace("chain.yaml", "name: chain\n", named);
    project.tinylm("run chain.yaml").success();
    let runs = project.tinylm("runs").success();
    assert!(runs.stdout.ends_with("headline: corpus.bytes\n"), "{runs}");
    assert!(runs.stdout.contains(" 20"), "{runs}");
    let report = project.tinylm("report").success();
    assert!(report.stdout.contains("corpus.bytes 20"), "{report}");
    project.replace("chain.yaml", "corpus.bytes", "corpsu.bytes");
    let refused = project.tinylm("plan chain.yaml").failure(2);
    assert!(refused.stderr.contains("chain.yaml:2:"), "{refused}");
    assert!(
        refused.stderr.contains("did you mean `corpus`?"),
        "{refused}"
    );
}

#[test]
fn a_headline_that_no_stage_can_tell_is_refused_at_its_line() {
    let project = Project::new();
    project.tinylm("init mine.yaml").success();
    let text = project.read("mine.yaml");
    for (headline, told) in [
        ("model.lss", "did you mean `loss`?"),
        ("model.nothing_alike", "there is `best_validation_loss`, "),
        ("chat.nonsense", "there is `documents`, `bytes`, "),
        ("dialogs.byts", "did you mean `bytes`?"),
    ] {
        project.write("mine.yaml", &format!("headline: {headline}\n{text}"));
        let refused = project.tinylm("plan mine.yaml").failure(2);
        assert!(refused.stderr.contains("mine.yaml:1:"), "{refused}");
        assert!(refused.stderr.contains(told), "{refused}");
    }
    for headline in ["model.validation_loss_assistant", "shards.train_tokens"] {
        project.write("mine.yaml", &format!("headline: {headline}\n{text}"));
        project.tinylm("plan mine.yaml").success();
    }
}

#[test]
fn a_graph_is_drawn_as_text_mermaid_and_dot() {
    let project = Project::chain();
    let text = project.tinylm("dag chain.yaml").success();
    assert_snapshot!(text, @"
    corpus  download
    sorted  command   <- corpus
    first   command   <- sorted
    ");
    let mermaid = project.tinylm("dag chain.yaml --format mermaid").success();
    assert!(mermaid.stdout.starts_with("flowchart TD\n"), "{mermaid}");
    assert!(mermaid.stdout.contains("s0 --> s1"), "{mermaid}");
    let dot = project.tinylm("dag chain.yaml --format dot").success();
    assert!(dot.stdout.contains(r#""corpus" -> "sorted""#), "{dot}");
}

#[test]
fn every_kind_is_listed_with_its_settings() {
    let project = Project::new();
    let stages = project.tinylm("stages").success();
    let names: Vec<&str> = stages
        .stdout
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let all = "download normalize dedupe tokenizer binarize pretrain finetune import evaluate sample export command";
    assert_eq!(names, all.split(' ').collect::<Vec<_>>());
    for name in names {
        let settings = project.tinylm(&format!("stages {name}")).success();
        assert!(settings.stdout.contains("\nwith:\n"), "{settings}");
    }
    let wrong = project.tinylm("stages dedup").failure(2);
    assert!(wrong.stderr.contains("did you mean `dedupe`?"), "{wrong}");
}

#[test]
fn a_kind_asked_for_as_json_comes_alone_and_with_its_inputs() {
    let project = Project::new();
    let output = project.tinylm("stages pretrain --json").success();
    let kinds: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(kinds.as_array().unwrap().len(), 1, "{output}");
    assert_eq!(kinds[0]["makes"], "a model");
    assert_eq!(kinds[0]["inputs"][0]["role"], "shards");
    assert_eq!(kinds[0]["inputs"][0]["takes"][0], "shards");
}

#[test]
fn a_plan_ends_with_the_command_that_it_planned() {
    let project = Project::chain();
    let words = [
        "plan",
        "chain.yaml",
        "-S",
        "seed=7",
        "-S",
        "sorted.run=[echo, a b]",
    ];
    let planned = project.tinylm_words(&words).success();
    let last = planned.stdout.lines().last().unwrap();
    let command = "`tinylm run chain.yaml -S seed=7 -S 'sorted.run=[echo, a b]'` would run";
    assert!(last.starts_with(command), "{planned}");
}

#[test]
fn every_listing_has_json() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let listings = [
        "runs --json",
        "plan chain.yaml --json",
        "dag chain.yaml --json",
        "dag chain.yaml --format json",
        "stages --json",
        "stages dedupe --json",
        "datasets --json",
        "doctor --json",
        "cache du --json",
        "cache verify --json",
        "gc --json",
    ];
    for listing in listings {
        let output = project.tinylm(listing).success();
        let value: serde_json::Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{listing}: {error}\n{output}"));
        assert!(value.is_array(), "{listing}: {output}");
    }
}

#[test]
fn the_quickstart_is_at_hand_without_a_checkout() {
    let project = Project::new();
    project.tinylm("init --quickstart").success();
    project.tinylm("init --quickstart").success();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "experiments/quickstart.yaml",
        "data/smalltalk.txt",
        "data/unseen.txt",
    ] {
        let shipped = std::fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(project.read(file), shipped);
    }
    let run = project.tinylm("run experiments/quickstart.yaml --until shards");
    assert!(run.success().stdout.contains("5 made"));
}

/// The checker of JSON schemas that is here, if one is.
pub(crate) fn checker(project: &Project) -> Option<&'static str> {
    ["check-jsonschema", "python3 -m check_jsonschema"]
        .into_iter()
        .find(|checker| {
            let said = project.output(&mut project.shell(&format!("{checker} --version")));
            said.code == Some(0)
        })
}

#[test]
fn the_schema_takes_every_experiment_that_ships_and_no_wrong_one() {
    let project = Project::new();
    let schema = project.tinylm("schema").success().stdout;
    project.write("schema.json", &schema);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let stage = &schema["definitions"]["stage"]["properties"];
    assert!(stage["retries"]["description"].is_string());
    let Some(checker) = checker(&project) else {
        skipped("there is no `check-jsonschema` (PyPI) to hold files against the schema");
        return;
    };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments");
    let checked = |files: &str| {
        let line = format!("{checker} --schemafile schema.json {files}");
        project.output(&mut project.shell(&line))
    };
    checked(&format!("{root}/*.yaml {root}/*/*.yaml")).success();
    for (wrong, named) in [
        ("stagse: {}", "stagse"),
        ("watch: { tensorbord: x }", "tensorbord"),
        ("stages: { a: { kind: dedupe, inptus: [b] } }", "inptus"),
        ("stages: { a: { kind: dedupr } }", "dedupr"),
        (
            "stages: { a: { kind: dedupe, with: { treshold: 0.8 } } }",
            "treshold",
        ),
        (
            "stages: { a: { kind: dedupe, with: { method: exakt } } }",
            "exakt",
        ),
        (
            "stages: { a: { kind: pretrain, with: { train: { steps: many } } } }",
            "many",
        ),
        (
            "stages: { a: { kind: evaluate, inputs: { modle: b } } }",
            "modle",
        ),
    ] {
        project.write("wrong.yaml", wrong);
        let refused = checked("wrong.yaml");
        assert_ne!(refused.code, Some(0), "{wrong}");
        assert!(refused.to_string().contains(named), "{wrong}\n{refused}");
    }
}

#[test]
fn the_language_is_told_on_one_page_of_eighty_columns() {
    let project = Project::new();
    let page = project.tinylm("language").success().stdout;
    for part in [
        "extends: Another experiment file",
        "timeout: The longest time",
        "forty-one ",
        "binarize: turns documents into shards",
        "  bits_per_byte: The loss over bytes in bits",
        "      <|im_start|>user\n      hello<|im_end|>\n",
        "eou: Turns that each end in `__eou__`.\n    a .txt file\n      hello __eou__ hi __eou__\n    becomes\n      user: hello\n",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/LANGUAGE.txt");
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    let mend = "write it anew: `tinylm language > experiments/LANGUAGE.txt`";
    assert!(
        kept == page,
        "the page that the README links is another: {mend}"
    );
    let long: Vec<&str> = page
        .lines()
        .filter(|line| line.chars().count() > 80)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_file_that_the_language_shows_can_be_planned() {
    let project = Project::new();
    project.write(
        "my.jsonl",
        "{\"prompt\": \"hello\", \"response\": \"hi\"}\n",
    );
    let page = project.tinylm("language").success().stdout;
    let (page, _) = page.split_once("\nOn a command line").unwrap();
    let blocks = page.split("\n\n").filter(|block| block.starts_with("  "));
    let files: Vec<String> = blocks
        .map(|block| block.replace("\n  ", "\n")[2..].to_owned())
        .collect();
    assert_eq!(files.len(), 4);
    project.write("mine.yaml", &files[0]);
    for file in &files {
        project.write("file.yaml", file);
        let plan = project.tinylm("plan file.yaml").success();
        assert!(plan.stdout.contains("would run"), "{file}\n{plan}");
    }
}

#[test]
fn every_format_of_the_language_reads_its_example_as_the_language_says() {
    use tinylm_pipeline::settings::Choice;
    let project = Project::new();
    let mut file = "stages:\n".to_owned();
    for (idx, example) in tinylm_stages::kinds::normalize::EXAMPLES.iter().enumerate() {
        let (word, ending) = (example.format.word(), example.ending);
        project.write(&format!("{word}.{ending}"), example.text);
        file += &format!(
            "  d{idx}: {{ kind: download, with: {{ path: {word}.{ending} }} }}
  c{idx}: {{ kind: normalize, inputs: [d{idx}], with: {{ format: {word} }} }}
"
        );
    }
    project.write("all.yaml", &file);
    project.tinylm("run all.yaml").success();
    for (idx, example) in tinylm_stages::kinds::normalize::EXAMPLES.iter().enumerate() {
        let shown = project
            .tinylm(&format!("show @last/c{idx}"))
            .success()
            .stdout;
        let (_, shown) = shown.split_once("\ndocuments, ").unwrap();
        let lines = shown
            .lines()
            .skip(2)
            .map(|line| line.strip_prefix("  ").unwrap_or(line));
        let said = lines.collect::<Vec<_>>().join("\n");
        let said = said
            .replace("\n\nrejected", "\nrejected")
            .replace("<|im_end|>", "");
        let said = ["user", "assistant"].iter().fold(said, |said, role| {
            said.replace(&format!("<|im_start|>{role}\n"), &format!("{role}: "))
        });
        assert_eq!(
            said.trim_end(),
            example.becomes,
            "{}",
            example.format.word()
        );
    }
}

#[test]
fn an_experiment_is_written_for_a_file_of_ones_own() {
    let project = Project::new();
    let said: String = (0..60)
        .map(|n| format!("[0{}.03.23, 10:{n:02}:10] Anna: how is number {n}?\n[0{}.03.23, 10:{n:02}:40] Bob: it is well.\n", 1 + n % 9, 1 + n % 9))
        .collect();
    project.write("chat.txt", &said);
    project.write(
        "tale.txt",
        &"Once upon a time there was a lamp. ".repeat(200),
    );
    // The first is sized by a guess, the next by what the first did.
    for (flag, file, asked, because) in [
        (
            "--chat",
            "chat.txt",
            "answers> hello",
            "by a guess of its speed",
        ),
        (
            "--text",
            "tale.txt",
            "goes_on> Once upon a time",
            "/model did ",
        ),
    ] {
        let name = format!("mine/{}.yaml", &flag[2..]);
        let init = format!("init {name} {flag} {file} --minutes 1");
        let told = project.tinylm(&init).success();
        assert!(told.stdout.contains(because), "{told}");
        let run = project
            .tinylm(&format!(
                "run {name} -S model.train.epochs=1 -S model.model.n_layers=1"
            ))
            .success();
        assert!(run.stdout.contains(asked), "{run}");
        let plan = project.tinylm(&format!(
            "plan {name} -S model.train.epochs=1 -S model.model.n_layers=1"
        ));
        assert!(plan.success().stdout.contains("nothing to do"));
    }
    let refused = project
        .tinylm("init more.yaml --chat nowhere.txt")
        .failure(2);
    assert!(refused.stderr.contains("nowhere.txt"), "{refused}");
    assert!(!project.path("more.yaml").exists());
}

#[test]
fn a_first_experiment_can_be_written_planned_and_run() {
    let project = Project::new();
    project.tinylm("init").success();
    let again = project.tinylm("init").success();
    assert!(again.stdout.contains("found experiment.yaml"), "{again}");
    project.tinylm("init sub/deep/other.yaml").success();
    let schema = project.tinylm("schema").success().stdout;
    for (file, beside) in [
        ("experiment.yaml", ""),
        ("sub/deep/other.yaml", "sub/deep/"),
    ] {
        let text = project.read(file);
        // Above the first key, or editors pass it over.
        let (head, _) = text.split_once("\nname: ").unwrap();
        let (question, named) = head
            .split_once("\n#\n# yaml-language-server: $schema=")
            .unwrap();
        assert_eq!(
            question,
            "# Does a tiny model learn to answer from a handful of dialogues?"
        );
        let named = project.read(&format!("{beside}{named}"));
        assert_eq!(named, schema.trim_end());
    }
    project.write("mine.yaml", "name: mine\n");
    let refused = project.tinylm("init mine.yaml").failure(2);
    assert!(refused.stderr.contains("help: "), "{refused}");
    assert_eq!(project.read("mine.yaml"), "name: mine\n");
    let plan = project.tinylm("plan experiment.yaml").success();
    assert!(
        plan.stdout.contains("would run 1 stage, then at most 5"),
        "{plan}"
    );
    let run = project.tinylm("run experiment.yaml").success();
    assert!(run.stdout.contains("answers> how are you?"), "{run}");
    assert!(run.stderr.contains("hold no documents back"), "{run}");
    assert_eq!(run.stderr.matches("warning: ").count(), 1, "{run}");
    for shell in ["bash", "zsh", "fish"] {
        let script = project.tinylm(&format!("completions {shell}")).success();
        assert!(script.stdout.contains("tinylm"), "{shell}");
    }
}
