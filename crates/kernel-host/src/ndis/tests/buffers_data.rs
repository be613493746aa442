//! The data of buffers: retreat, advance, copies, derived lists.

use nt_types::MDL;

use super::buffers::*;
use super::*;

/// A list over two pieces of memory, of 10 and 20 bytes that hold 0 to 29, with 5 bytes of unused space.
struct Sample {
    pool: usize,
    list: Nbl,
    pieces: [(usize, Raw<MDL>); 2],
}

impl Sample {
    fn new() -> Self {
        let pool = list_pool(true, 0);
        let pieces = [(0_u8, 10_u32), (10, 20)].map(|(from, length)| {
            let data = memory(length);
            let bytes: Vec<u8> = (from..from + length as u8).collect();
            Raw::<u8>::at(data).write_bytes(&bytes);
            (data, mdl(data, length))
        });
        field!(pieces[0].1, MDL, Next).write(pieces[1].1.pointer());
        Self { pool, list: list_over(pool, pieces[0].1, 5, 25), pieces }
    }

    fn buffer(&self) -> Nb {
        first_buffer(self.list)
    }

    fn free(self) {
        free_list(self.list);
        for (data, list) in self.pieces {
            free_mdl(list);
            free_memory(data);
        }
        free_list_pool(self.pool);
    }
}

/// Offset, length, and offset in the current MDL.
fn space(buffer: Nb) -> (u32, u64, u32) {
    let buffer = buffer.read();
    (buffer.DataOffset, buffer.DataLength, buffer.CurrentMdlOffset)
}

fn contents(buffer: Nb) -> Vec<u8> {
    let length = buffer.read().DataLength as u32;
    let storage = vec![0_u8; length as usize];
    let at = Raw::<u8>::at(storage.as_ptr().expose_provenance());
    let found = call_ddi!("NdisGetDataBuffer", fn(Nb, u32, Raw<u8>, u32, u32) -> usize, buffer, length, at, 1, 0);
    assert_ne!(found, 0);
    Raw::<u8>::at(found).read_bytes(length as usize)
}

fn retreat(buffer: Nb, delta: u32, back_fill: u32) -> NdisStatus {
    call_ddi!("NdisRetreatNetBufferDataStart", fn(Nb, u32, u32, usize) -> NdisStatus, buffer, delta, back_fill, 0)
}

fn advance(buffer: Nb, delta: u32, free_mdl: bool) {
    call_ddi!("NdisAdvanceNetBufferDataStart", fn(Nb, u32, u8, usize), buffer, delta, u8::from(free_mdl), 0);
}

#[test]
fn a_retreat_uses_the_unused_space() {
    conforms!(
        "nblapi/nf-nblapi-ndisretreatnetbufferdatastart.md",
        "A retreat reduces DataOffset where there is enough unused data space."
    );
    conforms!(
        "nblapi/nf-nblapi-ndisadvancenetbufferdatastart.md",
        "An advance without memory to free only changes the offset."
    );
    clean(|| {
        let sample = Sample::new();
        assert_eq!(retreat(sample.buffer(), 3, 100), NdisStatus::SUCCESS);
        assert_eq!(space(sample.buffer()), (2, 28, 2));
        advance(sample.buffer(), 12, true);
        assert_eq!(space(sample.buffer()), (14, 16, 4));
        assert_eq!(sample.buffer().read().CurrentMdl, sample.pieces[1].1.pointer());
        assert_eq!(contents(sample.buffer()), (14..30).collect::<Vec<u8>>());
        sample.free();
    });
}

#[test]
fn a_retreat_allocates_what_is_missing_and_an_advance_frees_it() {
    conforms!(
        "nblapi/nf-nblapi-ndisretreatnetbufferdatastart.md",
        "Without enough unused space an MDL with new memory is put before the chain, DataBackFill bytes larger than needed."
    );
    conforms!(
        "nblapi/nf-nblapi-ndisadvancenetbufferdatastart.md",
        "An advance with FreeMdl frees the memory that the retreat allocated."
    );
    clean(|| {
        let sample = Sample::new();
        assert_eq!(retreat(sample.buffer(), 12, 6), NdisStatus::SUCCESS);
        assert_eq!(space(sample.buffer()), (6, 37, 6));
        let added = Raw::of(sample.buffer().read().MdlChain);
        assert_ne!(added, sample.pieces[0].1);
        assert_eq!(added.read().ByteCount, 13, "7 bytes are missing, 6 are asked for beyond");
        assert_eq!(contents(sample.buffer())[7..], (0..30).collect::<Vec<u8>>());
        advance(sample.buffer(), 12, true);
        assert_eq!(space(sample.buffer()), (5, 25, 5));
        assert_eq!(sample.buffer().read().MdlChain, sample.pieces[0].1.pointer());
        sample.free();
    });
}

