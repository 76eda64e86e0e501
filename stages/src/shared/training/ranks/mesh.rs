//! The exchange of gradients: all have parts of a step, and all come to hold its sum.
//!
//! Every process owns a slice of the gradient. It is sent that slice of each part, adds them in the
//! order of the tree, whoever made them, and sends the sum to all. Of what it has each sends all but
//! its own slice once, and so it receives: with more processes that does not grow.

use std::{io, ops::Range, thread};

use tinylm_model::{
    engine::LossSum,
    reduction::{Part, ReductionError, add},
    tree::{join, nodes, ours, share},
};

use super::link::Link;

/// Another process, and its name for errors.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) rank: usize,
    pub(super) host: String,
    pub(super) link: Link,
}

#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) rank: usize,
    pub(super) n_ranks: usize,
    pub(super) n_numbers: usize,
    pub(super) peers: Vec<Peer>,
}

impl Mesh {
    /// The leaves that this process makes.
    pub(super) fn ours(&self, n_leaves: usize) -> Range<usize> {
        ours(n_leaves, self.rank, self.n_ranks)
    }

    fn slice(&self, rank: usize) -> Range<usize> {
        share(self.n_numbers, rank, self.n_ranks)
    }

    /// Adds the parts of all processes.
    pub(super) fn combine(&self, n_leaves: usize, parts: &[Part]) -> Result<Part, ReductionError> {
        if parts
            .iter()
            .any(|part| part.gradient.len() != self.n_numbers)
        {
            let what = "a gradient of another size than the model's".to_owned();
            return Err(ReductionError::Refused(what));
        }
        let mut slices = self.exchange(parts, n_leaves)?;
        slices.extend(parts.iter().map(|part| self.cut(part, self.rank)));
        let mut slices = slices
            .into_iter()
            .map(|part| (part.leaves.clone(), part))
            .collect();
        let missing = || ReductionError::Lost("a part of the step is missing".to_owned());
        let sum = join(&(0..n_leaves), &mut slices, &add).ok_or_else(missing)?;
        self.gather(&sum)
    }

    fn cut(&self, part: &Part, rank: usize) -> Part {
        Part {
            leaves: part.leaves.clone(),
            loss: part.loss,
            gradient: part.gradient[self.slice(rank)].to_vec(),
        }
    }

    /// Sends each owner its slice of our parts; returns ours of the others' parts.
    fn exchange(&self, parts: &[Part], n_leaves: usize) -> Result<Vec<Part>, ReductionError> {
        let send = |peer: &Peer| {
            for part in parts {
                let loss = part.loss;
                peer.link.send_loss([loss.nll, loss.weight])?;
                peer.link
                    .send_numbers(&part.gradient[self.slice(peer.rank)])?;
            }
            Ok(())
        };
        let receive = |peer: &Peer| {
            let theirs = ours(n_leaves, peer.rank, self.n_ranks);
            let nodes = nodes(0..n_leaves, &theirs).into_iter();
            let part = |leaves| {
                let [nll, weight] = peer.link.receive_loss()?;
                let mut gradient = vec![0.0; self.slice(self.rank).len()];
                peer.link.receive_numbers(&mut gradient)?;
                Ok(Part {
                    leaves,
                    loss: LossSum { nll, weight },
                    gradient,
                })
            };
            nodes.map(part).collect::<io::Result<Vec<Part>>>()
        };
        let received = self.with_all(send, receive)?;
        Ok(received.into_iter().flatten().collect())
    }

    /// Sends the sum of our slice to all; returns the whole sum.
    fn gather(&self, sum: &Part) -> Result<Part, ReductionError> {
        let send = |peer: &Peer| peer.link.send_numbers(&sum.gradient);
        let receive = |peer: &Peer| {
            let mut slice = vec![0.0; self.slice(peer.rank).len()];
            peer.link.receive_numbers(&mut slice)?;
            Ok((peer.rank, slice))
        };
        let mut gradient = vec![0.0; self.n_numbers];
        gradient[self.slice(self.rank)].copy_from_slice(&sum.gradient);
        for (rank, slice) in self.with_all(send, receive)? {
            gradient[self.slice(rank)].copy_from_slice(&slice);
        }
        Ok(Part {
            leaves: sum.leaves.clone(),
            loss: sum.loss,
            gradient,
        })
    }

    /// Sends to all and receives from all at once: in turns, two that send to each other would wait
    /// for ever.
    fn with_all<T: Send>(
        &self,
        send: impl Fn(&Peer) -> io::Result<()> + Sync,
        receive: impl Fn(&Peer) -> io::Result<T> + Sync,
    ) -> Result<Vec<T>, ReductionError> {
        let (send, receive) = (&send, &receive);
        thread::scope(|scope| {
            let at_work: Vec<_> = self
                .peers
                .iter()
                .map(|peer| {
                    let sent = scope.spawn(move || send(peer));
                    (peer, sent, scope.spawn(move || receive(peer)))
                })
                .collect();
            let mut all = Vec::new();
            let mut failed = Ok(());
            for (peer, sent, received) in at_work {
                let done = received.join().unwrap_or_else(|_| Err(panicked()));
                let sent = sent.join().unwrap_or_else(|_| Err(panicked()));
                match sent.and(done) {
                    Ok(done) => all.push(done),
                    Err(error) if failed.is_ok() => failed = Err(lost(peer, &error)),
                    Err(_) => {}
                }
            }
            failed.map(|()| all)
        })
    }
}

fn panicked() -> io::Error {
    io::Error::other("a thread panicked")
}

pub(super) fn lost(peer: &Peer, error: &io::Error) -> ReductionError {
    let why = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "says nothing any more".to_owned(),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "is gone".to_owned(),
        _ => format!("cannot be spoken to ({error})"),
    };
    ReductionError::Lost(format!("process {} on {} {why}", peer.rank + 1, peer.host))
}
