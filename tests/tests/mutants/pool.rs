//! One block of pool, mistreated.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, While};
use crate::family::family;
use crate::rig::Rig;

family! { pool, Rig::exercise;
    tag_zero: While(Rule::BadArgument, "ExAllocatePoolWithTag", "MakeRecord");
    zero_bytes: While(Rule::BadArgument, "ExAllocatePool2", "MakeRecord");
    overrun_by_a_word: While(Rule::PoolCorruption, "ExFreePoolWithTag", "FreeRecord");
    overrun_by_a_cache_line: While(Rule::PoolCorruption, "IRP_MJ_DEVICE_CONTROL", "FillRecord");
    underrun: While(Rule::PoolCorruption, "ExFreePoolWithTag", "FreeRecord");
    wrong_tag: While(Rule::BadPoolFree, "ExFreePoolWithTag", "FreeRecord");
    free_inside_the_block: While(Rule::BadPoolFree, "ExFreePoolWithTag", "FreeRecord");
    double_free: While(Rule::BadPoolFree, "ExFreePoolWithTag", "FreeRecord");
    uninitialised_pointer: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Exercise");
    use_after_free: While(Rule::PoolCorruption, "IRP_MJ_DEVICE_CONTROL", "SumRecord");
    leak: Left(Rule::PoolLeak, LeakKind::Pool, "MakeRecord");
    free_of_a_stack_variable: While(Rule::BadPoolFree, "ExFreePoolWithTag", "Exercise");
}
