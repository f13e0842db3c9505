//! What the user sees and does while the demo runs: nodes die and are started again, and the line of a site to the cloud is cut and put back.

use std::io::IsTerminal;

use anyhow::Context;
use millpond_core::time::Span;
use millpond_env::{Env, Mono};

use super::{
    Options, Shared, TICK,
    lines::Lines,
    mesh::{Mesh, NAMES, NODES, REMOTE, SITES},
    screen::{Screen, Wish},
};
use crate::{bench::node::ChildNode, roles::signals::Signals};

/// The node that is killed by itself: neither the founder nor the home of the machine that breaks.
const VICTIM: usize = 1;

enum View {
    Screen(Screen),
    Lines(Lines),
}

/// What happens by itself.
struct Plan {
    begun: Mono,
    kill_after: Option<Span>,
    cut_after: Option<Span>,
    heal_at: Option<Mono>,
}

impl Plan {
    /// What is due now.
    fn wish(&mut self, now: Mono, heal_after: Span) -> Option<Wish> {
        let due = |after: &mut Option<Span>| after.take_if(|after| now.since(self.begun) >= *after).is_some();
        if due(&mut self.kill_after) {
            return Some(Wish::Kill(VICTIM));
        }
        if due(&mut self.cut_after) {
            self.heal_at = Some(now.after(heal_after));
            return Some(Wish::Cut);
        }
        self.heal_at.take_if(|at| now >= *at).map(|_| Wish::Heal)
    }
}

/// Shows the status until the end: the time is over, a signal, a key.
///
/// # Errors
/// When the terminal cannot be used, or a node does not start again.
pub async fn run(
    env: &Env,
    options: &Options,
    (mesh, status): (&mut Mesh, &Shared),
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let mut view = if std::io::stdout().is_terminal() && !options.plain {
        View::Screen(Screen::open()?)
    } else {
        View::Lines(Lines::new(env.now()))
    };
    let ended = until_the_end(env, options, (mesh, status), &mut view, signals).await;
    if let View::Screen(_) = view {
        // It was seen.
        status.lock().said.clear();
    }
    ended
}

async fn until_the_end(
    env: &Env,
    options: &Options,
    (mesh, status): (&mut Mesh, &Shared),
    view: &mut View,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let begun = env.now();
    let mut plan = Plan { begun, kill_after: options.kill_after, cut_after: options.cut_after, heal_at: None };
    let mut died: [Option<Mono>; NODES] = Default::default();
    loop {
        let now = env.now();
        let wish = match view {
            View::Screen(screen) => screen.draw(&status.lock(), now)?,
            View::Lines(lines) => {
                lines.print(&mut status.lock(), now)?;
                None
            }
        };
        if wish == Some(Wish::End) || options.length.is_some_and(|length| now.since(begun) >= length) {
            return Ok(());
        }
        let wish = wish.or_else(|| plan.wish(now, options.heal_after));
        match wish {
            Some(Wish::Kill(node)) => mesh.nodes[node].kill(),
            Some(Wish::Cut) => cut(now, mesh, status, true),
            Some(Wish::Heal) => cut(now, mesh, status, false),
            Some(Wish::Restart | Wish::End) | None => {}
        }
        let is_plain = matches!(view, View::Lines(_));
        for (at, node) in mesh.nodes.iter_mut().enumerate() {
            note_death(now, at, node, &mut died[at], status);
            let waited = is_plain && died[at].is_some_and(|died| now.since(died) >= options.restart_after);
            if died[at].is_some() && (waited || wish == Some(Wish::Restart)) {
                // One that takes its time does not keep anybody from ending it all.
                tokio::select! {
                    biased;
                    _ = signals.next() => return Ok(()),
                    restarted = restart(env, at, node, status) => restarted?,
                }
                died[at] = None;
            }
        }
        tokio::select! {
            biased;
            _ = signals.next() => return Ok(()),
            () = env.sleep(TICK) => {}
        }
    }
}

/// Puts everything back for the last count: the cloud is to have what nodes that are dead know, and what is behind a line that is cut.
///
/// # Errors
/// When a node does not start again.
pub async fn restore(env: &Env, mesh: &mut Mesh, status: &Shared) -> anyhow::Result<()> {
    cut(env.now(), mesh, status, false);
    for (at, node) in mesh.nodes.iter_mut().enumerate() {
        if node.ended().is_some() {
            note_death(env.now(), at, node, &mut None, status);
            restart(env, at, node, status).await?;
        }
    }
    Ok(())
}

/// Cuts the line of the remote site to the cloud, or puts it back.
fn cut(now: Mono, mesh: &Mesh, status: &Shared, cut: bool) {
    let line = &mesh.relays[REMOTE];
    if line.is_cut() == cut {
        return;
    }
    line.cut(cut);
    let mut status = status.lock();
    status.cloud.sites[REMOTE].is_cut = cut;
    status.cuts += u32::from(cut);
    let how = if cut { "is cut; it goes on by itself" } else { "is there again" };
    status.say(now, format!("the line of {} to the cloud {how}", SITES[REMOTE]));
}

fn note_death(now: Mono, at: usize, node: &mut ChildNode, died: &mut Option<Mono>, status: &Shared) {
    let Some(how) = node.ended().filter(|_| died.is_none()) else { return };
    *died = Some(now);
    let mut status = status.lock();
    status.kills += 1;
    (status.nodes[at].up_since, status.nodes[at].seen) = (None, Default::default());
    let acked = status.nodes[at].acked;
    status.say(now, format!("{} died ({how}); it had acknowledged {acked} readings", NAMES[at]));
}

async fn restart(env: &Env, at: usize, node: &mut ChildNode, status: &Shared) -> anyhow::Result<()> {
    node.restart(env).await.with_context(|| format!("{} does not start again", NAMES[at]))?;
    let now = env.now();
    let mut status = status.lock();
    status.restarts += 1;
    (status.nodes[at].pid, status.nodes[at].up_since) = (node.pid(), Some(now));
    status.say(now, format!("{} is back on the same data (process {})", NAMES[at], node.pid()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_happens_once_and_the_line_comes_back() {
        let second = |second: u64| Mono(second * 1_000_000_000);
        let (kill_after, cut_after) = (Some(Span::from_secs(2)), Some(Span::from_secs(2)));
        let mut plan = Plan { begun: second(1), kill_after, cut_after, heal_at: None };
        let wishes: Vec<Option<Wish>> =
            [2, 3, 4, 5, 6, 7, 8].map(|at| plan.wish(second(at), Span::from_secs(3))).into();
        let expected = [None, Some(Wish::Kill(VICTIM)), Some(Wish::Cut), None, None, Some(Wish::Heal), None];
        assert_eq!(wishes, expected);
    }
}
