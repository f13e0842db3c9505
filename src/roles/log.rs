//! What the program says about itself, on stderr.

use std::panic;

use tracing_subscriber::{EnvFilter, util::TryInitError};

use crate::{
    config::{LogFormat, LogSettings},
    world::os,
};

/// Begins to log. MILLPOND_LOG, when it is set, overrides the level.
///
/// # Errors
/// When directives in MILLPOND_LOG cannot be read.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = match os::var("MILLPOND_LOG") {
        Some(directives) => EnvFilter::try_new(directives)?,
        None => EnvFilter::new(settings.level.name()),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun: Result<(), TryInitError> = match settings.format {
        LogFormat::Text => {
            use tracing_subscriber::util::SubscriberInitExt;
            subscriber.with_ansi(crate::commands::styled()).finish().try_init()
        }
        LogFormat::Json => {
            use tracing_subscriber::util::SubscriberInitExt;
            subscriber.json().finish().try_init()
        }
    };
    // Someone logs already: two nodes in one process share what is there.
    let _ = begun;
    log_panics();
    Ok(())
}

fn text_of(payload: &(dyn std::any::Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or(payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

/// A panic is logged like everything else; what becomes of it is up to the supervisor of whoever panicked.
fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let message = text_of(info.payload());
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(message, place, thread, "panicked");
    }));
}
