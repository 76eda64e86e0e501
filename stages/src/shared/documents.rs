//! `documents-*.parquet`: what normalize and dedupe write and the later stages read.
//!
//! A row is one document: the digest of what was said (`id`), the digest of the row it
//! was cut from (`group`), the file it came from (`source`), its `text` as rendered
//! and the byte spans of the contents in it (`turns`, empty for raw text). The template
//! stands in each file's metadata, because the spans mean nothing without it.
//!
//! A source has no stage's name in it, since no key has. Where documents of several
//! artifacts are read, the place of theirs in the list stands before it (`2/dialogs`),
//! so that two files of one name are told apart.
//!
//! Rows go in row groups of about eight megabytes of text. A row group is what one
//! thread encodes, what one thread reads and all that is held in memory of a corpus;
//! their limits depend on the rows alone, so that any number of threads makes the same
//! bytes. Arrow's own writer would encode on one thread.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, ListArray, RecordBatch, StringArray, StructArray,
    cast::AsArray, types::UInt32Type,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::{
    arrow::{
        ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder},
        arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use tinylm_pipeline::{At, StageError, sys::begin_to_store};

use crate::shared::template::{Role, Span, Template};

/// A row group is closed when its text has this many bytes, or it has this many rows.
pub(crate) const GROUP_BYTES: usize = 8 << 20;
pub(crate) const GROUP_ROWS: usize = 1 << 16;
/// A file is closed when its text has this many bytes.
const FILE_BYTES: u64 = 1 << 30;

pub(crate) type Digest = [u8; 32];

/// The leaf column that holds the texts.
const TEXT_COLUMN: usize = 3;

const TEMPLATE_KEY: &str = "tinylm.template";
const VERSION_KEY: &str = "tinylm.documents";
const VERSION: &str = "1";

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    pub(crate) id: Digest,
    pub(crate) group: Digest,
    pub(crate) source: &'a str,
    pub(crate) text: &'a str,
    pub(crate) turns: &'a [Span],
}

/// Rows in memory, column by column.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    ids: Vec<u8>,
    groups: Vec<u8>,
    sources: Texts,
    texts: Texts,
    spans: Vec<Span>,
    /// Where each row's spans end.
    span_ends: Vec<i32>,
}

/// Strings end to end.
#[derive(Debug, Clone, Default)]
struct Texts {
    text: String,
    ends: Vec<i32>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.close();
    }

    /// Ends the row whose text was written straight into `self.text`.
    fn close(&mut self) {
        // A row group holds some megabytes, a row at most `ROW_BYTES_MAX` more.
        self.ends.push(self.text.len() as i32);
    }

    /// Takes over a column's memory, or copies what others hold on to as well.
    fn of(column: ArrayRef) -> Option<Self> {
        let array = column.as_string_opt::<i32>()?.clone();
        drop(column);
        let (offsets, bytes, _) = array.into_parts();
        if offsets[0] != 0 {
            return None;
        }
        let copied = |bytes: Buffer| bytes.as_slice().to_vec();
        let bytes = bytes.into_vec().unwrap_or_else(copied);
        Some(Self {
            text: String::from_utf8(bytes).ok()?,
            ends: offsets[1..].to_vec(),
        })
    }

    /// Copies a column, with `place` before each text.
    fn behind(place: &str, array: &StringArray) -> Self {
        let mut texts = Self::default();
        for text in array.iter().flatten() {
            texts.text.push_str(place);
            texts.push(text);
        }
        texts
    }

    fn get(&self, idx: usize) -> &str {
        let start = idx.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[idx] as usize]
    }

    fn array(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(offsets(&self.ends));
        let bytes = Buffer::from_vec(self.text.into_bytes());
        Arc::new(StringArray::new(offsets, bytes, None))
    }
}

