//! Delivers this site's records to a cloud: one task for each trust file that says where to.
//!
//! ```text
//!   journal ──► feed of the own life ──┬─ results ─┐
//!   copies  ──► feed of a life that    ├─ live     ├─► connection ──► cloud
//!               nobody else brings  ───┴─ backlog ─┘      receipts ──┘
//! ```
//!
//! Each node delivers its own records. Those of a node that has not been heard by the cloud for [`TAKE_OVER_MS`] are delivered by who holds
//! them: the first that asks the cloud, which knows who is delivering. Whoever has had nothing more to give of them for as long lets go of
//! them, since another node may hold what is still missing.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use millpond_core::{
    ids::{Origin, Seq},
    planted::{self, Bug},
    record::{Class, Track},
    time::Span,
};
use millpond_env::Mono;
use millpond_proto::{
    Now, RangeSet,
    replication::Life,
    sites::{
        Answer, Question, VERSION, WINDOWS_MAX,
        terms::{ByDevice, Filter},
    },
    uplink::{Brought, Delivery, Head, Lane, Receipt, Sent, feed::Feed, pace::Pace},
    wire,
};
use millpond_store::Reader;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Inner, Upward,
    budgets::{self, Meter},
    endurance::Endurance,
    obeying,
};
use crate::{
    identity::Trusted,
    mesh::{
        MeshMsg, OnOffer,
        runs::{self, Source},
    },
    transport::{Replies, ReplyFrames, SiteLink},
};

/// A cloud that says nothing for so long is given up for a while.
const PATIENCE: Span = Span::from_secs(20);
/// How often the cloud is asked what it has of the site.
const LOOK_EVERY: Span = Span::from_secs(2);
/// How many times as long as an answer took nothing is asked.
const LOOK_SHARE: i64 = 20;
/// The records of a node that has not delivered for so long are delivered by another one.
pub(super) const TAKE_OVER_MS: u64 = 10_000;
/// Lives of other nodes that one node delivers at a time.
const TAKEN_OVER_MAX: usize = 3;
/// How often the time is reckoned that is left without the cloud.
const WATCH_EVERY: Span = Span::from_secs(10);
const BACK_OFF: Span = Span::from_millis(500);
const BACK_OFF_MAX: Span = Span::from_secs(30);
/// A lane with nothing to send looks again after this, should nobody wake it.
const IDLE: Span = Span::from_secs(1);
/// Over a line with bounds what is new leaves no more often, for more of it at once.
const LIVE_PAUSE_MAX: Span = Span::from_secs(5);
/// How often the head is told while nothing happens.
const HEAD_EVERY: Span = Span::from_secs(5);

pub(super) async fn deliver(sites: Arc<Inner>, trusted: Arc<Trusted>, ended: CancellationToken) {
    let mut back_off = BACK_OFF;
    let mut door = 0;
    loop {
        let begun = sites.env.now();
        let session = CancellationToken::new();
        let outcome = tokio::select! {
            biased;
            () = ended.cancelled() => Ok(()),
            outcome = deliver_to(&sites, &trusted, door, &session) => outcome,
        };
        session.cancel();
        sites.show_upward(&trusted.site, |upward| upward.connected = None);
        sites.show_unreached(&trusted.site);
        if ended.is_cancelled() {
            return;
        }
        if let Err(why) = outcome {
            let address = trusted.uplink.get(door).map(String::as_str).unwrap_or_default();
            tracing::debug!(cloud = trusted.site, address, why, "nothing can be delivered for now");
            sites.show_upward(&trusted.site, |upward| upward.why = why);
        }
        door = (door + 1) % trusted.uplink.len().max(1);
        if sites.env.now().since(begun) > BACK_OFF_MAX {
            back_off = BACK_OFF;
        }
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = sites.env.sleep(back_off) => {}
        }
        back_off = Span(back_off.0 * 2).min(budgets::unhurried(&trusted, BACK_OFF_MAX));
    }
}

