//! `SHARE_ACCESS`: who may have a file open at the same time, as a file system or a device's driver keeps it.
//!
//! The counts are the host's own file systems': see [`crate::fs::share`]. Here they lie in the driver's memory, and what an
//! open contributes is in its file object.

use nt_types::{AccessMask, FILE_OBJECT, NtStatus};

use crate::ddi::{Call, exports};
use crate::fs::share::{ShareAccess, ShareMode};
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoCheckShareAccess(max 0) = io_check_share_access;
    IoCheckShareAccessEx(max 0) = io_check_share_access_ex;
    IoSetShareAccess(max 0) = io_set_share_access;
    IoSetShareAccessEx(max 0) = io_set_share_access_ex;
    IoUpdateShareAccess(max 0) = io_update_share_access;
    IoRemoveShareAccess(max 0) = io_remove_share_access;
}

type File = Raw<FILE_OBJECT>;

/// What the open of a file object contributes.
fn mode_of(file: File) -> ShareMode {
    let get = |value: Raw<u8>| value.read() != 0;
    ShareMode {
        read: get(field!(file, FILE_OBJECT, ReadAccess)),
        write: get(field!(file, FILE_OBJECT, WriteAccess)),
        delete: get(field!(file, FILE_OBJECT, DeleteAccess)),
        shared_read: get(field!(file, FILE_OBJECT, SharedRead)),
        shared_write: get(field!(file, FILE_OBJECT, SharedWrite)),
        shared_delete: get(field!(file, FILE_OBJECT, SharedDelete)),
    }
}

/// Notes in a file object what its open asks for, and how it shares that.
fn set_mode(file: File, access: u32, share: u32, write_permission: Raw<u8>) -> ShareMode {
    let mut mode = ShareMode::new(AccessMask::from_bits_retain(access), share);
    // The page: who may not write to the file cannot keep others from reading it either.
    mode.shared_read |= mode.read && write_permission.some().is_some_and(|may| may.read() == 0);
    field!(file, FILE_OBJECT, ReadAccess).write(mode.read.into());
    field!(file, FILE_OBJECT, WriteAccess).write(mode.write.into());
    field!(file, FILE_OBJECT, DeleteAccess).write(mode.delete.into());
    // One that takes no part keeps what it has.
    if mode.counts() {
        field!(file, FILE_OBJECT, SharedRead).write(mode.shared_read.into());
        field!(file, FILE_OBJECT, SharedWrite).write(mode.shared_write.into());
        field!(file, FILE_OBJECT, SharedDelete).write(mode.shared_delete.into());
    }
    mode
}

