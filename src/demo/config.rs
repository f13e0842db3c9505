//! The nodes' configuration, as text: what a user would write.

use std::fmt::Write;

use millpond_core::value::ValueType;
use millpond_env::Env;
use millpond_gateway::auth::hash_token;
use millpond_sim::fleet::MachineKind;
use rand::Rng;

/// The window that the view shows.
pub const WINDOW: &str = "machine_5s";
/// The user who publishes for all machines.
pub const FLEET_USER: &str = "demo-fleet";
/// The user who watches.
pub const VIEW_USER: &str = "demo-view";

/// Windows, rules and what the site promises; device types, schemas and users are added.
const BASE: &str = include_str!("rules.toml");

/// What the demo logs in with, new in each run.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub fleet: String,
    pub view: String,
}

impl Tokens {
    /// 128 random bits each.
    pub fn new(env: &Env) -> Tokens {
        let mut rng = env.rng("demo.tokens");
        let mut token = || format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64());
        Tokens { fleet: token(), view: token() }
    }
}

/// Of the node of the cloud, which learns windows from the sites. Nobody wants to wait a minute for the archive here.
const CLOUD: &str = r#"
[log]
level = "warn"

[cloud]
archive_every = "3s"
"#;

/// The whole file of a node of a site.
pub fn site(tokens: &Tokens) -> String {
    let mut text = BASE.to_owned();
    for kind in MachineKind::ALL {
        push_kind(&mut text, kind);
    }
    push_user(&mut text, FLEET_USER, "device", &tokens.fleet, "publish = [\"devices/#\"]\nsubscribe = []\n");
    push_user(&mut text, VIEW_USER, "operator", &tokens.view, "");
    text
}

/// The whole file of the node of the cloud.
pub fn cloud(tokens: &Tokens) -> String {
    let mut text = CLOUD.to_owned();
    push_user(&mut text, VIEW_USER, "operator", &tokens.view, "");
    text
}

fn push_kind(text: &mut String, kind: MachineKind) {
    let name = kind.name();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n[[device_types]]\nname = \"{name}\"\ndevices = [\"{name}-*\", \"*-{name}-*\"]\nschema = \"{name}\"\n\n[[schemas]]\nname = \"{name}\"\nversion = 1\n"
    );
    for info in kind.metrics() {
        let _ = write!(text, "\n[schemas.metrics.{}]\ntype = \"{}\"\n", info.name, info.value_type.name());
        if info.value_type == ValueType::F64 {
            let _ = writeln!(text, "unit = \"{}\"\nmin = {:?}\nmax = {:?}", info.unit, info.min, info.max);
        }
    }
}

fn push_user(text: &mut String, name: &str, role: &str, token: &str, more: &str) {
    let hash = hash_token(token);
    let _ = write!(text, "\n[[auth.users]]\nname = \"{name}\"\nrole = \"{role}\"\ntoken_hash = \"{hash}\"\n{more}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configurations_have_no_problems() {
        let tokens = Tokens { fleet: "a".repeat(32), view: "b".repeat(32) };
        let load = |text: &str| {
            let loaded = crate::config::load_text(&crate::world::World::client(), "demo", text, &[]);
            loaded.map_err(|problems| format!("{problems:?}")).unwrap()
        };
        load(&cloud(&tokens));
        let loaded = load(&site(&tokens));
        assert!(loaded.config.windows.iter().any(|window| window.name == WINDOW));
        assert!(loaded.config.rules.iter().any(|rule| rule.name == "vibration-high"));
        assert_eq!(loaded.config.schemas.len(), 4);
    }
}
