//! What holds for payloads of every format.

use bytes::Bytes;
use millpond_core::{
    block,
    dead_letter::PayloadFormat,
    limits::{DEVICE_NAME_BYTES_MAX, EVENTS_PER_BATCH_MAX, METRIC_NAME_BYTES_MAX, METRICS_PER_EVENT_MAX},
};
use millpond_gateway::payload::PayloadDecoder;

/// Decodes after and before a good payload, and tells whether the payload was taken.
pub fn decode(format: PayloadFormat, device: Option<&str>, payload: &Bytes) -> bool {
    let good = Bytes::from_static(b"{\"device\":\"press-17\",\"t\":1,\"on\":true}");
    let mut decoder = PayloadDecoder::new();
    decoder.decode(PayloadFormat::Json, None, &good).expect("a good payload");
    let taken = decoder.decode(format, device, payload);
    decoder.decode(PayloadFormat::Json, None, &good).expect("a good payload");
    let batches = decoder.finish();
    let rows: usize = batches.iter().map(|inbound| inbound.batch.rows()).sum();
    assert_eq!(rows, 2 + *taken.as_ref().unwrap_or(&0));
    for inbound in &batches {
        let batch = &inbound.batch;
        assert!(batch.rows() <= EVENTS_PER_BATCH_MAX + 2);
        let metrics = batch.shape.metrics();
        assert!(!metrics.is_empty() && metrics.len() <= METRICS_PER_EVENT_MAX);
        for (at, metric) in metrics.iter().enumerate() {
            assert!(!metric.name.is_empty() && metric.name.len() <= METRIC_NAME_BYTES_MAX);
            assert!(metrics[..at].iter().all(|before| before.name != metric.name));
        }
        for run in batch.runs() {
            let name = batch.device(run);
            assert!(!name.is_empty() && name.len() <= DEVICE_NAME_BYTES_MAX);
            assert!(device.is_none_or(|device| device == name));
        }
        let mut bytes = Vec::new();
        block::encode(batch, &mut bytes);
        assert_eq!(block::Decoder::new().decode(&bytes).as_ref(), Ok(&batch.clone().grouped()));
    }
    taken.is_ok()
}
