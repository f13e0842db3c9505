mod node;
mod site;

use std::{io::Write, net::SocketAddr};

use ::prometheus::Registry;
use millpond_core::{
    batch::BatchBuilder,
    block,
    dead_letter::{PayloadFormat, Reason},
    limits::PAYLOAD_BYTES_MAX,
    value::Value as Metric,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use self::node::{CREDIT, MemoryNode, field, refused, stored};
use super::*;
use crate::{
    auth::{AuthSettings, Role, UserSettings},
    port::{Receipt, Refusal},
    testing::env,
};

/// A door on loopback with a device `press`, an operator, an admin, and an admin of the tenant `acme`, whose tokens are their names.
struct Opened {
    addr: SocketAddr,
    node: Arc<MemoryNode>,
    tap: Arc<Tap>,
    env: Env,
    stop: CancellationToken,
    closed: tokio::sync::oneshot::Receiver<()>,
    metrics: HttpMetrics,
}

async fn open(settings: HttpSettings) -> Opened {
    let env = env();
    let users = [("press", Role::Device), ("otto", Role::Operator), ("ada", Role::Admin)];
    let mut users = users.map(|(name, role)| UserSettings::with_token(name, name, role)).to_vec();
    users.push(UserSettings { tenant: Some("acme".into()), ..UserSettings::with_token("anna", "anna", Role::Admin) });
    let auth = Arc::new(Auth::new(&env, &AuthSettings::default(), users).expect("good users"));
    let (node, tap) = (MemoryNode::new(), Arc::new(Tap::new()));
    let listener = env.net.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let addr = listener.local_addr();
    let metrics = HttpMetrics::new(&Registry::new()).expect("free names");
    let stop = CancellationToken::new();
    let (tell, closed) = tokio::sync::oneshot::channel();
    let served = serve(env.clone(), listener, node.clone(), auth, tap.clone(), settings, metrics.clone(), stop.clone());
    env.spawn(async move {
        served.await;
        let _ = tell.send(());
    });
    Opened { addr, node, tap, env, stop, closed, metrics }
}

async fn open_to_all() -> Opened {
    open(HttpSettings { anonymous: true, ..HttpSettings::default() }).await
}

struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Opened {
    /// Sends one request and reads to the end of the connection.
    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answered {
        let mut stream = self.env.net.connect("127.0.0.1", self.addr.port()).await.expect("an open door");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("a door that reads");
        // A door that refuses by the head alone may not read the body.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        parse(&answer)
    }

    async fn get(&self, path: &str, token: &str) -> Answered {
        self.send("GET", path, &format!("authorization: Bearer {token}\r\n"), b"").await
    }

    async fn post(&self, headers: &str, body: &[u8]) -> Answered {
        self.send("POST", "/v1/telemetry", headers, body).await
    }
}

fn parse(answer: &[u8]) -> Answered {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answered { status, head: head.to_lowercase(), body: body.to_owned() }
}

const EVENT: &[u8] = br#"{"device":"press","ts":"2026-11-20T08:15:00Z","t":1.5}"#;

#[tokio::test]
async fn telemetry_is_acknowledged_with_what_became_of_it() {
    let door = open_to_all().await;
    let answer = door.post("", EVENT).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"accepted":1,"duplicates":0,"rejected":0})));
    let lines = [EVENT, b"\n", EVENT].concat();
    assert_eq!(door.post("content-type: application/x-ndjson\r\n", &lines).await.json()["accepted"], 2);
    assert_eq!(door.send("POST", "/v1/telemetry?device=x", "", b"[{\"t\":1}]").await.status, 200);
    let msgpack = [0x82, 0xa6, b'd', b'e', b'v', b'i', b'c', b'e', 0xa1, b'm', 0xa1, b't', 1];
    assert_eq!(door.post("content-type: application/msgpack\r\n", &msgpack).await.status, 200);
    let expected = [("press", 1), ("press", 2), ("x", 1), ("m", 1)].map(|(device, rows)| (device.to_owned(), rows));
    assert_eq!(door.node.seen().runs, expected);
    assert_eq!(door.node.seen().logins[0], "anonymous");
    assert_eq!(door.node.credit_left(), CREDIT, "credit comes back");
    assert_eq!(door.metrics.events.with_label_values(&["accepted"]).get(), 5);
}

