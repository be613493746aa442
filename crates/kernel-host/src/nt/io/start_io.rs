//! `StartIo`: one request at a time for a device, the others in its queue.
//!
//! Pages: `ntifs/nf-ntifs-iostartpacket`, `ntifs/nf-ntifs-iostartnextpacket`, `ntifs/nf-ntifs-iosetstartioattributes`.

use nt_types::{DEVICE_OBJECT, DISPATCH_LEVEL, DRIVER_OBJECT, IRP};

use super::cancel;
use super::request::target;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::device_queues::{DeviceQueue, check_dispatch_level};
use crate::nt::irql::raise;
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoStartPacket(max 2) = io_start_packet;
    IoStartNextPacket(max 2) = io_start_next_packet;
    IoStartNextPacketByKey(max 2) = io_start_next_packet_by_key;
    IoSetStartIoAttributes(max 31) = io_set_start_io_attributes;
}

/// What `IoSetStartIoAttributes` set for a device, and whether its routine runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StartIo {
    deferred: bool,
    non_cancelable: bool,
    runs: bool,
    /// A request that the routine asked for while it ran: cancelable or not, by key or not.
    next: Option<(bool, Option<u32>)>,
}

fn queue_of(call: &Call, device: Raw<DEVICE_OBJECT>) -> DeviceQueue {
    DeviceQueue::of(call, field!(device, DEVICE_OBJECT, DeviceQueue).cast())
}

/// Where a request lies in the queue of its device: `Tail.Overlay.DeviceQueueEntry`.
fn entry_of(irp: Raw<IRP>) -> usize {
    field!(irp, IRP, DriverContext).address()
}

fn irp_at(entry: usize) -> Raw<IRP> {
    Raw::at(entry - std::mem::offset_of!(IRP, DriverContext))
}

fn attributes<R>(call: &Call, device: Raw<DEVICE_OBJECT>, body: impl FnOnce(&mut StartIo) -> R) -> R {
    body(call.machine().nt.io().lock().start_io.entry(device.address()).or_default())
}

/// Calls the driver's routine for a request that is the device's current one now.
fn start(call: &Call, device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>) {
    field!(device, DEVICE_OBJECT, CurrentIrp).write(irp.pointer());
    let object = Raw::of(field!(device, DEVICE_OBJECT, DriverObject).read());
    let routine = field!(object, DRIVER_OBJECT, DriverStartIo).read();
    let (Some(routine), Some(driver)) = (routine, target(call.thread(), device)) else {
        call.stop(Rule::BadState, "a driver without a StartIo routine cannot call IoStartPacket and its like");
    };
    attributes(call, device, |state| state.runs = true);
    let (at, request) = (device.pointer(), irp.pointer());
    // SAFETY: the driver's own routine, for its device and a request that it is to serve.
    let body = || unsafe { routine(at, request) };
    if call.thread().call_driver(&driver, "StartIo", DISPATCH_LEVEL, body).is_err() {
        call.thread().leave_if_stopped();
    }
    let next = attributes(call, device, |state| {
        state.runs = false;
        state.next.take()
    });
    if let Some((cancelable, key)) = next {
        start_next(call, device, cancelable, key);
    }
}

extern "efiapi" fn io_start_packet(device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>, key: Raw<u32>, routine: usize) {
    let call = Call::enter();
    let queue = queue_of(&call, device);
    let before = raise(&call, DISPATCH_LEVEL);
    if routine != 0 {
        cancel::swap_routine(irp, routine);
    }
    let key = key.some().map(Raw::read);
    if queue.insert(&call, entry_of(irp), key) {
        // It may have been cancelled before it had a routine to be cancelled by.
        if routine != 0 && field!(irp, IRP, Cancel).read() != 0 {
            cancel::cancel(call.thread(), irp);
        }
    } else {
        if routine != 0 && attributes(&call, device, |state| state.non_cancelable) {
            cancel::swap_routine(irp, 0);
        }
        start(&call, device, irp);
    }
    call.thread().set_irql(before);
}

fn start_next(call: &Call, device: Raw<DEVICE_OBJECT>, cancelable: bool, key: Option<u32>) {
    let is_put_off = attributes(call, device, |state| {
        let put_off = state.deferred && state.runs;
        if put_off {
            state.next = Some((cancelable, key));
        }
        put_off
    });
    if is_put_off {
        return;
    }
    field!(device, DEVICE_OBJECT, CurrentIrp).write(std::ptr::null_mut());
    let entry = queue_of(call, device).remove(call, key);
    if entry == 0 {
        return;
    }
    let irp = irp_at(entry);
    if cancelable && attributes(call, device, |state| state.non_cancelable) {
        cancel::swap_routine(irp, 0);
    }
    start(call, device, irp);
}

extern "efiapi" fn io_start_next_packet(device: Raw<DEVICE_OBJECT>, cancelable: u8) {
    let call = Call::enter();
    check_dispatch_level(&call);
    start_next(&call, device, cancelable != 0, None);
}

extern "efiapi" fn io_start_next_packet_by_key(device: Raw<DEVICE_OBJECT>, cancelable: u8, key: u32) {
    let call = Call::enter();
    check_dispatch_level(&call);
    start_next(&call, device, cancelable != 0, Some(key));
}

