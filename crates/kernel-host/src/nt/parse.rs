//! What an open by name carries to the object that its path reaches.

use std::sync::Arc;

use crate::process::Process;

/// An open on its way: what NT passes to an object type's parse procedure.
#[derive(Debug)]
pub struct ParseRequest<'a> {
    /// What is left of the path behind the object's own name; begins with a backslash, or is empty.
    pub rest: &'a str,
    /// The path as the caller gave it.
    pub full_path: &'a str,
    /// The process that opens.
    pub process: &'a Arc<Process>,
    /// `UserMode` (1) when access and parameters must be checked.
    pub mode: nt_types::KPROCESSOR_MODE,
    /// `ACCESS_MASK` asked for.
    pub desired_access: u32,
    /// `OBJ_*` bits.
    pub attributes: u32,
    /// Parameters of `NtCreateFile`, when that is the open.
    pub file: Option<FileOpen>,
}

/// Parameters that `NtCreateFile` passes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOpen {
    /// `FILE_ATTRIBUTE_*`.
    pub file_attributes: u32,
    /// `FILE_SHARE_*`.
    pub share_access: u32,
    /// `FILE_OPEN`, `FILE_CREATE`, ...
    pub disposition: u32,
    /// `FILE_SYNCHRONOUS_IO_NONALERT`, ...
    pub options: u32,
    /// Bytes to reserve for a new file.
    pub allocation_size: Option<i64>,
    /// Address and bytes of a `FILE_FULL_EA_INFORMATION` list; 0 for none.
    pub ea: (usize, u32),
    /// `IO_*` options of `IoCreateFileEx`.
    pub io_flags: u32,
}
