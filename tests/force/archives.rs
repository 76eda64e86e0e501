//! Archives that lie: names that lead out, links, the same name twice, headers that claim what is not
//! there. What comes out of one is files inside of its artifact, or an error that names it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::attack::{Clock, Dice, artifact, assert_told, bounded, damaged, files_below, run};

const NAMES: [&str; 18] = [
    "a.txt",
    "a.txt",
    "b/a.txt",
    "b",
    "b/",
    "./a.txt",
    "../out.txt",
    "b/../../out.txt",
    "/tmp/out.txt",
    "C:\\out.txt",
    "b\\..\\..\\out.txt",
    "..",
    ".",
    "",
    "a\0b.txt",
    "\u{202e}txt.exe",
    "__MACOSX/a.txt",
    "inner.zip",
];

const CONTENTS: [&[u8]; 4] = [
    b"one two three\n",
    b"",
    b"../../out.txt\0",
    b"40 path=../out.txt\n",
];

/// A file in an archive, or what says that it is one.
struct Entry {
    name: String,
    bytes: &'static [u8],
    /// The length that is claimed for it.
    len: u64,
    /// As tar has it: a plain file, a link, a device, a folder, a header for the entry behind it.
    kind: u8,
    /// As zip has it: the same in the upper bits of a mode.
    mode: u32,
    link: &'static str,
}

impl Entry {
    fn sound(name: &str, bytes: &'static [u8]) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
            len: bytes.len() as u64,
            kind: b'0',
            mode: 0o100_644,
            link: "",
        }
    }

    fn odd(dice: &mut Dice) -> Self {
        let name = match dice.below(3) {
            0 => (*dice.pick(&NAMES)).to_owned(),
            _ => format!("{}.txt", dice.next()),
        };
        let mut entry = Self::sound(&name, dice.pick::<&[u8]>(&CONTENTS));
        match dice.below(10) {
            0 => entry.name = "long/".repeat(60),
            1 => entry.len = dice.next() >> dice.below(64),
            2..5 => {
                entry.kind = *dice.pick(b"\x001235LKxg");
                entry.mode = *dice.pick(&[0o120_777, 0o010_644, 0o040_755]);
                entry.link = *dice.pick(&["/etc/passwd", "../../../out.txt", "a.txt", ""]);
            }
            _ => {}
        }
        entry
    }
}

/// A tar whose checksums are right.
fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(in_tar).collect();
    bytes.extend([0; 1024]);
    bytes
}

fn in_tar(entry: &Entry) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8], room: usize| {
        let len = bytes.len().min(room);
        header[at..at + len].copy_from_slice(&bytes[..len]);
    };
    put(0, entry.name.as_bytes(), 100);
    put(100, b"0000644\0", 8);
    put(124, format!("{:011o}", entry.len).as_bytes(), 12);
    put(148, b"        ", 8);
    put(156, &[entry.kind], 1);
    put(157, entry.link.as_bytes(), 100);
    put(257, b"ustar\x0000", 8);
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = [&header, entry.bytes].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// The checksum of zip and gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let mixed = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, mixed)
}

/// A zip of files as they are, whose checksums are right.
fn zip(entries: &[Entry], n_listed: usize) -> Vec<u8> {
    let (mut files, mut list) = (Vec::new(), Vec::new());
    for entry in entries {
        let (at, name) = (files.len() as u32, entry.name.as_bytes());
        let head = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &crc32(entry.bytes).to_le_bytes(),
            &(entry.bytes.len() as u32).to_le_bytes(),
            &(entry.len as u32).to_le_bytes(),
            &(name.len() as u16).to_le_bytes(),
            &[0; 2],
        ]
        .concat();
        files.extend([b"PK\x03\x04", &*head, name, entry.bytes].concat());
        let mode = (entry.mode << 16).to_le_bytes();
        let tail = [&[0; 6][..], &mode, &at.to_le_bytes()].concat();
        list.extend([b"PK\x01\x02\x14\x03", &*head, &tail, name].concat());
    }
    let n_listed = (n_listed as u16).to_le_bytes();
    let [len, at] = [list.len(), files.len()].map(|n| (n as u32).to_le_bytes());
    let end = [
        &b"PK\x05\x06\0\0\0\0"[..],
        &n_listed,
        &n_listed,
        &len,
        &at,
        &[0; 2],
    ]
    .concat();
    [files, list, end].concat()
}

