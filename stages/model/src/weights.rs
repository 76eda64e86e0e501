//! Tensors in safetensors files: the only reader and the only writer of that format.
//!
//! Written as f32 in name order without metadata, so equal tensors make equal bytes, and
//! written to the disk before `write_tensors` returns.
//!
//! Read from f32, f16 or bf16, because a model to go on from may come from elsewhere. A file
//! is believed in nothing: its header must describe exactly the bytes that follow it, and no
//! memory is taken for a tensor before that is known.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, View, tensor::Metadata};

use crate::{
    config::Parameter,
    engine::{Tensor, Tensors},
};

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("`{path}` is damaged or cut short: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("`{path}` holds `{name}` as {dtype}, and f32, f16 or bf16 can be read")]
    Dtype {
        path: PathBuf,
        name: String,
        dtype: String,
    },
    #[error("`{name}` is missing from the weights")]
    Missing { name: String },
    #[error("`{name}` among the weights is not part of this model")]
    Unknown { name: String },
    #[error("`{name}` has shape {found:?}, the configuration needs {expected:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
}

/// A safetensors file whose tensors are turned into numbers one at a time.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the numbers begin.
    start: usize,
    metadata: Metadata,
}

impl TensorFile {
    pub fn open(path: &Path) -> Result<TensorFile, WeightsError> {
        let path = path.to_owned();
        let bytes = match read_file(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(WeightsError::Read { path, source }),
        };
        let (n_header, metadata) = match SafeTensors::read_metadata(&bytes) {
            Ok(read) => read,
            Err(error) => {
                let reason = error.to_string();
                return Err(WeightsError::Format { path, reason });
            }
        };
        Ok(TensorFile {
            path,
            start: size_of::<u64>() + n_header,
            bytes,
            metadata,
        })
    }

    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.metadata.info(name)?.shape)
    }

    /// Returns the numbers of a tensor that the file has.
    pub fn get(&self, name: &str) -> Result<Tensor, WeightsError> {
        let info = self.metadata.info(name);
        let info = info.ok_or_else(|| WeightsError::Missing {
            name: name.to_owned(),
        })?;
        let (from, to) = info.data_offsets;
        let bytes = &self.bytes[self.start..][from..to];
        let data = floats(info.dtype, bytes).ok_or_else(|| WeightsError::Dtype {
            path: self.path.clone(),
            name: name.to_owned(),
            dtype: format!("{:?}", info.dtype),
        })?;
        let shape = info.shape.clone();
        Ok(Tensor { shape, data })
    }

    /// Refuses a file that does not hold exactly these tensors, before any is read.
    pub fn check(&self, parameters: &[Parameter]) -> Result<(), WeightsError> {
        let shapes = self.metadata.tensors().into_iter();
        check_tensors(
            parameters,
            &shapes
                .map(|(name, info)| (name, info.shape.clone()))
                .collect(),
        )
    }

    pub fn tensors(&self) -> Result<Tensors, WeightsError> {
        let named = self.names().into_iter();
        named
            .map(|name| Ok((name.clone(), self.get(&name)?)))
            .collect()
    }
}

pub fn read_tensors(path: &Path) -> Result<Tensors, WeightsError> {
    TensorFile::open(path)?.tensors()
}

/// Reads a whole file. A pipe, which might never end, is refused.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    fs::read(path)
}

