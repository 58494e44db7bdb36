//! What stands behind the exports that `stage!` makes.

pub use crate::manifest::{check_name, manifest, Piece, Text};

use crate::answer::{Out, Result};
use crate::frame::{self, Buffer};
use crate::host::{about, log, Level};
use crate::record::{Record, Request};
use std::fmt;

/// The state of a plugin.
pub struct Stage<C> {
    request: Buffer,
    result: Buffer,
    config: Option<C>,
    started: bool,
}

impl<C> Stage<C> {
    /// A plugin that has no configuration yet.
    pub const fn new() -> Self {
        Stage {
            request: Buffer::new(),
            result: Buffer::new(),
            config: None,
            started: false,
        }
    }

    /// `stage_alloc`
    pub fn alloc(&mut self, size: u32) -> *mut u8 {
        if !self.started {
            self.started = true;
            #[cfg(target_arch = "wasm32")]
            log_panics();
        }
        self.request.clear();
        if self.request.try_room(size as usize) {
            self.request.as_mut_ptr()
        } else {
            std::ptr::null_mut()
        }
    }

    /// `stage_init`
    ///
    /// # Safety
    /// `ptr` and `len` name bytes that nobody writes during the call.
    pub unsafe fn init<E: fmt::Display>(
        &mut self,
        ptr: *const u8,
        len: u32,
        read: impl FnOnce(&[u8]) -> std::result::Result<C, E>,
    ) -> i32 {
        match read(std::slice::from_raw_parts(ptr, len as usize)) {
            Ok(config) => {
                self.config = Some(config);
                0
            }
            Err(e) => {
                log(Level::Error, format_args!("{}", e));
                1
            }
        }
    }

    /// `stage_batch`
    ///
    /// # Safety
    /// `ptr` and `len` name bytes that nobody writes during the call.
    #[inline(always)]
    pub unsafe fn batch(
        &mut self,
        ptr: *const u8,
        len: u32,
        mut stage: impl FnMut(&Record<'_>, &mut Out<'_>, Option<&C>) -> Result,
    ) -> u64 {
        let frame = std::slice::from_raw_parts(ptr, len as usize);
        let config = self.config.as_ref();
        match process(frame, &mut self.result, |r, out| stage(r, out, config)) {
            Some(()) => (self.result.as_mut_ptr() as u64) << 32 | self.result.len() as u64,
            None => {
                log(
                    Level::Error,
                    format_args!("the batch of {} bytes is no frame of stage/1", len),
                );
                0
            }
        }
    }
}

impl<C> Default for Stage<C> {
    fn default() -> Self {
        Stage::new()
    }
}

/// Answers every record of the frame into `result`; None if the frame is broken.
#[inline(always)]
pub(crate) fn process(
    frame: &[u8],
    result: &mut Buffer,
    mut stage: impl FnMut(&Record<'_>, &mut Out<'_>) -> Result,
) -> Option<()> {
    let request = Request::read(frame)?;
    result.clear();
    result.room(frame.len() + frame::BATCH);
    result.skip(frame::BATCH);
    let mut at = request.first;
    for _ in 0..request.count {
        let (record, next) = request.record(at)?;
        at = next;
        about(Some(record.id()));
        let mut out = Out::new(result, record);
        let answered = stage(&record, &mut out);
        out.finish(answered);
    }
    about(None);
    let kind = u64::from(frame::VERSION) << 32 | u64::from(frame::RESULT) << 48;
    let length = result.len() as u64;
    result.word(0, kind | length);
    result.word(8, u64::from(request.count));
    result.word(16, request.id);
    result.word(24, request.now as u64);
    Some(())
}

/// A panic traps, and the host finds the record; this gives it the message.
#[cfg(target_arch = "wasm32")]
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = match payload.downcast_ref::<&str>() {
            Some(text) => text,
            None => payload.downcast_ref::<String>().map_or("?", |s| s.as_str()),
        };
        match info.location() {
            Some(at) => log(
                Level::Error,
                format_args!("panic at {}:{}: {}", at.file(), at.line(), message),
            ),
            None => log(Level::Error, format_args!("panic: {}", message)),
        }
    }));
}
