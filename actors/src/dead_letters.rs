//! Rows that were rejected become dead letters: one for each device and reason of a batch.

use millpond_core::{
    admission::RowVerdict,
    batch::Batch,
    block,
    dead_letter::{DeadLetter, PayloadFormat, Reason},
    time::Timestamp,
};
use millpond_gateway::port::Source;

/// Dead letters of the rejected rows of a batch; `rows` has one verdict per row.
pub fn of_rejected(batch: &Batch, rows: &[RowVerdict], source: &Source, received: Timestamp) -> Vec<DeadLetter> {
    let mut groups: Vec<(String, Reason, String, Batch)> = Vec::new();
    for run in batch.runs() {
        let device = batch.device(run);
        for row in run.rows() {
            let RowVerdict::Reject(reason, detail) = &rows[row] else { continue };
            let at = match groups.iter().position(|(of, why, _, _)| of == device && why == reason) {
                Some(at) => at,
                None => {
                    groups.push((device.into(), *reason, detail.to_string(), Batch::empty(batch.shape.clone())));
                    groups.len() - 1
                }
            };
            groups[at].3.push_row_of(batch, device, row);
        }
    }
    let letter = |(device, reason, detail, rows): (String, Reason, String, Batch)| {
        let mut payload = Vec::new();
        block::encode(&rows, &mut payload);
        DeadLetter {
            received,
            reason,
            detail,
            device,
            login: source.login.to_string(),
            door: source.door.into(),
            format: PayloadFormat::Block,
            payload,
        }
    };
    groups.into_iter().map(letter).collect()
}