/// Says how long the node can go on without the cloud.
pub(super) async fn watch(sites: Arc<Inner>, trusted: Arc<Trusted>, ended: CancellationToken) {
    let mut endurance = Endurance::default();
    sites.restore_budget(&trusted).await;
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = sites.env.sleep(WATCH_EVERY) => {}
        }
        sites.save_budget(&trusted).await;
        let Some(own) = sites.own.get() else { continue };
        let reader = own.reader.clone();
        let Some(Ok(usage)) = sites.env.unblock(move || reader.stats()).await else { continue };
        sites.show_unreached(&trusted.site);
        let head = own.site.head().0;
        let known = sites.state().upward.get(&trusted.site).filter(|upward| upward.known).map(|upward| {
            // What has come since the cloud was heard is not there either.
            let since = if planted::is(Bug::TellTimeAsOfLastContact) { 0 } else { head.saturating_sub(upward.head) };
            upward.left.map(|(left, _)| left + since)
        });
        let share = |class: Class| {
            let class_usage = usage.class(class);
            let came = class_usage.records + class_usage.dropped.iter().map(|dropped| dropped.records).sum::<u64>();
            let left = known.map_or(head, |left| left[class.track() as usize]) as f64;
            // Numbers are of records of all classes.
            left * came as f64 / head.max(1) as f64 / class_usage.records.max(1) as f64
        };
        let settings = sites.settings.now();
        let shares = Class::ALL.map(share);
        let hours = endurance.look(sites.env.now(), &usage, &settings.retention, shares);
        for class in Class::ALL {
            let labels = [trusted.site.as_str(), class.name()];
            sites.measures.endurance.with_label_values(&labels).set(hours[class as usize]);
        }
    }
}

/// A connection from its beginning to its end.
async fn deliver_to(
    sites: &Arc<Inner>,
    trusted: &Arc<Trusted>,
    door: usize,
    session: &CancellationToken,
) -> Result<(), String> {
    let address = trusted.uplink.get(door).ok_or("the trust file names no address")?;
    let (host, port) = address.rsplit_once(':').ok_or("it is no address")?;
    let port = port.parse().map_err(|_| "it has no port")?;
    let addrs: Vec<SocketAddr> = sites.env.net.resolve(host, port).await.map_err(|error| error.to_string())?;
    let called = sites.transport.call(&trusted.site, &addrs).await;
    let link = Arc::new(called.inspect_err(|_| sites.called_in_vain(trusted))?);
    let meter = Arc::new(Meter::new(sites.clone(), trusted.clone(), link.clone()));
    let own = sites.own.get().ok_or("the node is starting")?;
    let broken: Arc<Mutex<Option<String>>> = Arc::default();
    // What the cloud said last that it has.
    let mut known: Option<Vec<Brought>> = None;
    let mut feeding: BTreeMap<Life, Arc<Feeding>> = BTreeMap::new();
    sites.env.spawn(obeying::obey(sites.clone(), trusted.clone(), link.clone(), session.child_token()));
    let mut dry: BTreeMap<Life, Mono> = BTreeMap::new();
    let least = budgets::unhurried(trusted, LOOK_EVERY);
    loop {
        let (begun, heard) = (sites.env.now(), link.received());
        let asked = ask(sites, &link).await;
        let took = sites.env.now().since(begun);
        meter.count();
        // Over a thin line receipts come before an answer does.
        let is_alive = link.received() > heard;
        let brought = asked.or_else(|why| known.clone().filter(|_| is_alive).ok_or(why))?;
        known = Some(brought.clone());
        sites.show_upward(&trusted.site, |upward| (upward.connected, upward.known) = (Some(address.clone()), true));
        let on_offer = sites.ask_mesh(MeshMsg::OnOffer).await.ok_or("the node is stopping")?;
        sites.told_of_lives(&trusted.site, &on_offer, &brought);
        feeding.retain(|_, feed| !feed.ended.is_cancelled());
        let by = |life: Life| brought.iter().find(|brought| brought.life() == life);
        for feed in feeding.values() {
            match by(feed.life) {
                // Somebody with a better right to it does it now.
                Some(brought) if feed.life != own.life && brought.by.is_some_and(|by| by != own.life.origin) => {
                    feed.ended.cancel();
                }
                Some(brought) => Track::ALL.into_iter().for_each(|track| {
                    feed.book().has(track, &brought.held(track));
                }),
                None => {}
            }
        }
        for offer in on_offer {
            if let Some(feed) = feeding.get(&offer.life) {
                *feed.here.lock().unwrap_or_else(PoisonError::into_inner) = offer.ranges.clone();
                continue;
            }
            if feeding.len() > TAKEN_OVER_MAX && offer.life != own.life {
                continue;
            }
            let brought = by(offer.life);
            if offer.life != own.life && !is_orphan(&offer, brought) {
                continue;
            }
            let held = |track| brought.map(|brought| brought.held(track)).unwrap_or_default();
            let head = if offer.life == own.life { own.site.head() } else { Seq(u64::MAX - 2) };
            let feed = Arc::new(Feeding {
                sites: sites.clone(),
                trusted: trusted.clone(),
                link: link.clone(),
                meter: meter.clone(),
                life: offer.life,
                name: offer.name.clone(),
                reader: offer.reader.clone(),
                paces: Mutex::default(),
                book: Mutex::new(Feed::new([held(Track::Results), held(Track::Raw)], head)),
                here: Mutex::new(offer.ranges.clone()),
                ended: session.child_token(),
                broken: broken.clone(),
            });
            for lane in Lane::ALL {
                if lane != Lane::Live || offer.life == own.life {
                    sites.env.spawn(feed.clone().run(lane));
                }
            }
            feeding.insert(offer.life, feed);
        }
        release(&feeding, &mut dry, own.life, sites.env.now());
        sites.show_progress(&trusted.site, &feeding);
        tokio::select! {
            biased;
            closed = link.closed() => return Err(closed),
            // What is asked takes its share of the line, and of a thin one it must not be much.
            () = sites.env.sleep(Span(took.0 * LOOK_SHARE).clamp(LOOK_EVERY, PATIENCE).max(least)) => {}
        }
        if let Some(why) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(why);
        }
    }
}

