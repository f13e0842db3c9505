//! Every address of the door, in one table.

mod cloud;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    middleware::from_fn_with_state,
    routing::{MethodRouter, delete, get, patch, post, put},
};

use super::{
    Door, lists, live,
    login::{Access, Gate, admit},
    problem::{Code, Problem},
    prometheus, query, site, telemetry,
};

/// One address.
pub(super) struct Route {
    /// `get`, `post`, `put`, `patch` or `delete`.
    pub method: &'static str,
    pub path: &'static str,
    pub access: Access,
    pub handler: MethodRouter<Arc<Door>>,
    /// One sentence for the OpenAPI document.
    pub summary: &'static str,
    /// Parameters behind the question mark.
    pub params: &'static [Param],
    /// What a success answers with: the name of a schema in the OpenAPI document, or a media type that is not JSON.
    pub answer: &'static str,
    /// Its handler keeps to the tenant of a login; what others do is closed to who has one.
    pub of_tenants: bool,
}

pub(super) struct Param {
    pub name: &'static str,
    pub required: bool,
    pub about: &'static str,
}

const fn param(name: &'static str, about: &'static str) -> Param {
    Param { name, required: false, about }
}

const LIMIT: Param = param("limit", "Lines to answer with. Default 100, at most 10000.");
const START: Param = param("start", "Inclusive: RFC 3339, or epoch seconds or milliseconds.");
const END: Param = param("end", "Exclusive, in the same forms.");
const TENANT: Param = param("tenant", "At a node of the cloud: only of this tenant's sites.");
const SITE: Param = param("site", "Another site, from which records are fetched. Default: this one.");

pub(super) fn routes() -> Vec<Route> {
    let mut routes = data();
    routes.extend(state());
    routes.extend(of_site());
    routes.extend(cloud::routes());
    routes.extend(twins());
    routes.extend(grafana());
    routes.extend(node());
    routes
}

fn data() -> Vec<Route> {
    use Access::{Anyone, Operator};
    vec![
        route(
            "post",
            "/v1/telemetry",
            Anyone,
            post(telemetry::post),
            "Sends events; answered after they are on disk.",
            "Receipt",
        )
        .params(const { &[param("device", "The device of all events in the body; they need not name it then.")] }),
        route("get", "/v1/query", Operator, get(query::query), "Values of one metric of one device.", "QueryAnswer")
            .params(
                const {
                    &[
                        Param { name: "device_id", required: true, about: "Name of the device." },
                        Param { name: "metric", required: true, about: "Name of the metric." },
                        param(
                            "start",
                            "Inclusive: RFC 3339, or epoch seconds or milliseconds. Default: one hour before `end`.",
                        ),
                        param("end", "Exclusive, in the same forms. Default: now."),
                        param(
                            "aggregate",
                            "One point per step: count, sum, min, max, mean, first or last. Needs `step`.",
                        ),
                        param("step", "Length of a step, such as 10s, 5m or 1h. Needs `aggregate`."),
                        param("limit", "Points to answer with. Default 100000, at most 500000."),
                        param("points", "At most so many points that look like all of them, for a chart; at most 10000. Not with `aggregate`."),
                        param("downsample", "How they are chosen: lttb (default), or min_max, which loses no peak."),
                        SITE,
                        param("tenant", "At a node of the cloud: whose device it is. Default: `default`."),
                    ]
                },
            )
            .of_tenants(),
        route(
            "get",
            "/v1/tap",
            Operator,
            get(live::tap),
            "Events as they are committed, one JSON object per line.",
            "application/x-ndjson",
        )
        .params(
            const {
                &[
                    param("device", "Only this device."),
                    param("metric", "Only this metric, of events that carry it."),
                    param("where", "Only events for which this CEL expression is true."),
                ]
            },
        ),
    ]
}

