//! Answers what nodes of other sites ask for, as far as their terms go.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use millpond_core::{
    ids::{Origin, Seq},
    record::{Class, Track, Undecodable},
};
use millpond_proto::{
    RangeSet,
    replication::Life,
    sites::{
        Answer, Offer, Offers, Question, RANGES_MAX, WINDOWS_MAX,
        terms::{ByDevice, Filter},
    },
    wire,
};
use millpond_store::{ReadError, Reader};
use tokio::sync::OwnedSemaphorePermit;

use super::Inner;
use crate::{
    identity::Trusted,
    mesh::{
        MeshMsg, OnOffer,
        runs::{self, Source},
    },
    transport::Replies,
};

const RETRY_MS: u32 = 500;
/// Bytes of records that are looked through for one answer.
const BYTES_MAX: usize = 8 << 20;

/// Begins to answer. Nobody waits for it.
pub(super) fn answer(
    sites: &Arc<Inner>,
    site: &str,
    from: Origin,
    question: Result<Question, Undecodable>,
    replies: Replies,
) {
    let known = sites.state().trusted.get(site).map(|entry| (entry.trusted.clone(), entry.permits.clone()));
    // It was trusted when it connected.
    let Some((trusted, permits)) = known else { return };
    let sites = sites.clone();
    sites.env.clone().spawn(async move {
        let answers = match (question, permits.try_acquire_owned()) {
            (_, Err(_)) => vec![wire::encode(&Answer::Busy { retry_ms: RETRY_MS })],
            (Ok(question), Ok(permit)) => sites.answers(&trusted, question, permit).await,
            (Err(error), _) => {
                tracing::debug!(site = trusted.site, %from, %error, "a question of another site could not be read");
                sites.refused(&trusted)
            }
        };
        let mut replies = replies;
        for answer in answers {
            if replies.send(answer).await.is_err() {
                return;
            }
        }
        replies.finish();
    });
}

/// A range that is asked for.
struct Asked {
    source: Source,
    first: Seq,
    last: Seq,
    classes: Vec<Class>,
}

impl Inner {
    fn refused(&self, trusted: &Trusted) -> Vec<Bytes> {
        self.measures.refused.with_label_values(&[&trusted.site]).inc();
        vec![wire::encode(&Answer::Unknown)]
    }

    async fn answers(&self, trusted: &Trusted, question: Question, permit: OwnedSemaphorePermit) -> Vec<Bytes> {
        let on_offer = self.ask_mesh(MeshMsg::OnOffer).await.unwrap_or_default();
        let answers = match question {
            Question::Offers { revoked, .. } => {
                self.told_of_revocations(&trusted.site, &revoked);
                vec![wire::encode(&Answer::Offers(self.offers(trusted, &on_offer)))]
            }
            Question::Range { origin, incarnation, track, first, last, classes } => {
                let source = Source { life: Life { origin, incarnation }, track, version: wire::VERSION };
                let asked = Asked { source, first, last, classes };
                match self.range(trusted, on_offer, asked).await {
                    Some(frames) => frames,
                    None => self.refused(trusted),
                }
            }
            // This node is not one of a cloud.
            Question::Ledger { .. } | Question::Deliver { .. } | Question::Obey { .. } => self.refused(trusted),
        };
        drop(permit);
        answers
    }

    fn offers(&self, trusted: &Trusted, on_offer: &[OnOffer]) -> Offers {
        let terms = &trusted.terms;
        let mut offers = Vec::new();
        for life in on_offer {
            for track in Track::ALL.into_iter().filter(|track| terms.has_any_of(*track)) {
                let ranges = &life.ranges[track as usize];
                let ranges: Vec<(u64, u64)> = ranges.iter().skip(ranges.len().saturating_sub(RANGES_MAX)).collect();
                let Life { origin, incarnation } = life.life;
                if !ranges.is_empty() {
                    offers.push(Offer { origin, incarnation, name: life.name.clone(), track, ranges });
                }
            }
        }
        let settings = self.settings.now();
        let windows = settings.windows.iter().filter(|spec| terms.has_window(spec)).take(WINDOWS_MAX);
        Offers { offers, windows: windows.cloned().collect(), revoked: self.revoked() }
    }

    pub(super) fn revoked(&self) -> Bytes {
        let state = self.state();
        if state.revoked.is_empty() { Bytes::new() } else { state.revoked.encode() }
    }

    /// `None` when there is nothing of it, or nothing that the site may have.
    async fn range(&self, trusted: &Trusted, on_offer: Vec<OnOffer>, asked: Asked) -> Option<Vec<Bytes>> {
        let Source { life, track, .. } = asked.source;
        let found = on_offer.into_iter().find(|on_offer| on_offer.life == life)?;
        let wanted: RangeSet = [(asked.first.0.max(1), asked.last.0)].into_iter().collect();
        let ranges = found.ranges[track as usize].intersection(&wanted);
        if ranges.is_empty() || !trusted.terms.has_any_of(track) {
            return None;
        }
        let settings = self.settings.now();
        let by_device = ByDevice::of(&settings.windows, &settings.rules);
        let filter = Filter::new(&trusted.terms, &asked.classes, by_device);
        let (reader, source) = (found.reader, asked.source);
        let read = self.env.unblock(move || frames(&reader, source, &ranges, filter)).await;
        let (frames, given) = read?.inspect_err(|error| tracing::debug!(%error, "records could not be read")).ok()?;
        self.measures.given.with_label_values(&[&trusted.site]).inc_by(given);
        Some(frames)
    }
}

/// Runs of these ranges, as far as [`BYTES_MAX`] goes, and how many records are in them.
fn frames(
    reader: &Reader,
    source: Source,
    ranges: &RangeSet,
    mut filter: Filter,
) -> Result<(Vec<Bytes>, u64), ReadError> {
    let (mut frames, mut given, mut read) = (Vec::new(), 0, 0);
    for (first, last) in ranges.iter() {
        runs::read(reader, source, Seq(first), Seq(last), |run| {
            // What is left out costs as much as what is not.
            read += run.bytes();
            let run = filter.run(run);
            given += run.records.len() as u64;
            frames.push(wire::encode(&Answer::Run(run)));
            if read >= BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if read >= BYTES_MAX {
            break;
        }
    }
    Ok((frames, given))
}
