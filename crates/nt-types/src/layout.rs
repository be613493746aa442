//! Compile-time proof of structure layouts.

/// Asserts the size of a `#[repr(C)]` type and the offset of each field named.
///
/// The numbers are written out instead of derived, because they are the claim: they come from
/// the Windows headers for x64, and a compiler that lays a type out differently must stop the
/// build, not corrupt a structure that another module wrote. All targets of this project have
/// 64-bit pointers, so the same numbers hold on x86-64 and ARM64.
///
/// ```
/// #[repr(C)]
/// struct Pair { first: u32, second: u64 }
/// nt_types::assert_layout!(Pair, 16, { first: 0, second: 8 });
/// ```
#[macro_export]
macro_rules! assert_layout {
    ($type:ty, $size:expr $(, { $($field:ident : $offset:expr),* $(,)? })? $(,)?) => {
        #[cfg(target_pointer_width = "64")]
        const _: () = {
            assert!(::core::mem::size_of::<$type>() == $size, concat!("size of ", stringify!($type)));
            $($(
                assert!(
                    ::core::mem::offset_of!($type, $field) == $offset,
                    concat!("offset of ", stringify!($type), ".", stringify!($field)),
                );
            )*)?
        };
    };
}
