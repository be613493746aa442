//! `SeExports`: well-known identifiers and privileges. Page: `ntifs/ns-ntifs-_se_exports`.

use crate::ddi::exports;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    data SeExports = SE_EXPORTS;
}

/// A well-known identifier in static memory, with room for two sub-authorities.
#[repr(C, align(4))]
struct StaticSid([u8; 16]);

const fn sid(authority: u8, count: u8, parts: [u32; 2]) -> StaticSid {
    let mut bytes = [1, count, 0, 0, 0, 0, 0, authority, 0, 0, 0, 0, 0, 0, 0, 0];
    let (first, second) = (parts[0].to_le_bytes(), parts[1].to_le_bytes());
    let mut index = 0;
    while index < 4 {
        bytes[8 + index] = first[index];
        bytes[12 + index] = second[index];
        index += 1;
    }
    StaticSid(bytes)
}

/// Of a builtin group.
const fn alias(number: u32) -> StaticSid {
    sid(5, 2, [32, number])
}

/// Of the NT authority, with one part.
const fn nt(number: u32) -> StaticSid {
    sid(5, 1, [number, 0])
}

/// In the order of the structure: universal ones, then those of the NT authority.
static FIRST: [StaticSid; 22] = [
    sid(0, 1, [0, 0]),
    sid(1, 1, [0, 0]),
    sid(2, 1, [0, 0]),
    sid(3, 1, [0, 0]),
    sid(3, 1, [1, 0]),
    sid(5, 0, [0, 0]),
    nt(1),
    nt(2),
    nt(3),
    nt(4),
    nt(18),
    alias(544),
    alias(545),
    alias(546),
    alias(547),
    alias(548),
    alias(549),
    alias(550),
    alias(551),
    nt(11),
    nt(12),
    nt(7),
];
/// `SeLocalServiceSid`, `SeNetworkServiceSid`.
static SERVICES: [StaticSid; 2] = [nt(19), nt(20)];
/// `SeIUserSid`, and the integrity levels from untrusted to system.
static LATER: [StaticSid; 6] = [
    nt(17),
    sid(16, 1, [0, 0]),
    sid(16, 1, [0x1000, 0]),
    sid(16, 1, [0x2000, 0]),
    sid(16, 1, [0x3000, 0]),
    sid(16, 1, [0x4000, 0]),
];

/// A privilege's LUID.
type Luid = [u32; 2];

const fn luids<const N: usize>(first: u32) -> [Luid; N] {
    let mut luids = [[0; 2]; N];
    let mut index = 0;
    while index < N {
        luids[index] = [first + index as u32, 0];
        index += 1;
    }
    luids
}

const fn addresses<const N: usize>(sids: &'static [StaticSid; N]) -> [&'static StaticSid; N] {
    let mut addresses = [&sids[0]; N];
    let mut index = 0;
    while index < N {
        addresses[index] = &sids[index];
        index += 1;
    }
    addresses
}

/// `SE_EXPORTS`.
#[repr(C)]
struct Body {
    /// `SeCreateTokenPrivilege` (2) to `SeRemoteShutdownPrivilege` (24), by number.
    privileges: [Luid; 23],
    first: [&'static StaticSid; 22],
    /// `SeUndockPrivilege`, `SeSyncAgentPrivilege`, `SeEnableDelegationPrivilege`: 25 to 27.
    nt5: [Luid; 3],
    services: [&'static StaticSid; 2],
    /// `SeManageVolumePrivilege` (28) to `SeCreateSymbolicLinkPrivilege` (35).
    later_privileges: [Luid; 8],
    later: [&'static StaticSid; 6],
}

const _: () = assert!(std::mem::offset_of!(Body, first) == 184);

static BODY: Body = Body {
    privileges: luids(2),
    first: addresses(&FIRST),
    nt5: luids(25),
    services: addresses(&SERVICES),
    later_privileges: luids(28),
    later: addresses(&LATER),
};

/// The exported variable.
static SE_EXPORTS: &Body = &BODY;