fn offsets(ends: &[i32]) -> ScalarBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend_from_slice(ends);
    offsets.into()
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.span_ends.len()
    }

    /// Makes room for so many more rows, bytes of text and turns: growing step by step would
    /// copy megabytes again and again.
    pub(crate) fn reserve(&mut self, n_rows: usize, n_bytes: usize, n_turns: usize) {
        self.ids.reserve(32 * n_rows);
        self.groups.reserve(32 * n_rows);
        self.sources.ends.reserve(n_rows);
        self.texts.ends.reserve(n_rows);
        self.texts.text.reserve(n_bytes);
        self.spans.reserve(n_turns);
        self.span_ends.reserve(n_rows);
    }

    /// Returns the number of turns in it.
    pub(crate) fn n_turns(&self) -> usize {
        self.spans.len()
    }

    /// Returns the bytes of text in it.
    pub(crate) fn n_bytes(&self) -> usize {
        self.texts.text.len()
    }

    /// Whether it has grown to a row group.
    pub(crate) fn is_full(&self) -> bool {
        self.n_bytes() >= GROUP_BYTES || self.len() >= GROUP_ROWS
    }

    pub(crate) fn push(&mut self, row: &Document) {
        self.ids.extend_from_slice(&row.id);
        self.groups.extend_from_slice(&row.group);
        self.sources.push(row.source);
        self.texts.push(row.text);
        self.spans.extend_from_slice(row.turns);
        self.span_ends.push(self.spans.len() as i32);
    }

    /// `push` of a dialogue that is rendered in place.
    pub(crate) fn push_rendered(
        &mut self,
        id: Digest,
        group: Digest,
        source: &str,
        template: Template,
        turns: &[(Role, &str)],
    ) {
        self.ids.extend_from_slice(&id);
        self.groups.extend_from_slice(&group);
        self.sources.push(source);
        template.render_into(turns, &mut self.texts.text, &mut self.spans);
        self.texts.close();
        self.span_ends.push(self.spans.len() as i32);
    }

    pub(crate) fn get(&self, idx: usize) -> Document<'_> {
        let start = idx
            .checked_sub(1)
            .map_or(0, |before| self.span_ends[before]);
        Document {
            id: digest_at(&self.ids, idx),
            group: digest_at(&self.groups, idx),
            source: self.sources.get(idx),
            text: self.texts.get(idx),
            turns: &self.spans[start as usize..self.span_ends[idx] as usize],
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Document<'_>> {
        (0..self.len()).map(|idx| self.get(idx))
    }

    fn into_batch(self) -> Result<RecordBatch, StageError> {
        let columns = vec![
            digests(self.ids),
            digests(self.groups),
            self.sources.array(),
            self.texts.array(),
            turns_array(&self.spans, &self.span_ends),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| StageError::new(error.to_string()))
    }
}

fn digest_at(bytes: &[u8], idx: usize) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(&bytes[32 * idx..32 * (idx + 1)]);
    digest
}

fn digests(bytes: Vec<u8>) -> ArrayRef {
    Arc::new(FixedSizeBinaryArray::new(32, Buffer::from_vec(bytes), None))
}

fn turns_array(spans: &[Span], ends: &[i32]) -> ArrayRef {
    let roles = StringArray::from_iter_values(spans.iter().map(|span| span.role.name()));
    let starts: ScalarBuffer<u32> = spans.iter().map(|span| span.start).collect();
    let span_ends: ScalarBuffer<u32> = spans.iter().map(|span| span.end).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(roles),
        Arc::new(arrow_array::UInt32Array::new(starts, None)),
        Arc::new(arrow_array::UInt32Array::new(span_ends, None)),
    ];
    let structs = StructArray::new(turn_fields(), columns, None);
    let offsets = OffsetBuffer::new(offsets(ends));
    Arc::new(ListArray::new(
        turn_item(),
        offsets,
        Arc::new(structs),
        None,
    ))
}

fn turn_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, false),
        Field::new("start", DataType::UInt32, false),
        Field::new("end", DataType::UInt32, false),
    ])
}

fn turn_item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(turn_fields()), false))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("group", DataType::FixedSizeBinary(32), false),
        Field::new("source", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, false),
        Field::new("turns", DataType::List(turn_item()), false),
    ]))
}

/// Says that a Parquet file cannot be read or written.
fn parquet_error(path: &Path, error: &ParquetError) -> StageError {
    StageError::new(format!("`{}`: {error}", path.display()))
}

/// A row group, encoded and compressed, not yet in a file.
pub(crate) struct Encoded {
    columns: Vec<ArrowColumnChunk>,
    pub(crate) n_rows: usize,
    n_bytes: u64,
}