#[tokio::test]
async fn a_block_keeps_its_bytes() {
    let door = open_to_all().await;
    let mut builder = BatchBuilder::default();
    builder.begin("press");
    builder.cell("t", Metric::F64(1.5));
    builder.end();
    let mut bytes = Vec::new();
    block::encode(&builder.finish()[0], &mut bytes);
    assert_eq!(door.post("content-type: application/x-millpond-block\r\n", &bytes).await.status, 200);
    assert_eq!(door.post("", &bytes).await.status, 200, "a block is known by its magic");
    let other = door.send("POST", "/v1/telemetry?device=other", "", &bytes).await;
    assert_eq!((other.status, field(&other.json(), "reason")), (400, "bad_device"));
    let seen = door.node.seen();
    assert_eq!((seen.blocks, seen.runs.len()), (2, 2));
}

#[tokio::test]
async fn gzip_is_unpacked_up_to_the_limit() {
    let door = open_to_all().await;
    let pack = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).expect("to memory");
        encoder.finish().expect("to memory")
    };
    let gzip = "content-encoding: gzip\r\n";
    assert_eq!(door.post(gzip, &pack(EVENT)).await.status, 200);
    let bomb = pack(&vec![b' '; PAYLOAD_BYTES_MAX + 1]);
    assert!(bomb.len() < 10_000);
    assert_eq!(door.post(gzip, &bomb).await.status, 413);
    let broken = door.post(gzip, EVENT).await;
    assert_eq!((broken.status, field(&broken.json(), "code")), (400, "MP0209"));
    assert_eq!(door.post("content-encoding: br\r\n", EVENT).await.status, 415);
    assert_eq!(door.node.credit_left(), CREDIT);
}

#[tokio::test]
async fn a_body_that_cannot_be_decoded_is_kept_and_refused() {
    let door = open_to_all().await;
    let answer = door
        .post("content-type: application/json\r\n", b"[{\"device\":\"a\",\"t\":1},{\"device\":\"a\",\"t\":[]}]")
        .await;
    let problem = answer.json();
    assert_eq!((answer.status, field(&problem, "code"), field(&problem, "kept_as")), (400, "MP0101", "dead letter"));
    assert!(field(&problem, "error").starts_with("event 2 "), "{problem}");
    {
        let seen = door.node.seen();
        let letter = &seen.dead_letters[0];
        assert_eq!(
            (letter.reason, letter.format, letter.door.as_str()),
            (Reason::Malformed, PayloadFormat::Json, "http")
        );
        assert!(letter.payload.starts_with(b"[{") && seen.runs.is_empty());
    }
    door.node.seen().receipt = refused(Refusal::Full);
    let answer = door.post("", b"{").await;
    assert_eq!((answer.status, field(&answer.json(), "code")), (507, "MP0212"));
    assert!(answer.head.contains("retry-after: 30"), "{}", answer.head);
}

#[tokio::test]
async fn nothing_accepted_is_not_a_success() {
    let door = open_to_all().await;
    let check = async |receipt: Option<Receipt>, status: u16, code: &str| {
        door.node.seen().receipt = receipt;
        let answer = door.post("", EVENT).await;
        assert_eq!((answer.status, field(&answer.json(), "code")), (status, code));
        answer.json()
    };
    let body = check(stored(0, 0, 3), 422, "MP0211").await;
    assert_eq!((&body["accepted"], &body["duplicates"], &body["rejected"]), (&json!(0), &json!(0), &json!(3)));
    check(stored(1, 0, 3), 200, "").await;
    check(stored(0, 3, 0), 200, "").await;
    check(stored(0, 0, 0), 200, "").await;
    check(refused(Refusal::Stopping), 503, "MP0214").await;
    check(refused(Refusal::Failed), 503, "MP0215").await;
}

