//! What the host offers: a log and counters. Off Wasm, in unit tests, both are
//! kept for `testing` to look at.

use std::fmt;

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
    use super::Level;

    mod stage {
        #[link(wasm_import_module = "stage")]
        extern "C" {
            pub fn log(level: i32, ptr: *const u8, len: usize);
            pub fn count(ptr: *const u8, len: usize, delta: f64);
        }
    }

    pub fn log(level: Level, line: &str) {
        // The host reads the range during the call.
        unsafe { stage::log(level as i32, line.as_ptr(), line.len()) }
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
