use super::*;

async fn call(door: &Opened, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let answer = door.send(method, path, &format!("authorization: Bearer {token}\r\n"), body.as_bytes()).await;
    let call = door.node.seen().calls.pop().unwrap_or_default();
    (answer.status, call)
}

#[tokio::test]
async fn the_site_is_asked_what_was_asked_for() {
    let door = open(HttpSettings::default()).await;
    let check = async |method: &str, path: &str, body: &str, expected: &str| {
        assert_eq!(call(&door, method, path, "ada", body).await, (200, format!("site {expected}")), "{method} {path}");
    };
    check("GET", "/v1/site/members", "", "members null").await;
    check("GET", "/v1/site/texts/rules/hot%20one", "", r#"text {"kind":"rules","name":"hot one"}"#).await;
    let text = r#"put_text {"kind":"rules","name":"hot","text":"a = 1"}"#;
    check("PUT", "/v1/site/texts/rules/hot", "a = 1", text).await;
    check("DELETE", "/v1/site/texts/rules/hot", "", r#"remove_text {"kind":"rules","name":"hot"}"#).await;
    check("DELETE", "/v1/devices/press", "", r#"delete {"device":"press"}"#).await;
    let patch = r#"desired {"device":"press","patch":{"a":null}}"#;
    check("PATCH", "/v1/devices/press/twin/desired", r#"{"a":null}"#, patch).await;
    let command = r#"command {"body":null,"deadline_s":5.0,"device":"press","id":null,"name":"stop"}"#;
    check("POST", "/v1/devices/press/commands", r#"{"name":"stop","deadline_s":5}"#, command).await;
    let resolve = r#"resolve {"kind":"rules","name":"hot","path":"","stamp":null,"version":1}"#;
    check("POST", "/v1/site/conflicts/resolve", r#"{"kind":"rules","name":"hot","version":1}"#, resolve).await;
}

#[tokio::test]
async fn a_device_may_touch_its_own_twin_only() {
    let door = open(HttpSettings::default()).await;
    let report = "/v1/devices/press/twin/reported";
    assert_eq!(call(&door, "PATCH", report, "press", "{}").await.0, 200);
    assert_eq!(call(&door, "PATCH", "/v1/devices/oven/twin/reported", "press", "{}").await, (403, String::new()));
    assert_eq!(call(&door, "PATCH", report, "otto", "{}").await, (403, String::new()), "an operator is no device");
    assert_eq!(call(&door, "GET", "/v1/devices/press/twin", "press", "").await.0, 200);
    assert_eq!(call(&door, "GET", "/v1/devices/oven/twin", "press", "").await.0, 403);
    assert_eq!(call(&door, "GET", "/v1/devices/oven/twin", "otto", "").await.0, 200);
    for (method, path) in [("PATCH", "/v1/devices/press/twin/desired"), ("POST", "/v1/devices/press/commands")] {
        assert_eq!(call(&door, method, path, "press", "{\"name\":\"x\"}").await.0, 403, "{path}");
    }
    assert_eq!(call(&door, "DELETE", "/v1/devices/press", "otto", "").await.0, 403);
}

#[tokio::test]
async fn a_node_of_no_site_says_so() {
    let door = open(HttpSettings::default()).await;
    let answer = door.get("/v1/devices/lonely/twin", "otto").await;
    assert_eq!((answer.status, field(&answer.json(), "code")), (409, "MP0219"));
    let answer = call(&door, "PATCH", "/v1/devices/press/twin/desired", "otto", "[1]").await;
    assert_eq!(answer, (400, String::new()), "a patch is an object");
}
