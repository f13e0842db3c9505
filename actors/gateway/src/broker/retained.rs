//! The last message of each topic that was published to be kept.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use millpond_core::limits::{MQTT_RETAINED_BYTES_MAX, MQTT_RETAINED_MAX};
use millpond_env::Mono;

use super::{Message, topic};

#[derive(Debug, Default)]
pub(super) struct Retained {
    /// With the number of the change that put the message here.
    messages: BTreeMap<Arc<str>, (u64, Arc<Message>)>,
    bytes: usize,
    changes: u64,
}

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Counts what was put and removed so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a message of `bytes` on `topic` would be kept.
    pub(super) fn has_room(&self, topic: &str, bytes: usize) -> bool {
        let (known, freed) = match self.messages.get(topic) {
            Some((_, old)) => (true, old.weight()),
            None => (false, 0),
        };
        (known || self.messages.len() < MQTT_RETAINED_MAX)
            && self.bytes - freed + topic.len() + bytes <= MQTT_RETAINED_BYTES_MAX
    }

    /// Keeps the message in the place of the one before; an empty one only removes it. `false` when there is no room.
    pub(super) fn put(&mut self, message: Arc<Message>) -> bool {
        if !message.payload.is_empty() && !self.has_room(&message.topic, message.payload.len()) {
            return false;
        }
        self.changes += 1;
        if let Some((_, old)) = self.messages.remove(&message.topic) {
            self.bytes -= old.weight();
        }
        if !message.payload.is_empty() {
            self.bytes += message.weight();
            self.messages.insert(message.topic.clone(), (self.changes, message));
        }
        true
    }

    /// At most `limit` messages that match `filter`, by topic, from after `after` on; and the topic to go on from when there may be
    /// more. Messages of changes after `until` are left out: who subscribed before them got them as they were published. Looks at no more
    /// than 16 × `limit` topics a time.
    pub(super) fn page(
        &self,
        filter: &str,
        after: Option<&Arc<str>>,
        until: u64,
        limit: usize,
        now: Mono,
    ) -> (Vec<Arc<Message>>, Option<Arc<str>>) {
        let prefix = topic::literal_prefix(filter);
        let start = match after {
            Some(after) => Bound::Excluded(after.as_ref()),
            None => Bound::Included(prefix),
        };
        let (mut page, mut seen) = (Vec::new(), 0);
        for (topic, (change, message)) in self.messages.range::<str, _>((start, Bound::Unbounded)) {
            if !topic.starts_with(prefix) {
                break;
            }
            if *change <= until && topic::matches(filter, topic) && !message.is_expired(now) {
                page.push(message.clone());
            }
            seen += 1;
            if page.len() == limit || seen == limit * 16 {
                return (page, Some(topic.clone()));
            }
        }
        (page, None)
    }
}
