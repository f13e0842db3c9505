//! Questions for values, over all tiers: each record is looked for on its side of the border that the manifest draws.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use millpond_actors::{
    merged::DEFAULT_TENANT,
    query::{self, Found, Journal, Step},
};
use millpond_core::{
    planted::{self, Bug},
    time::{Span, Timestamp},
};
use millpond_gateway::port::{AskError, Query};
use millpond_lake::{Lake, LakeError, Manifest, Partial, Series};

use super::{Cloud, archive::source_of};

/// Points of one question out of the lake.
const POINTS_MAX: usize = 4_000_000;

impl Cloud {
    /// What is known of a series: of all sites of its tenant, or of one site.
    ///
    /// # Errors
    /// When the question contradicts itself, or something cannot be read. While nobody knows where the border lies there is no answer.
    pub(crate) async fn find(&self, asked: &Query) -> Result<Found, AskError> {
        loop {
            let border = self.border()?;
            let before = border.as_ref().map(|(_, manifest)| manifest.number);
            let found = self.find_once(asked, border).await?;
            // What was archived meanwhile may be gone from the copies already.
            if before == self.manifest_number() {
                return Ok(found);
            }
        }
    }

    /// Which records are archived, and where.
    pub(super) fn border(&self) -> Result<Option<(Lake, Arc<Manifest>)>, AskError> {
        let Some(archive) = &self.0.archive else { return Ok(None) };
        let lake = archive.lake();
        if lake.is_read() { Ok(Some((lake.clone(), lake.manifest()))) } else { Err(AskError::Unavailable) }
    }

    /// What changes whenever something is archived.
    pub(super) fn manifest_number(&self) -> Option<u64> {
        self.0.archive.as_ref().map(|archive| archive.lake().manifest().number)
    }

    /// The copies of journals of a tenant's sites, without what is archived of them; each with the name of its site.
    pub(super) fn journals(&self, tenant: &str, manifest: Option<&Manifest>) -> Vec<(String, Journal)> {
        let mut journals = Vec::new();
        for (site, lives) in self.0.shelf.all() {
            if self.0.settings.site(&site).tenant != tenant {
                continue;
            }
            for (life, open) in lives {
                let archived = manifest.and_then(|manifest| manifest.ledger.of(&source_of(&site, life)));
                let archived = archived.filter(|_| !planted::is(Bug::ServeBorderTwice)).cloned().unwrap_or_default();
                journals.push((site.clone(), Journal { reader: open.reader.clone(), without: archived }));
            }
        }
        journals
    }

    async fn find_once(&self, asked: &Query, border: Option<(Lake, Arc<Manifest>)>) -> Result<Found, AskError> {
        let tenant = asked.tenant.clone().unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        let journals = self.journals(&tenant, border.as_ref().map(|(_, manifest)| &**manifest));
        let journals: Vec<Journal> = journals.into_iter().map(|(_, journal)| journal).collect();
        let question = asked.clone();
        let hot = self.0.env.unblock(move || query::find_in(&journals, &question)).await;
        let mut found = hot.unwrap_or(Err(AskError::Unavailable))?;
        if let Some((lake, manifest)) = border {
            query::join(&mut found, self.archived(&lake, &manifest, asked, tenant).await?);
        }
        Ok(found)
    }
}

/// Answers of the archive to questions with steps. A later manifest may hold late events or lack what was left out, so that answers
/// of an earlier one do not count any more.
#[derive(Default)]
pub(super) struct Cache {
    manifest: u64,
    answers: Vec<(Query, Found)>,
}

/// Answers that are kept; the oldest give way.
const ANSWERS_MAX: usize = 64;
/// Steps of an answer that is kept.
const STEPS_MAX: usize = 20_000;

impl Cloud {
    async fn archived(
        &self,
        lake: &Lake,
        manifest: &Manifest,
        asked: &Query,
        tenant: String,
    ) -> Result<Found, AskError> {
        let cache = || self.0.cache.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut cache = cache();
            if cache.manifest != manifest.number {
                *cache = Cache { manifest: manifest.number, answers: Vec::new() };
            }
            if let Some((_, found)) = cache.answers.iter().find(|(query, _)| query == asked) {
                return Ok(found.clone());
            }
        }
        let found = archived(lake, manifest, asked, tenant).await;
        let found = found.map_err(|error| AskError::Failed(format!("the archive cannot be read: {error}")))?;
        if matches!(&found, Found::Steps(steps) if steps.len() <= STEPS_MAX) {
            let mut cache = cache();
            if cache.manifest == manifest.number {
                if cache.answers.len() >= ANSWERS_MAX {
                    cache.answers.remove(0);
                }
                cache.answers.push((asked.clone(), found.clone()));
            }
        }
        Ok(found)
    }
}

async fn archived(lake: &Lake, manifest: &Manifest, asked: &Query, tenant: String) -> Result<Found, LakeError> {
    let (device, metric) = (asked.device_id.clone(), asked.metric.clone());
    let series = Series { tenant: Some(tenant), device, metric, start: asked.start, end: asked.end };
    if asked.aggregate.is_none() {
        let points = lake.points(manifest, &series, POINTS_MAX).await?;
        let points = points.points.iter().map(|(time, cell)| (time.0, query::json_of(cell.as_value()))).collect();
        return Ok(Found::Points(vec![points]));
    }
    let length = query::step_length(asked);
    let mut steps: BTreeMap<i64, Step> = BTreeMap::new();
    let mut take = |number: i64, partial: &Partial| {
        if let Some(step) = step_of(partial) {
            steps.entry(number).and_modify(|held: &mut Step| held.merge(&step)).or_insert(step);
        }
    };
    // Steps are aligned to the epoch; what lies before the first whole one is a step of its own.
    let number = asked.start.0.div_euclid(length);
    let aligned = if asked.start.0.rem_euclid(length) == 0 {
        asked.start.0
    } else {
        number.saturating_add(1).saturating_mul(length)
    };
    let aligned = Timestamp(aligned).min(asked.end);
    if asked.start < aligned {
        let first = Series { end: aligned, ..series.clone() };
        let found = lake.aggregate(manifest, &first, None, 1).await?;
        found.steps.iter().for_each(|(_, partial)| take(number, partial));
    }
    if aligned < asked.end {
        let rest = Series { start: aligned, ..series };
        let found = lake.aggregate(manifest, &rest, Some(Span(length)), asked.limit.saturating_add(1)).await?;
        found.steps.iter().for_each(|(start, partial)| take(start.0.div_euclid(length), partial));
    }
    Ok(Found::Steps(steps))
}

fn step_of(partial: &Partial) -> Option<Step> {
    let (first, last) = (partial.first()?, partial.last()?);
    Some(Step {
        count: partial.count,
        sum: partial.sum.value(),
        min: partial.min()?,
        max: partial.max()?,
        first: (first.0.0, first.1),
        last: (last.0.0, last.1),
    })
}
