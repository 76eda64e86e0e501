//! Which files of a corpus make a part.
//!
//! A part is a row of whole files. Where one ends is drawn from the file itself: behind it, with the chance
//! that its size is of a part's, by its digest. So a file that is added, changed or removed moves the ends
//! near it and no others, which counting bytes from the start would not do: each later part would begin
//! elsewhere and have to be made again.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;
use tinylm_pipeline::{
    Input, StageError, StageIo,
    parts::{Collection, Digest, FileEntry, Link, Whole},
    settings::{Setting, Settings, Shape, Shaped},
};

/// How many bytes of files make a part, about: `4GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Partition(pub u64);

impl Shaped for Partition {
    fn shape() -> Shape {
        Shape::Own(
            "an amount of bytes such as 4GB",
            r#"{ "type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9.eE+ ]+[KkMmGgTt]?[Bb]?$" }"#,
        )
    }
}

impl<'de> Deserialize<'de> for Partition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let bytes = match &value {
            Value::String(text) => bytes(text),
            value => value.as_u64(),
        };
        let bytes = bytes.filter(|bytes| *bytes > 0);
        bytes.map(Self).ok_or_else(|| {
            D::Error::custom("expected an amount of bytes such as `4GB`, `512MB` or `1000000`")
        })
    }
}

/// `4GB` in bytes, by tens as those who sell disks count.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        _ => return None,
    };
    let bytes = unit * digits.trim().parse::<f64>().ok()?;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

/// A file of what fills a role.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) artifact: Digest,
    /// The place of its artifact, where several fill the role.
    pub(crate) place: Option<usize>,
    pub(crate) entry: FileEntry,
}

/// Chance never makes a part of so many times the size.
const SIZES_MAX: u64 = 4;
/// A part has no more files: shards count the sources of a part in two bytes.
const FILES_MAX: usize = 1 << 14;
/// Files are named by their part's number in five digits, and read in the order of their names.
const PARTS_MAX: usize = 99_999;

/// Returns the files of several artifacts that are wanted, in order, as parts.
pub(crate) fn parts(
    inputs: &[Whole],
    is_wanted: impl Fn(&FileEntry) -> bool,
    size: Partition,
) -> Result<Vec<Vec<File>>, StageError> {
    let mut parts = vec![Vec::new()];
    let mut n_bytes = 0;
    for (idx, input) in inputs.iter().enumerate() {
        let place = (inputs.len() > 1).then_some(idx + 1);
        for entry in input.files.iter().filter(|entry| is_wanted(entry)) {
            let file = File {
                artifact: input.digest,
                place,
                entry: entry.clone(),
            };
            n_bytes += entry.bytes;
            let is_full = parts.last().is_some_and(|part| part.len() + 1 >= FILES_MAX);
            let is_last = is_full || ends_part(entry, size) || n_bytes / SIZES_MAX >= size.0;
            if let Some(part) = parts.last_mut() {
                part.push(file);
            }
            if is_last {
                parts.push(Vec::new());
                n_bytes = 0;
            }
        }
    }
    parts.retain(|part| !part.is_empty());
    if parts.len() > PARTS_MAX {
        let message = format!("`partition` makes {} parts of these files", parts.len());
        return Err(StageError::new(message)
            .help(format!("set a larger one: there may be {PARTS_MAX}"))
            .is_final());
    }
    Ok(parts)
}

fn ends_part(entry: &FileEntry, size: Partition) -> bool {
    is_drawn(entry.digest.as_bytes(), entry.bytes, size)
}

/// Whether something of so many bytes with this digest is the last of a part.
pub(crate) fn is_drawn(digest: &[u8; 32], n_bytes: u64, size: Partition) -> bool {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    let drawn = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let chance = n_bytes as f64 / size.0 as f64;
    (drawn as f64 / u64::MAX as f64) < chance
}

