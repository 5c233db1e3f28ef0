//! What the allocator does with large blocks.
#![allow(unsafe_code)] // One call of the C library.

/// Blocks from this size on are mapped each by itself, and given back to the system when they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: std::ffi::c_int = 1 << 20;

/// Has freed large blocks (message bodies, the buffers of a connection that is lost) given back to the system. Left to itself,
/// glibc takes blocks of a size from its heap as soon as one of that size was freed, and keeps what is freed there.
/// To be called before there are threads.
pub(super) fn give_back_large_blocks() {
    // SAFETY: no precondition; a value that is not taken changes nothing.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM)
    };
}
