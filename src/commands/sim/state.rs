//! What can be seen of a run without disturbing it, as a list of names and values, and what changed between two looks.

use std::collections::BTreeMap;

use millpond_sim::{rehearsal::Rehearsal, site::Phase};

/// What there is to see, by `place name`: places are the nodes, `floor` and `net`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State(BTreeMap<String, Shown>);

#[derive(Clone, Debug, PartialEq)]
enum Shown {
    Number(f64),
    Word(String),
}

impl State {
    pub fn of(rehearsal: &Rehearsal) -> State {
        let mut state = State::default();
        let world = rehearsal.world();
        for node in rehearsal.nodes() {
            let mut put = |name: &str, value: f64| state.number(&node.name, name, value);
            put("boots", f64::from(world.boots(node.host)));
            put("clock.error_ms", world.clock(node.host).error(world.now()).0 as f64 / 1e6);
            put("net.buffered_bytes", world.network().buffered(node.host) as f64);
            if let Some(disk) = world.disk(node.host) {
                let stats = disk.stats();
                put("disk.used_bytes", stats.used as f64);
                put("disk.free_bytes", disk.free() as f64);
                put("disk.writes", stats.writes as f64);
                put("disk.syncs", stats.syncs as f64);
                put("disk.written_bytes", stats.bytes_written as f64);
                put("disk.power_losses", stats.power_losses as f64);
                put("disk.power_losses_mid_commit", stats.power_losses_mid_commit as f64);
                put("disk.sectors_lost", stats.sectors_lost as f64);
            }
            for (name, value) in node.metrics() {
                put(&name, value);
            }
            let phase = phase_name(&node.phase());
            state.0.insert(format!("{} phase", node.name), Shown::Word(phase));
        }
        rehearsal.floor().with_witness(|witness| {
            let mut put = |name: &str, value: u64| state.number("floor", name, value as f64);
            put("devices", witness.devices.len() as u64);
            put("measured", witness.published());
            put("acknowledged", witness.acknowledged());
            put("malformed_acknowledged", witness.malformed_acked);
            put("refused", witness.refusals);
            put("reconnects", witness.reconnects);
            put("notifications", witness.notifications.len() as u64);
            put("health_questions", witness.probes.len() as u64);
        });
        let net = world.network().stats();
        let mut put = |name: &str, value: u64| state.number("net", name, value as f64);
        put("open_streams", world.network().open_streams() as u64);
        put("segments", net.segments);
        put("bytes", net.bytes);
        put("lost", net.lost);
        put("refused", net.refused);
        put("timed_out", net.timed_out);
        state
    }

    fn number(&mut self, place: &str, name: &str, value: f64) {
        self.0.insert(format!("{place} {name}"), Shown::Number(value));
    }

    /// The values of a place, without a node's metrics.
    pub fn of_place(&self, place: &str) -> Vec<String> {
        let prefix = format!("{place} ");
        let mine = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value)));
        mine.filter(|(name, _)| !is_metric(name)).map(|(name, value)| format!("  {name:<30} {value}")).collect()
    }

    /// What is not as it was, one line each.
    pub fn since(&self, before: &State) -> Vec<String> {
        let mut lines = Vec::new();
        let mut gone: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, was) in &before.0 {
            match self.0.get(name) {
                None => *gone.entry(name.split(' ').next().unwrap_or_default()).or_default() += 1,
                Some(is) if is == was => {}
                Some(Shown::Number(is)) => match was {
                    Shown::Number(was) => {
                        let by = is - was;
                        let sign = if by > 0.0 { "+" } else { "" };
                        lines.push(format!("  {name}: {} → {} ({sign}{})", plain(*was), plain(*is), plain(by)));
                    }
                    Shown::Word(was) => lines.push(format!("  {name}: {was} → {}", plain(*is))),
                },
                Some(is) => lines.push(format!("  {name}: {was} → {is}")),
            }
        }
        let new = self.0.iter().filter(|(name, value)| !before.0.contains_key(*name) && **value != Shown::Number(0.0));
        lines.extend(new.map(|(name, value)| format!("  {name}: new, {value}")));
        let gone = gone.iter().map(|(place, many)| format!("  {place}: {many} metrics went with its program"));
        lines.extend(gone);
        lines
    }
}

fn is_metric(name: &str) -> bool {
    name.starts_with("millpond_") || name.starts_with("process_")
}

fn phase_name(phase: &Phase) -> String {
    match phase {
        Phase::Off => "off".to_owned(),
        Phase::Starting => "starting".to_owned(),
        Phase::Up => "up".to_owned(),
        Phase::Stopping => "stopping".to_owned(),
        Phase::Stopped => "stopped".to_owned(),
        Phase::Ended(why) => format!("ended by itself: {why}"),
    }
}

fn plain(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.6}").trim_end_matches('0').to_owned() }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shown::Number(number) => f.write_str(&plain(*number)),
            Shown::Word(word) => f.write_str(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(values: &[(&str, Shown)]) -> State {
        State(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn only_what_changed_is_told() {
        let word = |word: &str| Shown::Word(word.to_owned());
        let before = state(&[
            ("edge millpond_events", Shown::Number(7.0)),
            ("edge phase", word("up")),
            ("edge disk.used_bytes", Shown::Number(4096.0)),
            ("floor measured", Shown::Number(10.0)),
        ]);
        let after = state(&[
            ("edge phase", word("off")),
            ("edge disk.used_bytes", Shown::Number(8192.5)),
            ("floor measured", Shown::Number(10.0)),
            ("net lost", Shown::Number(1.0)),
            ("net bytes", Shown::Number(0.0)),
        ]);
        let expected = [
            "  edge disk.used_bytes: 4096 → 8192.5 (+4096.5)",
            "  edge phase: up → off",
            "  net lost: new, 1",
            "  edge: 1 metrics went with its program",
        ];
        assert_eq!(after.since(&before), expected);
        assert!(after.since(&after).is_empty());
    }
}
