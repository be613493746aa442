//! Register sets, laid out for the assembly that fills them.

/// What a Microsoft x64 callee must preserve, plus where it stands.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NonVolatile {
    /// Return address of the call.
    pub(crate) rip: u64,
    /// Stack pointer at entry: points at the return address.
    pub(crate) rsp: u64,
    pub(crate) rbx: u64,
    pub(crate) rbp: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) r12: u64,
    pub(crate) r13: u64,
    pub(crate) r14: u64,
    pub(crate) r15: u64,
    /// XMM6 to XMM15.
    pub(crate) xmm: [u128; 10],
}

const _: () = assert!(std::mem::size_of::<NonVolatile>() == 10 * 8 + 10 * 16);
