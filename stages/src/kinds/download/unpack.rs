//! Compressed files and archives, opened.
//!
//! An archive is somebody else's: none of its paths may leave the folder it is opened
//! into, none of its entries may be a link, and what comes out of it is counted (bytes,
//! files, the headers of a tar and the window of an xz, which are held in memory), so that a bomb
//! ends as an error. Archives inside archives are opened too (DailyDialog comes so), three deep.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    rc::Rc,
};

use tinylm_pipeline::{At, StageError, StageIo, end_at_fault};

use super::sample::Sampler;
use crate::shared::files::{remove, safe_name};

const DEPTH_MAX: usize = 3;
/// Text hardly ever shrinks to a five-hundredth; what grows more than that is a bomb.
const GROWTH_MAX: u64 = 500;
/// Below this a bomb does no harm.
const HARMLESS_BYTES: u64 = 256 << 20;

/// Files that come out of one archive, all that are in it included.
const ENTRIES_MAX: u64 = 1_000_000;
/// Bytes of headers before an entry of a tar: its name, and remarks. They are held in memory.
const HEADERS_MAX: u64 = 1 << 20;

/// What may still come out of one downloaded file.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    bytes_max: u64,
    bytes: u64,
    n_entries: u64,
    depth: usize,
}

impl Limits {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            n_entries: 0,
            depth: 0,
        }
    }
}

/// Kilobytes of text that an xz may look back over; its strongest setting has 64 megabytes.
const XZ_KIB_MAX: u32 = 512 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Zip,
    Tar(Coding),
    One(Coding),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

const PACKINGS: [(&str, Packing); 14] = [
    (".tar.gz", Packing::Tar(Coding::Gzip)),
    (".tgz", Packing::Tar(Coding::Gzip)),
    (".tar.bz2", Packing::Tar(Coding::Bzip2)),
    (".tbz2", Packing::Tar(Coding::Bzip2)),
    (".tar.xz", Packing::Tar(Coding::Xz)),
    (".txz", Packing::Tar(Coding::Xz)),
    (".tar.zst", Packing::Tar(Coding::Zstd)),
    (".tar", Packing::Tar(Coding::Plain)),
    (".gz", Packing::One(Coding::Gzip)),
    (".bz2", Packing::One(Coding::Bzip2)),
    (".xz", Packing::One(Coding::Xz)),
    (".zst", Packing::One(Coding::Zstd)),
    (".zstd", Packing::One(Coding::Zstd)),
    (".zip", Packing::Zip),
];

/// Returns how a file is packed, and its name without that.
fn packing(name: &str) -> Option<(Packing, &str)> {
    PACKINGS.iter().find_map(|(ending, packing)| {
        let at = name.len().checked_sub(ending.len())?;
        let (stem, last) = name.split_at_checked(at)?;
        (last.eq_ignore_ascii_case(ending) && !stem.is_empty()).then_some((*packing, stem))
    })
}

pub(crate) fn is_packed(name: &str) -> bool {
    packing(name).is_some()
}

/// Opens `whole` into the output folder, below the folder of `name`.
pub(super) fn open(
    whole: &Path,
    name: &str,
    io: &StageIo,
    limits: &mut Limits,
    sampler: &mut Sampler,
) -> Result<(), StageError> {
    let Some((packing, stem)) = packing(name) else {
        return Err(StageError::new(format!("`{name}` is not packed")));
    };
    if limits.depth == DEPTH_MAX {
        let message = format!("`{name}`: archives in archives in archives are not opened");
        return Err(StageError::new(message).is_final());
    }
    let packed_bytes = whole.metadata().at(whole)?.len();
    let allowance = HARMLESS_BYTES.max(packed_bytes.saturating_mul(GROWTH_MAX));
    let mut opening = Opening {
        name,
        folder: name.rsplit_once('/').map_or("", |(folder, _)| folder),
        io,
        bytes_max: limits.bytes_max.min(limits.bytes.saturating_add(allowance)),
        limits,
        sampler,
    };
    let file = BufReader::with_capacity(1 << 18, File::open(whole).at(whole)?);
    match packing {
        Packing::One(coding) => opening.entry(&mut coding.reader(file, name)?, stem),
        Packing::Tar(coding) => opening.tar(coding.reader(file, name)?),
        Packing::Zip => opening.zip(file),
    }
}

impl Coding {
    fn reader(self, file: BufReader<File>, name: &str) -> Result<Box<dyn Read>, StageError> {
        Ok(match self {
            Self::Plain => Box::new(file),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_KIB_MAX)),
            Self::Zstd => {
                let reader = zstd::Decoder::with_buffer(file);
                Box::new(reader.map_err(|error| damaged(name, &error))?)
            }
        })
    }
}

