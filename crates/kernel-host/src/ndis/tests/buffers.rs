//! Pools, lists, net buffers and MDLs: who allocates and frees what.

use nt_types::MDL;

use super::*;

pub(super) type Nbl = Raw<NET_BUFFER_LIST>;
pub(super) type Nb = Raw<NET_BUFFER>;

/// Parameters of a pool of lists: with a buffer, and with data.
pub(super) fn list_pool_parameters(with_buffer: bool, data: u32) -> NET_BUFFER_LIST_POOL_PARAMETERS {
    NET_BUFFER_LIST_POOL_PARAMETERS {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 16),
        ProtocolId: 6,
        fAllocateNetBuffer: u8::from(with_buffer),
        ContextSize: 0,
        PoolTag: u32::from_le_bytes(*b"tsTT"),
        DataSize: data,
    }
}

fn allocate_list_pool(parameters: &NET_BUFFER_LIST_POOL_PARAMETERS) -> usize {
    call_ddi!("NdisAllocateNetBufferListPool", fn(usize, &NET_BUFFER_LIST_POOL_PARAMETERS) -> usize, 0, parameters)
}

pub(super) fn list_pool(with_buffer: bool, data: u32) -> usize {
    let pool = allocate_list_pool(&list_pool_parameters(with_buffer, data));
    assert_ne!(pool, 0);
    pool
}

pub(super) fn free_list_pool(pool: usize) {
    call_ddi!("NdisFreeNetBufferListPool", fn(usize), pool);
}

pub(super) fn buffer_pool(data: u32) -> usize {
    let parameters = NET_BUFFER_POOL_PARAMETERS {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 12),
        PoolTag: u32::from_le_bytes(*b"tsTB"),
        DataSize: data,
    };
    call_ddi!("NdisAllocateNetBufferPool", fn(usize, &NET_BUFFER_POOL_PARAMETERS) -> usize, 0, &parameters)
}

pub(super) fn list(pool: usize, size: u16, back_fill: u16) -> Nbl {
    call_ddi!("NdisAllocateNetBufferList", fn(usize, u16, u16) -> Nbl, pool, size, back_fill)
}

pub(super) fn list_over(pool: usize, chain: Raw<MDL>, offset: u32, length: u64) -> Nbl {
    call_ddi!(
        "NdisAllocateNetBufferAndNetBufferList",
        fn(usize, u16, u16, Raw<MDL>, u32, u64) -> Nbl,
        pool,
        0,
        0,
        chain,
        offset,
        length
    )
}

pub(super) fn free_list(list: Nbl) {
    call_ddi!("NdisFreeNetBufferList", fn(Nbl), list);
}

pub(super) fn memory(length: u32) -> usize {
    call_ddi!("NdisAllocateMemoryWithTagPriority", fn(usize, u32, u32, u32) -> usize, REGISTERED.get(), length, 0x31, 0)
}

pub(super) fn free_memory(address: usize) {
    call_ddi!("NdisFreeMemory", fn(usize, u32, u32), address, 0, 0);
}

pub(super) fn mdl(address: usize, length: u32) -> Raw<MDL> {
    call_ddi!("NdisAllocateMdl", fn(usize, usize, u32) -> Raw<MDL>, REGISTERED.get(), address, length)
}

pub(super) fn free_mdl(list: Raw<MDL>) {
    call_ddi!("NdisFreeMdl", fn(Raw<MDL>), list);
}

pub(super) fn first_buffer(list: Nbl) -> Nb {
    Raw::of(field!(list, NET_BUFFER_LIST, FirstNetBuffer).read())
}

/// How many lists a chain has.
pub(super) fn chain_length(first: usize) -> usize {
    let next = |list: &Nbl| Raw::of(field!(*list, NET_BUFFER_LIST, Next).read()).some();
    std::iter::successors(Nbl::at(first).some(), next).count()
}

/// The rule that driver code breaks.
pub(super) fn broken(body: impl FnOnce()) -> Rule {
    Nic::new().bench.run(body).unwrap_err().0.rule
}

/// Runs driver code that must leave nothing behind.
pub(super) fn clean(body: impl FnOnce()) {
    let nic = Nic::new();
    let before = nic.bench.machine().inner().nt.pool().usage();
    nic.bench.run(body).unwrap();
    assert_eq!(nic.leaks(), 1, "only the registration of the miniport is left");
    assert_eq!(nic.bench.machine().inner().nt.pool().usage(), before);
}

