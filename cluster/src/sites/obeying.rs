//! Does what a cloud orders: beside the deliveries over the same connection.
//!
//! Each node of the site hears the orders and says what became of them; the one that the cloud names writes the texts, and the others get them
//! as they get all texts of the site. Whatever is not as it was ordered is written again, so that it does not matter who missed what. When it was
//! in place and somebody has changed it, the cloud is asked anew first: the order may be an old one that came before the line broke, and
//! another node have written what is current.

use std::sync::{Arc, Mutex, PoisonError};

use millpond_core::{record::Class, time::Span};
use millpond_env::Mono;
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{
    sites::{Question, VERSION},
    uplink::orders::{Order, Outcome, PROBLEMS_MAX, Shadow, State},
    wire,
};
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Inner, budgets};
use crate::{
    identity::Trusted,
    mesh::{MeshMsg, Ordered},
    transport::{Replies, ReplyFrames, SiteLink},
};

const PATIENCE: Span = Span::from_secs(20);
/// How often is looked whether everything is as it was ordered.
const LOOK_EVERY: Span = Span::from_millis(500);
/// How often it is said, when nothing has changed.
const SAY_EVERY: Span = Span::from_secs(5);
/// What could not be written, or did not stay, is written again after this.
const AGAIN: Span = Span::from_secs(15);

pub(super) async fn obey(sites: Arc<Inner>, trusted: Arc<Trusted>, link: Arc<SiteLink>, ended: CancellationToken) {
    let Some(own) = sites.own.get() else { return };
    let mut written: Option<Written> = None;
    loop {
        let question = Question::Obey { version: VERSION, node: own.life.origin.to_string() };
        let opened = sites.env.timeout(PATIENCE, link.open(Class::State, wire::encode(&question))).await;
        let Ok(Ok((out, orders))) = opened else { return };
        let heard = Heard::default();
        let why = tokio::select! {
            biased;
            () = ended.cancelled() => Why::Over,
            () = hear(orders, &heard) => Why::Over,
            why = say(&sites, &trusted, out, &heard, &mut written) => why,
        };
        if why == Why::Over {
            return;
        }
    }
}

/// Why nothing more is said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Over,
    /// Somebody has changed what was as it was ordered.
    Changed,
}

/// The last order.
#[derive(Default)]
struct Heard {
    order: Mutex<Option<Arc<Order>>>,
    news: Notify,
}

async fn hear(mut orders: ReplyFrames, heard: &Heard) {
    while let Ok(Some(frame)) = orders.next().await {
        // A cloud that orders nothing says something else, and ends the stream.
        let Ok(order) = wire::decode::<Order>(&frame) else { return };
        if !order.is_sound() {
            tracing::warn!(head = order.head, "an order of the cloud makes no sense");
            continue;
        }
        *heard.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(order));
        heard.news.notify_one();
    }
}

/// When which order was written last.
struct Written {
    order: Arc<Order>,
    at: Mono,
}

impl Written {
    /// Whether it may be time to write this one.
    fn is_over(&self, now: Mono, order: &Order) -> bool {
        (self.order.number, &self.order.head) != (order.number, &order.head) || now.since(self.at) >= AGAIN
    }
}

/// What was tried with an order.
#[derive(Default)]
struct Tried {
    order: Option<Arc<Order>>,
    /// It was in place.
    stood: bool,
    problems: Vec<String>,
    replaced: Vec<String>,
}

async fn say(sites: &Inner, trusted: &Trusted, mut out: Replies, heard: &Heard, written: &mut Option<Written>) -> Why {
    let (cloud, say_every) = (trusted.site.as_str(), budgets::unhurried(trusted, SAY_EVERY));
    let (mut tried, mut told): (Tried, Option<(Outcome, Mono)>) = Default::default();
    loop {
        let order = heard.order.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(order) = order {
            let is_new =
                tried.order.as_ref().is_none_or(|known| known.head != order.head || known.number != order.number);
            if is_new {
                tried = Tried::default();
                // That it has come is known before it can do harm: from here the cloud counts how often the node starts.
                let outcome = outcome(sites, &order, State::Received, &tried);
                if out.send(wire::encode(&outcome)).await.is_err() {
                    return Why::Over;
                }
            }
            tried.order = Some(order.clone());
            let state = match look(sites, cloud, &order, &mut tried, written).await {
                Ok(state) => state,
                Err(why) => return why,
            };
            let outcome = outcome(sites, &order, state, &tried);
            let now = sites.env.now();
            let due = told.as_ref().is_none_or(|(before, at)| *before != outcome || now.since(*at) >= say_every);
            if due || is_new {
                sites.measures.order_applied.with_label_values(&[cloud]).set(i64::from(state == State::Applied));
                sites.show_upward(cloud, |upward| upward.order = Some(outcome.clone()));
                if out.send(wire::encode(&outcome)).await.is_err() {
                    return Why::Over;
                }
                told = Some((outcome, now));
            }
        }
        tokio::select! {
            biased;
            () = heard.news.notified() => {}
            () = sites.env.sleep(LOOK_EVERY) => {}
        }
    }
}

