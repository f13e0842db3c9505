//! The HTTP door as it is written in the configuration.

use std::net::{Ipv4Addr, SocketAddr};

use millpond_core::{problem::SpecProblem, time::Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The HTTP door: telemetry in, queries, alerts, dead letters, metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address and port. Default: `127.0.0.1:8080`.
    #[schemars(extend("format" = "address"))]
    pub listen: SocketAddr,
    /// Lets everybody who reaches the port do everything without a login. Default: false.
    pub anonymous: bool,
    /// Connections at a time, from 1 to 65536; more wait until one is free. Default: 256.
    pub connections_max: usize,
    /// A connection that has not sent the whole head of its next request after this time is closed; from 1s to 1h. Default: 60s.
    pub idle_timeout: Span,
    /// How long the body of a request may take to arrive, and how long a client may leave an answer unread; from 1s to 1h. Default: 30s.
    pub transfer_timeout: Span,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            anonymous: false,
            connections_max: 256,
            idle_timeout: Span::from_secs(60),
            transfer_timeout: Span::from_secs(30),
        }
    }
}

impl HttpSettings {
    /// Every value that is out of its bounds.
    pub fn problems(&self) -> Vec<SpecProblem> {
        let time = Span::from_secs(1)..=Span::from_secs(3600);
        let checks = [
            ("connections_max", (1..=65_536).contains(&self.connections_max), "must be from 1 to 65536"),
            ("idle_timeout", time.contains(&self.idle_timeout), "must be from 1s to 1h"),
            ("transfer_timeout", time.contains(&self.transfer_timeout), "must be from 1s to 1h"),
        ];
        let broken = checks.into_iter().filter(|(_, fine, _)| !fine);
        broken.map(|(key, _, message)| SpecProblem::new(format!("http.{key}"), message)).collect()
    }
}
