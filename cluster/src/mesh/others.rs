//! The other nodes, as the data plane asks for them.

use std::{collections::BTreeSet, sync::PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_actors::{
    other_sites::Question,
    query::Found,
    site::{Arrived, Copy, Others},
};
use millpond_core::{admission::Known, record, time::Span};
use millpond_env::Env;
use millpond_gateway::port::{AskError, DEFAULT_TENANT, Json, Query};
use millpond_proto::wire::{Reply, Request};
use ractor::ActorRef;
use tokio::sync::{mpsc, oneshot};

use super::{Arrival, Asked, MeshMsg, Shared, asking::limit_of, elsewhere::Elsewhere, fetch, requests::ask_seen};
use crate::{
    cloud::Cloud,
    sites::{Sites, WeakSites},
};

/// A node that does not answer a question in time is asked no more; others answer in its place.
const PATIENCE: Span = Span::from_secs(2);
const AGAIN: Span = Span::from_millis(100);
/// Who is asked first for what is known of devices has this long to answer.
const FIRST: Span = Span::from_secs(1);
/// The question for what is known of another site.
pub(super) const OTHER_SITE: &str = "other_site";

/// Of which site what is to be known: `{"site": …, "question": …}`.
pub(super) fn question_of(body: &Json) -> Option<(String, Question)> {
    Some((body["site"].as_str()?.to_owned(), serde_json::from_value(body["question"].clone()).ok()?))
}

pub(super) struct MeshOthers {
    env: Env,
    actor: ActorRef<MeshMsg>,
    copies: Shared,
    /// They hold the node's end of the site, which holds this.
    sites: WeakSites,
}

impl MeshOthers {
    pub fn new(env: Env, actor: ActorRef<MeshMsg>, copies: Shared, sites: &Sites) -> MeshOthers {
        MeshOthers { env, actor, copies, sites: sites.downgrade() }
    }

    fn sites(&self) -> Result<Sites, AskError> {
        self.sites.upgrade().ok_or(AskError::Unavailable)
    }

    /// What others know of devices, all asked at once; first the devices of which that is not all yet.
    async fn ask_seen(&self, ask: Vec<Asked>, patience: Span) -> (Vec<String>, Vec<Known>) {
        let (tell, mut told) = mpsc::unbounded_channel();
        // How many answers are needed still.
        let mut needed: Vec<usize> = ask.iter().map(|asked| asked.needed).collect();
        for (at, asked) in ask.iter().enumerate() {
            for link in asked.links.clone() {
                let (env, tell, origin, devices) =
                    (self.env.clone(), tell.clone(), asked.origin, asked.devices.clone());
                self.env.spawn(async move {
                    let _ = tell.send((at, ask_seen(&env, &link, origin, devices, patience).await));
                });
            }
        }
        drop(tell);
        let mut known = Vec::new();
        while needed.iter().any(|needed| *needed > 0)
            && let Some((at, answer)) = told.recv().await
        {
            if let Some(more) = answer {
                known.extend(more);
                needed[at] = needed[at].saturating_sub(1);
            }
        }
        let unanswered = ask.into_iter().zip(needed).filter(|(_, needed)| *needed > 0);
        let devices: BTreeSet<String> = unanswered.flat_map(|(asked, _)| asked.devices).collect();
        (devices.into_iter().collect(), known)
    }

    /// What is known of another site, here or at the first node of this one that takes from it.
    async fn of_other_site(&self, body: Json) -> Result<Json, AskError> {
        let (site, question) = question_of(&body).ok_or_else(|| AskError::Invalid("no question".to_owned()))?;
        if let Some(answer) = self.sites()?.answer(&site, question).await {
            return answer;
        }
        for link in self.ask_actor(MeshMsg::Links).await.unwrap_or_default() {
            let what = OTHER_SITE.to_owned();
            let request = Request::Ask { what, body: body.to_string().into() };
            if let Some(Reply::Answer { status: 200, body }) = fetch::ask(&self.env, &link, PATIENCE, &request).await
                && let Ok(answer) = serde_json::from_slice(&body)
            {
                return Ok(answer);
            }
        }
        Err(AskError::NotFound(format!(
            "nothing of a site `{site}` is here: `millpond site trusts` shows what is fetched"
        )))
    }

    async fn ask_actor<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> MeshMsg) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.actor.cast(question(reply)).ok()?;
        answer.await.ok()
    }

    async fn of_mesh(&self, what: &str, body: Json) -> Result<Json, AskError> {
        let is_ledger = what == "ledger";
        let what = what.to_owned();
        let answer = self.ask_actor(|reply| MeshMsg::Operate { what, body, reply }).await;
        let mut answer = answer.unwrap_or(Err(AskError::Unavailable))?;
        if is_ledger && let Some(rows) = answer["rows"].as_array_mut() {
            rows.extend(self.sites()?.ledger());
        }
        Ok(answer)
    }

    /// The devices of the cloud's own site, which is the default tenant's, and those of the sites.
    async fn devices_of_cloud(&self, cloud: &Cloud, body: Json) -> Result<Json, AskError> {
        let limit = limit_of(&body);
        let tenant = body["tenant"].as_str().map(str::to_owned);
        let after = body["after"].as_str().unwrap_or_default().to_owned();
        let mut all = Vec::new();
        if tenant.as_deref().is_none_or(|tenant| tenant == DEFAULT_TENANT)
            && let Json::Array(own) = self.of_mesh("devices", body).await?
        {
            all = own;
        }
        let name = |device: &Json| device["device_id"].as_str().unwrap_or_default().to_owned();
        let of_sites = cloud.devices(tenant.as_deref()).await?;
        all.extend(of_sites.into_iter().filter(|device| name(device) > after));
        all.sort_by_key(name);
        all.truncate(limit);
        Ok(Json::Array(all))
    }

    /// A device of the cloud's own site, or else of the sites.
    async fn device_of_cloud(&self, cloud: &Cloud, body: Json) -> Result<Json, AskError> {
        let device = body["device"].clone();
        match self.of_mesh("device", body).await {
            Err(AskError::NotFound(unknown)) => {
                let mut of_sites = cloud.devices(None).await?.into_iter();
                of_sites.find(|row| row["device_id"] == device).ok_or(AskError::NotFound(unknown))
            }
            found => found,
        }
    }
}

