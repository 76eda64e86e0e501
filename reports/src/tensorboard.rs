//! Numbers and samples as TensorBoard reads them: files of events, one folder a stage.
//!
//! A file begins by saying that what an earlier file of its folder tells is void (a session that
//! starts at step 0), and tells all over again what is recorded so far. So a training that was killed
//! and goes on has no point twice, whichever way it came to its curve, and TensorBoard may be
//! looking on the whole time.
//!
//! The messages are put together by hand: they are eight fields of the wire format of Protocol
//! Buffers, behind a length and two sums of their own (TFRecord).

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tinylm_registry::{Millis, Registry, load::is_load};

use crate::Error;

/// The end of our files' names, by which an export knows those of an earlier one.
const ENDING: &str = ".tinylm";

/// One execution of a stage, as far as it is told.
pub struct Events {
    file: BufWriter<File>,
    folder: PathBuf,
    /// Metrics that have a curve: their final number is its end.
    curves: HashSet<String>,
    last_step: u64,
}

impl Events {
    /// Begins a file in a stage's folder with all that is recorded of an execution.
    pub fn of(
        registry: &Registry,
        execution_id: &str,
        folder: &Path,
        now: Millis,
    ) -> Result<Self, Error> {
        let file = new_file(folder, now).map_err(|error| Error::File(folder.to_owned(), error))?;
        let mut events = Self {
            file: BufWriter::new(file),
            folder: folder.to_owned(),
            curves: HashSet::new(),
            last_step: 0,
        };
        let begun = events.event(Fields::at(now, 0).bytes(3, b"brain.Event:2"));
        begun.map_err(|error| events.wrong(error))?;
        events.retell(registry, execution_id, now)?;
        Ok(events)
    }

    /// Tells all over again after steps beyond this one were taken back, if they were told.
    ///
    /// A session that starts at the next step would say it too, but TensorBoard's fast reader hears
    /// only steps that go back.
    pub fn cut(
        &mut self,
        registry: &Registry,
        execution_id: &str,
        after_step: u64,
        now: Millis,
    ) -> Result<(), Error> {
        match self.last_step > after_step {
            true => self.retell(registry, execution_id, now),
            false => Ok(()),
        }
    }

    fn retell(
        &mut self,
        registry: &Registry,
        execution_id: &str,
        now: Millis,
    ) -> Result<(), Error> {
        const START: u64 = 1;
        let session = Fields::default().int(1, START);
        let started = self.event(Fields::at(now, 0).bytes(7, &session.0));
        started.map_err(|error| self.wrong(error))?;
        self.last_step = 0;
        let told = self.tell_all(registry, execution_id)?;
        told.map_err(|error| self.wrong(error))
    }

    fn wrong(&self, error: io::Error) -> Error {
        Error::File(self.folder.clone(), error)
    }

    fn tell_all(
        &mut self,
        registry: &Registry,
        execution_id: &str,
    ) -> Result<io::Result<()>, Error> {
        let mut curves = Vec::new();
        for name in registry.metric_names(execution_id)? {
            curves.push(registry.metric_series(execution_id, &name, usize::MAX)?);
        }
        let finals = registry.final_numbers(execution_id)?;
        let samples = registry.samples(execution_id)?;
        Ok((|| {
            for curve in &curves {
                for point in &curve.points {
                    self.number(&curve.name, Some(point.step), point.value, point.at)?;
                }
            }
            for (name, value, at) in &finals {
                self.number(name, None, *value, *at)?;
            }
            for sample in &samples {
                self.sample(sample.step, &sample.prompt, &sample.text, sample.at)?;
            }
            self.flush()
        })())
    }

    /// Tells a number; one without a step, of the end, stands at the last step that there was.
    pub fn number(
        &mut self,
        name: &str,
        step: Option<u64>,
        value: f64,
        at: Millis,
    ) -> io::Result<()> {
        match step {
            Some(step) => {
                if !is_load(name) {
                    self.last_step = self.last_step.max(step);
                }
                if !self.curves.contains(name) {
                    self.curves.insert(name.to_owned());
                }
            }
            None if self.curves.contains(name) => return Ok(()),
            None => {}
        }
        let value = Fields::default()
            .bytes(1, name.as_bytes())
            .float(2, value as f32);
        self.value(step, at, &value)
    }

    /// Tells a text that the model wrote.
    pub fn sample(
        &mut self,
        step: Option<u64>,
        prompt: &str,
        text: &str,
        at: Millis,
    ) -> io::Result<()> {
        // Indented, so that nothing in it is taken for Markdown.
        let shown: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
        const STRING: u64 = 7;
        let one = Fields::default().int(1, 1);
        let tensor = Fields::default()
            .int(1, STRING)
            .bytes(2, &Fields::default().bytes(2, &one.0).0)
            .bytes(8, shown.join("\n").as_bytes());
        let plugin = Fields::default().bytes(1, b"text");
        let value = Fields::default()
            .bytes(1, format!("samples/{prompt}").as_bytes())
            .bytes(8, &tensor.0)
            .bytes(9, &Fields::default().bytes(1, &plugin.0).0);
        self.value(step, at, &value)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn value(&mut self, step: Option<u64>, at: Millis, value: &Fields) -> io::Result<()> {
        let summary = Fields::default().bytes(1, &value.0);
        let step = step.unwrap_or(self.last_step);
        self.event(Fields::at(at, step).bytes(5, &summary.0))
    }

    fn event(&mut self, event: Fields) -> io::Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_sum(&length).to_le_bytes())?;
        self.file.write_all(&event.0)?;
        self.file.write_all(&masked_sum(&event.0).to_le_bytes())
    }
}

/// Returns the files of an earlier export in a stage's folder, and of a run that writes there.
pub fn earlier(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ENDING) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Returns whether a run that goes on still writes into a file: it holds a lock on it.
pub fn is_written(file: &Path) -> bool {
    let locked = File::open(file).map(|file| file.try_lock_shared());
    matches!(locked, Ok(Err(TryLockError::WouldBlock)))
}

/// TensorBoard reads the files of a folder in the order of their names.
fn new_file(folder: &Path, now: Millis) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let mut at = now;
    loop {
        let (seconds, ms) = (at / 1000, at % 1000);
        let name = format!("events.out.tfevents.{seconds:010}.{ms:03}{ENDING}");
        match File::create_new(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => at += 1,
            file => {
                let file = file?;
                // Where there are no locks, nobody is kept from writing.
                file.try_lock().ok();
                return Ok(file);
            }
        }
    }
}

/// A message in the wire format of Protocol Buffers.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    /// The beginning of an event.
    fn at(at: Millis, step: u64) -> Self {
        let mut fields = Self::default();
        fields.tag(1, 1);
        let seconds = at as f64 / 1000.0;
        fields.0.extend(seconds.to_le_bytes());
        fields.int(2, step)
    }

    fn int(mut self, field: u64, value: u64) -> Self {
        self.tag(field, 0);
        self.varint(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn tag(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The sum that TFRecord keeps: CRC-32C, turned so that a sum of sums is none of itself.
fn masked_sum(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, &byte| {
        SUMS[usize::from(sum as u8 ^ byte)] ^ (sum >> 8)
    })
}

/// The sum of each byte.
const SUMS: [u32; 256] = {
    let mut sums = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        sums[byte] = sum;
        byte += 1;
    }
    sums
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_number_of_more_than_seven_bits_takes_more_bytes() {
        assert_eq!(Fields::default().int(2, 300).0, [0x10, 0xac, 0x02]);
        assert_eq!(Fields::default().bytes(1, b"ab").0, [0x0a, 2, b'a', b'b']);
    }
}
