//! Carries out what [`Taking`] decides: one task for each site that something is taken from.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use millpond_core::{ids::Origin, time::Span};
use millpond_env::Mono;
use millpond_proto::{
    replication::{FetchEnd, Moment, RunKey},
    sites::{
        Answer, Offers, Question, VERSION, WINDOWS_MAX,
        taking::{Step, Taking},
        terms::class_of,
    },
    wire,
};
use tokio_util::sync::CancellationToken;

use super::{Inner, Row};
use crate::{
    identity::Trusted,
    transport::{ReplyFrames, SiteLink},
};

/// A node that says nothing for so long is given up for a while.
const PATIENCE: Span = Span::from_secs(20);

/// What is taken from one site.
struct Taker {
    sites: Arc<Inner>,
    trusted: Arc<Trusted>,
    taking: Taking,
    /// By door, while they are connected.
    links: Vec<Option<SiteLink>>,
    names: BTreeMap<Origin, String>,
    /// When a node of the site answered last.
    heard_at: Mono,
}

pub(super) async fn take(sites: Arc<Inner>, trusted: Arc<Trusted>, ended: CancellationToken) {
    let (env, site) = (sites.env.clone(), trusted.site.clone());
    let from = sites.clone();
    let held = env.unblock(move || from.shelf.held(&site)).await.unwrap_or_default();
    let doors = trusted.addresses.len();
    let links = (0..doors).map(|_| None).collect();
    let heard_at = env.now();
    let mut taker = Taker { sites, trusted, taking: Taking::new(doors, held), links, names: BTreeMap::new(), heard_at };
    taker.show();
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = taker.next() => {}
        }
    }
}

impl Taker {
    fn now(&self) -> Moment {
        Moment(self.sites.env.now().0)
    }

    async fn next(&mut self) {
        let silent = self.sites.env.now().since(self.heard_at).0 / 1_000_000_000;
        self.sites.measures.silent.with_label_values(&[&self.trusted.site]).set(silent);
        match self.taking.step(self.now()) {
            Step::Wait { until } => {
                let span = Mono(until.0).since(self.sites.env.now());
                self.sites.env.sleep(span).await;
            }
            Step::Look { door } => {
                match self.look(door).await {
                    Ok(offers) => self.offered(door, offers).await,
                    Err(why) => self.failed(door, &why),
                }
                self.show();
            }
            Step::Fetch { door, wanted } => {
                let how = self.fetch(door, wanted).await;
                let now = self.now();
                self.taking.ended(door, now, how);
                if how == FetchEnd::Failed {
                    self.links[door] = None;
                }
                self.show();
            }
        }
    }

    fn failed(&mut self, door: usize, why: &str) {
        let (site, address) = (&self.trusted.site, &self.trusted.addresses[door]);
        tracing::debug!(site, address, why, "a node of another site was not reached");
        let now = self.now();
        self.taking.failed(door, now);
        self.links[door] = None;
    }

