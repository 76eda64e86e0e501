//! A process that follows: it does what it is told, and ends when whoever tells it is gone.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    ops::Range,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tinylm_model::{
    engine::{Tensor, Tensors, Update},
    reduction::{Order, Part, ReductionError},
    train::{Leader, Told},
};
use tinylm_pipeline::{Follows, StageError, threads};

use super::{
    Errand, Hello, Said, Welcome, host,
    link::{Link, Secret},
    mesh::{Mesh, Peer},
};

/// Until all have met.
const MEETING: Duration = Duration::from_secs(60);
/// Until a call is answered.
const CALLING: Duration = Duration::from_secs(10);

/// The process that decides, as this one sees it.
pub(crate) struct Member {
    mesh: Mesh,
    told: mpsc::Receiver<io::Result<Told>>,
}

impl Member {
    /// Goes to the process that this one follows, and gets to know the others.
    pub(crate) fn join(follows: &Follows, kernels: &str) -> Result<Member, StageError> {
        let wrong = |what: String| StageError::new("cannot take part in the training").cause(what);
        let secret = Secret::read(&follows.secret);
        let secret = secret.ok_or_else(|| wrong("its secret cannot be read".to_owned()))?;
        let came = Member::come(follows, kernels, &secret);
        let (orders, numbers, others, welcome) = came.map_err(|error| wrong(error.to_string()))?;
        let mesh = match welcome {
            Welcome::Refused(what) => return Err(wrong(what)),
            Welcome::In {
                rank,
                n_ranks,
                n_numbers,
                others: lower,
            } => {
                let peers = meet(&others, &secret, (rank, n_ranks), &lower, &orders);
                let mut peers = peers.map_err(|error| wrong(error.to_string()))?;
                let link = numbers;
                let host = "the one that decides".to_owned();
                peers.insert(
                    0,
                    Peer {
                        rank: 0,
                        host,
                        link,
                    },
                );
                Mesh {
                    rank,
                    n_ranks,
                    n_numbers,
                    peers,
                }
            }
        };
        let ready = || {
            orders.send(&())?;
            orders.be_patient(None)?;
            for peer in &mesh.peers {
                peer.link.be_patient(None)?;
            }
            listen(orders, &mesh)
        };
        let told = ready().map_err(|error| wrong(error.to_string()))?;
        Ok(Member { mesh, told })
    }

    fn come(
        follows: &Follows,
        kernels: &str,
        secret: &Secret,
    ) -> io::Result<(Link, Link, TcpListener, Welcome)> {
        let (mut numbers, mut at) = (None, Err(io::Error::other("it has no address")));
        for address in &follows.addresses {
            at = call(address, secret);
            if at.is_ok() {
                numbers = Some(address);
                break;
            }
        }
        let orders = at?;
        let here = orders.stream().local_addr()?.ip();
        let listener = TcpListener::bind((here, 0))?;
        let hello = |errand| {
            Ok::<_, io::Error>(Hello {
                rank: follows.rank,
                errand,
                host: host(),
                kernels: kernels.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                port: listener.local_addr()?.port(),
            })
        };
        orders.send(&hello(Errand::Orders)?)?;
        let numbers = call(numbers.map_or("", |address| address), secret)?;
        numbers.send(&hello(Errand::Numbers)?)?;
        // All of them have to come first.
        orders.be_patient(Some(Duration::from_secs(300)))?;
        let welcome = orders.receive()?;
        Ok((orders, numbers, listener, welcome))
    }
}

impl Leader for Member {
    fn next(&mut self) -> Result<Told, ReductionError> {
        let gone = || ReductionError::Lost("the process that decides is gone".to_owned());
        match self.told.recv() {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(_)) | Err(_) => Err(gone()),
        }
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        self.mesh.ours(n_leaves)
    }

    fn combine(&mut self, n_leaves: usize, parts: Vec<Part>) -> Result<Part, ReductionError> {
        self.mesh.combine(n_leaves, &parts)
    }
}

fn call(address: &str, secret: &Secret) -> io::Result<Link> {
    let mut last = io::Error::other(format!("`{address}` is no address"));
    for at in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&at, CALLING).and_then(|to| Link::call(to, secret)) {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Calls those of lower rank and waits for those of higher.
fn meet(
    listener: &TcpListener,
    secret: &Secret,
    (rank, n_ranks): (usize, usize),
    lower: &[SocketAddr],
    orders: &Link,
) -> io::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for (idx, at) in lower.iter().enumerate() {
        let link = call(&at.to_string(), secret)?;
        link.send(&rank)?;
        peers.push(Peer {
            rank: idx + 1,
            host: at.ip().to_string(),
            link,
        });
    }
    listener.set_nonblocking(true)?;
    let until = Instant::now() + MEETING;
    while peers.len() + 2 < n_ranks {
        let Ok((stream, from)) = listener.accept() else {
            if Instant::now() > until || orders.is_closed() {
                return Err(io::Error::other("the others do not come"));
            }
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let met = Link::answer(stream, secret)
            .and_then(|link| link.receive::<usize>().map(|rank| (rank, link)));
        // A stranger is no concern of this training.
        let Ok((rank, link)) = met else {
            continue;
        };
        let host = from.ip().to_string();
        peers.push(Peer { rank, host, link });
    }
    Ok(peers)
}

/// Hears orders in a thread of its own. When whoever gives them is gone, all connections are closed:
/// this process may be waiting for another that is stuck.
fn listen(orders: Link, mesh: &Mesh) -> io::Result<mpsc::Receiver<io::Result<Told>>> {
    let (sender, receiver) = mpsc::channel();
    let others = mesh.peers.iter();
    let others: Vec<TcpStream> = others
        .map(|peer| peer.link.stream().try_clone())
        .collect::<Result<_, _>>()?;
    threads::spawn(move || {
        loop {
            let told = hear(&orders);
            let is_over = !matches!(&told, Ok(told) if *told != Told::End);
            if told.is_err() {
                for other in &others {
                    let _ = other.shutdown(Shutdown::Both);
                }
            }
            if sender.send(told).is_err() || is_over {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn hear(orders: &Link) -> io::Result<Told> {
    Ok(match orders.receive()? {
        Said::State { weights, optimizer } => Told::State {
            weights: tensors(orders, weights)?,
            optimizer: tensors(orders, optimizer)?,
        },
        Said::Step { step, micro_batch } => Told::Step(Order { step, micro_batch }),
        Said::Update {
            step,
            lr,
            divisor,
            clip,
        } => Told::Update(Update {
            step,
            lr: f32::from_bits(lr),
            divisor: f64::from_bits(divisor),
            clip: f32::from_bits(clip),
        }),
        Said::Discard => Told::Discard,
        Said::End => Told::End,
    })
}

fn tensors(orders: &Link, shapes: Vec<(String, Vec<usize>)>) -> io::Result<Tensors> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut data = vec![0.0; shape.iter().product()];
        orders.receive_numbers(&mut data)?;
        Ok((name, Tensor { shape, data }))
    };
    shapes.into_iter().map(tensor).collect()
}