/// Makes row groups out of rows, on any thread.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    properties: WriterPropertiesPtr,
}

impl Encoder {
    fn new(template: Template) -> Result<Self, StageError> {
        // Ids are noise and texts hardly repeat: a dictionary of them only costs time.
        let texts = [ColumnPath::from("text"), ColumnPath::from("id")];
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by("tinylm".to_owned())
            .set_key_value_metadata(Some(vec![
                KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_owned()),
                KeyValue::new(TEMPLATE_KEY.to_owned(), template.name().to_owned()),
            ]));
        for column in texts {
            properties = properties.set_column_dictionary_enabled(column, false);
        }
        let mut properties = properties.build();
        add_encoded_arrow_schema_to_metadata(&schema(), &mut properties);
        Ok(Self {
            properties: Arc::new(properties),
        })
    }

    /// Returns `rows` as a row group.
    pub(crate) fn encode(&self, rows: Rows) -> Result<Encoded, StageError> {
        let (n_rows, n_bytes) = (rows.len(), rows.n_bytes() as u64);
        let columns = self
            .encode_batch(&rows.into_batch()?)
            .map_err(|error| StageError::new(format!("cannot encode documents: {error}")))?;
        Ok(Encoded {
            columns,
            n_rows,
            n_bytes,
        })
    }

    fn encode_batch(&self, batch: &RecordBatch) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let file = file_writer(std::io::sink(), &self.properties)?;
        let factory = ArrowRowGroupWriterFactory::new(&file, schema());
        let mut writers = factory.create_column_writers(0)?.into_iter();
        let mut columns = Vec::new();
        for (field, column) in schema().fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, column)? {
                let Some(mut writer) = writers.next() else {
                    return Err(ParquetError::General("a column has no writer".to_owned()));
                };
                writer.write(&leaf)?;
                columns.push(writer.close()?);
            }
        }
        Ok(columns)
    }
}

fn file_writer<W: std::io::Write + Send>(
    writer: W,
    properties: &WriterPropertiesPtr,
) -> Result<SerializedFileWriter<W>, ParquetError> {
    let parquet_schema = ArrowSchemaConverter::new().convert(&schema())?;
    SerializedFileWriter::new(writer, parquet_schema.root_schema_ptr(), properties.clone())
}

/// Writes `documents-00000.parquet` and so on into a folder.
pub(crate) struct DocumentsWriter {
    folder: PathBuf,
    encoder: Encoder,
    rows: Rows,
    file: Option<OpenFile>,
    n_files: usize,
    n_documents: u64,
    n_bytes: u64,
}

struct OpenFile {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    n_bytes: u64,
}

/// What has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    pub(crate) n_documents: u64,
    /// Bytes of text.
    pub(crate) n_bytes: u64,
    pub(crate) n_files: usize,
}

impl DocumentsWriter {
    pub(crate) fn create(folder: &Path, template: Template) -> Result<Self, StageError> {
        Ok(Self {
            folder: folder.to_owned(),
            encoder: Encoder::new(template)?,
            rows: Rows::default(),
            file: None,
            n_files: 0,
            n_documents: 0,
            n_bytes: 0,
        })
    }

    /// Returns what encodes rows for [`push_encoded`](Self::push_encoded) on other threads.
    pub(crate) fn encoder(&self) -> Encoder {
        self.encoder.clone()
    }

    pub(crate) fn push(&mut self, row: &Document) -> Result<(), StageError> {
        self.rows.push(row);
        if self.rows.is_full() {
            self.flush()?;
        }
        Ok(())
    }

    /// Adds a row group that was encoded elsewhere; an empty one leaves no trace.
    pub(crate) fn push_encoded(&mut self, encoded: Encoded) -> Result<(), StageError> {
        self.flush()?;
        self.append(encoded)
    }

    /// Closes the last file. A corpus without documents has one file without rows.
    pub(crate) fn finish(mut self) -> Result<Written, StageError> {
        self.flush()?;
        if self.n_files == 0 {
            self.open_file()?;
        }
        self.close_file()?;
        Ok(Written {
            n_documents: self.n_documents,
            n_bytes: self.n_bytes,
            n_files: self.n_files,
        })
    }