/// Refuses tensors that are not exactly those of a model, by their names and shapes alone.
pub(crate) fn check_tensors(
    parameters: &[Parameter],
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<(), WeightsError> {
    for parameter in parameters {
        let name = parameter.name.clone();
        match shapes.get(&name) {
            None => return Err(WeightsError::Missing { name }),
            Some(found) if *found != parameter.shape => {
                let (found, expected) = (found.clone(), parameter.shape.clone());
                return Err(WeightsError::Shape {
                    name,
                    found,
                    expected,
                });
            }
            Some(_) => (),
        }
    }
    let known: BTreeSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    match shapes.keys().find(|name| !known.contains(name.as_str())) {
        Some(name) => Err(WeightsError::Unknown { name: name.clone() }),
        None => Ok(()),
    }
}

/// Writes `tensors` and waits until they are on the disk.
pub fn write_tensors(path: &Path, tensors: &Tensors) -> Result<(), WeightsError> {
    let write_error = |source| WeightsError::Write {
        path: path.to_owned(),
        source,
    };
    let views = tensors.iter().map(|(name, tensor)| (name, F32(tensor)));
    safetensors::serialize_to_file(views, None, path).map_err(|error| match error {
        SafeTensorError::IoError(source) => write_error(source),
        other => write_error(io::Error::other(other.to_string())),
    })?;
    let file = File::open(path).map_err(write_error)?;
    file.sync_all().map_err(write_error)
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let (pairs, _) = bytes.as_chunks();
    match dtype {
        Dtype::F32 => {
            let (words, _) = bytes.as_chunks();
            Some(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
        }
        Dtype::F16 => {
            let float = |&pair: &[u8; 2]| half::f16::from_le_bytes(pair).to_f32();
            Some(pairs.iter().map(float).collect())
        }
        Dtype::BF16 => {
            let float = |&pair: &[u8; 2]| half::bf16::from_le_bytes(pair).to_f32();
            Some(pairs.iter().map(float).collect())
        }
        _ => None,
    }
}

/// A tensor as safetensors asks for it: one at a time is turned into bytes.
struct F32<'a>(&'a Tensor);

impl View for F32<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let words = self.0.data.iter().map(|value| value.to_le_bytes());
        Cow::Owned(words.collect::<Vec<_>>().into_flattened())
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn tensors() -> Tensors {
        let odd = [
            0.1,
            -0.0,
            f32::MIN_POSITIVE / 8.0,
            f32::INFINITY,
            1e-30,
            7.0,
        ];
        let one = |name: &str, shape: &[usize], data: &[f32]| {
            let (shape, data) = (shape.to_vec(), data.to_vec());
            (name.to_owned(), Tensor { shape, data })
        };
        Tensors::from([one("b", &[2, 3], &odd), one("a", &[1], &[0.3])])
    }

    #[test]
    fn tensors_come_back_to_the_bit_and_equal_tensors_make_equal_files() {
        let folder = TempDir::new().unwrap();
        let [one, two] = ["1", "2"].map(|name| folder.path().join(name));
        write_tensors(&one, &tensors()).unwrap();
        write_tensors(&two, &tensors()).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        let read = read_tensors(&one).unwrap();
        let bits = |tensors: &Tensors| {
            let all = tensors.values().flat_map(|tensor| &tensor.data);
            all.map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&read), bits(&tensors()));
        assert_eq!(read, tensors());
    }

    #[test]
    fn a_file_cut_short_anywhere_is_an_error_that_names_it() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.safetensors");
        write_tensors(&path, &tensors()).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = read_tensors(&path).unwrap_err().to_string();
            assert!(error.contains("model.safetensors"), "{len}: {error}");
        }
    }

    /// A file with this header and so many bytes behind it.
    fn hostile(folder: &TempDir, header: &str, n_bytes: usize) -> String {
        let path = folder.path().join("model.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.resize(bytes.len() + n_bytes, 0);
        fs::write(&path, bytes).unwrap();
        read_tensors(&path).unwrap_err().to_string()
    }

    #[test]
    fn what_a_header_claims_is_refused_before_memory_is_taken_for_it() {
        let folder = TempDir::new().unwrap();
        let one = |shape: &str, from: u64, to: u64| {
            format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        for header in [
            // More than the file holds, and more than an address can count.
            format!(
                r#"{{"a":{}}}"#,
                one("[1099511627776]", 0, 4_398_046_511_104)
            ),
            format!(r#"{{"a":{}}}"#, one("[4611686018427387904,4]", 0, 64)),
            format!(r#"{{"a":{}}}"#, one("[4]", 0, u64::MAX)),
            // Numbers that two tensors share, and some that none has.
            format!(
                r#"{{"a":{},"b":{}}}"#,
                one("[8]", 0, 32),
                one("[8]", 16, 48)
            ),
            format!(r#"{{"a":{}}}"#, one("[4]", 16, 32)),
            format!(r#"{{"a":{}}}"#, one("[4]", 32, 16)),
        ] {
            let refused = hostile(&folder, &header, 64);
            let expected = "model.safetensors` is damaged or cut short: ";
            assert!(refused.contains(expected), "{header}: {refused}");
        }
        let path = folder.path().join("model.safetensors");
        for n_header in [u64::MAX, 1 << 40, 99 << 20] {
            fs::write(&path, n_header.to_le_bytes()).unwrap();
            let refused = read_tensors(&path).unwrap_err().to_string();
            assert!(refused.contains("damaged or cut short"), "{refused}");
        }
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_an_error() {
        let folder = TempDir::new().unwrap();
        let error = read_tensors(folder.path()).unwrap_err();
        assert!(matches!(error, WeightsError::Read { .. }), "{error}");
    }

    #[test]
    fn half_precision_is_widened() {
        let one = half::f16::from_f32(1.5).to_le_bytes();
        assert_eq!(floats(Dtype::F16, &one).unwrap(), [1.5]);
        let two = half::bf16::from_f32(-2.0).to_le_bytes();
        assert_eq!(floats(Dtype::BF16, &two).unwrap(), [-2.0]);
        assert_eq!(floats(Dtype::I64, &[0; 8]), None);
    }
}
