//! Answers about another site, from the copies of its records that are here. Nothing of it becomes part of this site's windows, rules,
//! devices or twins.

use std::collections::BTreeMap;

use millpond_core::{
    alert::{Alert, AlertState},
    record::{self, Class, RecordKind},
    time::Timestamp,
    window::{Pane, WindowSpec},
};
use millpond_gateway::port::{AskError, Json, Query};
use millpond_store::Reader;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    api::newest,
    query, shapes,
    site::Copy,
    site_panes::{Shares, last_left_out},
};

/// What somebody wants to know of another site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    Query { query: Query },
    Panes { window: String, key: Option<String>, start: Option<Timestamp>, end: Option<Timestamp>, limit: usize },
    Alerts { state: Option<String>, rule: Option<String>, limit: usize },
}

/// The answer from these copies, in the shape of the same question to the own site. `windows` are the definitions that the other site works
/// with.
///
/// # Errors
/// When the question contradicts itself or a copy cannot be read.
pub fn answer(copies: &[Copy], windows: &[WindowSpec], question: &Question) -> Result<Json, AskError> {
    match question {
        Question::Query { query } => values(copies, query),
        Question::Panes { window, key, start, end, limit } => {
            let wanted = |pane: &Pane| {
                pane.window == *window
                    && key.as_ref().is_none_or(|key| pane.key == *key)
                    && start.is_none_or(|start| pane.start >= start)
                    && end.is_none_or(|end| pane.end <= end)
            };
            let panes = panes(copies, windows, window, *limit, wanted)?;
            Ok(json!({ "window": window, "panes": panes.iter().map(shapes::pane).collect::<Vec<Json>>() }))
        }
        Question::Alerts { state, rule, limit } => {
            let alerts = alerts(copies, state.as_deref(), rule.as_deref(), *limit)?;
            Ok(json!({ "alerts": alerts.iter().map(shapes::alert).collect::<Vec<Json>>() }))
        }
    }
}

fn values(copies: &[Copy], query: &Query) -> Result<Json, AskError> {
    let readers: Vec<&Reader> = copies.iter().map(|copy| &copy.reader).collect();
    let answer = query::answer(query, query::find(&readers, query)?);
    let whole = |ms: f64| if ms.fract() == 0.0 { json!(ms as i64) } else { json!(ms) };
    let points: Vec<Json> = answer.points.iter().map(|(ms, value)| json!([whole(*ms), value])).collect();
    let mut json = json!({ "device_id": answer.device_id, "metric": answer.metric, "points": points });
    if answer.truncated {
        json["truncated"] = json!(true);
    }
    Ok(json)
}

fn panes(
    copies: &[Copy],
    windows: &[WindowSpec],
    window: &str,
    limit: usize,
    wanted: impl Fn(&Pane) -> bool,
) -> Result<Vec<Pane>, AskError> {
    let spec = windows.iter().find(|spec| spec.name == window);
    let spec = spec.ok_or_else(|| AskError::NotFound(format!("the other site lets no window `{window}` be seen")))?;
    let mut shares = Shares::new(spec);
    for copy in copies {
        shares.read(&copy.reader, (copy.origin, copy.incarnation), limit, &wanted)?;
        shares.void((copy.origin, copy.incarnation), last_left_out(&copy.reader)?);
    }
    Ok(shares.merged(limit))
}

/// The last that was said of each alert, newest first.
fn alerts(copies: &[Copy], state: Option<&str>, rule: Option<&str>, limit: usize) -> Result<Vec<Alert>, AskError> {
    let unknown = || AskError::Invalid("`state` is pending, firing or resolved".into());
    let state = state.map(|name| AlertState::from_name(name).ok_or_else(unknown)).transpose()?;
    let mut all: BTreeMap<String, Alert> = BTreeMap::new();
    for copy in copies {
        newest(&copy.reader, Class::Alert, |row| {
            if row.kind == RecordKind::Alerts {
                for alert in record::decode::<Vec<Alert>>(row.payload).unwrap_or_default() {
                    match all.get(&alert.id) {
                        Some(known) if known.changed >= alert.changed => {}
                        _ => drop(all.insert(alert.id.clone(), alert)),
                    }
                }
            }
            true
        })?;
    }
    let wanted =
        |alert: &Alert| state.is_none_or(|state| alert.state == state) && rule.is_none_or(|rule| *alert.rule == *rule);
    let mut found: Vec<Alert> = all.into_values().filter(wanted).collect();
    found.sort_by_key(|alert| std::cmp::Reverse(alert.since));
    found.truncate(limit);
    Ok(found)
}
