//! Data from outside is pinned at first use.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    harness::{Output, Project, signal, wait_until},
    hub::{COMMIT, Fault, Hub},
};

/// Serves whatever `body` is now, to everybody, for as long as the test runs.
fn serve(body: &Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/corpus.txt", listener.local_addr().unwrap());
    let body = Arc::clone(body);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request: Vec<String> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let text = body.lock().unwrap().clone();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                text.len()
            );
            let sent = if request.first().is_some_and(|line| line.starts_with("HEAD")) {
                ""
            } else {
                &text
            };
            // A client that has heard enough may hang up.
            stream.write_all(head.as_bytes()).ok();
            stream.write_all(sent.as_bytes()).ok();
        }
    });
    address
}

fn online(project: &Project, args: &str) -> Output {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    project.output(command.env_remove("TINYLM_OFFLINE"))
}

#[test]
fn an_address_is_pinned_at_first_use_and_asked_again_by_update() {
    let body = Arc::new(Mutex::new("one\n".to_owned()));
    let address = serve(&body);
    let project = Project::new();
    let text = format!("stages:\n  text: {{ kind: download, with: {{ url: \"{address}\" }} }}\n");
    project.write("net.yaml", &text);

    let plan = online(&project, "plan net.yaml").success();
    assert!(plan.stdout.contains("pending  text"), "{plan}");
    assert!(!project.path("net.lock").exists(), "a plan writes nothing");
    let locked = online(&project, "run net.yaml --locked").failure(1);
    assert!(locked.stderr.contains("is not pinned"), "{locked}");

    let asking = format!("text: asking what `url {address}` is now\n");
    let first = online(&project, "run net.yaml").success();
    assert!(first.stderr.contains(&asking), "{first}");
    assert_eq!(project.outcomes(), "text made");
    let lock = project.read("net.lock");
    assert!(lock.contains(&address), "{lock}");

    *body.lock().unwrap() = "two\n".to_owned();
    let again = online(&project, "run net.yaml").success();
    assert!(!again.stderr.contains("asking"), "{again}");
    online(&project, "run net.yaml --locked").success();
    assert_eq!(project.outcomes(), "text hit", "the pin holds");

    let update = online(&project, "update net.yaml").success();
    assert!(update.stdout.starts_with("changed"), "{update}");
    online(&project, "run net.yaml").success();
    assert_eq!(project.outcomes(), "text made");
    assert_eq!(project.artifact("text", "corpus.txt"), "two\n");
}

