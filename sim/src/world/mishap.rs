//! Panics: those that the world causes on purpose, and those that nobody asked for.
//!
//! A thread that runs a world collects the panics of everything on it, whoever catches them. One that was not injected breaks the
//! run: in a node that is a bug, even when its supervisors repair the damage.

use std::{
    backtrace::Backtrace,
    cell::RefCell,
    collections::BTreeMap,
    panic,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::core::{Core, Place};

/// What the panics of the world's making say.
pub const INJECTED: &str = "injected panic";

/// Mishaps in store for one host.
#[derive(Debug, Default)]
pub struct Mishaps {
    /// Handlers that may still pass before one panics; 0: none will.
    countdown: AtomicU64,
    /// Devices whose data makes a place in the node fail.
    trips: Mutex<BTreeMap<&'static str, String>>,
}

impl Mishaps {
    /// The `handlers`-th handler of an actor from now on panics (from 1).
    pub fn panic_in(&self, handlers: u64) {
        self.countdown.store(handlers, Ordering::Relaxed);
    }

    /// From the next start of an actor on, data of `device` makes `place` panic.
    pub fn poison(&self, place: &'static str, device: &str) {
        self.trips.lock().unwrap_or_else(PoisonError::into_inner).insert(place, device.to_owned());
    }

    pub(crate) fn trips(&self, place: &'static str) -> Option<String> {
        self.trips.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    pub(crate) fn strike(&self, core: &Core, place: Place) {
        match self.countdown.load(Ordering::Relaxed) {
            0 => {}
            1 => {
                self.countdown.store(0, Ordering::Relaxed);
                core.note(place.host, "panic", b"injected");
                panic!("{INJECTED}");
            }
            left => self.countdown.store(left - 1, Ordering::Relaxed),
        }
    }
}

/// A panic that nobody asked for.
#[derive(Clone, Debug)]
pub struct Panic {
    pub message: String,
    pub backtrace: String,
}

thread_local! {
    static PANICS: RefCell<Option<Vec<Panic>>> = const { RefCell::new(None) };
}

/// Collects the panics of this thread until it is dropped.
#[derive(Debug)]
pub struct Watch(std::marker::PhantomData<*const ()>);

impl Watch {
    pub fn begin() -> Watch {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if !collect(info) {
                    before(info);
                }
            }));
        });
        PANICS.with_borrow_mut(|panics| *panics = Some(Vec::new()));
        Watch(std::marker::PhantomData)
    }

    /// Panics so far that were not injected.
    pub fn seen(&self) -> Vec<Panic> {
        PANICS.with_borrow(|panics| panics.clone().unwrap_or_default())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        PANICS.with_borrow_mut(|panics| *panics = None);
    }
}

/// Whether the panic happened in a world, and is thus no business of the terminal's.
fn collect(info: &panic::PanicHookInfo<'_>) -> bool {
    PANICS.with_borrow_mut(|panics| {
        let Some(panics) = panics else { return false };
        let message = info.to_string();
        if !message.contains(INJECTED) {
            panics.push(Panic { message, backtrace: Backtrace::force_capture().to_string() });
        }
        true
    })
}

/// Where a node asks for trips; see `millpond_env::Trace::trips`.
pub fn known_trip(name: &str) -> Option<&'static str> {
    ["gate", "windows"].into_iter().find(|known| *known == name)
}
