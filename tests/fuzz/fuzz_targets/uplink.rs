//! What sites and the cloud say to each other: read or refused, and what is read holds what it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::record::Track;
use millpond_proto::{
    sites::{Answer, Question},
    uplink::{
        Brought, Delivery, Receipt, Sent,
        orders::{Order, Outcome},
    },
    wire,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => drop(wire::decode::<Question>(bytes)),
        1 => drop(wire::decode::<Answer>(bytes)),
        2 => {
            let sent = match wire::decode::<Delivery>(bytes) {
                Ok(Delivery::Sent(sent)) => sent,
                Ok(Delivery::Packed(packed)) => match Sent::unpack(&packed) {
                    Ok(sent) => sent,
                    Err(_) => return,
                },
                _ => return,
            };
            if sent.is_sound() {
                let packed = sent.clone().into_delivery();
                let again = match wire::decode(&wire::encode(&packed)) {
                    Ok(Delivery::Packed(packed)) => Sent::unpack(&packed).expect("it was packed so"),
                    Ok(Delivery::Sent(sent)) => sent,
                    other => panic!("{other:?}"),
                };
                assert_eq!(again, sent);
            }
        }
        3 => drop(Sent::unpack(bytes)),
        4 => drop(wire::decode::<Receipt>(bytes)),
        5 => drop(wire::decode::<Order>(bytes)),
        6 => drop(wire::decode::<Outcome>(bytes)),
        _ => {
            if let Ok(brought) = wire::decode::<Brought>(bytes) {
                Track::ALL.into_iter().for_each(|track| drop(brought.held(track)));
            }
        }
    }
});
