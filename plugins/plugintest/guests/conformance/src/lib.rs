//! The reference guest of the conformance protocol. The README defines it.

mod frame;
mod stage;

const MANIFEST_JSON: &[u8] = include_bytes!("../manifest.json");

#[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
#[used]
pub static MANIFEST: [u8; MANIFEST_JSON.len()] = *include_bytes!("../manifest.json");

/// Where the guest `mutant` goes wrong, this one does nothing.
mod fault {
    use crate::frame::{Answer, Record};

    #[inline(always)]
    pub fn configure(_: &str) {}

    #[inline(always)]
    pub fn answers(_: &mut Vec<Answer>, _: &Record, _: usize, _: &mut Vec<Vec<u8>>) {}
}
