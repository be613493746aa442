//! What FltMgr tells about filters, instances and volumes (`fltuserstructures.h`). Names follow each structure, at the offsets
//! that it gives; offsets and lengths are in bytes.

use nt_types::assert_layout;

/// `FILTER_INFORMATION_CLASS`: [`FILTER_FULL_INFORMATION`].
pub const FILTER_FULL_INFORMATION_CLASS: i32 = 0;
/// `FILTER_INFORMATION_CLASS`: [`FILTER_AGGREGATE_BASIC_INFORMATION`].
pub const FILTER_AGGREGATE_BASIC_INFORMATION_CLASS: i32 = 1;
/// `FILTER_INFORMATION_CLASS`: [`FILTER_AGGREGATE_STANDARD_INFORMATION`].
pub const FILTER_AGGREGATE_STANDARD_INFORMATION_CLASS: i32 = 2;

/// `INSTANCE_INFORMATION_CLASS`: [`INSTANCE_BASIC_INFORMATION`].
pub const INSTANCE_BASIC_INFORMATION_CLASS: i32 = 0;
/// `INSTANCE_INFORMATION_CLASS`: [`INSTANCE_PARTIAL_INFORMATION`].
pub const INSTANCE_PARTIAL_INFORMATION_CLASS: i32 = 1;
/// `INSTANCE_INFORMATION_CLASS`: [`INSTANCE_FULL_INFORMATION`].
pub const INSTANCE_FULL_INFORMATION_CLASS: i32 = 2;
/// `INSTANCE_INFORMATION_CLASS`: [`INSTANCE_AGGREGATE_STANDARD_INFORMATION`].
pub const INSTANCE_AGGREGATE_STANDARD_INFORMATION_CLASS: i32 = 3;

/// `FILTER_VOLUME_INFORMATION_CLASS`: `FILTER_VOLUME_BASIC_INFORMATION`, a length and the name behind it.
pub const FILTER_VOLUME_BASIC_INFORMATION_CLASS: i32 = 0;
/// `FILTER_VOLUME_INFORMATION_CLASS`: [`FILTER_VOLUME_STANDARD_INFORMATION`].
pub const FILTER_VOLUME_STANDARD_INFORMATION_CLASS: i32 = 1;

/// `FLTFL_*_IS_MINIFILTER`: the structure is about a minifilter, not a legacy filter.
pub const FLTFL_IS_MINIFILTER: u32 = 1;

/// Declares structures of plain integers.
macro_rules! records {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty = $offset:literal,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        assert_layout!($name, $size, { $($field: $offset,)* });
    )*};
}