#[test]
fn a_stop_is_heard_while_an_address_is_read_for_its_digest() {
    let hub = Hub::start();
    hub.page("/corpus.txt", b"one\n");
    hub.fault("/corpus.txt", Fault::Stall(Duration::from_secs(600)));
    let project = Project::new();
    let url = format!("{}/corpus.txt", hub.address());
    let text = format!("stages:\n  text: {{ kind: download, with: {{ url: \"{url}\" }} }}\n");
    project.write("net.yaml", &text);
    let mut command = project.command(&["run", "net.yaml"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.env_remove("TINYLM_OFFLINE").spawn().unwrap();
    wait_until("a request", || hub.n_requests() > 0);
    signal(run.id(), "INT");
    let stopped = project.wait(run).failure(130);
    assert_eq!(hub.n_requests(), 1, "{stopped}");
    assert!(!project.path("net.lock").exists());
}

const TALK: &str = "\
stages:
  talk: { kind: download, with: { hub: someone/talk } }
";

/// A hub with one repository, for which one must have the token `good`.
fn gated_hub() -> Hub {
    let hub = Hub::start();
    hub.file("datasets/someone/talk", "a.jsonl", b"{}\n", false);
    hub.gate("datasets/someone/talk", "good", "GatedRepo");
    hub
}

/// Runs `run talk.yaml` with these variables and none of those that tests have.
fn with_variables(project: &Project, variables: &[(&str, &str)]) -> Output {
    let mut command = project.command(&["run", "talk.yaml"]);
    command.env_remove("TINYLM_OFFLINE").env_remove("HF_HOME");
    project.output(command.envs(variables.iter().copied()))
}

#[test]
fn the_hub_is_asked_where_and_as_whom_the_environment_says() {
    let hub = gated_hub();
    let project = Project::new();
    project.write("talk.yaml", TALK);
    let endpoint = ("HF_ENDPOINT", hub.address());

    let refused = with_variables(&project, &[endpoint]).failure(1);
    assert!(
        refused.stderr.contains("`someone/talk` is gated"),
        "{refused}"
    );
    let n_before = hub.n_requests();
    let token = ("HF_TOKEN", "good");
    for switch in ["HF_HUB_OFFLINE", "TINYLM_OFFLINE"] {
        let off = with_variables(&project, &[endpoint, token, (switch, "1")]).failure(1);
        assert!(off.stderr.contains("the network is off"), "{off}");
    }
    assert_eq!(hub.n_requests(), n_before);

    with_variables(&project, &[endpoint, token]).success();
    assert_eq!(project.artifact("talk", "a.jsonl"), "{}\n");
    // The file itself is asked for by another process than the commit.
    let good = Some("Bearer good".to_owned());
    assert_eq!(hub.authorizations("a.jsonl"), [good]);
}

#[test]
fn a_token_that_was_stored_is_sent() {
    for (variable, file) in [
        ("HF_TOKEN_PATH", "token"),
        ("HF_HOME", "token"),
        ("XDG_CACHE_HOME", "huggingface/token"),
        ("HOME", ".cache/huggingface/token"),
    ] {
        let hub = gated_hub();
        let project = Project::new();
        project.write("talk.yaml", TALK);
        project.write(&format!("place/{file}"), "good\n");
        let place = match variable {
            "HF_TOKEN_PATH" => project.path("place/token"),
            _ => project.path("place"),
        };
        let endpoint = ("HF_ENDPOINT", hub.address());
        let place = (variable, place.to_str().unwrap());
        // A token in the environment counts more.
        with_variables(&project, &[endpoint, place, ("HF_TOKEN", "bad")]).failure(1);
        with_variables(&project, &[endpoint, place]).success();
        let disabled = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        let other = Project::new();
        other.write("talk.yaml", TALK);
        with_variables(&other, &[endpoint, place, disabled]).failure(1);
    }
}

#[test]
fn no_other_token_is_sent_than_the_one_that_was_found() {
    let hub = gated_hub();
    let project = Project::new();
    project.write("talk.yaml", TALK);
    project.write("home/token", "good");
    let (home, nowhere) = (project.path("home"), project.path("nowhere"));
    let variables = [
        ("HF_ENDPOINT", hub.address()),
        ("HF_HOME", home.to_str().unwrap()),
        ("HF_TOKEN_PATH", nowhere.to_str().unwrap()),
    ];
    with_variables(&project, &variables).failure(1);
    assert_eq!(hub.authorizations("/revision/main"), [None]);
}

#[test]
fn what_the_hubs_own_tools_fetched_is_found_where_they_put_it() {
    for (variable, folder) in [
        ("HF_HUB_CACHE", ""),
        ("HF_HOME", "hub/"),
        ("XDG_CACHE_HOME", "huggingface/hub/"),
        ("HOME", ".cache/huggingface/hub/"),
    ] {
        let project = Project::new();
        project.write("talk.yaml", TALK);
        let repo = format!("place/{folder}datasets--someone--talk");
        project.write(&format!("{repo}/refs/main"), COMMIT);
        project.write(&format!("{repo}/snapshots/{COMMIT}/a.jsonl"), "{}\n");
        let place = project.path("place");
        let place = (variable, place.to_str().unwrap());
        let offline = ("HF_HUB_OFFLINE", "1");
        with_variables(&project, &[offline, place]).success();
        assert_eq!(project.artifact("talk", "a.jsonl"), "{}\n");
        let lock = project.read("talk.lock");
        let mut update = project.command(&["update", "talk.yaml"]);
        let update = project.output(update.envs([offline, place]));
        let update = update.failure(1);
        assert!(update.stderr.contains("the network is off"), "{update}");
        assert_eq!(project.read("talk.lock"), lock);
    }
}

#[test]
fn kaggle_is_asked_as_whom_the_environment_says() {
    let hub = Hub::start();
    let version = br#"{"currentVersionNumber": 4}"#;
    hub.page("/api/v1/datasets/view/someone/talk", version);
    let project = Project::new();
    project.write("talk.yaml", &TALK.replace("hub:", "kaggle:"));
    let endpoint = ("KAGGLE_API_ENDPOINT", hub.address());
    let (user, key) = (("KAGGLE_USERNAME", "me"), ("KAGGLE_KEY", "secret"));
    for given in [user, key] {
        let nobody = with_variables(&project, &[endpoint, given]).failure(1);
        assert!(nobody.stderr.contains("set KAGGLE_USERNAME"), "{nobody}");
    }
    let missing = with_variables(&project, &[endpoint, user, key]).failure(1);
    assert!(
        missing.stderr.contains("Kaggle has no dataset"),
        "{missing}"
    );
    // `me:secret`, said once by this process and once by the stage's own.
    let said = Some("Basic bWU6c2VjcmV0".to_owned());
    assert_eq!(hub.authorizations("/someone/talk"), [said.clone(), said]);
}

#[test]
fn a_kaggle_key_that_was_stored_is_sent() {
    for (variable, file) in [
        ("KAGGLE_CONFIG_DIR", "kaggle.json"),
        ("HOME", ".kaggle/kaggle.json"),
    ] {
        let hub = Hub::start();
        let version = br#"{"currentVersionNumber": 4}"#;
        hub.page("/api/v1/datasets/view/someone/talk", version);
        let project = Project::new();
        project.write("talk.yaml", &TALK.replace("hub:", "kaggle:"));
        let stored = r#"{"username": "me", "key": "secret"}"#;
        project.write(&format!("place/{file}"), stored);
        let place = project.path("place");
        let place = (variable, place.to_str().unwrap());
        let endpoint = ("KAGGLE_API_ENDPOINT", hub.address());
        with_variables(&project, &[endpoint, place]).failure(1);
        let said = Some("Basic bWU6c2VjcmV0".to_owned());
        assert_eq!(hub.authorizations("/someone/talk")[0], said, "{variable}");
        // The environment counts more.
        let other = [("KAGGLE_USERNAME", "you"), ("KAGGLE_KEY", "secret")];
        with_variables(&project, &[endpoint, place, other[0], other[1]]).failure(1);
        let asked = hub.authorizations("/someone/talk");
        assert_ne!(asked[asked.len() - 1], said, "{variable}");
    }
}

/// Every file below a folder that holds this text, and the folder's own names that do.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            if bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_secret_in_an_address_is_written_down_nowhere_and_never_said() {
    let hub = Hub::start();
    hub.page("/corpus.txt", b"one\n");
    let project = Project::new();
    let address = hub.address().replace("://", "://me:PASSWORD-1@");
    let text = format!(
        "vars: {{ token: TOKEN-22 }}\nstages:\n  text: {{ kind: download, with: {{ url: \"{address}/corpus.txt?file=1&token=${{token}}&X-Amz-Signature=SIGNED-3\" }} }}\n"
    );
    project.write("net.yaml", &text);
    let set = format!("run net.yaml -S text.url={address}/corpus.txt?sig=TOKEN-22");
    let missing = format!("run net.yaml -S text.url={address}/other.txt?sig=TOKEN-22");
    let locked = format!("{set} --locked");
    let sweep = format!("run net.yaml --sweep text.url={address}/corpus.txt?sig=TOKEN-22");
    let mut said = String::new();
    for (args, code) in [
        ("plan -v net.yaml", 0),
        ("run net.yaml", 0),
        (&*locked, 1),
        (&*set, 0),
        (&*sweep, 0),
        (&*missing, 1),
        ("resume @last", 1),
        ("update net.yaml", 0),
        ("dag net.yaml", 0),
        ("runs", 0),
        ("show @last", 0),
        ("show @last/text", 0),
        ("run net.yaml --force text", 0),
        ("show @last --json", 0),
        ("report @last", 0),
    ] {
        let told = online(&project, args);
        said += &format!("$ {}\n{told}", args.split(' ').next().unwrap());
        assert_eq!(told.code, Some(code), "{args}: {told}");
    }
    assert_eq!(
        hub.authorizations("/corpus.txt")[0],
        Some("Basic bWU6UEFTU1dPUkQtMQ==".to_owned())
    );
    let lock = project.read("net.lock");
    assert!(lock.contains("?file=1&token=[secret]"), "{lock}");
    std::fs::remove_file(project.path("net.yaml")).unwrap();
    for secret in ["PASSWORD-1", "TOKEN-22", "SIGNED-3"] {
        assert!(!said.contains(secret), "{said}");
        let found = files_with(&project.path(""), secret);
        assert_eq!(found, [] as [std::path::PathBuf; 0], "{secret}");
    }
}

#[test]
fn the_doctor_says_whether_the_hub_answers() {
    let hub = Hub::start();
    let project = Project::new();
    let asked = |endpoint: &str| {
        let mut command = project.command(&["doctor"]);
        command.env("HF_ENDPOINT", endpoint);
        project.output(command.env_remove("TINYLM_OFFLINE"))
    };
    let well = asked(hub.address()).success();
    assert!(well.stdout.contains("well   hub"), "{well}");
    // Nobody listens at this port any more.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let wrong = asked(&format!("http://me:hunter22@{nobody}")).failure(3);
    assert!(wrong.stdout.contains("WRONG  hub"), "{wrong}");
    assert!(wrong.stdout.contains("does not answer"), "{wrong}");
    assert!(!wrong.stdout.contains("hunter22"), "{wrong}");
}

#[test]
fn a_mistake_is_shown_without_the_secrets_in_its_line() {
    let project = Project::new();
    let stage = "{ kind: download, with: { ulr: 'https://me:hunter22@x.org/a?token=abcdef' } }";
    project.write("a.yaml", &format!("name: a\nstages:\n  raw: {stage}\n"));
    let output = project.tinylm("plan a.yaml").failure(2);
    assert!(output.stderr.contains("did you mean `url`?"), "{output}");
    assert!(
        output
            .stderr
            .contains("https://***********@x.org/a?token=******"),
        "{output}"
    );
    for secret in ["hunter22", "abcdef"] {
        assert!(!output.stderr.contains(secret), "{output}");
    }
}

#[test]
fn a_secret_in_an_address_on_a_command_line_is_written_down_nowhere() {
    let project = Project::new();
    let run = |n: u8| {
        let says = "echo https://me:PASSWORD-1@x.org/?token=TOKEN-22; echo TOKEN-22";
        let text = format!(
            "stages: {{ own: {{ kind: command, with: {{ run: [sh, -c, '{says} {n}; touch {{out}}/x'], outputs: [x] }} }} }}\n"
        );
        project.write("own.yaml", &text);
        let plan = project.tinylm("plan -v own.yaml").success();
        format!("{plan}{}", project.tinylm("run own.yaml").success())
    };
    let said = run(1) + &run(2);
    let shown = project.tinylm("show @last/own").success().to_string();
    assert!(shown.contains("[secret]@x.org/?token=[secret]"), "{shown}");
    std::fs::remove_file(project.path("own.yaml")).unwrap();
    for secret in ["PASSWORD-1", "TOKEN-22"] {
        assert!(
            !said.contains(secret) && !shown.contains(secret),
            "{said}{shown}"
        );
        let found = files_with(&project.path(""), secret);
        assert_eq!(found, [] as [std::path::PathBuf; 0], "{secret}");
    }
}

#[test]
fn a_run_whose_secret_was_not_written_down_is_resumed_where_the_secret_still_stands() {
    let hub = Hub::start();
    let project = Project::new();
    let file = |url: &str| {
        let text = format!("stages: {{ text: {{ kind: download, with: {{ url: '{url}' }} }} }}\n");
        project.write("net.yaml", &text);
    };
    let address = hub.address();
    let written = format!("{address}/written.txt?token=TOKEN-22");
    file(&written);
    let _ = online(&project, "run net.yaml").failure(1);
    hub.page("/written.txt", b"one\n");
    file("http://nowhere");
    let refused = online(&project, "resume @last").failure(1);
    let said = "written.txt?token=[secret]` was not written down";
    assert!(refused.stderr.contains(said), "{refused}");
    assert!(
        refused.stderr.contains("give the first command again"),
        "{refused}"
    );
    file(&written);
    let _ = online(&project, "resume @last").success();
    assert_eq!(project.artifact("text", "written.txt"), "one\n");

    file(&format!("{address}/variable.txt?token={{env.NET_TOKEN}}"));
    let with_token = |args: &str| {
        let words: Vec<&str> = args.split(' ').collect();
        let mut command = project.command(&words);
        command
            .env_remove("TINYLM_OFFLINE")
            .env("NET_TOKEN", "TOKEN-22");
        project.output(&mut command)
    };
    let _ = with_token("run net.yaml").failure(1);
    hub.page("/variable.txt", b"two\n");
    std::fs::remove_file(project.path("net.yaml")).unwrap();
    let refused = online(&project, "resume @last").failure(1);
    assert!(
        refused.stderr.contains("`NET_TOKEN=... tinylm"),
        "{refused}"
    );
    let _ = with_token("resume @last").success();
    assert_eq!(project.artifact("text", "variable.txt"), "two\n");
}
