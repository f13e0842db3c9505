//! Step by step through a run: commands from stdin, answers on stdout. Only looks are taken; the run is the same as without them.

use std::io::{BufRead, IsTerminal, Write};

use millpond_core::{problem::did_you_mean, time::Span};
use millpond_sim::{
    rehearsal::{Options, Plan, Rehearsal},
    report::Report,
    scenario::Injection,
    world::trace::Line,
};

use super::{state::State, summary, words};

/// Events kept for `events`.
const EVENTS: usize = 1000;

/// Events that `next` shows when more of them come in one step.
const SHOWN_MAX: usize = 12;

const HELP: &str = "\
next [N]       the next event of the trace, or the next N
to TIME        until then, as in: to 1h2m3s
to event N     until the trace has N events
to fault       until the next fault has happened
to end         until the run is over; then the promises are checked
show NODE      phase, clock and disk of a node, and which of its metrics changed since the last stop
show floor     devices and network
events [N]     the last N events of the trace (10)
diff           what changed since the last mark, or since the last stop
mark           compare with this moment from now on
faults         all faults, and which of them are past
help           this
quit           leave the run where it is
";

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
enum Command {
    Next(u64),
    ToTime(Span),
    ToEvent(u64),
    ToFault,
    ToEnd,
    Show(String),
    Events(usize),
    Diff,
    Mark,
    Faults,
    Help,
    Quit,
}

/// Reads commands until the run is over or the user leaves; the report, when it is over.
///
/// # Errors
/// When stdout or stdin fail.
pub fn run(plan: Plan, options: Options) -> anyhow::Result<Option<Report>> {
    let asks = std::io::stdin().is_terminal();
    let mut stepper = Stepper::new(Rehearsal::new(plan, options));
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    writeln!(out, "{}", stepper.place())?;
    let mut line = String::new();
    loop {
        if asks {
            write!(out, "> ")?;
        }
        out.flush()?;
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match parse(line.trim()) {
            Ok(None) => {}
            Ok(Some(Command::Quit)) => return Ok(None),
            Ok(Some(command)) => {
                if stepper.obey(command, &mut out)? {
                    let report = stepper.rehearsal.finish().report;
                    write!(out, "{}", summary::summary(&report, None))?;
                    return Ok(Some(report));
                }
            }
            Err(why) => writeln!(out, "{why}")?,
        }
    }
}

fn parse(line: &str) -> Result<Option<Command>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let count = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    let command = match words[..] {
        [] => return Ok(None),
        ["next" | "n"] => Command::Next(1),
        ["next" | "n", many] => Command::Next(count(many)?),
        ["to", "event", number] => Command::ToEvent(count(number)?),
        ["to", "fault"] => Command::ToFault,
        ["to", "end"] => Command::ToEnd,
        ["to", time] => Command::ToTime(time.parse().map_err(|error| format!("`{time}`: {error}"))?),
        ["show", place] => Command::Show(place.to_owned()),
        ["events"] => Command::Events(10),
        ["events", many] => Command::Events(count(many)? as usize),
        ["diff"] => Command::Diff,
        ["mark"] => Command::Mark,
        ["faults"] => Command::Faults,
        ["help" | "?"] => Command::Help,
        ["quit" | "q" | "exit"] => Command::Quit,
        [word, ..] => {
            let known = ["next", "to", "show", "events", "diff", "mark", "faults", "help", "quit"];
            let meant = did_you_mean(word, known).unwrap_or_else(|| "`help` shows what there is".to_owned());
            return Err(format!("`{line}` is no command: {meant}"));
        }
    };
    Ok(Some(command))
}

/// A run that stands still, and how it was at the last stop.
struct Stepper {
    rehearsal: Rehearsal,
    last: State,
    mark: Option<State>,
}

impl Stepper {
    fn new(rehearsal: Rehearsal) -> Stepper {
        rehearsal.world().core().tracer().keep(EVENTS);
        Stepper { last: State::of(&rehearsal), mark: None, rehearsal }
    }

    /// Does as it is told; `true` when the run is over.
    fn obey(&mut self, command: Command, out: &mut impl Write) -> std::io::Result<bool> {
        match command {
            Command::Next(many) => {
                let first = self.noted();
                let over = self.go(|stepper| stepper.noted() >= first + many);
                let lines: Vec<Line> = self.kept().into_iter().filter(|line| line.index >= first).collect();
                // A step may bring hundreds, such as all writes of a new journal.
                let shown = lines.len().min((many as usize).max(SHOWN_MAX));
                self.write_events(&lines[..shown], out)?;
                if shown < lines.len() {
                    let left = words::plural((lines.len() - shown) as u64, "event");
                    writeln!(out, "         {left} more in the same step: `events {}` shows all", lines.len())?;
                }
                return Ok(over);
            }
            Command::ToTime(time) => return self.travel(out, |stepper| stepper.now() >= time.0.max(0) as u64),
            Command::ToEvent(number) => return self.travel(out, |stepper| stepper.noted() >= number),
            Command::ToFault => {
                let now = self.now();
                let next = self.rehearsal.injections().iter().map(|fault| fault.at_ns).find(|at| *at > now);
                let Some(next) = next else {
                    writeln!(out, "no fault is left; `to end` goes on to the end")?;
                    return Ok(false);
                };
                let over = self.travel(out, |stepper| stepper.now() >= next)?;
                for (number, fault) in self.rehearsal.injections().iter().enumerate() {
                    if fault.at_ns > now && fault.at_ns <= self.now() {
                        writeln!(out, "{}", fault_line(number, fault))?;
                    }
                }
                return Ok(over);
            }
            Command::ToEnd => return self.travel(out, |_| false),
            Command::Show(place) => self.show(&place, out)?,
            Command::Events(many) => {
                let kept = self.kept();
                self.write_events(&kept[kept.len().saturating_sub(many)..], out)?;
            }
            Command::Diff => {
                let changed = State::of(&self.rehearsal).since(self.mark.as_ref().unwrap_or(&self.last));
                write_lines(&changed, "nothing changed", out)?;
            }
            Command::Mark => {
                self.mark = Some(State::of(&self.rehearsal));
                writeln!(out, "`diff` compares with {}", self.place())?;
            }
            Command::Faults => {
                let now = self.now();
                for (number, fault) in self.rehearsal.injections().iter().enumerate() {
                    let mark = if fault.at_ns <= now { "past" } else { "    " };
                    writeln!(out, "{mark} {}", fault_line(number, fault))?;
                }
            }
            Command::Help | Command::Quit => out.write_all(HELP.as_bytes())?,
        }
        Ok(false)
    }