    fn flush(&mut self) -> Result<(), StageError> {
        let rows = std::mem::take(&mut self.rows);
        let encoded = self.encoder.encode(rows)?;
        self.append(encoded)
    }

    fn append(&mut self, encoded: Encoded) -> Result<(), StageError> {
        if encoded.n_rows == 0 {
            return Ok(());
        }
        if self
            .file
            .as_ref()
            .is_some_and(|file| file.n_bytes >= FILE_BYTES)
        {
            self.close_file()?;
        }
        self.n_documents += encoded.n_rows as u64;
        self.n_bytes += encoded.n_bytes;
        let file = self.open_file()?;
        file.n_bytes += encoded.n_bytes;
        file.append(encoded.columns)
            .map_err(|error| parquet_error(&file.path, &error))
    }

    fn open_file(&mut self) -> Result<&mut OpenFile, StageError> {
        if self.file.is_none() {
            let path = self
                .folder
                .join(format!("documents-{:05}.parquet", self.n_files));
            let file = File::create_new(&path).at(&path)?;
            let writer = file_writer(file, &self.encoder.properties)
                .map_err(|error| parquet_error(&path, &error))?;
            self.n_files += 1;
            self.file = Some(OpenFile {
                path,
                writer,
                n_bytes: 0,
            });
        }
        self.file
            .as_mut()
            .ok_or_else(|| StageError::new("no file of documents is open"))
    }

    fn close_file(&mut self) -> Result<(), StageError> {
        let Some(OpenFile { path, writer, .. }) = self.file.take() else {
            return Ok(());
        };
        writer
            .close()
            .map_err(|error| parquet_error(&path, &error))?;
        Ok(())
    }
}

impl OpenFile {
    fn append(&mut self, columns: Vec<ArrowColumnChunk>) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in columns {
            column.append_to_row_group(&mut group)?;
        }
        group.close()?;
        begin_to_store(self.writer.inner());
        Ok(())
    }
}

/// The documents of one or several artifacts, in order, row group by row group.
#[derive(Debug)]
pub(crate) struct Documents {
    template: Template,
    groups: Vec<RowGroup>,
    n_documents: u64,
}

/// A row group that can be read on any thread.
#[derive(Debug, Clone)]
pub(crate) struct RowGroup {
    path: Arc<PathBuf>,
    metadata: ArrowReaderMetadata,
    idx: usize,
    pub(crate) n_rows: usize,
    /// The number of rows before it, in all files.
    pub(crate) first_row: u64,
    /// The place of its artifact, where there are several.
    place: Option<usize>,
}

impl Documents {
    /// Looks at what stands in `folders`, without reading any row.
    pub(crate) fn open(folders: &[&Path]) -> Result<Self, StageError> {
        let mut template: Option<(Template, PathBuf)> = None;
        let mut documents = Self {
            template: Template::Plain,
            groups: Vec::new(),
            n_documents: 0,
        };
        for (idx, folder) in folders.iter().enumerate() {
            let place = (folders.len() > 1).then_some(idx + 1);
            for path in document_files(folder)? {
                let found = documents.add_file(&path, place)?;
                match &template {
                    Some((known, first)) if *known != found => {
                        return Err(mixed(*known, first, found, &path));
                    }
                    Some(_) => {}
                    None => template = Some((found, path)),
                }
            }
        }
        if let Some((found, _)) = template {
            documents.template = found;
        }
        Ok(documents)
    }

    pub(crate) fn template(&self) -> Template {
        self.template
    }

    pub(crate) fn n_documents(&self) -> u64 {
        self.n_documents
    }

    pub(crate) fn row_groups(&self) -> &[RowGroup] {
        &self.groups
    }

    /// Returns the row groups as many at a time as `n_max`, and fewer where they are heavy.
    pub(crate) fn batches(&self, n_max: usize) -> impl Iterator<Item = &[RowGroup]> {
        let mut left = self.groups.as_slice();
        std::iter::from_fn(move || {
            let mut n_bytes = 0;
            let fits = |group: &&RowGroup| {
                n_bytes += group.text_bytes();
                n_bytes <= n_max as u64 * 2 * GROUP_BYTES as u64
            };
            let n_fitting = left.iter().take(n_max).take_while(fits).count();
            let (batch, rest) = left.split_at(n_fitting.max(1).min(left.len()));
            left = rest;
            (!batch.is_empty()).then_some(batch)
        })
    }

