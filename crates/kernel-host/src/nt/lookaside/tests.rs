//! One test per documented rule of lookaside lists.

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::thread::Thread;

const TAG: u32 = u32::from_le_bytes(*b"Look");
const NON_PAGED_NX: i32 = 512;

#[repr(align(16))]
struct Memory([u8; 128]);

fn run(body: impl FnOnce(Raw<u8>)) -> Result<(), crate::finding::Stopped> {
    let bench = Bench::new();
    let mut memory = Memory([0xEE; 128]);
    let list = Raw::of(memory.0.as_mut_ptr());
    bench.run(|| body(list))?;
    let nt = &bench.machine().inner().nt;
    assert_eq!((nt.pool().leaks(bench.driver()), nt.lookaside().leaks(bench.driver())), (vec![], vec![]));
    Ok(())
}

fn broken(body: impl FnOnce(Raw<u8>)) -> crate::finding::Finding {
    *run(body).expect_err("a rule is broken").0
}

#[test]
fn a_nonpaged_list_allocates_entries_of_its_size() {
    conforms!(
        "wdm/nf-wdm-exinitializenpagedlookasidelist.md",
        "Without routines of the caller, entries come from the pool with the list's size and tag."
    );
    conforms!("wdm/nf-wdm-exdeletenpagedlookasidelist.md", "Deleting the list leaves its memory to the caller.");
    run(|list| {
        initialize_npaged(list, 0, 0, 0, 100, TAG, 0);
        let entry = allocate(list);
        Raw::<u8>::at(entry).fill(1, 100);
        free(list, entry);
        delete_npaged(list);
        list.fill(0, LENGTH);
    })
    .unwrap();
}

#[test]
fn the_structure_leads_inlined_code_to_the_same_routines() {
    type Allocate = unsafe extern "efiapi" fn(i32, usize, u32) -> usize;
    type Free = unsafe extern "efiapi" fn(usize);
    run(|list| {
        initialize_npaged(list, 0, 0, NX, 64, TAG, 0);
        let allocate = list.field::<usize>(at::ALLOCATE).read();
        // SAFETY: the list was just given this routine.
        let allocate = unsafe { std::mem::transmute::<usize, Allocate>(allocate) };
        // SAFETY: as the headers' inline code does.
        let entry = unsafe { allocate(list.field::<i32>(at::TYPE).read(), 64, TAG) };
        assert_ne!(entry, 0);
        let free = list.field::<usize>(at::FREE).read();
        // SAFETY: as above.
        let free = unsafe { std::mem::transmute::<usize, Free>(free) };
        // SAFETY: as above.
        unsafe { free(entry) };
        delete_npaged(list);
    })
    .unwrap();
}

extern "efiapi" fn own_allocate(_pool_type: i32, length: usize, _tag: u32, list: Raw<u8>) -> usize {
    list.field::<usize>(96).write(length);
    list.address() + 112
}

extern "efiapi" fn own_free(_entry: usize, list: Raw<u8>) {
    list.field::<usize>(104).write(1);
}

#[test]
fn routines_of_the_caller_get_the_list() {
    conforms!(
        "wdm/nf-wdm-exinitializelookasidelistex.md",
        "The caller's allocate and free routines receive the list they are called for."
    );
    conforms!(
        "wdm/nf-wdm-exallocatefromlookasidelistex.md",
        "An empty list gets a new entry from the caller's allocate routine."
    );
    run(|list| {
        let (allocate, free) = (own_allocate as *const () as usize, own_free as *const () as usize);
        assert_eq!(initialize_ex(list, allocate, free, NON_PAGED_NX, 0, 40, TAG, 0), NtStatus::SUCCESS);
        let entry = allocate_ex(list);
        assert_eq!((entry, list.field::<usize>(96).read()), (list.address() + 112, 40));
        free_ex(list, entry);
        assert_eq!(list.field::<usize>(104).read(), 1);
        delete_ex(list);
    })
    .unwrap();
}

#[test]
fn invalid_pool_types_and_flags_have_their_own_statuses() {
    conforms!(
        "wdm/nf-wdm-exinitializelookasidelistex.md",
        "A pool type that is not valid gives STATUS_INVALID_PARAMETER_4."
    );
    conforms!(
        "wdm/nf-wdm-exinitializelookasidelistex.md",
        "Flags that are not valid, or both at once, give STATUS_INVALID_PARAMETER_5."
    );
    run(|list| {
        assert_eq!(initialize_ex(list, 0, 0, 0x4000, 0, 40, TAG, 0), NtStatus::INVALID_PARAMETER_4);
        assert_eq!(initialize_ex(list, 0, 0, NON_PAGED_NX, 4, 40, TAG, 0), NtStatus::INVALID_PARAMETER_5);
        assert_eq!(initialize_ex(list, 0, 0, NON_PAGED_NX, 3, 40, TAG, 0), NtStatus::INVALID_PARAMETER_5);
    })
    .unwrap();
}

#[test]
fn deleting_a_list_with_entries_in_use_is_found() {
    let finding = broken(|list| {
        initialize_paged(list, 0, 0, 0, 40, TAG, 0);
        allocate(list);
        delete_paged(list);
    });
    assert_eq!(finding.rule, Rule::BadState);
    assert!(finding.message.contains("1 of its entries"), "{}", finding.message);
}

#[test]
fn a_list_that_is_not_deleted_is_reported_at_unload() {
    conforms!("wdm/nf-wdm-exinitializelookasidelistex.md", "A driver deletes its lookaside lists before it unloads.");
    let bench = Bench::new();
    let mut memory = Memory([0; 128]);
    let list = Raw::of(memory.0.as_mut_ptr());
    bench.run(|| initialize_npaged(list, 0, 0, 0, 40, TAG, 0)).unwrap();
    let leaks = bench.machine().inner().nt.lookaside().leaks(bench.driver());
    assert_eq!(leaks[0].kind, LeakKind::Registration);
}

#[test]
fn freeing_the_memory_of_a_list_in_use_is_found() {
    let finding = broken(|_| {
        let call = Call::enter();
        let block = allocate_from_type(Call::enter(), NON_PAGED_NX, 4096, TAG);
        initialize_npaged(Raw::at(block), 0, 0, 0, 40, TAG, 0);
        call.machine().nt.pool().free(&call, block, 0);
    });
    assert!(finding.message.contains("was not deleted"), "{}", finding.message);
}

#[test]
fn a_paged_list_is_not_used_at_dispatch_level_and_lists_are_not_mixed() {
    let finding = broken(|list| {
        initialize_paged(list, 0, 0, 0, 40, TAG, 0);
        Thread::current().set_irql(2);
        allocate(list);
    });
    assert_eq!(finding.rule, Rule::IrqlTooHigh);
    let finding = broken(|list| {
        initialize_paged(list, 0, 0, 0, 40, TAG, 0);
        delete_npaged(list);
    });
    assert_eq!(finding.rule, Rule::BadArgument);
    let finding = broken(|list| _ = allocate(list));
    assert_eq!(finding.rule, Rule::BadState, "it was never initialised");
}

#[test]
fn an_entry_freed_twice_is_found() {
    let finding = broken(|list| {
        initialize_npaged(list, 0, 0, 0, 40, TAG, 0);
        let entry = allocate(list);
        free(list, entry);
        free(list, entry);
    });
    assert_eq!(finding.rule, Rule::BadPoolFree);
}
