//! `Ob*` and `ZwClose`.

use nt_types::{HANDLE, KPROCESSOR_MODE, NtStatus};

use super::handles::{Opener, is_kernel_handle};
use super::ob::ObjectRef;
use super::ob_callbacks::Operation;
use super::raw::Raw;
use super::{current_process, handles::Entry};
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ObfReferenceObject(max 2) = obf_reference_object;
    ObfReferenceObjectWithTag(max 2) = obf_reference_object_with_tag;
    ObfDereferenceObject(max 2) = obf_dereference_object;
    ObfDereferenceObjectWithTag(max 2) = obf_dereference_object_with_tag;
    ObDereferenceObject(max 2) = obf_dereference_object;
    ObDereferenceObjectDeferDelete(max 2) = ob_dereference_object_defer_delete;
    ObDereferenceObjectDeferDeleteWithTag(max 2) = ob_dereference_object_defer_delete_with_tag;
    ObReferenceObjectByPointerWithTag(max 2) = ob_reference_object_by_pointer_with_tag;
    ObMakeTemporaryObject(max 0) = ob_make_temporary_object;
    ObReferenceObjectByPointer(max 2) = ob_reference_object_by_pointer;
    ObReferenceObjectByHandle(max 0) = ob_reference_object_by_handle;
    ObReferenceObjectByHandleWithTag(max 0) = ob_reference_object_by_handle_with_tag;
    ObOpenObjectByPointer(max 1, fails RESOURCES) = ob_open_object_by_pointer;
    ZwClose(max 0) = zw_close;
    NtClose(max 0) = zw_close;
    ObCloseHandle(max 0) = ob_close_handle;
    data IoFileObjectType = IO_FILE_OBJECT_TYPE;
    data ExEventObjectType = EX_EVENT_OBJECT_TYPE;
    data PsProcessType = PS_PROCESS_TYPE;
    data PsThreadType = PS_THREAD_TYPE;
    data SeTokenObjectType = SE_TOKEN_OBJECT_TYPE;
    data IoDeviceObjectType = IO_DEVICE_OBJECT_TYPE;
    data IoDriverObjectType = IO_DRIVER_OBJECT_TYPE;
    data CmKeyObjectType = CM_KEY_OBJECT_TYPE;
    data ExSemaphoreObjectType = EX_SEMAPHORE_OBJECT_TYPE;
    data MmSectionObjectType = MM_SECTION_OBJECT_TYPE;
    data LpcPortObjectType = LPC_PORT_OBJECT_TYPE;
    data ExDesktopObjectType = EX_DESKTOP_OBJECT_TYPE;
}

/// An object type as drivers see it: its address is all they use.
#[repr(C, align(16))]
struct TypeBody {
    /// The name by which `ObjectBody::type_name` knows the type.
    name: &'static str,
}

/// An exported `POBJECT_TYPE` variable.
#[repr(transparent)]
pub(super) struct TypeVariable(&'static TypeBody);

/// Declares the types and their exported variables.
macro_rules! object_types {
    ($($body:ident $variable:ident = $name:literal;)*) => {
        $(
            static $body: TypeBody = TypeBody { name: $name };
            pub(super) static $variable: TypeVariable = TypeVariable(&$body);
        )*
        const KNOWN_TYPES: &[&TypeBody] = &[$(&$body),*];
    };
}

object_types! {
    FILE_TYPE IO_FILE_OBJECT_TYPE = "File";
    EVENT_TYPE EX_EVENT_OBJECT_TYPE = "Event";
    PROCESS_TYPE PS_PROCESS_TYPE = "Process";
    THREAD_TYPE PS_THREAD_TYPE = "Thread";
    TOKEN_TYPE SE_TOKEN_OBJECT_TYPE = "Token";
    DEVICE_TYPE IO_DEVICE_OBJECT_TYPE = "Device";
    DRIVER_TYPE IO_DRIVER_OBJECT_TYPE = "Driver";
    KEY_TYPE CM_KEY_OBJECT_TYPE = "Key";
    SEMAPHORE_TYPE EX_SEMAPHORE_OBJECT_TYPE = "Semaphore";
    SECTION_TYPE MM_SECTION_OBJECT_TYPE = "Section";
    PORT_TYPE LPC_PORT_OBJECT_TYPE = "ALPC Port";
    DESKTOP_TYPE EX_DESKTOP_OBJECT_TYPE = "Desktop";
}

/// The type that a driver's `POBJECT_TYPE` names; `None` for NULL. Stops on an address that is no object type.
pub(super) fn type_of(call: &Call, object_type: usize) -> Option<&'static str> {
    let found = KNOWN_TYPES.iter().find(|body| std::ptr::from_ref(**body).addr() == object_type);
    match found {
        Some(body) => Some(body.name),
        None if object_type == 0 => None,
        None => call.stop(Rule::BadArgument, format!("{object_type:#x} is no object type")),
    }
}

