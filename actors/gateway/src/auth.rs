//! Who may come in, and what they may publish and read.
//!
//! Users have a password (argon2id) or a token (blake3). Passwords are slow to check on purpose, so a check runs off the executor, at
//! most [`limits::PASSWORD_CHECKS_MAX`] at a time, and a password that was right once is remembered (as a keyed hash, under a key of
//! this boot): a storm of reconnects costs no CPU. A wrong login is answered late, and later each time.
//!
//! What must stay true:
//! 1. No password or token is kept or logged, in clear or under a key that outlives the process.
//! 2. A refusal takes the same time whether the user exists or not.
//! 3. Patterns never widen by what a client calls itself: `%c` and `%u` stand for text, not for wildcards or further levels.

mod password;
mod settings;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use millpond_core::{limits, problem::SpecProblem, time::Span};
use millpond_env::Env;
use tokio::sync::Semaphore;

pub use password::{HashError, hash_password, hash_token, new_token};
use password::{Remembered, Verifier};
pub use settings::{AuthSettings, Role, UserSettings};
use topics::Grants;

/// A refused login is answered after this time at the earliest, and after twice as long for each refusal before it, up to eight times.
const REFUSAL_DELAY: Span = Span::from_millis(500);

/// Someone who is in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Login {
    pub name: Arc<str>,
    pub role: Role,
    /// All that it may see and change is this tenant's; `None`: everybody's.
    pub tenant: Option<Arc<str>>,
    grants: Arc<Grants>,
}

impl Login {
    /// The login of a door that lets everybody in: it may publish everything and subscribe to everything, as a device.
    pub fn anonymous() -> Login {
        Login { name: "anonymous".into(), role: Role::Device, tenant: None, grants: Arc::new(Grants::everything()) }
    }

    /// Whether the login, under the name `client_id`, may publish on `topic`.
    pub fn may_publish(&self, client_id: &str, topic: &str) -> bool {
        !topic.starts_with("$SYS") && self.grants.publish(client_id, &self.name, topic)
    }

    /// Whether all that `filter` can match is open to the login under the name `client_id`.
    pub fn may_subscribe(&self, client_id: &str, filter: &str) -> bool {
        self.grants.subscribe(client_id, &self.name, filter)
    }

    /// Whether the login may send events of `device`, by whichever door.
    pub fn may_send_for(&self, device: &str) -> bool {
        self.may_publish(&self.name, &format!("devices/{device}/telemetry"))
    }
}

/// The users of a node.
#[derive(Debug)]
pub struct Auth {
    env: Env,
    users: BTreeMap<Arc<str>, User>,
    /// blake3 of a token → name of its user.
    tokens: BTreeMap<[u8; 32], Arc<str>>,
    checks: Arc<Semaphore>,
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Debug)]
struct User {
    login: Login,
    verifier: Verifier,
}

#[derive(Debug)]
struct State {
    remembered: Remembered,
    /// Refusals in a row by user name as given; forgotten altogether when too many names come up.
    refusals: BTreeMap<Box<str>, u32>,
}

impl Auth {
    /// Reads the users of the configuration, and `extra` ones that the node made itself (its first token of an administrator).
    ///
    /// # Errors
    /// All problems of the users, each with its place in the configuration.
    pub fn new(env: &Env, settings: &AuthSettings, extra: Vec<UserSettings>) -> Result<Auth, Vec<SpecProblem>> {
        let mut problems = Vec::new();
        let (mut users, mut tokens) = (BTreeMap::new(), BTreeMap::new());
        for (at, user) in settings.users.iter().chain(&extra).enumerate() {
            let place = format!("auth.users[{at}]");
            let Some(verifier) = settings::check(user, &place, &mut problems) else { continue };
            let name: Arc<str> = user.name.as_str().into();
            let grants = Arc::new(Grants::of(user));
            if let Verifier::Token(hash) = &verifier
                && tokens.insert(*hash.as_bytes(), name.clone()).is_some()
            {
                problems.push(settings::problem(&place, "token_hash", "another user has the same token", None));
            }
            let tenant = user.tenant.as_deref().map(Arc::from);
            let login = Login { name: name.clone(), role: user.role, tenant, grants };
            if users.insert(name, User { login, verifier }).is_some() {
                problems.push(settings::problem(&place, "name", &format!("two users named `{}`", user.name), None));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Auth {
            users,
            tokens,
            checks: Arc::new(Semaphore::new(limits::PASSWORD_CHECKS_MAX)),
            state: Mutex::new(State {
                remembered: Remembered::new(env.entropy.seed("auth.remembered")),
                refusals: BTreeMap::new(),
            }),
            refused: AtomicU64::new(0),
            env: env.clone(),
        })
    }

    /// The login of a user by name and password; a user with a token gives it in the place of the password. A refusal comes late.
    pub async fn password(&self, user: &str, password: &[u8]) -> Option<Login> {
        let began = self.env.now();
        let login = self.check(user, password).await;
        if login.is_none() {
            let delay = self.refuse(user);
            self.env.clock.timer(began.after(delay)).await;
        }
        login
    }

    /// The login of the user who has `token` (`Authorization: Bearer …`).
    pub fn token(&self, token: &str) -> Option<Login> {
        let hash = blake3::hash(token.as_bytes());
        // Whoever could learn the order of hashes from the time of this look-up would still need their preimages.
        let login =
            self.tokens.get(hash.as_bytes()).and_then(|name| self.users.get(name)).map(|user| user.login.clone());
        if login.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        login
    }

    /// Logins refused since the node started, at all doors.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn check(&self, name: &str, password: &[u8]) -> Option<Login> {
        let user = self.users.get(name)?;
        let right = match &user.verifier {
            Verifier::Token(hash) => blake3::hash(password) == *hash,
            Verifier::Password(phc) => self.check_password(name, password, phc).await,
        };
        if right {
            self.state().refusals.remove(name);
        }
        right.then(|| user.login.clone())
    }

    async fn check_password(&self, name: &str, password: &[u8], phc: &Arc<str>) -> bool {
        let mark = self.state().remembered.mark(name, password);
        if self.state().remembered.knows(&mark) {
            return true;
        }
        if password.len() > limits::PASSWORD_BYTES_MAX {
            return false;
        }
        let Ok(permit) = self.checks.clone().acquire_owned().await else { return false };
        // A connection that asked with the same password may have been first.
        if self.state().remembered.knows(&mark) {
            return true;
        }
        let (password, phc) = (password.to_vec(), phc.clone());
        // The permit goes along: a client that hangs up does not make room for one more check while its own still runs.
        let job = move || {
            let right = password::verify(&password, &phc);
            drop(permit);
            right
        };
        let right = self.env.unblock(job).await.unwrap_or(false);
        if right {
            self.state().remembered.insert(mark);
        }
        right
    }

    fn refuse(&self, user: &str) -> Span {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if state.refusals.len() >= limits::REFUSED_NAMES_MAX {
            state.refusals.clear();
        }
        let before = state.refusals.entry(user.chars().take(64).collect::<String>().into()).or_default();
        let delay = Span(REFUSAL_DELAY.0 << (*before).min(3));
        *before = before.saturating_add(1);
        delay
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
