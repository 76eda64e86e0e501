//! A run's numbers leave the house: tables, and TensorBoard's files, also while the run goes on.

use std::{collections::BTreeMap, fs, path::Path};

use crate::harness::{Project, processes_with, signal, wait_until};

/// A training of small steps, and enough of them to be killed among.
fn training() -> Project {
    let project = Project::new();
    project.tinylm("init first.yaml").success();
    project.replace("first.yaml", "steps: 200", "steps: 400");
    project.replace("first.yaml", "validation: 0 }", "validation: 0.25 }");
    let watch = "watch: { checkpoint_every: 20, log_every: 1, samples: [hello] }\n  answers:";
    project.replace("first.yaml", "answers:", &format!("  {watch}"));
    project
}

/// Numbers by stage, metric and step.
type Numbers = BTreeMap<(String, String, u64), f32>;

/// The curves of a run as the rows of its table.
fn table(project: &Project) -> Numbers {
    project.tinylm("export @last --to csv -o all.csv").success();
    let text = project.read("all.csv");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("run,stage,metric,step,time,value"));
    let cells = lines.map(|line| line.split(',').collect::<Vec<_>>());
    let curves = cells.filter(|cells| !cells[3].is_empty()).map(|cells| {
        let name = |idx: usize| cells[idx].to_owned();
        let step = cells[3].parse().unwrap();
        ((name(1), name(2), step), cells[5].parse().unwrap())
    });
    curves.collect()
}

/// The curves of a run's folder, as TensorBoard understands its files.
fn board(folder: &Path) -> Numbers {
    let mut numbers = Numbers::new();
    for stage in fs::read_dir(folder).unwrap() {
        let stage = stage.unwrap();
        let name = stage.file_name().into_string().unwrap();
        let files = fs::read_dir(stage.path()).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            read_events(&fs::read(file).unwrap(), &name, &mut numbers);
        }
    }
    numbers
}

fn read_events(mut bytes: &[u8], stage: &str, numbers: &mut Numbers) {
    // The last record of a process that was killed may be cut short.
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let of_length = checksum(length);
        let length = u64::from_le_bytes(*length) as usize;
        let Some(record) = rest.get(..4 + length + 4) else {
            return;
        };
        let event = &record[4..4 + length];
        assert_eq!(record[..4], of_length, "the checksum of a length");
        assert_eq!(record[4 + length..], checksum(event), "that of a record");
        let fields = fields(event);
        let number = |field| fields.iter().find(|(known, _)| *known == field);
        let step = number(2).map_or(0, |(_, bytes)| varint(&mut &bytes[..]));
        if number(7).is_some() {
            numbers.retain(|(of, _, at), _| of != stage || *at < step);
        }
        if let Some((_, summary)) = number(5) {
            let value = &self::fields(summary)[0].1;
            let value = self::fields(value);
            if let [(1, tag), (2, value)] = &value[..] {
                let key = (
                    stage.to_owned(),
                    String::from_utf8(tag.clone()).unwrap(),
                    step,
                );
                let value = f32::from_le_bytes(value[..].try_into().unwrap());
                assert!(
                    numbers.insert(key.clone(), value).is_none(),
                    "{key:?} is there twice"
                );
            }
        }
        bytes = &rest[4 + length + 4..];
    }
}

/// The checksum of TensorFlow's records: CRC-32C turned by fifteen bits, and a number added.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let crc = bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    (!crc)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
        .to_le_bytes()
}

#[test]
fn the_checksum_is_the_one_that_others_write() {
    // From RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa.
    let crc: u32 = 0x8a91_36aa;
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    assert_eq!(checksum(&[0; 32]), masked.to_le_bytes());
}

/// The fields of a message, with their bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1,
            1 => 8,
            5 => 4,
            _ => varint(&mut bytes) as usize,
        };
        let (field, rest) = bytes.split_at(length);
        fields.push((tag >> 3, field.to_vec()));
        bytes = rest;
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Takes out the numbers of the end, which a table of curves has not.
fn curves_of(board: Numbers, table: &Numbers) -> Numbers {
    let has_curve = |stage: &str, metric: &str| {
        let mut known = table.keys();
        known.any(|(other, name, _)| other == stage && name == metric)
    };
    let curves = board.into_iter();
    curves
        .filter(|((stage, metric, _), _)| has_curve(stage, metric))
        .collect()
}

