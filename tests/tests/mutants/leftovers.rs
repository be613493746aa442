//! Devices and names that stay behind.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, While};
use crate::family::family;
use crate::rig::Rig;

family! { leftovers, Rig::exercise;
    fails_and_leaves_a_device: Left(Rule::BadState, LeakKind::Device, "device object");
    symbolic_link_left: Left(Rule::BadState, LeakKind::Device, "symbolic link");
    device_left: Left(Rule::BadState, LeakKind::Device, "device object");
    device_deleted_twice: While(Rule::BadState, "IoDeleteDevice", "TearDown");
}