#[test]
fn an_advance_beyond_the_data_is_found() {
    assert_eq!(broken(|| advance(Sample::new().buffer(), 26, false)), Rule::BadArgument);
}

thread_local! {
    static HANDLED: Cell<[usize; 3]> = const { Cell::new([0; 3]) };
}

unsafe extern "efiapi" fn net_allocate_mdl(size: *mut u32) -> *mut MDL {
    let size = Raw::of(size).read();
    let data = memory(size);
    let list = mdl(data, size);
    HANDLED.set([data, list.address(), 0]);
    list.pointer()
}

unsafe extern "efiapi" fn net_free_mdl(list: *mut MDL) {
    let [data, own, _] = HANDLED.get();
    assert_eq!(list.addr(), own);
    free_mdl(Raw::at(own));
    free_memory(data);
    HANDLED.set([0, 0, 1]);
}

#[test]
fn the_handlers_of_a_driver_allocate_and_free_its_mdls() {
    conforms!(
        "nblapi/nc-nblapi-net_buffer_allocate_mdl.md",
        "A retreat with an AllocateMdlHandler gets memory and MDL from it; the advance gives them to the NetFreeMdl function."
    );
    clean(|| {
        let sample = Sample::new();
        let (allocate, free) = (net_allocate_mdl as *const () as usize, net_free_mdl as *const () as usize);
        let status = call_ddi!(
            "NdisRetreatNetBufferListDataStart",
            fn(Nbl, u32, u32, usize, usize) -> NdisStatus,
            sample.list,
            8,
            0,
            allocate,
            free
        );
        assert_eq!(status, NdisStatus::SUCCESS);
        call_ddi!("NdisAdvanceNetBufferListDataStart", fn(Nbl, u32, u8, usize), sample.list, 8, 1, free);
        assert_eq!(HANDLED.get(), [0, 0, 1]);
        assert_eq!(space(sample.buffer()), (5, 25, 5));
        sample.free();
    });
}

#[test]
fn the_current_mdl_follows_from_the_offset() {
    conforms!(
        "nblapi/nf-nblapi-ndisadjustnetbuffercurrentmdl.md",
        "CurrentMdl and CurrentMdlOffset are computed from DataOffset."
    );
    clean(|| {
        let sample = Sample::new();
        field!(sample.buffer(), NET_BUFFER, DataOffset).write(25);
        field!(sample.buffer(), NET_BUFFER, DataLength).write(5);
        call_ddi!("NdisAdjustNetBufferCurrentMdl", fn(Nb), sample.buffer());
        assert_eq!(space(sample.buffer()), (25, 5, 15));
        sample.free();
    });
}

#[test]
fn data_that_lie_together_are_not_copied() {
    conforms!(
        "nblapi/nf-nblapi-ndisgetdatabuffer.md",
        "Contiguous data are returned where they are; others go to Storage, or NULL is returned without one."
    );
    conforms!("nblapi/nf-nblapi-ndisgetdatabuffer.md", "More bytes than the buffer has give NULL.");
    clean(|| {
        let sample = Sample::new();
        let get = |needed: u32, storage: usize| {
            call_ddi!(
                "NdisGetDataBuffer",
                fn(Nb, u32, usize, u32, u32) -> usize,
                sample.buffer(),
                needed,
                storage,
                1,
                0
            )
        };
        let storage = memory(25);
        assert_eq!(get(5, storage), sample.pieces[0].0 + 5);
        assert_eq!(get(6, 0), 0);
        assert_eq!(get(6, storage), storage);
        assert_eq!(Raw::<u8>::at(storage).read_bytes(6), [5, 6, 7, 8, 9, 10]);
        assert_eq!(get(26, storage), 0);
        free_memory(storage);
        sample.free();
    });
}

