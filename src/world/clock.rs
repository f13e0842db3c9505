//! Time as the machine tells it.
#![expect(clippy::disallowed_methods, reason = "this is the one clock behind Env")]

use std::{
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use millpond_core::time::Timestamp;
use millpond_env::{Clock, Mono};

#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub fn start() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Mono {
        Mono(self.start.elapsed().as_nanos() as u64)
    }

    fn wall(&self) -> Timestamp {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Timestamp(nanos(after)),
            Err(before) => Timestamp(-nanos(before.duration())),
        }
    }

    fn timer(&self, at: Mono) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let deadline = self.start + Duration::from_nanos(at.0);
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}
