//! Compares a tree with a JSON schema: unknown keys, missing keys, wrong types, bad values, all of them, each with its place.
//!
//! It knows what schemars makes of our types: references, optional values, lists of words, and variants told apart by one
//! key. Keys that a table leaves out are filled in from the default of the whole table.

use std::net::SocketAddr;

use millpond_core::{problem::did_you_mean, time::Span};
use serde_json::{Map, Value};

use super::{
    problem::{Place, Problem},
    tree::{Entry, Kind, Node, Source, Tree},
};

const NOT_AN_ADDRESS: &str = "not an address: expected IP:PORT, such as 127.0.0.1:1883 or [::]:1883";

pub fn check(schema: &Value, tree: &mut Tree, problems: &mut Vec<Problem>) {
    let mut walk = Walk { definitions: &schema["$defs"], sources: &tree.sources, problems };
    walk.node(schema, &mut tree.root, Key { name: "", place: None }, None);
}

struct Walk<'a> {
    definitions: &'a Value,
    sources: &'a [Source],
    problems: &'a mut Vec<Problem>,
}

/// The key that a value stands under, as a dotted path.
#[derive(Clone, Copy)]
struct Key<'a> {
    name: &'a str,
    place: Option<&'a Place>,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Value, node: &mut Node, key: Key<'_>, default: Option<&Value>) {
        let default = default.or_else(|| schema.get("default"));
        let Some(schema) = plain(self.definitions, schema) else { return };
        if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
            match words(variants) {
                Some(words) => self.word(&words, node, key),
                None => self.variant(variants, node, key),
            }
            return;
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            return self.word(&words, node, key);
        }
        self.as_written(schema, node);
        match (type_name(schema), &mut node.kind) {
            (Some("object"), Kind::Table(_)) => self.table(schema, node, key, default),
            (Some("array"), Kind::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let name = format!("{}[{index}]", key.name);
                    let place = item.place.clone();
                    self.node(&schema["items"], item, Key { name: &name, place: place.as_ref().or(key.place) }, None);
                }
            }
            (Some("string"), Kind::Text(_)) => self.text(schema, node, key),
            (Some("number"), Kind::Integer(_) | Kind::Float(_)) => self.range(schema, node, key),
            (Some("integer"), Kind::Integer(_)) => self.range(schema, node, key),
            (Some("boolean"), Kind::Bool(_)) | (None, _) => {}
            (Some(expected), _) => {
                let expected = with_article(expected, schema.get("format").and_then(Value::as_str));
                let message = format!("`{}` must be {expected}, but is {}", key.name, node.kind_name());
                let hint = (expected == "an array" && matches!(node.kind, Kind::Table(_)))
                    .then(|| format!("write [[{}]] for each entry", key.name));
                self.report("MP0303", message, node.place.as_ref().or(key.place), format!("expected {expected}"), hint);
            }
        }
    }

    /// `--set node.name=7` means the text `7`: what is not quoted there is what the key wants it to be.
    fn as_written(&self, schema: &Value, node: &mut Node) {
        let Some(place) = node.place.as_ref().filter(|place| place.source > 0) else { return };
        if type_name(schema) == Some("string") && matches!(node.kind, Kind::Integer(_) | Kind::Float(_) | Kind::Bool(_))
        {
            node.kind = Kind::Text(self.sources[place.source].text[place.span.clone()].to_owned());
        }
    }

    fn table(&mut self, schema: &Value, node: &mut Node, key: Key<'_>, default: Option<&Value>) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let table_place = node.place.clone();
        let Kind::Table(entries) = &mut node.kind else { return };
        for entry in entries.iter_mut() {
            let name = join(key.name, &entry.key);
            let inner = Key { name: &name, place: entry.key_place.as_ref() };
            if let Some(property) = properties.get(&entry.key) {
                let default = default.and_then(|all| all.get(&entry.key));
                self.node(property, &mut entry.node, inner, default);
            } else {
                match schema.get("additionalProperties") {
                    Some(Value::Bool(false)) => self.unknown(properties, &entry.key, key, &entry.key_place),
                    Some(others @ Value::Object(_)) => self.node(others, &mut entry.node, inner, None),
                    _ => {}
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for missing in required.filter(|name| !entries.iter().any(|entry| entry.key == *name)).collect::<Vec<_>>() {
            match default.and_then(|all| all.get(missing)) {
                Some(value) => {
                    entries.push(Entry { key: missing.to_owned(), key_place: None, node: Node::of_json(value) })
                }
                None => {
                    let within = if key.name.is_empty() { String::new() } else { format!(" in `{}`", key.name) };
                    let hint = properties[missing].get("description").and_then(Value::as_str);
                    self.report(
                        "MP0305",
                        format!("`{missing}` is missing{within}"),
                        table_place.as_ref().or(key.place),
                        format!("needs `{missing}`"),
                        hint.map(|meaning| format!("{missing}: {}", first_line(meaning))),
                    );
                }
            }
        }
    }

    fn unknown(&mut self, known: &Map<String, Value>, name: &str, within: Key<'_>, place: &Option<Place>) {
        let place_text = match within.name {
            "" => "at the top of the file".to_owned(),
            within => format!("in `{within}`"),
        };
        let hint = did_you_mean(name, known.keys().map(String::as_str)).unwrap_or_else(|| {
            let names: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
            format!("known keys are {}", names.join(", "))
        });
        self.report("MP0302", format!("unknown key `{name}` {place_text}"), place.as_ref(), "unknown key", Some(hint));
    }

    fn word(&mut self, words: &[&str], node: &Node, key: Key<'_>) {
        let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        match &node.kind {
            Kind::Text(text) if words.contains(&text.as_str()) => {}
            Kind::Text(text) => {
                let hint = did_you_mean(text, words.iter().copied()).unwrap_or(format!("one of {list}"));
                let message = format!("`{}` cannot be \"{text}\"", key.name);
                self.report("MP0304", message, node.place.as_ref(), format!("expected one of {list}"), Some(hint));
            }
            _ => {
                let message = format!("`{}` must be a string, but is {}", key.name, node.kind_name());
                self.report("MP0303", message, node.place.as_ref(), format!("expected one of {list}"), None);
            }
        }
    }

    /// A table whose variant is named by one of its keys.
    fn variant(&mut self, variants: &[Value], node: &mut Node, key: Key<'_>) {
        let tagged: Vec<(&str, &str, &Value)> = variants
            .iter()
            .filter_map(|variant| {
                let properties = variant.get("properties")?.as_object()?;
                let (tag, word) = properties.iter().find_map(|(tag, p)| Some((tag, p.get("const")?.as_str()?)))?;
                Some((tag.as_str(), word, variant))
            })
            .collect();
        let Some((tag, _, _)) = tagged.first().copied() else { return };
        let words: Vec<&str> = tagged.iter().map(|(_, word, _)| *word).collect();
        if !matches!(node.kind, Kind::Table(_)) {
            let message = format!("`{}` must be a table, but is {}", key.name, node.kind_name());
            let hint = format!("for example {{ {tag} = \"{}\", … }}", words[0]);
            return self.report("MP0303", message, node.place.as_ref().or(key.place), "expected a table", Some(hint));
        }
        let Some(chosen) = node.child(tag) else {
            let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let message = format!("`{tag}` is missing in `{}`", key.name);
            let hint = Some(format!("{tag} is one of {list}"));
            return self.report("MP0305", message, node.place.as_ref().or(key.place), format!("needs `{tag}`"), hint);
        };
        let Kind::Text(word) = &chosen.kind else {
            return self.word(&words, chosen, Key { name: &join(key.name, tag), place: None });
        };
        match tagged.iter().find(|(_, known, _)| known == word) {
            Some((_, _, variant)) => self.table(variant, node, key, None),
            None => self.word(&words, chosen, Key { name: &join(key.name, tag), place: None }),
        }
    }

    fn text(&mut self, schema: &Value, node: &Node, key: Key<'_>) {
        let Kind::Text(text) = &node.kind else { return };
        if let Some(only) = schema.get("const").and_then(Value::as_str) {
            return self.word(&[only], node, key);
        }
        let fault = match schema.get("format").and_then(Value::as_str) {
            Some("duration") => text.parse::<Span>().err().map(|e| e.to_string()),
            Some("address") => text.parse::<SocketAddr>().err().map(|_| NOT_AN_ADDRESS.to_owned()),
            _ => None,
        };
        if let Some(fault) = fault {
            let (what, hint) = fault.split_once(": ").unwrap_or((&fault, ""));
            let message = format!("`{}` is \"{text}\", which is {what}", key.name);
            self.report("MP0304", message, node.place.as_ref(), what, Some(hint.to_owned()));
        }
    }

    fn range(&mut self, schema: &Value, node: &Node, key: Key<'_>) {
        let number = match node.kind {
            Kind::Integer(n) => n as f64,
            Kind::Float(x) => x,
            _ => return,
        };
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (min, max) = (bound("minimum"), bound("maximum"));
        if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
            let label = match (min, max) {
                (Some(min), Some(max)) => format!("expected {min} to {max}"),
                (Some(min), None) => format!("expected {min} or more"),
                (_, max) => format!("expected {} or less", max.unwrap_or_default()),
            };
            self.report("MP0304", format!("`{}` is out of range", key.name), node.place.as_ref(), label, None);
        }
    }

    fn report(
        &mut self,
        code: &'static str,
        message: String,
        place: Option<&Place>,
        label: impl Into<String>,
        hint: Option<String>,
    ) {
        self.problems.push(Problem::error(code, message).at(place.cloned()).label(label).hint(hint));
    }
}

/// Follows references and leaves out `null`, which TOML does not have.
fn plain<'a>(definitions: &'a Value, mut schema: &'a Value) -> Option<&'a Value> {
    loop {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            schema = definitions.get(reference.strip_prefix("#/$defs/")?)?;
        } else if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
            schema = any.iter().find(|one| type_name(one) != Some("null"))?;
        } else {
            return Some(schema);
        }
    }
}

/// The schema's type; of an optional value that of the value.
pub(super) fn type_name(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

/// The words of an enumeration: schemars writes those with a comment as constants, the others as lists.
pub(super) fn words(variants: &[Value]) -> Option<Vec<&str>> {
    let mut words = Vec::new();
    for variant in variants {
        match (variant.get("const"), variant.get("enum")) {
            (Some(word), _) => words.push(word.as_str()?),
            (None, Some(list)) => {
                for word in list.as_array()? {
                    words.push(word.as_str()?);
                }
            }
            (None, None) => return None,
        }
    }
    Some(words)
}

fn with_article(expected: &str, format: Option<&str>) -> &'static str {
    match (expected, format) {
        ("string", Some("duration")) => "a duration such as \"10s\"",
        ("string", Some("address")) => "an address such as \"127.0.0.1:1883\"",
        ("string", _) => "a string",
        ("object", _) => "a table",
        ("array", _) => "an array",
        ("integer", _) => "an integer",
        ("number", _) => "a number",
        _ => "a boolean",
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