    fn travel(&mut self, out: &mut impl Write, there: impl Fn(&Stepper) -> bool) -> std::io::Result<bool> {
        let over = self.go(there);
        writeln!(out, "{}", self.place())?;
        Ok(over)
    }

    fn go(&mut self, there: impl Fn(&Stepper) -> bool) -> bool {
        self.last = State::of(&self.rehearsal);
        while !there(self) {
            if !self.rehearsal.step() {
                return true;
            }
        }
        false
    }

    fn show(&self, place: &str, out: &mut impl Write) -> std::io::Result<()> {
        let state = State::of(&self.rehearsal);
        if place == "floor" {
            write_lines(&state.of_place("floor"), "", out)?;
            writeln!(out, "network")?;
            return write_lines(&state.of_place("net"), "", out);
        }
        if !self.rehearsal.nodes().iter().any(|node| node.name == place) {
            let names: Vec<&str> = self.rehearsal.nodes().iter().map(|node| node.name.as_str()).collect();
            return writeln!(out, "there is no node `{place}`; there is floor, and {}", names.join(", "));
        }
        write_lines(&state.of_place(place), "", out)?;
        let prefix = format!("  {place} millpond_");
        let changed = state.since(&self.last).into_iter().filter(|line| line.starts_with(&prefix));
        writeln!(out, "metrics that changed since the last stop")?;
        write_lines(&changed.collect::<Vec<_>>(), "none", out)
    }

    fn now(&self) -> u64 {
        self.rehearsal.world().now().0
    }

    fn noted(&self) -> u64 {
        self.rehearsal.world().core().tracer().noted()
    }

    fn kept(&self) -> Vec<Line> {
        self.rehearsal.world().core().tracer().tail().cloned().collect()
    }

    fn place(&self) -> String {
        let faults = self.rehearsal.injections();
        let past = faults.iter().filter(|fault| fault.at_ns <= self.now()).count();
        let time = words::moment(self.now());
        format!("at {time}, event {}, {past} of {}", self.noted(), words::plural(faults.len() as u64, "fault"))
    }

    fn write_events(&self, lines: &[Line], out: &mut impl Write) -> std::io::Result<()> {
        for line in lines {
            let host = self.rehearsal.world().name(line.host);
            writeln!(out, "{:>8} {} {host:<10} {} {}", line.index, words::moment(line.at.0), line.kind, line.detail)?;
        }
        Ok(())
    }
}

fn fault_line(number: usize, injection: &Injection) -> String {
    let table = toml::Table::try_from(&injection.fault).unwrap_or_default();
    let details = table.iter().filter(|(key, _)| *key != "kind").map(|(key, value)| format!("{key}={value}"));
    let details: Vec<String> = details.chain(injection.operations.map(|n| format!("operations={n}"))).collect();
    format!("{number:>4} {} {} {}", words::moment(injection.at_ns), injection.fault.name(), details.join(" "))
}

fn write_lines(lines: &[String], none: &str, out: &mut impl Write) -> std::io::Result<()> {
    if lines.is_empty() && !none.is_empty() {
        return writeln!(out, "  {none}");
    }
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_and_mistakes_explained() {
        let of = |line: &str| parse(line);
        assert_eq!(of("next 3"), Ok(Some(Command::Next(3))));
        assert_eq!(of("to 1h2m3s"), Ok(Some(Command::ToTime(Span::from_secs(3723)))));
        assert_eq!(of("to event 7"), Ok(Some(Command::ToEvent(7))));
        assert_eq!(of("to fault"), Ok(Some(Command::ToFault)));
        assert_eq!(of(""), Ok(None));
        assert!(of("nexxt").unwrap_err().contains("did you mean `next`"));
        assert!(of("to nowhere").is_err());
        assert!(of("next many").is_err());
    }

    #[test]
    fn every_command_is_in_the_help() {
        for word in ["next", "to", "show", "events", "diff", "mark", "faults", "help", "quit"] {
            assert!(HELP.lines().any(|line| line.starts_with(word)), "{word}");
        }
    }
}
