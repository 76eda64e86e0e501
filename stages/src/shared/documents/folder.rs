//! Reading documents: the row groups of one or several folders.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use tinylm_pipeline::{At, StageError};

use super::{
    columns::{CONTENT_LEAVES, VERSION, VERSION_KEY, parquet_error, schema},
    rows::Rows,
    writer::{GROUP_BYTES, GROUP_ROWS},
};

/// Far more rows than any row group is written with: one row of a corpus may become many documents.
const GROUP_ROWS_MAX: usize = 64 * GROUP_ROWS;

/// The documents of one or several artifacts, in order, row group by row group.
#[derive(Debug)]
pub(crate) struct Documents {
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
        let mut documents = Self {
            groups: Vec::new(),
            n_documents: 0,
        };
        for (idx, folder) in folders.iter().enumerate() {
            let place = (folders.len() > 1).then_some(idx + 1);
            for path in document_files(folder)? {
                documents.add_file(&path, place)?;
            }
        }
        Ok(documents)
    }

    /// Looks at these files, each with the place of its artifact where there are several.
    pub(crate) fn of_files(
        files: impl IntoIterator<Item = (PathBuf, Option<usize>)>,
    ) -> Result<Self, StageError> {
        let mut documents = Self {
            groups: Vec::new(),
            n_documents: 0,
        };
        for (path, place) in files {
            documents.add_file(&path, place)?;
        }
        Ok(documents)
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
                n_bytes += group.content_bytes();
                n_bytes <= n_max as u64 * 2 * GROUP_BYTES as u64
            };
            let n_fitting = left.iter().take(n_max).take_while(fits).count();
            let (batch, rest) = left.split_at(n_fitting.max(1).min(left.len()));
            left = rest;
            (!batch.is_empty()).then_some(batch)
        })
    }

    fn add_file(&mut self, path: &Path, place: Option<usize>) -> Result<(), StageError> {
        let file = File::open(path).at(path)?;
        let metadata = ArrowReaderMetadata::load(&file, Default::default())
            .map_err(|error| parquet_error(path, &error))?;
        if !is_of_documents(&metadata) {
            return Err(StageError::new(format!(
                "`{}` does not hold documents as this version writes them",
                path.display()
            )));
        }
        let shared = Arc::new(path.to_owned());
        for (idx, group) in metadata.metadata().row_groups().iter().enumerate() {
            // Room is made for as many as a footer claims.
            let n_rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
            if n_rows > GROUP_ROWS_MAX {
                return Err(StageError::new(format!(
                    "`{}` claims {n_rows} rows in row group {idx}",
                    path.display()
                ))
                .is_final());
            }
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
        Ok(())
    }
}

/// Whether a file of this name is one of documents.
pub(crate) fn holds_documents(name: &str) -> bool {
    name.starts_with("documents-") && name.ends_with(".parquet")
}

/// Returns the document files of an artifact in order.
fn document_files(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(holds_documents) {
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

fn is_of_documents(metadata: &ArrowReaderMetadata) -> bool {
    let pairs = metadata.metadata().file_metadata().key_value_metadata();
    let mut pairs = pairs.into_iter().flatten();
    let version = pairs.find(|pair| pair.key == VERSION_KEY);
    version.is_some_and(|pair| pair.value.as_deref() == Some(VERSION))
        && metadata.schema().fields() == schema().fields()
}

impl RowGroup {
    /// Returns about how many bytes of contents it holds, without reading them.
    pub(crate) fn content_bytes(&self) -> u64 {
        let group = self.metadata.metadata().row_group(self.idx);
        let sizes = CONTENT_LEAVES.map(|leaf| group.column(leaf).uncompressed_size());
        sizes.into_iter().map(|size| size.max(0) as u64).sum()
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
