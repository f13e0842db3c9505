//! TOML as a tree in which every key and value knows where it was written.

use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::{Place, Problem};

/// A text that a part of the configuration came from: the file, or one `--set`.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

#[derive(Debug)]
pub struct Tree {
    /// The file is the first.
    pub sources: Vec<Source>,
    pub root: Node,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// `None` for what was filled in from defaults.
    pub place: Option<Place>,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Table(Vec<Entry>),
    Array(Vec<Node>),
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_place: Option<Place>,
    pub node: Node,
}

impl Tree {
    /// Parses the file.
    pub fn new(file: Source, problems: &mut Vec<Problem>) -> Tree {
        let mut tree = Tree { sources: Vec::new(), root: Node { place: None, kind: Kind::Table(Vec::new()) } };
        tree.lay(file, &[], problems);
        tree
    }

    /// Lays what another text holds under the keys `within` (numbers, in arrays) over the tree: tables key by key, other values
    /// in the place of those that are there.
    pub fn lay(&mut self, file: Source, within: &[String], problems: &mut Vec<Problem>) {
        let source = self.sources.len();
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        for error in &errors {
            let place = error.span().map(|span| Place { source, span });
            problems.push(Problem::error("MP0301", format!("this is not TOML: {}", error.message())).at(place));
        }
        let mut reading = Reading { source, offset: 0, text: &file.text, problems };
        let whole = Node { place: None, kind: reading.table(table.get_ref()) };
        let part = within.iter().try_fold(&whole, |node, key| match &node.kind {
            Kind::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => node.child(key),
        });
        if let Some(part) = part {
            self.root.lay(part.clone());
        }
        self.sources.push(file);
    }

    /// Puts what another text holds beside what is there: arrays go on, other values take the place of those that are there.
    pub fn gather(&mut self, file: Source, problems: &mut Vec<Problem>) {
        let mut other =
            Tree { sources: self.sources.clone(), root: Node { place: None, kind: Kind::Table(Vec::new()) } };
        other.lay(file, &[], problems);
        self.sources = other.sources;
        let (Kind::Table(entries), Kind::Table(more)) = (&mut self.root.kind, other.root.kind) else { return };
        for entry in more {
            match entries.iter_mut().find(|known| known.key == entry.key).map(|known| &mut known.node) {
                Some(Node { kind: Kind::Array(items), .. }) if matches!(entry.node.kind, Kind::Array(_)) => {
                    if let Kind::Array(more) = entry.node.kind {
                        items.extend(more);
                    }
                }
                Some(known) => known.lay(entry.node),
                None => entries.push(entry),
            }
        }
    }

    /// Lays `key.path=value` over the tree. The value is read as TOML; what is not TOML is taken as text.
    pub fn set(&mut self, argument: &str, problems: &mut Vec<Problem>) {
        let source = self.sources.len();
        self.sources.push(Source { name: "--set".to_owned(), text: argument.to_owned() });
        let whole = Some(Place { source, span: 0..argument.len() });
        let bad = |message: &str| {
            Problem::error("MP0309", message)
                .at(whole.clone())
                .hint(Some("write --set section.key=value, for example --set mqtt.listen=127.0.0.1:1883".to_owned()))
        };
        let Some((key, value)) = argument.split_once('=') else {
            return problems.push(bad("no `=` in --set"));
        };
        let Some(path) = key_path(key) else {
            return problems.push(bad("the key of --set is not a TOML key"));
        };
        let offset = key.len() + 1;
        let node = match DeValue::parse(value) {
            Ok(parsed) => Reading { source, offset, text: value, problems }.node(parsed.span(), parsed.get_ref()),
            Err(_) => {
                Node { place: Some(Place { source, span: offset..argument.len() }), kind: Kind::Text(value.to_owned()) }
            }
        };
        let key_place = Place { source, span: 0..key.len() };
        if let Err(message) = self.root.put(&path, node, &key_place) {
            problems.push(bad(&message));
        }
    }

    /// Where a dotted key (`rules[2].when.metric`) was written, or the nearest thing around it.
    pub fn find(&self, dotted: &str) -> Option<Place> {
        let mut node = &self.root;
        let mut place = None;
        let mut rest = dotted;
        while !rest.is_empty() {
            let next = match (&node.kind, rest.strip_prefix('[')) {
                (Kind::Array(items), Some(indexed)) => indexed.split_once(']').and_then(|(index, after)| {
                    let item = items.get(index.parse::<usize>().ok()?)?;
                    Some((item, item.place.clone(), after))
                }),
                // Keys may hold dots themselves: the longest key that fits is meant.
                (Kind::Table(entries), _) => entries
                    .iter()
                    .filter_map(|entry| Some((entry, rest.strip_prefix(entry.key.as_str())?)))
                    .filter(|(_, after)| after.is_empty() || after.starts_with(['.', '[']))
                    .max_by_key(|(entry, _)| entry.key.len())
                    .map(|(entry, after)| {
                        let is_scalar = !matches!(entry.node.kind, Kind::Table(_) | Kind::Array(_));
                        let at = if is_scalar { entry.node.place.clone() } else { entry.key_place.clone() };
                        (&entry.node, at, after)
                    }),
                _ => None,
            };
            let Some((inner, at, after)) = next else { break };
            place = at.or(place);
            node = inner;
            rest = after.strip_prefix('.').unwrap_or(after);
        }
        place
    }
}

