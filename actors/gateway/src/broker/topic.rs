//! Topics and filters as text.

use millpond_core::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// Whether a message may be published on `topic`: not empty, no wildcards, within the bounds.
pub fn is_topic(topic: &str) -> bool {
    is_bounded(topic) && !topic.contains(['+', '#', '\0'])
}

/// Whether one may subscribe to `filter`: wildcards stand alone in their level, `#` only in the last.
pub fn is_filter(filter: &str) -> bool {
    if !is_bounded(filter) || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if (level.contains('#') && (level != "#" || levels.peek().is_some())) || (level.contains('+') && level != "+") {
            return false;
        }
    }
    true
}

/// Whether `filter` matches `topic`. Wildcards in the first level do not match topics that begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The part of `filter` before its first wildcard: every topic that it matches begins with it, but for the slash at its end (`a/#`
/// matches `a`).
pub(super) fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = &filter[..end];
    if filter[end..].starts_with('#') { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix }
}

fn is_bounded(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_BYTES_MAX
        && text.bytes().filter(|byte| *byte == b'/').count() < TOPIC_LEVELS_MAX
}
