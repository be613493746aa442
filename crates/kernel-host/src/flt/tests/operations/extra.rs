//! Extra create parameters: lists, their contexts, and how they travel with a create.

use super::*;
use crate::conformance::conforms;

const CREATE: u8 = 0;
const READ: u8 = 3;

const TYPE: [u8; 16] = *b"one type of ECP.";
const OTHER: [u8; 16] = *b"another type....";

/// Contexts that the cleanup callback was told of.
static CLEANED: Mutex<Vec<(usize, [u8; 16])>> = Mutex::new(Vec::new());

unsafe extern "efiapi" fn cleanup(context: PVOID, kind: *const [u8; 16]) {
    let kind = Raw::of(kind.cast_mut()).read();
    CLEANED.lock().unwrap_or_else(PoisonError::into_inner).push((context.addr(), kind));
}

fn is_cleaned(context: usize) -> bool {
    CLEANED.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(known, _)| *known == context)
}

fn guid(kind: &[u8; 16]) -> usize {
    kind.as_ptr().expose_provenance()
}

/// FltAllocateExtraCreateParameter of 8 bytes, with a cleanup callback.
fn allocate(filter: usize, kind: &[u8; 16]) -> usize {
    let routine: unsafe extern "efiapi" fn(PVOID, *const [u8; 16]) = cleanup;
    let call = ddi!(FltAllocateExtraCreateParameter: fn(usize, usize, u32, u32, usize, u32, usize) -> NtStatus);
    let tag = u32::from_le_bytes(*b"Test");
    let (status, context) = with_out(|out| call(filter, guid(kind), 8, 0, routine as usize, tag, out));
    assert_eq!(status, NtStatus::SUCCESS);
    context
}

fn allocate_list(filter: usize) -> usize {
    let call = ddi!(FltAllocateExtraCreateParameterList: fn(usize, u32, usize) -> NtStatus);
    let (status, list) = with_out(|out| call(filter, 0, out));
    assert_eq!(status, NtStatus::SUCCESS);
    list
}

fn insert(filter: usize, list: usize, context: usize) -> NtStatus {
    ddi!(FltInsertExtraCreateParameter: fn(usize, usize, usize) -> NtStatus)(filter, list, context)
}

/// FltFindExtraCreateParameter: status and context.
fn find(filter: usize, list: usize, kind: &[u8; 16]) -> (NtStatus, usize) {
    let call = ddi!(FltFindExtraCreateParameter: fn(usize, usize, usize, usize, usize) -> NtStatus);
    with_out(|out| call(filter, list, guid(kind), out, 0))
}

/// FltGetEcpListFromCallbackData: status and list.
fn list_of(filter: usize, op: &Op) -> (NtStatus, usize) {
    let call = ddi!(FltGetEcpListFromCallbackData: fn(usize, usize, usize) -> NtStatus);
    with_out(|out| call(filter, op.data.address(), out))
}

fn attach(filter: usize, op: &Op, list: usize) -> NtStatus {
    ddi!(FltSetEcpListIntoCallbackData: fn(usize, usize, usize) -> NtStatus)(filter, op.data.address(), list)
}