extern "efiapi" fn io_set_start_io_attributes(device: Raw<DEVICE_OBJECT>, deferred: u8, non_cancelable: u8) {
    let call = Call::enter();
    attributes(&call, device, |state| {
        state.deferred = deferred != 0;
        state.non_cancelable = non_cancelable != 0;
    });
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::irp::{io_allocate_irp, io_free_irp};
    use super::super::tests::World;
    use super::*;
    use crate::conformance::conforms;
    use crate::thread::Thread;

    type Seen = (Vec<(usize, u8)>, u32, u32);

    thread_local! {
        /// Requests that StartIo was called for, with the IRQL, and how deep its calls are nested, and were at most.
        static SEEN: RefCell<Seen> = const { RefCell::new((Vec::new(), 0, 0)) };
    }

    extern "efiapi" fn serve(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
        assert_eq!(field!(Raw::of(device), DEVICE_OBJECT, CurrentIrp).read(), irp);
        SEEN.with_borrow_mut(|(seen, ..)| seen.push((irp.addr(), Thread::current_irql())));
    }

    /// Goes on with the next request at once.
    extern "efiapi" fn serve_all(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
        serve(device, irp);
        SEEN.with_borrow_mut(|(_, depth, most)| {
            *depth += 1;
            *most = (*most).max(*depth);
        });
        io_start_next_packet(Raw::of(device), 0);
        SEEN.with_borrow_mut(|(_, depth, _)| *depth -= 1);
    }

    fn served() -> Vec<usize> {
        SEEN.take().0.into_iter().map(|(irp, _)| irp).collect()
    }

    /// Three requests for a device with a routine.
    fn with_requests(routine: nt_types::DRIVER_STARTIO, body: impl FnOnce(Raw<DEVICE_OBJECT>, [Raw<IRP>; 3])) {
        SEEN.take();
        let world = World::new();
        let driver = Raw::<DRIVER_OBJECT>::at(world.driver.address());
        field!(driver, DRIVER_OBJECT, DriverStartIo).write(routine);
        world.run(|| {
            let irps = [(); 3].map(|()| Raw::<IRP>::at(io_allocate_irp(1, 0)));
            body(Raw::at(world.device), irps);
            for irp in irps {
                io_free_irp(irp);
            }
        });
    }

    fn start_packet(device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>, key: Option<u32>) {
        let mut key = key;
        let key = key.as_mut().map_or(Raw::NULL, |key| Raw::of(&raw mut *key));
        io_start_packet(device, irp, key, 0);
    }

    fn at_dispatch_level(body: impl FnOnce()) {
        Thread::current().set_irql(2);
        body();
        Thread::current().set_irql(0);
    }

    #[test]
    fn one_request_is_served_at_dispatch_level_and_the_others_are_queued() {
        conforms!(
            "ntifs/nf-ntifs-iostartpacket.md",
            "StartIo is called for the request, or the request is queued when the device is busy."
        );
        conforms!("ntifs/nf-ntifs-iostartnextpacket.md", "StartIo is called for the next request, if there is one.");
        with_requests(Some(serve), |device, [one, two, three]| {
            for irp in [one, two, three] {
                start_packet(device, irp, None);
            }
            assert_eq!(SEEN.with_borrow(|(seen, ..)| seen.clone()), [(one.address(), 2)]);
            at_dispatch_level(|| (0..4).for_each(|_| io_start_next_packet(device, 0)));
            assert_eq!(served(), [one, two, three].map(Raw::address));
            assert!(field!(device, DEVICE_OBJECT, CurrentIrp).read().is_null());
            start_packet(device, one, None);
            assert_eq!(served(), [one.address()], "the device was not busy any more");
        });
    }

    #[test]
    fn keys_order_the_queue() {
        conforms!("ntifs/nf-ntifs-iostartpacket.md", "Key says where in the queue the request goes.");
        conforms!("ntifs/nf-ntifs-iostartnextpacketbykey.md", "The next request is the one that the key selects.");
        with_requests(Some(serve), |device, [one, two, three]| {
            start_packet(device, one, Some(0));
            start_packet(device, two, Some(20));
            start_packet(device, three, Some(10));
            at_dispatch_level(|| {
                io_start_next_packet_by_key(device, 0, 15);
                io_start_next_packet(device, 0);
            });
            assert_eq!(served(), [one, two, three].map(Raw::address));
        });
    }

    #[test]
    fn a_deferred_routine_is_not_called_while_it_runs() {
        conforms!(
            "ntifs/nf-ntifs-iosetstartioattributes.md",
            "With DeferredStartIo the routine is not called again before its present call is over."
        );
        for (deferred, depth) in [(0, 3), (1, 1)] {
            with_requests(Some(serve_all), |device, irps| {
                io_set_start_io_attributes(device, deferred, 0);
                // The queue is made busy first, so that the requests gather in it.
                let busy = queue_of(&Call::enter(), device);
                let mut entry = [0_u64; 3];
                busy.insert(&Call::enter(), Raw::of(&raw mut entry).address(), None);
                for irp in irps {
                    start_packet(device, irp, None);
                }
                at_dispatch_level(|| io_start_next_packet(device, 0));
                let (seen, _, most) = SEEN.take();
                assert_eq!((seen.len(), most), (3, depth));
            });
        }
    }

    #[test]
    fn a_driver_without_the_routine_and_a_low_irql_are_found() {
        conforms!("ntifs/nf-ntifs-iostartpacket.md", "A driver without a StartIo routine cannot call it.");
        conforms!("ntifs/nf-ntifs-iostartnextpacket.md", "The caller runs at DISPATCH_LEVEL.");
        let world = World::new();
        let packet = || start_packet(Raw::at(world.device), Raw::at(io_allocate_irp(1, 0)), None);
        assert_eq!(world.broken(packet), Rule::BadState);
        let world = World::new();
        assert_eq!(world.broken(|| io_start_next_packet(Raw::at(world.device), 0)), Rule::BadState);
    }
}
