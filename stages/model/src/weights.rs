//! Tensors in safetensors files: the only reader and the only writer of that format.
//!
//! Written as f32 in name order, so equal tensors make equal bytes, and written to the disk
//! before `write_tensors` returns. Neither reading nor writing holds more than one tensor
//! besides those that the caller has.
//!
//! Read from f32, f16 or bf16, because a model to go on from may come from elsewhere. A file
//! is believed in nothing: its header must describe exactly the bytes that follow it, and no
//! memory is taken for a tensor before that is known.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use crate::{
    config::Parameter,
    engine::{Tensor, Tensors},
};

/// The longest header that the format's own library reads.
const HEADER_MAX: u64 = 100_000_000;

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

/// Tensors by name, each made when it is asked for.
pub trait Source {
    /// Returns the numbers of a tensor that is known to be there.
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError>;
}

impl Source for Tensors {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let tensor = self.get(name).ok_or_else(|| missing(name))?;
        Ok(Cow::Borrowed(&tensor.data))
    }
}

impl Source for TensorFile {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        Ok(Cow::Owned(self.get(name)?.data))
    }
}

/// A safetensors file whose tensors are read one at a time.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the numbers begin.
    start: u64,
    metadata: Metadata,
}

impl TensorFile {
    pub fn open(path: &Path) -> Result<TensorFile, WeightsError> {
        let (file, n_bytes) = open_file(path).map_err(|error| read_error(path, error))?;
        let format_error = |reason: String| {
            let path = path.to_owned();
            WeightsError::Format { path, reason }
        };
        let n_header = match read_at::<8>(&file) {
            Ok(bytes) => u64::from_le_bytes(bytes),
            Err(error) => return Err(format_error(error.to_string())),
        };
        let start = n_header.saturating_add(8);
        if n_header > HEADER_MAX || start > n_bytes {
            return Err(format_error("its header has no end".to_owned()));
        }
        let mut header = vec![0; n_header as usize];
        let read = file.read_exact_at(&mut header, 8);
        read.map_err(|error| read_error(path, error))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| format_error(error.to_string()))?;
        if start + metadata.data_len() as u64 != n_bytes {
            let reason = "its header describes other bytes than follow it";
            return Err(format_error(reason.to_owned()));
        }
        Ok(TensorFile {
            path: path.to_owned(),
            file,
            start,
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
        let info = self.metadata.info(name).ok_or_else(|| missing(name))?;
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        let read = self
            .file
            .read_exact_at(&mut bytes, self.start + from as u64);
        read.map_err(|error| read_error(&self.path, error))?;
        let data = floats(info.dtype, &bytes).ok_or_else(|| WeightsError::Dtype {
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
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    open_file(path)?;
    fs::read(path)
}

fn open_file(path: &Path) -> io::Result<(File, u64)> {
    // Asked before it is opened, because opening a pipe waits for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(path)?;
    let n_bytes = file.metadata()?.len();
    Ok((file, n_bytes))
}

fn read_at<const N: usize>(file: &File) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
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
    let shapes = tensors.iter();
    let shapes = shapes.map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
    write_source(path, &shapes.collect(), None, tensors)
}

/// Writes tensors that are made on the way, one after the other, and waits until they are on
/// the disk. `format` is whose layout they have, which some readers ask for.
pub fn write_source(
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    format: Option<&str>,
    source: &dyn Source,
) -> Result<(), WeightsError> {
    let header = header(shapes, format).map_err(|error| write_error(path, error))?;
    let head = [&(header.len() as u64).to_le_bytes(), header.as_slice()].concat();
    let tensors = shapes
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()));
    write_file(path, &head, tensors, source, |out, _, numbers| {
        put_f32(out, numbers)
    })
}

/// A file of tensors on its way.
pub type Sink<'a> = BufWriter<&'a File>;

/// Writes a file of any format, and to the disk before it returns: its head, then tensors, each made
/// when its turn comes and put down by `put`, which is told which of them it is.
pub fn write_file<'a>(
    path: &Path,
    head: &[u8],
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    source: &dyn Source,
    mut put: impl FnMut(&mut Sink<'_>, usize, &[f32]) -> io::Result<()>,
) -> Result<(), WeightsError> {
    let failed = |error| write_error(path, error);
    let file = File::create(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    out.write_all(head).map_err(failed)?;
    for (idx, (name, shape)) in tensors.into_iter().enumerate() {
        let numbers = source.numbers(name)?;
        if numbers.len() != shape.iter().product::<usize>() {
            return Err(WeightsError::Shape {
                name: name.to_owned(),
                found: vec![numbers.len()],
                expected: shape.to_vec(),
            });
        }
        put(&mut out, idx, &numbers).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    drop(out);
    file.sync_all().map_err(failed)
}

pub fn put_f32(out: &mut Sink<'_>, numbers: &[f32]) -> io::Result<()> {
    let mut numbers = numbers.iter();
    numbers.try_for_each(|number| out.write_all(&number.to_le_bytes()))
}

/// The header of f32 tensors that lie behind each other, filled up to whole words.
fn header(shapes: &BTreeMap<String, Vec<usize>>, format: Option<&str>) -> io::Result<Vec<u8>> {
    let mut end = 0;
    let infos = shapes.iter().map(|(name, shape)| {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: shape.clone(),
            data_offsets: (start, end),
        };
        (name.clone(), info)
    });
    let format = format.map(|format| [("format".to_owned(), format.to_owned())].into());
    let metadata = Metadata::new(format, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn missing(name: &str) -> WeightsError {
    let name = name.to_owned();
    WeightsError::Missing { name }
}

fn read_error(path: &Path, source: io::Error) -> WeightsError {
    let path = path.to_owned();
    WeightsError::Read { path, source }
}

fn write_error(path: &Path, source: io::Error) -> WeightsError {
    let path = path.to_owned();
    WeightsError::Write { path, source }
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;
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
    fn a_file_has_the_rights_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let [weights, other] = ["model.safetensors", "x"].map(|name| folder.path().join(name));
        write_tensors(&weights, &tensors()).unwrap();
        fs::write(&other, "").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(weights), mode(other));
    }

    /// Whoever reads a format by its own library reads what is written here.
    #[test]
    fn files_are_the_librarys_own_to_the_byte() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensors = tensors();
        let shapes = tensors.iter();
        let shapes = shapes.map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
        let shapes = shapes.collect();
        let bytes: BTreeMap<&String, Vec<u8>> = tensors
            .iter()
            .map(|(name, tensor)| {
                let bytes = tensor
                    .data
                    .iter()
                    .map(|x| x.to_le_bytes())
                    .collect::<Vec<_>>();
                (name, bytes.into_flattened())
            })
            .collect();
        for format in [None, Some("pt")] {
            write_source(&path, &shapes, format, &tensors).unwrap();
            let views = tensors.iter().map(|(name, tensor)| {
                let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &bytes[name]);
                (name, view.unwrap())
            });
            let metadata = format.map(|f| HashMap::from([("format".to_owned(), f.to_owned())]));
            let theirs = safetensors::serialize(views, metadata).unwrap();
            assert_eq!(fs::read(&path).unwrap(), theirs);
        }
    }

    #[test]
    fn a_tensor_of_another_length_than_announced_is_refused() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.safetensors");
        let shapes = BTreeMap::from([("a".to_owned(), vec![2])]);
        let error = write_source(&path, &shapes, None, &tensors()).unwrap_err();
        assert!(
            error.to_string().starts_with("`a` has shape [1]"),
            "{error}"
        );
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
