//! The view for a terminal: the whole screen, redrawn five times a second.

use std::time::Duration;

use millpond_env::Mono;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, List, ListItem, Paragraph, Row, Table},
};

use super::{
    cloud::SiteStatus,
    lines::{age, audit, size},
    mesh::{NAMES, NODES, OF_SITE, REMOTE, SITES, site_of},
    status::{Alert, NodeStatus, Status},
};

/// What the user asked for with the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    End,
    /// The node with this index.
    Kill(usize),
    /// All that are gone.
    Restart,
    /// The line of the remote site to the cloud shall be cut.
    Cut,
    /// And put back.
    Heal,
}

/// The terminal in its raw mode; given back when this is dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    /// `k` was pressed: the next digit says which node.
    kills: bool,
}

impl Screen {
    pub fn open() -> anyhow::Result<Screen> {
        Ok(Screen { terminal: ratatui::try_init()?, kills: false })
    }

    /// Draws, and reads the keys that were pressed: what the user wants.
    pub fn draw(&mut self, status: &Status, now: Mono) -> anyhow::Result<Option<Wish>> {
        let kills = self.kills;
        self.terminal.draw(|frame| render(frame, status, now, kills))?;
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else { continue };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            let kills = std::mem::take(&mut self.kills);
            match key.code {
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(Some(Wish::End)),
                KeyCode::Char('q') | KeyCode::Esc => return Ok(Some(Wish::End)),
                KeyCode::Char('k') => self.kills = true,
                KeyCode::Char('r') => return Ok(Some(Wish::Restart)),
                KeyCode::Char('c') => {
                    let is_cut = status.cloud.sites[REMOTE].is_cut;
                    return Ok(Some(if is_cut { Wish::Heal } else { Wish::Cut }));
                }
                KeyCode::Char(digit @ '1'..='9') if kills => {
                    let node = digit as usize - '1' as usize;
                    if node < NODES {
                        return Ok(Some(Wish::Kill(node)));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn render(frame: &mut Frame<'_>, status: &Status, now: Mono, kills: bool) {
    let [head, nodes, cloud, middle, log, foot] = Layout::vertical([
        Constraint::Length(6),
        Constraint::Length(NODES as u16 + 3),
        Constraint::Length(SITES.len() as u16 + 3),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [panes, alerts] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    render_head(frame, head, status, now);
    render_nodes(frame, nodes, status);
    render_cloud(frame, cloud, status);
    render_panes(frame, panes, status);
    render_alerts(frame, alerts, status);
    render_log(frame, log, status);
    let line = if status.cloud.sites[REMOTE].is_cut { "put back" } else { "cut" };
    let help = match kills {
        true => format!(" kill which node? 1 to {NODES}"),
        false => format!(
            " k, then 1 to {NODES}: kill that node   r: start it again   c: {line} the line of {} to the cloud   q or Ctrl-C: end",
            SITES[REMOTE]
        ),
    };
    frame.render_widget(Line::from(help).dim(), foot);
}

fn render_head(frame: &mut Frame<'_>, area: Rect, status: &Status, now: Mono) {
    let strong = |text: String| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
    let found = match status.audit() {
        Some(audit) if audit.missing > 0 => Style::new().fg(Color::Red),
        Some(_) => Style::new().fg(Color::Green),
        None => Style::new(),
    };
    let waiting: usize = status.waiting.iter().sum();
    let lines = vec![
        Line::from(vec![
            strong(format!("{:>9.0}", status.recent.events_per_s)),
            " events/s   acknowledged in ".into(),
            strong(format!("{:.1} ms", status.recent.ack_ms_p50)),
            format!(" (p50)  {:.1} ms (p99)", status.recent.ack_ms_p99).into(),
        ]),
        Line::from(vec![
            strong(format!("{:>9}", status.published)),
            " published  ".into(),
            strong(status.acked.to_string()),
            format!(" acknowledged  {waiting} waiting   ").into(),
            Span::styled(audit(status), found),
        ]),
        Line::from(vec![
            strong(format!("{:>9}", status.machines.len())),
            " devices at two sites; a third of a site's is at home at each node, and turns to the next one when it is gone".into(),
        ]),
        Line::from(format!(
            "{:>9} results of windows   {} alerts fired, {} resolved   {} windows of dead nodes continued by others",
            status.panes_seen, status.alerts_fired, status.alerts_resolved, status.adopted
        )),
    ];
    let title = format!(" millpond demo  {:.0} s ", now.since(status.begun).as_secs_f64());
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

fn render_nodes(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.nodes.iter().enumerate().map(|(at, node)| {
        let machines: Vec<&str> =
            NAMES.iter().zip(&status.lines).filter(|(_, to)| **to == Some(at)).map(|(name, _)| *name).collect();
        let (state, style) = state_of(node);
        Row::new([
            format!("{} {}", at + 1, NAMES[at]),
            SITES[site_of(at)].to_owned(),
            node.pid.to_string(),
            state,
            node.seen.events.to_string(),
            node.seen.copied.to_string(),
            node.seen.missing.to_string(),
            size(node.seen.file_bytes),
            machines.join(", "),
            node.http.clone(),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Fill(1),
        Constraint::Length(16),
    ];
    let titles = ["node", "site", "process", "", "events", "copied", "missing", "journal", "machines of", "http"];
    let head = Row::new(titles).style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Table::new(rows, widths).header(head).block(Block::bordered().title(" the sites ")), area);
}

fn state_of(node: &NodeStatus) -> (String, Style) {
    match (node.up_since, node.seen.members) {
        (None, _) => ("dead".to_owned(), Style::new().fg(Color::Red)),
        (Some(_), 0) => ("starting".to_owned(), Style::new().fg(Color::Yellow)),
        (Some(_), members) if members as usize == OF_SITE => (format!("sees {members}"), Style::new()),
        (Some(_), members) => (format!("sees {members}"), Style::new().fg(Color::Yellow)),
    }
}

fn render_cloud(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = SITES.iter().zip(&status.cloud.sites).map(|(name, site)| {
        let (line, style) = line_of(site);
        Row::new([
            (*name).to_owned(),
            line.to_owned(),
            format!("{} of {}", site.ledger.connected(), site.ledger.journals()),
            site.ledger.delivered().to_string(),
            site.at_site().to_string(),
            site.eta().map(age).unwrap_or_default(),
            site.ledger.missing().to_string(),
            if site.is_closed() { "closed" } else { "open" }.to_owned(),
            site.age.map(age).unwrap_or_default(),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Fill(1),
    ];
    let titles = ["site", "line", "connected", "delivered", "at site", "ready in", "missing", "ledger", "newest value"];
    let head = Row::new(titles).style(Style::new().add_modifier(Modifier::DIM));
    let title = format!(" the cloud  {}  {} events in the archive ", status.cloud.http, status.cloud.archived);
    frame.render_widget(Table::new(rows, widths).header(head).block(Block::bordered().title(title)), area);
}

fn line_of(site: &SiteStatus) -> (&'static str, Style) {
    match (site.is_cut, site.ledger.missing()) {
        (true, 0) => ("cut", Style::new().fg(Color::Yellow)),
        (false, 0) => ("there", Style::new()),
        (is_cut, _) => (if is_cut { "cut" } else { "there" }, Style::new().fg(Color::Red)),
    }
}

fn render_panes(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let shown = usize::from(area.height.saturating_sub(3));
    let rows = status.panes().into_iter().take(shown).map(|pane| {
        let style = if pane.mean > 6.0 { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new([
            pane.key.clone(),
            format!("{}", pane.count),
            format!("{:.2}", pane.mean),
            format!("{:.2}", pane.max),
            format!("{:.1}", pane.temperature),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let head = Row::new(["machine", "events", "mm/s", "max", "°C"]).style(Style::new().add_modifier(Modifier::DIM));
    let title = format!(" window {} ", super::config::WINDOW);
    frame.render_widget(Table::new(rows, widths).header(head).block(Block::bordered().title(title)), area);
}

fn render_alerts(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let items = status.alerts().into_iter().map(|alert| ListItem::new(alert_line(alert)));
    frame.render_widget(List::new(items).block(Block::bordered().title(" alerts ")), area);
}

fn alert_line(alert: &Alert) -> Line<'static> {
    let color = match alert.state.as_str() {
        "firing" => Color::Red,
        "pending" => Color::Yellow,
        _ => Color::Green,
    };
    Line::from(vec![
        Span::styled(format!("{:<9}", alert.state), Style::new().fg(color)),
        format!("{} {} (worst {:.1}) {}", alert.rule, alert.key, alert.peak, alert.message).into(),
    ])
}

fn render_log(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let shown = usize::from(area.height.saturating_sub(2));
    let mut items: Vec<ListItem<'_>> = status
        .said
        .iter()
        .rev()
        .filter(|(_, what)| !what.starts_with("window "))
        .take(shown)
        .map(|(at, what)| ListItem::new(format!("{:6.1}s  {what}", at.as_secs_f64())))
        .collect();
    items.reverse();
    frame.render_widget(List::new(items).block(Block::bordered().title(" what happened ")), area);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::demo::ledger::Ledger;

    #[test]
    fn the_screen_shows_a_firing_alert_a_dead_node_and_a_line_that_is_cut() {
        let node = |pid| NodeStatus::new(pid, ("127.0.0.1", 1), ("127.0.0.1", 2), Mono(0));
        let mut status = Status::new(Mono(0), "/tmp/x".into(), (42..48).map(node).collect());
        status.nodes[1].up_since = None;
        let alert = serde_json::json!({ "id": "a", "rule": "vibration-high", "key": "press-0001", "state": "firing", "since": 1 });
        status.take_alerts(Mono(0), 0, &[alert]);
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        let row = serde_json::json!({ "rows": [{ "name": "hall", "origin": "aa", "incarnation": 0, "records": 90, "delivered": 48, "at_site": 42 }] });
        status.cloud.sites[1].is_cut = true;
        status.cloud.sites[1].age = Some(millpond_core::time::Span::from_millis(7_300));
        status.cloud.sites[1].take(Mono(0), Ledger::of_json(&row));
        terminal.draw(|frame| render(frame, &status, Mono(3_000_000_000), false)).unwrap();
        let shown = terminal.backend().to_string();
        assert!(shown.contains("firing   vibration-high press-0001"), "{shown}");
        assert!(shown.contains("2 south  mill    43       dead"), "{shown}");
        let remote = "bakery   cut     0 of 1    48         42                0        open    7.3 s";
        assert!(shown.contains(remote), "{shown}");
        assert!(shown.contains("c: put back the line of bakery"), "{shown}");
    }
}