records! {
    /// `FILTER_FULL_INFORMATION`; the name begins at its last two bytes. Page: `ns-fltuserstructures-_filter_full_information`.
    FILTER_FULL_INFORMATION, 16 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// Frame of the filter manager.
        FrameID: u32 = 4,
        /// Instances of the filter.
        NumberOfInstances: u32 = 8,
        /// Length of the filter's name.
        FilterNameLength: u16 = 12,
        /// First character of the filter's name.
        FilterNameBuffer: u16 = 14,
    }

    /// `FILTER_AGGREGATE_BASIC_INFORMATION`. Page: `ns-fltuserstructures-_filter_aggregate_basic_information`.
    FILTER_AGGREGATE_BASIC_INFORMATION, 24 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// [`FLTFL_IS_MINIFILTER`].
        Flags: u32 = 4,
        /// Frame of the filter manager.
        FrameID: u32 = 8,
        /// Instances of the filter.
        NumberOfInstances: u32 = 12,
        /// Length of the filter's name.
        FilterNameLength: u16 = 16,
        /// Where it is.
        FilterNameBufferOffset: u16 = 18,
        /// Length of the altitude.
        FilterAltitudeLength: u16 = 20,
        /// Where it is.
        FilterAltitudeBufferOffset: u16 = 22,
    }

    /// `FILTER_AGGREGATE_STANDARD_INFORMATION`. Page: `ns-fltuserstructures-_filter_aggregate_standard_information`.
    FILTER_AGGREGATE_STANDARD_INFORMATION, 28 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// [`FLTFL_IS_MINIFILTER`].
        Flags: u32 = 4,
        /// None are defined.
        MiniFilterFlags: u32 = 8,
        /// Frame of the filter manager.
        FrameID: u32 = 12,
        /// Instances of the filter.
        NumberOfInstances: u32 = 16,
        /// Length of the filter's name.
        FilterNameLength: u16 = 20,
        /// Where it is.
        FilterNameBufferOffset: u16 = 22,
        /// Length of the altitude.
        FilterAltitudeLength: u16 = 24,
        /// Where it is.
        FilterAltitudeBufferOffset: u16 = 26,
    }

    /// `INSTANCE_BASIC_INFORMATION`. Page: `ns-fltuserstructures-_instance_basic_information`.
    INSTANCE_BASIC_INFORMATION, 8 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// Length of the instance's name.
        InstanceNameLength: u16 = 4,
        /// Where it is.
        InstanceNameBufferOffset: u16 = 6,
    }

    /// `INSTANCE_PARTIAL_INFORMATION`. Page: `ns-fltuserstructures-_instance_partial_information`.
    INSTANCE_PARTIAL_INFORMATION, 12 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// Length of the instance's name.
        InstanceNameLength: u16 = 4,
        /// Where it is.
        InstanceNameBufferOffset: u16 = 6,
        /// Length of the altitude.
        AltitudeLength: u16 = 8,
        /// Where it is.
        AltitudeBufferOffset: u16 = 10,
    }

    /// `INSTANCE_FULL_INFORMATION`. Page: `ns-fltuserstructures-_instance_full_information`.
    INSTANCE_FULL_INFORMATION, 20 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// Length of the instance's name.
        InstanceNameLength: u16 = 4,
        /// Where it is.
        InstanceNameBufferOffset: u16 = 6,
        /// Length of the altitude.
        AltitudeLength: u16 = 8,
        /// Where it is.
        AltitudeBufferOffset: u16 = 10,
        /// Length of the volume's name.
        VolumeNameLength: u16 = 12,
        /// Where it is.
        VolumeNameBufferOffset: u16 = 14,
        /// Length of the filter's name.
        FilterNameLength: u16 = 16,
        /// Where it is.
        FilterNameBufferOffset: u16 = 18,
    }

    /// `INSTANCE_AGGREGATE_STANDARD_INFORMATION`. Page: `ns-fltuserstructures-_instance_aggregate_standard_information`.
    INSTANCE_AGGREGATE_STANDARD_INFORMATION, 40 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// [`FLTFL_IS_MINIFILTER`].
        Flags: u32 = 4,
        /// 1: the volume has no storage stack.
        MiniFilterFlags: u32 = 8,
        /// Frame of the filter manager.
        FrameID: u32 = 12,
        /// `FLT_FSTYPE_*`.
        VolumeFileSystemType: u32 = 16,
        /// Length of the instance's name.
        InstanceNameLength: u16 = 20,
        /// Where it is.
        InstanceNameBufferOffset: u16 = 22,
        /// Length of the altitude.
        AltitudeLength: u16 = 24,
        /// Where it is.
        AltitudeBufferOffset: u16 = 26,
        /// Length of the volume's name.
        VolumeNameLength: u16 = 28,
        /// Where it is.
        VolumeNameBufferOffset: u16 = 30,
        /// Length of the filter's name.
        FilterNameLength: u16 = 32,
        /// Where it is.
        FilterNameBufferOffset: u16 = 34,
        /// `SUPPORTED_FS_FEATURES_*` of the filter.
        SupportedFeatures: u32 = 36,
    }

    /// `FILTER_VOLUME_STANDARD_INFORMATION`; the name begins at its last two bytes.
    /// Page: `ns-fltuserstructures-_filter_volume_standard_information`.
    FILTER_VOLUME_STANDARD_INFORMATION, 20 {
        /// Offset of the next entry; 0 for the last.
        NextEntryOffset: u32 = 0,
        /// 1: the volume has no storage stack.
        Flags: u32 = 4,
        /// Frame of the filter manager.
        FrameID: u32 = 8,
        /// `FLT_FSTYPE_*`.
        FileSystemType: u32 = 12,
        /// Length of the volume's name.
        FilterVolumeNameLength: u16 = 16,
        /// First character of the volume's name.
        FilterVolumeName: u16 = 18,
    }
}
