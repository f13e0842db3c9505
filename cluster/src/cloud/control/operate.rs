//! What operators want: heads in, rollouts out.

use std::sync::Arc;

use millpond_actors::merged::DEFAULT_TENANT;
use millpond_core::time::Span;
use millpond_gateway::port::{AskError, Json};
use millpond_proto::uplink::{
    orders::{Text, head_of},
    rollout::{Begun, Canary, Plan, Rollout, Rollouts, Step, UndoError},
};
use serde::Deserialize;
use serde_json::json;

use super::{Control, FOLDER, heads};

/// A site's patterns of one rollout.
const PATTERNS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tenant: Option<String>,
    #[serde(default = "all_sites")]
    sites: Vec<String>,
    texts: Vec<Text>,
    /// The name of a site, or a share as `5%`; one site when it is not said.
    canary: Option<String>,
    #[serde(default = "ten_minutes")]
    watch: Span,
    #[serde(default = "five_minutes")]
    patience: Span,
    max_alert_rate: Option<f64>,
    /// Nothing is begun.
    #[serde(default)]
    dry_run: bool,
}

fn all_sites() -> Vec<String> {
    vec!["*".to_owned()]
}

fn ten_minutes() -> Span {
    Span::from_secs(600)
}

fn five_minutes() -> Span {
    Span::from_secs(300)
}

impl Control {
    pub async fn operate(&self, what: &str, body: &Json) -> Result<Json, AskError> {
        let tenant = body["tenant"].as_str();
        match what {
            "cloud_heads" => Ok(self.heads(tenant)),
            "cloud_put_heads" => {
                let wanted = Wanted::deserialize(body).map_err(|error| AskError::Invalid(error.to_string()))?;
                self.put(wanted).await
            }
            "cloud_rollouts" => Ok(self.rollouts(tenant)),
            "cloud_undo" => {
                let number = body["number"].as_u64().ok_or_else(|| AskError::Invalid("`number` is missing".into()))?;
                let is_others =
                    |one: &Rollout| one.number == number && tenant.is_some_and(|own| own != one.plan.tenant);
                if self.state().rollouts.all().any(is_others) {
                    return Err(AskError::Invalid(UndoError::Unknown(number).to_string()));
                }
                let (undone, change) = self.change(|rollouts, now_ms, out| rollouts.undo(now_ms, number, out));
                undone.map_err(|error| AskError::Invalid(error.to_string()))?;
                self.is_kept(change).await;
                let state = self.state();
                let undone = state.rollouts.all().find(|one| one.number == number);
                Ok(undone.map(|one| rollout_json(&state.rollouts, one)).unwrap_or_default())
            }
            _ => Err(AskError::NotFound(format!("a cloud knows nothing of `{what}`"))),
        }
    }

    /// The newest head for each set of sites.
    fn heads(&self, tenant: Option<&str>) -> Json {
        let state = self.state();
        let mut rows: Vec<Json> = Vec::new();
        let mut seen: Vec<(&str, &[String])> = Vec::new();
        for one in state.rollouts.all().rev().filter(|one| !is_over(one)) {
            let scope = (one.plan.tenant.as_str(), one.plan.sites.as_slice());
            if tenant.is_some_and(|tenant| tenant != one.plan.tenant) || seen.contains(&scope) {
                continue;
            }
            seen.push(scope);
            rows.push(json!({
                "tenant": one.plan.tenant,
                "sites": one.plan.sites,
                "head": one.plan.head,
                "rollout": one.number,
                "step": one.step,
                "texts": state.heads.get(&one.plan.head).map(|texts| texts.to_vec()),
            }));
        }
        json!({ "heads": rows })
    }