fn damaged(name: &str, error: &impl std::fmt::Display) -> StageError {
    StageError::new(format!("`{name}` cannot be opened: {error}"))
        .help("it may be cut short or damaged: fetch it again")
        .is_final()
}

struct Opening<'a> {
    name: &'a str,
    folder: &'a str,
    io: &'a StageIo<'a>,
    bytes_max: u64,
    limits: &'a mut Limits,
    sampler: &'a mut Sampler,
}

impl Opening<'_> {
    fn tar(&mut self, reader: impl Read) -> Result<(), StageError> {
        let name = self.name;
        let left = Rc::new(Cell::new(HEADERS_MAX));
        let mut archive = tar::Archive::new(Headers {
            reader,
            left: Rc::clone(&left),
        });
        let mut entries = archive.entries().map_err(|error| damaged(name, &error))?;
        loop {
            left.set(HEADERS_MAX);
            let Some(entry) = entries.next() else {
                return Ok(());
            };
            let mut entry = entry.map_err(|error| damaged(name, &error))?;
            self.count(HEADERS_MAX - left.replace(u64::MAX))?;
            let kind = entry.header().entry_type();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            // The remarks on a whole archive that `git archive` writes, and so GitHub.
            let is_remark = kind.is_pax_global_extensions();
            if kind.is_dir() || is_remark || is_clutter(&path) {
                self.pass_over(&mut entry)?;
                continue;
            }
            if !kind.is_file() {
                return Err(self.refused(&path, "is a link or a device"));
            }
            let path = self.inside(&path)?;
            self.entry(&mut entry, &path)?;
            self.pass_over(&mut entry)?;
        }
    }

    /// Reads what is left of an entry, so that only headers stand before the next one.
    fn pass_over(&mut self, entry: &mut impl Read) -> Result<(), StageError> {
        self.bounded(entry, |_, rest| {
            io::copy(rest, &mut io::sink())
                .map(drop)
                .map_err(|error| damaged("the archive", &error))
        })
    }

    fn zip(&mut self, mut file: impl Read + io::Seek) -> Result<(), StageError> {
        let name = self.name;
        let n_listed = n_listed(&mut file).map_err(|error| damaged(name, &error))?;
        let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(name, &error))?;
        // Of two entries with one name the library knows the last.
        if n_listed.is_some_and(|n_listed| n_listed != archive.len() as u64) {
            let message = format!("`{name}` lists a file twice, so that one of them would be lost");
            return Err(StageError::new(message)
                .help("pack it again, or open it yourself and name the folder with `path`")
                .is_final());
        }
        for idx in 0..archive.len() {
            self.count(0)?;
            let mut entry = archive
                .by_index(idx)
                .map_err(|error| damaged(name, &error))?;
            let path = String::from_utf8_lossy(entry.name_raw()).into_owned();
            if entry.is_dir() || is_clutter(&path) {
                continue;
            }
            if !entry.is_file() {
                return Err(self.refused(&path, "is a link or a device"));
            }
            let path = self.inside(&path)?;
            self.entry(&mut entry, &path)?;
        }
        Ok(())
    }

    /// Returns the path of an entry from the output folder on.
    fn inside(&self, path: &str) -> Result<String, StageError> {
        let safe = safe_name(path).map_err(|_| self.refused(path, "leads out of its folder"))?;
        if self.folder.is_empty() {
            Ok(safe)
        } else {
            Ok(format!("{}/{safe}", self.folder))
        }
    }

    fn refused(&self, path: &str, why: &str) -> StageError {
        let path = path.escape_debug();
        StageError::new(format!(
            "`{}` is refused: its entry `{path}` {why}",
            self.name
        ))
        .is_final()
    }

    /// Takes one file out; `path` is relative to the output folder.
    fn entry(&mut self, reader: &mut impl Read, path: &str) -> Result<(), StageError> {
        if self.sampler.is_full() {
            return Ok(());
        }
        self.bounded(reader, |this, limited| this.take_out(limited, path))
    }

    /// Counts an entry with so many bytes of headers, one that is passed over too.
    fn count(&mut self, header_bytes: u64) -> Result<(), StageError> {
        self.limits.n_entries += 1;
        self.limits.bytes += header_bytes;
        if self.limits.n_entries > ENTRIES_MAX {
            let message = format!("`{}` holds more than {ENTRIES_MAX} files", self.name);
            return Err(StageError::new(message)
                .help("if it is no bomb, open it yourself and name the folder with `path`")
                .is_final());
        }
        match self.limits.bytes > self.bytes_max {
            true => Err(self.too_large()),
            false => Ok(()),
        }
    }

    /// Reads within what may still come out.
    fn bounded<R: Read>(
        &mut self,
        reader: R,
        read: impl FnOnce(&mut Self, &mut Limited<'_, R>) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let mut limited = Limited {
            reader,
            bytes: self.limits.bytes,
            bytes_max: self.bytes_max,
            io: self.io,
        };
        let outcome = read(self, &mut limited);
        self.limits.bytes = limited.bytes;
        if limited.bytes > self.bytes_max {
            return Err(self.too_large());
        }
        if self.io.is_cancelled() {
            return Err(StageError::cancelled());
        }
        outcome
    }

    fn too_large(&self) -> StageError {
        let (message, help) = if self.bytes_max == self.limits.bytes_max {
            (
                format!("`{}` grows past {} bytes", self.name, self.bytes_max),
                "if it is no bomb, raise `opened_bytes_max`",
            )
        } else {
            (
                format!(
                    "`{}` grows to more than {GROWTH_MAX} times its size",
                    self.name
                ),
                "if it is no bomb, open it yourself and name the folder with `path`",
            )
        };
        StageError::new(message).help(help).is_final()
    }

    fn take_out(&mut self, reader: &mut impl Read, path: &str) -> Result<(), StageError> {
        if !is_packed(path) {
            let to = self.free_place(path)?;
            return self.sampler.write(reader, Path::new(self.name), &to);
        }
        let inner = self.inner_path();
        let mut file = File::create(&inner).at(&inner)?;
        let packed = Path::new(self.name);
        io::copy(reader, &mut file).map_err(|error| {
            match end_at_fault(&error, packed, &inner) {
                end if end == inner => StageError::io(&inner, &error),
                _ => damaged(self.name, &error),
            }
        })?;
        drop(file);
        self.limits.depth += 1;
        let outcome = open(&inner, path, self.io, self.limits, self.sampler);
        self.limits.depth -= 1;
        remove(&inner)?;
        outcome
    }

    /// Returns where a file goes. Where another of that name is, or one in the place of its folder, it
    /// goes into a folder that is called like the archive it is in.
    fn free_place(&self, path: &str) -> Result<PathBuf, StageError> {
        let out = self.io.out();
        let (_, stem) = packing(self.name).unwrap_or((Packing::Zip, self.name));
        let is_free = |place: &PathBuf| {
            let mut folders = place.ancestors().skip(1);
            !place.exists() && !folders.any(Path::is_file)
        };
        ["", stem, self.name]
            .map(|folder| out.join(folder).join(path))
            .into_iter()
            .find(is_free)
            .ok_or_else(|| self.refused(path, "is there twice"))
    }

    fn inner_path(&self) -> PathBuf {
        let name = format!("inner-{}.part", self.limits.depth);
        self.io.checkpoints().join(name)
    }
}

