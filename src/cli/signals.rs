//! SIGINT and SIGTERM: one line that says what they left behind, and the exit code that shells expect.
//!
//! What is on disk is whole at any moment, as a part counts only under its final name; so the process just ends.

use std::{
    io::{self, Read},
    os::fd::IntoRawFd,
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use super::Console;

/// Where the handler writes the number of a signal; one thread reads it. Blocking the signals and waiting for them
/// would do without a handler, but OpenBLAS starts threads before `main` does anything, and those would not block.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// From now on, either signal writes `stopped by <signal>` and what `state` says to the console, and ends the process
/// with 128 + its number.
pub fn watch(console: &Console, state: impl FnOnce() -> String + Send + 'static) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    PIPE.store(writer.into_raw_fd(), Ordering::SeqCst);
    let console = console.clone();
    let end = move || {
        let mut signal = [0];
        if reader.read_exact(&mut signal).is_err() {
            return;
        }
        // A console that nobody reads must not keep the process alive: a second signal ends it at once.
        for signal in [libc::SIGINT, libc::SIGTERM] {
            set(signal, libc::SIG_DFL);
        }
        let signal = i32::from(signal[0]);
        console.stopped(&format!("stopped by {}{}", name(signal), state()));
        // SAFETY: ends the process without running anything. `exit` would run the destructors of C++ libraries whose
        // code other threads are in.
        unsafe { libc::_exit(128 + signal) }
    };
    thread::Builder::new().name("signals".into()).spawn(end)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(i32) = note;
        // Shells start background commands with SIGINT ignored, and so it stays.
        if set(signal, handler as libc::sighandler_t) == libc::SIG_IGN {
            set(signal, libc::SIG_IGN);
        }
    }
    Ok(())
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}

/// Returns the handler before.
fn set(signal: i32, handler: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: the handler is `note`, which does what a handler may do, or one of the system's own.
    unsafe { libc::signal(signal, handler) }
}

extern "C" fn note(signal: i32) {
    let byte = signal as u8;
    // SAFETY: `write` may be called in a handler, and the byte lives until it returns.
    unsafe { libc::write(PIPE.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
}