#[tokio::test]
async fn bodies_are_bounded_by_size_type_and_time() {
    let settings =
        HttpSettings { anonymous: true, transfer_timeout: Span::from_millis(100), ..HttpSettings::default() };
    let door = open(settings).await;
    assert_eq!(door.post("", &vec![b' '; PAYLOAD_BYTES_MAX + 1]).await.status, 413);
    let unknown = door.post("content-type: text/csv\r\n", b"a,b").await;
    assert_eq!((unknown.status, field(&unknown.json(), "code")), (415, "MP0208"));
    let mut slow = door.env.net.connect("127.0.0.1", door.addr.port()).await.expect("an open door");
    slow.write_all(b"POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.expect("sent");
    let mut answer = vec![0; 1024];
    let read = slow.read(&mut answer).await.expect("an answer");
    assert_eq!(parse(&answer[..read]).status, 408);
}

#[tokio::test]
async fn each_role_may_do_its_part() {
    let door = open(HttpSettings::default()).await;
    assert_eq!(door.send("GET", "/healthz", "", b"").await.status, 200);
    let nobody = door.send("GET", "/v1/devices", "", b"").await;
    assert_eq!((nobody.status, field(&nobody.json(), "code")), (401, "MP0201"));
    assert!(nobody.head.contains("www-authenticate: basic realm"), "{}", nobody.head);
    assert_eq!(door.get("/v1/devices", "wrong").await.status, 401);
    let check = async |method: &str, path: &str, expected: [u16; 3]| {
        for (token, expected) in ["press", "otto", "ada"].into_iter().zip(expected) {
            let status = door.send(method, path, &format!("authorization: Bearer {token}\r\n"), b"").await.status;
            assert_eq!(status, expected, "{token} {method} {path}");
        }
    };
    check("GET", "/v1/devices", [403, 200, 200]).await;
    check("GET", "/metrics", [403, 200, 200]).await;
    check("GET", "/openapi.json", [200, 200, 200]).await;
    check("POST", "/v1/alerts/7/acknowledge", [403, 200, 200]).await;
    check("POST", "/v1/devices/x/quarantine", [403, 403, 200]).await;
    check("POST", "/v1/dead-letters/replay", [403, 403, 200]).await;
    assert!(door.node.seen().calls.contains(&"Acknowledge 7 by otto".to_owned()));
}

#[tokio::test]
async fn a_user_of_a_tenant_gets_no_further() {
    let door = open(HttpSettings::default()).await;
    let check = async |method: &str, path: &str, body: &str, expected: u16| {
        let answer = door.send(method, path, "authorization: Bearer anna\r\n", body.as_bytes()).await;
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
    };
    let calls = || std::mem::take(&mut door.node.seen().calls);
    check("GET", "/healthz", "", 200).await;
    check("GET", "/v1/query?device_id=a&metric=t", "", 200).await;
    check("GET", "/v1/query?device_id=a&metric=t&tenant=acme", "", 200).await;
    check("GET", "/v1/query?device_id=a&metric=t&tenant=other", "", 403).await;
    check("GET", "/v1/query?device_id=a&metric=t&site=mill", "", 403).await;
    let tenants: Vec<_> = door.node.seen().queries.iter().map(|query| query.tenant.clone()).collect();
    assert_eq!(tenants, [Some("acme".to_owned()), Some("acme".to_owned())]);
    assert_eq!(calls(), Vec::<String>::new());
    check("GET", "/v1/cloud/sites", "", 200).await;
    check("GET", "/v1/cloud/sites/mill/ledger", "", 200).await;
    check("DELETE", "/v1/cloud/devices/press-1/events", "", 200).await;
    check("DELETE", "/v1/cloud/devices/press-1/events?tenant=other", "", 403).await;
    check("POST", "/v1/sql", r#"{"sql":"SELECT 1"}"#, 200).await;
    check("POST", "/v1/sql", r#"{"sql":"SELECT 1","tenant":"other"}"#, 403).await;
    check("PUT", "/v1/cloud/heads", r#"{"texts":[]}"#, 200).await;
    check("PUT", "/v1/cloud/heads", r#"{"tenant":"other","texts":[]}"#, 403).await;
    check("POST", "/v1/cloud/rollouts/7/undo", "", 200).await;
    check("GET", "/v1/windows/ten?limit=5", "", 200).await;
    check("GET", "/v1/windows/ten?site=mill", "", 403).await;
    assert_eq!(door.get("/v1/windows/ten?site=mill&tenant=acme", "ada").await.status, 400);
    check("GET", "/v1/alerts?limit=5", "", 200).await;
    check("GET", "/v1/alerts?tenant=other", "", 403).await;
    check("GET", "/v1/devices?limit=5", "", 200).await;
    check("GET", "/v1/devices?tenant=other", "", 403).await;
    check("GET", "/prometheus/api/v1/label/device/values", "", 200).await;
    let expected = [
        r#"site cloud_sites {"tenant":"acme"}"#,
        r#"site cloud_ledger {"site":"mill","tenant":"acme"}"#,
        r#"site cloud_forget {"device":"press-1","tenant":"acme"}"#,
        r#"site cloud_sql {"sql":"SELECT 1","tenant":"acme"}"#,
        r#"site cloud_put_heads {"tenant":"acme","texts":[]}"#,
        r#"site cloud_undo {"number":7,"tenant":"acme"}"#,
        "window ten None None None 5 of acme",
        "alerts None None 5 of acme",
        "devices None 5 of acme",
        "devices None 10000 of acme",
    ];
    assert_eq!(calls(), expected);
    // Whatever knows no tenants is closed.
    for route in routes::routes().iter().filter(|route| !route.of_tenants && route.access != login::Access::Open) {
        check(&route.method.to_uppercase(), &route.path.replace(['{', '}'], ""), "", 403).await;
    }
    assert_eq!(calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_device_sends_for_itself_only() {
    let door = open(HttpSettings::default()).await;
    // press:press
    let own = door.post("authorization: Basic cHJlc3M6cHJlc3M=\r\n", EVENT).await;
    assert_eq!(own.status, 200);
    let other = door.post("authorization: Bearer press\r\n", br#"{"device":"mill","t":1}"#).await;
    assert_eq!((other.status, field(&other.json(), "code")), (403, "MP0203"));
    assert_eq!(door.node.seen().runs, [("press".to_owned(), 1)]);
    assert_eq!(door.node.seen().logins, ["press"]);
}

#[tokio::test]
async fn a_query_answers_in_the_promised_form() {
    let door = open_to_all().await;
    let answer = door.get("/v1/query?device_id=a&metric=t&start=2026-11-20T08:15:00Z&end=1795162501000", "ada").await;
    assert_eq!(answer.body, r#"{"device_id":"a","metric":"t","points":[[1000,20.5],[1000.5,"x"]]}"#);
    let cut = door.get("/v1/query?device_id=a&metric=t&limit=1&aggregate=mean&step=1m", "ada").await;
    assert_eq!(cut.json()["truncated"], true);
    {
        let seen = door.node.seen();
        assert_eq!(seen.queries[0].start.as_millis(), 1_795_162_500_000);
        assert_eq!(seen.queries[0].end.as_millis(), 1_795_162_501_000);
        assert_eq!(seen.queries[1].end.since(seen.queries[1].start), Span::from_secs(3600));
        assert_eq!(seen.queries[1].step, Some(Span::from_secs(60)));
    }
    let check = async |query: &str, status: u16, code: &str, error: &str| {
        let answer = door.get(&format!("/v1/query?{query}"), "ada").await;
        let problem = answer.json();
        assert_eq!((answer.status, field(&problem, "code")), (status, code), "{problem}");
        assert!(field(&problem, "error").contains(error), "{problem}");
    };
    check("metric=t", 400, "MP0206", "device_id").await;
    check("device_id=a&metric=t&strat=0", 400, "MP0206", "strat").await;
    check("device_id=a&metric=t&start=noon", 400, "MP0206", "noon").await;
    check("device_id=a&metric=t&start=2&end=1", 400, "MP0206", "`start` lies after `end`").await;
    check("device_id=a&metric=t&step=1m", 400, "MP0206", "go together").await;
    check("device_id=nobody&metric=t", 404, "MP0204", "nobody").await;
    check("device_id=broken&metric=t", 500, "MP0216", "the store is gone").await;
}

#[tokio::test]
async fn lists_hand_their_parameters_on() {
    let door = open_to_all().await;
    let check = async |method: &str, path: &str, body: &[u8], call: &str| {
        let answer = door.send(method, path, "", body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(door.node.seen().calls.pop().as_deref(), Some(call), "{path}");
    };
    check("GET", "/v1/devices?after=a&limit=99999999", b"", "devices Some(\"a\") 10000").await;
    check("POST", "/v1/devices/hall%2Fpress%207/quarantine", b"", "quarantine hall/press 7 true").await;
    check("POST", "/v1/devices/a/release", b"", "quarantine a false").await;
    check(
        "GET",
        "/v1/windows/hourly?key=a&start=1&end=2000",
        b"",
        "window hourly Some(\"a\") Some(1000000000) Some(2000000000000) 100",
    )
    .await;
    check("GET", "/v1/windows/hourly/late?limit=5", b"", "late hourly 5").await;
    check("GET", "/v1/alerts?state=firing&rule=hot", b"", "alerts Some(\"firing\") Some(\"hot\") 100").await;
    check("POST", "/v1/alerts/7/resolve", b"", "Resolve 7 by anonymous").await;
    check("GET", "/v1/dead-letters?reason=malformed&after=3", b"", "dead letters Some(\"malformed\") None Some(3) 100")
        .await;
    check("POST", "/v1/dead-letters/replay", b"{\"ids\":[1,2]}", "replay Some([1, 2]) None").await;
    check("POST", "/v1/dead-letters/replay", b"", "replay None None").await;
    check("GET", "/v1/drops", b"", "drops 100").await;
    assert_eq!(door.send("POST", "/v1/dead-letters/replay", "", b"{\"id\":1}").await.status, 400);
    assert_eq!(door.send("GET", "/v1/alerts?state=odd", "", b"").await.status, 400);
    let journal = door.send("GET", "/v1/journal", "", b"").await;
    assert_eq!(journal.status, 503);
    assert!(journal.head.contains("retry-after: 1"));
    assert_eq!(door.send("GET", "/v2", "", b"").await.json()["code"], "MP0204");
    assert_eq!(door.send("DELETE", "/v1/devices", "", b"").await.json()["code"], "MP0205");
}

#[tokio::test]
async fn health_and_readiness_are_statuses() {
    let door = open(HttpSettings::default()).await;
    assert_eq!(door.send("GET", "/readyz", "", b"").await.status, 200);
    door.node.seen().not_ready = true;
    assert_eq!(door.send("GET", "/readyz", "", b"").await.status, 503);
    assert_eq!(door.send("GET", "/healthz", "", b"").await.status, 503);
}

#[tokio::test]
async fn the_tap_shows_events_until_the_door_closes() {
    let door = open_to_all().await;
    let path = "/v1/tap?metric=t&where=t%20%3E%201.0";
    let bad = door.send("GET", "/v1/tap?where=t%20%3E", "", b"").await;
    assert_eq!((bad.status, field(&bad.json(), "code")), (400, "MP0206"));
    let mut watcher = door.env.net.connect("127.0.0.1", door.addr.port()).await.expect("an open door");
    watcher.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4096];
    let read = watcher.read(&mut answer).await.expect("a head");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    assert!(door.tap.wanted());
    let mut builder = BatchBuilder::default();
    for t in [0.5, 1.5] {
        builder.begin("press");
        builder.cell("t", Metric::F64(t));
        builder.end();
    }
    builder.finish().into_iter().for_each(|batch| door.tap.publish(Arc::new(batch)));
    let read = watcher.read(&mut answer).await.expect("a line");
    let line = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(
        line.contains("{\"device\":\"press\",\"ts\":\"1970-01-01T00:00:00.000Z\",\"t\":1.5}\n")
            && !line.contains("0.5"),
        "{line}"
    );
    door.stop.cancel();
    door.closed.await.expect("the door closes");
    let mut rest = Vec::new();
    let _ = watcher.read_to_end(&mut rest).await;
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends as HTTP says");
    assert!(!door.tap.wanted());
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_kept() {
    let settings = HttpSettings { anonymous: true, idle_timeout: Span::from_millis(80), ..HttpSettings::default() };
    let door = open(settings).await;
    let mut idle = door.env.net.connect("127.0.0.1", door.addr.port()).await.expect("an open door");
    idle.write_all(b"GET / HTT").await.expect("sent");
    let mut rest = Vec::new();
    // The head never ends: the door does.
    let _ = idle.read_to_end(&mut rest).await;
    let mut kept = door.env.net.connect("127.0.0.1", door.addr.port()).await.expect("an open door");
    for _ in 0..3 {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = vec![0; 1024];
        let read = kept.read(&mut answer).await.expect("an answer");
        assert_eq!(parse(&answer[..read]).status, 200);
    }
    let _ = kept.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let settings = HttpSettings { anonymous: true, connections_max: 1, ..HttpSettings::default() };
    let door = open(settings).await;
    let first = door.env.net.connect("127.0.0.1", door.addr.port()).await.expect("an open door");
    let waiting = door.send("GET", "/healthz", "", b"");
    let early = door.env.timeout(Span::from_millis(50), waiting).await;
    assert!(early.is_err(), "the only place is taken");
    drop(first);
    assert_eq!(door.send("GET", "/healthz", "", b"").await.status, 200);
}

#[test]
fn the_document_describes_every_route() {
    let document = openapi_document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for route in routes::routes() {
        let operation = &document["paths"][route.path][route.method];
        assert!(operation.is_object(), "{} {}", route.method, route.path);
        assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{}", route.path);
        let in_path = operation["parameters"].as_array().expect("a list").iter().filter(|param| param["in"] == "path");
        assert_eq!(in_path.count(), route.path.matches('{').count(), "{}", route.path);
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn every_problem_has_a_code_of_its_own() {
    let codes: std::collections::BTreeSet<_> = problem::Code::ALL.iter().map(|code| code.entry().code).collect();
    assert_eq!(codes.len(), problem::Code::ALL.len());
    let expected: Vec<String> = (1..=codes.len()).map(|n| format!("MP02{n:02}")).collect();
    assert!(problem::Code::ALL.iter().map(|code| code.entry().code).eq(expected.iter().map(String::as_str)));
}

#[tokio::test]
async fn a_chart_gets_points_that_look_like_all() {
    let door = open_to_all().await;
    let points = async |more: &str| {
        let answer = door.get(&format!("/v1/query?device_id=long&metric=t&{more}"), "otto").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["points"].as_array().expect("points").clone()
    };
    let lttb = points("points=50").await;
    assert!(lttb.len() == 50 && lttb.contains(&json!([400, 9.0])) && lttb[49] == json!([999, 1.0]));
    assert!(points("points=10&downsample=min_max").await.contains(&json!([400, 9.0])));
    assert_eq!(points("").await.len(), 1000);
    for wrong in
        ["points=1", "points=10001", "downsample=lttb", "points=9&aggregate=mean&step=1m", "points=9&downsample=all"]
    {
        let answer = door.get(&format!("/v1/query?device_id=long&metric=t&{wrong}"), "otto").await;
        assert_eq!((answer.status, field(&answer.json(), "code")), (400, "MP0206"), "{wrong}");
    }
}

#[tokio::test]
async fn grafana_reads_metrics_of_devices_as_from_prometheus() {
    let door = open_to_all().await;
    let base = "/prometheus/api/v1";
    let range = format!(
        "{base}/query_range?query=avg_over_time(t%7Bdevice%3D%22steady%22%7D%5B2m%5D)&start=600.5&end=720&step=60"
    );
    let answer = door.get(&range, "otto").await.json();
    let expected =
        json!([{"metric": {"device": "steady"}, "values": [[600.0, "1.5"], [660.0, "1.5"], [720.0, "1.5"]]}]);
    assert_eq!((field(&answer, "status"), &answer["data"]["result"]), ("success", &expected));
    let asked: Vec<(i64, i64, Option<i64>)> = {
        let seen = door.node.seen();
        let seconds = |at: millpond_core::time::Timestamp| at.as_millis() / 1000;
        seen.queries.iter().map(|q| (seconds(q.start), seconds(q.end), q.step.map(|step| step.as_millis()))).collect()
    };
    assert_eq!(asked, [(480, 720, Some(60_000)); 2]);

    let form = b"query=t%7Bdevice%3D~%22steady%7Cnobody%22%7D&time=600";
    let headers = "content-type: application/x-www-form-urlencoded\r\n";
    let answer = door.send("POST", &format!("{base}/query"), headers, form).await.json();
    let expected = json!([{"metric": {"__name__": "t", "device": "steady"}, "value": [600.0, "3"]}]);
    assert_eq!(answer["data"], json!({"resultType": "vector", "result": expected}));

    let data = async |path: &str| door.get(&format!("{base}/{path}"), "otto").await.json()["data"].clone();
    assert_eq!(data("query?query=1%2B1&time=5").await, json!({"resultType": "scalar", "result": [5.0, "2"]}));
    assert_eq!(data("label/__name__/values").await, json!(["temperature"]));
    assert_eq!(data("label/device/values").await, json!(["a"]));
    assert_eq!(data("labels").await, json!(["__name__", "device"]));
    assert_eq!(data("series?match%5B%5D=t").await, json!([{"__name__": "t", "device": "a"}]));
    assert_eq!(data("metadata").await["temperature"][0]["type"], "gauge");
    assert_eq!(data("status/buildinfo").await["application"], "Millpond");
}

#[tokio::test]
async fn what_prometheus_can_do_and_this_cannot_is_said_in_its_shape() {
    let door = open_to_all().await;
    let check = async |path: &str, status: u16, kind: &str, words: &str| {
        let answer = door.get(&format!("/prometheus/api/v1/{path}"), "otto").await;
        let body = answer.json();
        assert_eq!(
            (answer.status, field(&body, "status"), field(&body, "errorType")),
            (status, "error", kind),
            "{path}"
        );
        assert!(field(&body, "error").contains(words), "{body}");
    };
    check("query?query=rate(t%5B5m%5D)", 400, "bad_data", "avg_over_time").await;
    check("query", 400, "bad_data", "`query` is missing").await;
    check("query_range?query=t&start=0&end=11000&step=1", 400, "bad_data", "11,000 points").await;
    check("query_range?query=t&start=9&end=1&step=1", 400, "bad_data", "`end` lies before").await;
    check("query_range?query=t&start=1&end=9&step=soon", 400, "bad_data", "`step`").await;
    check("query?query=t%7Bdevice%3D%22broken%22%7D", 422, "execution", "the store is gone").await;
    check("series", 400, "bad_data", "match[]").await;
    check("query_range?query=avg_over_time(t%5B1h%5D)&start=0&end=6000&step=0.007", 400, "bad_data", "11,000").await;
}
