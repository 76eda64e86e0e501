//! Bodies, brought whole: into a file, or read through for their digest.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Seek, SeekFrom, Write},
    path::Path,
};

use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use tinylm_pipeline::{At, StageError, StageIo};

use super::{
    cut::Cut,
    expected::{Expected, verify},
    net::{Failure, Net, Request, passing, reason, wait},
};

impl Net {
    /// Brings a body into `to`, where some of it may stand already. With `cut`, no more
    /// than is wanted, and then nothing can be checked.
    pub(crate) fn fetch(
        &self,
        request: &Request,
        expected: &Expected,
        to: &Path,
        cut: Option<Cut>,
        io: &StageIo,
        progress: &dyn Fn(u64) -> Result<(), StageError>,
    ) -> Result<(), Failure> {
        let attempt = Attempt {
            net: self,
            request,
            expected,
            to,
            cut: cut.as_ref(),
            io,
            progress,
        };
        let mut failed = Failed::default();
        loop {
            let before = so_far(to, expected)?;
            failed.longest = failed.longest.max(before.unwrap_or(0));
            let rest = cut.clone().map(|cut| cut.behind(to)).transpose()?;
            if rest.as_ref().is_some_and(Cut::is_full) {
                return Ok(());
            }
            if before.is_some() && before == expected.bytes {
                break;
            }
            let going = attempt.go(before.unwrap_or(0), rest);
            match self.runtime.block_on(going) {
                Ok(Ended::Cut) => return Ok(()),
                Ok(Ended::Whole) => break,
                Err(Failure::Passing { why, after }) => {
                    failed.again(fs::metadata(to).map_or(0, |file| file.len()));
                    if failed.n >= self.limits.attempts {
                        return Err(Failure::Stage(self.gave_up(request, &why, failed.n)));
                    }
                    let pause = self.pause(failed.n, after);
                    self.tell(&request.shown, &why, failed.n, pause, |told| io.warn(told));
                    wait(pause, io.cancel_flag())?;
                }
                Err(other) => return Err(other),
            }
        }
        verify(to, expected, &request.shown).map_err(Failure::Stage)
    }

    /// Reads a body through for its blake3 digest and its length.
    pub(crate) fn digest(&self, request: &Request) -> Result<(String, u64), Failure> {
        let mut seen = Seen::default();
        let mut failed = Failed::default();
        loop {
            match self.runtime.block_on(seen.go_on(self, request)) {
                Ok(()) => break,
                Err(Failure::Passing { why, after }) => {
                    failed.again(seen.n_bytes);
                    if failed.n >= self.limits.attempts {
                        return Err(passing(why));
                    }
                    let pause = self.pause(failed.n, after);
                    self.tell(&request.shown, &why, failed.n, pause, |told| {
                        self.say(&told)
                    });
                    wait(pause, &self.outside.stop)?;
                }
                Err(other) => return Err(other),
            }
        }
        Ok((seen.hasher.finalize().to_hex().to_string(), seen.n_bytes))
    }

    fn check_length(&self, request: &Request, n_bytes: u64) -> Result<(), Failure> {
        if n_bytes <= self.limits.bytes {
            return Ok(());
        }
        let message = format!(
            "`{}` is longer than {} bytes",
            request.shown, self.limits.bytes
        );
        Err(Failure::Stage(
            StageError::new(message)
                .help("if it is meant to be, raise `bytes_max`")
                .is_final(),
        ))
    }

    fn gave_up(&self, request: &Request, why: &str, n_failed: u32) -> StageError {
        let message = format!("`{}` did not come, tried {n_failed} times", request.shown);
        StageError::new(message)
            .cause(why)
            .kept("what had arrived; the next attempt asks for the rest")
            .help("run the same command again when the network is better")
    }
}

/// Attempts in a row of which none came further than all before: a server that always
/// starts again would else be asked for ever.
#[derive(Default)]
struct Failed {
    n: u32,
    longest: u64,
}

impl Failed {
    fn again(&mut self, n_bytes: u64) {
        self.n = if n_bytes > self.longest {
            1
        } else {
            self.n + 1
        };
        self.longest = self.longest.max(n_bytes);
    }
}

/// As much of a body as was read through.
#[derive(Default)]
struct Seen {
    hasher: blake3::Hasher,
    n_bytes: u64,
}

impl Seen {
    /// Reads on to the end. Should what lies there have changed meanwhile, the digest is of
    /// nothing that ever was, and the download that follows refuses it.
    async fn go_on(&mut self, net: &Net, request: &Request) -> Result<(), Failure> {
        let stop = &net.outside.stop;
        let asked = net.watched(net.ask(request, self.n_bytes), stop).await?;
        let mut response = match asked {
            Err(Failure::Answer { status: 416, .. }) if self.n_bytes > 0 => {
                *self = Self::default();
                return Err(passing("the server does not know the rest"));
            }
            other => other?,
        };
        let part = match Part::of(&response, self.n_bytes) {
            Err(failure) => {
                *self = Self::default();
                return Err(failure);
            }
            Ok(part) if part.start == 0 => {
                *self = Self::default();
                part
            }
            Ok(part) => part,
        };
        net.check_length(request, part.total.unwrap_or(0))?;
        loop {
            let chunk = net.watched(response.chunk(), stop).await?;
            let Some(chunk) = chunk.map_err(|error| passing(reason(error)))? else {
                return part.check_end(self.n_bytes);
            };
            self.hasher.update(&chunk);
            self.n_bytes += chunk.len() as u64;
            net.check_length(request, self.n_bytes)?;
        }
    }
}

