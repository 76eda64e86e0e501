//! Key records: what was made from which recipe. The truth of freshness.
//!
//! One small JSON file a key, so that a lost SQLite file retrains nothing and two processes never
//! contend. A record that cannot be read, or that speaks of another key, is treated as absent: the
//! price of being wrong is one execution, never a wrong hit. A record of a newer version is refused
//! instead: it is sound, and `gc` would take what it speaks of for nobody's.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Home, Millis, Place, home};

const VERSION: u32 = 1;

/// Who made the artifact of a key, from what, when and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub version: u32,
    pub key: Digest,
    pub kind: String,
    /// The recipe as `(path, value)` lines, in the order in which they were hashed.
    pub recipe: Vec<(String, String)>,
    pub artifact: Digest,
    pub artifact_bytes: u64,
    pub run_id: String,
    pub run_name: String,
    /// The stage's name in that run.
    pub stage: String,
    pub execution_id: String,
    pub made_at: Millis,
    pub seconds: f64,
    pub host: String,
    /// The device it was made on, which is reported and never part of the key.
    #[serde(default)]
    pub device: String,
    /// Where a download came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<serde_json::Value>,
    /// The stage's final numbers, so that a lost registry does not lose them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<(String, f64)>,
    /// The keys of its parts, which are kept as long as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Digest>,
}

impl KeyRecord {
    pub const VERSION: u32 = VERSION;
}

/// All that can be read of a record whatever its version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The record of `key`, if there is a sound one.
pub fn read_key(home: &Home, key: &Digest) -> Result<Option<KeyRecord>, Error> {
    let path = home.key_path(key);
    // Where it is not to be seen, another machine may have made it since it was last looked for.
    let read = fs::read(&path).or_else(|error| match path.is_found() {
        Ok(true) => fs::read(&path),
        _ => Err(error),
    });
    let Ok(bytes) = read else {
        return Ok(None);
    };
    match serde_json::from_slice::<KeyRecord>(&bytes) {
        Ok(record) if record.version <= VERSION => Ok((record.key == *key).then_some(record)),
        _ => refuse_newer(path, &bytes).map(|()| None),
    }
}

fn refuse_newer(path: Place, bytes: &[u8]) -> Result<(), Error> {
    match serde_json::from_slice::<Versioned>(bytes) {
        Ok(Versioned { version: found }) if found > VERSION => Err(Error::Newer {
            path: path.to_path_buf(),
            found,
            known: VERSION,
        }),
        _ => Ok(()),
    }
}

/// Writes a record; the artifact must have been committed before.
pub fn write_key(home: &Home, record: &KeyRecord) -> Result<(), Error> {
    let path = home.key_path(&record.key);
    let mut json = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::io("write", &path, error.into()))?;
    json.push(b'\n');
    path.write_atomic(&json)
}

/// Forgets what was made for `key`.
pub fn remove_key(home: &Home, key: &Digest) -> Result<(), Error> {
    home.key_path(key).remove()
}

/// Every key with a record, readable or not.
pub fn list_keys(home: &Home) -> Result<Vec<Digest>, Error> {
    let mut keys = Vec::new();
    for folder in home.keys().list()? {
        let paths = folder.list()?;
        keys.extend(
            paths
                .iter()
                .filter_map(|path| home::digest_at(path, ".json")),
        );
    }
    Ok(keys)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(key: Digest, artifact: Digest, run_id: &str) -> KeyRecord {
        KeyRecord {
            version: VERSION,
            key,
            kind: "dedupe".into(),
            recipe: vec![("kind".into(), "dedupe".into())],
            artifact,
            artifact_bytes: 3,
            run_id: run_id.into(),
            run_name: "brave-otter-7f3a".into(),
            stage: "clean".into(),
            execution_id: "e".into(),
            made_at: 1,
            seconds: 0.5,
            host: "here".into(),
            device: "cpu".into(),
            origin: Some(serde_json::json!({"url": "https://example.org"})),
            metrics: vec![("documents".into(), 3.0)],
            parts: vec![Digest::of_bytes(b"a part")],
        }
    }

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        (folder, home)
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let (_folder, home) = home();
        let key = Digest::of_bytes(b"key");
        assert_eq!(read_key(&home, &key).unwrap(), None);
        let record = record(key, Digest::of_bytes(b"a"), "r");
        write_key(&home, &record).unwrap();
        write_key(&home, &record).unwrap();
        assert_eq!(read_key(&home, &key).unwrap(), Some(record));
        assert_eq!(list_keys(&home).unwrap(), [key]);
        remove_key(&home, &key).unwrap();
        assert_eq!(list_keys(&home).unwrap(), []);
    }

    #[test]
    fn a_damaged_or_foreign_record_is_absent() {
        let (_folder, home) = home();
        let (key, other) = (Digest::of_bytes(b"key"), Digest::of_bytes(b"other"));
        let record = record(other, Digest::of_bytes(b"a"), "r");
        write_key(&home, &record).unwrap();
        home.key_path(&key).parent().create_folder().unwrap();
        fs::copy(home.key_path(&other), home.key_path(&key)).unwrap();
        assert_eq!(read_key(&home, &key).unwrap(), None);
        let json = fs::read_to_string(home.key_path(&other)).unwrap();
        fs::write(home.key_path(&other), &json[..json.len() / 2]).unwrap();
        assert_eq!(read_key(&home, &other).unwrap(), None);
    }

    #[test]
    fn a_newer_record_is_refused_by_name_whatever_else_it_says() {
        let (_folder, home) = home();
        let key = Digest::of_bytes(b"key");
        let path = home.key_path(&key);
        for json in [
            r#"{"version": 9}"#,
            r#"{"version": 9, "key": {"of": "another shape"}}"#,
        ] {
            path.write_atomic(json.as_bytes()).unwrap();
            let error = read_key(&home, &key).unwrap_err();
            assert!(error.is_damage());
            assert_eq!(
                error.to_string(),
                format!(
                    "`{}` has format 9, and this tinylm knows up to 1",
                    path.display()
                )
            );
        }
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let (_folder, home) = home();
        let key = Digest::of_bytes(b"key");
        let mut record = record(key, Digest::of_bytes(b"a"), "r");
        write_key(&home, &record).unwrap();
        let path = home.key_path(&key);
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let map = json.as_object_mut().unwrap();
        for added in ["device", "origin", "metrics"] {
            assert!(map.remove(added).is_some());
        }
        fs::write(&path, json.to_string()).unwrap();
        (record.device, record.origin, record.metrics) = (String::new(), None, Vec::new());
        assert_eq!(read_key(&home, &key).unwrap(), Some(record));
    }
}
