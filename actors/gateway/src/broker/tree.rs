//! Who subscribed to what: a tree of levels. Look-ups take a step per level and wildcard, in an order that is the same in every run.

use std::{collections::BTreeMap, sync::Arc};

use super::session::{Session, SessionKey};
use crate::mqtt::codec::SubscribeOptions;

#[derive(Debug)]
pub(super) struct Subscriber {
    pub session: Arc<Session>,
    pub options: SubscribeOptions,
    /// The identifier the client gave the subscription; 0 when none.
    pub id: u32,
}

/// One level. Wildcards are children like others, under their own signs.
#[derive(Debug, Default)]
pub(super) struct Level {
    children: BTreeMap<Box<str>, Level>,
    subscribers: BTreeMap<SessionKey, Subscriber>,
}

impl Level {
    /// Adds or replaces the subscription of a session; `true` when it is new.
    pub(super) fn insert(&mut self, filter: &str, subscriber: Subscriber) -> bool {
        let mut level = self;
        for name in filter.split('/') {
            if !level.children.contains_key(name) {
                level.children.insert(name.into(), Level::default());
            }
            let Some(child) = level.children.get_mut(name) else { return false };
            level = child;
        }
        level.subscribers.insert(subscriber.session.key, subscriber).is_none()
    }

    /// Removes the subscription of a session, and levels that nobody uses any more; `true` when it was there.
    pub(super) fn remove(&mut self, filter: &str, key: SessionKey) -> bool {
        let (name, rest) = match filter.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (filter, None),
        };
        let Some(child) = self.children.get_mut(name) else { return false };
        let removed = match rest {
            Some(rest) => child.remove(rest, key),
            None => child.subscribers.remove(&key).is_some(),
        };
        if child.children.is_empty() && child.subscribers.is_empty() {
            self.children.remove(name);
        }
        removed
    }

    /// Calls `found` for every subscription that matches `topic`, until it says `false`. A session comes once per subscription.
    pub(super) fn visit<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Subscriber) -> bool) -> bool {
        self.walk(Some(topic), !topic.starts_with('$'), found)
    }

    /// `rest` is what of the topic lies below this level; `None` at its end.
    fn walk<'a>(&'a self, rest: Option<&str>, wild: bool, found: &mut impl FnMut(&'a Subscriber) -> bool) -> bool {
        if wild
            && let Some(all) = self.children.get("#")
            && !all.subscribers.values().all(&mut *found)
        {
            return false;
        }
        let Some(rest) = rest else { return self.subscribers.values().all(found) };
        let (name, below) = match rest.split_once('/') {
            Some((name, below)) => (name, Some(below)),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(name)
            && !child.walk(below, true, found)
        {
            return false;
        }
        match self.children.get("+") {
            Some(any) if wild => any.walk(below, true, found),
            _ => true,
        }
    }
}