#[async_trait]
impl Others for MeshOthers {
    fn copies(&self) -> Vec<Copy> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask(&self, what: &'static str, question: Bytes) -> (Vec<Copy>, Vec<Bytes>) {
        let (mut here, mut found, mut silent, mut parts) = (Vec::new(), Vec::new(), BTreeSet::new(), None);
        let Ok(query) = record::decode::<Query>(&question) else { return (here, found) };
        loop {
            let without = silent.clone();
            let plan = self.ask_actor(|reply| MeshMsg::Elsewhere { parts, silent: without, reply }).await;
            let Some(plan) = plan else { return (here, found) };
            here.extend(plan.here);
            let mut answers = Vec::new();
            for (link, parts) in plan.ask {
                let body = record::encode(&Elsewhere { parts: parts.clone(), query: query.clone() }).into();
                let (tell, answer) = oneshot::channel();
                let (env, peer) = (self.env.clone(), link.peer());
                self.env.spawn(async move {
                    let request = Request::Ask { what: what.to_owned(), body };
                    let _ = tell.send(fetch::ask(&env, &link, PATIENCE, &request).await);
                });
                answers.push((peer, parts, answer));
            }
            let mut unanswered = Vec::new();
            for (peer, parts, answer) in answers {
                match answer.await {
                    Ok(Some(Reply::Answer { status: 200, body })) => found.push(body),
                    _ => {
                        silent.insert(peer);
                        unanswered.extend(parts);
                    }
                }
            }
            if unanswered.is_empty() {
                return (here, found);
            }
            parts = Some(unanswered);
        }
    }

    async fn find(&self, query: &Query) -> Option<Result<Found, AskError>> {
        match self.sites() {
            Ok(sites) => Some(sites.cloud()?.find(query).await),
            Err(error) => Some(Err(error)),
        }
    }

    async fn arrive(&self, devices: &[String], patience: Span) -> Arrived {
        let begun = self.env.now();
        let (mut arrived, mut wanted, mut homes) = (Arrived::default(), devices.to_vec(), None);
        loop {
            let again = homes.is_some();
            let arrival = self.ask_actor(|reply| MeshMsg::Arrive { devices: wanted.clone(), again, reply }).await;
            let Some(Arrival { homes: all, known, ask }) = arrival else { break };
            homes.get_or_insert(all);
            arrived.known.extend(known);
            let left = Span(patience.0 - self.env.now().since(begun).0);
            let (unanswered, known) = self.ask_seen(ask, if again { left } else { left.min(FIRST) }).await;
            arrived.known.extend(known);
            wanted = unanswered;
            if wanted.is_empty() || self.env.now().since(begun) >= patience {
                break;
            }
            self.env.sleep(AGAIN).await;
        }
        Arrived { homes: homes.unwrap_or_default(), unverified: wanted.len(), ..arrived }
    }

    fn listens(&self, device: &str, on: bool) {
        let _ = self.actor.cast(MeshMsg::Listens { device: device.to_owned(), on });
    }

    async fn operate(&self, what: &str, body: Json) -> Result<Json, AskError> {
        if what == OTHER_SITE {
            return self.of_other_site(body).await;
        }
        if what == "uplinks" {
            return Ok(self.sites()?.uplinks());
        }
        if what.starts_with("cloud_") {
            let sites = self.sites()?;
            let cloud = sites.cloud().ok_or_else(|| AskError::NotFound("this node is not one of a cloud".into()))?;
            return cloud.operate(what, &body).await;
        }
        if let Some(cloud) = self.sites()?.cloud() {
            match what {
                "devices" => return self.devices_of_cloud(cloud, body).await,
                "device" => return self.device_of_cloud(cloud, body).await,
                _ => {}
            }
        }
        self.of_mesh(what, body).await
    }
}
