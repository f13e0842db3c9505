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
    lines::size,
    status::{Alert, Status},
};

/// The terminal in its raw mode; given back when this is dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub fn open() -> anyhow::Result<Screen> {
        Ok(Screen { terminal: ratatui::try_init()? })
    }

    /// Draws, and reads the keys that were pressed. `true` when the user wants to end.
    pub fn draw(&mut self, status: &Status, now: Mono) -> anyhow::Result<bool> {
        self.terminal.draw(|frame| render(frame, status, now))?;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
                if key.kind == KeyEventKind::Press && (interrupt || quit) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn render(frame: &mut Frame<'_>, status: &Status, now: Mono) {
    let [head, middle, log, foot] =
        Layout::vertical([Constraint::Length(6), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)])
            .areas(frame.area());
    let [panes, alerts] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    render_head(frame, head, status, now);
    render_panes(frame, panes, status);
    render_alerts(frame, alerts, status);
    render_log(frame, log, status);
    let help = format!(" q or Ctrl-C ends. Try: kill -9 {}   {}   mqtt://{}", status.pid, status.http, status.mqtt);
    frame.render_widget(Line::from(help).dim(), foot);
}

fn render_head(frame: &mut Frame<'_>, area: Rect, status: &Status, now: Mono) {
    let strong = |text: String| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
    let health = match status.health.as_str() {
        "ok" => Span::styled("ok", Style::new().fg(Color::Green)),
        other => Span::styled(other.to_owned(), Style::new().fg(Color::Yellow)),
    };
    let link = if status.connected { "connected".to_owned() } else { "not connected".to_owned() };
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
            " acknowledged  ".into(),
            strong(status.journal.events.to_string()),
            format!(" stored  {} waiting  {} dead letters", status.waiting, status.journal.dead_letters).into(),
        ]),
        Line::from(vec![
            strong(format!("{:>9}", status.devices)),
            format!(" devices, {link}   journal {}   health ", size(status.journal.file_bytes)).into(),
            health,
        ]),
        Line::from(format!(
            "{:>9} results of windows   {} alerts fired, {} resolved   node started {} times",
            status.panes_seen,
            status.alerts_fired,
            status.alerts_resolved,
            status.restarts + 1
        )),
    ];
    let title = format!(" millpond demo  {:.0} s ", now.since(status.begun).as_secs_f64());
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

fn render_panes(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let shown = usize::from(area.height.saturating_sub(3));
    let rows = status.panes.iter().rev().take(shown).map(|pane| {
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
    let items = status.alerts.values().rev().map(|alert| ListItem::new(alert_line(alert)));
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
    use std::path::Path;

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    #[test]
    fn the_screen_shows_a_firing_alert() {
        let mut status = Status::new(Mono(0), 42, ("127.0.0.1", 1), ("127.0.0.1", 2), Path::new("/tmp/x"));
        let alert = serde_json::json!({ "id": "a", "rule": "vibration-high", "key": "press-0001", "state": "firing", "since": 1 });
        status.take_alerts(Mono(0), &[alert]);
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| render(frame, &status, Mono(3_000_000_000))).unwrap();
        let shown = terminal.backend().to_string();
        assert!(shown.contains("firing   vibration-high press-0001"), "{shown}");
        assert!(shown.contains("kill -9 42"), "{shown}");
    }
}