#[test]
fn a_list_has_one_context_of_each_type_in_order() {
    conforms!(
        "fltkernel/nf-fltkernel-fltinsertextracreateparameter.md",
        "A second context of the same type is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltfindextracreateparameter.md",
        "STATUS_NOT_FOUND and NULL for a type that is not in the list."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetnextextracreateparameter.md",
        "From NULL the first, from each the next; STATUS_NOT_FOUND and NULL behind the last."
    );
    conforms!("fltkernel/nf-fltkernel-fltgetnextextracreateparameter.md", "A NULL list is STATUS_INVALID_PARAMETER.");
    conforms!(
        "fltkernel/nf-fltkernel-fltfreeextracreateparameterlist.md",
        "The contexts in the list are freed with it."
    );
    let rig = Rig::new(&[]);
    let filter = rig.filter;
    let contexts = rig
        .run(|| {
            let list = allocate_list(filter);
            let (one, other) = (allocate(filter, &TYPE), allocate(filter, &OTHER));
            assert_eq!(insert(filter, list, one), NtStatus::SUCCESS);
            assert_eq!(insert(filter, list, one), NtStatus::INVALID_PARAMETER);
            assert_eq!(find(filter, list, &OTHER), (NtStatus::NOT_FOUND, 0));
            assert_eq!(insert(filter, list, other), NtStatus::SUCCESS);
            assert_eq!(find(filter, list, &OTHER), (NtStatus::SUCCESS, other));
            let next = ddi!(FltGetNextExtraCreateParameter: fn(usize, usize, usize, usize, usize, usize) -> NtStatus);
            let after = |current| with_out(|out| next(filter, list, current, 0, out, 0));
            assert_eq!(after(0), (NtStatus::SUCCESS, one));
            assert_eq!(after(one), (NtStatus::SUCCESS, other));
            assert_eq!(after(other), (NtStatus::NOT_FOUND, 0));
            assert_eq!(next(filter, 0, 0, 0, 0, 0), NtStatus::INVALID_PARAMETER);
            ddi!(FltFreeExtraCreateParameterList: fn(usize, usize))(filter, list);
            [one, other]
        })
        .unwrap();
    assert!(contexts.into_iter().all(is_cleaned));
    assert_eq!(rig.setup.leaks().len(), 2, "filter and instance: {:?}", rig.setup.leaks());
}

#[test]
fn a_context_that_was_removed_is_freed_by_itself() {
    conforms!("fltkernel/nf-fltkernel-fltremoveextracreateparameter.md", "The context is detached, not freed.");
    conforms!(
        "fltkernel/nf-fltkernel-fltremoveextracreateparameter.md",
        "STATUS_NOT_FOUND for a type that is not in the list."
    );
    conforms!("fltkernel/nf-fltkernel-fltfreeextracreateparameter.md", "A context that is in a list cannot be freed.");
    conforms!(
        "ntifs/nc-ntifs-pfsrtl_extra_create_parameter_cleanup_callback.md",
        "The callback is called when the context is freed."
    );
    let rig = Rig::new(&[]);
    let filter = rig.filter;
    let free = ddi!(FltFreeExtraCreateParameter: fn(usize, usize));
    let remove = ddi!(FltRemoveExtraCreateParameter: fn(usize, usize, usize, usize, usize) -> NtStatus);
    let (list, context) = rig
        .run(|| {
            let (list, context) = (allocate_list(filter), allocate(filter, &TYPE));
            insert(filter, list, context).ok().unwrap();
            let take = || with_out(|out| remove(filter, list, guid(&TYPE), out, 0));
            assert_eq!(take(), (NtStatus::SUCCESS, context));
            assert_eq!(take(), (NtStatus::NOT_FOUND, 0));
            assert!(!is_cleaned(context));
            insert(filter, list, context).ok().unwrap();
            (list, context)
        })
        .unwrap();
    assert_eq!(rig.setup.leaks().len(), 2 + 2, "a list and a context: {:?}", rig.setup.leaks());
    assert_ne!(list, 0);
    assert_eq!(rig.run(|| free(filter, context)), Err(Rule::BadState));
    let rig = Rig::new(&[]);
    let filter = rig.filter;
    let context = rig.run(|| allocate(filter, &TYPE)).unwrap();
    rig.run(|| free(filter, context)).unwrap();
    assert!(is_cleaned(context));
    assert_eq!(rig.run(|| free(filter, context)), Err(Rule::BadArgument));
}

