//! Processors for receive side scaling.

use nt_types::assert_layout;

use super::NDIS_OBJECT_HEADER;

/// `NDIS_RSS_PROCESSOR_INFO`, revision 1. DDI page: `ndis/ns-ndis-_ndis_rss_processor_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_RSS_PROCESSOR_INFO {
    /// Type DEFAULT, revision 1, size 32.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved.
    pub Flags: u32,
    /// `PROCESSOR_NUMBER` of the first processor.
    pub RssBaseProcessor: u32,
    /// Most processors that are used.
    pub MaxNumRssProcessors: u32,
    /// NUMA node next to the device.
    pub PreferredNumaNode: u16,
    /// Bytes from the start of the structure to the array of processors.
    pub RssProcessorArrayOffset: u32,
    /// Its length in entries.
    pub RssProcessorCount: u32,
    /// Length of an entry in bytes.
    pub RssProcessorEntrySize: u32,
}
assert_layout!(NDIS_RSS_PROCESSOR_INFO, 32, {
    Header: 0, Flags: 4, RssBaseProcessor: 8, MaxNumRssProcessors: 12, PreferredNumaNode: 16,
    RssProcessorArrayOffset: 20, RssProcessorCount: 24, RssProcessorEntrySize: 28,
});

/// `NDIS_RSS_PROCESSOR`. DDI page: `ndis/ns-ndis-_ndis_rss_processor`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_RSS_PROCESSOR {
    /// `PROCESSOR_NUMBER`.
    pub ProcNum: u32,
    /// How near it is; less is nearer.
    pub PreferenceIndex: u16,
    /// Unused.
    pub Reserved: u16,
}
assert_layout!(NDIS_RSS_PROCESSOR, 8, { ProcNum: 0, PreferenceIndex: 4, Reserved: 6 });
