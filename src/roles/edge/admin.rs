//! The administrator that a node makes for itself, so that a fresh node is neither open nor locked.
//!
//! At its first start without users in the configuration the node writes a random token to `admin.token` in its data directory, which
//! only its owner can read. The commands on this machine log in with it. Whoever deletes the file revokes the token with the next
//! start; when users are configured, no new one is made.

use millpond_env::Env;
use millpond_gateway::auth::{Role, UserSettings};

use crate::{
    commands::{remote::ADMIN_TOKEN_FILE, secrets::new_token},
    config::Config,
    exit::Told,
};

const NAME: &str = "admin";

/// The token in the data directory; made now when there is none and nobody else could come in.
pub fn token(env: &Env, config: &Config) -> anyhow::Result<Option<String>> {
    let failed = |error| {
        Told::new(format!(
            "cannot keep the administrator's token in {}",
            config.node.data.join(ADMIN_TOKEN_FILE).display()
        ))
        .code("MP0405")
        .because(error)
    };
    if config.auth.users.iter().any(|user| user.name == NAME) {
        return Ok(None);
    }
    let kept = env.disk.read(ADMIN_TOKEN_FILE).map_err(failed)?;
    if let Some(kept) =
        kept.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|kept| !kept.is_empty())
    {
        return Ok(Some(kept));
    }
    if !config.auth.users.is_empty() {
        return Ok(None);
    }
    let token = new_token(env);
    env.disk.write(ADMIN_TOKEN_FILE, format!("{token}\n").as_bytes()).map_err(failed)?;
    tracing::info!(file = %config.node.data.join(ADMIN_TOKEN_FILE).display(), "made a token for the administrator");
    Ok(Some(token))
}

pub fn user(token: &str) -> UserSettings {
    UserSettings::with_token(NAME, token, Role::Admin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[tokio::test]
    async fn a_fresh_node_makes_a_token_once() {
        let dir = tempfile::tempdir().unwrap();
        let env = World::new(dir.path()).unwrap();
        let first = token(&env, &Config::default()).unwrap().unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(token(&env, &Config::default()).unwrap(), Some(first));
    }

    #[tokio::test]
    async fn a_node_with_users_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let env = World::new(dir.path()).unwrap();
        let mut config = Config::default();
        config.auth.users.push(UserSettings::with_token("op", "x", Role::Operator));
        assert_eq!(token(&env, &config).unwrap(), None);
        assert!(env.disk.list("").unwrap().is_empty());
    }
}