fn state() -> Vec<Route> {
    use Access::{Admin, Operator};
    vec![
        route("get", "/v1/devices", Operator, get(lists::devices), "Known devices, by name.", "Devices")
            .params(const { &[param("after", "Only names after this one."), LIMIT, TENANT] })
            .of_tenants(),
        route("get", "/v1/devices/{device}", Operator, get(lists::device), "What is known of a device.", "Any"),
        route(
            "post",
            "/v1/devices/{device}/quarantine",
            Admin,
            post(lists::quarantine),
            "Sets a device apart: its events become dead letters.",
            "Any",
        ),
        route(
            "post",
            "/v1/devices/{device}/release",
            Admin,
            post(lists::release),
            "Takes a device out of quarantine.",
            "Any",
        ),
        route(
            "get",
            "/v1/windows/{window}",
            Operator,
            get(lists::window),
            "Newest revision of each pane of a window, newest first.",
            "Panes",
        )
        .params(
            const {
                &[
                    param("key", "Only panes of this key: a device, a type, or nothing for the whole node."),
                    START,
                    END,
                    LIMIT,
                    SITE,
                    TENANT,
                ]
            },
        )
        .of_tenants(),
        route(
            "get",
            "/v1/windows/{window}/late",
            Operator,
            get(lists::late),
            "Events that came too late for a window, newest first.",
            "Late",
        )
        .params(const { &[LIMIT] }),
        route("get", "/v1/alerts", Operator, get(lists::alerts), "Alerts, newest first.", "Alerts")
            .params(
                const {
                    &[
                        param("state", "pending, firing or resolved."),
                        param("rule", "Only alerts of this rule."),
                        LIMIT,
                        SITE,
                        TENANT,
                    ]
                },
            )
            .of_tenants(),
        route(
            "post",
            "/v1/alerts/{alert}/acknowledge",
            Operator,
            post(lists::acknowledge),
            "Says that somebody takes care of an alert.",
            "Any",
        ),
        route("post", "/v1/alerts/{alert}/resolve", Operator, post(lists::resolve), "Ends an alert by hand.", "Any"),
        route(
            "get",
            "/v1/dead-letters",
            Operator,
            get(lists::dead_letters),
            "Rejected input with the reasons, oldest first.",
            "DeadLetters",
        )
        .params(
            const {
                &[
                    param("reason", "Only this reason, such as out_of_range."),
                    param("device", "Only this device."),
                    param("after", "Only identifiers after this one."),
                    LIMIT,
                ]
            },
        ),
        route(
            "post",
            "/v1/dead-letters/replay",
            Admin,
            post(lists::replay),
            "Submits dead letters again; those that pass leave the store.",
            "Any",
        ),
        route(
            "get",
            "/v1/drops",
            Operator,
            get(lists::drops),
            "Records that were given up, with the reasons.",
            "Drops",
        )
        .params(const { &[LIMIT] }),
        route(
            "get",
            "/v1/journal",
            Operator,
            get(lists::journal),
            "Sequence numbers, sizes, cursors and quotas of the journal.",
            "Any",
        ),
    ]
}

fn of_site() -> Vec<Route> {
    use Access::{Admin, Operator};
    vec![
        route(
            "get",
            "/v1/site/members",
            Operator,
            get(site::members),
            "Nodes of the site, and how well they are reached.",
            "Any",
        ),
        route(
            "get",
            "/v1/site/ledger",
            Operator,
            get(site::ledger),
            "Which records of which node are held here, and which are missing.",
            "Any",
        ),
        route(
            "get",
            "/v1/uplinks",
            Operator,
            get(site::uplinks),
            "How far this node's deliveries to the cloud have come.",
            "Any",
        ),
        route(
            "get",
            "/v1/site/conflicts",
            Operator,
            get(site::conflicts),
            "What several people wrote at once; the first version holds until somebody decides.",
            "Any",
        ),
        route(
            "post",
            "/v1/site/conflicts/resolve",
            Admin,
            post(site::resolve),
            "Decides for one of the versions.",
            "Any",
        ),
        route(
            "get",
            "/v1/site/texts/{kind}",
            Operator,
            get(site::texts),
            "Texts of a kind: rules, windows, schemas, device_types or configuration.",
            "Any",
        ),
        route(
            "get",
            "/v1/site/texts/{kind}/{name}",
            Operator,
            get(site::text),
            "One text, with the head of its kind.",
            "Any",
        ),
        route(
            "put",
            "/v1/site/texts/{kind}/{name}",
            Admin,
            put(site::put_text),
            "Writes a text, as TOML or JSON, for the whole site.",
            "Any",
        ),
        route("delete", "/v1/site/texts/{kind}/{name}", Admin, delete(site::remove_text), "Removes a text.", "Any"),
    ]
}

fn twins() -> Vec<Route> {
    use Access::{Admin, Anyone, Operator};
    vec![
        route(
            "put",
            "/v1/devices/{device}",
            Admin,
            put(site::register),
            "Says all that the registry has of a device; one that was deleted begins a new life.",
            "Any",
        ),
        route(
            "delete",
            "/v1/devices/{device}",
            Admin,
            delete(site::delete),
            "Deletes a device from the registry of the site.",
            "Any",
        ),
        route(
            "get",
            "/v1/devices/{device}/twin",
            Anyone,
            get(site::twin),
            "What a device should be, says it is, and still has to do about it.",
            "Any",
        ),
        route(
            "patch",
            "/v1/devices/{device}/twin/desired",
            Operator,
            patch(site::desired),
            "Merges a patch (RFC 7396) into what a device should be.",
            "Any",
        ),
        route(
            "patch",
            "/v1/devices/{device}/twin/reported",
            Anyone,
            patch(site::reported),
            "Merges a patch (RFC 7396) into what a device says that it is.",
            "Any",
        ),
        route(
            "post",
            "/v1/devices/{device}/commands",
            Operator,
            post(site::command),
            "Tells a device to do something; answered when that is on disk.",
            "Any",
        ),
        route(
            "get",
            "/v1/devices/{device}/commands",
            Operator,
            get(site::commands),
            "Commands of a device that are not finished, in their order.",
            "Any",
        )
        .params(const { &[LIMIT] }),
        route(
            "get",
            "/v1/devices/{device}/commands/{command}",
            Operator,
            get(site::command_status),
            "How a command stands.",
            "Any",
        ),
    ]
}

