//! What somebody without a certificate may say: tokens and questions. Whatever the bytes, nobody panics, and nobody gets a certificate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_cluster::identity::{Answer, Ask, Token};
use millpond_core::record;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = text.parse::<Token>()
    {
        assert!(token.to_string().parse::<Token>().is_ok());
    }
    let _ = record::decode::<Ask>(data);
    let _ = record::decode::<Answer>(data);
});
