//! Tensors in safetensors files, read whole and written to the disk before returning.
//!
//! Written as f32 in name order without metadata, so equal tensors make equal bytes.
//! Read from f32, f16 or bf16, because a model to go on from may come from elsewhere.

use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use crate::engine::{Tensor, Tensors};

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("`{path}` is not a whole safetensors file: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("`{path}` holds `{name}` as {dtype}, and f32, f16 or bf16 can be read")]
    Dtype {
        path: PathBuf,
        name: String,
        dtype: String,
    },
}

pub fn read_tensors(path: &Path) -> Result<Tensors, WeightsError> {
    let bytes = fs::read(path).map_err(|source| WeightsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| WeightsError::Format {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let data = floats(view.dtype(), view.data()).ok_or_else(|| WeightsError::Dtype {
            path: path.to_owned(),
            name: name.to_owned(),
            dtype: format!("{:?}", view.dtype()),
        })?;
        let shape = view.shape().to_vec();
        tensors.insert(name.to_owned(), Tensor { shape, data });
    }
    Ok(tensors)
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

    #[test]
    fn half_precision_is_widened() {
        let one = half::f16::from_f32(1.5).to_le_bytes();
        assert_eq!(floats(Dtype::F16, &one).unwrap(), [1.5]);
        let two = half::bf16::from_f32(-2.0).to_le_bytes();
        assert_eq!(floats(Dtype::BF16, &two).unwrap(), [-2.0]);
        assert_eq!(floats(Dtype::I64, &[0; 8]), None);
    }
}