fn check(access: u32, share: u32, file: File, counts: Raw<ShareAccess>, update: u8, permission: Raw<u8>) -> NtStatus {
    let mode = set_mode(file, access, share, permission);
    let mut sum = counts.read();
    if let Err(status) = sum.check(mode) {
        return status;
    }
    if update != 0 {
        sum.add(mode);
        counts.write(sum);
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn io_check_share_access(
    access: u32,
    share: u32,
    file: File,
    counts: Raw<ShareAccess>,
    update: u8,
) -> NtStatus {
    let _call = Call::enter();
    check(access, share, file, counts, update, Raw::NULL)
}

extern "efiapi" fn io_check_share_access_ex(
    access: u32,
    share: u32,
    file: File,
    counts: Raw<ShareAccess>,
    update: u8,
    permission: Raw<u8>,
) -> NtStatus {
    let _call = Call::enter();
    check(access, share, file, counts, update, permission)
}

/// The first open of a file: the counts begin with it.
fn set(access: u32, share: u32, file: File, counts: Raw<ShareAccess>, permission: Raw<u8>) {
    let mut sum = ShareAccess::default();
    sum.add(set_mode(file, access, share, permission));
    counts.write(sum);
}

extern "efiapi" fn io_set_share_access(access: u32, share: u32, file: File, counts: Raw<ShareAccess>) {
    let _call = Call::enter();
    set(access, share, file, counts, Raw::NULL);
}

extern "efiapi" fn io_set_share_access_ex(
    access: u32,
    share: u32,
    file: File,
    counts: Raw<ShareAccess>,
    permission: Raw<u8>,
) {
    let _call = Call::enter();
    set(access, share, file, counts, permission);
}

extern "efiapi" fn io_update_share_access(file: File, counts: Raw<ShareAccess>) {
    let _call = Call::enter();
    let mut sum = counts.read();
    sum.add(mode_of(file));
    counts.write(sum);
}

extern "efiapi" fn io_remove_share_access(file: File, counts: Raw<ShareAccess>) {
    let _call = Call::enter();
    let mut sum = counts.read();
    sum.remove(mode_of(file));
    counts.write(sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    const READ: u32 = AccessMask::FILE_READ_DATA.bits();
    const WRITE: u32 = AccessMask::FILE_WRITE_DATA.bits();

    /// Two file objects and the counts of their file.
    fn with_files(body: impl FnOnce(File, File, Raw<ShareAccess>)) {
        let mut files = [[0_u64; 27]; 2];
        let mut counts = ShareAccess::default();
        let base = Raw::<[u64; 27]>::of((&raw mut files).cast());
        let (one, other) = (base.cast(), base.index(1).cast());
        Bench::new().run(|| body(one, other, Raw::of(&raw mut counts))).unwrap();
    }

    fn numbers(counts: Raw<ShareAccess>) -> Vec<u32> {
        counts.cast::<u32>().read_slice(7)
    }

    #[test]
    fn an_open_that_is_compatible_is_counted_when_asked_for() {
        conforms!(
            "wdm/nf-wdm-iocheckshareaccess.md",
            "STATUS_SUCCESS is returned for an open that is compatible with the others, else STATUS_SHARING_VIOLATION."
        );
        conforms!("wdm/nf-wdm-iocheckshareaccess.md", "With Update the open is counted if it is permitted.");
        conforms!("wdm/nf-wdm-iosetshareaccess.md", "The first open of a file sets the counts.");
        with_files(|one, other, counts| {
            counts.cast::<u32>().write(99);
            io_set_share_access(READ, 1, one, counts);
            assert_eq!(numbers(counts), [1, 1, 0, 0, 1, 0, 0]);
            assert_eq!(io_check_share_access(WRITE, 7, other, counts, 1), NtStatus::SHARING_VIOLATION);
            assert_eq!(io_check_share_access(READ, 1, other, counts, 0), NtStatus::SUCCESS);
            assert_eq!(numbers(counts)[0], 1);
            assert_eq!(io_check_share_access(READ, 1, other, counts, 1), NtStatus::SUCCESS);
            assert_eq!(numbers(counts), [2, 2, 0, 0, 2, 0, 0]);
        });
    }

    #[test]
    fn an_update_and_a_removal_undo_each_other() {
        conforms!("wdm/nf-wdm-ioupdateshareaccess.md", "The open that was checked without Update is counted.");
        conforms!("wdm/nf-wdm-ioremoveshareaccess.md", "The reciprocal of IoUpdateShareAccess.");
        with_files(|one, other, counts| {
            io_set_share_access(READ, 3, one, counts);
            assert_eq!(io_check_share_access(READ | WRITE, 3, other, counts, 0), NtStatus::SUCCESS);
            io_update_share_access(other, counts);
            assert_eq!(numbers(counts), [2, 2, 1, 0, 2, 2, 0]);
            io_remove_share_access(one, counts);
            io_remove_share_access(other, counts);
            assert_eq!(numbers(counts), [0; 7]);
        });
    }

    #[test]
    fn who_may_not_write_does_not_keep_others_from_reading() {
        conforms!(
            "wdm/nf-wdm-iocheckshareaccessex.md",
            "Without write permission an exclusive read is downgraded to one that shares reading."
        );
        conforms!("wdm/nf-wdm-iosetshareaccessex.md", "The same downgrade applies to the first open.");
        with_files(|one, other, counts| {
            let mut may_write = 0;
            let permission = Raw::of(&raw mut may_write);
            io_set_share_access_ex(READ, 0, one, counts, permission);
            assert_eq!(io_check_share_access_ex(READ, 0, other, counts, 1, permission), NtStatus::SUCCESS);
            permission.write(1);
            io_set_share_access_ex(READ, 0, one, counts, permission);
            let status = io_check_share_access_ex(READ, 0, other, counts, 1, permission);
            assert_eq!(status, NtStatus::SHARING_VIOLATION);
        });
    }
}