    fn add_file(&mut self, path: &Path, place: Option<usize>) -> Result<Template, StageError> {
        let file = File::open(path).at(path)?;
        let metadata = ArrowReaderMetadata::load(&file, Default::default())
            .map_err(|error| parquet_error(path, &error))?;
        if metadata.schema().fields() != schema().fields() {
            return Err(StageError::new(format!(
                "`{}` has other columns than documents have",
                path.display()
            )));
        }
        let template = template_of(&metadata).ok_or_else(|| {
            StageError::new(format!(
                "`{}` does not name a template that this version knows",
                path.display()
            ))
        })?;
        let shared = Arc::new(path.to_owned());
        for (idx, group) in metadata.metadata().row_groups().iter().enumerate() {
            let n_rows = group.num_rows().max(0) as usize;
            self.groups.push(RowGroup {
                path: shared.clone(),
                metadata: metadata.clone(),
                idx,
                n_rows,
                first_row: self.n_documents,
                place,
            });
            self.n_documents += n_rows as u64;
        }
        Ok(template)
    }
}

/// Returns the document files of an artifact in order.
fn document_files(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("documents-") && name.ends_with(".parquet")) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let message = format!("`{}` holds no documents", folder.display());
        return Err(StageError::new(message)
            .help("this role reads what `normalize` or `dedupe` wrote")
            .is_final());
    }
    Ok(files)
}

fn template_of(metadata: &ArrowReaderMetadata) -> Option<Template> {
    let pairs = metadata.metadata().file_metadata().key_value_metadata()?;
    let value = |key: &str| pairs.iter().find(|pair| pair.key == key)?.value.as_deref();
    if value(VERSION_KEY)? != VERSION {
        return None;
    }
    Template::named(value(TEMPLATE_KEY)?)
}

fn mixed(known: Template, first: &Path, found: Template, path: &Path) -> StageError {
    StageError::new(format!(
        "documents of two templates cannot be mixed: `{}` has `{}`, `{}` has `{}`",
        first.display(),
        known.name(),
        path.display(),
        found.name()
    ))
    .help("give both `normalize` stages the same `template`")
    .is_final()
}

impl RowGroup {
    /// Returns about how many bytes of text it holds, without reading them.
    pub(crate) fn text_bytes(&self) -> u64 {
        let column = self
            .metadata
            .metadata()
            .row_group(self.idx)
            .column(TEXT_COLUMN);
        column.uncompressed_size().max(0) as u64
    }

    /// Reads its rows.
    pub(crate) fn read(&self) -> Result<Rows, StageError> {
        let path = self.path.as_path();
        let file = File::open(path).at(path)?;
        let mut reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_row_groups(vec![self.idx])
                .with_batch_size(self.n_rows.max(1))
                .build()
                .map_err(|error| parquet_error(path, &error))?;
        let place = self.place.map(|place| format!("{place}/"));
        // A batch holds as many rows as the group has.
        let Some(batch) = reader.next() else {
            return Ok(Rows::default());
        };
        let batch =
            batch.map_err(|error| StageError::new(format!("`{}`: {error}", path.display())))?;
        Rows::of_batch(batch, place.as_deref()).ok_or_else(|| {
            StageError::new(format!(
                "`{}`: row group {} is not as it was written",
                path.display(),
                self.idx
            ))
        })
    }
}

impl Rows {
    /// Takes over a batch, with `place` before each source; `None` where it does not hold
    /// what documents hold. Texts are by far the most of it: they stay where they are.
    fn of_batch(batch: RecordBatch, place: Option<&str>) -> Option<Self> {
        let (_, columns, n_rows) = batch.into_parts();
        let [ids, groups, sources, texts, turns] = <[ArrayRef; 5]>::try_from(columns).ok()?;
        let turns = turns.as_list_opt::<i32>()?;
        if turns.value_offsets().first() != Some(&0) {
            return None;
        }
        Some(Self {
            ids: digest_bytes(&ids)?,
            groups: digest_bytes(&groups)?,
            sources: match place {
                Some(place) => Texts::behind(place, sources.as_string_opt::<i32>()?),
                None => Texts::of(sources)?,
            },
            texts: Texts::of(texts)?,
            spans: spans(turns.values().as_struct_opt()?)?,
            span_ends: turns.value_offsets()[1..=n_rows].to_vec(),
        })
    }
}

