//! Which topics a login may use.

use super::settings::{Role, UserSettings};

#[derive(Debug)]
pub(super) struct Grants {
    publish: Vec<Box<str>>,
    subscribe: Vec<Box<str>>,
}

impl Grants {
    pub(super) fn everything() -> Grants {
        Grants { publish: vec!["#".into()], subscribe: vec!["#".into()] }
    }

    pub(super) fn of(user: &UserSettings) -> Grants {
        let (publish, subscribe): (&[&str], &[&str]) = match user.role {
            // Topics know no tenants.
            _ if user.tenant.is_some() => (&[], &[]),
            Role::Device => (&["devices/%u/#"], &["devices/%u/#"]),
            Role::Operator => (&[], &["#"]),
            Role::Admin => (&["#"], &["#"]),
        };
        let or = |given: &Option<Vec<String>>, default: &[&str]| match given {
            Some(patterns) => patterns.iter().map(|pattern| pattern.as_str().into()).collect(),
            None => default.iter().map(|pattern| (*pattern).into()).collect(),
        };
        Grants { publish: or(&user.publish, publish), subscribe: or(&user.subscribe, subscribe) }
    }

    pub(super) fn publish(&self, client_id: &str, user: &str, topic: &str) -> bool {
        self.publish.iter().any(|pattern| covers(pattern, client_id, user, topic))
    }

    pub(super) fn subscribe(&self, client_id: &str, user: &str, filter: &str) -> bool {
        self.subscribe.iter().any(|pattern| covers(pattern, client_id, user, filter))
    }
}

/// Whether every topic that `filter` (or a plain topic) matches is matched by `pattern`.
fn covers(pattern: &str, client_id: &str, user: &str, filter: &str) -> bool {
    let mut levels = filter.split('/');
    for wanted in pattern.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(level)) if level != "#" => {}
            (wanted, Some(level)) if is_level(wanted, client_id, user, level) => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether `level` is what `wanted` says with the names filled in. A name that looks like a wildcard or holds a slash fits nothing.
fn is_level(wanted: &str, client_id: &str, user: &str, level: &str) -> bool {
    let Some(at) = wanted.find('%') else { return wanted == level };
    let (before, after) = wanted.split_at(at);
    let Some(rest) = level.strip_prefix(before) else { return false };
    let (name, after) = match after.as_bytes().get(1) {
        Some(b'c') => (client_id, &after[2..]),
        Some(b'u') => (user, &after[2..]),
        _ => return rest.strip_prefix('%').is_some_and(|rest| is_level(&after[1..], client_id, user, rest)),
    };
    if name.is_empty() || name.contains(['+', '#', '/']) {
        return false;
    }
    rest.strip_prefix(name).is_some_and(|rest| is_level(after, client_id, user, rest))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns_cover_topics_and_narrower_filters() {
        let check = |pattern: &str, filter: &str, expected: bool| {
            assert_eq!(covers(pattern, "press-1", "line", filter), expected, "{pattern} {filter}");
        };
        check("#", "anything/at/all", true);
        check("#", "a/#", true);
        check("devices/%c/#", "devices/press-1/telemetry", true);
        check("devices/%c/#", "devices/press-1/#", true);
        check("devices/%c/#", "devices/press-1", true);
        check("devices/%c/#", "devices/press-2/telemetry", false);
        check("devices/%c/#", "devices/+/telemetry", false);
        check("devices/%c/#", "#", false);
        check("devices/+/telemetry", "devices/press-2/telemetry", true);
        check("devices/+/telemetry", "devices/+/telemetry", true);
        check("devices/+/telemetry", "devices/#", false);
        check("%u-%c/x", "line-press-1/x", true);
        check("%u-%c/x", "line-press-2/x", false);
        check("100%/x", "100%/x", true);
        check("a", "a/b", false);
        check("a/b", "a", false);
    }

    #[test]
    fn a_client_named_like_a_wildcard_gets_nothing() {
        for name in ["+", "#", "a/b", ""] {
            assert!(!covers("devices/%c/#", name, "u", &format!("devices/{name}/telemetry")), "{name}");
            assert!(!covers("devices/%c/#", name, "u", "devices/+/telemetry"), "{name}");
        }
    }
}
