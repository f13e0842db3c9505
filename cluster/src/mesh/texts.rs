//! Texts that the site shares: rules, windows, schemas, kinds of devices, configuration. One text is one of them, in TOML or JSON. It is
//! judged as the configuration is before it is written, together with what the node's own configuration and the other texts say.

use std::collections::BTreeMap;

use millpond_actors::config::Config;
use millpond_core::{
    admission::Gate,
    expr::Expr,
    problem::SpecProblem,
    rule::{self, RuleSpec},
    schema::{DeviceTypeSpec, SchemaSpec},
    window::WindowSpec,
};
use millpond_gateway::port::{AskError, Json};
use millpond_proto::documents::{Documents, Kind};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{MeshMsg, pen::Reply, state::State};

/// Kinds of texts that the data plane works with, in the order in which they build on each other.
pub(super) const DEFINING: [Kind; 4] = [Kind::Schemas, Kind::DeviceTypes, Kind::Windows, Kind::Rules];

/// What the site says of windows, rules and the like, and what the data plane made of it.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    wanted: bool,
    pub busy: bool,
    /// Heads of the texts that it works with, by kind.
    applied: BTreeMap<String, String>,
    /// Heads of the texts that it last worked with or refused.
    judged: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Definitions {
    /// At a start the texts of earlier lives are to be looked at.
    pub fn at_start() -> Definitions {
        Definitions { wanted: true, ..Definitions::default() }
    }

    pub fn is_settled(&self) -> bool {
        !self.wanted && !self.busy
    }
}

impl State {
    pub(super) fn texts_json(&self, body: &Json) -> Result<Json, AskError> {
        let kind = kind_of(body)?;
        let texts = self.shelf.documents.texts(kind);
        let texts: Vec<Json> = texts.into_iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
        let definitions = self.definitions_json();
        Ok(json!({ "kind": kind.name(), "head": self.head(kind), "texts": texts, "definitions": definitions }))
    }

    pub(super) fn text_json(&self, body: &Json) -> Result<Json, AskError> {
        let (kind, name) = (kind_of(body)?, text_of(body, "name")?);
        let text = self.shelf.documents.text(kind, name);
        let text = text.ok_or_else(|| AskError::NotFound(format!("{} has no text `{name}`", kind.name())))?;
        Ok(json!({ "kind": kind.name(), "name": name, "text": text, "head": self.head(kind) }))
    }

    /// Accepts a text, or says all that is wrong with it.
    pub(super) fn put_text(&mut self, body: &Json, reply: Reply) {
        let checked = || {
            let (kind, name, text) = (kind_of(body)?, text_of(body, "name")?, text_of(body, "text")?);
            check(kind, name, text, &self.config, &self.shelf.documents).map_err(AskError::Invalid)?;
            Ok((kind, name, text))
        };
        let (kind, name, text) = match checked() {
            Ok(checked) => checked,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        let edit = self.shelf.documents.put_text(now, wall_ms, kind, name, text);
        self.edited(
            edit,
            (kind, name),
            |state| json!({ "kind": kind.name(), "name": name, "head": state.head(kind) }),
            reply,
        );
    }

    pub(super) fn remove_text(&mut self, body: &Json, reply: Reply) {
        let found = self.text_json(body).and_then(|_| Ok((kind_of(body)?, text_of(body, "name")?)));
        let (kind, name) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        let edit = self.shelf.documents.remove_text(now, wall_ms, kind, name);
        self.edited(
            edit,
            (kind, name),
            |state| json!({ "kind": kind.name(), "name": name, "head": state.head(kind) }),
            reply,
        );
    }

    /// Texts have changed: the data plane is to work with them.
    pub(super) fn texts_changed(&mut self, kind: Kind) {
        self.definitions.wanted |= DEFINING.contains(&kind);
    }

    /// Works with the newest texts, when it does not already. They were judged where they were accepted, but what several people accepted
    /// apart may not fit together: then the data plane stays as it is, and says why.
    pub(super) fn define(&mut self) {
        if !self.definitions.wanted || self.definitions.busy {
            return;
        }
        // Nothing works here before it is on disk: what it does, such as to raise alerts, is not to outlast a loss of power without it.
        if !DEFINING.iter().all(|kind| self.shelf.documents.are_settled(*kind)) {
            return;
        }
        self.definitions.wanted = false;
        let mut config = (*self.config).clone();
        let mut problems = Vec::new();
        for kind in DEFINING {
            for (name, text) in self.shelf.documents.texts(kind) {
                if let Err(problem) = lay(&mut config, kind, &name, &text) {
                    problems.push(format!("{} {name}: {problem}", kind.name()));
                }
            }
        }
        let now = self.settings.now();
        let wanted = config.settings(now.shards);
        let same = wanted.windows == now.windows
            && wanted.rules == now.rules
            && wanted.schemas == now.schemas
            && wanted.device_types == now.device_types;
        let heads = DEFINING.map(|kind| (kind.name().to_owned(), self.head(kind))).into();
        if same || !problems.is_empty() {
            return self.defined(heads, problems);
        }
        self.definitions.busy = true;
        let (outcome, actor) = ((self.node.reconfigure)(wanted), self.actor.clone());
        self.env.spawn(async move {
            let problems = match outcome.await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err(problems)) => {
                    problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect()
                }
                Err(_) => vec!["the node is going down".to_owned()],
            };
            let _ = actor.cast(MeshMsg::Defined { heads, problems });
        });
    }

    pub(super) fn defined(&mut self, heads: BTreeMap<String, String>, problems: Vec<String>) {
        self.definitions.busy = false;
        self.definitions.judged.clone_from(&heads);
        if problems.is_empty() {
            self.definitions.applied = heads;
        } else {
            tracing::error!(?problems, "the site's definitions do not fit together; the earlier ones stay");
        }
        self.metrics.rejected_definitions.set(problems.len() as i64);
        self.definitions.problems = problems;
        self.doubt_no_more();
    }

    /// Which texts the data plane works with, and why not with the newest.
    pub(super) fn definitions_json(&self) -> Json {
        let newest: BTreeMap<&str, String> = DEFINING.iter().map(|kind| (kind.name(), self.head(*kind))).collect();
        json!({ "applied": self.definitions.applied, "newest": newest, "problems": self.definitions.problems })
    }

    /// Whether the data plane has judged the newest texts, and what was wrong with those that it judged last.
    pub(super) fn definitions_judged(&self) -> (bool, Vec<String>) {
        let judged =
            |kind: &Kind| self.definitions.judged.get(kind.name()).is_some_and(|head| *head == self.head(*kind));
        (self.definitions.is_settled() && DEFINING.iter().all(judged), self.definitions.problems.clone())
    }

    /// The same on every node that knows the same texts.
    fn head(&self, kind: Kind) -> String {
        self.shelf.documents.head(kind).to_string()
    }
}