/// Lets go of other nodes' records of which nothing was left to give for a while; `dry` says since when.
fn release(feeding: &BTreeMap<Life, Arc<Feeding>>, dry: &mut BTreeMap<Life, Mono>, own: Life, now: Mono) {
    dry.retain(|life, _| feeding.contains_key(life));
    for (life, feed) in feeding.iter().filter(|(life, _)| **life != own) {
        if feed.left() != [0, 0] {
            dry.remove(life);
        } else if now.since(*dry.entry(*life).or_insert(now)) >= Span::from_millis(TAKE_OVER_MS as i64) {
            feed.ended.cancel();
        }
    }
}

/// Whether nobody delivers the records of another node, and here are some that the cloud does not have.
fn is_orphan(offer: &OnOffer, brought: Option<&Brought>) -> bool {
    let Some(brought) = brought else { return true };
    let lacks = |track: Track| {
        let held = brought.held(track);
        offer.ranges[track as usize].iter().any(|(first, last)| !held.covers(first, last))
    };
    brought.by.is_none() && brought.idle_ms >= TAKE_OVER_MS && Track::ALL.into_iter().any(lacks)
}

async fn ask(sites: &Inner, link: &SiteLink) -> Result<Vec<Brought>, String> {
    let question = wire::encode(&Question::Ledger { version: VERSION });
    let asked = sites.env.timeout(PATIENCE, async {
        let mut answers = link.ask(question).await.map_err(|error| error.to_string())?;
        answers.next().await.map_err(|error| error.to_string())
    });
    let frame = asked.await.map_err(|_| "it takes too long".to_owned())??.ok_or("it said nothing")?;
    match wire::decode::<Answer>(&frame).map_err(|error| error.to_string())? {
        Answer::Ledger(brought) => Ok(brought),
        Answer::Busy { .. } => Err("it is busy".to_owned()),
        _ => Err("it is no cloud, or does not take records of this site".to_owned()),
    }
}

