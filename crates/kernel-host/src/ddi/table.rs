//! Export tables: which names drivers can import, and what stands behind each.

use crate::fault::Failure;

/// One name that drivers can import.
#[derive(Debug)]
pub struct Export {
    /// Image that exports it, as import tables spell it: `ntoskrnl.exe`, `fltmgr.sys`, `ndis.sys`.
    pub module: &'static str,
    /// Exported name.
    pub name: &'static str,
    /// What the name stands for.
    pub target: Target,
    /// Highest IRQL at which its page allows a call; 31 for none stated.
    pub max_irql: u8,
    /// Ways in which its page lets a call fail for want of something: fault injection tries each.
    pub failures: &'static [Failure],
}

/// What an exported name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A function in the Microsoft x64 convention.
    Function(*const ()),
    /// A variable; the import slot gets its address.
    Data(*const ()),
    /// A variable that each machine has one of; gives its address.
    Variable(fn(&std::sync::Arc<crate::machine::Inner>) -> usize),
}

// SAFETY: the pointers name functions and statics of this process, valid for its whole life.
unsafe impl Sync for Export {}
// SAFETY: as above.
unsafe impl Send for Export {}

/// Declares an export table: `exports! { pub(crate) TABLE in "ntoskrnl.exe": ExAllocatePool(max 2, fails NULL) = ex_allocate_pool; ... data MmHighestUserAddress = STATIC; }`
#[macro_export]
#[doc(hidden)]
macro_rules! __exports {
    ($vis:vis $table:ident in $module:literal:
        $($first:ident $($second:ident)? $((max $irql:literal $(, fails $failures:ident)?))? = $target:path;)*
    ) => {
        $vis static $table: &[$crate::ddi::Export] =
            &[$($crate::__export!($module; $first $($second)? $((max $irql $(, fails $failures)?))? = $target)),*];
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! __export {
    ($module:literal; data $name:ident = $target:path) => {
        $crate::ddi::Export {
            module: $module,
            name: stringify!($name),
            target: $crate::ddi::Target::Data((&raw const $target).cast()),
            max_irql: 31,
            failures: &[],
        }
    };
    ($module:literal; variable $name:ident = $target:path) => {
        $crate::ddi::Export {
            module: $module,
            name: stringify!($name),
            target: $crate::ddi::Target::Variable($target),
            max_irql: 31,
            failures: &[],
        }
    };
    ($module:literal; $name:ident (max $irql:literal $(, fails $failures:ident)?) = $target:path) => {
        $crate::ddi::Export {
            module: $module,
            name: stringify!($name),
            target: $crate::ddi::Target::Function($target as *const ()),
            max_irql: $irql,
            failures: $crate::__failures!($($failures)?),
        }
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! __failures {
    () => {
        &[]
    };
    ($failures:ident) => {
        $crate::fault::$failures
    };
}

pub(crate) use crate::__exports as exports;
