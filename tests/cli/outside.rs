//! What comes from outside is pinned at first use.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use crate::harness::{Output, Project};

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

    online(&project, "run net.yaml").success();
    assert_eq!(project.outcomes(), "text made");
    let lock = project.read("net.lock");
    assert!(lock.contains(&address), "{lock}");

    *body.lock().unwrap() = "two\n".to_owned();
    online(&project, "run net.yaml --locked").success();
    assert_eq!(project.outcomes(), "text hit", "the pin holds");

    let update = online(&project, "update net.yaml").success();
    assert!(update.stdout.starts_with("changed"), "{update}");
    online(&project, "run net.yaml").success();
    assert_eq!(project.outcomes(), "text made");
    assert_eq!(project.artifact("text", "corpus.txt"), "two\n");
}
