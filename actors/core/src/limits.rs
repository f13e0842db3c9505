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
/// Different sets of metrics in one payload: each makes a batch of its own.
pub const SHAPES_PER_PAYLOAD_MAX: usize = 1024;
/// One payload at a door: an MQTT packet or an HTTP body after decompression.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// A block that the node encodes itself stays below this, so that it fits one value of the store.
pub const BLOCK_BYTES_TARGET: usize = 60 << 10;
/// A value of the journal: redb stores this many bytes without waste, and one more in twice the space.
pub const JOURNAL_VALUE_BYTES: usize = 65_520;

const _: () = assert!(BLOCK_BYTES_TARGET < JOURNAL_VALUE_BYTES);
const _: () = assert!(VALUE_BYTES_MAX <= PAYLOAD_BYTES_MAX);