fn kind_of(body: &Json) -> Result<Kind, AskError> {
    let texts = || Kind::ALL.into_iter().filter(|kind| kind.is_text());
    let name = text_of(body, "kind")?;
    texts().find(|kind| kind.name() == name).ok_or_else(|| {
        let known: Vec<&str> = texts().map(Kind::name).collect();
        AskError::NotFound(format!("there are no texts of the kind `{name}`; the kinds are {}", known.join(", ")))
    })
}

pub(super) fn text_of<'a>(body: &'a Json, key: &str) -> Result<&'a str, AskError> {
    body[key].as_str().ok_or_else(|| AskError::Invalid(format!("`{key}` is missing")))
}

/// What is wrong with a text, with all that the node would work with if it were accepted.
fn check(kind: Kind, name: &str, text: &str, config: &Config, documents: &Documents) -> Result<(), String> {
    let mut all = config.clone();
    for other in DEFINING {
        for (name_of_other, text) in documents.texts(other) {
            // What others have accepted, and this program cannot read, is not this text's fault.
            if (other, name_of_other.as_str()) != (kind, name) {
                let _ = lay(&mut all, other, &name_of_other, &text);
            }
        }
    }
    lay(&mut all, kind, name, text)?;
    let problems = problems(&all, kind, name);
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// A text with its kind and name.
pub(crate) type Named<'a> = (Kind, &'a str, &'a str);

/// What is wrong with texts that come together, beside those of the site that are its own.
pub(super) fn check_all(
    config: &Config,
    documents: &Documents,
    own: impl Fn(Kind, &str, &str) -> bool,
    texts: &[Named<'_>],
) -> Vec<String> {
    let mut all = config.clone();
    for kind in DEFINING {
        for (name, text) in documents.texts(kind).into_iter().filter(|(name, text)| own(kind, name, text)) {
            let _ = lay(&mut all, kind, &name, &text);
        }
    }
    together(all, texts)
}

/// What is wrong with texts that come together, over a configuration.
pub(crate) fn together(mut all: Config, texts: &[Named<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, name, text) in texts {
        if let Err(problem) = lay(&mut all, *kind, name, text) {
            found.push(format!("{} {name}: {problem}", kind.name()));
        }
    }
    if !found.is_empty() {
        return found;
    }
    found.extend(problems(&all, Kind::Rules, ""));
    found.extend(problems(&all, Kind::Schemas, ""));
    for window in &all.windows {
        let of_window = problems(&all, Kind::Windows, &window.name);
        found.extend(of_window.into_iter().map(|problem| format!("windows {}: {problem}", window.name)));
    }
    found.into_iter().map(|problem| by_name(&all, problem)).collect()
}

/// Calls by its name what a problem counts: `rules[3].when` is `rules hot, when`.
fn by_name(config: &Config, problem: String) -> String {
    let named = || {
        let (section, rest) = problem.split_once('[')?;
        let (at, rest) = rest.split_once(']')?;
        let at: usize = at.parse().ok()?;
        let name = match section {
            "rules" => &config.rules.get(at)?.name,
            "schemas" => &config.schemas.get(at)?.name,
            "device_types" => &config.device_types.get(at)?.name,
            _ => return None,
        };
        let rest = rest.strip_prefix('.').map_or(rest.to_owned(), |rest| format!(", {rest}"));
        Some(format!("{section} {name}{rest}"))
    };
    named().unwrap_or_else(|| problem.clone())
}

/// Puts what a text says into a configuration, in the place of what has its name there.
fn lay(config: &mut Config, kind: Kind, name: &str, text: &str) -> Result<(), String> {
    let value = parse(text)?;
    match kind {
        Kind::Rules => place(&mut config.rules, named(value, name)?, |spec: &RuleSpec| &spec.name),
        Kind::Windows => place(&mut config.windows, named(value, name)?, |spec: &WindowSpec| &spec.name),
        Kind::Schemas => place(&mut config.schemas, named(value, name)?, |spec: &SchemaSpec| &spec.name),
        Kind::DeviceTypes => place(&mut config.device_types, named(value, name)?, |spec: &DeviceTypeSpec| &spec.name),
        Kind::Configuration => drop(read::<Config>(value)?),
        Kind::Registry | Kind::Desired => return Err(format!("{} does not hold texts", kind.name())),
    }
    Ok(())
}

fn parse(text: &str) -> Result<Json, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("the text is not JSON: {error}"));
    }
    toml::from_str(text).map_err(|error| format!("the text is not TOML: {error}"))
}

