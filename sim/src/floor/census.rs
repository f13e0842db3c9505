//! Someone who asks a node of a cloud, once and near the end, how many readings of each device it counts.

use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::{HttpClient, HttpError, escape};

use super::{Doors, Floor, true_time};
use crate::{witness::Counted, world::core::Instant};

/// Stamps of devices lie within so many days of the run.
const AROUND: Span = Span::from_secs(3 * 86_400);

/// Each machine of a rehearsal says one of these with each reading. They are asked for in steps: of values that stand alone two of the same
/// time would be told as one.
const METRICS: [&str; 2] = ["vibration", "power"];

/// `tenant_of` names the tenant to which a device of a node and a fleet belongs, when it is delivered to this cloud.
pub(super) async fn count(
    env: Env,
    floor: Floor,
    (node, doors): (String, Doors),
    at: Instant,
    tenant_of: impl Fn(&str, &str) -> Option<String> + Send,
) {
    let url = format!("http://{}:{}", doors.host, doors.http);
    let Ok(client) = HttpClient::new(env.clone(), &url, Some(&doors.token)) else { return };
    let start = env.wall().saturating_sub(AROUND).as_millis();
    env.sleep(Span(at.0.saturating_sub(true_time(&env).0) as i64)).await;
    let devices = floor.with_witness(|witness| {
        let devices = (0..).zip(&witness.devices);
        devices
            .map(|(number, device)| (number, device.name.clone(), tenant_of(&device.node, &device.fleet)))
            .collect::<Vec<_>>()
    });
    for (device, name, tenant) in devices {
        let Some(tenant) = tenant else { continue };
        let end = env.wall().saturating_add(AROUND).as_millis();
        let at = true_time(&env);
        let mut answer = Ok(0);
        for metric in METRICS {
            let path = format!(
                "/v1/query?device_id={}&metric={metric}&tenant={tenant}&start={start}&end={end}&aggregate=count&step=1h",
                escape(&name)
            );
            let more = match client.get(&path).await {
                Ok(body) => body["points"].as_array().map(|steps| sum(steps)).ok_or_else(|| body.to_string()),
                Err(HttpError::Refused { problem, .. }) => Err(problem.to_string()),
                Err(error) => Err(error.to_string()),
            };
            answer = answer.and_then(|count: u64| Ok(count + more?));
        }
        if floor.is_closed() {
            return;
        }
        floor.with_witness(|witness| witness.counted.push(Counted { at, node: node.clone(), device, answer }));
    }
}

/// The values of steps, added up.
fn sum(steps: &[serde_json::Value]) -> u64 {
    steps.iter().filter_map(|step| step[1].as_f64()).sum::<f64>() as u64
}
