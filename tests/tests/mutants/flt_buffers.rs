//! Programs' buffers in the callbacks of minifilters.

use kernel_host::Rule;

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::Rig;

family! { flt_buffers, Rig::open_a_file;
    write_buffer_read_unguarded: While(Rule::UnguardedUserAccess, "PreOperationCallback", "PreWrite");
    read_buffer_changed_unguarded: While(Rule::UnguardedUserAccess, "PostOperationCallback", "PostRead");
}
