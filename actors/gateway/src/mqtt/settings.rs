//! The MQTT door as it is written in the configuration.

use std::net::{Ipv4Addr, SocketAddr};

use millpond_core::{limits, problem::SpecProblem, time::Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The MQTT door: 3.1, 3.1.1 and 5.0 on one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSettings {
    /// Address and port. Default: `127.0.0.1:1883`.
    #[schemars(extend("format" = "address"))]
    pub listen: SocketAddr,
    /// Lets clients in without a user name; they may publish and read every topic. Default: false.
    pub anonymous: bool,
    /// Connections at a time, from 1 to 1000000; more are closed at once. Default: 10000.
    pub connections_max: usize,
    /// Bytes of one packet, from 1024 to 1048576. Default: 1048576 (1 MiB).
    pub packet_bytes_max: usize,
    /// How long the session of a client that went away is kept at most, from 0s to 30d. Sessions live in memory: they do not outlive
    /// the node. Default: 1d.
    pub session_expiry_max: Span,
}

impl Default for MqttSettings {
    fn default() -> MqttSettings {
        MqttSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            anonymous: false,
            connections_max: 10_000,
            packet_bytes_max: limits::PAYLOAD_BYTES_MAX,
            session_expiry_max: Span::from_secs(86_400),
        }
    }
}

impl MqttSettings {
    /// Every value that is out of its bounds.
    pub fn problems(&self) -> Vec<SpecProblem> {
        let checks = [
            ("connections_max", (1..=1_000_000).contains(&self.connections_max), "must be from 1 to 1000000"),
            (
                "packet_bytes_max",
                (1024..=limits::PAYLOAD_BYTES_MAX).contains(&self.packet_bytes_max),
                "must be from 1024 to 1048576",
            ),
            (
                "session_expiry_max",
                (Span::ZERO..=Span::from_secs(30 * 86_400)).contains(&self.session_expiry_max),
                "must be from 0s to 30d",
            ),
        ];
        let broken = checks.into_iter().filter(|(_, fine, _)| !fine);
        broken
            .map(|(key, _, message)| SpecProblem {
                place: format!("mqtt.{key}"),
                message: message.to_owned(),
                hint: None,
            })
            .collect()
    }

    /// The longest session expiry in seconds.
    pub(super) fn session_expiry_s_max(&self) -> u32 {
        (self.session_expiry_max.0 / 1_000_000_000).clamp(0, i64::from(u32::MAX - 1)) as u32
    }
}
