//! Documents are written and read back as they were said.

use std::{fs, path::Path};

use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};

use super::*;
use crate::shared::template::Role;

fn dialogues(n: usize) -> Rows {
    let mut rows = Rows::default();
    for idx in 0..n {
        let text = format!("number {idx}");
        let id = *blake3::hash(text.as_bytes()).as_bytes();
        let turns = [(Role::User, text.as_str()), (Role::Assistant, "yes")];
        rows.push_dialogue(id, id, "some", turns);
    }
    rows
}

/// Dialogues and texts by turns.
fn mixed(n: usize) -> Rows {
    let mut rows = Rows::default();
    for row in dialogues(n).iter() {
        rows.push_text(row.id, row.group, "some", "a text\nof two lines");
        rows.push(&row);
    }
    rows
}

fn write(folder: &Path, rows: &Rows) -> Written {
    let mut writer = DocumentsWriter::create(folder);
    for row in rows.iter() {
        writer.push(&row).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let rows = mixed(50);
    let written = write(dir.path(), &rows);
    assert_eq!(written.n_documents, 100);

    let documents = Documents::open(&[dir.path()]).unwrap();
    assert_eq!(documents.n_documents(), 100);
    let read = documents.row_groups()[0].read().unwrap();
    assert_eq!(read.len(), 100);
    assert!(read.iter().eq(rows.iter()));
}

#[test]
fn sources_of_several_artifacts_are_told_apart_by_their_places() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for dir in [&one, &other] {
        write(dir.path(), &dialogues(2));
    }
    let documents = Documents::open(&[one.path(), other.path()]).unwrap();
    let mut sources = Vec::new();
    for group in documents.row_groups() {
        let rows = group.read().unwrap();
        sources.extend(rows.iter().map(|row| row.source.to_owned()));
    }
    assert_eq!(sources, ["1/some", "1/some", "2/some", "2/some"]);
}

#[test]
fn row_groups_encoded_elsewhere_are_the_same_bytes() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let rows = dialogues(50);
    write(one.path(), &rows);
    let mut writer = DocumentsWriter::create(other.path());
    let encoded = writer.encoder().encode(rows).unwrap();
    writer.push_encoded(encoded).unwrap();
    writer.finish().unwrap();

    let bytes = |dir: &Path| fs::read(dir.join("documents-00000.parquet")).unwrap();
    assert_eq!(bytes(one.path()), bytes(other.path()));
}

#[test]
fn heavy_row_groups_come_in_smaller_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DocumentsWriter::create(dir.path());
    for n_bytes in [1, 1, 1, 50 << 20, 1, 1] {
        let text = "a".repeat(n_bytes);
        let mut rows = Rows::default();
        rows.push_text([0; 32], [0; 32], "", &text);
        writer
            .push_encoded(writer.encoder().encode(rows).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
    let documents = Documents::open(&[dir.path()]).unwrap();
    let lengths: Vec<usize> = documents.batches(2).map(<[RowGroup]>::len).collect();
    assert_eq!(lengths, [2, 1, 1, 2]);
}

#[test]
fn a_corpus_without_documents_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &Rows::default());
    let documents = Documents::open(&[dir.path()]).unwrap();
    assert_eq!(documents.n_documents(), 0);
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Documents::open(&[dir.path()]).is_err());
    fs::write(dir.path().join("documents-00000.parquet"), "PAR1").unwrap();
    assert!(Documents::open(&[dir.path()]).is_err());
}

/// Room is made for as many rows as a footer claims, so it may not claim what no writer of ours does.
#[test]
fn a_footer_that_claims_more_rows_than_a_group_can_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &dialogues(2));
    let path = dir.path().join("documents-00000.parquet");
    let bytes = fs::read(&path).unwrap();
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&fs::File::open(&path).unwrap())
        .unwrap();
    let [group] = metadata.row_groups() else {
        panic!("two documents are one row group");
    };
    let columns = group.columns().to_vec();
    let group = RowGroupMetaData::builder(group.schema_descr_ptr())
        .set_num_rows(1 << 40)
        .set_column_metadata(columns)
        .build()
        .unwrap();
    let metadata = ParquetMetaData::new(metadata.file_metadata().clone(), vec![group]);
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    let mut claims = bytes[..bytes.len() - 8 - footer].to_vec();
    ParquetMetaDataWriter::new(&mut claims, &metadata)
        .finish()
        .unwrap();
    fs::write(&path, claims).unwrap();
    let refused = Documents::open(&[dir.path()]).unwrap_err();
    assert!(
        refused
            .message
            .ends_with("claims 1099511627776 rows in row group 0"),
        "{refused:?}"
    );
}
