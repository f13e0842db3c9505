//! Every bound of a node, in one place. Bytes unless the name says otherwise.

/// Length of a device's name.
pub const DEVICE_NAME_BYTES_MAX: usize = 128;
/// Length of a metric's name.
pub const METRIC_NAME_BYTES_MAX: usize = 128;
/// Metrics of one event.
pub const METRICS_PER_EVENT_MAX: usize = 256;
/// Text or bytes of one metric.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Events of one payload or block.
pub const EVENTS_PER_BATCH_MAX: usize = 65_536;
/// Events × metrics of one block: at 8 bytes each that is what decoding may take in memory.
pub const CELLS_PER_BATCH_MAX: usize = 2 << 20;
/// Names of all devices of one block together, decoded.
pub const BLOCK_NAME_BYTES_MAX: usize = 8 << 20;
/// Text and bytes of all metrics of one block together, decoded.
pub const BLOCK_TEXT_BYTES_MAX: usize = 8 << 20;
/// Different sets of metrics in one payload: each makes a batch of its own.
pub const SHAPES_PER_PAYLOAD_MAX: usize = 1024;
/// Watchers of the live events at a time, and what each may be behind: batches, and bytes of them.
pub const TAP_READERS_MAX: usize = 16;
pub const TAP_QUEUE_MAX: usize = 1024;
pub const TAP_QUEUE_BYTES_MAX: usize = 1 << 20;
/// Points that a query answers at most, and when it does not say how many.
pub const QUERY_POINTS_MAX: usize = 500_000;
pub const QUERY_POINTS_DEFAULT: usize = 100_000;
/// Lines of any other list that HTTP answers with at most, and when the request does not say how many.
pub const LIST_LINES_MAX: usize = 10_000;
pub const LIST_LINES_DEFAULT: usize = 100;
/// One payload at a door: an MQTT packet or an HTTP body after decompression.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// A block that the node encodes itself stays below this, so that it fits one value of the store.
pub const BLOCK_BYTES_TARGET: usize = 60 << 10;
/// A value of the journal: redb stores this many bytes without waste, and one more in twice the space.
pub const JOURNAL_VALUE_BYTES: usize = 65_520;
/// Payload of one record of the journal.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Key of an entry in one of the store's state tables.
pub const STATE_KEY_BYTES_MAX: usize = 1024;
/// Source of an expression of a rule, a filter or an enrichment.
pub const EXPR_BYTES_MAX: usize = 1024;
/// Brackets of an expression one inside the other: each costs the parser about 16 KiB of stack.
pub const EXPR_BRACKETS_MAX: usize = 24;
/// Levels of an expression: operators one inside the other, and terms of a sum.
pub const EXPR_DEPTH_MAX: usize = 64;
/// Checks of passwords at a time: each takes 19 MiB of memory and some 20 ms of a processor.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// Length of a password.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Passwords remembered as right, so that a storm of reconnects is cheap.
pub const REMEMBERED_PASSWORDS_MAX: usize = 16_384;
/// User names whose refused logins are counted.
pub const REFUSED_NAMES_MAX: usize = 1024;
/// Length of an MQTT topic or filter, and how many levels it may have.
pub const TOPIC_BYTES_MAX: usize = 1024;
pub const TOPIC_LEVELS_MAX: usize = 64;
/// Sessions of the MQTT broker, connected or waiting for their client.
pub const MQTT_SESSIONS_MAX: usize = 100_000;
/// Subscriptions of one MQTT client.
pub const MQTT_SUBSCRIPTIONS_MAX: usize = 256;
/// Messages that wait for one MQTT client, and their bytes.
pub const MQTT_QUEUE_MAX: usize = 4096;
pub const MQTT_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Messages sent to one MQTT client and not acknowledged by it.
pub const MQTT_INFLIGHT_OUT_MAX: usize = 128;
/// Publishes of one MQTT client that are not acknowledged yet, and their bytes: then its socket is not read.
pub const MQTT_PENDING_MAX: usize = 16_384;
pub const MQTT_PENDING_BYTES_MAX: usize = 4 << 20;
/// Bytes waiting to be written to one MQTT client, above which its socket is not read.
pub const MQTT_OUT_BYTES_MAX: usize = 256 << 10;
/// Topic aliases that one MQTT client may set.
pub const MQTT_ALIASES_MAX: usize = 64;
/// Retained MQTT messages, and their bytes.
pub const MQTT_RETAINED_MAX: usize = 65_536;
pub const MQTT_RETAINED_BYTES_MAX: usize = 64 << 20;
/// Metrics of one window and key; further ones are left out and counted.
pub const WINDOW_METRICS_MAX: usize = 1024;
/// Slices (or sessions) of one window and key that are held because late events may still change them.
pub const WINDOW_PARTS_MAX: usize = 10_000;
/// Panes of one window and tenant that are merged from several sites at a time: beyond that the oldest are closed for good.
pub const MERGED_PANES_MAX: usize = 200_000;
/// Quantiles of one window.
pub const WINDOW_QUANTILES_MAX: usize = 16;
/// Shapes for which a window remembers where its metrics stand.
pub const WINDOW_SHAPES_MAX: usize = 1024;
/// Magnitudes of one sign that a quantile sketch tells apart: all of 32 octaves.
pub const SKETCH_BUCKETS_MAX: usize = 2048;
/// Rules of a node.
pub const RULES_MAX: usize = 1000;
/// Facts that a rule's enrichment adds to an alert, and bytes of one.
pub const RULE_FACTS_MAX: usize = 32;
pub const FACT_BYTES_MAX: usize = 1024;
/// Keys of panes that one rule on a window keeps apart.
pub const RULE_KEYS_MAX: usize = 100_000;
/// Shapes for which a rule book remembers what concerns it.
pub const RULE_SHAPES_MAX: usize = 1024;
/// Alerts that are pending or firing at once.
pub const ALERTS_OPEN_MAX: usize = 100_000;
/// Pairs of rule and key whose last notification is remembered.
pub const ALERT_KEYS_MAX: usize = 100_000;
/// Alerts shown in one digest.
pub const DIGEST_ALERTS_MAX: usize = 50;

const _: () = assert!(BLOCK_BYTES_TARGET < JOURNAL_VALUE_BYTES);
const _: () = assert!(VALUE_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(BLOCK_NAME_BYTES_MAX >= PAYLOAD_BYTES_MAX && BLOCK_TEXT_BYTES_MAX >= PAYLOAD_BYTES_MAX);
const _: () = assert!(CELLS_PER_BATCH_MAX >= PAYLOAD_BYTES_MAX && CELLS_PER_BATCH_MAX >= EVENTS_PER_BATCH_MAX);
const _: () = assert!(METRICS_PER_EVENT_MAX <= u16::MAX as usize);
const _: () = assert!(MQTT_PENDING_BYTES_MAX >= PAYLOAD_BYTES_MAX && MQTT_QUEUE_BYTES_MAX >= PAYLOAD_BYTES_MAX);