#[test]
fn a_pool_with_buffers_gives_lists_that_have_one() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferlistpool.md",
        "With fAllocateNetBuffer each list of the pool comes with a net buffer, which is freed with the list."
    );
    conforms!(
        "nblapi/nf-nblapi-ndisgetpoolfromnetbufferlist.md",
        "NdisGetPoolFromNetBufferList returns the pool that a list came from."
    );
    clean(|| {
        let pool = list_pool(true, 0);
        let list = list(pool, 0, 0);
        let buffer = first_buffer(list).read();
        assert!(buffer.MdlChain.is_null() && buffer.DataLength == 0);
        assert_eq!(call_ddi!("NdisGetPoolFromNetBufferList", fn(Nbl) -> usize, list), pool);
        assert_eq!(call_ddi!("NdisGetNetBufferListProtocolId", fn(Nbl) -> u8, list), 6);
        free_list(list);
        free_list_pool(pool);
    });
}

#[test]
fn a_pool_without_buffers_gives_empty_lists() {
    conforms!(
        "nblapi/ns-nblapi-net_buffer_list_pool_parameters.md",
        "With fAllocateNetBuffer FALSE the lists of a pool have no net buffers."
    );
    clean(|| {
        let pool = list_pool(false, 0);
        let list = list(pool, 0, 0);
        assert!(first_buffer(list).is_null());
        free_list(list);
        free_list_pool(pool);
    });
}

#[test]
fn a_pool_with_data_gives_buffers_with_data() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferlistpool.md",
        "With a DataSize each list comes with a buffer, an MDL and data of that size."
    );
    clean(|| {
        let pool = list_pool(true, 1514);
        let list = list(pool, 0, 0);
        let buffer = first_buffer(list).read();
        let described = Raw::of(buffer.MdlChain).read();
        assert_eq!((buffer.DataLength, described.ByteCount), (1514, 1514));
        Raw::<u8>::at(described.MappedSystemVa.addr()).fill(7, 1514);
        free_list(list);
        free_list_pool(pool);
    });
}

#[test]
fn a_write_behind_the_data_of_a_buffer_is_found() {
    let rule = broken(|| {
        let list = list(list_pool(true, 100), 0, 0);
        let described = Raw::of(first_buffer(list).read().MdlChain).read();
        Raw::<u8>::at(described.MappedSystemVa.addr() + 100).write(1);
        free_list(list);
    });
    assert_eq!(rule, Rule::PoolCorruption);
}

#[test]
fn a_data_size_needs_a_buffer() {
    conforms!(
        "nblapi/ns-nblapi-net_buffer_list_pool_parameters.md",
        "A DataSize other than zero needs fAllocateNetBuffer."
    );
    assert_eq!(broken(|| _ = list_pool(false, 8)), Rule::BadArgument);
}

#[test]
fn the_context_size_of_a_pool_is_aligned() {
    conforms!(
        "nblapi/ns-nblapi-net_buffer_list_pool_parameters.md",
        "ContextSize is a multiple of MEMORY_ALLOCATION_ALIGNMENT, which is 16."
    );
    let mut parameters = list_pool_parameters(false, 0);
    parameters.ContextSize = 8;
    assert_eq!(broken(move || _ = allocate_list_pool(&parameters)), Rule::BadArgument);
}

#[test]
fn the_parameters_of_a_pool_have_their_header() {
    conforms!(
        "nblapi/ns-nblapi-net_buffer_list_pool_parameters.md",
        "The header of pool parameters has type DEFAULT and the size of its revision."
    );
    let mut parameters = list_pool_parameters(false, 0);
    parameters.Header.Size = 12;
    assert_eq!(broken(move || _ = allocate_list_pool(&parameters)), Rule::BadArgument);
}

