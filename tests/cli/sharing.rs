//! A store that a team shares: what one has made, another fetches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, setpriority_process};

use crate::{
    bucket::{Bucket, Fault},
    harness::{Output, Project, signal, wait_until},
    s3::Server,
};

const SECRET: &str = "wJalrXUtnFEMI";

/// A chain whose middle stage makes many small files and one that is larger.
fn project() -> Project {
    let project = Project::chain();
    let many = "mkdir '{out}/deep'; for n in 1 2 3 4 5; do echo $n > \"{out}/deep/$n\"; done; \
                : > '{out}/empty'; head -c 400000 /dev/zero > '{out}/large'; ";
    project.replace(
        "chain.yaml",
        "\"sort '{in.corpus}/corpus.txt'",
        &format!(
            "\"{}sort '{{in.corpus}}/corpus.txt'",
            many.replace('"', "\\\"")
        ),
    );
    project.replace(
        "chain.yaml",
        "[sorted.txt]",
        "[sorted.txt, large, empty, deep]",
    );
    project
}

/// `tinylm` in a project, with a remote in a folder.
fn sharing(project: &Project, shared: &Path, mode: &str, args: &str) -> Command {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    command
        .env("TINYLM_REMOTE", format!("file://{}", shared.display()))
        .env("TINYLM_REMOTE_MODE", mode);
    command
}

