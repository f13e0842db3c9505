//! Two nodes whose copies of a document have gone apart become one again: the machines alone, without network and disk.

use std::{collections::VecDeque, fmt};

use anyhow::{Context, bail, ensure};
use millpond_core::{ids::Origin, time::Span};
use millpond_env::Env;
use millpond_proto::{
    Now,
    documents::{COALESCE, Documents, Effect, Input, Kind},
};
use serde::Serialize;

use crate::world::os;

/// Rules that both nodes change; each of them ends as a conflict of the two.
const NAMES: u32 = 1_000;
const ORIGINS: [Origin; 2] = [Origin([1; 16]), Origin([2; 16])];

#[derive(Clone, Debug, Serialize)]
pub struct DocumentsReport {
    /// Changes that each of the two made while it did not see the other.
    pub edits: u32,
    pub wall_s: f64,
    pub cpu_s: f64,
    pub exchanged_bytes: u64,
    pub messages: u64,
}

pub async fn run(env: &Env, edits: u32) -> anyhow::Result<DocumentsReport> {
    eprintln!("two nodes that do not see each other, and {edits} changes of one document on each");
    let clock = env.clone();
    env.unblock(move || converge(&clock, edits)).await.context("the documents panicked")?
}

fn converge(env: &Env, edits: u32) -> anyhow::Result<DocumentsReport> {
    let mut pair = Pair {
        sides: ORIGINS.map(|origin| Documents::new(origin, 1, [])),
        now: Now::default(),
        under_way: VecDeque::new(),
        bytes: 0,
        messages: 0,
    };
    for number in 0..edits {
        pair.edit(0, number)?;
        pair.edit(1, number)?;
    }
    for side in &pair.sides {
        let size = side.size();
        // A document that began an epoch on its own would have less to say.
        ensure!(size.changes == u64::from(edits) && size.epoch == 0, "not {edits} changes but {size:?}");
    }
    let (begun, cpu) = (env.now(), os::thread_cpu());
    for (side, other) in [(0, 1), (1, 0)] {
        pair.tell(side, Input::PeerUp(ORIGINS[other]));
    }
    pair.deliver();
    let (wall, cpu) = (env.now().since(begun), Span(os::thread_cpu().0 - cpu.0));
    let [one, two] = &pair.sides;
    if one.head(Kind::Rules) != two.head(Kind::Rules) || one.conflicts() != two.conflicts() {
        bail!("the two have not become one: {:?} and {:?}", one.size(), two.size());
    }
    ensure!(one.size().changes == 2 * u64::from(edits), "{:?} is not what both have made", one.size());
    Ok(DocumentsReport {
        edits,
        wall_s: wall.as_secs_f64(),
        cpu_s: cpu.as_secs_f64(),
        exchanged_bytes: pair.bytes,
        messages: pair.messages,
    })
}

/// Two nodes, and between them a line that takes no time. What is saved is on disk at once.
struct Pair {
    sides: [Documents; 2],
    now: Now,
    under_way: VecDeque<(usize, Vec<u8>)>,
    bytes: u64,
    messages: u64,
}

impl Pair {
    /// One edit, and enough time that it is a change by itself.
    fn edit(&mut self, side: usize, number: u32) -> anyhow::Result<()> {
        let (name, wall_ms) = (format!("rule-{}", number % NAMES), (self.now.0 / 1_000_000) as i64);
        let text = format!("side {side} says for the time {number}: celsius > {}", number % 97);
        self.sides[side].put_text(self.now, wall_ms, Kind::Rules, &name, &text)?;
        self.now = self.now.after(COALESCE);
        self.tell(side, Input::Tick);
        Ok(())
    }

    fn tell(&mut self, side: usize, input: Input<'_>) {
        let mut effects = Vec::new();
        self.sides[side].handle(self.now, input, &mut effects);
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Save { id, .. } => {
                    let mut effects = Vec::new();
                    self.sides[side].handle(self.now, Input::Saved(id), &mut effects);
                    todo.extend(effects);
                }
                Effect::Send { bytes, .. } => {
                    self.bytes += bytes.len() as u64;
                    self.messages += 1;
                    self.under_way.push_back((1 - side, bytes));
                }
                Effect::Changed(..) => {}
            }
        }
    }

    /// Until nobody has more to say.
    fn deliver(&mut self) {
        while let Some((to, bytes)) = self.under_way.pop_front() {
            self.tell(to, Input::Heard { from: ORIGINS[1 - to], bytes: &bytes });
        }
    }
}

impl fmt::Display for DocumentsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = self.exchanged_bytes as f64 / 1e3;
        writeln!(
            f,
            "two documents          one after {:.2} s, {:.2} s of CPU, {kb:.0} kB in {} messages ({} changes each)",
            self.wall_s, self.cpu_s, self.messages, self.edits
        )
    }
}
