//! What a filter registers about its contexts, and which definition a request is served from.

use std::fmt;

use fltmgr::raw::{
    FLT_CONTEXT_END, FLT_CONTEXT_REGISTRATION, FLT_VARIABLE_SIZED_CONTEXTS,
    FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH, PFLT_CONTEXT_ALLOCATE_CALLBACK, PFLT_CONTEXT_CLEANUP_CALLBACK,
    PFLT_CONTEXT_FREE_CALLBACK,
};
use nt_types::NtStatus;

use crate::nt::raw::Raw;

/// Entries after which a registration array is taken to have no end.
const MAX_ENTRIES: usize = 256;

/// Definitions of a fixed size that one type may have.
const MAX_FIXED: usize = 3;

/// Largest context in bytes (`MAXUSHORT`).
pub(crate) const MAX_SIZE: usize = 0xFFFF;

/// What a context is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Volume,
    Instance,
    File,
    Stream,
    StreamHandle,
    Transaction,
    Section,
}

impl Kind {
    /// In the order of `FLT_RELATED_CONTEXTS_EX`, which is that of the bits.
    pub(crate) const ALL: [Self; 7] =
        [Self::Volume, Self::Instance, Self::File, Self::Stream, Self::StreamHandle, Self::Transaction, Self::Section];

    /// The type of an `FLT_*_CONTEXT` value.
    pub(crate) fn from_bits(bits: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.bits() == bits)
    }

    /// `FLT_*_CONTEXT`.
    pub(crate) const fn bits(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volume => "FLT_VOLUME_CONTEXT",
            Self::Instance => "FLT_INSTANCE_CONTEXT",
            Self::File => "FLT_FILE_CONTEXT",
            Self::Stream => "FLT_STREAM_CONTEXT",
            Self::StreamHandle => "FLT_STREAMHANDLE_CONTEXT",
            Self::Transaction => "FLT_TRANSACTION_CONTEXT",
            Self::Section => "FLT_SECTION_CONTEXT",
        })
    }
}

/// One entry of the registration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Definition {
    pub(crate) kind: Kind,
    /// Bytes of the filter's part; `None` for any.
    size: Option<usize>,
    /// Requests for less are served too.
    or_less: bool,
    pub(crate) tag: u32,
    pub(crate) cleanup: PFLT_CONTEXT_CLEANUP_CALLBACK,
    pub(crate) allocate: PFLT_CONTEXT_ALLOCATE_CALLBACK,
    pub(crate) free: PFLT_CONTEXT_FREE_CALLBACK,
}

impl Definition {
    fn parse(entry: &FLT_CONTEXT_REGISTRATION) -> Option<Self> {
        let variable = entry.Size == FLT_VARIABLE_SIZED_CONTEXTS;
        // An allocator of the filter's own makes size and tag meaningless.
        let own = entry.ContextAllocateCallback.is_some();
        if !own && (entry.PoolTag == 0 || (!variable && entry.Size > MAX_SIZE)) || !entry.Reserved1.is_null() {
            return None;
        }
        Some(Self {
            kind: Kind::from_bits(entry.ContextType)?,
            size: (!own && !variable).then_some(entry.Size),
            or_less: entry.Flags & FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH != 0,
            tag: entry.PoolTag,
            cleanup: entry.ContextCleanupCallback,
            allocate: entry.ContextAllocateCallback,
            free: entry.ContextFreeCallback,
        })
    }

    /// Whether contexts have one size, so that they come from a lookaside list.
    pub(crate) fn is_fixed(&self) -> bool {
        self.size.is_some()
    }
}

/// All definitions of a filter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions(Vec<Definition>);

impl Definitions {
    /// Copies and checks a registration array.
    ///
    /// # Errors
    /// `FLT_INVALID_CONTEXT_REGISTRATION` for an entry, or a set of entries for one type, that the page does not allow.
    pub(crate) fn capture(first: Raw<FLT_CONTEXT_REGISTRATION>) -> Result<Self, NtStatus> {
        const INVALID: NtStatus = NtStatus::FLT_INVALID_CONTEXT_REGISTRATION;
        let mut seen: Vec<FLT_CONTEXT_REGISTRATION> = Vec::new();
        let Some(first) = first.some() else { return Ok(Self::default()) };
        let end = (0..MAX_ENTRIES).find(|&index| {
            let entry = first.index(index).read();
            // Of entries that are the same only the first counts.
            if entry.ContextType != FLT_CONTEXT_END && !seen.iter().any(|known| same(known, &entry)) {
                seen.push(entry);
            }
            entry.ContextType == FLT_CONTEXT_END
        });
        end.ok_or(INVALID)?;
        let parsed: Option<Vec<_>> = seen.iter().map(Definition::parse).collect();
        let all = Self(parsed.ok_or(INVALID)?);
        if Kind::ALL.into_iter().all(|kind| all.is_allowed(kind)) { Ok(all) } else { Err(INVALID) }
    }

    /// Whether the definitions of one type may stand beside each other.
    fn is_allowed(&self, kind: Kind) -> bool {
        let count = |wanted: fn(&Definition) -> bool| self.of(kind).filter(|definition| wanted(definition)).count();
        let own = count(|definition| definition.allocate.is_some());
        let fixed = count(Definition::is_fixed);
        let variable = count(|definition| definition.allocate.is_none() && !definition.is_fixed());
        (own == 0 || self.of(kind).count() == 1) && fixed <= MAX_FIXED && variable <= 1
    }

    /// The definition that serves a request: the filter's own allocator, the size itself, the smallest larger one whose flag
    /// allows it, any size.
    pub(crate) fn select(&self, kind: Kind, size: usize) -> Option<Definition> {
        let exact = self.of(kind).find(|definition| definition.allocate.is_some() || definition.size == Some(size));
        let larger = || {
            let fits = |definition: &&Definition| definition.or_less && definition.size.is_some_and(|has| has >= size);
            self.of(kind).filter(fits).min_by_key(|definition| definition.size)
        };
        let any = || self.of(kind).find(|definition| !definition.is_fixed());
        exact.or_else(larger).or_else(any).copied()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Definition> {
        self.0.iter().filter(move |definition| definition.kind == kind)
    }
}

/// Whether two entries say the same.
fn same(one: &FLT_CONTEXT_REGISTRATION, other: &FLT_CONTEXT_REGISTRATION) -> bool {
    let key = |entry: &FLT_CONTEXT_REGISTRATION| {
        (
            (entry.ContextType, entry.Flags, entry.Size, entry.PoolTag, entry.Reserved1.addr()),
            entry.ContextCleanupCallback.map(|callback| callback as usize),
            entry.ContextAllocateCallback.map(|callback| callback as usize),
            entry.ContextFreeCallback.map(|callback| callback as usize),
        )
    };
    key(one) == key(other)
}
