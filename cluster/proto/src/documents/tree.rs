//! JSON objects as leaves under keys, and back.
//!
//! Every leaf is a register of its own, so that two people who change different fields of a device do not disturb each other. An array is
//! one leaf. When a leaf and something below it were written at once, what is below holds.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::name::{segment, unsegment};

/// Objects inside each other. Nobody who is read as JSON can say more, and what is deeper would use up the stack of whoever drops it.
const DEPTH_MAX: usize = 128;

/// What has to be written so that `patch`, as in RFC 7396, is applied to the leaves at and below `prefix`: (key, JSON or removed).
pub fn merge(
    leaves: &BTreeMap<String, &str>,
    prefix: &str,
    patch: &Map<String, Json>,
) -> Vec<(String, Option<String>)> {
    let mut writes = Vec::new();
    for (name, value) in patch {
        merge_at(leaves, &format!("{prefix}/{}", segment(name)), value, &mut writes);
    }
    writes
}

/// What has to be written so that exactly `whole` is there.
pub fn replace(
    leaves: &BTreeMap<String, &str>,
    prefix: &str,
    whole: &Map<String, Json>,
) -> Vec<(String, Option<String>)> {
    let mut wanted = Vec::new();
    for (name, value) in whole {
        flatten(&format!("{prefix}/{}", segment(name)), value, &mut wanted);
    }
    let kept: BTreeSet<&String> = wanted.iter().map(|(key, _)| key).collect();
    let gone = leaves.keys().filter(|key| key.starts_with(&format!("{prefix}/")) && !kept.contains(key));
    let gone: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
    let new = wanted.into_iter().filter(|(key, json)| leaves.get(key) != Some(&json.as_str()));
    gone.into_iter().chain(new.map(|(key, json)| (key, Some(json)))).collect()
}

/// The object whose leaves these are; keys without the prefix and its `/`. What is deeper than [`DEPTH_MAX`] is left out.
pub fn object<'a>(leaves: impl Iterator<Item = (&'a str, &'a str)>) -> Json {
    let mut root = Json::Object(Map::new());
    let is_deep = |key: &str| key.split('/').nth(DEPTH_MAX).is_some();
    for (key, json) in leaves.filter(|(key, _)| !is_deep(key)) {
        let value: Json = serde_json::from_str(json).unwrap_or(Json::Null);
        let mut at = &mut root;
        for part in key.split('/') {
            if !at.is_object() {
                *at = Json::Object(Map::new());
            }
            at = at.as_object_mut().expect("made one").entry(unsegment(part)).or_insert(Json::Null);
        }
        // Nothing is below it yet: a key sorts before all that begin with it.
        *at = value;
    }
    root
}

fn merge_at(leaves: &BTreeMap<String, &str>, prefix: &str, patch: &Json, writes: &mut Vec<(String, Option<String>)>) {
    let below = format!("{prefix}/");
    let under = || leaves.range(below.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&below));
    match patch {
        Json::Object(fields) => {
            if leaves.get(prefix).is_some_and(|leaf| *leaf != "{}") {
                writes.push((prefix.to_string(), None));
            }
            for (name, value) in fields {
                merge_at(leaves, &format!("{below}{}", segment(name)), value, writes);
            }
            if fields.is_empty() && under().next().is_none() {
                writes.push((prefix.to_string(), Some("{}".to_string())));
            }
        }
        leaf => {
            writes.extend(under().map(|key| (key.clone(), None)));
            let old = leaves.get(prefix).copied();
            match leaf {
                Json::Null if old.is_some() => writes.push((prefix.to_string(), None)),
                Json::Null => {}
                _ if old == Some(leaf.to_string().as_str()) => {}
                _ => writes.push((prefix.to_string(), Some(leaf.to_string()))),
            }
        }
    }
}

fn flatten(key: &str, value: &Json, out: &mut Vec<(String, String)>) {
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(&format!("{key}/{}", segment(name)), value, out);
            }
        }
        leaf => out.push((key.to_string(), leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn applied(leaves: &BTreeMap<String, String>, writes: Vec<(String, Option<String>)>) -> BTreeMap<String, String> {
        let mut leaves = leaves.clone();
        for (key, json) in writes {
            match json {
                Some(json) => leaves.insert(key, json),
                None => leaves.remove(&key),
            };
        }
        leaves
    }

    fn borrowed(leaves: &BTreeMap<String, String>) -> BTreeMap<String, &str> {
        leaves.iter().map(|(key, json)| (key.clone(), json.as_str())).collect()
    }

    fn read(leaves: &BTreeMap<String, String>) -> Json {
        object(leaves.iter().filter_map(|(key, json)| Some((key.strip_prefix("d/1/")?, json.as_str()))))
    }

    /// RFC 7396, section 2.
    fn merge_patch(target: &mut Json, patch: &Json) {
        let Json::Object(fields) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let object = target.as_object_mut().expect("made one");
        for (name, value) in fields {
            if value.is_null() {
                object.remove(name);
            } else {
                merge_patch(object.entry(name).or_insert(Json::Null), value);
            }
        }
    }

    fn tree() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (0..5i64).prop_map(Json::from),
            Just(json!([1]))
        ];
        let nested = leaf.prop_recursive(3, 12, 4, |inner| {
            proptest::collection::btree_map("[ab/~!]{1,2}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect()))
        });
        proptest::collection::btree_map("[abc/~]{1,2}", nested, 0..4)
            .prop_map(|map| Json::Object(map.into_iter().collect()))
    }

    /// Nulls in what is set are dropped by a merge patch, and an object that lost its last leaf is not there any more.
    fn pruned(value: &Json) -> Option<Json> {
        match value {
            Json::Object(fields) => {
                let left: Map<_, _> =
                    fields.iter().filter_map(|(name, value)| Some((name.clone(), pruned(value)?))).collect();
                (!left.is_empty()).then_some(Json::Object(left))
            }
            Json::Null => None,
            other => Some(other.clone()),
        }
    }

    proptest! {
        #[test]
        fn leaves_follow_merge_patches(patches in proptest::collection::vec(tree(), 1..5)) {
            let (mut leaves, mut model) = (BTreeMap::new(), json!({}));
            for patch in patches {
                leaves = applied(&leaves, merge(&borrowed(&leaves), "d/1", patch.as_object().expect("one")));
                merge_patch(&mut model, &patch);
                prop_assert_eq!(pruned(&read(&leaves)), pruned(&model));
            }
        }

        #[test]
        fn what_replaces_is_what_is_read(before in tree(), after in tree()) {
            let leaves = applied(&BTreeMap::new(), replace(&BTreeMap::new(), "d/1", before.as_object().expect("one")));
            prop_assert_eq!(read(&leaves), before);
            let leaves = applied(&leaves, replace(&borrowed(&leaves), "d/1", after.as_object().expect("one")));
            prop_assert_eq!(read(&leaves), after.clone());
            prop_assert!(replace(&borrowed(&leaves), "d/1", after.as_object().expect("one")).is_empty());
        }
    }
}
