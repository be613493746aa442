//! Waits of the file system run-time library that the cancellation of a request ends.

use nt_types::{DISPATCHER_HEADER, IRP, KERNEL_MODE, NtStatus};

use super::raw::{Raw, field};
use super::wait::{self, Several};
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    FsRtlCancellableWaitForSingleObject(max 1) = fs_rtl_cancellable_wait_for_single_object;
    FsRtlCancellableWaitForMultipleObjects(max 1) = fs_rtl_cancellable_wait_for_multiple_objects;
}

fn is_cancelled(irp: Raw<IRP>) -> bool {
    irp.some().is_some_and(|irp| field!(irp, IRP, Cancel).read() != 0)
}

extern "efiapi" fn fs_rtl_cancellable_wait_for_single_object(
    object: Raw<DISPATCHER_HEADER>,
    timeout: Raw<i64>,
    irp: Raw<IRP>,
) -> NtStatus {
    let call = Call::enter();
    wait::wait_unless(&call, object, timeout, || is_cancelled(irp))
}

extern "efiapi" fn fs_rtl_cancellable_wait_for_multiple_objects(
    count: u32,
    objects: Raw<Raw<DISPATCHER_HEADER>>,
    wait_type: i32,
    timeout: Raw<i64>,
    wait_blocks: Raw<u8>,
    irp: Raw<IRP>,
) -> NtStatus {
    let call = Call::enter();
    let several = Several { count, objects, wait_type, timeout, wait_blocks };
    wait::wait_for_several(&call, &several, KERNEL_MODE, || is_cancelled(irp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn a_cancelled_request_ends_the_wait() {
        conforms!(
            "ntifs/nf-ntifs-fsrtlcancellablewaitforsingleobject.md",
            "STATUS_CANCELLED when the request is cancelled; an object that is signalled satisfies the wait all the same."
        );
        conforms!(
            "ntifs/nf-ntifs-fsrtlcancellablewaitformultipleobjects.md",
            "STATUS_CANCELLED when the request is cancelled."
        );
        // SAFETY: all members are integers, pointers or Options of function pointers, for which zero is a value.
        let mut irp: Box<IRP> = Box::new(unsafe { std::mem::zeroed() });
        let irp = Raw::<IRP>::of(&raw mut *irp);
        field!(irp, IRP, Cancel).write(1);
        let mut events = Box::new([[0x6_0000_u64, 0, 0], [0x1_0006_0000, 0, 0]]);
        let never = Raw::<DISPATCHER_HEADER>::of((&raw mut events[0]).cast());
        let already = Raw::<DISPATCHER_HEADER>::of((&raw mut events[1]).cast());
        let mut list = [never];
        let list = Raw::of(list.as_mut_ptr());
        Bench::new()
            .run(|| {
                let single = fs_rtl_cancellable_wait_for_single_object;
                assert_eq!(single(never, Raw::NULL, irp), NtStatus::CANCELLED);
                assert_eq!(single(already, Raw::NULL, irp), NtStatus::SUCCESS);
                let many = fs_rtl_cancellable_wait_for_multiple_objects;
                assert_eq!(many(1, list, 1, Raw::NULL, Raw::NULL, irp), NtStatus::CANCELLED);
            })
            .unwrap();
    }
}
