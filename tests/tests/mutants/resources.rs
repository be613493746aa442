//! Resources, lookaside lists and MDLs out of step.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { resources, Rig::exercise;
    resource_without_a_critical_region: While(Rule::BadState, "ExAcquireResourceExclusiveLite", "UseResource");
    resource_kept: Returning(Rule::LockHeld, "IRP_MJ_DEVICE_CONTROL");
    resource_released_twice: While(Rule::BadState, "ExReleaseResourceLite", "UseResource");
    resource_shared_then_exclusive: While(Rule::Deadlock, "ExAcquireResourceExclusiveLite", "UseResource");
    resource_initialised_twice: While(Rule::BadState, "ExInitializeResourceLite", "SetUp");
    resource_not_deleted: Left(Rule::BadState, LeakKind::Registration, "ERESOURCE");
    lookaside_list_not_deleted: Left(Rule::BadState, LeakKind::Registration, "lookaside");
    entry_not_freed: While(Rule::BadState, "ExDeleteNPagedLookasideList", "TearDown");
    mdl_used_unbuilt: While(Rule::BadState, "MmMapLockedPagesSpecifyCache", "DescribePool");
    mdl_not_freed: Left(Rule::PoolLeak, LeakKind::Pool, "DescribePool");
    mdl_freed_twice: While(Rule::BadArgument, "IoFreeMdl", "DescribePool");
}
