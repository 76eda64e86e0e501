//! A connection between two processes of one training.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

/// A message is short; numbers go beside it.
const MESSAGE_MAX: u64 = 64 << 20;
/// Numbers that are turned into bytes at a time.
const NUMBERS: usize = 1 << 14;

/// What only the processes of one training know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn new() -> io::Result<Secret> {
        Ok(Secret(random()?))
    }

    pub(super) fn read(text: &str) -> Option<Secret> {
        Some(Secret(*blake3::Hash::from_hex(text).ok()?.as_bytes()))
    }

    pub(super) fn text(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    fn proof(&self, of: &[u8], theirs: &[u8; 32], ours: &[u8; 32]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(of).update(theirs).update(ours);
        hasher.finalize()
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A connection to a process that has proved that it knows the secret.
#[derive(Debug)]
pub(super) struct Link(TcpStream);

impl Link {
    /// Greets whoever called.
    pub(super) fn answer(stream: TcpStream, secret: &Secret) -> io::Result<Link> {
        // A stranger that says nothing holds up all the others.
        Link::greet(stream, secret, [b"answers", b"calls  "], 2)
    }

    /// Greets whoever answered.
    pub(super) fn call(stream: TcpStream, secret: &Secret) -> io::Result<Link> {
        Link::greet(stream, secret, [b"calls  ", b"answers"], 60)
    }

    /// Each sends a number that was never used and proves the secret on the other's.
    fn greet(
        mut stream: TcpStream,
        secret: &Secret,
        [we, they]: [&[u8; 7]; 2],
        seconds: u64,
    ) -> io::Result<Link> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let patience = Some(Duration::from_secs(seconds));
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let ours = random()?;
        stream.write_all(&ours)?;
        let mut theirs = [0; 32];
        stream.read_exact(&mut theirs)?;
        stream.write_all(secret.proof(we, &theirs, &ours).as_bytes())?;
        let mut proof = [0; 32];
        stream.read_exact(&mut proof)?;
        // Compared in a time that tells nothing.
        if secret.proof(they, &ours, &theirs) != blake3::Hash::from_bytes(proof) {
            let stranger = "a process that does not know the training's secret";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, stranger));
        }
        Ok(Link(stream))
    }

    /// Waits until the other says something, as long as nobody wants to stop.
    pub(super) fn wait_for_words(
        &self,
        patience: Duration,
        is_stopped: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let until = Instant::now() + patience;
        self.0.set_read_timeout(Some(Duration::from_millis(200)))?;
        loop {
            match self.0.peek(&mut [0]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if is_silence(&error) && Instant::now() < until && !is_stopped() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the other has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        let looked = self
            .0
            .set_read_timeout(Some(Duration::from_millis(1)))
            .and_then(|()| self.0.peek(&mut [0]));
        match looked {
            Ok(n) => n == 0,
            Err(error) => !is_silence(&error),
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.0
    }

    /// How long the other may be silent; nothing for as long as it likes.
    pub(super) fn be_patient(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)?;
        self.0.set_write_timeout(patience)
    }

    pub(super) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        let mut frame = (text.len() as u64).to_le_bytes().to_vec();
        frame.extend(text);
        (&self.0).write_all(&frame)
    }

    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<T> {
        let mut length = [0; 8];
        (&self.0).read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MESSAGE_MAX {
            return Err(io::Error::other("a message that is too long"));
        }
        let mut text = vec![0; length as usize];
        (&self.0).read_exact(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    pub(super) fn send_numbers(&self, numbers: &[f32]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(4 * NUMBERS.min(numbers.len()));
        for numbers in numbers.chunks(NUMBERS) {
            bytes.clear();
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            (&self.0).write_all(&bytes)?;
        }
        Ok(())
    }

    pub(super) fn receive_numbers(&self, numbers: &mut [f32]) -> io::Result<()> {
        let mut bytes = vec![0; 4 * NUMBERS.min(numbers.len())];
        for numbers in numbers.chunks_mut(NUMBERS) {
            let bytes = &mut bytes[..4 * numbers.len()];
            (&self.0).read_exact(bytes)?;
            for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }

    pub(super) fn send_loss(&self, [nll, weight]: [f64; 2]) -> io::Result<()> {
        let mut bytes = nll.to_le_bytes().to_vec();
        bytes.extend(weight.to_le_bytes());
        (&self.0).write_all(&bytes)
    }

    pub(super) fn receive_loss(&self) -> io::Result<[f64; 2]> {
        let mut both = [[0; 8]; 2];
        for bytes in &mut both {
            (&self.0).read_exact(bytes)?;
        }
        Ok(both.map(f64::from_le_bytes))
    }
}
