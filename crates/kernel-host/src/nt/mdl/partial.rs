//! Lists that describe part of what another does, or less than they did.

use nt_types::{MDL, MdlFlags, NtStatus};

use super::{frame_slot, frames_of, read_list};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::arena::PAGE;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::nt) EXPORTS in "ntoskrnl.exe":
    IoBuildPartialMdl(max 2) = io_build_partial_mdl;
    MmAdvanceMdl(max 2) = mm_advance_mdl;
}

pub(super) extern "efiapi" fn io_build_partial_mdl(source: Raw<MDL>, target: Raw<MDL>, address: usize, length: u32) {
    let call = Call::enter();
    let (from, to) = (read_list(&call, source), read_list(&call, target));
    let flags = MdlFlags::from_bits_retain(from.MdlFlags);
    let described = MdlFlags::PAGES_LOCKED | MdlFlags::SOURCE_IS_NONPAGED_POOL | MdlFlags::PARTIAL;
    if !flags.intersects(described) {
        call.stop(Rule::BadState, "the source MDL's pages are not locked");
    }
    if MdlFlags::from_bits_retain(to.MdlFlags).contains(MdlFlags::PARTIAL_HAS_BEEN_MAPPED) {
        call.stop(Rule::BadState, "the target MDL still has a mapping of its own: MmPrepareMdlForReuse comes first");
    }
    let start = from.StartVa.addr() + from.ByteOffset as usize;
    let Some(skipped) = address.checked_sub(start).filter(|skipped| *skipped <= from.ByteCount as usize) else {
        call.stop(Rule::BadArgument, format!("{address:#x} is not in the buffer that the source MDL describes"));
    };
    let rest = from.ByteCount as usize - skipped;
    // The page: 0 stands for all that is left.
    let length = if length == 0 { rest } else { length as usize };
    if length > rest {
        call.stop(
            Rule::BadArgument,
            format!("{length} bytes from {address:#x} on are more than the source MDL describes"),
        );
    }
    let pages = (address % PAGE + length).div_ceil(PAGE);
    let room = usize::from(to.Size.unsigned_abs()).saturating_sub(size_of::<MDL>()) / size_of::<u64>();
    if pages > room {
        call.stop(Rule::BadArgument, format!("the target MDL has room for {room} pages, {pages} are to be described"));
    }
    let first = (address / PAGE) - from.StartVa.addr() / PAGE;
    for (index, frame) in frames_of(source, &from).into_iter().skip(first).take(pages).enumerate() {
        frame_slot(target, index).write(frame);
    }
    let mut inherited =
        flags & (MdlFlags::SOURCE_IS_NONPAGED_POOL | MdlFlags::MAPPED_TO_SYSTEM_VA | MdlFlags::IO_PAGE_READ);
    inherited.set(MdlFlags::PARENT_MAPPED_SYSTEM_VA, flags.contains(MdlFlags::MAPPED_TO_SYSTEM_VA));
    let mapped = if from.MappedSystemVa.is_null() { 0 } else { from.MappedSystemVa.addr() + skipped };
    target.write(MDL {
        MdlFlags: (inherited | MdlFlags::PARTIAL).bits(),
        Process: from.Process,
        MappedSystemVa: Raw::at(mapped).pointer(),
        StartVa: Raw::at(address & !(PAGE - 1)).pointer(),
        ByteCount: length as u32,
        ByteOffset: (address % PAGE) as u32,
        ..to
    });
}

pub(super) extern "efiapi" fn mm_advance_mdl(list: Raw<MDL>, bytes: u32) -> NtStatus {
    let call = Call::enter();
    let header = read_list(&call, list);
    if bytes >= header.ByteCount {
        return NtStatus::INVALID_PARAMETER_2;
    }
    let offset = (header.ByteOffset + bytes) as usize;
    let passed = offset / PAGE;
    let frames = frames_of(list, &header);
    for (index, frame) in frames.iter().skip(passed).enumerate() {
        frame_slot(list, index).write(*frame);
    }
    let nt = &call.machine().nt;
    // The page: pages that are passed are unlocked at once.
    let unlocked = nt.mappings().with_locked(|all| {
        let locked = all.get_mut(&list.address());
        locked.map(|locked| locked.frames.drain(..passed.min(locked.frames.len())).collect::<Vec<_>>())
    });
    nt.physical().unpin(&unlocked.unwrap_or_default());
    let mapped = header.MappedSystemVa.addr();
    let is_mapped = MdlFlags::from_bits_retain(header.MdlFlags).contains(MdlFlags::MAPPED_TO_SYSTEM_VA);
    if is_mapped {
        // The mapping is known by the address that the list gives for it.
        let mut mappings = nt.mappings().lock();
        if let Some(mapping) = mappings.remove(&mapped) {
            mappings.insert(mapped + bytes as usize, mapping);
        }
    }
    if mapped != 0 {
        field!(list, MDL, MappedSystemVa).write(Raw::at(mapped + bytes as usize).pointer());
    }
    field!(list, MDL, StartVa).write(Raw::at(header.StartVa.addr() + passed * PAGE).pointer());
    field!(list, MDL, ByteOffset).write((offset % PAGE) as u32);
    field!(list, MDL, ByteCount).write(header.ByteCount - bytes);
    NtStatus::SUCCESS
}
