//! Someone who asks a node, again and again, whether it is ready.

use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::{HttpClient, HttpError};

use super::{Doors, Floor, true_time};
use crate::witness::{Answer, Probe};

pub(super) async fn ask(env: Env, floor: Floor, node: String, doors: Doors, every: Span) {
    let Ok(client) = HttpClient::new(env.clone(), &format!("http://{}:{}", doors.host, doors.http), None) else {
        return;
    };
    loop {
        env.sleep(every).await;
        let at = true_time(&env);
        let answer = match client.get("/readyz").await {
            Ok(body) => Answer::Said { status: 200, body: body.to_string() },
            Err(HttpError::Refused { status, problem }) => {
                Answer::Said { status: status.as_u16(), body: problem.to_string() }
            }
            Err(_) => Answer::Silent,
        };
        if floor.is_closed() {
            return;
        }
        floor.with_witness(|witness| witness.probes.push(Probe { at, node: node.clone(), answer }));
    }
}