/// How it stands, after what is to be written was written.
async fn look(
    sites: &Inner,
    cloud: &str,
    order: &Arc<Order>,
    tried: &mut Tried,
    written: &mut Option<Written>,
) -> Result<State, Why> {
    let mut ordered = ordered(sites, cloud, order).await?;
    let now = sites.env.now();
    if !ordered.in_place && order.write && written.as_ref().is_none_or(|written| written.is_over(now, order)) {
        if tried.stood {
            return Err(Why::Changed);
        }
        let (to, order_too) = (cloud.to_owned(), order.clone());
        let answer = sites.ask_mesh(|reply| MeshMsg::Obey { cloud: to, order: order_too, reply }).await;
        let answer = answer.ok_or(Why::Over)?;
        *written = Some(Written { order: order.clone(), at: now });
        tried.problems.clear();
        match answer {
            Ok(answer) => {
                let replaced = answer["replaced"].as_array().into_iter().flatten().filter_map(Json::as_str);
                tried.replaced = replaced.take(PROBLEMS_MAX).map(str::to_owned).collect();
            }
            Err(AskError::Invalid(why)) => tried.problems = why.lines().take(PROBLEMS_MAX).map(str::to_owned).collect(),
            Err(error) => tracing::warn!(cloud, %error, "what the cloud orders could not be written"),
        }
        ordered = self::ordered(sites, cloud, order).await?;
    }
    if ordered.in_place {
        tried.problems = ordered.problems;
        tried.stood = true;
    }
    Ok(match (ordered.in_place && ordered.settled, tried.problems.is_empty()) {
        (_, false) => State::Rejected,
        (true, true) => State::Applied,
        (false, true) => State::Received,
    })
}

async fn ordered(sites: &Inner, cloud: &str, order: &Arc<Order>) -> Result<Ordered, Why> {
    let (cloud, order) = (cloud.to_owned(), order.clone());
    let answer = sites.ask_mesh(|reply: oneshot::Sender<Ordered>| MeshMsg::Ordered { cloud, order, reply }).await;
    // The node is stopping.
    answer.ok_or(Why::Over)
}

fn outcome(sites: &Inner, order: &Order, state: State, tried: &Tried) -> Outcome {
    let own = sites.own.get();
    let boot = own.map_or(0, |own| (u64::from(own.life.incarnation.0) << 32) | u64::from(own.boots));
    let tally = own.map(|own| own.site.tally());
    let (mut definitions, mut alerts, mut shadow) = (0, 0, Vec::new());
    if let Some(tally) = &tally {
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        (definitions, alerts) = tally.under();
        let compared = tally.compared().take(PROBLEMS_MAX).map(|(rule, compared)| Shadow {
            rule: rule.to_owned(),
            fired_old: compared.fired_old,
            fired_new: compared.fired_new,
            only_old: compared.only_old,
            only_new: compared.only_new,
        });
        shadow.extend(compared);
    }
    Outcome {
        number: order.number,
        head: order.head.clone(),
        state,
        problems: tried.problems.clone(),
        replaced: tried.replaced.clone(),
        alerts,
        boot,
        shadow,
        definitions: own.map_or(0, |own| (u64::from(own.life.incarnation.0) << 32) | u64::from(definitions)),
    }
}

pub(super) fn json(outcome: &Outcome) -> Json {
    json!({
        "number": outcome.number,
        "head": outcome.head,
        "state": outcome.state,
        "problems": outcome.problems,
        "replaced": outcome.replaced,
    })
}
