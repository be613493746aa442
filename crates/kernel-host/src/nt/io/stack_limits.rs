//! What a driver may ask of the thread it runs on: its stack, its kind, and the request that file systems note in it.

use nt_types::{IRP, NtStatus};

use super::irp::requestor;
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;
use crate::nt::threads::ps_is_system_thread;
use crate::process::SYSTEM_PROCESS_ID;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoGetInitialStack(max 1) = io_get_initial_stack;
    IoWithinStackLimits(max 1) = io_within_stack_limits;
    IoIsSystemThread(max 2) = ps_is_system_thread;
    IoGetTopLevelIrp(max 2) = io_get_top_level_irp;
    IoSetTopLevelIrp(max 2) = io_set_top_level_irp;
    IoGetRequestorSessionId(max 1) = io_get_requestor_session_id;
}

/// Where the body of a thread object, which is opaque, keeps `TopLevelIrp`.
const TOP_LEVEL_IRP: usize = 0x110;

/// Sessions: services and the system itself are in the first, people's programs in the second.
const SYSTEM_SESSION: u32 = 0;
const USER_SESSION: u32 = 1;

/// Lowest and highest address of the driver stack of the calling thread.
fn limits() -> (usize, usize) {
    let Some(stack) = Thread::driver_stack() else { return (0, 0) };
    stack.limits()
}

extern "efiapi" fn io_get_initial_stack() -> usize {
    let _call = Call::enter();
    limits().1
}

extern "efiapi" fn io_within_stack_limits(start: usize, length: usize) -> u32 {
    let _call = Call::enter();
    let (low, high) = limits();
    u32::from(start >= low && start.checked_add(length).is_some_and(|end| end <= high))
}

fn top_level_irp(call: &Call) -> Raw<usize> {
    Raw::at(call.thread().object().addr() + TOP_LEVEL_IRP)
}

extern "efiapi" fn io_get_top_level_irp() -> usize {
    top_level_irp(&Call::enter()).read()
}

extern "efiapi" fn io_set_top_level_irp(irp: usize) {
    top_level_irp(&Call::enter()).write(irp);
}

extern "efiapi" fn io_get_requestor_session_id(irp: Raw<IRP>, session: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    let process = requestor(&call, irp);
    session.write(if process == SYSTEM_PROCESS_ID { SYSTEM_SESSION } else { USER_SESSION });
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::threads::ke_get_current_thread;

    #[test]
    fn a_region_is_within_the_stack_when_all_of_it_is() {
        conforms!("wdm/nf-wdm-iowithinstacklimits.md", "TRUE is returned when the stack has the whole region.");
        conforms!("wdm/nf-wdm-iogetinitialstack.md", "The base of the current thread's stack is returned.");
        Bench::new()
            .run(|| {
                let (low, high) = limits();
                assert!(low < high);
                assert_eq!(io_get_initial_stack(), high);
                let within = [(high - 16, 16), (high - 16, 17), (low - 1, 2), (high - 8, usize::MAX)];
                assert_eq!(within.map(|(start, length)| io_within_stack_limits(start, length)), [1, 0, 0, 0]);
            })
            .unwrap();
    }

    #[test]
    fn the_top_level_irp_is_the_threads_own() {
        conforms!(
            "ntifs/nf-ntifs-iosettoplevelirp.md",
            "The value is stored in the current thread, NULL and flags too."
        );
        conforms!("ntifs/nf-ntifs-iogettoplevelirp.md", "The value stored in the current thread is returned.");
        let bench = Bench::new();
        bench
            .run(|| {
                assert_eq!(io_get_top_level_irp(), 0);
                io_set_top_level_irp(0x1000);
            })
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(bench.run(|| io_get_top_level_irp()).unwrap(), 0));
        });
    }

    #[test]
    fn the_threads_of_the_system_are_known() {
        conforms!("ntifs/nf-ntifs-ioissystemthread.md", "TRUE is returned for a system thread.");
        let is_system = Bench::new().run(|| ps_is_system_thread(ke_get_current_thread()));
        assert_eq!(is_system.unwrap(), 1);
    }
}