#[test]
fn what_a_filter_attaches_reaches_those_below_and_is_freed_with_the_create() {
    conforms!("fltkernel/nf-fltkernel-fltgetecplistfromcallbackdata.md", "Without a list STATUS_SUCCESS and NULL.");
    conforms!(
        "fltkernel/nf-fltkernel-fltsetecplistintocallbackdata.md",
        "A second list is STATUS_INVALID_PARAMETER_3."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltacknowledgeecp.md",
        "An acknowledged context is known as such, until it is reused."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltallocateextracreateparameter.md",
        "Contexts that are attached to a create on its way are freed at its end."
    );
    let rig = Rig::new(&[CREATE]);
    let (lower_filter, lower) = rig.add("Lower", "100000", &[CREATE]);
    let (filter, seen) = (rig.filter, log());
    let (down, below, up) = (Arc::clone(&seen), Arc::clone(&seen), Arc::clone(&seen));
    rig.pre(move |op| {
        assert_eq!(list_of(filter, op), (NtStatus::SUCCESS, 0));
        let (list, context) = (allocate_list(filter), allocate(filter, &TYPE));
        insert(filter, list, context).ok().unwrap();
        assert_eq!(attach(filter, op, list), NtStatus::SUCCESS);
        assert_eq!(attach(filter, op, list), NtStatus::INVALID_PARAMETER_3);
        push(&down, context);
        op.context.write(context);
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    Rig::pre_of(lower, move |op| {
        let (_, list) = list_of(lower_filter, op);
        let (status, context) = find(lower_filter, list, &TYPE);
        assert_eq!(status, NtStatus::SUCCESS);
        assert_eq!(ddi!(FltIsEcpFromUserMode: fn(usize, usize) -> u8)(lower_filter, context), 0);
        ddi!(FltAcknowledgeEcp: fn(usize, usize))(lower_filter, context);
        push(&below, context);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.post(move |op| {
        let is = ddi!(FltIsEcpAcknowledged: fn(usize, usize) -> u8);
        assert_eq!(is(filter, op.given), 1);
        ddi!(FltPrepareToReuseEcp: fn(usize, usize))(filter, op.given);
        assert_eq!(is(filter, op.given), 0);
        push(&up, op.given);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    let _file = rig.reader();
    let seen = take(&seen);
    assert!(seen.len() == 3 && seen.iter().all(|context| *context == seen[0] && is_cleaned(*context)), "{seen:?}");
    rig.assert_no_finding();
    let leaks = rig.setup.leaks();
    assert!(leaks.iter().all(|leak| !leak.contains("ECP")), "{leaks:?}");
}

#[test]
fn a_list_in_the_driver_context_stays_its_owner_s() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex2.md",
        "The ECP list of the driver context goes with the create, and is not freed by it."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltallocateextracreateparameterlist.md",
        "Contexts that others add to the list on its way are freed at the end of the create."
    );
    let rig = Rig::new(&[]);
    let (lower_filter, lower) = rig.add("Lower", "100000", &[CREATE]);
    let (filter, instance, seen) = (rig.filter, rig.instance, log());
    let below = Arc::clone(&seen);
    Rig::pre_of(lower, move |op| {
        let (_, list) = list_of(lower_filter, op);
        let mine = allocate(lower_filter, &OTHER);
        push(&below, (find(lower_filter, list, &TYPE).1, mine));
        assert_eq!(insert(lower_filter, list, mine), NtStatus::SUCCESS);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let (list, context) = rig.run(|| (allocate_list(filter), allocate(filter, &TYPE))).unwrap();
    rig.run(|| insert(filter, list, context)).unwrap().ok().unwrap();
    let text = wide(BOOT);
    let name = UNICODE_STRING::from_utf16(&text).unwrap();
    let attributes = OBJECT_ATTRIBUTES::new(&raw const name, ObjectFlags::KERNEL_HANDLE);
    let mut block = IO_STATUS_BLOCK::default();
    // IO_DRIVER_CREATE_CONTEXT: Size, ExtraCreateParameter, DeviceObjectHint, TxnParameters.
    let driver_context = [32_usize, list, 0, 0];
    let (attributes_at, block_at) = ((&raw const attributes).expose_provenance(), (&raw mut block).expose_provenance());
    let context_at = driver_context.as_ptr().expose_provenance();
    let create = ddi!(FltCreateFileEx2: fn(
        usize, usize, usize, usize, u32, usize, usize, usize, u32, u32, u32, u32, usize, u32, u32, usize
    ) -> NtStatus);
    let close = ddi!(FltClose: fn(usize) -> NtStatus);
    for _ in 0..2 {
        let (status, handle) = with_out(|handle| {
            rig.setup.call("FltCreateFileEx2", || {
                create(
                    filter,
                    instance,
                    handle,
                    0,
                    0x0012_0089,
                    attributes_at,
                    block_at,
                    0,
                    0x80,
                    7,
                    1,
                    0x60,
                    0,
                    0,
                    0,
                    context_at,
                )
            })
        });
        assert_eq!(status, Ok(NtStatus::SUCCESS));
        assert_eq!(rig.run(|| close(handle)), Ok(NtStatus::SUCCESS));
    }
    let seen = take(&seen);
    assert_eq!(seen.len(), 2);
    for (found, added) in seen {
        assert!(found == context && is_cleaned(added));
    }
    assert!(!is_cleaned(context));
    rig.run(|| ddi!(FltFreeExtraCreateParameterList: fn(usize, usize))(filter, list)).unwrap();
    rig.assert_no_finding();
}

#[test]
fn only_creates_have_lists_and_attached_ones_are_not_freed() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetecplistfromcallbackdata.md",
        "What is no create is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetecplistintocallbackdata.md",
        "What is no create is STATUS_INVALID_PARAMETER_2."
    );
    let rig = Rig::new(&[CREATE, READ]);
    let filter = rig.filter;
    let free = ddi!(FltFreeExtraCreateParameterList: fn(usize, usize));
    rig.pre(move |op| {
        if op.major() == READ {
            assert_eq!(list_of(filter, op).0, NtStatus::INVALID_PARAMETER);
            let list = allocate_list(filter);
            assert_eq!(attach(filter, op, list), NtStatus::INVALID_PARAMETER_2);
            free(filter, list);
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.reader().read(0, 1).unwrap();
    rig.assert_no_finding();
    rig.pre(move |op| {
        let list = allocate_list(filter);
        attach(filter, op, list).ok().unwrap();
        free(filter, list);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.open(OpenOptions::new()).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn contexts_come_from_lookaside_lists_too_and_have_a_name_without_filter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltinitextracreateparameterlookasidelist.md",
        "A lookaside list that is not deleted is a leak."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltallocateextracreateparameterfromlookasidelist.md",
        "A context of the list is freed with FltFreeExtraCreateParameter."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdeleteextracreateparameterlookasidelist.md",
        "The flags are those of the initialisation."
    );
    let rig = Rig::new(&[]);
    let filter = rig.filter;
    let memory = Box::leak(Box::new([0_u64; 32]));
    let lookaside = (&raw mut *memory).expose_provenance();
    let init = ddi!(FltInitExtraCreateParameterLookasideList: fn(usize, usize, u32, usize, u32));
    let delete = ddi!(FltDeleteExtraCreateParameterLookasideList: fn(usize, usize, u32));
    let allocate = ddi!(FltAllocateExtraCreateParameterFromLookasideList: fn(usize, usize, u32, u32, usize, usize, usize) -> NtStatus);
    let free = ddi!(FsRtlFreeExtraCreateParameter: fn(usize));
    rig.run(|| {
        init(filter, lookaside, 0, 64, u32::from_le_bytes(*b"Test"));
        let (status, context) = with_out(|out| allocate(filter, guid(&TYPE), 16, 0, 0, lookaside, out));
        assert_eq!(status, NtStatus::SUCCESS);
        free(context);
    })
    .unwrap();
    assert!(rig.setup.leaks().iter().any(|leak| leak.contains("lookaside")), "{:?}", rig.setup.leaks());
    rig.run(|| delete(filter, lookaside, 0)).unwrap();
    assert!(rig.setup.leaks().iter().all(|leak| !leak.contains("lookaside")), "{:?}", rig.setup.leaks());
    rig.run(|| init(filter, lookaside, 0, 64, 1)).unwrap();
    assert_eq!(rig.run(|| delete(filter, lookaside, 2)), Err(Rule::BadArgument));
}