/// Stands for what is in some files, whatever they are called.
pub(crate) fn digest(files: &[File]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let place = file.place.map_or(0, |place| place as u64);
        hasher.update(&place.to_le_bytes());
        hasher.update(file.entry.digest.as_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// Stands for several things in order.
pub(crate) fn digest_of_all<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for digest in digests {
        hasher.update(digest.as_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// The role in which a part has the artifacts that its files are in.
pub(crate) const FILES: &str = "files";

/// Where the files of a part are: what it is told beside its key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Places {
    pub(crate) files: Vec<PlaceOfFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlaceOfFile {
    /// Its artifact's number among those of the role.
    artifact: usize,
    name: String,
    pub(crate) place: Option<usize>,
}

impl Settings for Places {
    const EXCLUSIVE: &'static [&'static [&'static str]] = &[];

    fn list() -> Vec<Setting> {
        Vec::new()
    }
}

impl Places {
    /// Returns where these files are, and the artifacts to be given in [`FILES`].
    pub(crate) fn of(files: &[File]) -> (Self, Vec<Digest>) {
        let mut artifacts: Vec<Digest> = Vec::new();
        let files = files.iter().map(|file| {
            let known = artifacts.iter().position(|one| *one == file.artifact);
            let artifact = known.unwrap_or_else(|| {
                artifacts.push(file.artifact);
                artifacts.len() - 1
            });
            PlaceOfFile {
                artifact,
                name: file.entry.path.clone(),
                place: file.place,
            }
        });
        let files = files.collect();
        (Self { files }, artifacts)
    }

    /// Returns the files as they can be opened, in order.
    pub(crate) fn named(&self, io: &StageIo) -> Vec<NamedFile> {
        let artifacts = io.inputs(FILES);
        let named = self.files.iter().filter_map(|file| {
            // Whoever made the part gave it all artifacts that its files are in.
            let artifact: &Input = artifacts.get(file.artifact)?;
            Some(NamedFile {
                place: file.place,
                name: file.name.clone(),
                path: artifact.path.join(&file.name),
            })
        });
        named.collect()
    }
}

/// A file of a part.
#[derive(Debug, Clone)]
pub(crate) struct NamedFile {
    pub(crate) place: Option<usize>,
    /// Its path in its artifact.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Takes files of a part into the collection, its number behind the first word of their names:
/// `documents-00003-00000.parquet`, in an order that is that of the parts.
pub(crate) fn collect(
    collection: &mut Collection,
    part: &Whole,
    number: usize,
    is_taken: impl Fn(&str) -> bool,
) {
    for entry in part.files.iter().filter(|entry| is_taken(&entry.path)) {
        collection.files.push(Link {
            name: name_of_part(&entry.path, number),
            from: part.digest,
            file: entry.path.clone(),
        });
    }
}

/// Returns the name in a collection of a part's file.
pub(crate) fn name_of_part(name: &str, number: usize) -> String {
    let (word, rest) = name.split_at(name.find(['-', '.']).unwrap_or(name.len()));
    format!("{word}-{number:05}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(files: &[(&str, u64)]) -> Whole {
        let entry = |(name, bytes): &(&str, u64)| FileEntry {
            path: (*name).to_owned(),
            bytes: *bytes,
            digest: Digest::of_bytes(name.as_bytes()),
        };
        Whole {
            digest: Digest::of_bytes(b"whole"),
            path: PathBuf::new(),
            files: files.iter().map(entry).collect(),
            metrics: tinylm_pipeline::Metrics::default(),
        }
    }

    fn names(parts: &[Vec<File>]) -> Vec<Vec<String>> {
        let name = |file: &File| file.entry.path.clone();
        let names = |part: &Vec<File>| part.iter().map(name).collect();
        parts.iter().map(names).collect()
    }

    fn cut(names_of: &[String], size: u64) -> Vec<Vec<String>> {
        let files: Vec<(&str, u64)> = names_of.iter().map(|name| (name.as_str(), 100)).collect();
        names(&parts(&[whole(&files)], |_| true, Partition(size)).unwrap())
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text: &str| {
            serde_json::from_str::<Partition>(text)
                .map(|size| size.0)
                .ok()
        };
        let read = [
            "\"4GB\"",
            "\"1.5 kb\"",
            "\"64M\"",
            "7",
            "0",
            "\"4 parts\"",
            "-1",
            "\"\"",
        ]
        .map(read);
        let wanted = [
            Some(4_000_000_000),
            Some(1_500),
            Some(64_000_000),
            Some(7),
            None,
            None,
            None,
            None,
        ];
        assert_eq!(read, wanted);
    }

    #[test]
    fn files_of_a_parts_size_are_parts_of_their_own_and_small_ones_share() {
        let files: Vec<String> = (0..1_000).map(|n| format!("{n:04}")).collect();
        assert_eq!(cut(&files, 100).len(), 1_000);
        let n_parts = cut(&files, 1_000).len();
        assert!((70..140).contains(&n_parts), "{n_parts}");
        assert!(cut(&files, 1_000).iter().all(|part| part.len() <= 40));
        let again: Vec<String> = cut(&files, 1_000).concat();
        assert_eq!(again, files);
    }

    #[test]
    fn a_file_more_or_less_moves_the_ends_near_it_and_no_others() {
        let files: Vec<String> = (0..500).map(|n| format!("{n:04}")).collect();
        let before = cut(&files, 1_000);
        for at in [0, 137, 250, 499] {
            let mut fewer = files.clone();
            fewer.remove(at);
            let mut more = files.clone();
            more.insert(at, "another".to_owned());
            for changed in [fewer, more] {
                let after = cut(&changed, 1_000);
                let new = after.iter().filter(|part| !before.contains(part));
                assert!(new.count() <= 2, "{at}");
            }
        }
    }
}
