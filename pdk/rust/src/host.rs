//! What the host offers: a log and counters. Off Wasm, in unit tests, both are
//! kept for `testing` to look at.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// What lines of log say beside their level: the record under way, its number
/// in the batch and 1, or 0 for none, from bit 8 on.
static ABOUT: AtomicU32 = AtomicU32::new(0);

/// Lines of log are about this record from now on, or about none. The number
/// has 24 bits; records behind are not told.
#[inline(always)]
pub(crate) fn about(id: Option<u32>) {
    let number = id.map_or(0, |id| id.wrapping_add(1));
    let number = if number < 1 << 24 { number } else { 0 };
    ABOUT.store(number << 8, Ordering::Relaxed);
}

/// The level as the host gets it.
#[cfg(any(test, target_arch = "wasm32"))]
fn word(level: Level) -> u32 {
    level as u32 | ABOUT.load(Ordering::Relaxed)
}

/// The level of a line of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever debugs the stage.
    Debug,
    /// Life cycle.
    Info,
    /// Degraded, will heal.
    Warn,
    /// Someone must act.
    Error,
}

/// Writes a line to the node's log, under the name of flow and stage. The
/// macros `debug!`, `info!`, `warn!` and `error!` are the short way.
pub fn log(level: Level, line: fmt::Arguments<'_>) {
    match line.as_str() {
        Some(text) => imports::log(level, text),
        None => imports::log(level, &line.to_string()),
    }
}

/// Adds to a counter of the stage, visible in `/metrics` of the node as
/// `millrace_guest_count_total{flow, stage, name}`. Up to 64 names of at most
/// 128 bytes count in one call.
pub fn count(name: &str, delta: f64) {
    imports::count(name, delta);
}

/// Logs for whoever debugs the stage.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log($crate::Level::Debug, ::core::format_args!($($arg)*)) };
}

/// Logs what is worth knowing.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log($crate::Level::Info, ::core::format_args!($($arg)*)) };
}

/// Logs what is degraded and will heal.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log($crate::Level::Warn, ::core::format_args!($($arg)*)) };
}

/// Logs what someone must look after.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log($crate::Level::Error, ::core::format_args!($($arg)*)) };
}

#[cfg(target_arch = "wasm32")]
mod imports {
    use super::{word, Level};

    mod stage {
        #[link(wasm_import_module = "stage")]
        extern "C" {
            pub fn log(level: i32, ptr: *const u8, len: usize);
            pub fn count(ptr: *const u8, len: usize, delta: f64);
        }
    }

    pub fn log(level: Level, line: &str) {
        // The host reads the range during the call.
        unsafe { stage::log(word(level) as i32, line.as_ptr(), line.len()) }
    }

    pub fn count(name: &str, delta: f64) {
        // The host reads the range during the call.
        unsafe { stage::count(name.as_ptr(), name.len(), delta) }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use super::Level;

    pub fn log(level: Level, line: &str) {
        super::kept::LOG.with(|l| l.borrow_mut().push((level, line.to_owned())));
    }

    pub fn count(name: &str, delta: f64) {
        super::kept::COUNTS
            .with(|c| *c.borrow_mut().entry(name.to_owned()).or_insert(0.0) += delta);
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod kept {
    use super::Level;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        pub static LOG: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
        pub static COUNTS: RefCell<BTreeMap<String, f64>> = RefCell::new(BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_record_under_way() {
        for (id, want) in [
            (None, 2),
            (Some(0), 1 << 8 | 2),
            (Some(7), 8 << 8 | 2),
            (Some((1 << 24) - 2), 0xff_ffff << 8 | 2),
            (Some((1 << 24) - 1), 2),
            (Some(1 << 24), 2),
            (Some(u32::MAX), 2),
        ] {
            about(id);
            assert_eq!(word(Level::Warn), want, "{:?}", id);
        }
        about(None);
    }
}
