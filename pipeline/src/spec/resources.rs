//! What a stage asks of a scheduler, as a file says it: `resources`.

use std::ops::RangeInclusive;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    keys::{RESOURCE_KEYS, names},
    tree::{Data, Node},
};
use crate::resources::{Amount, Resources, Span};

/// Far more machines, or processes on one, than a step of a training can be divided among.
const RANKS_MAX: u32 = 256;

pub(crate) fn resources(stage: &str, node: Option<&Node>, wrong: &mut Diagnostics) -> Resources {
    let Some(node) = node.filter(|node| !node.is_null() && !node.is_broken()) else {
        return Resources::default();
    };
    let Some(map) = node.as_map() else {
        let message = format!("`resources` of stage `{stage}` must be a map");
        wrong.push(Diagnostic::new(message).at(&node.place, format!("this is {}", node.sort())));
        return Resources::default();
    };
    for key in &map.0 {
        if !names(&RESOURCE_KEYS).any(|known| known == key.name) {
            let message = format!(
                "stage `{stage}` asks for a resource `{}` that there is not",
                key.name
            );
            wrong.push(
                Diagnostic::new(message)
                    .at(&key.place, "")
                    .hint(&key.name, names(&RESOURCE_KEYS)),
            );
        }
    }
    let mut given = Given { stage, wrong };
    Resources {
        cpus: given.count(
            "cpus",
            map.get("cpus"),
            1..=u32::MAX,
            "a whole number, at least 1",
        ),
        memory: given.span(
            "memory",
            map.get("memory"),
            "`32G`, or `32G..128G` to be given more after it was not enough",
        ),
        time: given.span(
            "time",
            map.get("time"),
            "`4h`, or `4h..24h` to be given more after it was not enough",
        ),
        gpus: given.count("gpus", map.get("gpus"), 0..=u32::MAX, "a whole number"),
        nodes: given.count("nodes", map.get("nodes"), 1..=RANKS_MAX, "from 1 to 256"),
        ranks: given.count("ranks", map.get("ranks"), 1..=RANKS_MAX, "from 1 to 256"),
    }
}

struct Given<'a> {
    stage: &'a str,
    wrong: &'a mut Diagnostics,
}

impl Given<'_> {
    fn count(
        &mut self,
        name: &str,
        node: Option<&Node>,
        allowed: RangeInclusive<u32>,
        such_as: &str,
    ) -> Option<u32> {
        let number = |node: &Node| match &node.data {
            Data::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            _ => None,
        };
        let number = |node: &Node| number(node).filter(|n| allowed.contains(n));
        self.read(name, node, number, such_as)
    }

    fn span<T: Amount>(
        &mut self,
        name: &str,
        node: Option<&Node>,
        such_as: &str,
    ) -> Option<Span<T>> {
        let span = |node: &Node| match &node.data {
            Data::Text(text) => Span::read(text),
            _ => None,
        };
        self.read(name, node, span, such_as)
    }

    fn read<T>(
        &mut self,
        name: &str,
        node: Option<&Node>,
        read: impl Fn(&Node) -> Option<T>,
        such_as: &str,
    ) -> Option<T> {
        let node = node.filter(|node| !node.is_null() && !node.is_broken())?;
        let found = read(node);
        if found.is_none() {
            let message = format!(
                "`resources.{name}` of stage `{}` cannot be read",
                self.stage
            );
            self.wrong.push(
                Diagnostic::new(message)
                    .at(&node.place, "")
                    .help(format!("write {such_as}")),
            );
        }
        found
    }
}