/// A gzip of stored blocks.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    let mut blocks = bytes.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let len = block.len() as u16;
        packed.push(u8::from(blocks.peek().is_none()));
        packed.extend([len.to_le_bytes(), (!len).to_le_bytes()].concat());
        packed.extend(block);
    }
    packed.extend(crc32(bytes).to_le_bytes());
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

fn odd(dice: &mut Dice) -> (&'static str, Vec<u8>) {
    let entries: Vec<Entry> = (0..=dice.below(5)).map(|_| Entry::odd(dice)).collect();
    let n_listed = match dice.below(8) {
        0 => dice.next() as usize,
        _ => entries.len(),
    };
    let (name, bytes) = match dice.below(4) {
        0 => ("a.tar", tar(&entries)),
        1 => ("a.tar.gz", gzip(&tar(&entries))),
        2 => ("a.zip.gz", gzip(&zip(&entries, n_listed))),
        _ => ("a.zip", zip(&entries, n_listed)),
    };
    let parts: [&[u8]; 3] = [b"PK\x03\x04", b"\xff\xff\xff\xff", b"\0"];
    match dice.below(3) {
        0 => (name, damaged(dice, &bytes, &parts)),
        _ => (name, bytes),
    }
}

/// Sound archives of one file each.
pub(crate) fn sound(name: &str, bytes: &'static [u8]) -> Vec<(String, Vec<u8>)> {
    let entries = [Entry::sound(name, bytes)];
    [
        ("a.zip", zip(&entries, 1)),
        ("a.tar", tar(&entries)),
        ("a.tar.gz", gzip(&tar(&entries))),
        ("a.txt.gz", gzip(bytes)),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// All files around the home, and the home's artifacts.
fn outside(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|path| !path.starts_with(folder.join("project/.tinylm")));
    files
}

#[test]
fn an_archive_puts_nothing_outside_of_its_artifact() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("project");
    fs::create_dir(&folder).unwrap();
    let (mut dice, clock) = (Dice::new("archives"), Clock::start());
    let (mut n_attacks, mut n_opened) = (0, 0);
    while n_attacks == 0 || clock.goes_on() {
        let (name, bytes) = odd(&mut dice);
        fs::write(folder.join(name), &bytes).unwrap();
        let file = format!("stages: {{ a: {{ kind: download, with: {{ path: {name} }} }} }}");
        fs::write(folder.join("all.yaml"), file).unwrap();
        let before = outside(around.path());
        let output = bounded(&folder, &["run", "all.yaml"]).output().unwrap();
        let kept = std::env::temp_dir().join(format!("force-{name}"));
        fs::write(&kept, &bytes).unwrap();
        assert_told(&output, &format!("{}", kept.display()));
        assert_eq!(outside(around.path()), before, "{}", kept.display());
        for path in files_below(&folder.join(".tinylm/store")) {
            assert!(!path.is_symlink(), "{}: {}", kept.display(), path.display());
        }
        fs::remove_file(kept).unwrap();
        n_attacks += 1;
        n_opened += usize::from(output.status.success());
        fs::remove_dir_all(folder.join(".tinylm")).unwrap();
    }
    println!("archives: {n_attacks} archives, {n_opened} of them opened");
}

/// Or no attack would ever get past a checksum.
#[test]
fn what_is_packed_here_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in sound("a.txt", b"one two three\n") {
        fs::write(folder.path().join(&name), bytes).unwrap();
        let file = format!("stages: {{ a: {{ kind: download, with: {{ path: {name} }} }} }}");
        fs::write(folder.path().join("all.yaml"), file).unwrap();
        run(folder.path(), &[], &name);
        let files = files_below(&artifact(folder.path(), "a"));
        assert_eq!(files.len(), 1, "{name}: {files:?}");
        assert_eq!(fs::read(&files[0]).unwrap(), b"one two three\n", "{name}");
    }
}
