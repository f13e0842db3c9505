//! Users as they are written in the configuration.

use millpond_core::problem::{SpecProblem, is_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::password::Verifier;
use crate::broker::topic;

/// Who may come in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// Users with their passwords or tokens. Default: none, besides the administrator whose token the node makes at its first start.
    pub users: Vec<UserSettings>,
}

/// One user. Exactly one of `password_hash` and `token_hash` must be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSettings {
    /// Name of the user, at most 128 bytes. A device's user is named like the device.
    pub name: String,
    /// Password as an argon2id PHC string (`$argon2id$v=19$m=19456,t=2,p=1$…`). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// blake3 of a token of at least 128 random bits, in hexadecimal. Cheap to check: the better choice for devices. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
    /// `device`: sends its own events. `operator`: reads everything, handles alerts. `admin`: everything. Default: `device`.
    #[serde(default)]
    pub role: Role,
    /// At a node of a cloud: the tenant that an operator or admin is bound to. Over HTTP such a user sees and changes what is the tenant's, and
    /// nothing else; over MQTT nothing. Default: none, which is all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Topics the user may publish on; `+` and `#` as in MQTT, `%c` is the client identifier and `%u` the user's name.
    /// Default: `devices/%u/#` for a device, nothing for an operator, everything for an admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
    /// Topics the user may subscribe to, in the same form. Default: `devices/%u/#` for a device, everything for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    Device,
    Operator,
    Admin,
}

impl UserSettings {
    /// A user with a token, as the node makes it for itself at its first start.
    pub fn with_token(name: &str, token: &str, role: Role) -> UserSettings {
        UserSettings {
            name: name.to_owned(),
            password_hash: None,
            token_hash: Some(super::hash_token(token)),
            role,
            tenant: None,
            publish: None,
            subscribe: None,
        }
    }
}

/// Checks one user. Problems go to `problems`; `None` when there is nothing to verify the user by.
pub(super) fn check(user: &UserSettings, place: &str, problems: &mut Vec<SpecProblem>) -> Option<Verifier> {
    if user.name.is_empty() || user.name.len() > 128 || user.name.chars().any(|c| c.is_control() || "/+#%".contains(c))
    {
        let message = "a user's name has 1 to 128 bytes and none of / + # % or control characters";
        problems.push(problem(place, "name", message, None));
    }
    for (field, patterns) in [("publish", &user.publish), ("subscribe", &user.subscribe)] {
        for (at, pattern) in patterns.iter().flatten().enumerate() {
            if !topic::is_filter(pattern) {
                let message = format!("`{pattern}` is not a pattern of topics");
                let hint = "`+` stands alone between slashes, `#` alone at the end";
                problems.push(problem(place, &format!("{field}[{at}]"), &message, Some(hint)));
            }
        }
    }
    if let Some(tenant) = &user.tenant {
        if !is_name(tenant) {
            let hint = Some("1 to 64 letters, digits, `-` and `_`");
            problems.push(problem(place, "tenant", &format!("\"{tenant}\" cannot name a tenant"), hint));
        }
        if user.role == Role::Device || user.publish.is_some() || user.subscribe.is_some() {
            let message = "a tenant is for operators and admins, who publish and subscribe nothing";
            problems.push(problem(place, "tenant", message, Some("a device belongs to the tenant of its site")));
        }
    }
    let hint = Some("a PHC string `$argon2id$v=19$m=19456,t=2,p=1$…`, or blake3 of the token in 64 hexadecimal digits");
    let (field, verifier) = match (&user.password_hash, &user.token_hash) {
        (Some(phc), None) => ("password_hash", Verifier::of_password(phc)),
        (None, Some(hex)) => ("token_hash", Verifier::of_token(hex)),
        _ => {
            problems.push(problem(place, "", "needs one of password_hash and token_hash", hint));
            return None;
        }
    };
    match verifier {
        Ok(verifier) => Some(verifier),
        Err(message) => {
            problems.push(problem(place, field, &message, hint));
            None
        }
    }
}

pub(super) fn problem(place: &str, field: &str, message: &str, hint: Option<&str>) -> SpecProblem {
    let place = if field.is_empty() { place.to_owned() } else { format!("{place}.{field}") };
    SpecProblem { place, message: message.to_owned(), hint: hint.map(str::to_owned) }
}
