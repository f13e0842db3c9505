//! What only the whole configuration can tell: names that are used twice or not at all, doors that stand open, numbers that
//! contradict each other. What concerns events, windows, rules and users is judged by those who will work with it.

use std::{collections::BTreeMap, net::SocketAddr};

use millpond_actors::{
    config::SinkKind,
    settings::{Ack, ClassRetention, SiteSettings},
};
use millpond_core::{
    admission::Gate,
    expr::Expr,
    problem::{SpecProblem, is_name},
    rule,
    time::Span,
};

use millpond_env::Env;
use millpond_gateway::auth::Auth;

use super::{Config, Problem, tree::Tree};

pub fn check(env: &Env, config: &Config, tree: &Tree, problems: &mut Vec<Problem>) {
    let mut found = Vec::new();
    node(config, &mut found);
    store(config, &mut found);
    retention(config, &mut found);
    webhooks(config, &mut found);
    site(config, &mut found);
    cloud(config, &mut found);
    found.extend(config.mqtt.problems());
    found.extend(config.http.problems());
    found.extend(config.alerts.problems());
    found.extend(Auth::new(env, &config.auth, Vec::new()).err().unwrap_or_default());
    types_and_schemas(config, &mut found);
    windows(config, &mut found);
    found.extend(rule::problems(&config.rules, &type_names(config), &config.windows));
    problems.extend(found.into_iter().map(|problem| placed(problem, tree)));
    doors(config, tree, problems);
}

/// Finds where the thing was written that a specification's problem is about.
pub fn placed(problem: SpecProblem, tree: &Tree) -> Problem {
    let place = tree.find(&problem.place);
    let message = format!("`{}`: {}", problem.place, problem.message);
    Problem::error("MP0306", message).at(place).hint(problem.hint)
}

fn type_names(config: &Config) -> Vec<String> {
    config.device_types.iter().map(|device_type| device_type.name.clone()).collect()
}

fn types_and_schemas(config: &Config, found: &mut Vec<SpecProblem>) {
    let gate = Gate::new(config.ingest.clone(), config.device_types.clone(), config.schemas.clone());
    found.extend(gate.err().unwrap_or_default());
}

fn windows(config: &Config, found: &mut Vec<SpecProblem>) {
    let types = type_names(config);
    for (at, window) in config.windows.iter().enumerate() {
        let place = |field: &str| format!("windows[{at}].{field}");
        for problem in window.problems_with(&types) {
            found.push(SpecProblem { place: place(&problem.place), ..problem });
        }
        if let Some(first) = config.windows[..at].iter().position(|other| other.name == window.name) {
            found.push(SpecProblem::new(
                place("name"),
                format!("`{}` is the name of windows[{first}] already", window.name),
            ));
        }
        if let Some(Err(error)) = window.filter.as_deref().map(Expr::compile) {
            found.push(SpecProblem::new(place("filter"), error.to_string()));
        }
    }
}

fn node(config: &Config, found: &mut Vec<SpecProblem>) {
    if !is_name(&config.node.name) {
        let message = format!("\"{}\" cannot name a node", config.node.name);
        found.push(SpecProblem::new("node.name", message).hint("1 to 64 letters, digits, `-` and `_`"));
    }
    if config.node.data.as_os_str().is_empty() {
        found
            .push(SpecProblem::new("node.data", "a directory must be named").hint("for example \"/var/lib/millpond\""));
    }
    if config.mqtt.listen == config.http.listen && config.http.listen.port() != 0 {
        let message = "MQTT and HTTP cannot share an address";
        found.push(SpecProblem::new("http.listen", message).hint("give one of them another port"));
    }
}

fn store(config: &Config, found: &mut Vec<SpecProblem>) {
    let store = &config.store;
    let (mib, gib) = (1 << 20, 1 << 30);
    if !(mib..=gib).contains(&store.cache_bytes) {
        found.push(SpecProblem::new("store.cache_bytes", "must be from 1048576 (1 MiB) to 1073741824 (1 GiB)"));
    }
    span("store.linger", store.linger, Span::ZERO, Span::from_secs(1), found);
    span("checkpoint.every", config.checkpoint.every, Span::from_secs(1), Span::from_secs(3600), found);
    if config.checkpoint.after_bytes < mib {
        found.push(SpecProblem::new("checkpoint.after_bytes", "must be at least 1048576 (1 MiB)"));
    }
}