    async fn put(&self, wanted: Wanted) -> Result<Json, AskError> {
        let Wanted { tenant, sites, texts, canary, watch, patience, max_alert_rate, dry_run } = wanted;
        let tenant = tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        if sites.is_empty() || sites.len() > PATTERNS_MAX {
            return Err(AskError::Invalid(format!("from 1 to {PATTERNS_MAX} names or patterns of sites")));
        }
        if watch < Span::ZERO || patience < Span::from_secs(1) {
            return Err(AskError::Invalid("`watch` cannot be negative, and `patience` is 1s at least".into()));
        }
        let canary = canary_of(canary.as_deref())?;
        let (base, before) = {
            let state = self.state();
            let base = state.rollouts.base(&tenant, &sites);
            let before = base.and_then(|base| state.heads.get(&base.plan.head)).cloned().unwrap_or_default();
            (base.map(|base| self.summary(base)), before)
        };
        let texts = heads::head(texts, &before).map_err(|problems| AskError::Invalid(problems.join("\n")))?;
        let head = head_of(&texts);
        let (watch_ms, patience_ms) = (watch.as_millis(), patience.as_millis());
        let plan = Plan {
            tenant,
            sites,
            head: head.clone(),
            canary,
            watch_ms,
            patience_ms,
            alerts_per_minute: max_alert_rate,
        };
        let (known, meant) = {
            let state = self.state();
            let meant: Vec<String> = state.rollouts.meant(&plan).map(str::to_owned).collect();
            (state.rollouts.known(&plan), meant)
        };
        let mut answer = json!({
            "head": head, "texts": texts, "base": base, "before": *before, "meant": meant,
            "rollout": known, "unchanged": known.is_some(),
        });
        if dry_run || known.is_some() {
            return Ok(answer);
        }
        self.put_head(&head, texts).await?;
        let (begun, change) = self.change(|rollouts, now_ms, out| rollouts.begin(now_ms, plan, out));
        self.is_kept(change).await;
        let (Begun::Rollout(number) | Begun::Known(number)) = begun;
        answer["rollout"] = number.into();
        answer["unchanged"] = matches!(begun, Begun::Known(_)).into();
        Ok(answer)
    }

    /// A head is on disk before a rollout names it.
    async fn put_head(&self, head: &str, texts: Vec<Text>) -> Result<(), AskError> {
        let (disk, path) = (self.env.disk.clone(), format!("{FOLDER}/head-{head}.json"));
        let bytes = serde_json::to_vec(&texts).unwrap_or_default();
        match self.env.unblock(move || disk.write(&path, &bytes)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "a head could not be kept");
                return Err(AskError::Unavailable);
            }
            None => return Err(AskError::Unavailable),
        }
        self.state().heads.insert(head.to_owned(), Arc::new(texts));
        Ok(())
    }

    fn rollouts(&self, tenant: Option<&str>) -> Json {
        let state = self.state();
        let of_tenant = |one: &&Rollout| tenant.is_none_or(|tenant| tenant == one.plan.tenant);
        let row = |one: &Rollout| rollout_json(&state.rollouts, one);
        json!({ "rollouts": state.rollouts.all().rev().filter(of_tenant).map(row).collect::<Vec<_>>() })
    }

    fn summary(&self, one: &Rollout) -> Json {
        json!({ "rollout": one.number, "head": one.plan.head, "sites": one.plan.sites, "step": one.step })
    }
}

fn rollout_json(rollouts: &Rollouts, one: &Rollout) -> Json {
    let plan = &one.plan;
    let site = |site: &str| {
        let at = rollouts.at(site, one.number).unwrap_or_default();
        let shadow: Vec<Json> = at.shadow.iter().map(|shadow| json!(shadow)).collect();
        json!({
            "site": site,
            "canary": one.canaries.contains(site),
            "connected": at.connected > 0,
            "state": at.state,
            "since": at.state.map(|_| at.since_ms),
            "alerts": at.alerts,
            "starts": at.starts,
            "problems": at.problems,
            "replaced": at.replaced,
            "shadow": shadow,
        })
    };
    let canary = match &plan.canary {
        Canary::One => "one site".to_owned(),
        Canary::Site(site) => site.clone(),
        Canary::Share(percent) => format!("{percent}%"),
    };
    json!({
        "rollout": one.number,
        "tenant": plan.tenant,
        "sites": plan.sites,
        "head": plan.head,
        "step": one.step,
        "begun": one.begun_ms,
        "since": one.since_ms,
        "why": one.why,
        "canary": canary,
        "canaries": one.canaries,
        "watch_s": plan.watch_ms / 1000,
        "patience_s": plan.patience_ms / 1000,
        "max_alert_rate": plan.alerts_per_minute,
        "said": one.said.iter().map(|(at, words)| json!({ "at": at, "words": words })).collect::<Vec<_>>(),
        "at": rollouts.meant(plan).map(site).collect::<Vec<_>>(),
    })
}

fn canary_of(said: Option<&str>) -> Result<Canary, AskError> {
    let Some(said) = said else { return Ok(Canary::One) };
    match said.strip_suffix('%') {
        None => Ok(Canary::Site(said.to_owned())),
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Canary::Share(percent)),
            _ => Err(AskError::Invalid(format!("{said} is no share of the sites: from 1% to 100%"))),
        },
    }
}

fn is_over(one: &Rollout) -> bool {
    matches!(one.step, Step::Returned | Step::Replaced)
}