/// What is delivered of one life over one connection.
pub(super) struct Feeding {
    sites: Arc<Inner>,
    trusted: Arc<Trusted>,
    link: Arc<SiteLink>,
    meter: Arc<Meter>,
    life: Life,
    name: String,
    reader: Reader,
    book: Mutex<Feed>,
    /// By lane.
    paces: Mutex<[Pace; 3]>,
    /// What is here, by track; of the own life the journal's head says it.
    here: Mutex<[RangeSet; 2]>,
    ended: CancellationToken,
    /// Why the connection is of no use, when it is found out here.
    broken: Arc<Mutex<Option<String>>>,
}

impl Feeding {
    fn book(&self) -> MutexGuard<'_, Feed> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace<T>(&self, lane: Lane, of: impl FnOnce(&mut Pace) -> T) -> T {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        of(&mut paces[lane as usize])
    }

    fn now(&self) -> Now {
        Now(self.sites.env.now().0)
    }

    fn here(&self) -> [RangeSet; 2] {
        if let Some(own) = self.sites.own.get().filter(|own| own.life == self.life) {
            let all: RangeSet = [(1, own.site.head().0)].into_iter().filter(|(_, head)| *head > 0).collect();
            return [all.clone(), all];
        }
        self.here.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Numbers that are here and not at the cloud.
    pub fn left(&self) -> [u64; 2] {
        self.book().progress(&self.here()).left
    }

    async fn run(self: Arc<Self>, lane: Lane) {
        let outcome = tokio::select! {
            biased;
            () = self.ended.cancelled() => Ok(()),
            outcome = self.lane(lane) => outcome,
        };
        if let Err(why) = outcome {
            tracing::debug!(cloud = self.trusted.site, lane = lane.name(), why, "a lane has ended");
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        }
        self.ended.cancel();
    }

    async fn lane(self: &Arc<Self>, lane: Lane) -> Result<(), String> {
        // Results may have gathered, too: over a thin line what is new takes turns with them, and the backlog waits for both.
        let class = match lane {
            Lane::Results | Lane::Live => Class::Alert,
            Lane::Backlog => Class::Raw,
        };
        let settings = self.sites.settings.now();
        let terms = &self.trusted.terms;
        let windows = settings.windows.iter().filter(|spec| lane == Lane::Results && terms.has_window(spec));
        let question = Question::Deliver {
            origin: self.life.origin,
            incarnation: self.life.incarnation,
            lane,
            name: self.name.clone(),
            windows: windows.take(WINDOWS_MAX).cloned().collect(),
        };
        let opened = self.sites.env.timeout(PATIENCE, self.link.open(class, wire::encode(&question))).await;
        let (out, receipts) = opened.map_err(|_| "it takes too long")?.map_err(|error| error.to_string())?;
        let confirmed = Arc::new(Notify::new());
        tokio::select! {
            biased;
            ended = self.take_receipts(lane, receipts, &confirmed) => ended,
            ended = self.send_all(lane, out, &confirmed) => ended,
        }
    }

    async fn take_receipts(&self, lane: Lane, mut receipts: ReplyFrames, confirmed: &Notify) -> Result<(), String> {
        loop {
            let frame = receipts.next().await.map_err(|error| error.to_string())?;
            let frame = frame.ok_or("the cloud takes no more")?;
            match wire::decode::<Receipt>(&frame).map_err(|error| error.to_string())? {
                Receipt::Stored(stored) => {
                    let life = Life { origin: stored.origin, incarnation: stored.incarnation };
                    if life != self.life || stored.track != lane.track() {
                        return Err("it confirms what was not sent".to_owned());
                    }
                    self.book().stored(lane, (stored.first, stored.last));
                    let now = self.now();
                    self.pace(lane, |pace| pace.stored(now, stored.first));
                    confirmed.notify_one();
                }
                // Somebody else does it.
                Receipt::Taken { .. } => return Ok(()),
                Receipt::Refused { why } => return Err(why),
            }
        }
    }

    async fn send_all(&self, lane: Lane, mut out: Replies, confirmed: &Notify) -> Result<(), String> {
        let own = self.sites.own.get().filter(|own| own.life == self.life);
        let moved = own.map(|own| own.site.listen()).unwrap_or_default();
        let (mut told, mut told_at): (Option<Head>, Mono) = (None, self.sites.env.now());
        let head_every = budgets::unhurried(&self.trusted, HEAD_EVERY);
        let (mut quiet_since, quiet_every) = (None, budgets::unhurried(&self.trusted, IDLE));
        let live_pause = budgets::unhurried(&self.trusted, Span::ZERO).min(LIVE_PAUSE_MAX);
        loop {
            if lane == Lane::Results {
                let head = self.head();
                let due = self.sites.env.now().since(told_at) >= head_every;
                let changed = told.is_none_or(|told| (told.head, told.settled) != (head.head, head.settled));
                if due || changed && (told.is_none() || self.trusted.budget.is_none()) {
                    (told, told_at) = (Some(head), self.sites.env.now());
                    send(&mut out, &Delivery::Head(head)).await?;
                }
            }
            let here = self.here();
            let (bytes_max, window) = self.pace(lane, |pace| (pace.bytes(), pace.window()));
            let bytes_max = bytes_max.min(budgets::at_once(&self.trusted));
            // Over a thin line one delivery of what has gathered is under way at a time: what is new waits behind it.
            let window = if lane == Lane::Live { window } else { (window + 1).saturating_sub(bytes_max).max(1) };
            let next = self.book().next_within(lane, &here[lane.track() as usize], window);
            let Some((first, last)) = next else {
                tokio::select! {
                    biased;
                    () = moved.notified() => {}
                    () = confirmed.notified() => {}
                    () = self.sites.env.sleep(IDLE) => {}
                }
                continue;
            };
            let sent = match self.read(lane.track(), first, last, bytes_max).await {
                Ok(sent) => sent,
                Err(why) => {
                    self.book().unsent(lane, (first, last));
                    return Err(why);
                }
            };
            // That there is nothing can be said a little later, for more numbers at once.
            let now = self.sites.env.now();
            let waits = quiet_since.map_or(Span::ZERO, |since| Span(quiet_every.0 - now.since(since).0));
            if lane == Lane::Results && sent.run.records.is_empty() && waits > Span::ZERO {
                self.book().unsent(lane, (first, last));
                tokio::select! {
                    biased;
                    () = moved.notified() => {}
                    () = self.sites.env.sleep(waits) => {}
                }
                continue;
            }
            quiet_since = sent.run.records.is_empty().then_some(now);
            let (through, bytes) = (sent.run.last, sent.run.bytes() + 64);
            self.book().sent(lane, (first, through), last, bytes);
            let counts_as = budgets::lane_of(lane, &sent);
            let frame = wire::encode(&sent.into_delivery());
            self.meter.count();
            self.sites.afford(&self.trusted, counts_as, frame.len()).await;
            self.sites.delivered(&self.trusted.site, lane, frame.len());
            let now = self.now();
            self.pace(lane, |pace| pace.sent(now, first));
            out.send(frame).await.map_err(|error| error.to_string())?;
            if lane == Lane::Live && live_pause > Span::ZERO {
                // Each delivery takes its share of headers and receipts.
                self.sites.env.sleep(live_pause).await;
            }
        }
    }

    fn head(&self) -> Head {
        let wall_ms = self.sites.env.wall().as_millis();
        match self.sites.own.get().filter(|own| own.life == self.life) {
            Some(own) => {
                // In this order: what was left out of the settled records lies before the head.
                let settled = own.site.settled();
                let head = own.site.head();
                Head { head, settled: settled.min(head), wall_ms }
            }
            None => {
                let head = self.here().iter().map(RangeSet::last).max().unwrap_or(0);
                Head { head: Seq(head), settled: Seq(0), wall_ms }
            }
        }
    }

    /// One run from `first` on, as far as the terms let it out.
    async fn read(&self, track: Track, first: Seq, last: Seq, bytes_max: usize) -> Result<Sent, String> {
        let source = Source { life: self.life, track, version: wire::VERSION };
        let settings = self.sites.settings.now();
        let filter = Filter::new(&self.trusted.terms, &Class::ALL, ByDevice::of(&settings.windows, &settings.rules));
        let reader = self.reader.clone();
        let read = self.sites.env.unblock(move || {
            let mut filter = filter;
            let run = runs::read_one(&reader, source, first, last, bytes_max)?;
            let before: Vec<Seq> = run.records.iter().map(|record| record.seq).collect();
            let run = filter.run(run);
            let left: RangeSet = run.records.iter().map(|record| (record.seq.0, record.seq.0)).collect();
            let stays = before.iter().filter(|seq| !left.contains(seq.0)).map(|seq| (seq.0, seq.0));
            let passed: RangeSet = stays.collect();
            Ok::<_, millpond_store::ReadError>(Sent { run, passed: passed.iter().collect() })
        });
        read.await.ok_or("the node is stopping")?.map_err(|error| error.to_string())
    }
}

