//! The process that decides: it starts the others and takes every step with them.
//!
//! A process that is lost costs the step that was under way. All the others are ended then and begun
//! anew with the weights as they stand here, which are those after the last step that all took. If
//! that happens again and again, this one goes on alone; it comes to the same bits.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tinylm_model::{
    engine::{Engine, EngineError, Tensors, Update},
    reduction::{Order, Part, Reduction, ReductionError, join_parts},
};
use tinylm_pipeline::{Follows, StageIo};

use super::{
    Errand, Hello, Said, Welcome, host,
    link::{Link, Secret},
    mesh::{Mesh, Peer, lost},
};

/// Until a process that was started has to be here, with its shards open and its weights laid out.
const COMING: Duration = Duration::from_secs(120);
/// Silence, beside ten times what our own share of a step took, after which a process is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// Those that are told the end may take this long to come to theirs.
const ENDING: Duration = Duration::from_millis(500);
/// Losses without a step in between, after which this process goes on alone.
const LOSSES_MAX: u32 = 3;

/// One that came: what it says of itself, where it listens, and its connections for orders and for numbers.
pub(super) type Came = (Hello, SocketAddr, Link, Link);

/// All processes that share a training.
pub(crate) struct Group<'a, 'b> {
    io: &'a StageIo<'b>,
    /// With this one.
    n_wanted: usize,
    band: Option<Band>,
    n_losses: u32,
    began: Instant,
    /// The longest that our own share of a step has taken.
    longest: Duration,
}

/// The others, once they are here.
struct Band {
    mesh: Mesh,
    orders: Vec<Peer>,
    children: Children,
}

/// Processes that end with their group, each with its rank.
struct Children(Vec<(usize, Child)>);

