//! Counts what a run takes from the real world beside its `Env`: readings of the process's clock, and randomness of the operating
//! system. In the test binary these functions of the C library are ours; they pass every call on, and count those of a thread that asks.
#![expect(unsafe_code, reason = "the C library's functions have its signatures")]

use std::cell::Cell;

/// Calls during a [`count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ambient {
    /// By tokio, which measures how busy its executors are, and by hyper, which keeps a date for a header that nobody asks for. Neither
    /// shows the time to anybody.
    pub harmless: u64,
    pub clock: u64,
    pub entropy: u64,
}

const HARMLESS: [&str; 4] = [
    "start_processing_scheduled_tasks",
    "end_processing_scheduled_tasks",
    "build_current_thread_runtime_components",
    "hyper::common::date",
];

thread_local! {
    static COUNT: Cell<Option<Ambient>> = const { Cell::new(None) };
}

/// Runs `f` and counts what it takes from the real world.
pub fn count<T>(f: impl FnOnce() -> T) -> (T, Ambient) {
    COUNT.set(Some(Ambient::default()));
    let result = f();
    (result, COUNT.take().unwrap_or_default())
}

fn note(change: impl FnOnce(&mut Ambient)) {
    if let Some(mut counted) = COUNT.get() {
        COUNT.set(None);
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        if HARMLESS.iter().any(|caller| backtrace.contains(caller)) {
            counted.harmless += 1;
        } else {
            eprintln!("{backtrace}");
            change(&mut counted);
        }
        COUNT.set(Some(counted));
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    note(|counted| counted.clock += 1);
    // SAFETY: the caller's pointer is valid for the system call as it is for the C library.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(into: *mut libc::c_void, len: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    note(|counted| counted.entropy += 1);
    // SAFETY: the caller's buffer is valid for the system call as it is for the C library.
    unsafe { libc::syscall(libc::SYS_getrandom, into, len, flags) as libc::ssize_t }
}
