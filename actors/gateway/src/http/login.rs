//! Who asks, and whether they may.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64ct::{Base64, Encoding};
use hyper::{HeaderMap, header};

use super::{
    Door,
    problem::{Code, Problem},
};
use crate::auth::{Login, Role};

/// What an address asks of whoever uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// No login.
    Open,
    /// Any login; the handler looks closer.
    Anyone,
    /// Reads everything, handles alerts.
    Operator,
    Admin,
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub login: Login,
    /// The door lets everybody in, and this is somebody without a login.
    pub anonymous: bool,
}

impl Who {
    pub fn may_send_for(&self, device: &str) -> bool {
        self.anonymous || self.login.may_send_for(device)
    }

    /// The tenant that is asked about: a login of one tenant asks about that one. `None`: about no one in particular.
    pub fn tenant(&self, asked: Option<String>) -> Result<Option<String>, Problem> {
        let Some(own) = self.login.tenant.as_deref() else { return Ok(asked) };
        match asked {
            Some(other) if other != own => {
                let because = format!("`{}` is a user of the tenant `{own}`, not of `{other}`", self.login.name);
                Err(Problem::new(Code::NotAllowed).because(because))
            }
            _ => Ok(Some(own.to_owned())),
        }
    }

    /// The same of a question that may be about another site. Other sites know no tenants.
    pub fn tenant_here(&self, asked: Option<String>, site: Option<&str>) -> Result<Option<String>, Problem> {
        let tenant = self.tenant(asked)?;
        if site.is_some() && tenant.is_some() {
            let code = if self.login.tenant.is_some() { Code::NotAllowed } else { Code::BadParameter };
            return Err(
                Problem::new(code).because("`site` and `tenant` do not go together: other sites know no tenants")
            );
        }
        Ok(tenant)
    }

    pub fn may(&self, access: Access) -> bool {
        let least = match access {
            Access::Open | Access::Anyone => Role::Device,
            Access::Operator => Role::Operator,
            Access::Admin => Role::Admin,
        };
        self.anonymous || self.login.role >= least
    }
}

/// A route as the check in front of it sees it.
#[derive(Clone)]
pub(super) struct Gate {
    pub door: Arc<Door>,
    pub path: &'static str,
    pub access: Access,
    /// Its handler keeps to the tenant of a login.
    pub of_tenants: bool,
}

/// Lets a request through to its handler, or not; counts and times it.
pub(super) async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let door = &gate.door;
    let began = door.env.now();
    let response = match identify(door, gate.access, request.headers()).await {
        Ok(Some(who)) if !who.may(gate.access) => {
            let login = &who.login.name;
            Problem::new(Code::NotAllowed).because(format!("the role of `{login}` does not allow this")).into_response()
        }
        Ok(Some(Who { login, .. })) if !gate.of_tenants && login.tenant.is_some() => {
            let because = format!("`{}` is a user of one tenant, and this is about more than that", login.name);
            Problem::new(Code::NotAllowed).because(because).into_response()
        }
        Ok(who) => {
            if let Some(who) = who {
                request.extensions_mut().insert(who);
            }
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    door.metrics.seconds.with_label_values(&[gate.path]).observe(door.env.now().since(began).as_secs_f64());
    door.metrics.requests.with_label_values(&[gate.path, response.status().as_str()]).inc();
    response
}

async fn identify(door: &Door, access: Access, headers: &HeaderMap) -> Result<Option<Who>, Problem> {
    if access == Access::Open {
        return Ok(None);
    }
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        if door.settings.anonymous {
            return Ok(Some(Who { login: Login::anonymous(), anonymous: true }));
        }
        return Err(Problem::new(Code::LoginNeeded));
    };
    let login = match authorization.to_str().ok().and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => door.auth.token(token.trim()),
        Some((scheme, both)) if scheme.eq_ignore_ascii_case("basic") => match basic(both.trim()) {
            Some((user, password)) => door.auth.password(&user, &password).await,
            None => None,
        },
        _ => None,
    };
    match login {
        Some(login) => Ok(Some(Who { login, anonymous: false })),
        None => Err(Problem::new(Code::LoginNeeded).because("the login is wrong")),
    }
}

fn basic(encoded: &str) -> Option<(String, Vec<u8>)> {
    let both = Base64::decode_vec(encoded).ok()?;
    let colon = both.iter().position(|byte| *byte == b':')?;
    let user = std::str::from_utf8(&both[..colon]).ok()?;
    Some((user.to_owned(), both[colon + 1..].to_vec()))
}
