//! Several prompts answered at once: a pass of the model reads a token of each.
//!
//! Every answer is what it would be alone, so this is a matter of time only, and the same bytes come of it.
//! Answers are told in the order of their prompts; those that end sooner wait.

use std::{collections::BTreeMap, sync::Arc};

use rayon::ThreadPoolBuilder;
use tinylm_model::generate::Chorus;

use super::{Answer, End, Manner, Prompt, Saying, SpeakError, Speaker};

impl Speaker {
    /// Answers each prompt, drawing the numbers of the sample that its place gives, and tells the answers in
    /// their order. Returns false if `go_on`, which is asked between passes, did not want all of them.
    pub fn answer_all<E: From<SpeakError>>(
        &mut self,
        prompts: &[Prompt],
        manner: &Manner,
        go_on: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(usize, Answer) -> Result<(), E>,
    ) -> Result<bool, E> {
        let n_most = self.n_at_once()?.min(prompts.len());
        if n_most < 2 || manner.max_tokens == 0 {
            return self.answer_in_turn(prompts, manner, go_on, tell);
        }
        self.answer_together(prompts, manner, n_most, go_on, tell)
    }

    /// How many answers are worth making at once.
    fn n_at_once(&mut self) -> Result<usize, SpeakError> {
        match self.session.model().is_alike_in_company() {
            true => Ok(self.session.reader().n_sequences()?),
            false => Ok(1),
        }
    }

    fn answer_in_turn<E: From<SpeakError>>(
        &mut self,
        prompts: &[Prompt],
        manner: &Manner,
        go_on: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(usize, Answer) -> Result<(), E>,
    ) -> Result<bool, E> {
        for (idx, prompt) in prompts.iter().enumerate() {
            let answer = self.answer(prompt, idx as u64, manner, &mut |_| go_on())?;
            if answer.end == End::Interrupted {
                return Ok(false);
            }
            tell(idx, answer)?;
        }
        Ok(true)
    }

    fn answer_together<E: From<SpeakError>>(
        &mut self,
        prompts: &[Prompt],
        manner: &Manner,
        n_most: usize,
        go_on: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(usize, Answer) -> Result<(), E>,
    ) -> Result<bool, E> {
        let rules = prompts.iter().enumerate();
        let rules = rules.map(|(idx, prompt)| self.rules(prompt, idx as u64, manner));
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let tokenizer = Arc::clone(&self.tokenizer);
        let threads = ThreadPoolBuilder::new().num_threads(self.n_threads).build();
        let threads = threads.map_err(|error| SpeakError::Threads(error.to_string()))?;
        let mut coming = prompts.iter().zip(rules).enumerate();
        let mut chorus = Chorus::new(self.session.reader(), &threads);
        let mut saying = BTreeMap::new();
        let (mut over, mut n_told) = (BTreeMap::new(), 0);
        loop {
            while chorus.len() < n_most
                && let Some((idx, (prompt, rules))) = coming.next()
            {
                let joined = chorus.join(idx, &prompt.ids, rules);
                joined.map_err(SpeakError::from)?;
                saying.insert(idx, Saying::new(&tokenizer, manner));
            }
            if chorus.is_empty() {
                return Ok(true);
            }
            if !go_on() {
                return Ok(false);
            }
            for (idx, step) in chorus.advance().map_err(SpeakError::from)? {
                let Some(one) = saying.get_mut(&idx) else {
                    continue;
                };
                one.hear(&step).map_err(SpeakError::from)?;
                if one.is_over()
                    && let Some((one, left)) = saying.remove(&idx).zip(chorus.leave(idx))
                {
                    let (answer, _) = one.finish(left).map_err(SpeakError::from)?;
                    over.insert(idx, answer);
                }
            }
            while let Some(answer) = over.remove(&n_told) {
                tell(n_told, answer)?;
                n_told += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tinylm_model::{config::ReadPrecision, folder::Which, sampler::Sampling};
    use tinylm_pipeline::StageError;

    use super::{
        super::fixture::{config, write_model},
        *,
    };

    #[test]
    fn answers_made_at_once_are_those_made_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &config());
        let manner = Manner {
            sampling: Sampling {
                temperature: 1.2,
                ..Sampling::default()
            },
            max_tokens: 30,
            stop: vec!["e".to_owned(), "t ".to_owned()],
            ..Manner::default()
        };
        for precision in [ReadPrecision::F32, ReadPrecision::Bf16, ReadPrecision::Int8] {
            let mut speaker = Speaker::open(dir.path(), Which::Best, precision, 2).unwrap();
            let texts = (0..40).map(|idx| "some words ".repeat(1 + idx % 9));
            let prompts = texts.map(|text| speaker.text_prompt(&text));
            let prompts: Vec<Prompt> = prompts.collect::<Result<_, _>>().unwrap();
            let mut all = [Vec::new(), Vec::new()];
            let [together, in_turn] = &mut all;
            let tell = |told: &mut Vec<Answer>, idx, answer| {
                assert_eq!(idx, told.len());
                told.push(answer);
                Ok::<(), StageError>(())
            };
            let done = speaker.answer_all(&prompts, &manner, &|| true, &mut |idx, answer| {
                tell(together, idx, answer)
            });
            assert!(done.unwrap());
            let done = speaker.answer_in_turn(&prompts, &manner, &|| true, &mut |idx, answer| {
                tell(in_turn, idx, answer)
            });
            assert!(done.unwrap());
            assert_eq!(all[0], all[1]);
            let ends = |end| all[0].iter().filter(|answer| answer.end == end).count();
            assert!(ends(End::Stop) > 0 && ends(End::Length) > 0);
        }
    }

    #[test]
    fn who_has_enough_is_told_no_more() {
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &config());
        let mut speaker = Speaker::open(dir.path(), Which::Best, ReadPrecision::F32, 1).unwrap();
        let prompts = vec![speaker.text_prompt("a").unwrap(); 5];
        let n_passes = std::cell::Cell::new(0);
        let go_on = || n_passes.replace(n_passes.get() + 1) < 3;
        let manner = Manner {
            nonstop: true,
            ..Manner::default()
        };
        let told = speaker.answer_all(&prompts, &manner, &go_on, &mut |_, _| {
            panic!("nothing is done after three tokens")
        });
        assert!(!told.map_err(|error: StageError| error.message).unwrap());
        assert_eq!(n_passes.get(), 4);
    }
}