/// The address by which drivers know a type; 0 for one that no variable names.
pub(super) fn type_address(name: &str) -> usize {
    KNOWN_TYPES.iter().find(|body| body.name == name).map_or(0, |body| std::ptr::from_ref(*body).addr())
}

extern "efiapi" fn obf_reference_object(object: usize) -> isize {
    let call = Call::enter();
    call.machine().nt.objects().reference(&call, object)
}

extern "efiapi" fn obf_reference_object_with_tag(object: usize, _tag: u32) -> isize {
    let call = Call::enter();
    call.machine().nt.objects().reference(&call, object)
}

pub(super) extern "efiapi" fn obf_dereference_object(object: usize) -> isize {
    let call = Call::enter();
    call.machine().nt.objects().dereference(&call, object)
}

extern "efiapi" fn obf_dereference_object_with_tag(object: usize, _tag: u32) -> isize {
    let call = Call::enter();
    call.machine().nt.objects().dereference(&call, object)
}

extern "efiapi" fn ob_dereference_object_defer_delete(object: usize) {
    let call = Call::enter();
    call.machine().nt.objects().dereference(&call, object);
}

extern "efiapi" fn ob_dereference_object_defer_delete_with_tag(object: usize, _tag: u32) {
    let call = Call::enter();
    call.machine().nt.objects().dereference(&call, object);
}

/// Ends the permanence of an object's name, as `ZwMakeTemporaryObject` does by handle.
pub(super) extern "efiapi" fn ob_make_temporary_object(object: usize) {
    let call = Call::enter();
    let Some(found) = call.machine().nt.objects().lookup(object) else {
        call.stop(Rule::BadArgument, format!("{object:#x} is no object, or one that is deleted"));
    };
    found.any_payload().make_temporary();
    // Without handles, nothing else would take the name away.
    if found.handles() == 0 {
        found.any_payload().on_last_handle_close(&found, &current_process(&call));
    }
}

extern "efiapi" fn ob_reference_object_by_pointer(
    object: usize,
    _desired_access: u32,
    object_type: usize,
    mode: KPROCESSOR_MODE,
) -> NtStatus {
    by_pointer(&Call::enter(), object, object_type, mode)
}

extern "efiapi" fn ob_reference_object_by_pointer_with_tag(
    object: usize,
    _desired_access: u32,
    object_type: usize,
    mode: KPROCESSOR_MODE,
    _tag: u32,
) -> NtStatus {
    by_pointer(&Call::enter(), object, object_type, mode)
}