fn span(place: &str, value: Span, least: Span, most: Span, found: &mut Vec<SpecProblem>) {
    if value < least || value > most {
        found.push(SpecProblem::new(place, format!("{value} is out of range")).hint(format!("from {least} to {most}")));
    }
}

fn retention(config: &Config, found: &mut Vec<SpecProblem>) {
    let all = &config.retention;
    for (name, class) in [("alert", all.alert), ("state", all.state), ("pane", all.pane), ("raw", all.raw)] {
        let ClassRetention { max_bytes, max_age, floor_bytes } = class;
        let place = |field: &str| format!("retention.{name}.{field}");
        if max_bytes < 1 << 20 {
            found.push(SpecProblem::new(place("max_bytes"), "must be at least 1048576 (1 MiB)"));
        }
        if floor_bytes > max_bytes {
            let message = format!("the floor of {floor_bytes} bytes is above max_bytes, {max_bytes}");
            found.push(SpecProblem::new(place("floor_bytes"), message));
        }
        if max_age < Span::from_secs(60) {
            found.push(SpecProblem::new(place("max_age"), format!("{max_age} is too short")).hint("1m or more"));
        }
    }
}

fn site(config: &Config, found: &mut Vec<SpecProblem>) {
    let site = &config.site;
    if let Some(advertise) = &site.advertise {
        let reached =
            advertise.parse::<SocketAddr>().ok().filter(|addr| !addr.ip().is_unspecified() && addr.port() != 0);
        if reached.is_none() {
            let message = format!("\"{advertise}\" is not where others could reach this node");
            found.push(
                SpecProblem::new("site.advertise", message)
                    .hint("an IP address and a port, for example \"10.0.0.5:7800\""),
            );
        }
    }
    for (at, seed) in site.seeds.iter().enumerate().filter(|(_, seed)| *seed != SiteSettings::MDNS) {
        let parts = seed.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if parts.is_none_or(|(_, port)| port.parse::<u16>().map_or(true, |port| port == 0)) {
            let message = format!("\"{seed}\" is not a host and a port");
            let hint = "for example \"press-hall:7800\", or \"mdns\"";
            found.push(SpecProblem::new(format!("site.seeds[{at}]"), message).hint(hint));
        }
    }
    if site.replicas == 0 && site.ack == Ack::Site {
        let message = "with `ack = \"site\"` at least one other node must keep the events";
        found.push(SpecProblem::new("site.replicas", message).hint("1 or more, or `ack = \"local\"`"));
    }
    if site.replica_max_bytes < 1 << 20 {
        found.push(SpecProblem::new("site.replica_max_bytes", "must be at least 1048576 (1 MiB)"));
    }
}

fn webhooks(config: &Config, found: &mut Vec<SpecProblem>) {
    for (at, webhook) in config.webhooks.iter().enumerate() {
        let place = |field: &str| format!("webhooks[{at}].{field}");
        let is_taken = config.webhooks[..at].iter().any(|other| other.name == webhook.name);
        named(&place("name"), &webhook.name, "webhook", is_taken, found);
        address(&place("url"), &webhook.url, found);
        span(&place("timeout"), webhook.timeout, Span::from_millis(100), Span::from_secs(300), found);
        span(&place("keep"), webhook.keep, Span::from_secs(60), Span::from_secs(400 * 86_400), found);
        headers(&place("headers"), &webhook.headers, found);
    }
}

