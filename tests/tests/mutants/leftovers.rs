//! Devices and names that stay behind.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, While};
use crate::family::family;
use crate::rig::Rig;

family! { leftovers, Rig::exercise;
    fails_and_leaves_a_device: Left(Rule::BadState, LeakKind::Device, "device object");
    symbolic_link_left: Left(Rule::BadState, LeakKind::Device, "symbolic link");
    process_notify_routine_left: Left(Rule::BadState, LeakKind::Registration, "PCREATE_PROCESS_NOTIFY_ROUTINE");
    thread_notify_routine_left: Left(Rule::BadState, LeakKind::Registration, "PCREATE_THREAD_NOTIFY_ROUTINE");
    image_notify_routine_left: Left(Rule::BadState, LeakKind::Registration, "PLOAD_IMAGE_NOTIFY_ROUTINE");
    device_left: Left(Rule::BadState, LeakKind::Device, "device object");
    device_deleted_twice: While(Rule::BadState, "IoDeleteDevice", "TearDown");
}