impl<'a, 'b> Group<'a, 'b> {
    pub(crate) fn new(io: &'a StageIo<'b>, n_wanted: usize) -> Self {
        Group {
            io,
            n_wanted,
            band: None,
            n_losses: 0,
            began: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// Starts the others and gives them what they need to take the next step.
    fn form(&mut self, engine: &mut dyn Engine) -> Result<Option<Band>, ReductionError> {
        if self.n_wanted == 1 {
            return Ok(None);
        }
        let began = Instant::now();
        let broken = |what: &str, error: io::Error| {
            ReductionError::Refused(format!("{what}, which processes share: {error}"))
        };
        let listens = |error| broken("this machine cannot be listened on", error);
        let (listener, addresses) = listen(self.io.ranks().nodes > 1).map_err(listens)?;
        let secret = Secret::new().map_err(|error| broken("there is no secret", error))?;
        let mut children = Children(Vec::new());
        for rank in 1..self.n_wanted {
            let follows = Follows {
                rank,
                addresses: addresses.clone(),
                secret: secret.text(),
            };
            match self.io.start_rank(follows) {
                Ok(child) => children.0.push((rank, child)),
                Err(error) => self.io.warn(format!(
                    "process {} could not be started: {error}",
                    rank + 1
                )),
            }
        }
        let is_stopped = || self.io.is_cancelled();
        let came = gather(&listener, &secret, &mut children, &is_stopped);
        if is_stopped() {
            return Err(ReductionError::Lost("stopped".to_owned()));
        }
        let (orders, numbers) = self.introduce(engine, came)?;
        if orders.len() + 1 < self.n_wanted {
            self.io.warn(format!(
                "{} of {} processes are here, and share the work",
                orders.len() + 1,
                self.n_wanted
            ));
        }
        if orders.is_empty() {
            self.n_wanted = 1;
            return Ok(None);
        }
        let band = Band {
            mesh: Mesh {
                rank: 0,
                n_ranks: orders.len() + 1,
                n_numbers: n_numbers(engine)?,
                peers: numbers,
            },
            orders,
            children,
        };
        band.tell_state(&engine.weights()?, &engine.optimizer()?)?;
        let n = band.mesh.n_ranks;
        let took = began.elapsed().as_secs_f64();
        self.io
            .info(format!("{n} processes share the work after {took:.1} s"));
        Ok(Some(band))
    }

    /// Tells those who came who the others are, and waits until they know each other.
    fn introduce(
        &self,
        engine: &mut dyn Engine,
        came: Vec<Came>,
    ) -> Result<(Vec<Peer>, Vec<Peer>), ReductionError> {
        refuse_others(&came, &engine.machine().kernels)?;
        let n_numbers = n_numbers(engine)?;
        let n_ranks = came.len() + 1;
        let listening: Vec<SocketAddr> = came.iter().map(|(_, at, ..)| *at).collect();
        let (mut all_orders, mut all_numbers) = (Vec::new(), Vec::new());
        for (idx, (hello, _, orders, numbers)) in came.into_iter().enumerate() {
            let rank = idx + 1;
            let peer = |link| Peer {
                rank,
                host: hello.host.clone(),
                link,
            };
            let (orders, numbers) = (peer(orders), peer(numbers));
            let welcome = Welcome::In {
                rank,
                n_ranks,
                n_numbers,
                others: listening[..idx].to_vec(),
            };
            let sent = orders.link.send(&welcome);
            sent.map_err(|error| lost(&orders, &error))?;
            all_orders.push(orders);
            all_numbers.push(numbers);
        }
        for peer in &all_orders {
            let known = peer
                .link
                .wait_for_words(COMING, &|| self.io.is_cancelled())
                .and_then(|()| peer.link.be_patient(Some(COMING)))
                .and_then(|()| peer.link.receive::<()>());
            known.map_err(|error| lost(peer, &error))?;
        }
        Ok((all_orders, all_numbers))
    }

    fn give_up(&mut self, error: ReductionError) -> ReductionError {
        let ReductionError::Lost(what) = error else {
            return error;
        };
        // Whoever is left may wait for the one that is lost.
        self.band = None;
        self.n_losses += 1;
        if self.n_losses < LOSSES_MAX {
            return ReductionError::Lost(what);
        }
        self.n_wanted = 1;
        ReductionError::Lost(format!("{what}; going on alone"))
    }
}

impl Reduction for Group<'_, '_> {
    fn begin(&mut self, engine: &mut dyn Engine, order: Order) -> Result<(), ReductionError> {
        if self.band.is_none() {
            self.band = match self.form(engine) {
                Ok(band) => band,
                Err(error) => return Err(self.give_up(error)),
            };
        }
        self.began = Instant::now();
        let said = Said::Step {
            step: order.step,
            micro_batch: order.micro_batch,
        };
        let told = self.band.as_ref().map_or(Ok(()), |band| band.tell(&said));
        told.map_err(|error| self.give_up(error))
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        match &self.band {
            Some(band) => band.mesh.ours(n_leaves),
            None => 0..n_leaves,
        }
    }

    fn combine(&mut self, n_leaves: usize, parts: Vec<Part>) -> Result<Part, ReductionError> {
        let Some(band) = &self.band else {
            let missing = || ReductionError::Refused("a part of the step is missing".to_owned());
            return join_parts(n_leaves, parts).ok_or_else(missing);
        };
        self.longest = self.longest.max(self.began.elapsed());
        let patience = Some(SILENCE + 10 * self.longest);
        for peer in &band.mesh.peers {
            // A connection without a limit is one that fails in the exchange.
            let _ = peer.link.be_patient(patience);
        }
        let sum = band.mesh.combine(n_leaves, &parts);
        sum.map_err(|error| self.give_up(error))
    }

    fn decide(&mut self, update: Option<&Update>) {
        let said = match update {
            None => Said::Discard,
            Some(update) => Said::Update {
                step: update.step,
                lr: update.lr.to_bits(),
                divisor: update.divisor.to_bits(),
                clip: update.clip.to_bits(),
            },
        };
        self.n_losses = 0;
        // Without one that does not hear it the others are begun anew, with this update made.
        if let Some(Err(error)) = self.band.as_ref().map(|band| band.tell(&said)) {
            self.io.warn(error.to_string());
            self.band = None;
        }
    }
}

impl Band {
    fn tell(&self, said: &Said) -> Result<(), ReductionError> {
        for peer in &self.orders {
            let told = peer.link.send(said);
            told.map_err(|error| lost(peer, &error))?;
        }
        Ok(())
    }

    fn tell_state(&self, weights: &Tensors, optimizer: &Tensors) -> Result<(), ReductionError> {
        let shapes = |tensors: &Tensors| {
            let shapes = tensors.iter();
            shapes
                .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
                .collect()
        };
        let said = Said::State {
            weights: shapes(weights),
            optimizer: shapes(optimizer),
        };
        self.tell(&said)?;
        for peer in &self.orders {
            for tensor in weights.values().chain(optimizer.values()) {
                let told = peer.link.send_numbers(&tensor.data);
                told.map_err(|error| lost(peer, &error))?;
            }
        }
        Ok(())
    }
}

impl Drop for Band {
    fn drop(&mut self) {
        // In the middle of a step nobody hears it, and is ended: its connections close after this.
        let _ = self.tell(&Said::End);
        let until = Instant::now() + ENDING;
        while Instant::now() < until && self.children.are_there() {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Children {
    fn are_there(&mut self) -> bool {
        let mut children = self.0.iter_mut();
        children.any(|(_, child)| matches!(child.try_wait(), Ok(None)))
    }

    /// How many are gone of those whose ranks are not among these.
    fn ended(&mut self, but: &[usize]) -> usize {
        let others = self.0.iter_mut().filter(|(rank, _)| !but.contains(rank));
        let gone = others.filter_map(|(_, child)| child.try_wait().ok().flatten());
        gone.count()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // `srun` ends what it started on another machine only if it is asked.
        for (_, child) in &self.0 {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        let until = Instant::now() + ENDING;
        while Instant::now() < until && self.are_there() {
            thread::sleep(Duration::from_millis(10));
        }
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Refuses the first whose sums would be other bits.
pub(super) fn refuse_others(came: &[Came], kernels: &str) -> Result<(), ReductionError> {
    let here = env!("CARGO_PKG_VERSION");
    for (hello, _, orders, _) in came {
        let what = match hello {
            hello if hello.kernels != kernels => format!(
                "process {} on {} computes with {}, and this one with {kernels}: their sums would be other bits",
                hello.rank + 1,
                hello.host,
                hello.kernels
            ),
            hello if hello.version != here => format!(
                "process {} on {} is tinylm {}, and this one {here}",
                hello.rank + 1,
                hello.host,
                hello.version
            ),
            _ => continue,
        };
        // It has its answer then, whether it hears it or not.
        let _ = orders.send(&Welcome::Refused(what.clone()));
        return Err(ReductionError::Refused(what));
    }
    Ok(())
}

/// Waits for those who were started: each comes twice, for orders and for numbers.
fn gather(
    listener: &TcpListener,
    secret: &Secret,
    children: &mut Children,
    is_stopped: &dyn Fn() -> bool,
) -> Vec<Came> {
    let until = Instant::now() + COMING;
    let mut came: Vec<Came> = Vec::new();
    let mut waiting: Vec<(Hello, Link)> = Vec::new();
    loop {
        let here: Vec<usize> = came.iter().map(|(hello, ..)| hello.rank).collect();
        // One that has ended comes no more.
        let are_all = here.len() + children.ended(&here) >= children.0.len();
        if are_all || is_stopped() || Instant::now() > until {
            break;
        }
        let Ok((stream, from)) = listener.accept() else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let greeted = Link::answer(stream, secret)
            .and_then(|link| link.receive::<Hello>().map(|hello| (hello, link)));
        // A stranger is no concern of this training.
        let Ok((hello, link)) = greeted else {
            continue;
        };
        let other = waiting
            .iter()
            .position(|(known, _)| known.rank == hello.rank);
        let Some(other) = other else {
            waiting.push((hello, link));
            continue;
        };
        let (_, first) = waiting.swap_remove(other);
        let at = SocketAddr::new(from.ip(), hello.port);
        match hello.errand {
            Errand::Numbers => came.push((hello, at, first, link)),
            Errand::Orders => came.push((hello, at, link, first)),
        }
    }
    came.sort_by_key(|(hello, ..)| hello.rank);
    came
}

/// Listens where the others can come to, and says by which addresses.
fn listen(on_all: bool) -> io::Result<(TcpListener, Vec<String>)> {
    let here = match on_all {
        true => Ipv4Addr::UNSPECIFIED,
        false => Ipv4Addr::LOCALHOST,
    };
    let listener = TcpListener::bind((here, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let mut hosts = vec![Ipv4Addr::LOCALHOST.to_string()];
    if on_all {
        // By the way out first: of two machines' own names for themselves none may be of use.
        hosts = way_out().into_iter().chain([host()]).chain(hosts).collect();
    }
    let addresses = hosts.into_iter().map(|host| format!("{host}:{port}"));
    Ok((listener, addresses.collect()))
}

/// The address from which this machine would speak to others; nothing is sent.
fn way_out() -> Option<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// How many numbers an engine's gradient has.
fn n_numbers(engine: &mut dyn Engine) -> Result<usize, EngineError> {
    let mut n = 0;
    engine.each_gradient(&mut |_, part| n += part.len())?;
    engine.discard();
    Ok(n)
}