fn grafana() -> Vec<Route> {
    use Access::Operator;
    const QUERY: Param = Param { name: "query", required: true, about: "An expression; see docs/guides/grafana.md." };
    const MATCH: Param = param("match[]", "A selector, such as temperature{device=\"press-1\"}.");
    let both = |path, handler: fn(&'static str) -> MethodRouter<Arc<Door>>, summary, params: &'static [Param]| {
        ["get", "post"]
            .map(|method| route(method, path, Operator, handler(method), summary, "Prometheus").params(params))
    };
    let mut routes = vec![
        route(
            "get",
            "/prometheus/api/v1/label/{label}/values",
            Operator,
            get(prometheus::label_values),
            "Values of a label, as Prometheus tells them: names of metrics or of devices.",
            "Prometheus",
        ),
        route(
            "get",
            "/prometheus/api/v1/metadata",
            Operator,
            get(prometheus::metadata),
            "Metrics of devices, as Prometheus tells them.",
            "Prometheus",
        ),
        route(
            "get",
            "/prometheus/api/v1/status/buildinfo",
            Operator,
            get(prometheus::build_info),
            "What answers here, as Prometheus tells it.",
            "Prometheus",
        ),
    ];
    routes.extend(both(
        "/prometheus/api/v1/query",
        |method| if method == "get" { get(prometheus::query) } else { post(prometheus::query) },
        "An expression over metrics of devices at one time, as in Prometheus. By POST the parameters are a form.",
        const { &[QUERY, param("time", "Epoch seconds or RFC 3339. Default: now.")] },
    ));
    routes.extend(both(
        "/prometheus/api/v1/query_range",
        |method| if method == "get" { get(prometheus::query_range) } else { post(prometheus::query_range) },
        "An expression over metrics of devices at many times, as in Prometheus. By POST the parameters are a form.",
        const {
            &[
                QUERY,
                Param { name: "start", required: true, about: "Epoch seconds or RFC 3339; rounded down to the step." },
                Param { name: "end", required: true, about: "In the same forms." },
                Param { name: "step", required: true, about: "Seconds, or a length of time such as 15s." },
            ]
        },
    ));
    routes.extend(both(
        "/prometheus/api/v1/labels",
        |method| if method == "get" { get(prometheus::labels) } else { post(prometheus::labels) },
        "The labels that there are, as Prometheus tells them.",
        &[],
    ));
    routes.extend(both(
        "/prometheus/api/v1/series",
        |method| if method == "get" { get(prometheus::series) } else { post(prometheus::series) },
        "The series that selectors name, as Prometheus tells them.",
        const { &[MATCH] },
    ));
    routes.into_iter().map(Route::of_tenants).collect()
}

fn node() -> Vec<Route> {
    use Access::{Anyone, Open, Operator};
    vec![
        route(
            "get",
            "/metrics",
            Operator,
            get(lists::metrics),
            "Metrics in the text format of Prometheus.",
            "text/plain",
        ),
        route(
            "get",
            "/healthz",
            Open,
            get(lists::healthz),
            "200 as long as the node works, perhaps degraded; 503 otherwise.",
            "Health",
        ),
        route("get", "/readyz", Open, get(lists::readyz), "200 when the node takes traffic; 503 otherwise.", "Health"),
        route("get", "/openapi.json", Anyone, get(lists::description), "This document.", "Any"),
        route("get", "/", Anyone, get(lists::welcome), "Where to find the rest.", "text/plain"),
    ]
}

fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<Door>>,
    summary: &'static str,
    answer: &'static str,
) -> Route {
    Route { method, path, access, handler, summary, params: &[], answer, of_tenants: false }
}

impl Route {
    fn params(self, params: &'static [Param]) -> Route {
        Route { params, ..self }
    }

    /// Its handler keeps to the tenant of a login.
    fn of_tenants(self) -> Route {
        Route { of_tenants: true, ..self }
    }
}

pub(super) fn router(door: Arc<Door>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let gate = Gate { door: door.clone(), path: route.path, access: route.access, of_tenants: route.of_tenants };
        router = router.route(route.path, route.handler.route_layer(from_fn_with_state(gate, admit)));
    }
    router.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(door)
}

async fn unknown(State(door): State<Arc<Door>>) -> Problem {
    door.metrics.requests.with_label_values(&["unknown", "404"]).inc();
    Problem::new(Code::NotFound).because("there is no such address")
}

async fn wrong_method(State(door): State<Arc<Door>>) -> Problem {
    door.metrics.requests.with_label_values(&["unknown", "405"]).inc();
    Problem::new(Code::WrongMethod)
}
