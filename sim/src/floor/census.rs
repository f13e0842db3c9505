//! Someone who asks a node of a cloud, once and near the end, how many readings of each device it counts.

use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::{HttpClient, HttpError, escape};

use super::{Doors, Floor, true_time};
use crate::{witness::Counted, world::core::Instant};

/// Stamps of devices lie within so many days of the run.
const AROUND: Span = Span::from_secs(3 * 86_400);

/// `tenant_of` names the tenant to which the devices of a node belong, when they deliver to this cloud.
pub(super) async fn count(
    env: Env,
    floor: Floor,
    (node, doors): (String, Doors),
    at: Instant,
    tenant_of: impl Fn(&str) -> Option<String> + Send,
) {
    let url = format!("http://{}:{}", doors.host, doors.http);
    let Ok(client) = HttpClient::new(env.clone(), &url, Some(&doors.token)) else { return };
    let start = env.wall().saturating_sub(AROUND).as_millis();
    env.sleep(Span(at.0.saturating_sub(true_time(&env).0) as i64)).await;
    let devices = floor.with_witness(|witness| {
        let devices = (0..).zip(&witness.devices);
        devices.map(|(number, device)| (number, device.name.clone(), device.node.clone())).collect::<Vec<_>>()
    });
    for (device, name, of) in devices {
        let Some(tenant) = tenant_of(&of) else { continue };
        let end = env.wall().saturating_add(AROUND).as_millis();
        // Each machine of a rehearsal says its state with each reading.
        let path = format!(
            "/v1/query?device_id={}&metric=state&tenant={tenant}&start={start}&end={end}&limit=500000",
            escape(&name)
        );
        let at = true_time(&env);
        let answer = match client.get(&path).await {
            Ok(body) => body["points"].as_array().map(|points| points.len() as u64).ok_or_else(|| body.to_string()),
            Err(HttpError::Refused { problem, .. }) => Err(problem.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if floor.is_closed() {
            return;
        }
        floor.with_witness(|witness| witness.counted.push(Counted { at, node: node.clone(), device, answer }));
    }
}
