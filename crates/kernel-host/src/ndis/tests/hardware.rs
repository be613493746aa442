//! Shared memory, and adapters without hardware.

use super::objects::adapter;
use super::*;

fn shared_memory(handle: usize, length: u32) -> (usize, u64) {
    let (mut address, mut physical) = (1, 0);
    call_ddi!(
        "NdisMAllocateSharedMemory",
        fn(usize, u32, u8, &mut usize, &mut u64),
        handle,
        length,
        1,
        &mut address,
        &mut physical
    );
    (address, physical)
}

fn free_shared_memory(handle: usize, length: u32, memory: (usize, u64)) {
    let name = "NdisMFreeSharedMemory";
    assert_eq!(export(name).max_irql, 2);
    call_ddi!("NdisMFreeSharedMemory", fn(usize, u32, u8, usize, u64), handle, length, 1, memory.0, memory.1);
}

#[test]
fn shared_memory_is_allocated_by_the_initialisation_and_freed_as_it_was_allocated() {
    conforms!(
        "ndis/nf-ndis-ndismallocatesharedmemory.md",
        "Virtual and physical address of the block are written; only MiniportInitializeEx may allocate."
    );
    conforms!("ndis/nf-ndis-ndismfreesharedmemory.md", "The parameters must match exactly those of the allocation.");
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        let memory = shared_memory(handle, 10_000);
        assert!(memory.0 != 0 && memory.1 != 0);
        Raw::<u8>::at(memory.0).fill(7, 10_000);
        free_shared_memory(handle, 10_000, memory);
        let other = shared_memory(handle, 100);
        free_shared_memory(handle, 99, other);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(nic.add()), Rule::BadArgument);
}

#[test]
fn shared_memory_outside_of_the_initialisation_is_found() {
    conforms!("ndis/nf-ndis-ndismallocatesharedmemory.md", "The call is legal only from MiniportInitializeEx.");
    let (nic, _adapter, handle) = adapter();
    assert_eq!(nic.bench.run(|| shared_memory(handle, 100)).unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn an_adapter_without_hardware_has_none_to_claim() {
    conforms!(
        "ndis/nf-ndis-ndismmapiospace.md",
        "When the range is not in I/O space, NDIS_STATUS_FAILURE is returned and VirtualAddress is NULL."
    );
    conforms!("ndis/nf-ndis-ndismgetbusdata.md", "The number of bytes that were read is returned.");
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        let mut address = 1_usize;
        let map = call_ddi!(
            "NdisMMapIoSpace",
            fn(&mut usize, usize, u64, u32) -> NdisStatus,
            &mut address,
            handle,
            0xFEB0_0000,
            4096
        );
        assert_eq!((map, address), (NdisStatus::FAILURE, 0));
        let mut interrupt = 1_usize;
        let register = call_ddi!(
            "NdisMRegisterInterruptEx",
            fn(usize, usize, usize, &mut usize) -> NdisStatus,
            handle,
            0,
            0,
            &mut interrupt
        );
        assert_eq!((register, interrupt), (NdisStatus::RESOURCE_CONFLICT, 0));
        let read = call_ddi!("NdisMGetBusData", fn(usize, u32, u32, usize, u32) -> u32, handle, 0, 0, 0, 4);
        assert_eq!(read, 0);
        NdisStatus::SUCCESS
    });
    nic.add().unwrap();
}

#[test]
fn hardware_is_claimed_after_the_attributes() {
    conforms!(
        "ndis/nc-ndis-miniport_initialize.md",
        "NdisMSetMiniportAttributes comes before any call that claims hardware."
    );
    let nic = Nic::new();
    script().sets_attributes.set(false);
    nic.on_initialize(|handle| {
        let mut address = 1_usize;
        call_ddi!(
            "NdisMMapIoSpace",
            fn(&mut usize, usize, u64, u32) -> NdisStatus,
            &mut address,
            handle,
            0xFEB0_0000,
            4096
        )
    });
    assert_eq!(rule(nic.add()), Rule::BadState);
}
