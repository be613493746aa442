//! Which names denote firmware files: lexical rules, applied before anything is opened.
//!
//! Names are counted UTF-16 strings as they come from a client; any unit may occur anywhere, and no function here panics on
//! one. A name is refused where two parts of the system could understand it differently: whatever passes has one
//! reading, so a name that was checked is the file that is opened.
//!
//! - [`NtPath`]: an absolute name, as a client gives it;
//! - [`DeviceName`]: the normalised name of an open file, as the filter manager gives it;
//! - [`Root`], [`SearchPath`]: where firmware may lie, and where it is looked for;
//! - [`BareName`]: `e1000.rom`, as a NIC driver asks for it.
//!
//! Lexical rules alone do not keep a name under a root, since links may lead anywhere. The driver checks an [`NtPath`]
//! first, opens it without following reparse points, and checks the open file's [`DeviceName`] against the roots.

mod bare_name;
mod component;
mod device_name;
mod nt_path;
mod root;

pub use bare_name::BareName;
pub use device_name::DeviceName;
pub use nt_path::{NtPath, Prefix};
pub use root::{Root, SearchPath};

/// The longest name that NT can represent, in UTF-16 units: a `UNICODE_STRING` counts bytes in 16 bits.
pub const MAX_NAME_UNITS: usize = 32_767;

#[cfg(test)]
mod property_tests;