fn digest_bytes(column: &ArrayRef) -> Option<Vec<u8>> {
    let array = column.as_fixed_size_binary_opt()?;
    (array.value_length() == 32).then(|| array.value_data().to_vec())
}

fn spans(structs: &StructArray) -> Option<Vec<Span>> {
    let roles = structs.column(0).as_string_opt::<i32>()?;
    let starts = structs.column(1).as_primitive_opt::<UInt32Type>()?;
    let ends = structs.column(2).as_primitive_opt::<UInt32Type>()?;
    let span = |idx: usize| {
        Some(Span {
            role: Role::named(roles.value(idx))?,
            start: starts.value(idx),
            end: ends.value(idx),
        })
    };
    (0..structs.len()).map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialogue(n: usize) -> Rows {
        let mut rows = Rows::default();
        for idx in 0..n {
            let text = format!("number {idx}");
            let id = *blake3::hash(text.as_bytes()).as_bytes();
            let turns = [(Role::User, text.as_str()), (Role::Assistant, "yes")];
            rows.push_rendered(id, id, "some", Template::Chatml, &turns);
        }
        rows
    }

    fn write(folder: &Path, template: Template, rows: &Rows) -> Written {
        let mut writer = DocumentsWriter::create(folder, template).unwrap();
        for row in rows.iter() {
            writer.push(&row).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let rows = dialogue(100);
        let written = write(dir.path(), Template::Chatml, &rows);
        assert_eq!(written.n_documents, 100);

        let documents = Documents::open(&[dir.path()]).unwrap();
        assert_eq!(documents.template(), Template::Chatml);
        assert_eq!(documents.n_documents(), 100);
        let read = documents.row_groups()[0].read().unwrap();
        assert_eq!(read.len(), 100);
        assert!(read.iter().eq(rows.iter()));
    }

    #[test]
    fn sources_of_several_artifacts_are_told_apart_by_their_places() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for dir in [&one, &other] {
            write(dir.path(), Template::Chatml, &dialogue(2));
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
        let rows = dialogue(50);
        write(one.path(), Template::Chatml, &rows);
        let mut writer = DocumentsWriter::create(other.path(), Template::Chatml).unwrap();
        let encoded = writer.encoder().encode(rows).unwrap();
        writer.push_encoded(encoded).unwrap();
        writer.finish().unwrap();

        let bytes = |dir: &Path| fs::read(dir.join("documents-00000.parquet")).unwrap();
        assert_eq!(bytes(one.path()), bytes(other.path()));
    }

    #[test]
    fn heavy_row_groups_come_in_smaller_batches() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = DocumentsWriter::create(dir.path(), Template::Plain).unwrap();
        for n_bytes in [1, 1, 1, 50 << 20, 1, 1] {
            let text = "a".repeat(n_bytes);
            let mut rows = Rows::default();
            rows.push(&Document {
                id: [0; 32],
                group: [0; 32],
                source: "",
                text: &text,
                turns: &[],
            });
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
        write(dir.path(), Template::Tags, &Rows::default());
        let documents = Documents::open(&[dir.path()]).unwrap();
        assert_eq!(documents.n_documents(), 0);
        assert_eq!(documents.template(), Template::Tags);
    }

    #[test]
    fn two_templates_do_not_mix() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write(one.path(), Template::Tags, &Rows::default());
        write(other.path(), Template::Plain, &Rows::default());
        let error = Documents::open(&[one.path(), other.path()]).unwrap_err();
        assert!(error.message.contains("two templates"), "{error}");
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Documents::open(&[dir.path()]).is_err());
        fs::write(dir.path().join("documents-00000.parquet"), "PAR1").unwrap();
        assert!(Documents::open(&[dir.path()]).is_err());
    }
}