fn by_pointer(call: &Call, object: usize, object_type: usize, mode: KPROCESSOR_MODE) -> NtStatus {
    let Some(found) = call.machine().nt.objects().lookup(object) else {
        call.stop(Rule::BadArgument, format!("{object:#x} is no object, or one that is deleted"));
    };
    let wanted = type_of(call, object_type);
    // The page: the type is checked when given; in UserMode it has to be.
    if wanted.is_some_and(|name| name != found.type_name()) || (wanted.is_none() && mode == nt_types::USER_MODE) {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    call.machine().nt.objects().give(&found, call);
    NtStatus::SUCCESS
}

extern "efiapi" fn ob_reference_object_by_handle(
    handle: HANDLE,
    desired_access: u32,
    object_type: usize,
    mode: KPROCESSOR_MODE,
    object: Raw<usize>,
    information: Raw<[u32; 2]>,
) -> NtStatus {
    by_handle(&Call::enter(), handle.addr(), desired_access, object_type, mode, object, information)
}

extern "efiapi" fn ob_reference_object_by_handle_with_tag(
    handle: HANDLE,
    desired_access: u32,
    object_type: usize,
    mode: KPROCESSOR_MODE,
    _tag: u32,
    object: Raw<usize>,
    information: Raw<[u32; 2]>,
) -> NtStatus {
    by_handle(&Call::enter(), handle.addr(), desired_access, object_type, mode, object, information)
}

fn by_handle(
    call: &Call,
    handle: usize,
    desired_access: u32,
    object_type: usize,
    mode: KPROCESSOR_MODE,
    object: Raw<usize>,
    information: Raw<[u32; 2]>,
) -> NtStatus {
    object.write(0);
    let wanted = type_of(call, object_type);
    if mode == nt_types::KERNEL_MODE {
        check_kernel_handle(call, handle);
    }
    // Access is only checked for user mode: a kernel-mode caller gets what it asks for.
    let access = if mode == nt_types::USER_MODE { desired_access } else { 0 };
    match open_entry(call, handle, access, wanted, mode) {
        Ok(entry) => {
            object.write(call.machine().nt.objects().give(&entry.object, call));
            information.write_if_some([0, entry.access]);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// Stops for a handle that a driver must not use as its own: Driver Verifier's bug check 0xC4, 0xF6, and what comes of a
/// handle that was closed.
fn check_kernel_handle(call: &Call, handle: usize) {
    let is_pseudo = handle.cast_signed() < 0 && handle.cast_signed() > -8;
    if is_pseudo || handle == 0 {
        return;
    }
    let process = current_process(call);
    if is_kernel_handle(handle) {
        let system = call.machine().nt.system_process(call.machine());
        if system.handles().entry(handle).is_none() {
            call.stop(
                Rule::InvalidHandle,
                format!("{handle:#x} is not open: it was closed, and its number may be anybody's next"),
            );
        }
    } else if !process.is_system() && process.handles().entry(handle).is_some() {
        call.stop(
            Rule::InvalidHandle,
            format!(
                "{handle:#x} is a user-mode handle of {}, referenced with KernelMode: the program can close it, or put \
                 another object behind it, and access is not checked. Pass the requester's mode, or open with \
                 OBJ_KERNEL_HANDLE",
                process.image_name()
            ),
        );
    }
}

/// `NtCurrentThread`.
const CURRENT_THREAD: usize = usize::MAX - 1;

/// What a handle parameter of a DDI stands for, pseudo handles included.
///
/// # Errors
/// As [`HandleTable::reference`](super::handles::HandleTable::reference).
pub(crate) fn open_entry(
    call: &Call,
    handle: usize,
    access: u32,
    type_name: Option<&str>,
    mode: KPROCESSOR_MODE,
) -> Result<Entry, NtStatus> {
    let process = current_process(call);
    if handle == usize::MAX {
        let body = process.object();
        let object = call.machine().nt.objects().lookup(body).ok_or(NtStatus::INVALID_HANDLE)?;
        if type_name.is_some_and(|name| name != "Process") {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        return Ok(Entry { object, access: u32::MAX, opener: None });
    }
    if handle == CURRENT_THREAD {
        let body = call.thread().object().addr();
        let object = call.machine().nt.objects().lookup(body).ok_or(NtStatus::INVALID_HANDLE)?;
        if type_name.is_some_and(|name| name != "Thread") {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        return Ok(Entry { object, access: u32::MAX, opener: None });
    }
    let owner = process.table_of(handle, mode)?;
    owner.handles().reference(handle, access, type_name)
}

extern "efiapi" fn ob_open_object_by_pointer(
    object: usize,
    attributes: u32,
    _access_state: usize,
    desired_access: u32,
    object_type: usize,
    mode: KPROCESSOR_MODE,
    handle: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let Some(found) = call.machine().nt.objects().lookup(object) else {
        call.stop(Rule::BadArgument, format!("{object:#x} is no object, or one that is deleted"));
    };
    let wanted = type_of(&call, object_type);
    if wanted.is_some_and(|name| name != found.type_name()) {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    if wanted.is_none() && mode == nt_types::USER_MODE {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    handle.write(make_handle(&call, &found, desired_access, attributes));
    NtStatus::SUCCESS
}

/// Makes the handle that a DDI returns: a kernel handle when `attributes` has `OBJ_KERNEL_HANDLE`.
///
/// The driver owes its close. In the system process every handle of a driver is reachable by it alone, so both kinds
/// are in the same table there.
pub(crate) fn make_handle(call: &Call, object: &ObjectRef, access: u32, attributes: u32) -> usize {
    let process = current_process(call);
    let kernel = attributes & nt_types::ObjectFlags::KERNEL_HANDLE.bits() != 0;
    let owner = if kernel { call.machine().nt.system_process(call.machine()) } else { &process };
    let operation = Operation { object, access, is_kernel: kernel, duplication: None };
    let opener = Opener::of(call.site());
    operation.carry_out(call.thread(), |access| owner.handles().insert(object, access, Some(opener)))
}

extern "efiapi" fn zw_close(handle: HANDLE) -> NtStatus {
    close(&Call::enter(), handle.addr(), nt_types::KERNEL_MODE)
}

extern "efiapi" fn ob_close_handle(handle: HANDLE, mode: KPROCESSOR_MODE) -> NtStatus {
    close(&Call::enter(), handle.addr(), mode)
}

/// Closes a handle for a driver.
///
/// A kernel handle that is not open stops the machine, as Windows bug-checks (`INVALID_KERNEL_HANDLE`); so does any
/// bad handle in the system process. For a program's handle the status says it.
pub(crate) fn close(call: &Call, handle: usize, mode: KPROCESSOR_MODE) -> NtStatus {
    call.detail(format_args!("handle {handle:#x}"));
    let process = current_process(call);
    let closed = process.table_of(handle, mode).and_then(|owner| owner.handles().close(handle, &process));
    match closed {
        Ok(()) => NtStatus::SUCCESS,
        Err(_) if mode == nt_types::KERNEL_MODE && (is_kernel_handle(handle) || process.is_system()) => {
            call.stop(Rule::InvalidHandle, format!("{handle:#x} is not open: closed already, or never a handle"))
        }
        Err(status) => status,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nt_types::{KERNEL_MODE, NtStatus, USER_MODE};

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::handles::KERNEL_HANDLE_BIT;
    use crate::nt::ob::ObjectBody;
    use crate::process::Process;

    #[derive(Debug, Default)]
    struct Probe {
        cleanups: AtomicU32,
        deletes: AtomicU32,
    }

    impl ObjectBody for Probe {
        fn type_name(&self) -> &'static str {
            "File"
        }
        fn on_last_handle_close(&self, _: &ObjectRef, _: &Arc<Process>) {
            self.cleanups.fetch_add(1, Ordering::Relaxed);
        }
        fn on_delete(&self, _: usize) {
            self.deletes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn object(bench: &Bench) -> (ObjectRef, Arc<Probe>) {
        let probe = Arc::new(Probe::default());
        let objects = bench.machine().inner().nt.objects();
        (objects.create(64, probe.clone()).expect("memory"), probe)
    }

    fn file_type() -> usize {
        std::ptr::from_ref(&FILE_TYPE).addr()
    }

    #[test]
    fn an_object_lives_until_its_last_reference_is_dropped() {
        conforms!("wdm/nf-wdm-obdereferenceobject.md", "An object is deleted when its reference count reaches zero.");
        let bench = Bench::new();
        let (object, probe) = object(&bench);
        let body = object.body();
        bench.run(|| obf_reference_object(body)).unwrap();
        drop(object);
        assert_eq!(probe.deletes.load(Ordering::Relaxed), 0);
        assert_eq!(bench.run(|| obf_dereference_object(body)).unwrap(), 0);
        assert_eq!(probe.deletes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_reference_that_the_driver_does_not_hold_cannot_be_dropped() {
        conforms!("wdm/nf-wdm-obdereferenceobject.md", "A reference is dropped by whoever took it.");
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let stopped = bench.run(|| obf_dereference_object(object.body())).unwrap_err();
        assert_eq!(stopped.0.rule, Rule::ReferenceUnderflow);
    }

    #[test]
    fn a_dereference_of_a_deleted_object_is_found() {
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let body = object.body();
        drop(object);
        let stopped = bench.run(|| obf_dereference_object(body)).unwrap_err();
        assert_eq!(stopped.0.rule, Rule::ReferenceUnderflow);
    }

    #[test]
    fn kernel_handles_have_the_high_bit_and_are_refused_from_user_mode() {
        conforms!("wdm/nf-wdm-zwclose.md", "A kernel handle is of use only where the previous mode is KernelMode.");
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let mut found = 0;
        bench
            .run(|| {
                let call = Call::enter();
                let handle = make_handle(&call, &object, 1, nt_types::ObjectFlags::KERNEL_HANDLE.bits());
                assert_eq!(handle & KERNEL_HANDLE_BIT, KERNEL_HANDLE_BIT);
                let out = Raw::of(&raw mut found);
                let pointer = std::ptr::without_provenance_mut(handle);
                let open = |mode| ob_reference_object_by_handle(pointer, 1, file_type(), mode, out, Raw::NULL);
                assert_eq!(open(USER_MODE), NtStatus::INVALID_HANDLE);
                assert_eq!(open(KERNEL_MODE), NtStatus::SUCCESS);
                assert_eq!(out.read(), object.body());
                obf_dereference_object(object.body());
                assert_eq!(zw_close(pointer), NtStatus::SUCCESS);
            })
            .unwrap();
    }

    #[test]
    fn a_handle_without_the_right_is_refused_in_user_mode_and_served_in_kernel_mode() {
        conforms!(
            "wdm/nf-wdm-obreferenceobjectbyhandle.md",
            "In UserMode the wanted access is compared with what the handle grants: STATUS_ACCESS_DENIED."
        );
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let process = bench.machine().process("p.exe").start().expect("room");
        let handle = process.handles().insert(&object, 1, None);
        let system = bench.machine().inner().nt.system_process(bench.machine().inner());
        let kernel = system.handles().insert(&object, 1, None);
        let mut found = 0_usize;
        bench
            .run(|| {
                Call::enter().thread().set_process(Some(Arc::clone(&process)));
                let out = Raw::of(&raw mut found);
                let pointer = std::ptr::without_provenance_mut(handle);
                let open = |handle, mode| ob_reference_object_by_handle(handle, 2, 0, mode, out, Raw::NULL);
                assert_eq!(open(pointer, USER_MODE), NtStatus::ACCESS_DENIED);
                assert_eq!(open(std::ptr::without_provenance_mut(kernel), KERNEL_MODE), NtStatus::SUCCESS);
                obf_dereference_object(object.body());
                Call::enter().thread().set_process(None);
            })
            .unwrap();
    }

    #[test]
    fn a_programs_handle_is_not_referenced_as_a_kernel_handle() {
        conforms!(
            "docs:debugger/bug-check-0xc4--driver-verifier-detected-violation.md",
            "A driver that references a user-mode handle as kernel mode is stopped (0xF6)."
        );
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let process = bench.machine().process("p.exe").start().expect("room");
        let handle = std::ptr::without_provenance_mut(process.handles().insert(&object, 1, None));
        let mut found = 0_usize;
        let finding = bench.run(|| {
            Call::enter().thread().set_process(Some(Arc::clone(&process)));
            ob_reference_object_by_handle(handle, 1, 0, KERNEL_MODE, Raw::of(&raw mut found), Raw::NULL)
        });
        let finding = finding.unwrap_err().0;
        assert_eq!(finding.rule, Rule::InvalidHandle);
        assert!(finding.message.contains("user-mode handle of p.exe"), "{finding}");
    }

    #[test]
    fn a_kernel_handle_that_was_closed_is_not_referenced() {
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let system = bench.machine().inner().nt.system_process(bench.machine().inner()).clone();
        let handle = system.handles().insert(&object, 1, None);
        system.close_handle(handle).expect("it is open");
        let mut found = 0_usize;
        let finding = bench.run(|| {
            let out = Raw::of(&raw mut found);
            ob_reference_object_by_handle(std::ptr::without_provenance_mut(handle), 1, 0, KERNEL_MODE, out, Raw::NULL)
        });
        assert_eq!(finding.unwrap_err().0.rule, Rule::InvalidHandle);
    }

    #[test]
    fn a_handle_to_an_object_of_another_type_is_a_mismatch() {
        conforms!(
            "wdm/nf-wdm-obreferenceobjectbyhandle.md",
            "STATUS_OBJECT_TYPE_MISMATCH is returned for an object of another type."
        );
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let mut found = 0_usize;
        bench
            .run(|| {
                let handle = make_handle(&Call::enter(), &object, 1, 0x200);
                let pointer = std::ptr::without_provenance_mut(handle);
                let event_type = std::ptr::from_ref(&EVENT_TYPE).addr();
                let out = Raw::of(&raw mut found);
                let status = ob_reference_object_by_handle(pointer, 0, event_type, KERNEL_MODE, out, Raw::NULL);
                assert_eq!(status, NtStatus::OBJECT_TYPE_MISMATCH);
                let _ = zw_close(pointer);
            })
            .unwrap();
    }

    #[test]
    fn closing_a_kernel_handle_twice_is_found() {
        let bench = Bench::new();
        let (object, probe) = object(&bench);
        let stopped = bench
            .run(|| {
                let handle = make_handle(&Call::enter(), &object, 1, 0x200);
                let pointer = std::ptr::without_provenance_mut(handle);
                assert_eq!(zw_close(pointer), NtStatus::SUCCESS);
                zw_close(pointer)
            })
            .unwrap_err();
        assert_eq!(stopped.0.rule, Rule::InvalidHandle);
        assert_eq!(probe.cleanups.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn closing_an_unknown_handle_of_a_program_is_a_status() {
        conforms!("wdm/nf-wdm-zwclose.md", "STATUS_INVALID_HANDLE is returned for what is no handle.");
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        let status = bench.run(|| {
            let thread = Call::enter().thread().clone();
            thread.set_process(Some(process));
            let status = zw_close(std::ptr::without_provenance_mut(0x40));
            thread.set_process(None);
            status
        });
        assert_eq!(status.unwrap(), NtStatus::INVALID_HANDLE);
    }

    #[test]
    fn cleanup_comes_with_the_last_handle_and_delete_with_the_last_reference() {
        conforms!(
            "wdm/nf-wdm-zwclose.md",
            "The object is deleted when all handles are closed and no references remain."
        );
        let bench = Bench::new();
        let (object, probe) = object(&bench);
        let process = bench.machine().process("p.exe").start().expect("room");
        let first = process.handles().insert(&object, 1, None);
        process.handles().insert(&object, 1, None);
        drop(object);
        assert_eq!(process.close_handle(first), Ok(()));
        assert_eq!(probe.cleanups.load(Ordering::Relaxed), 0);
        bench.enter(|_| process.exit());
        assert_eq!(probe.cleanups.load(Ordering::Relaxed), 1);
        assert_eq!(probe.deletes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_a_driver_does_not_give_back_is_reported_with_the_ddi() {
        conforms!("wdm/nf-wdm-zwclose.md", "A driver closes every handle that it opens.");
        let bench = Bench::new();
        let (object, _) = object(&bench);
        let machine = bench.machine().inner();
        bench
            .run(|| {
                obf_reference_object(object.body());
                make_handle(&Call::enter(), &object, 1, 0x200);
            })
            .unwrap();
        let references = machine.nt.objects().references_of(bench.driver());
        assert_eq!(references.len(), 1, "{references:?}");
        let handles = machine.nt.system_process(machine).handles().opened_by(bench.driver());
        assert!(handles[0].contains("AnyExport"), "{handles:?}");
    }
}
