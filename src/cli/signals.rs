//! SIGINT and SIGTERM: one line that says what they left behind, and the exit code that shells expect.
//!
//! What is on disk is whole at any moment, as a part counts only under its final name; so the process just ends.

use std::{io, mem::MaybeUninit, thread};

use super::Console;

/// From now on, either signal writes `stopped by <signal>` and what `state` says to the console, and ends the process
/// with 128 + its number. To be called before any other thread is started: threads inherit the mask.
pub fn watch(console: &Console, state: impl FnOnce() -> String + Send + 'static) -> io::Result<()> {
    let mut wanted = vec![libc::SIGINT, libc::SIGTERM];
    wanted.retain(|signal| !ignored(*signal));
    let signals = set(&wanted);
    mask(libc::SIG_BLOCK, &signals)?;
    let console = console.clone();
    let end = move || {
        let Some(signal) = wait(&signals) else {
            return;
        };
        // A console that nobody reads must not keep the process alive: a second signal ends it at once.
        let _ = mask(libc::SIG_UNBLOCK, &signals);
        console.stopped(&format!("stopped by {}{}", name(signal), state()));
        // SAFETY: ends the process without running anything. `exit` would run the destructors of C++ libraries whose
        // code other threads are in.
        unsafe { libc::_exit(128 + signal) }
    };
    thread::Builder::new().name("signals".into()).spawn(end)?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}

/// Shells start background commands with SIGINT ignored, which waiting for it would undo.
fn ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the action without changing it; the struct is plain data, for which zeroes are valid.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

fn set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, sigaddset changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn mask(how: i32, signals: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised, and the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, signals, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The signal that came.
fn wait(signals: &libc::sigset_t) -> Option<i32> {
    let mut signal = 0;
    // SAFETY: both pointers are to live values.
    let error = unsafe { libc::sigwait(signals, &mut signal) };
    (error == 0).then_some(signal)
}