fn cloud(config: &Config, found: &mut Vec<SpecProblem>) {
    let cloud = &config.cloud;
    let day = Span::from_secs(86_400);
    span("cloud.archive_every", cloud.archive_every, Span::from_secs(1), day, found);
    if cloud.cold <= cloud.warm {
        let message = format!("files are given up after {}, before they are cold after {}", cloud.cold, cloud.warm);
        found.push(SpecProblem::new("cloud.cold", message).hint("longer than `cloud.warm`"));
    }
    for (at, site) in cloud.sites.iter().enumerate() {
        if !is_name(&site.tenant) {
            let message = format!("\"{}\" cannot name a tenant", site.tenant);
            let problem = SpecProblem::new(format!("cloud.sites[{at}].tenant"), message);
            found.push(problem.hint("1 to 64 letters, digits, `-` and `_`"));
        }
        if let Some(first) = cloud.sites[..at].iter().position(|other| other.site == site.site) {
            let message = format!("`{}` is described by cloud.sites[{first}] already", site.site);
            found.push(SpecProblem::new(format!("cloud.sites[{at}].site"), message));
        }
    }
    for (at, sink) in cloud.sinks.iter().enumerate() {
        let place = |field: &str| format!("cloud.sinks[{at}].{field}");
        named(&place("name"), &sink.name, "sink", cloud.sinks[..at].iter().any(|other| other.name == sink.name), found);
        match sink.kind {
            SinkKind::Webhook => address(&place("target"), &sink.target, found),
            SinkKind::File if is_lines_of_json(&sink.target) => {}
            SinkKind::File => {
                let message = format!("\"{}\" is no file for lines of JSON below the data directory", sink.target);
                found.push(SpecProblem::new(place("target"), message).hint("for example \"panes.ndjson\""));
            }
        }
        headers(&place("headers"), &sink.headers, found);
    }
}

/// A file that nothing else of the node can be.
fn is_lines_of_json(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    path.split('/').all(plain) && (path.ends_with(".ndjson") || path.ends_with(".jsonl"))
}

fn named(place: &str, name: &str, what: &str, is_taken: bool, found: &mut Vec<SpecProblem>) {
    if !is_name(name) {
        let message = format!("\"{name}\" cannot name a {what}");
        found.push(SpecProblem::new(place, message).hint("1 to 64 letters, digits, `-` and `_`"));
    }
    if is_taken {
        found.push(SpecProblem::new(place, format!("two {what}s are named `{name}`")));
    }
}

fn address(place: &str, url: &str, found: &mut Vec<SpecProblem>) {
    match url.parse::<hyper::Uri>() {
        Ok(url) if url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")) => {}
        _ => {
            let message = format!("\"{url}\" is not an address");
            found.push(SpecProblem::new(place, message).hint("for example \"http://10.0.0.5:9000/alerts\""));
        }
    }
}

fn headers(place: &str, headers: &BTreeMap<String, String>, found: &mut Vec<SpecProblem>) {
    for (name, value) in headers {
        let name_ok = hyper::header::HeaderName::try_from(name.as_str()).is_ok();
        if !name_ok || hyper::header::HeaderValue::try_from(value.as_str()).is_err() {
            found.push(SpecProblem::new(format!("{place}.{name}"), "not a header of HTTP"));
        }
    }
}

/// Open doors are allowed, but never unnoticed.
fn doors(config: &Config, tree: &Tree, problems: &mut Vec<Problem>) {
    for (door, listen, anonymous) in
        [("mqtt", config.mqtt.listen, config.mqtt.anonymous), ("http", config.http.listen, config.http.anonymous)]
    {
        if is_local(listen) {
            continue;
        }
        if anonymous {
            let message = format!("everybody who reaches {listen} may come in without a login");
            problems.push(
                Problem::warning("MP0307", message)
                    .at(tree.find(&format!("{door}.anonymous")))
                    .hint(Some("make logins with `millpond token new NAME`, and leave `anonymous` out".to_owned())),
            );
        } else if config.auth.users.is_empty() {
            let message = format!("{door} listens on {listen}, but there are no users besides the administrator");
            problems.push(
                Problem::warning("MP0307", message)
                    .at(tree.find(&format!("{door}.listen")))
                    .hint(Some("make logins with `millpond token new NAME` or `millpond hash-password`".to_owned())),
            );
        }
    }
}

fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