#[test]
fn a_watched_training_that_is_killed_has_each_point_once_and_watching_makes_nothing_anew() {
    let project = training();
    let run = "run first.yaml -S watch.tensorboard=board";
    let child = project.start(run);
    let folder = project.path("board");
    let is_under_way = || {
        let model = fs::read_dir(&folder).ok().and_then(|mut runs| runs.next());
        let model = model.map(|run| run.unwrap().path().join("model"));
        model.is_some_and(|model| {
            let files = fs::read_dir(model).into_iter().flatten();
            files
                .map(|file| file.unwrap().metadata().unwrap().len())
                .sum::<u64>()
                > 10_000
        })
    };
    wait_until("a curve", is_under_way);
    signal(child.id(), "KILL");
    project.wait(child).failure(-9);
    let home = project.path(".tinylm");
    wait_until("the orphan's end", || processes_with(&home).is_empty());
    project.tinylm("resume").success();
    let name = project.newest();
    let table = table(&project);
    assert!(table.len() > 1600, "{}", table.len());
    let files = fs::read_dir(folder.join(&name).join("model")).unwrap();
    assert_eq!(files.count(), 2, "one of each attempt");
    assert_eq!(curves_of(board(&folder.join(&name)), &table), table);
    let again = project.tinylm("plan first.yaml").success();
    assert!(again.stdout.contains("has nothing to do"), "{again}");
}

#[test]
fn an_export_leaves_the_files_of_a_run_that_goes_on_alone() {
    let project = training();
    let child = project.start("run first.yaml -S watch.tensorboard=board");
    let live = || {
        let runs = fs::read_dir(project.path("board")).ok()?;
        let run = runs.map(|run| run.unwrap().path()).next()?;
        let files = fs::read_dir(run.join("model")).ok()?;
        let file = files.map(|file| file.unwrap().path()).next()?;
        (file.metadata().unwrap().len() > 10_000).then_some(file)
    };
    wait_until("a curve", || live().is_some());
    let file = live().unwrap();
    let inside = file.strip_prefix(project.path("")).unwrap().display();
    for over_it in [
        "export @last --to tensorboard -o board".to_owned(),
        format!("export @last --to csv -o {inside}"),
    ] {
        let refused = project.tinylm(&over_it).failure(2);
        assert!(refused.stderr.contains("goes on writes"), "{refused}");
        assert!(refused.stderr.contains(&inside.to_string()), "{refused}");
    }
    let elsewhere = "export @last --to tensorboard -o elsewhere";
    project.tinylm(elsewhere).success();
    project.wait(child).success();
    let name = project.newest();
    let table = table(&project);
    let board = board(&project.path("board").join(&name));
    assert_eq!(curves_of(board, &table), table);
    // Once it has ended, its files are those of any export.
    let over_it = "export @last --to tensorboard -o board";
    project.tinylm(over_it).success();
    assert!(!file.exists());
}

#[test]
fn a_run_is_exported_to_tensorboard_and_as_tables_in_place_of_earlier_ones() {
    let project = training();
    project
        .tinylm("run first.yaml -S model.train.steps=30")
        .success();
    let name = project.newest();
    for _ in 0..2 {
        let told = project.tinylm("export @last --to tensorboard").success();
        assert!(
            told.stdout.contains("tensorboard --logdir tensorboard"),
            "{told}"
        );
    }
    let table = table(&project);
    let board = board(&project.path("tensorboard").join(&name));
    assert!(board.contains_key(&("tokens".into(), "vocab_size".into(), 0)));
    assert_eq!(curves_of(board, &table), table);
    project.tinylm("export @last/model --to parquet").success();
    let parquet = fs::read(project.path(&format!("{name}.parquet"))).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    project
        .tinylm("export @last/model --to csv -o model.csv")
        .success();
    let model = project.read("model.csv");
    assert!(model.lines().skip(1).all(|line| line.contains(",model,")));
    let printed = project.tinylm("export @last/model --to csv -o -").success();
    assert_eq!(printed.stdout, model);
    let refused = project.tinylm("export @last --to parquet -o -").failure(2);
    assert!(refused.stderr.contains("only `--to csv`"), "{refused}");
    let refused = project.tinylm("export @last/modle --to csv").failure(2);
    assert!(
        refused.stderr.contains("did you mean `model`?"),
        "{refused}"
    );
    project
        .tinylm("export @last --to csv -o .tinylm")
        .failure(2);
}

#[test]
fn a_picture_that_cannot_be_drawn_ends_no_training() {
    let project = Project::chain();
    project.write("board", "not a folder");
    let run = project
        .tinylm("run chain.yaml -S watch.tensorboard=board")
        .success();
    assert!(
        run.stderr
            .contains("warning: not all is written for TensorBoard"),
        "{run}"
    );
    assert!(run.stderr.contains("export"), "{run}");
    project.write("wrong.yaml", "watch: { tensorbord: x }\nstages: {}\n");
    let wrong = project.tinylm("plan wrong.yaml").failure(2);
    assert!(
        wrong.stderr.contains("did you mean `tensorboard`?"),
        "{wrong}"
    );
}