#[test]
fn an_alignment_that_the_data_do_not_have_makes_a_copy() {
    conforms!("nblapi/nf-nblapi-ndisgetdatabuffer.md", "The address is a multiple of AlignMultiple plus AlignOffset.");
    clean(|| {
        let sample = Sample::new();
        let start = sample.pieces[0].0 + 5;
        let get = |offset: u32| {
            call_ddi!("NdisGetDataBuffer", fn(Nb, u32, usize, u32, u32) -> usize, sample.buffer(), 4, 0, 8, offset)
        };
        assert_eq!(get((start % 8) as u32), start);
        assert_eq!(get((start % 8) as u32 + 1), 0);
        sample.free();
    });
}

#[test]
fn a_copy_ends_with_the_data_or_the_room() {
    conforms!(
        "nblapi/nf-nblapi-ndiscopyfromnetbuffertonetbuffer.md",
        "Offsets count from the current data offsets; the copy ends where source data or destination room end, and says how much it was."
    );
    clean(|| {
        let (from, to) = (Sample::new(), Sample::new());
        let mut copied = 0_u32;
        let mut copy = |to_offset: u32, bytes: u32, from_offset: u32| {
            let status = call_ddi!(
                "NdisCopyFromNetBufferToNetBuffer",
                fn(Nb, u32, u32, Nb, u32, &mut u32) -> NdisStatus,
                to.buffer(),
                to_offset,
                bytes,
                from.buffer(),
                from_offset,
                &mut copied
            );
            assert_eq!(status, NdisStatus::SUCCESS);
            copied
        };
        assert_eq!(copy(0, 3, 20), 3);
        assert_eq!(copy(3, 100, 22), 3, "the source ends");
        assert_eq!(copy(24, 100, 0), 1, "the destination ends");
        assert_eq!(contents(to.buffer())[..7], [25, 26, 27, 27, 28, 29, 11]);
        from.free();
        to.free();
    });
}

#[test]
fn more_data_than_the_mdls_describe_are_found() {
    let rule = broken(|| {
        let sample = Sample::new();
        field!(sample.buffer(), NET_BUFFER, DataLength).write(26);
        contents(sample.buffer());
    });
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn out_of_band_information_is_copied_by_direction() {
    conforms!("nblapi/nf-nblapi-ndiscopysendnetbufferlistinfo.md", "The cancel identifier is copied on the way down.");
    conforms!("nblapi/nf-nblapi-ndiscopyreceivenetbufferlistinfo.md", "The hash value is copied on the way up.");
    clean(|| {
        let pool = list_pool(false, 0);
        let [source, down, up] = [0; 3].map(|_| list(pool, 0, 0));
        let info = |list, index| field!(list, NET_BUFFER_LIST, NetBufferListInfo).cast::<usize>().index(index);
        for index in [NetBufferListCancelId, NetBufferListHashValue, VirtualSubnetInfo] {
            info(source, index).write(index);
        }
        call_ddi!("NdisCopySendNetBufferListInfo", fn(Nbl, Nbl), down, source);
        call_ddi!("NdisCopyReceiveNetBufferListInfo", fn(Nbl, Nbl), up, source);
        let seen = |list| {
            [NetBufferListCancelId, NetBufferListHashValue, VirtualSubnetInfo].map(|index| info(list, index).read())
        };
        assert_eq!(seen(down), [5, 0, 20]);
        assert_eq!(seen(up), [0, 8, 20]);
        for list in [source, down, up] {
            free_list(list);
        }
        free_list_pool(pool);
    });
}

fn clone(original: Nbl, flags: u32) -> Nbl {
    call_ddi!("NdisAllocateCloneNetBufferList", fn(Nbl, usize, usize, u32) -> Nbl, original, 0, 0, flags)
}

fn free_clone(list: Nbl, flags: u32) {
    call_ddi!("NdisFreeCloneNetBufferList", fn(Nbl, u32), list, flags);
}

#[test]
fn a_clone_describes_the_used_data_of_its_original() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocateclonenetbufferlist.md",
        "A clone has buffers and MDLs of its own for the same bytes, from the start of the used data space, and no context."
    );
    conforms!(
        "docs:network/relationships-between-net-buffer-list-generations.md",
        "NDIS leaves the parent pointer NULL and the child count zero: they are the driver's to keep."
    );
    clean(|| {
        let sample = Sample::new();
        let made = clone(sample.list, 0);
        let buffer = first_buffer(made);
        assert_eq!(space(buffer), (0, 25, 0));
        assert_eq!(contents(buffer), contents(sample.buffer()));
        let structure = field!(made, NET_BUFFER_LIST, Context).read();
        assert!(structure.is_null() && field!(made, NET_BUFFER_LIST, ParentNetBufferList).read().is_null());
        free_clone(made, 0);
        sample.free();
    });
}

