//! Questions that wait for a place: requests take turns, so that one with a thousand prompts does not
//! keep all others waiting.

use std::collections::VecDeque;

use super::told::Ask;

#[derive(Default)]
pub(super) struct Queue {
    requests: VecDeque<(u64, VecDeque<Ask>)>,
    n: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.n
    }

    pub(super) fn push(&mut self, ask: Ask) {
        self.n += 1;
        let mut known = self.requests.iter_mut().rev();
        match known.find(|(request, _)| *request == ask.request) {
            Some((_, asks)) => asks.push_back(ask),
            None => self.requests.push_back((ask.request, [ask].into())),
        }
    }

    /// The next question of the request whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Ask> {
        let (request, mut asks) = self.requests.pop_front()?;
        let ask = asks.pop_front()?;
        self.n -= 1;
        if !asks.is_empty() {
            self.requests.push_back((request, asks));
        }
        Some(ask)
    }

    /// Lets go of what nobody waits for any more.
    pub(super) fn forget_gone(&mut self) {
        for (_, asks) in &mut self.requests {
            // A client leaves with all its questions, so that one tells of the others.
            if asks.front().is_some_and(|ask| ask.reply.is_closed()) {
                asks.retain(|ask| !ask.reply.is_closed());
            }
        }
        self.requests.retain(|(_, asks)| !asks.is_empty());
        self.n = self.requests.iter().map(|(_, asks)| asks.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::{
        super::{told::Told, wish::tests::greedy},
        *,
    };

    fn ask(request: u64, id: u16) -> (Ask, UnboundedReceiver<Told>) {
        let (reply, told) = unbounded_channel();
        let ask = Ask {
            request,
            prompt: [id].into(),
            wish: greedy(),
            reply,
        };
        (ask, told)
    }

    fn order(queue: &mut Queue) -> Vec<u16> {
        std::iter::from_fn(|| queue.pop())
            .map(|ask| ask.prompt[0])
            .collect()
    }

    #[test]
    fn requests_take_turns_and_each_keeps_its_order() {
        let mut queue = Queue::default();
        let asked = [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)];
        let (asks, _told): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .map(|(request, id)| ask(request, id))
            .unzip();
        asks.into_iter().for_each(|ask| queue.push(ask));
        assert_eq!(queue.len(), 6);
        assert_eq!(order(&mut queue), [10, 20, 30, 11, 21, 12]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_nobody_waits_for_leaves_the_queue_wherever_it_stands() {
        let mut queue = Queue::default();
        let (first, _told) = ask(1, 10);
        let (gone, told) = ask(2, 20);
        [first, gone].into_iter().for_each(|ask| queue.push(ask));
        drop(told);
        queue.forget_gone();
        assert_eq!(queue.len(), 1);
        assert_eq!(order(&mut queue), [10]);
    }
}
