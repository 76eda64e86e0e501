//! Small shards folders for tests.

use super::*;

/// A document as `(id, role byte)` pairs.
pub(crate) type Tokens = Vec<(u16, u8)>;

/// Every token a target of role text.
pub(crate) fn text(ids: &[u16]) -> Tokens {
    ids.iter().map(|&id| (id, ROLE_TEXT | TARGET)).collect()
}

/// Writes a folder whose splits have one file for each list of documents.
pub(crate) fn write(folder: &Path, vocab_size: usize, splits: &[(&str, &[Vec<Tokens>])]) {
    let splits = splits.iter().map(|(name, files)| {
        let mut split = SplitIndex::default();
        for (file_idx, documents) in files.iter().enumerate() {
            let file = write_file(folder, &format!("{name}-{file_idx:05}.bin"), documents);
            split.tokens += file.tokens;
            split.documents += file.documents;
            let targets = |tokens: &Tokens| tokens.iter().filter(|t| t.1 & TARGET != 0).count();
            split.targets += documents.iter().map(targets).sum::<usize>() as u64;
            split.files.push(file);
        }
        ((*name).to_owned(), split)
    });
    let index = ShardsIndex {
        version: VERSION,
        vocab_size,
        sources: vec!["one".to_owned()],
        template: None,
        pairs: false,
        splits: splits.collect(),
        stats: serde_json::Value::Null,
    };
    fs::write(folder.join(INDEX_NAME), serde_json::to_vec(&index).unwrap()).unwrap();
}

fn write_file(folder: &Path, name: &str, documents: &[Tokens]) -> ShardFile {
    let (mut bin, mut idx, mut roles) = (Vec::new(), Vec::new(), Vec::new());
    for document in documents {
        let record = DocumentRecord {
            start: roles.len() as u64,
            bytes: document.len() as u32,
            source: 0,
        };
        idx.extend(record.encode());
        for (id, role) in document {
            bin.extend(id.to_le_bytes());
            roles.push(*role);
        }
    }
    let path = folder.join(name);
    fs::write(&path, &bin).unwrap();
    fs::write(path.with_extension("idx"), &idx).unwrap();
    fs::write(path.with_extension("roles"), &roles).unwrap();
    ShardFile {
        name: name.to_owned(),
        tokens: roles.len() as u64,
        documents: documents.len() as u64,
        sources: None,
    }
}