    async fn look(&mut self, door: usize) -> Result<Offers, String> {
        if self.links[door].as_ref().is_none_or(SiteLink::is_over) {
            self.links[door] = Some(self.connect(door).await?);
        }
        let revoked = self.sites.revoked();
        let mut answers = self.ask(door, &Question::Offers { version: VERSION, revoked }).await?;
        match self.sites.env.timeout(PATIENCE, answers.next()).await {
            Ok(Ok(Some(frame))) => match wire::decode::<Answer>(&frame) {
                Ok(Answer::Offers(offers)) => Ok(offers),
                Ok(_) => Err("it is busy, or offers nothing".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Ok(Ok(None)) => Err("it said nothing".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it takes too long".to_owned()),
        }
    }

    async fn connect(&self, door: usize) -> Result<SiteLink, String> {
        let address = &self.trusted.addresses[door];
        let (host, port) = address.rsplit_once(':').ok_or("it is no address")?;
        let port = port.parse().map_err(|_| "it has no port")?;
        let addrs: Vec<SocketAddr> = self.sites.env.net.resolve(host, port).await.map_err(|error| error.to_string())?;
        let link = self.sites.transport.call(&self.trusted.site, &addrs).await?;
        tracing::info!(site = self.trusted.site, address, peer = %link.peer.short(), "a node of another site was reached");
        Ok(link)
    }

    async fn ask(&self, door: usize, question: &Question) -> Result<ReplyFrames, String> {
        let link = self.links[door].as_ref().ok_or("there is no connection")?;
        let asked = self.sites.env.timeout(PATIENCE, link.ask(wire::encode(question))).await;
        asked.map_err(|_| "it takes too long".to_owned())?.map_err(|error| error.to_string())
    }

    async fn offered(&mut self, door: usize, offers: Offers) {
        let Offers { offers, mut windows, revoked } = offers;
        self.heard_at = self.sites.env.now();
        self.sites.told_of_revocations(&self.trusted.site, &revoked);
        self.names.extend(offers.iter().map(|offer| (offer.origin, offer.name.clone())));
        let now = self.now();
        self.taking.offered(door, now, &offers);
        windows.truncate(WINDOWS_MAX);
        let (sites, site) = (self.sites.clone(), self.trusted.site.clone());
        let kept = self.sites.env.unblock(move || sites.shelf.keep_windows(&site, windows)).await;
        if let Some(Err(error)) = kept {
            tracing::warn!(site = self.trusted.site, %error, "the windows of another site could not be kept");
        }
    }

    async fn fetch(&mut self, door: usize, wanted: RunKey) -> FetchEnd {
        let RunKey { life, track, mut first, last } = wanted;
        let classes = self.trusted.take.clone();
        let (origin, incarnation) = (life.origin, life.incarnation);
        let question = Question::Range { origin, incarnation, track, first, last, classes };
        let Ok(mut answers) = self.ask(door, &question).await else { return FetchEnd::Failed };
        loop {
            let frame = match self.sites.env.timeout(PATIENCE, answers.next()).await {
                Ok(Ok(Some(frame))) => frame,
                Ok(Ok(None)) => return FetchEnd::Done,
                Ok(Err(_)) | Err(_) => return FetchEnd::Failed,
            };
            let mut run = match wire::decode::<Answer>(&frame) {
                Ok(Answer::Run(run)) => run,
                Ok(Answer::Busy { retry_ms }) => return FetchEnd::Busy { retry_ms },
                Ok(Answer::Unknown) => return FetchEnd::Unknown,
                Ok(Answer::Offers(_) | Answer::Ledger(_)) | Err(_) => return FetchEnd::Failed,
            };
            let key = RunKey::of(&run);
            let asked = (key.life, key.track) == (life, track) && first <= key.first && key.last <= last;
            if !asked || !run.is_sound() {
                return FetchEnd::Failed;
            }
            first = key.last.next();
            run.records.retain(|record| self.trusted.take.contains(&class_of(record.kind)));
            let (sites, site) = (self.sites.clone(), self.trusted.site.clone());
            match self.sites.env.unblock(move || sites.shelf.keep(&site, run)).await {
                Some(Ok(records)) => {
                    self.taking.stored(key);
                    self.sites.measures.taken.with_label_values(&[&self.trusted.site]).inc_by(records);
                }
                stored => {
                    let why = stored.and_then(Result::err).unwrap_or_default();
                    tracing::warn!(site = self.trusted.site, why, "records of another site could not be stored");
                    let now = self.now();
                    self.taking.not_stored(now);
                    return FetchEnd::Failed;
                }
            }
        }
    }

    /// Brings the ledger and the gauges up to date.
    fn show(&self) {
        let site = &self.trusted.site;
        self.sites.measures.lag.with_label_values(&[site]).set(self.taking.missing() as i64);
        let name = |origin: Origin| self.names.get(&origin).filter(|name| !name.is_empty()).cloned();
        let rows = self.taking.lanes().map(|(life, track, held, head)| Row {
            life,
            name: name(life.origin).unwrap_or_else(|| life.origin.short()),
            track,
            held: held.clone(),
            head,
        });
        let rows = rows.collect();
        self.sites.state().ledger.insert(site.clone(), rows);
    }
}