/// Returns how many files a zip says that it lists, in the sixteen bits that every zip has for it, or
/// in the record before it that a longer list needs.
fn n_listed(file: &mut (impl Read + io::Seek)) -> io::Result<Option<u64>> {
    /// The records at the end and the longest remark behind them.
    const END_MAX: u64 = 76 + 22 + 0xffff;
    let bytes = file.seek(io::SeekFrom::End(0))?;
    file.seek(io::SeekFrom::Start(bytes.saturating_sub(END_MAX)))?;
    let mut end = Vec::new();
    file.by_ref().take(END_MAX).read_to_end(&mut end)?;
    file.rewind()?;
    let count = |record: &[u8], at: usize, n_bytes: usize| {
        let start = at + memchr::memmem::rfind(&end, record)?;
        let bytes = end.get(start..start + n_bytes)?.iter().rev();
        Some(bytes.fold(0, |count, byte| count << 8 | u64::from(*byte)))
    };
    Ok(match count(b"PK\x05\x06", 10, 2) {
        Some(0xffff) => count(b"PK\x06\x06", 32, 8),
        count => count,
    })
}

/// Lets a tar's headers have so many bytes and no more.
struct Headers<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Headers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.reader.read(buffer)?;
        let left = self.left.get();
        if n_read as u64 > left {
            return Err(io::Error::other(
                "the headers of an entry are longer than any should be",
            ));
        }
        if left != u64::MAX {
            self.left.set(left - n_read as u64);
        }
        Ok(n_read)
    }
}

/// What archivers of some systems add.
fn is_clutter(path: &str) -> bool {
    path.starts_with("__MACOSX/") || path.ends_with(".DS_Store")
}

/// Counts what is read and stops at the bound, or when the stage is asked to stop.
struct Limited<'a, R> {
    reader: R,
    bytes: u64,
    bytes_max: u64,
    io: &'a StageIo<'a>,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.reader.read(buffer)?;
        self.bytes += n_read as u64;
        if self.bytes > self.bytes_max {
            return Err(io::Error::other("too large"));
        }
        self.io
            .progress_note(self.bytes, None, "bytes", Some("opening"))
            .map_err(|_| io::Error::other("stopped"))?;
        Ok(n_read)
    }
}