#[test]
fn a_pool_with_lists_left_is_not_freed() {
    conforms!("nblapi/nf-nblapi-ndisfreenetbufferlistpool.md", "All lists of a pool are freed before the pool.");
    let rule = broken(|| {
        let pool = list_pool(true, 0);
        assert!(!list(pool, 0, 0).is_null());
        free_list_pool(pool);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn a_pool_is_freed_by_the_function_of_its_kind() {
    conforms!(
        "nblapi/nf-nblapi-ndisfreenetbufferpool.md",
        "NdisFreeNetBufferPool frees pools of NdisAllocateNetBufferPool."
    );
    let rule = broken(|| {
        let pool = list_pool(true, 0);
        call_ddi!("NdisFreeNetBufferPool", fn(usize), pool);
    });
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn a_list_freed_twice_is_found() {
    conforms!("nblapi/nf-nblapi-ndisfreenetbufferlist.md", "What is freed was allocated from a pool, and once.");
    let rule = broken(|| {
        let list = list(list_pool(true, 0), 0, 0);
        free_list(list);
        free_list(list);
    });
    assert_eq!(rule, Rule::BadPoolFree);
}

#[test]
fn a_list_with_the_handle_of_another_pool_is_found() {
    conforms!("nbl/ns-nbl-net_buffer_list.md", "NdisPoolHandle identifies the pool that the list was allocated from.");
    let rule = broken(|| {
        let list = list(list_pool(true, 0), 0, 0);
        field!(list, NET_BUFFER_LIST, NdisPoolHandle).write(Raw::at(list_pool(true, 0)).pointer());
        free_list(list);
    });
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn a_list_is_not_freed_as_pool_memory() {
    let rule = broken(|| {
        let list = list(list_pool(true, 0), 0, 0);
        free_memory(list.address());
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn what_is_not_freed_is_reported_with_its_tag() {
    use crate::leak::{LeakKind, LeakSource};
    let nic = Nic::new();
    nic.bench.run(|| _ = list(list_pool(true, 0), 0, 0)).unwrap();
    let inner = nic.bench.machine().inner();
    let structures = inner.nt.pool().leaks(nic.bench.driver());
    assert!(structures.iter().all(|leak| leak.kind == LeakKind::Pool && leak.detail.contains("tag tsTT")));
    assert_eq!(structures.iter().map(|leak| leak.count).sum::<u64>(), 2, "a list and its buffer");
    let pools = inner.ndis.leaks(nic.bench.driver());
    assert!(pools.iter().any(|leak| leak.detail.contains("NdisAllocateNetBufferListPool, tag tsTT")));
}

#[test]
fn only_a_pool_of_plain_buffers_gives_a_list_for_a_chain() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferandnetbufferlist.md",
        "The pool must have been made with fAllocateNetBuffer and a DataSize of zero."
    );
    assert_eq!(broken(|| _ = list_over(list_pool(false, 0), Raw::NULL, 0, 0)), Rule::BadArgument);
    assert_eq!(broken(|| _ = list_over(list_pool(true, 64), Raw::NULL, 0, 0)), Rule::BadArgument);
}

#[test]
fn data_need_an_mdl() {
    conforms!("nblapi/nf-nblapi-ndisallocatenetbuffer.md", "Without an MDL chain DataOffset and DataLength are 0.");
    assert_eq!(broken(|| _ = list_over(list_pool(true, 0), Raw::NULL, 0, 5)), Rule::BadArgument);
}

#[test]
fn a_buffer_has_its_own_pool_and_free() {
    conforms!(
        "nblapi/nf-nblapi-ndisgetpoolfromnetbuffer.md",
        "NdisGetPoolFromNetBuffer returns the pool that a buffer came from."
    );
    clean(|| {
        let pool = buffer_pool(0);
        let (data, length) = (memory(100), 100);
        let chain = mdl(data, length);
        let allocated = call_ddi!("NdisAllocateNetBuffer", fn(usize, Raw<MDL>, u32, u64) -> Nb, pool, chain, 14, 50);
        let buffer = allocated.read();
        assert_eq!((buffer.CurrentMdl, buffer.CurrentMdlOffset), (chain.pointer(), 14));
        assert_eq!(call_ddi!("NdisGetPoolFromNetBuffer", fn(Nb) -> usize, allocated), pool);
        call_ddi!("NdisFreeNetBuffer", fn(Nb), allocated);
        call_ddi!("NdisFreeNetBufferPool", fn(usize), pool);
        free_mdl(chain);
        free_memory(data);
    });
}

#[test]
fn a_pool_of_data_gives_buffers_with_data_only() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbuffermdlanddata.md",
        "A pool of buffers with data gives them through NdisAllocateNetBufferMdlAndData, not through NdisAllocateNetBuffer."
    );
    clean(|| {
        let pool = buffer_pool(60);
        let buffer = call_ddi!("NdisAllocateNetBufferMdlAndData", fn(usize) -> Nb, pool);
        assert_eq!(buffer.read().DataLength, 60);
        call_ddi!("NdisFreeNetBuffer", fn(Nb), buffer);
        call_ddi!("NdisFreeNetBufferPool", fn(usize), pool);
    });
    let plain = broken(|| {
        let pool = buffer_pool(60);
        call_ddi!("NdisAllocateNetBuffer", fn(usize, Raw<MDL>, u32, u64) -> Nb, pool, Raw::NULL, 0, 0);
    });
    assert_eq!(plain, Rule::BadArgument);
}

#[test]
fn a_buffer_that_came_with_its_list_goes_with_it() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferlistpool.md",
        "A buffer that came with its list is not freed on its own."
    );
    let rule = broken(|| {
        let list = list(list_pool(true, 0), 0, 0);
        call_ddi!("NdisFreeNetBuffer", fn(Nb), first_buffer(list));
    });
    assert_eq!(rule, Rule::BadPoolFree);
}

#[test]
fn a_list_comes_with_its_context_space() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferlist.md",
        "ContextSize bytes of context space are used at once, ContextBackFill bytes before them are free."
    );
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferlistcontext.md",
        "Free context space is used by lowering Offset; without enough, memory is allocated."
    );
    clean(|| {
        let pool = list_pool(false, 0);
        let list = list(pool, 32, 16);
        let context = || Raw::of(field!(list, NET_BUFFER_LIST, Context).read());
        let first = context();
        assert_eq!((first.read().Size, first.read().Offset), (48, 16));
        assert_eq!(allocate_context(list, 16, 0), NdisStatus::SUCCESS);
        assert_eq!(first.read().Offset, 0);
        assert_eq!(allocate_context(list, 8, 24), NdisStatus::SUCCESS);
        assert_ne!(context(), first);
        assert_eq!((context().read().Size, context().read().Offset), (32, 24));
        free_context(list, 8);
        assert_eq!(context(), first, "a block with nothing left in it is freed");
        free_context(list, 16);
        assert_eq!(first.read().Offset, 16);
        free_list(list);
        free_list_pool(pool);
    });
}