fn run(project: &Project, shared: &Path, mode: &str) -> Output {
    project.output(&mut sharing(project, shared, mode, "run chain.yaml"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn a_teammate_with_an_empty_home_hits_every_stage() {
    let shared = tempfile::tempdir().unwrap();
    let ours = project();
    let made = run(&ours, shared.path(), "write").success();
    assert!(
        made.stderr.contains("pushed 3 artifacts to file://"),
        "{made}"
    );
    assert_eq!(ours.outcomes(), "corpus made, sorted made, first made");
    let owed = files_below(&ours.path(".tinylm/pushes"));
    let is_owed = |file: &&PathBuf| !file.parent().unwrap().ends_with("given");
    assert_eq!(owed.iter().find(is_owed), None);

    let theirs = project();
    let hit = run(&theirs, shared.path(), "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
    let name = ours.newest();
    let from = format!("from {name}, 400 kB fetched from file://");
    assert!(hit.stdout.contains(&from), "{hit}");
    theirs.tinylm("cache verify").success();
    for file in ["sorted.txt", "empty", "deep/1"] {
        assert_eq!(
            theirs.artifact("sorted", file),
            ours.artifact("sorted", file)
        );
    }

    // From then on it is theirs: nobody is asked.
    fs::rename(shared.path(), shared.path().with_extension("away")).unwrap();
    let fresh = run(&theirs, shared.path(), "read").success();
    assert_eq!(fresh.stderr.matches("warning").count(), 0, "{fresh}");
    assert!(!fresh.stdout.contains("fetched"), "{fresh}");
    fs::rename(shared.path().with_extension("away"), shared.path()).unwrap();
}

/// `tinylm` in a project, with a bucket behind its store.
fn with(bucket: &Bucket, project: &Project, mode: &str, args: &str) -> Command {
    with_server(&bucket.endpoint(), project, mode, args)
}

/// The same with any server of S3.
fn with_server(endpoint: &str, project: &Project, mode: &str, args: &str) -> Command {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    command
        .env_remove("TINYLM_OFFLINE")
        .env("TINYLM_REMOTE", "s3://bucket/team")
        .env("TINYLM_REMOTE_MODE", mode)
        .env("TINYLM_REMOTE_TIMEOUT", "20")
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
}

fn run_with(bucket: &Bucket, project: &Project, mode: &str) -> Output {
    project.output(&mut with(bucket, project, mode, "run chain.yaml"))
}

/// A bucket to which somebody has pushed the chain.
fn filled() -> Bucket {
    let (bucket, ours) = (Bucket::start(), project());
    let made = run_with(&bucket, &ours, "write").success();
    assert!(made.stderr.contains("pushed 3 artifacts"), "{made}");
    bucket.asked();
    bucket
}

#[test]
fn a_miss_costs_one_question_a_hit_few_and_what_is_here_none() {
    let (bucket, ours) = (Bucket::start(), project());
    run_with(&bucket, &ours, "read").success();
    let asked = bucket.asked();
    assert_eq!(asked.len(), 3, "{asked:#?}");
    let is_key = |line: &String| line.starts_with("GET /bucket/team/v1/keys/");
    assert!(asked.iter().all(is_key), "{asked:#?}");
    run_with(&bucket, &ours, "read").success();
    assert_eq!(bucket.asked(), [] as [String; 0], "all is fresh");

    let bucket = filled();
    let theirs = project();
    run_with(&bucket, &theirs, "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
    // Of each stage its record, its list, its objects: one blob, a pack and a blob, one blob.
    assert_eq!(bucket.asked().len(), 3 + 3 + 4);
    run_with(&bucket, &theirs, "read").success();
    assert_eq!(bucket.asked(), [] as [String; 0], "nothing is missing");
    let giving = project();
    run_with(&bucket, &giving, "write").success();
    assert_eq!(
        bucket.asked().len(),
        3 + 3 + 4,
        "what came from there is not given back"
    );
    run_with(&bucket, &giving, "write").success();
    assert_eq!(bucket.asked(), [] as [String; 0], "nothing is owed");
}

#[test]
fn what_was_made_before_there_was_a_remote_is_given_once() {
    let (bucket, ours) = (Bucket::start(), project());
    ours.tinylm("run chain.yaml").success();
    let given = run_with(&bucket, &ours, "write").success();
    assert_eq!(ours.outcomes(), "corpus hit, sorted hit, first hit");
    assert!(given.stderr.contains("pushed 3 artifacts"), "{given}");
    bucket.asked();
    run_with(&bucket, &ours, "write").success();
    assert_eq!(bucket.asked(), [] as [String; 0]);
    let theirs = project();
    run_with(&bucket, &theirs, "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn what_is_wrong_or_missing_is_a_miss_told_once_and_mended_by_the_next_push() {
    type Spoil = fn(&Bucket, &str);
    let spoilt: [(&str, Spoil, &str); 9] = [
        (
            "packs",
            |at, part| at.change(part, |bytes| bytes[3] ^= 1),
            "has a wrong `deep/",
        ),
        (
            "packs",
            |at, part| at.change(part, |bytes| bytes.truncate(bytes.len() - 1)),
            "bytes instead of",
        ),
        ("packs", |at, part| at.remove(part), "lacks `deep/1`"),
        (
            "blobs",
            |at, part| at.change(part, |bytes| bytes[3] ^= 1),
            "has a wrong `large`",
        ),
        (
            "blobs",
            |at, part| at.change(part, |bytes| bytes.truncate(bytes.len() - 1)),
            "bytes instead of",
        ),
        ("blobs", |at, part| at.remove(part), "lacks `large`"),
        (
            "lists",
            |at, part| at.change(part, |bytes| bytes[30] ^= 1),
            "has a list of other files",
        ),
        ("lists", |at, part| at.remove(part), "is missing"),
        (
            "keys",
            |at, part| at.change(part, |bytes| bytes[90] ^= 1),
            "record has other contents",
        ),
    ];
    for (part, spoil, said) in spoilt {
        let (bucket, theirs) = (filled(), project());
        spoil(&bucket, part);
        let made = run_with(&bucket, &theirs, "write").success();
        assert!(theirs.outcomes().contains("made"), "{part}: {made}");
        assert!(made.stdout.contains(said), "{said}: {made}");
        assert_eq!(
            made.stdout.matches("the remote store's").count(),
            theirs.outcomes().matches("made").count(),
            "{made}"
        );
        let staging = theirs.path(".tinylm/store/staging");
        assert_eq!(fs::read_dir(staging).map_or(0, Iterator::count), 0);
        theirs.tinylm("cache verify").success();
        // Whoever had to make it gives it whole, and the next finds nothing wrong.
        let next = project();
        run_with(&bucket, &next, "read").success();
        assert_eq!(
            next.outcomes(),
            "corpus hit, sorted hit, first hit",
            "{part}"
        );
    }
}

#[test]
fn a_blob_that_a_real_server_has_wrong_short_or_lost_is_a_miss_told_once_and_healed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::s3s(&folder) else {
        return;
    };
    let run = |project: &Project, mode: &str| {
        let mut command = with_server(&server.1, project, mode, "run chain.yaml");
        command
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "hunter22")
            .env("TINYLM_REMOTE_TIMEOUT", "20");
        project.output(&mut command).success()
    };
    let made = run(&project(), "write");
    assert!(made.stderr.contains("pushed 3 artifacts"), "{made}");
    let blobs = files_below(&folder.path().join("bucket/team/v1/blobs"));
    let mut large = blobs
        .into_iter()
        .filter(|blob| fs::metadata(blob).unwrap().len() == 400_000);
    let large = large.next().unwrap();

    type Spoil = fn(&mut Vec<u8>);
    let spoilt: [(Spoil, &str); 3] = [
        (|bytes| bytes[3] ^= 1, "has a wrong `large`"),
        (
            |bytes| bytes.truncate(399_999),
            "399999 bytes instead of 400000",
        ),
        (Vec::clear, "lacks `large`"),
    ];
    for (spoil, said) in spoilt {
        let mut bytes = fs::read(&large).unwrap();
        spoil(&mut bytes);
        match bytes.is_empty() {
            true => fs::remove_file(&large).unwrap(),
            false => fs::write(&large, bytes).unwrap(),
        }
        let theirs = project();
        let made = run(&theirs, "write");
        assert!(made.stdout.contains(said), "{said}: {made}");
        assert_eq!(
            made.stdout.matches("the remote store's").count(),
            1,
            "{made}"
        );
        assert_eq!(theirs.outcomes(), "corpus hit, sorted made, first hit");
        theirs.tinylm("cache verify").success();
        let again = run(&theirs, "write");
        assert!(
            !format!("{again}").contains("the remote store's"),
            "{again}"
        );
        let next = project();
        run(&next, "read");
        assert_eq!(
            next.outcomes(),
            "corpus hit, sorted hit, first hit",
            "{said}"
        );
    }
}

#[test]
fn a_body_that_breaks_off_is_gone_on_with_and_one_that_always_does_is_no_hit() {
    let bucket = filled();
    let theirs = project();
    bucket.spoil("GET /bucket/team/v1/packs", Fault::Break);
    let made = run_with(&bucket, &theirs, "read").success();
    assert!(theirs.outcomes().contains("sorted made"), "{made}");
    let asked = bucket.asked();
    let n_packs = asked.iter().filter(|line| line.contains("/packs/")).count();
    assert!(n_packs > 1, "{asked:#?}");
}

#[test]
fn forbidden_is_an_error_and_shows_no_secret() {
    let bucket = filled();
    for status in [401, 403] {
        let theirs = project();
        bucket.spoil("GET", Fault::Status(status));
        let failed = run_with(&bucket, &theirs, "read").failure(1);
        assert!(failed.stderr.contains("lets us not in"), "{failed}");
        assert!(failed.stderr.contains("Told: as it was told"), "{failed}");
        assert!(failed.stderr.contains("TINYLM_REMOTE=none"), "{failed}");
        assert_eq!(theirs.outcomes().matches("made").count(), 0);
        bucket.heal();
    }
    // What cannot be given is owed, and the run itself is well.
    let ours = Project::chain();
    ours.replace("corpus.txt", "cherry", "damson");
    bucket.spoil("PUT", Fault::Status(403));
    let made = run_with(&bucket, &ours, "write").success();
    assert_eq!(made.stderr.matches("warning").count(), 1, "{made}");
    assert!(
        made.stderr
            .contains("3 artifacts not pushed to s3://bucket/team"),
        "{made}"
    );
    bucket.heal();
    let pushed = ours
        .output(&mut with(&bucket, &ours, "write", "push"))
        .success();
    assert!(pushed.stderr.contains("pushed 3 artifacts"), "{pushed}");
    let nothing = ours
        .output(&mut with(&bucket, &ours, "write", "push"))
        .success();
    assert!(
        nothing.stdout.contains("all is in s3://bucket/team"),
        "{nothing}"
    );

    for file in files_below(&ours.path(".tinylm")) {
        let bytes = fs::read(&file).unwrap();
        let holds = |word: &str| {
            bytes
                .windows(word.len())
                .any(|part| part == word.as_bytes())
        };
        assert!(!holds(SECRET) && !holds("AKIDTEST"), "{}", file.display());
    }
}

#[test]
fn a_dead_remote_is_told_once_and_the_run_goes_on() {
    let dead = |bucket: &Bucket, said: &str| {
        let theirs = project();
        let begun = Instant::now();
        let mut impatient = with(bucket, &theirs, "write", "run chain.yaml");
        let made = theirs.output(impatient.env("TINYLM_REMOTE_TIMEOUT", "1"));
        let made = made.success();
        assert!(begun.elapsed() < Duration::from_secs(20), "{made}");
        assert_eq!(theirs.outcomes(), "corpus made, sorted made, first made");
        assert_eq!(made.stderr.matches("cannot be asked").count(), 1, "{made}");
        assert!(made.stderr.contains(said), "{made}");
        // Once for reading, once for all that is owed.
        assert_eq!(made.stderr.matches("warning").count(), 2, "{made}");
        assert!(made.stderr.contains("3 artifacts not pushed"), "{made}");
        theirs
    };
    let bucket = Bucket::start();
    bucket.spoil("GET", Fault::Status(503));
    bucket.spoil("PUT", Fault::Status(503));
    dead(&bucket, "as it was told");
    let n_asked = bucket.asked().len();
    assert!(n_asked <= 8, "one question, and its repetitions: {n_asked}");
    bucket.heal();
    bucket.spoil("bucket", Fault::Hang);
    let theirs = dead(&bucket, "nothing came for 1 s");
    bucket.heal();
    // What is owed is remembered, and given by the next run that can.
    let next = run_with(&bucket, &theirs, "write").success();
    assert!(next.stderr.contains("pushed 3 artifacts"), "{next}");
}

#[test]
fn what_a_killed_run_owes_is_given_by_the_next() {
    let (bucket, ours) = (Bucket::start(), project());
    bucket.spoil("PUT", Fault::Hang);
    let mut command = with(&bucket, &ours, "write", "run chain.yaml");
    command.env("TINYLM_REMOTE_TIMEOUT", "600");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = command.spawn().unwrap();
    let is_waiting = || bucket.asked().iter().any(|line| line.starts_with("PUT"));
    wait_until("a push", is_waiting);
    wait_until("the run's end", || {
        ours.tinylm("runs").stdout.contains("done")
    });
    running.kill().unwrap();
    running.wait().unwrap();
    bucket.heal();
    let next = run_with(&bucket, &ours, "write").success();
    assert_eq!(ours.outcomes(), "corpus hit, sorted hit, first hit");
    assert!(next.stderr.contains("pushed 3 artifacts"), "{next}");
    let theirs = project();
    run_with(&bucket, &theirs, "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn nobody_has_to_wait_for_a_push() {
    let (bucket, ours) = (Bucket::start(), project());
    bucket.spoil("PUT", Fault::Hang);
    let mut command = with(&bucket, &ours, "write", "run chain.yaml");
    command.env("TINYLM_REMOTE_TIMEOUT", "600");
    let log = fs::File::create(ours.path("log")).unwrap();
    let running = command.stdout(Stdio::piped()).stderr(log);
    let running = running.spawn().unwrap();
    ours.wait_for_words("log", "pushing 3 artifacts to s3://bucket/team");
    let begun = Instant::now();
    signal(running.id(), "INT");
    ours.wait(running).failure(130);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let said = ours.read("log");
    assert!(said.contains("3 artifacts not pushed"), "{said}");
    assert_eq!(ours.last_run("status"), "done");
    bucket.heal();
    let pushed = ours.output(&mut with(&bucket, &ours, "write", "push"));
    assert!(pushed.stderr.contains("pushed 3 artifacts"), "{pushed}");
}

#[test]
fn a_download_can_be_stopped_and_leaves_nothing_half() {
    let bucket = filled();
    let theirs = project();
    bucket.spoil("/blobs/", Fault::Slow(20_000));
    let mut command = with(&bucket, &theirs, "read", "run chain.yaml");
    command.env("TINYLM_REMOTE_TIMEOUT", "600");
    let log = fs::File::create(theirs.path("log")).unwrap();
    let running = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    theirs.wait_for_words("log", "fetch    sorted");
    let begun = Instant::now();
    signal(running.id(), "INT");
    theirs.wait(running).failure(130);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let staging = theirs.path(".tinylm/store/staging");
    assert_eq!(fs::read_dir(staging).map_or(0, Iterator::count), 0);
    assert!(
        theirs.outcomes().contains("sorted cancelled"),
        "{}",
        theirs.outcomes()
    );
    bucket.heal();
    run_with(&bucket, &theirs, "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn what_came_from_elsewhere_is_history_too() {
    let bucket = filled();
    let theirs = project();
    run_with(&bucket, &theirs, "read").success();
    let shown = theirs.tinylm("show @last/sorted").success();
    assert!(
        shown.stdout.contains("fetched from s3://bucket/team"),
        "{shown}"
    );
    assert!(shown.stdout.contains("recipe:"), "{shown}");
    for command in [
        "report @last",
        "runs",
        "show @last",
        "watch @last",
        "gc --dry-run",
        "doctor",
    ] {
        theirs.tinylm(command).success();
    }
    theirs.tinylm("gc").success();
    let whole = theirs.tinylm("cache verify").success();
    assert!(whole.stdout.contains("3 of 3"), "{whole}");
}

#[test]
fn a_run_is_pulled_by_its_name_and_pushed_by_it() {
    let (bucket, ours) = (Bucket::start(), project());
    ours.tinylm("run chain.yaml").success();
    let name = ours.newest();
    let push = format!("push {name}");
    let refused = ours
        .output(&mut with(&bucket, &ours, "read", &push))
        .failure(2);
    assert!(refused.stderr.contains("is only read here"), "{refused}");
    ours.output(&mut with(&bucket, &ours, "write", &push))
        .success();

    let theirs = project();
    let pull = |name: &str| with(&bucket, &theirs, "read", &format!("pull {name}"));
    let pulled = theirs.output(&mut pull(&name)).success();
    let begins = |text: &str, words: &[&str]| {
        let lines: Vec<&str> = text.lines().collect();
        let is_so = |(line, start): (&&str, &&str)| line.starts_with(start);
        lines.len() == words.len() && lines.iter().zip(words).all(is_so)
    };
    let known = format!("known    {name}: `tinylm show {name}`");
    let came = [
        "fetched  corpus      20 B  .tinylm/",
        "fetched  sorted    400 kB",
        "fetched  first        6 B",
        &known,
    ];
    assert!(begins(&pulled.stdout, &came), "{pulled}");
    let shown = |project: &Project| {
        let shown = project.tinylm(&format!("show {name}")).success().stdout;
        // Where it was made stays where that was.
        let ours = ours.path("").display().to_string();
        shown.replace(ours.trim_end_matches('/'), "[ROOT]")
    };
    assert_eq!(shown(&theirs), shown(&ours), "all that is remembered of it");
    let again = theirs.output(&mut pull(&name)).success();
    let here = [
        "here     corpus  .tinylm/",
        "here     sorted",
        "here     first",
    ];
    assert!(begins(&again.stdout, &here), "{again}");
    let plan = theirs.tinylm("plan chain.yaml").success();
    assert_eq!(plan.stdout.matches("fresh").count(), 3, "{plan}");
    let unknown = theirs.output(&mut pull("no-such-0000")).failure(2);
    assert!(
        unknown.stderr.contains("knows a run `no-such-0000`"),
        "{unknown}"
    );
    bucket.remove("/packs/");
    let lacking = project();
    let pull = &mut with(&bucket, &lacking, "read", &format!("pull {name}"));
    let lacking = lacking.output(pull).failure(1);
    assert!(lacking.stdout.contains("known    "), "{lacking}");
    assert!(lacking.stdout.contains("lacking  sorted"), "{lacking}");
    assert!(
        lacking.stderr.contains("lacks 1 of 3 artifacts"),
        "{lacking}"
    );
    // What is told of it may be lost; what it made is no worse for that.
    bucket.remove("/histories/");
    let untold = project();
    let pull = &mut with(&bucket, &untold, "read", &format!("pull {name}"));
    let untold = untold.output(pull).failure(1);
    assert_eq!(untold.stdout.matches("fetched").count(), 2, "{untold}");
    assert!(
        untold.stderr.contains("warning: the history of"),
        "{untold}"
    );
}

#[test]
fn a_web_server_is_read_only_and_its_password_is_not_shown() {
    let bucket = filled();
    let theirs = project();
    let url = bucket.endpoint().replace("://", "://me:hunter22@") + "/bucket/team";
    let web = |mode: &str, args: &str| {
        let mut command = with(&bucket, &theirs, mode, args);
        theirs.output(command.env("TINYLM_REMOTE", &url))
    };
    let refused = web("write", "run chain.yaml").failure(2);
    assert!(refused.stderr.contains("can only be read"), "{refused}");
    let hit = web("read", "run chain.yaml").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
    let doctor = web("read", "doctor");
    assert!(
        doctor.stdout.contains("/bucket/team answers; mode read"),
        "{doctor}"
    );
    assert!(!format!("{refused}{hit}{doctor}").contains("hunter22"));
    for file in files_below(&theirs.path(".tinylm")) {
        let bytes = fs::read(&file).unwrap();
        assert!(
            !bytes.windows(8).any(|part| part == b"hunter22"),
            "{}",
            file.display()
        );
    }
}

#[test]
fn a_project_names_its_store_in_a_file_and_a_person_can_do_without() {
    let shared = tempfile::tempdir().unwrap();
    let ours = project();
    let url = format!("url: file://{}\nmode: write\n", shared.path().display());
    ours.write("tinylm-remote.yaml", &url);
    let plan = ours.tinylm("plan chain.yaml").success();
    assert!(plan.stdout.contains("was not asked"), "{plan}");
    let made = ours.tinylm("run chain.yaml").success();
    assert!(made.stderr.contains("pushed 3 artifacts"), "{made}");
    let usage = ours.tinylm("cache du --remote").success();
    assert!(
        usage.stdout.contains("in 3 artifacts under 3 keys"),
        "{usage}"
    );
    let theirs = project();
    theirs.write("tinylm-remote.yaml", &url);
    let mut command = theirs.command(&["run", "chain.yaml"]);
    theirs
        .output(command.env("TINYLM_REMOTE", "none"))
        .success();
    assert_eq!(theirs.outcomes(), "corpus made, sorted made, first made");
    theirs.write("tinylm-remote.yaml", "address: s3://bucket\n");
    let wrong = theirs.tinylm("run chain.yaml").failure(2);
    assert!(wrong.stderr.contains("`tinylm-remote.yaml`: "), "{wrong}");
}

/// Makes all that a remote in a folder holds older than a week.
fn age(shared: &Path) {
    for file in files_below(shared) {
        let file = fs::File::options().write(true).open(file).unwrap();
        let old = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
        file.set_modified(old).unwrap();
    }
}

#[test]
fn what_is_being_pushed_is_not_taken_by_a_sweep() {
    const BYTES: u64 = 3_000_000;
    let shared = tempfile::tempdir().unwrap();
    let large = format!(
        "\"mkdir '{{out}}/large'; for n in $(seq 24); do yes $n | head -c {BYTES} > '{{out}}/large/'$n; done; sort '"
    );
    let ours = Project::chain();
    ours.replace("chain.yaml", "\"sort '", &large);
    ours.replace("chain.yaml", "[sorted.txt]", "[sorted.txt, large]");
    run(&ours, shared.path(), "write").success();
    let blobs = || {
        let blobs = files_below(&shared.path().join("v1/blobs"));
        let blobs = blobs.into_iter().filter_map(|blob| {
            let found = fs::metadata(&blob).ok()?;
            let age = found.modified().ok()?.elapsed().unwrap_or_default();
            (found.len() == BYTES).then_some((blob, age < Duration::from_secs(3600)))
        });
        blobs.collect::<Vec<(PathBuf, bool)>>()
    };
    let young = || -> Vec<PathBuf> {
        let blobs = blobs().into_iter().filter(|(_, is_young)| *is_young);
        blobs.map(|(blob, _)| blob).collect()
    };
    // No key speaks of it any more, and it is old: a push must write it anew, and a sweep may take it.
    let is_of_sorted = |key: &PathBuf| {
        let text = fs::read_to_string(key).unwrap();
        text.contains("\"stage\":\"sorted\"")
    };
    let mut keys = files_below(&shared.path().join("v1/keys")).into_iter();
    let key = keys.find(is_of_sorted).unwrap();
    fs::remove_file(&key).unwrap();
    age(shared.path());
    assert_eq!(blobs().len(), 24);

    let mut push = sharing(&ours, shared.path(), "write", "push @last");
    let mut push = push.stderr(Stdio::null()).spawn().unwrap();
    // It gives way to whoever is to stop it in the middle.
    setpriority_process(Pid::from_raw(push.id() as i32), 19).unwrap();
    wait_until("the first that is written anew", || !young().is_empty());
    signal(push.id(), "STOP");
    let (written, is_over) = (young(), key.exists());
    let other = project();
    let swept = other.output(&mut sharing(&other, shared.path(), "write", "gc --remote"));
    let left = blobs();
    signal(push.id(), "CONT");
    assert!(push.wait().unwrap().success());

    assert!(
        !is_over && written.len() < 24,
        "it was stopped in the middle"
    );
    let swept = swept.success();
    assert!(
        !swept.stdout.contains(" 0 objects"),
        "the old ones went: {swept}"
    );
    let left: Vec<PathBuf> = left.into_iter().map(|(blob, _)| blob).collect();
    assert_eq!(left, written, "and these alone stayed");
    let theirs = Project::chain();
    theirs.write("chain.yaml", &ours.read("chain.yaml"));
    run(&theirs, shared.path(), "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted hit, first hit");
    theirs.tinylm("cache verify").success();
}

#[test]
fn what_a_killed_push_has_half_written_into_a_folder_goes_after_a_week() {
    let shared = tempfile::tempdir().unwrap();
    let ours = Project::chain();
    // In parts, so that it stands half-written for a while.
    let large = "\"truncate -s 200M '{out}/large'; sort '";
    ours.replace("chain.yaml", "\"sort '", large);
    ours.replace("chain.yaml", "[sorted.txt]", "[sorted.txt, large]");
    ours.tinylm("run chain.yaml").success();
    let halves = || {
        let mut files = files_below(&shared.path().join("v1"));
        files.retain(|file| file.to_string_lossy().contains('#'));
        files
    };
    let mut push = sharing(&ours, shared.path(), "write", "push @last");
    let mut push = push.stderr(Stdio::null()).spawn().unwrap();
    let is_large = |half: &PathBuf| fs::metadata(half).is_ok_and(|half| half.len() > 8_000_000);
    wait_until("a part of `large`", || halves().iter().any(is_large));
    signal(push.id(), "KILL");
    push.wait().unwrap();
    let left = halves();
    assert!(!left.is_empty(), "it was killed in the middle");
    let gc = |args: &str| {
        let mut command = sharing(&ours, shared.path(), "write", &format!("gc --remote{args}"));
        ours.output(&mut command).success().stdout
    };
    assert!(gc("").contains(" 0 objects"), "it may still be written");
    assert_eq!(halves(), left);
    age(shared.path());
    let would = gc(" --dry-run");
    assert_eq!(halves(), left);
    assert_eq!(gc("").replace("freed", "would free"), would);
    assert_eq!(halves(), [] as [PathBuf; 0]);
}

#[test]
fn a_remote_is_swept_of_what_no_key_speaks_of_but_of_nothing_young() {
    let shared = tempfile::tempdir().unwrap();
    let ours = project();
    run(&ours, shared.path(), "write").success();
    let gc = |args: &str| {
        let mut command = sharing(
            &ours,
            shared.path(),
            "write",
            &format!("gc --remote {args}"),
        );
        ours.output(&mut command).success().stdout
    };
    let keys = shared.path().join("v1/keys");
    for key in files_below(&keys) {
        let text = String::from_utf8(fs::read(&key).unwrap()).unwrap();
        if text.contains("\"stage\":\"sorted\"") {
            fs::remove_file(key).unwrap();
        }
    }
    let n_files = files_below(shared.path()).len();
    assert!(
        gc("").contains("0 objects"),
        "a push may be about to speak of them"
    );
    age(shared.path());
    assert!(
        gc("--dry-run").contains("would free 400"),
        "its list, its pack, its blob"
    );
    // The clock is one more.
    assert_eq!(files_below(shared.path()).len(), n_files + 1);
    assert!(gc("").contains("in 3 objects"));
    assert_eq!(files_below(shared.path()).len(), n_files + 1 - 3);
    let theirs = project();
    run(&theirs, shared.path(), "read").success();
    assert_eq!(theirs.outcomes(), "corpus hit, sorted made, first hit");
    // What is old is sent again rather than relied on.
    let again = sharing(&ours, shared.path(), "write", "push @last");
    let pushed = ours.output(&mut { again }).success();
    assert!(pushed.stderr.contains("pushed 3 artifacts"), "{pushed}");
    assert!(
        gc("--older-than 0").contains("0 objects"),
        "all is young again"
    );
    let whole = project();
    run(&whole, shared.path(), "read").success();
    assert_eq!(whole.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn a_run_is_handed_over_as_one_file_whole_or_as_what_it_was() {
    let ours = project();
    ours.tinylm("run chain.yaml").success();
    let name = ours.newest();
    ours.tinylm("note @last worth-keeping").success();
    let packed = ours
        .tinylm(&format!("pack {name} -o run.tar.zst"))
        .success();
    assert!(packed.stdout.contains("3 artifacts"), "{packed}");
    ours.tinylm("pack @last --digests -o digests.tar.zst")
        .success();
    let sizes =
        ["run.tar.zst", "digests.tar.zst"].map(|file| fs::metadata(ours.path(file)).unwrap().len());
    assert!(sizes[1] < sizes[0], "{sizes:?}");

    let theirs = project();
    fs::copy(ours.path("run.tar.zst"), theirs.path("run.tar.zst")).unwrap();
    let came = theirs.tinylm("unpack run.tar.zst").success();
    assert_eq!(came.stdout.matches("fetched ").count(), 3, "{came}");
    assert!(
        theirs
            .tinylm("show @last")
            .success()
            .stdout
            .contains("worth-keeping")
    );
    theirs.tinylm("cache verify").success();
    let plan = theirs.tinylm("plan chain.yaml").success();
    assert_eq!(plan.stdout.matches("fresh").count(), 3, "{plan}");

    let third = project();
    fs::copy(ours.path("digests.tar.zst"), third.path("digests.tar.zst")).unwrap();
    let came = third.tinylm("unpack digests.tar.zst").success();
    assert!(came.stdout.contains("`tinylm verify"), "{came}");
    assert!(third.tinylm("runs").success().stdout.contains(&name));
    third.tinylm("unpack digests.tar.zst").success();
    let runs = third.tinylm("runs").success().stdout;
    assert_eq!(runs.matches(&name).count(), 1, "known once: {runs}");
    // What came from elsewhere and runs programs is looked at first.
    let unmade = theirs.tinylm("verify @last --stage sorted").failure(1);
    assert!(unmade.stdout.contains("--programs"), "{unmade}");
    theirs
        .tinylm("verify @last --stage sorted --programs")
        .success();

    // Nothing that is there is written over, but an older pack.
    ours.tinylm("pack @last -o run.tar.zst").success();
    let over = ours.tinylm("pack @last -o corpus.txt").failure(2);
    assert!(
        over.stderr.contains("`corpus.txt` is there and is no pack"),
        "{over}"
    );
    let nowhere = ours.tinylm("pack @last -o nowhere/run.tar.zst").failure(2);
    assert!(
        nowhere.stderr.contains("there is no folder `nowhere`"),
        "{nowhere}"
    );

    // A wrong byte anywhere is found before anything is believed.
    let whole = fs::read(theirs.path("run.tar.zst")).unwrap();
    let mut wrong = whole.clone();
    wrong[whole.len() / 2] ^= 1;
    let fourth = project();
    fs::write(fourth.path("wrong.tar.zst"), wrong).unwrap();
    let refused = fourth.tinylm("unpack wrong.tar.zst").failure(2);
    assert!(
        refused.stderr.contains("it is no pack of a run"),
        "{refused}"
    );
    fourth.tinylm("runs").failure(2);
    let left = fs::read_dir(fourth.path(".tinylm/store/staging")).map_or(0, |left| left.count());
    assert_eq!(left, 0, "nothing of it stays");

    let lacking = ours.tinylm("unpack no-such-file").failure(2);
    assert!(
        lacking.stderr.contains("there is no file `no-such-file`"),
        "{lacking}"
    );
    fs::remove_dir_all(ours.path(".tinylm/store/artifacts")).unwrap();
    let gone = ours.tinylm("pack @last").failure(2);
    assert!(gone.stderr.contains("not all that"), "{gone}");
}

#[test]
fn a_run_that_somebody_went_on_with_is_pulled_as_it_is_now_and_loses_nothing_here() {
    let shared = tempfile::tempdir().unwrap();
    let with = |project: &Project, mode: &str, args: &str| {
        let mut command = project.shell(&format!("exec tinylm {args}"));
        command
            .env(
                "TINYLM_REMOTE",
                format!("file://{}", shared.path().display()),
            )
            .env("TINYLM_REMOTE_MODE", mode);
        project.output(&mut command).success()
    };
    let (ours, theirs) = (project(), project());
    ours.tinylm("run chain.yaml").success();
    let name = ours.newest();
    // As it was when only its first two stages were made.
    let registry = rusqlite::Connection::open(ours.path(".tinylm/registry.sqlite")).unwrap();
    let change = "UPDATE runs SET status = ?1; ";
    let set = |status: &str, artifact: &str| {
        registry
            .execute(change.trim_end_matches("; "), [status])
            .unwrap();
        let stage = "UPDATE stages SET artifact = nullif(?1, '') WHERE name = 'first'";
        registry.execute(stage, [artifact]).unwrap();
    };
    let artifact: String = registry
        .query_row(
            "SELECT artifact FROM stages WHERE name = 'first'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    set("cancelled", "");
    with(&ours, "write", &format!("push {name}"));
    let early = with(&theirs, "read", &format!("pull {name}"));
    assert!(!early.stdout.contains("first"), "{early}");
    assert_eq!(theirs.last_run("status"), "cancelled");
    // Nobody there has read what its programs are.
    let resumed = theirs.tinylm(&format!("resume {name}")).failure(2);
    assert!(
        resumed.stderr.contains("came from another home"),
        "{resumed}"
    );
    set("done", &artifact);
    with(&ours, "write", &format!("push {name}"));
    let late = with(&theirs, "read", &format!("pull {name}"));
    assert!(late.stdout.contains("fetched  first"), "{late}");
    assert_eq!(theirs.last_run("status"), "done");
}
