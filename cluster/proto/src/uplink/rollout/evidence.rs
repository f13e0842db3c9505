//! Time passes: what speaks against a rollout, and what lets it go on.

use super::{Canary, Effect, Rollout, Rollouts, Site, Step};
use crate::uplink::orders::State;

/// A canary that starts so often with a head has it taken away.
pub const STARTS_MAX: u64 = 3;
const MINUTE_MS: i64 = 60_000;

impl Rollouts {
    /// Time has passed, or something was said.
    pub fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let numbers: Vec<u64> = self.rollouts.keys().copied().collect();
        for number in numbers {
            let Some(mut rollout) = self.rollouts.get(&number).filter(|one| is_under_way(one)).cloned() else {
                continue;
            };
            let before = rollout.clone();
            // One step may follow the other at once.
            while self.advance(now_ms, &mut rollout, out) {}
            if rollout != before {
                out.push(Effect::Keep);
                self.rollouts.insert(number, rollout);
            }
        }
    }

    fn advance(&self, now_ms: i64, rollout: &mut Rollout, out: &mut Vec<Effect>) -> bool {
        match rollout.step {
            Step::Staged => self.choose(now_ms, rollout, out),
            Step::Canary => self.watch(now_ms, rollout, out),
            Step::Everywhere => self.finish(now_ms, rollout, out),
            Step::Done | Step::Returned | Step::Replaced => false,
        }
    }

    /// The canaries are chosen among those that are there: the same ones for the same head and the same sites.
    fn choose(&self, now_ms: i64, rollout: &mut Rollout, out: &mut Vec<Effect>) -> bool {
        let is_there = |name: &&str| self.sites.get(*name).is_some_and(|site| site.connected() > 0);
        let mut there: Vec<&str> = self.meant(&rollout.plan).filter(is_there).collect();
        let lot = |site: &str| *blake3::hash(format!("{} {site}", rollout.plan.head).as_bytes()).as_bytes();
        there.sort_by_key(|site| lot(site));
        let many = match &rollout.plan.canary {
            Canary::One => 1,
            Canary::Share(percent) => ((percent.clamp(0.0, 100.0) / 100.0 * there.len() as f64).ceil() as usize).max(1),
            Canary::Site(name) => {
                there.retain(|site| site == name);
                1
            }
        };
        there.truncate(many);
        if there.is_empty() {
            return false;
        }
        rollout.canaries = there.into_iter().map(str::to_owned).collect();
        rollout.step_to(now_ms, Step::Canary);
        let names: Vec<&str> = rollout.canaries.iter().map(String::as_str).collect();
        let words = format!("it goes to {} first", names.join(", "));
        rollout.say(now_ms, words, out);
        true
    }

    fn watch(&self, now_ms: i64, rollout: &mut Rollout, out: &mut Vec<Effect>) -> bool {
        let against = rollout.canaries.iter().find_map(|site| self.against(now_ms, rollout, site));
        if let Some(why) = against {
            rollout.take_back(now_ms, why, out);
            return false;
        }
        let works = |site: &String| {
            self.at(site, rollout.number).is_some_and(|at| at.state == Some(State::Applied) && at.connected > 0)
        };
        // Who is not there or has to begin anew is waited for, as long as it is not silent for too long.
        if !rollout.canaries.iter().all(works) {
            return false;
        }
        if rollout.watched_ms.is_none() {
            rollout.watched_ms = Some(now_ms);
            let words = format!("all of them work with it; they are watched for {}s", rollout.plan.watch_ms / 1000);
            rollout.say(now_ms, words, out);
        }
        let watched = rollout.watched_ms.map_or(0, |since| now_ms.saturating_sub(since));
        if watched < rollout.plan.watch_ms {
            return false;
        }
        rollout.step_to(now_ms, Step::Everywhere);
        rollout.say(now_ms, "nothing speaks against it: it goes to all sites".to_owned(), out);
        true
    }

    /// Why a canary is not to have it any longer.
    fn against(&self, now_ms: i64, rollout: &Rollout, site: &str) -> Option<String> {
        let at = self.at(site, rollout.number).unwrap_or_default();
        if at.state == Some(State::Rejected) {
            return Some(format!("{site} rejected {}", at.problems.join("; ")));
        }
        if at.starts >= STARTS_MAX {
            return Some(format!("{site} has started {} times since it got it", at.starts));
        }
        let last = rollout.since_ms.max(self.awake_ms);
        let silent = now_ms.saturating_sub(last.max(at.heard_ms));
        let waited = now_ms.saturating_sub(last);
        let untaken = at.state != Some(State::Applied) && rollout.watched_ms.is_none();
        if silent > rollout.plan.patience_ms || (untaken && waited > rollout.plan.patience_ms) {
            let seconds = rollout.plan.patience_ms / 1000;
            return Some(format!("{site} has not reported within {seconds}s that it works with it"));
        }
        let limit = rollout.plan.alerts_per_minute?;
        let minutes = now_ms.saturating_sub(at.told_ms).max(MINUTE_MS) as f64 / MINUTE_MS as f64;
        let rate = at.alerts as f64 / minutes;
        let words = || format!("{site} raised {} alerts, {rate:.1} a minute: more than {limit}", at.alerts);
        (at.state == Some(State::Applied) && rate > limit).then(words)
    }

    /// It is done when all that are there have answered, and somebody is.
    fn finish(&self, now_ms: i64, rollout: &mut Rollout, out: &mut Vec<Effect>) -> bool {
        let is_there = |name: &&str| self.sites.get(*name).is_some_and(|site: &Site| site.connected() > 0);
        let there: Vec<&str> = self.meant(&rollout.plan).filter(is_there).collect();
        let answered = |site: &&&str| {
            let at = self.at(site, rollout.number).unwrap_or_default();
            matches!(at.state, Some(State::Applied | State::Rejected)) || self.wanted(site).0 > rollout.number
        };
        if there.is_empty() || there.iter().filter(answered).count() < there.len() {
            return false;
        }
        let away = self.meant(&rollout.plan).count() - there.len();
        rollout.step_to(now_ms, Step::Done);
        let rest = if away == 0 { String::new() } else { format!("; {away} are away and get it when they come") };
        rollout.say(now_ms, format!("all sites that are there have it{rest}"), out);
        false
    }
}

fn is_under_way(rollout: &Rollout) -> bool {
    matches!(rollout.step, Step::Staged | Step::Canary | Step::Everywhere)
}
