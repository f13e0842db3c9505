//! Blocks: checked, decoded, and kept as the bytes they came in.

use bytes::Bytes;

use super::PayloadError;
use crate::port::Inbound;

#[derive(Debug, Default)]
pub(super) struct Blocks {
    decoded: Vec<Inbound>,
}

pub(super) fn is_block(_payload: &[u8]) -> bool {
    false
}

impl Blocks {
    pub fn decode(&mut self, _device: Option<&str>, _payload: &Bytes) -> Result<usize, PayloadError> {
        Err(PayloadError::malformed("blocks cannot be read yet"))
    }

    pub fn finish(&mut self) -> Vec<Inbound> {
        std::mem::take(&mut self.decoded)
    }
}
