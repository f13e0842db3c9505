use millpond_core::problem::SpecProblem;

use super::*;
use crate::testing;

fn user(name: &str, role: Role) -> UserSettings {
    let (password_hash, token_hash, tenant) = (None, None, None);
    UserSettings { name: name.into(), password_hash, token_hash, role, tenant, publish: None, subscribe: None }
}

/// Cheap on purpose: 8 KiB, one pass.
fn with_password(name: &str, password: &str) -> UserSettings {
    let params = argon2::Params::new(8, 1, 1, None).expect("small but allowed");
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash =
        argon2::PasswordHasher::hash_password_with_salt(&argon2, password.as_bytes(), &[7; 16]).expect("it hashes");
    UserSettings { password_hash: Some(hash.to_string()), ..user(name, Role::Device) }
}

fn auth(users: Vec<UserSettings>) -> Result<Auth, Vec<SpecProblem>> {
    Auth::new(&testing::env(), &AuthSettings { users }, Vec::new())
}

#[tokio::test(start_paused = true)]
async fn a_user_comes_in_with_the_right_password_only() {
    let auth = auth(vec![with_password("press-1", "secret"), UserSettings::with_token("line", "t0k3n", Role::Admin)])
        .expect("users are fine");
    assert_eq!(auth.password("press-1", b"secret").await.map(|login| login.name.to_string()), Some("press-1".into()));
    assert!(auth.password("press-1", b"Secret").await.is_none());
    assert!(auth.password("press-2", b"secret").await.is_none());
    // The memory of right passwords answers the second time, and it does not mix users up.
    assert!(auth.password("press-1", b"secret").await.is_some());
    assert!(auth.password("line", b"secret").await.is_none());
    assert_eq!(auth.password("line", b"t0k3n").await.map(|login| login.role), Some(Role::Admin));
    assert_eq!(auth.token("t0k3n").map(|login| login.name.to_string()), Some("line".into()));
    assert!(auth.token("secret").is_none());
    assert_eq!(auth.refused(), 4);
}

#[tokio::test(start_paused = true)]
async fn refusals_come_later_and_later() {
    let env = testing::env();
    let auth = Auth::new(&env, &AuthSettings::default(), Vec::new()).expect("nobody is fine");
    let mut took = Vec::new();
    for _ in 0..5 {
        let began = env.now();
        assert!(auth.password("nobody", b"x").await.is_none());
        took.push(env.now().since(began).as_millis());
    }
    assert_eq!(took, [500, 1000, 2000, 4000, 4000]);
}

#[tokio::test]
async fn all_problems_of_users_are_told_at_once() {
    let users = vec![
        user("a", Role::Device),
        UserSettings { password_hash: Some("plain".into()), ..user("b", Role::Device) },
        UserSettings { token_hash: Some("xyz".into()), ..user("", Role::Device) },
        UserSettings { publish: Some(vec!["a/#/b".into()]), ..UserSettings::with_token("c", "1", Role::Device) },
        UserSettings::with_token("c", "1", Role::Device),
        UserSettings { tenant: Some("a b".into()), ..UserSettings::with_token("d", "2", Role::Admin) },
        UserSettings { tenant: Some("acme".into()), ..UserSettings::with_token("e", "3", Role::Device) },
    ];
    let problems = auth(users).expect_err("they are all wrong");
    let places: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "auth.users[0]",
            "auth.users[1].password_hash",
            "auth.users[2].name",
            "auth.users[2].token_hash",
            "auth.users[3].publish[0]",
            "auth.users[4].token_hash",
            "auth.users[4].name",
            "auth.users[5].tenant",
            "auth.users[6].tenant",
        ]
    );
}

#[test]
fn hashes_for_the_configuration_are_what_is_checked_against() {
    let hash = hash_password(b"secret", [1; 16]).expect("it hashes");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert!(password::verify(b"secret", &hash) && !password::verify(b"other", &hash));
    assert!(hash_password(b"", [1; 16]).is_err());
    let dear = hash.replace("m=19456", "m=1048576");
    assert!(password::Verifier::of_password(&dear).is_err());
    assert!(password::Verifier::of_password(&hash.replace("argon2id", "argon2i")).is_err());
}

#[tokio::test]
async fn roles_open_their_topics() {
    let named = |name: &str, role| UserSettings::with_token(name, name, role);
    let auth = auth(vec![named("press-1", Role::Device), named("ada", Role::Operator), named("root", Role::Admin)])
        .expect("users are fine");
    let login = |name: &str| auth.token(name).expect("it is there");
    let check = |name: &str, topic: &str, publish: bool, subscribe: bool| {
        assert_eq!(login(name).may_publish("client", topic), publish, "{name} {topic}");
        assert_eq!(login(name).may_subscribe("client", topic), subscribe, "{name} {topic}");
    };
    check("press-1", "devices/press-1/telemetry", true, true);
    check("press-1", "devices/press-2/telemetry", false, false);
    check("press-1", "telemetry", false, false);
    check("ada", "devices/press-1/telemetry", false, true);
    check("root", "telemetry", true, true);
    check("root", "$SYS/broker", false, true);
    assert!(login("press-1").may_send_for("press-1") && !login("press-1").may_send_for("press-2"));
    assert!(Login::anonymous().may_send_for("press-2"));
}
