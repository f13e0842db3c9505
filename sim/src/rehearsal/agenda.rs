//! What a rehearsal itself is going to do, in the order of time.

use std::collections::BTreeMap;

use crate::world::core::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// The fault with this number happens.
    Inject(usize),
    /// It is over.
    Undo(usize),
    /// A node is switched on.
    Start(usize),
    Sample,
    /// Devices measure no more, and everything heals.
    Heal,
    /// Nodes are stopped in good order.
    Stop,
    /// Those that have not stopped are killed.
    GiveUp,
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    items: BTreeMap<(Instant, u64), Todo>,
    added: u64,
}

impl Agenda {
    pub fn add(&mut self, at: Instant, todo: Todo) {
        self.items.insert((at, self.added), todo);
        self.added += 1;
    }

    pub fn next(&self) -> Option<Instant> {
        self.items.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn pop(&mut self) -> Option<Todo> {
        self.items.pop_first().map(|(_, todo)| todo)
    }
}