impl Node {
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Table(entries) => entries,
            _ => &[],
        }
    }

    pub fn child(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// What it is, with an article.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Table(_) => "a table",
            Kind::Array(_) => "an array",
            Kind::Text(_) => "a string",
            Kind::Integer(_) => "an integer",
            Kind::Float(_) => "a number",
            Kind::Bool(_) => "a boolean",
        }
    }

    pub fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Table(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Kind::Array(items) => items.iter().map(Node::to_json).collect(),
            Kind::Text(text) => text.as_str().into(),
            Kind::Integer(n) => (*n).into(),
            Kind::Float(x) => (*x).into(),
            Kind::Bool(b) => (*b).into(),
        }
    }

    /// A tree that was written nowhere; `null`s are left out.
    pub fn of_json(json: &serde_json::Value) -> Node {
        let kind = match json {
            serde_json::Value::Object(map) => Kind::Table(
                map.iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| Entry { key: key.clone(), key_place: None, node: Node::of_json(value) })
                    .collect(),
            ),
            serde_json::Value::Array(items) => Kind::Array(items.iter().map(Node::of_json).collect()),
            serde_json::Value::String(text) => Kind::Text(text.clone()),
            serde_json::Value::Bool(b) => Kind::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(n) => Kind::Integer(n),
                None => Kind::Float(n.as_f64().unwrap_or_default()),
            },
            serde_json::Value::Null => Kind::Table(Vec::new()),
        };
        Node { place: None, kind }
    }

    fn lay(&mut self, over: Node) {
        match (&mut self.kind, over.kind) {
            (Kind::Table(entries), Kind::Table(more)) => {
                for entry in more {
                    match entries.iter_mut().find(|known| known.key == entry.key) {
                        Some(known) => {
                            known.key_place = entry.key_place;
                            known.node.lay(entry.node);
                        }
                        None => entries.push(entry),
                    }
                }
            }
            (kind, other) => {
                *kind = other;
                self.place = over.place;
            }
        }
    }

    fn put(&mut self, path: &[String], node: Node, key_place: &Place) -> Result<(), String> {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return Ok(());
        };
        match &mut self.kind {
            Kind::Table(entries) => {
                if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                    if rest.is_empty() {
                        entry.key_place = Some(key_place.clone());
                    }
                    return entry.node.put(rest, node, key_place);
                }
                let mut created = Node { place: Some(key_place.clone()), kind: Kind::Table(Vec::new()) };
                created.put(rest, node, key_place)?;
                entries.push(Entry { key: key.clone(), key_place: Some(key_place.clone()), node: created });
                Ok(())
            }
            Kind::Array(items) => {
                let many = items.len();
                match key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                    Some(item) => item.put(rest, node, key_place),
                    None => Err(format!("`{key}` is none of the {many} entries, which count from 0")),
                }
            }
            _ => Err(format!("`{key}` would lie inside a value that is not a table")),
        }
    }
}

/// Turns one text's TOML into nodes. `offset` is where `text` begins in its source.
struct Reading<'a> {
    source: usize,
    offset: usize,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Reading<'_> {
    fn place(&self, span: Range<usize>) -> Option<Place> {
        Some(Place { source: self.source, span: span.start + self.offset..span.end + self.offset })
    }

    fn table(&mut self, table: &DeTable<'_>) -> Kind {
        let mut entries = Vec::new();
        for (key, value) in table.iter() {
            let key_place = self.place(key.span());
            let node = self.node(value.span(), value.get_ref());
            entries.push(Entry { key: key.get_ref().to_string(), key_place, node });
        }
        Kind::Table(entries)
    }

    fn node(&mut self, span: Range<usize>, value: &DeValue<'_>) -> Node {
        let place = self.place(span.clone());
        let kind = match value {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Boolean(b) => Kind::Bool(*b),
            DeValue::Array(items) => {
                Kind::Array(items.iter().map(|item| self.node(item.span(), item.get_ref())).collect())
            }
            DeValue::Table(table) => self.table(table),
            // No key takes a date: its text is compared with what is expected, and refused with the same words.
            DeValue::Datetime(_) => Kind::Text(self.text[span].to_owned()),
            DeValue::Integer(n) => match integer(n) {
                Some(n) => Kind::Integer(n),
                None => self.number(&place, None),
            },
            DeValue::Float(x) => {
                let number = x.as_str().parse().ok().filter(|x: &f64| x.is_finite());
                self.number(&place, number)
            }
        };
        Node { place, kind }
    }

    fn number(&mut self, place: &Option<Place>, number: Option<f64>) -> Kind {
        if number.is_none() {
            self.problems.push(
                Problem::error("MP0304", "a number that cannot be used")
                    .at(place.clone())
                    .label("too large, or not a number"),
            );
        }
        Kind::Float(number.unwrap_or_default())
    }
}

fn integer(n: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(n.as_str(), n.radix()).ok()
}

/// Reads `a.b."c.d"`.
fn key_path(key: &str) -> Option<Vec<String>> {
    let text = format!("{key}=0");
    let table = DeTable::parse(&text).ok()?;
    let mut path = Vec::new();
    let mut table = table.get_ref();
    loop {
        let (key, value) = table.iter().next()?;
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}
