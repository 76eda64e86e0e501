//! Engines of one process that take a training's steps together, each on a thread of its own: several GPUs.
//!
//! The same leaves, the same tree and the same words as between processes (`leaves.rs`), and so the same bits for one
//! engine and for four. Only the way is shorter: what a thread hands over is moved, not sent. One that fails ends the
//! training, which goes on from its checkpoint on the devices that are left.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};

use super::{Leader, Told, TrainError, TrainSettings, follow};
use crate::{
    engine::{Engine, EngineError, Update},
    reduction::{Alone, Order, Part, Reduction, ReductionError},
    shards::Shards,
    tree,
};

/// Makes the engine of one who follows, on the thread that it stays on.
pub type Make<'a> = &'a (dyn Fn(usize) -> Result<Box<dyn Engine>, EngineError> + Sync);

/// What an engine that follows tells the one that decides.
enum News {
    Parts(Vec<Part>),
    Failed(String),
}

/// The engines besides the first, as it sees them.
pub struct Crew {
    names: Vec<String>,
    members: Vec<mpsc::Sender<Word>>,
    news: mpsc::Receiver<(usize, News)>,
    /// They have weights and moments.
    is_begun: bool,
}

/// What the one that decides tells them.
#[derive(Clone)]
enum Word {
    Told(Told),
    Sum(Arc<Part>),
}

/// Does `work` with an engine for each of these names besides the one that it has; they are made by `make`, which is
/// given their places among the names.
pub fn with_crew<T>(
    names: Vec<String>,
    make: Make<'_>,
    (shards, settings): (&Shards, &TrainSettings),
    work: impl FnOnce(&mut Crew) -> T,
) -> T {
    thread::scope(|scope| {
        let (tell, news) = mpsc::channel();
        let mut members = Vec::new();
        for idx in 0..names.len() {
            let (sender, told) = mpsc::channel();
            let (tell, share) = (tell.clone(), (idx + 1, names.len() + 1));
            members.push(sender);
            scope.spawn(move || {
                let mut member = Member { share, told, tell };
                let work = || {
                    let mut engine = make(idx)?;
                    follow(engine.as_mut(), shards, settings, &mut member)
                };
                if let Err(why) = or_panic(work) {
                    member.say(News::Failed(why));
                }
            });
        }
        drop(tell);
        let is_begun = false;
        // Once it is dropped nobody is told anything any more, and all end.
        let mut crew = Crew {
            names,
            members,
            news,
            is_begun,
        };
        work(&mut crew)
    })
}

/// A panic would leave the others waiting for what never comes.
fn or_panic(work: impl FnOnce() -> Result<(), TrainError>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("its thread panicked".to_owned()),
    }
}

impl Crew {
    fn tell(&self, word: &Word) {
        // One that has ended has said why, which is heard when the parts are added.
        for member in &self.members {
            let _ = member.send(word.clone());
        }
    }
}

impl Reduction for Crew {
    fn begin(&mut self, engine: &mut dyn Engine, order: Order) -> Result<(), ReductionError> {
        if !self.is_begun {
            let (weights, optimizer) = (engine.weights()?, engine.optimizer()?);
            self.tell(&Word::Told(Told::State { weights, optimizer }));
            self.is_begun = true;
        }
        self.tell(&Word::Told(Told::Step(order)));
        Ok(())
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        tree::ours(n_leaves, 0, self.members.len() + 1)
    }

    fn combine(&mut self, n_leaves: usize, parts: Vec<Part>) -> Result<Part, ReductionError> {
        let mut all = parts;
        for _ in &self.members {
            match self.news.recv() {
                Ok((_, News::Parts(parts))) => all.extend(parts),
                Ok((rank, News::Failed(why))) => {
                    let name = &self.names[rank - 1];
                    return Err(ReductionError::Refused(format!("`{name}`: {why}")));
                }
                // All have ended, and whoever failed has been heard.
                Err(error) => return Err(ReductionError::Refused(error.to_string())),
            }
        }
        let sum = Arc::new(Alone.combine(n_leaves, all)?);
        self.tell(&Word::Sum(Arc::clone(&sum)));
        Ok(Arc::unwrap_or_clone(sum))
    }

    fn decide(&mut self, update: Option<&Update>) {
        self.tell(&Word::Told(match update {
            Some(update) => Told::Update(*update),
            None => Told::Discard,
        }));
    }
}

/// One who follows.
struct Member {
    /// Which of how many.
    share: (usize, usize),
    told: mpsc::Receiver<Word>,
    tell: mpsc::Sender<(usize, News)>,
}

impl Member {
    fn say(&self, news: News) {
        // Nobody hears it where the one that decides has ended.
        let _ = self.tell.send((self.share.0, news));
    }
}

impl Leader for Member {
    fn next(&mut self) -> Result<Told, ReductionError> {
        loop {
            match self.told.recv() {
                Ok(Word::Told(told)) => return Ok(told),
                // Of a step that was not waited for.
                Ok(Word::Sum(_)) => (),
                Err(_) => return Ok(Told::End),
            }
        }
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        tree::ours(n_leaves, self.share.0, self.share.1)
    }

    fn combine(&mut self, _: usize, parts: Vec<Part>) -> Result<Part, ReductionError> {
        self.say(News::Parts(parts));
        match self.told.recv() {
            Ok(Word::Sum(sum)) => Ok(Arc::unwrap_or_clone(sum)),
            Ok(Word::Told(_)) | Err(_) => Err(ReductionError::Refused(
                "the step came to nothing".to_owned(),
            )),
        }
    }
}
