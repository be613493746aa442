//! The ends that file systems hear of: IRP_MJ_SHUTDOWN and the dismount of a volume.

use std::sync::Arc;

use nt_types::{IrpFlags, KERNEL_MODE};

use super::volume::Volume;
use crate::flt::{self, Kind, Operation, major};
use crate::machine::Inner;
use crate::thread::Thread;

/// Sends IRP_MJ_SHUTDOWN to all volumes: after the devices that asked for it, before those that want the last chance.
pub(crate) fn shut_down(machine: &Arc<Inner>) {
    Thread::enter(machine, |_| {
        for mounted in machine.fs.volumes() {
            let operation = Operation::new(Kind::Irp, major::SHUTDOWN, 0, KERNEL_MODE);
            // Whatever filters answer, the machine goes down.
            let _outcome = flt::run(machine, &mounted.volume, None, &operation.irp_flags(IrpFlags::SYNCHRONOUS_API));
        }
    });
}

/// Tells the filters on a volume that it is being dismounted, while their instances are still there.
pub(super) fn dismounting(machine: &Arc<Inner>, volume: &Arc<Volume>) {
    let operation = Operation::new(Kind::FsFilter, major::VOLUME_DISMOUNT, 0, KERNEL_MODE);
    // A dismount cannot be refused here any more.
    let _outcome = flt::run(machine, volume, None, &operation);
}