/// The name need not be said in the text, which has it already.
fn named<T: DeserializeOwned>(mut value: Json, name: &str) -> Result<T, String> {
    if let Some(fields) = value.as_object_mut() {
        let said = fields.entry("name").or_insert_with(|| name.into());
        if said != name {
            return Err(format!("the text is called `{name}`, but what it says {said}"));
        }
    }
    read(value)
}

fn read<T: DeserializeOwned>(value: Json) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn place<T>(all: &mut Vec<T>, new: T, name: impl Fn(&T) -> &String) {
    match all.iter().position(|old| name(old) == name(&new)) {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
}

/// Problems of what the text says, and of what it is used for.
fn problems(config: &Config, kind: Kind, name: &str) -> Vec<String> {
    let types: Vec<String> = config.device_types.iter().map(|kind| kind.name.clone()).collect();
    let found: Vec<SpecProblem> = match kind {
        Kind::Rules => rule::problems(&config.rules, &types, &config.windows),
        Kind::Windows => {
            let window = config.windows.iter().find(|window| window.name == name);
            let mut found: Vec<SpecProblem> = window.map(|window| window.problems_with(&types)).unwrap_or_default();
            if let Some(Err(error)) = window.and_then(|window| window.filter.as_deref()).map(Expr::compile) {
                found.push(SpecProblem::new("filter", error.to_string()));
            }
            found
        }
        Kind::Schemas | Kind::DeviceTypes => {
            Gate::new(config.ingest.clone(), config.device_types.clone(), config.schemas.clone())
                .err()
                .unwrap_or_default()
        }
        Kind::Registry | Kind::Desired | Kind::Configuration => Vec::new(),
    };
    found.into_iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect()
}

#[cfg(test)]
mod tests {
    use millpond_core::ids::Origin;

    use super::*;

    fn checked(kind: Kind, name: &str, text: &str) -> Result<(), String> {
        check(kind, name, text, &Config::default(), &Documents::new(Origin([1; 16]), 1, []))
    }

    const RULE: &str = r#"when = { type = "threshold", metric = "temperature", op = ">", value = 90.0 }"#;

    #[test]
    fn a_text_is_judged_as_the_configuration_is() {
        assert_eq!(checked(Kind::Rules, "hot", RULE), Ok(()));
        let json = r#"{"when":{"type":"threshold","metric":"t","op":">","value":1.0}}"#;
        assert_eq!(checked(Kind::Rules, "hot", json), Ok(()));
        for (name, text, said) in [
            ("hot", "when = 5", "invalid type"),
            ("hot", "name = \"cold\"", "called `hot`"),
            ("hot", "when =", "not TOML"),
            ("hot", &format!("{RULE}\nwhne = 1"), "whne"),
            ("not a name!", RULE, "name"),
            ("hot", "when = { type = \"pane\", window = \"none\", value = \"t.mean\", op = \">\", level = 1.0 }", ""),
        ] {
            let refused = checked(Kind::Rules, name, text).expect_err(text);
            assert!(refused.contains(said), "{text}: {refused}");
        }
        assert_eq!(checked(Kind::Windows, "ten", "kind = \"tumbling\"\nsize = \"10s\""), Ok(()));
        assert!(checked(Kind::Windows, "ten", "kind = \"tumbling\"").is_err(), "without a size");
        assert!(
            checked(Kind::DeviceTypes, "press", "devices = [\"press-*\"]\nschema = \"none\"").is_err(),
            "no such schema"
        );
        assert!(checked(Kind::Configuration, "line-1", "mqtt = { lissten = 1 }").is_err());
    }
}
