//! The administrator that a node makes for itself, so that a fresh node is neither open nor locked.
//!
//! At its first start without users in the configuration the node writes a random token to [`TOKEN_FILE`] in its data directory, which
//! only its owner can read. The commands on this machine log in with it. Whoever deletes the file revokes the token with the next
//! start; when users are configured, no new one is made.

use std::io;

use millpond_env::Env;
use millpond_gateway::auth::{AuthSettings, Role, UserSettings, new_token};

/// Name of the file in the data directory with the token of the administrator.
pub const TOKEN_FILE: &str = "admin.token";
const NAME: &str = "admin";

/// The token in the data directory; made now when there is none and nobody else could come in.
pub(super) fn token(env: &Env, auth: &AuthSettings) -> io::Result<Option<String>> {
    if auth.users.iter().any(|user| user.name == NAME) {
        return Ok(None);
    }
    let kept = env.disk.read(TOKEN_FILE)?;
    if let Some(kept) =
        kept.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|kept| !kept.is_empty())
    {
        return Ok(Some(kept));
    }
    if !auth.users.is_empty() {
        return Ok(None);
    }
    let token = new_token(env);
    env.disk.write(TOKEN_FILE, format!("{token}\n").as_bytes())?;
    tracing::info!(file = TOKEN_FILE, "made a token for the administrator");
    Ok(Some(token))
}

pub(super) fn user(token: &str) -> UserSettings {
    UserSettings::with_token(NAME, token, Role::Admin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Memory};

    #[tokio::test]
    async fn a_fresh_node_makes_a_token_once() {
        let env = testing::env(&Memory::default());
        let first = token(&env, &AuthSettings::default()).unwrap().unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(token(&env, &AuthSettings::default()).unwrap(), Some(first));
    }

    #[tokio::test]
    async fn a_node_with_users_makes_none() {
        let env = testing::env(&Memory::default());
        let mut auth = AuthSettings::default();
        auth.users.push(UserSettings::with_token("op", "x", Role::Operator));
        assert_eq!(token(&env, &auth).unwrap(), None);
        assert_eq!(env.disk.read(TOKEN_FILE).unwrap(), None);
    }
}
