//! Writing documents: row groups made on any thread, put into files in order.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use parquet::{
    arrow::{
        ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata,
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

use super::{
    columns::{VERSION, VERSION_KEY, parquet_error, schema},
    document::Document,
    rows::Rows,
};

/// A row group is closed when its contents have this many bytes, or it has this many rows.
pub(crate) const GROUP_BYTES: usize = 8 << 20;
pub(super) const GROUP_ROWS: usize = 1 << 16;
/// A file is closed when its contents have this many bytes.
const FILE_BYTES: u64 = 1 << 30;

impl Rows {
    /// Whether it has grown to a row group.
    pub(crate) fn is_full(&self) -> bool {
        self.n_bytes() >= GROUP_BYTES || self.len() >= GROUP_ROWS
    }
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
    fn new() -> Self {
        // Ids are noise and contents hardly repeat: a dictionary of them only costs time.
        let content = ["messages", "list", "element", "content"].map(str::to_owned);
        let texts = [
            ColumnPath::new(content.to_vec()),
            ColumnPath::from("text"),
            ColumnPath::from("id"),
        ];
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by("tinylm".to_owned())
            .set_key_value_metadata(Some(vec![KeyValue::new(
                VERSION_KEY.to_owned(),
                VERSION.to_owned(),
            )]));
        for column in texts {
            properties = properties.set_column_dictionary_enabled(column, false);
        }
        let mut properties = properties.build();
        add_encoded_arrow_schema_to_metadata(&schema(), &mut properties);
        Self {
            properties: Arc::new(properties),
        }
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

/// A count of the written documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    pub(crate) n_documents: u64,
    /// Bytes of contents.
    pub(crate) n_bytes: u64,
    pub(crate) n_files: usize,
}

impl DocumentsWriter {
    pub(crate) fn create(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            encoder: Encoder::new(),
            rows: Rows::default(),
            file: None,
            n_files: 0,
            n_documents: 0,
            n_bytes: 0,
        }
    }

    /// Returns an encoder of rows for [`push_encoded`](Self::push_encoded) on other threads.
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