async fn send(out: &mut Replies, delivery: &Delivery) -> Result<(), String> {
    let frame: Bytes = wire::encode(delivery);
    out.send(frame).await.map_err(|error| error.to_string())
}

impl Inner {
    pub(super) fn show_upward(&self, cloud: &str, change: impl FnOnce(&mut Upward)) {
        let mut state = self.state();
        change(state.upward.entry(cloud.to_owned()).or_default());
        let connected = state.upward.get(cloud).is_some_and(|upward| upward.connected.is_some());
        self.measures.connected.with_label_values(&[cloud]).set(i64::from(connected));
    }

    fn show_progress(&self, cloud: &str, feeding: &BTreeMap<Life, Arc<Feeding>>) {
        let own = self.own.get().map(|own| own.life);
        for track in Track::ALL {
            let left = |feed: &Arc<Feeding>| feed.left()[track as usize];
            let own_left = feeding.iter().filter(|(life, _)| Some(**life) == own).map(|(_, feed)| left(feed)).sum();
            let all: u64 = feeding.values().map(left).sum();
            let labels = [cloud, track.name()];
            self.measures.undelivered.with_label_values(&labels).set(all as i64);
            let now = self.env.now();
            self.show_upward(cloud, |upward| {
                upward.left(track, own_left, now);
                upward.undelivered[track as usize] = all;
            });
        }
        let head = self.own.get().map_or(0, |own| own.site.head().0);
        self.show_upward(cloud, |upward| upward.head = head);
    }