/// Returns how much of a body is there; more than can be is dropped.
fn so_far(to: &Path, expected: &Expected) -> Result<Option<u64>, StageError> {
    let Ok(metadata) = fs::metadata(to) else {
        return Ok(None);
    };
    if expected.bytes.is_some_and(|bytes| metadata.len() > bytes) {
        fs::remove_file(to).at(to)?;
        return Ok(None);
    }
    Ok(Some(metadata.len()))
}

/// One connection's worth of a body.
struct Attempt<'a> {
    net: &'a Net,
    request: &'a Request,
    expected: &'a Expected,
    to: &'a Path,
    /// The part of the body that is wanted, from its first byte on.
    cut: Option<&'a Cut>,
    io: &'a StageIo<'a>,
    progress: &'a dyn Fn(u64) -> Result<(), StageError>,
}

/// Why nothing more is asked for.
enum Ended {
    Whole,
    Cut,
}

impl Attempt<'_> {
    /// Asks for what stands behind the first `before` bytes, of which `rest` is wanted.
    async fn go(&self, before: u64, mut rest: Option<Cut>) -> Result<Ended, Failure> {
        let stop = self.io.cancel_flag();
        let asked = self
            .net
            .watched(self.net.ask(self.request, before), stop)
            .await?;
        let mut response = match asked {
            // The bytes here are not the beginning of those there.
            Err(Failure::Answer { status: 416, .. }) => {
                self.drop_partial()?;
                return Err(passing("the server does not know the rest"));
            }
            other => other?,
        };
        let part = match Part::of(&response, before) {
            Err(failure) => {
                self.drop_partial()?;
                return Err(failure);
            }
            Ok(part) => part,
        };
        if part.start != before {
            rest = self.cut.cloned();
        }
        let is_cut = rest.is_some();
        if !is_cut {
            self.check_length(part.total.unwrap_or(0))?;
        }
        let mut file = self.open(part.start)?;
        let mut n_bytes = part.start;
        loop {
            let chunk = self.net.watched(response.chunk(), stop).await?;
            let Some(chunk) = chunk.map_err(|error| passing(reason(error)))? else {
                break;
            };
            let n_taken = rest.as_mut().map_or(chunk.len(), |rest| rest.take(&chunk));
            file.write_all(&chunk[..n_taken]).at(self.to)?;
            n_bytes += n_taken as u64;
            (self.progress)(n_bytes)?;
            if rest.as_ref().is_some_and(Cut::is_full) {
                return Ok(Ended::Cut);
            }
            if self.expected.bytes.is_some_and(|bytes| n_bytes > bytes) {
                break;
            }
            self.check_length(n_bytes)?;
        }
        match self.expected.bytes {
            Some(bytes) if n_bytes < bytes => Err(passing(format!(
                "the body ended after {n_bytes} of {bytes} bytes"
            ))),
            Some(_) => Ok(Ended::Whole),
            None => part.check_end(n_bytes).map(|()| Ended::Whole),
        }
    }

    /// Refuses a body that goes on past all that is reasonable, where nobody promised its length.
    fn check_length(&self, n_bytes: u64) -> Result<(), Failure> {
        let checked = match self.expected.bytes {
            Some(_) => Ok(()),
            None => self.net.check_length(self.request, n_bytes),
        };
        if checked.is_err() {
            self.drop_partial()?;
        }
        checked
    }

    fn drop_partial(&self) -> Result<(), StageError> {
        match fs::remove_file(self.to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StageError::io(self.to, &error))
            }
            _ => Ok(()),
        }
    }

    fn open(&self, start: u64) -> Result<File, StageError> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.to)
            .at(self.to)?;
        file.set_len(start).at(self.to)?;
        file.seek(SeekFrom::Start(start)).at(self.to)?;
        Ok(file)
    }
}

/// The part of a body that an answer brings.
struct Part {
    start: u64,
    /// The length of the whole body, where the server says it.
    total: Option<u64>,
}

impl Part {
    /// Returns what an answer brings to whoever asked for all behind the first `before` bytes: that,
    /// or the whole. Any other part, taken for one of these, would make a file that never was.
    fn of(response: &Response, before: u64) -> Result<Self, Failure> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(Self {
                start: 0,
                total: response.content_length(),
            });
        }
        let range = response.headers().get(CONTENT_RANGE);
        let range = range
            .and_then(|range| range.to_str().ok())
            .unwrap_or_default();
        match Self::parse(range) {
            Some(part) if part.start == before => Ok(part),
            _ => Err(passing(format!(
                "the server sends the part `{}` where all from byte {before} on was asked for",
                range.escape_debug()
            ))),
        }
    }

    /// Reads `bytes 200-1000/67589`, or with `*` for a length that is not known.
    fn parse(range: &str) -> Option<Self> {
        let (part, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (start, end) = part.split_once('-')?;
        let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        (start <= end && total.is_none_or(|total| end < total)).then_some(Self { start, total })
    }

    /// Whether a body that ended after so many bytes is whole.
    fn check_end(&self, n_bytes: u64) -> Result<(), Failure> {
        match self.total {
            Some(total) if n_bytes < total => Err(passing(format!(
                "the body ended after {n_bytes} of {total} bytes"
            ))),
            _ => Ok(()),
        }
    }
}
