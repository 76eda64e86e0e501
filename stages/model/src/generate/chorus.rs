//! Several prompts that are continued at once.
//!
//! A pass reads a token of each, and of new prompts as much as there is room for, so weights are read once for
//! all. What each becomes is what a `Continuation` makes of it alone, to the bit, except in bf16 on a
//! processor, where the number of rows chooses the kernel.

use rayon::{ThreadPool, prelude::*};

use super::{
    continuation::{GenerateError, Rules, Step, Voice},
    reader::{Fed, Reader, Sequence},
};

/// Prompts being continued, each known by the number that it was given.
pub struct Chorus<'a> {
    reader: &'a mut Reader,
    /// Those that draw tokens.
    threads: &'a ThreadPool,
    members: Vec<Member>,
    /// Sequences of those that have left.
    free: Vec<Sequence>,
}

struct Member {
    number: usize,
    voice: Voice,
    sequence: Sequence,
}

/// What became of one that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Tokens of the prompt that did not fit the context and were left out.
    pub n_cropped: usize,
    /// How often the oldest tokens were dropped because the context was full.
    pub n_slides: usize,
}

impl<'a> Chorus<'a> {
    pub fn new(reader: &'a mut Reader, threads: &'a ThreadPool) -> Self {
        Chorus {
            reader,
            threads,
            members: Vec::new(),
            free: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Checks prompt and rules; the prompt is read by the next passes.
    pub fn join(
        &mut self,
        number: usize,
        prompt: &[u16],
        rules: Rules,
    ) -> Result<(), GenerateError> {
        let voice = Voice::new(self.reader.model().config(), prompt, rules)?;
        let sequence = self.free.pop();
        let mut sequence = sequence.unwrap_or_else(|| Sequence::new(self.reader.model()));
        sequence.truncate(0);
        self.members.push(Member {
            number,
            voice,
            sequence,
        });
        Ok(())
    }

    /// Ends one, whether or not it has come to its end.
    pub fn leave(&mut self, number: usize) -> Option<Left> {
        let idx = self.members.iter().position(|m| m.number == number)?;
        let Member {
            voice, sequence, ..
        } = self.members.remove(idx);
        self.free.push(sequence);
        Some(Left {
            n_cropped: voice.n_cropped(),
            n_slides: voice.n_slides(),
        })
    }

    /// Reads one pass, and returns the tokens that were chosen by it. Who has come to its end is still a
    /// member, of whom nothing more comes.
    pub fn advance(&mut self) -> Result<Vec<(usize, Step)>, GenerateError> {
        let mut room = Reader::MOST;
        let (mut fed, mut choosing) = (Vec::new(), Vec::new());
        for Member {
            number,
            voice,
            sequence,
        } in &mut self.members
        {
            if room == 0 || voice.is_over() {
                continue;
            }
            if let Some(n_stay) = voice.make_room(sequence.held()) {
                sequence.truncate(n_stay);
            }
            let n = voice.waiting.len().min(room);
            room -= n;
            let is_asked = n == voice.waiting.len();
            let tokens: Vec<u16> = voice.waiting.drain(..n).collect();
            fed.push((sequence, tokens, is_asked));
            if is_asked {
                choosing.push((*number, voice));
            }
        }
        let mut fed: Vec<Fed<'_>> = fed
            .iter_mut()
            .map(|(sequence, tokens, is_asked)| Fed {
                sequence,
                tokens,
                n_asked: usize::from(*is_asked),
            })
            .collect();
        let logits = self.reader.feed(&mut fed)?;
        let choose = |((number, voice), logits): ((usize, &mut Voice), &[f32])| {
            Ok((number, voice.choose(logits)?))
        };
        let choose_all = || choosing.into_par_iter().zip(logits).map(choose).collect();
        self.threads.install(choose_all)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        config::ReadPrecision,
        generate::{
            Continuation, Session,
            tests::{session, tiny},
        },
        sampler::Sampling,
    };

    fn rules(sample: u64, n_max: usize) -> Rules {
        Rules {
            sampling: Sampling {
                temperature: 1.0,
                ..Sampling::GREEDY
            },
            seed: 3,
            sample,
            n_max,
            stop: vec![11],
            n_stay: 2,
            n_candidates: 1,
        }
    }

    /// Prompts shorter and longer than the context, and answers that outlive it.
    fn asked() -> Vec<(Vec<u16>, Rules)> {
        let prompt = |n: u16| (0..n).map(|i| i * 7 % 77).collect();
        vec![
            (prompt(3), rules(0, 90)),
            (prompt(40), rules(1, 20)),
            (prompt(70), rules(2, 9)),
            (prompt(3), rules(3, 1)),
            (prompt(8), rules(4, 60)),
        ]
    }

    fn alone(session: &mut Session) -> Vec<(Vec<Step>, Left)> {
        let answer = |(prompt, rules): (Vec<u16>, Rules)| {
            let mut one = Continuation::new(session, &prompt, rules).unwrap();
            let mut steps = Vec::new();
            while let Some(step) = one.advance().unwrap() {
                steps.push(step);
            }
            let left = Left {
                n_cropped: one.n_cropped(),
                n_slides: one.n_slides(),
            };
            (steps, left)
        };
        asked().into_iter().map(answer).collect()
    }

    /// At most three at a time, each of whom another follows.
    fn together(reader: &mut Reader) -> Vec<(Vec<Step>, Left)> {
        let mut coming = asked().into_iter().enumerate();
        let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let threads = threads.unwrap();
        let mut chorus = Chorus::new(reader, &threads);
        let mut said = vec![Vec::new(); coming.len()];
        let mut left = vec![None; coming.len()];
        loop {
            while chorus.len() < 3
                && let Some((number, (prompt, rules))) = coming.next()
            {
                chorus.join(number, &prompt, rules).unwrap();
            }
            if chorus.is_empty() {
                break;
            }
            for (number, step) in chorus.advance().unwrap() {
                let is_last = step.is_stop || said[number].len() + 1 == asked()[number].1.n_max;
                said[number].push(step);
                if is_last {
                    left[number] = chorus.leave(number);
                }
            }
        }
        let all = said.into_iter().zip(left);
        all.map(|(steps, left)| (steps, left.unwrap())).collect()
    }

    /// `reader` makes readers of one model.
    pub(crate) fn assert_each_is_as_alone(reader: &mut dyn FnMut() -> Reader) {
        let mut session = Session::of(reader());
        let want = alone(&mut session);
        assert!(want.iter().any(|(_, left)| left.n_slides > 0));
        assert!(want.iter().any(|(_, left)| left.n_cropped > 0));
        assert_eq!(together(&mut reader()), want);
        // Also beside what a session holds.
        assert_eq!(together(session.reader()), want);
    }

    #[test]
    fn each_goes_on_as_it_would_alone() {
        for precision in [ReadPrecision::F32, ReadPrecision::Int8] {
            let session = session(&tiny(), precision, 1);
            let model = std::sync::Arc::clone(session.model());
            assert_each_is_as_alone(&mut || Reader::new(model.clone(), 2));
        }
    }
}