    /// While the cloud cannot be reached, what has come since is not there either.
    fn show_unreached(&self, cloud: &str) {
        let head = self.own.get().map_or(0, |own| own.site.head().0);
        let state = self.state();
        let Some(upward) = state.upward.get(cloud).filter(|upward| upward.connected.is_none()) else { return };
        let since = if planted::is(Bug::TellTimeAsOfLastContact) { 0 } else { head.saturating_sub(upward.head) };
        for track in Track::ALL {
            let left = upward.undelivered[track as usize] + since;
            self.measures.undelivered.with_label_values(&[cloud, track.name()]).set(left as i64);
        }
    }

    /// What the cloud has of the lives that are known here.
    fn told_of_lives(&self, cloud: &str, on_offer: &[OnOffer], brought: &[Brought]) {
        let name = |origin: Origin| on_offer.iter().find(|offer| offer.life.origin == origin).map(|o| o.name.clone());
        let row = |brought: &Brought| {
            let offer = on_offer.iter().find(|offer| offer.life == brought.life());
            let left = Track::ALL.map(|track| {
                let here = offer.map(|offer| offer.ranges[track as usize].clone()).unwrap_or_default();
                here.count() - here.intersection(&brought.held(track)).count()
            });
            (brought.life(), name(brought.origin).unwrap_or_else(|| brought.origin.short()), brought.by, left)
        };
        let rows = brought.iter().map(row).collect();
        self.show_upward(cloud, |upward| upward.lives = rows);
    }

    fn delivered(&self, cloud: &str, lane: Lane, bytes: usize) {
        self.measures.delivered_bytes.with_label_values(&[cloud, lane.name()]).inc_by(bytes as u64);
    }
}