fn allocate_context(list: Nbl, size: u16, back_fill: u16) -> NdisStatus {
    call_ddi!(
        "NdisAllocateNetBufferListContext",
        fn(Nbl, u16, u16, u32) -> NdisStatus,
        list,
        size,
        back_fill,
        0x3232_3232
    )
}

fn free_context(list: Nbl, size: u16) {
    call_ddi!("NdisFreeNetBufferListContext", fn(Nbl, u16), list, size);
}

#[test]
fn context_space_that_was_added_is_freed_before_the_list() {
    conforms!(
        "nblapi/nf-nblapi-ndisfreenetbufferlist.md",
        "Context space of NdisAllocateNetBufferListContext is freed before the list."
    );
    let rule = broken(|| {
        let list = list(list_pool(false, 0), 0, 0);
        assert_eq!(allocate_context(list, 16, 0), NdisStatus::SUCCESS);
        free_list(list);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn context_space_that_came_with_the_list_stays() {
    conforms!(
        "nblapi/nf-nblapi-ndisfreenetbufferlist.md",
        "Context space that came with the list is not freed separately."
    );
    let rule = broken(|| free_context(list(list_pool(false, 0), 16, 0), 16));
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn context_sizes_are_aligned() {
    conforms!(
        "nblapi/nf-nblapi-ndisallocatenetbufferlist.md",
        "ContextSize and ContextBackFill are multiples of MEMORY_ALLOCATION_ALIGNMENT."
    );
    assert_eq!(broken(|| _ = list(list_pool(false, 0), 8, 0)), Rule::BadArgument);
    assert_eq!(broken(|| _ = list(list_pool(false, 0), 16, 8)), Rule::BadArgument);
}

#[test]
fn an_mdl_of_ndis_describes_its_memory_at_once() {
    conforms!("mdlapi/nf-mdlapi-ndisallocatemdl.md", "NdisAllocateMdl allocates and builds the MDL in one step.");
    clean(|| {
        let data = memory(5000);
        let list = mdl(data, 5000);
        assert_eq!((list.read().ByteCount, list.read().MappedSystemVa.addr()), (5000, data));
        free_mdl(list);
        free_memory(data);
    });
}

#[test]
fn an_mdl_of_ndis_is_for_non_paged_pool() {
    conforms!(
        "mdlapi/nf-mdlapi-ndisallocatemdl.md",
        "Only non-paged pool is described: not the stack, paged pool or global data."
    );
    let local = [0_u8; 16];
    let address = local.as_ptr().expose_provenance();
    assert_eq!(broken(move || _ = mdl(address, 16)), Rule::BadArgument);
}

#[test]
fn an_mdl_freed_twice_or_never_allocated_is_found() {
    conforms!("mdlapi/nf-mdlapi-ndisfreemdl.md", "NdisFreeMdl frees MDLs of NdisAllocateMdl.");
    let twice = broken(|| {
        let list = mdl(memory(8), 8);
        free_mdl(list);
        free_mdl(list);
    });
    assert_eq!(twice, Rule::BadPoolFree);
    assert_eq!(broken(|| free_mdl(Raw::at(memory(64)))), Rule::BadPoolFree);
}