#[test]
fn a_clone_can_share_the_mdls() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocateclonenetbufferlist.md",
        "With NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS the clone has the MDL chain of the original."
    );
    clean(|| {
        let sample = Sample::new();
        let made = clone(sample.list, NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS);
        assert_eq!(first_buffer(made).read().MdlChain, sample.pieces[0].1.pointer());
        assert_eq!(contents(first_buffer(made)), contents(sample.buffer()));
        free_clone(made, NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS);
        sample.free();
    });
}

#[test]
fn a_clone_is_freed_with_the_flags_of_its_allocation() {
    conforms!("nblapi/nf-nblapi-ndisfreeclonenetbufferlist.md", "FreeCloneFlags are the flags of the allocation.");
    let wrong = broken(|| free_clone(clone(Sample::new().list, 0), NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS));
    assert_eq!(wrong, Rule::BadArgument);
    assert_eq!(broken(|| free_list(clone(Sample::new().list, 0))), Rule::BadPoolFree);
}

#[test]
fn fragments_have_at_most_the_length_that_was_asked_for() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatefragmentnetbufferlist.md",
        "The data after StartOffset are divided into buffers of at most MaximumLength, each retreated by DataOffsetDelta."
    );
    conforms!(
        "nblapi/nf-nblapi-ndisallocatereassemblednetbufferlist.md",
        "What is left of each buffer after StartOffset is joined in one buffer."
    );
    clean(|| {
        let sample = Sample::new();
        let fragments = call_ddi!(
            "NdisAllocateFragmentNetBufferList",
            fn(Nbl, usize, usize, u32, u32, u32, u32, u32) -> Nbl,
            sample.list,
            0,
            0,
            2,
            10,
            4,
            0,
            0
        );
        let mut lengths = Vec::new();
        let mut next = first_buffer(fragments);
        while !next.is_null() {
            lengths.push(next.read().DataLength);
            next = Raw::of(next.read().Next);
        }
        assert_eq!(lengths, [14, 14, 7]);
        assert_eq!(contents(first_buffer(fragments))[4..], (7..17).collect::<Vec<u8>>());
        let whole = call_ddi!(
            "NdisAllocateReassembledNetBufferList",
            fn(Nbl, usize, u32, u32, u32, u32) -> Nbl,
            fragments,
            0,
            4,
            6,
            2,
            0
        );
        assert_eq!(space(first_buffer(whole)), (2, 29, 2));
        assert_eq!(contents(first_buffer(whole))[6..], (7..30).collect::<Vec<u8>>());
        call_ddi!("NdisFreeReassembledNetBufferList", fn(Nbl, u32, u32), whole, 6, 0);
        call_ddi!("NdisFreeFragmentNetBufferList", fn(Nbl, u32, u32), fragments, 4, 0);
        sample.free();
    });
}

#[test]
fn fragments_are_freed_with_the_delta_of_their_allocation() {
    conforms!("nblapi/nf-nblapi-ndisfreefragmentnetbufferlist.md", "DataOffsetDelta is that of the allocation.");
    let rule = broken(|| {
        let fragments = call_ddi!(
            "NdisAllocateFragmentNetBufferList",
            fn(Nbl, usize, usize, u32, u32, u32, u32, u32) -> Nbl,
            Sample::new().list,
            0,
            0,
            0,
            100,
            4,
            0,
            0
        );
        call_ddi!("NdisFreeFragmentNetBufferList", fn(Nbl, u32, u32), fragments, 0, 0);
    });
    assert_eq!(rule, Rule::BadArgument);
}
