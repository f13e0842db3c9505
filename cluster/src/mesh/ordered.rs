//! What a cloud wants the site to run: texts of the site like any other, but that their first line says which cloud gave them.
//!
//! By that line every node knows what an order may remove, also one that was not there when the text came, and so does whoever reads the
//! texts. A text that somebody of the site writes under such a name has no such line and is the site's own, until the order is written again.

use std::collections::BTreeMap;

use millpond_gateway::port::AskError;
use millpond_proto::{
    documents::{Documents, Kind},
    uplink::orders::Order,
};
use serde_json::json;

use super::{
    documents::told,
    pen::Reply,
    state::State,
    texts::{DEFINING, Named, check_all},
};

/// How the site stands with an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ordered {
    /// The texts of the site are those of the order.
    pub in_place: bool,
    /// The data plane works with the texts of the site, or has said why not.
    pub settled: bool,
    pub problems: Vec<String>,
}

fn mark(cloud: &str) -> String {
    format!("# from the cloud {cloud}\n")
}

/// Where the texts of an order go, and what they are there.
fn places(cloud: &str, order: &Order) -> BTreeMap<(Kind, String), String> {
    let mark = mark(cloud);
    let place = |text: &millpond_proto::uplink::orders::Text| {
        let kind = DEFINING.into_iter().find(|kind| kind.name() == text.kind)?;
        Some(((kind, text.name.clone()), format!("{mark}{}", text.text)))
    };
    order.texts.iter().filter_map(place).collect()
}

/// What is given by a cloud, and is not part of its order any more.
fn outdated(documents: &Documents, cloud: &str, places: &BTreeMap<(Kind, String), String>) -> Vec<(Kind, String)> {
    let mark = mark(cloud);
    let of_kind = |kind: Kind| {
        let given = documents.texts(kind).into_iter().filter(|(_, text)| text.starts_with(&mark));
        given.map(move |(name, _)| (kind, name)).collect::<Vec<_>>()
    };
    let all = DEFINING.into_iter().rev().flat_map(of_kind);
    all.filter(|place| !places.contains_key(place)).collect()
}

impl State {
    pub(super) fn ordered(&self, cloud: &str, order: &Order) -> Ordered {
        let (documents, places) = (&self.shelf.documents, places(cloud, order));
        let is_there = |((kind, name), text): (&(Kind, String), &String)| {
            documents.text(*kind, name).is_some_and(|there| there == *text)
        };
        let in_place = places.iter().all(is_there) && outdated(documents, cloud, &places).is_empty();
        let (settled, problems) = self.definitions_judged();
        Ordered { in_place, settled, problems: if settled { problems } else { Vec::new() } }
    }

    /// Writes all texts of an order that are not there, when the site can work with them. The answer names texts of the site itself that they
    /// have taken the place of.
    pub(super) fn obey(&mut self, cloud: &str, order: &Order, reply: Reply) {
        let (places, mark) = (places(cloud, order), mark(cloud));
        let named: Vec<Named<'_>> =
            places.iter().map(|((kind, name), text)| (*kind, name.as_str(), text.as_str())).collect();
        let documents = &self.shelf.documents;
        let own = |kind: Kind, name: &str, text: &str| {
            !text.starts_with(&mark) && !places.contains_key(&(kind, name.to_owned()))
        };
        let problems = check_all(&self.config, documents, own, &named);
        if !problems.is_empty() {
            let _ = reply.send(Err(AskError::Invalid(problems.join("\n"))));
            return;
        }
        let outdated = outdated(documents, cloud, &places);
        let differs = |((kind, name), text): &(&(Kind, String), &String)| {
            documents.text(*kind, name).is_none_or(|there| there != **text)
        };
        let wanted: Vec<((Kind, String), String)> =
            places.iter().filter(differs).map(|(place, text)| (place.clone(), text.clone())).collect();
        let mut replaced: Vec<String> = Vec::new();
        for ((kind, name), _) in &wanted {
            let there = documents.text(*kind, name);
            if there.is_some_and(|there| !there.starts_with(&mark)) || self.is_configured(*kind, name) {
                replaced.push(format!("{} {name}", kind.name()));
            }
        }
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        let mut edited: Vec<(Kind, String)> = Vec::new();
        for ((kind, name), text) in wanted {
            if let Err(refused) = self.shelf.documents.put_text(now, wall_ms, kind, &name, &text) {
                let _ = reply.send(Err(told(&refused)));
                return;
            }
            edited.push((kind, name));
        }
        for (kind, name) in outdated {
            if self.shelf.documents.remove_text(now, wall_ms, kind, &name).is_ok() {
                edited.push((kind, name));
            }
        }
        tracing::info!(
            cloud,
            head = order.head,
            number = order.number,
            texts = edited.len(),
            "what the cloud orders is written"
        );
        self.edited_all(edited, json!({ "replaced": replaced }), reply);
    }

    /// Whether the configuration of this node says something under the name.
    fn is_configured(&self, kind: Kind, name: &str) -> bool {
        let config = &self.config;
        match kind {
            Kind::Rules => config.rules.iter().any(|spec| spec.name == name),
            Kind::Windows => config.windows.iter().any(|spec| spec.name == name),
            Kind::Schemas => config.schemas.iter().any(|spec| spec.name == name),
            Kind::DeviceTypes => config.device_types.iter().any(|spec| spec.name == name),
            Kind::Registry | Kind::Desired | Kind::Configuration => false,
        }
    }
}
