//! One test per documented rule of tokens, descriptors, the access check and impersonation.

use std::sync::Arc;

use nt_types::{AccessMask, KERNEL_MODE, NtStatus, UNICODE_STRING, USER_MODE};

use super::access::{
    FILE_MAPPING, GenericMapping, rtl_map_generic_mask, se_access_check, se_privilege_check, se_single_privilege_check,
};
use super::acl::{rtl_add_access_allowed_ace, rtl_create_acl, rtl_delete_ace, rtl_get_ace};
use super::client::{Quality, se_create_client_security, se_impersonate_client_ex};
use super::descriptor::{
    rtl_absolute_to_self_relative_sd, rtl_create_security_descriptor, rtl_get_dacl_security_descriptor,
    rtl_length_security_descriptor, rtl_set_dacl_security_descriptor,
};
use super::impersonation::{
    ps_disable_impersonation, ps_impersonate_client, ps_reference_impersonation_token, ps_restore_impersonation,
    ps_revert_to_self,
};
use super::query::{
    se_query_information_token, zw_open_process_token_ex, zw_open_thread_token_ex, zw_query_information_token,
};
use super::sid::{
    Sid, rtl_convert_sid_to_unicode_string, rtl_copy_sid, rtl_equal_sid, rtl_initialize_sid, rtl_length_required_sid,
    rtl_length_sid, rtl_sub_authority_sid, rtl_valid_sid,
};
use super::subject::{
    SubjectContext, se_capture_subject_context, se_capture_subject_context_ex, se_lock_subject_context,
    se_release_subject_context, se_unlock_subject_context,
};
use super::token::{
    privilege, ps_dereference_token, ps_reference_primary_token, se_query_authentication_id_token, se_token_is_admin,
    se_token_type,
};
use crate::conformance::conforms;
use crate::ddi::Call;
use crate::ddi::testing::Bench;
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};
use crate::process::{Process, Token};
use crate::thread::Thread;

mod relative;

/// A token's number of references that drivers owe, for tests of balance.
fn owed(bench: &Bench) -> usize {
    bench.machine().inner().nt.objects().references_of(bench.driver()).len()
}

fn raw<T>(value: &mut T) -> Raw<T> {
    Raw::of(std::ptr::from_mut(value))
}

fn bytes(sid: &Sid) -> Raw<u8> {
    Raw::at(sid.bytes().as_ptr().expose_provenance())
}

fn process(bench: &Bench, token: Token) -> Arc<Process> {
    bench.machine().process("p.exe").token(token).start().expect("room")
}

/// Runs driver code on a thread of `process`.
fn as_process(bench: &Bench, process: &Arc<Process>, body: impl FnOnce()) {
    bench.enter(|thread| {
        let before = thread.set_process(Some(Arc::clone(process)));
        bench.run(body).expect("no rule is broken");
        thread.set_process(before);
    });
}

/// A descriptor with one entry, which allows `mask` to `sid`. The memory is leaked: tests are short.
fn descriptor(sid: &Sid, mask: u32) -> Raw<u8> {
    let acl: &'static mut [u64; 16] = Box::leak(Box::new([0; 16]));
    let descriptor: &'static mut [u64; 5] = Box::leak(Box::new([0; 5]));
    let (acl, descriptor) = (Raw::of(acl.as_mut_ptr()).cast::<u8>(), Raw::of(descriptor.as_mut_ptr()).cast::<u8>());
    assert_eq!(rtl_create_acl(acl, 128, 2), NtStatus::SUCCESS);
    assert_eq!(rtl_add_access_allowed_ace(acl, 2, mask, bytes(sid)), NtStatus::SUCCESS);
    assert_eq!(rtl_create_security_descriptor(descriptor, 1), NtStatus::SUCCESS);
    assert_eq!(rtl_set_dacl_security_descriptor(descriptor, 1, acl.address(), 0), NtStatus::SUCCESS);
    descriptor
}

/// `SeAccessCheck` of the current thread in user mode: answer, rights, status.
fn access(descriptor: Raw<u8>, desired: u32, mode: i8) -> (u8, u32, NtStatus) {
    let (mut context, mut granted, mut status) = (SubjectContext::default(), 0, NtStatus::SUCCESS);
    let (context, granted, status) = (raw(&mut context), raw(&mut granted), raw(&mut status));
    let mut mapping = FILE_MAPPING;
    se_capture_subject_context(context);
    se_lock_subject_context(context);
    let answer =
        se_access_check(descriptor, context, 1, desired, 0, Raw::NULL, raw(&mut mapping), mode, granted, status);
    se_unlock_subject_context(context);
    se_release_subject_context(context);
    (answer, granted.read(), status.read())
}

#[test]
fn an_identifier_is_built_measured_copied_and_written_out() {
    conforms!("ntifs/nf-ntifs-rtllengthrequiredsid.md", "The length follows from the number of sub-authorities.");
    conforms!("ntifs/nf-ntifs-rtlcopysid.md", "A buffer that is too short is STATUS_BUFFER_TOO_SMALL.");
    conforms!(
        "ntifs/nf-ntifs-rtlconvertsidtounicodestring.md",
        "The text is decimal; a buffer of the caller's that is too short is STATUS_BUFFER_OVERFLOW."
    );
    Bench::new()
        .run(|| {
            assert_eq!(rtl_length_required_sid(2), 16);
            let (mut sid, mut copy) = ([0_u32; 4], [0_u32; 4]);
            let (sid, copy) = (Raw::of(sid.as_mut_ptr()).cast::<u8>(), Raw::of(copy.as_mut_ptr()).cast::<u8>());
            let mut authority = [0, 0, 0, 0, 0, 5];
            assert_eq!(rtl_initialize_sid(sid, Raw::of(authority.as_mut_ptr()), 2), NtStatus::SUCCESS);
            Raw::<u32>::at(rtl_sub_authority_sid(sid, 0)).write(32);
            Raw::<u32>::at(rtl_sub_authority_sid(sid, 1)).write(544);
            assert_eq!((rtl_length_sid(sid), rtl_valid_sid(sid)), (16, 1));
            assert_eq!(rtl_copy_sid(15, copy, sid), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(rtl_copy_sid(16, copy, sid), NtStatus::SUCCESS);
            assert_eq!((rtl_equal_sid(sid, copy), rtl_equal_sid(sid, bytes(&Sid::world()))), (1, 0));
            let mut units = [0_u16; 16];
            let mut string = UNICODE_STRING { Length: 0, MaximumLength: 4, Buffer: units.as_mut_ptr() };
            let string = raw(&mut string);
            assert_eq!(rtl_convert_sid_to_unicode_string(string, sid, 0), NtStatus::BUFFER_OVERFLOW);
            field!(string, UNICODE_STRING, MaximumLength).write(32);
            assert_eq!(rtl_convert_sid_to_unicode_string(string, sid, 0), NtStatus::SUCCESS);
            assert_eq!(crate::nt::unicode::name(string).unwrap(), "S-1-5-32-544");
            copy.write(9);
            assert_eq!(rtl_valid_sid(copy), 0);
        })
        .unwrap();
}

#[test]
fn a_list_takes_entries_while_there_is_room() {
    conforms!("ntifs/nf-ntifs-rtlcreateacl.md", "A buffer without room for the header is STATUS_BUFFER_TOO_SMALL.");
    conforms!(
        "ntifs/nf-ntifs-rtlcreateacl.md",
        "An unknown revision, and a length above what the header can say, are STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "ntifs/nf-ntifs-rtladdaccessallowedace.md",
        "An entry that does not fit is STATUS_ALLOTTED_SPACE_EXCEEDED, a bad identifier STATUS_INVALID_SID."
    );
    Bench::new()
        .run(|| {
            let mut words = [0_u64; 4];
            let acl = Raw::of(words.as_mut_ptr()).cast::<u8>();
            assert_eq!(rtl_create_acl(acl, 7, 2), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(rtl_create_acl(acl, 32, 9), NtStatus::INVALID_PARAMETER);
            assert_eq!(rtl_create_acl(acl, 0x1_0000, 2), NtStatus::INVALID_PARAMETER);
            assert_eq!(rtl_add_access_allowed_ace(acl, 2, 1, bytes(&Sid::world())), NtStatus::INVALID_ACL);
            assert_eq!(rtl_create_acl(acl, 32, 2), NtStatus::SUCCESS);
            assert_eq!(rtl_add_access_allowed_ace(acl, 2, 7, bytes(&Sid::world())), NtStatus::SUCCESS);
            let more = rtl_add_access_allowed_ace(acl, 2, 7, bytes(&Sid::world()));
            assert_eq!(more, NtStatus::ALLOTTED_SPACE_EXCEEDED);
            let mut bad = 0_u64;
            assert_eq!(rtl_add_access_allowed_ace(acl, 2, 7, raw(&mut bad).cast()), NtStatus::INVALID_SID);
            assert_eq!(rtl_add_access_allowed_ace(acl, 9, 7, bytes(&Sid::world())), NtStatus::REVISION_MISMATCH);
            let mut ace = 0;
            let ace = raw(&mut ace);
            assert_eq!(rtl_get_ace(acl, 0, ace), NtStatus::SUCCESS);
            assert_eq!(Raw::<u32>::at(ace.read() + 4).read(), 7);
            assert_eq!(rtl_get_ace(acl, 1, ace), NtStatus::INVALID_PARAMETER);
            assert_eq!(rtl_delete_ace(acl, 0), NtStatus::SUCCESS);
            assert_eq!(rtl_get_ace(acl, 0, ace), NtStatus::INVALID_PARAMETER);
        })
        .unwrap();
}

#[test]
fn a_descriptor_references_its_list_and_can_be_made_self_relative() {
    conforms!(
        "wdm/nf-wdm-rtlsetdaclsecuritydescriptor.md",
        "The list is referenced, not copied; with DaclPresent FALSE the descriptor has none."
    );
    conforms!(
        "wdm/nf-wdm-rtlcreatesecuritydescriptor.md",
        "A revision other than SECURITY_DESCRIPTOR_REVISION is STATUS_UNKNOWN_REVISION."
    );
    conforms!(
        "ntifs/nf-ntifs-rtlabsolutetoselfrelativesd.md",
        "Too short a buffer is STATUS_BUFFER_TOO_SMALL, and the length needed is told."
    );
    Bench::new()
        .run(|| {
            let absolute = descriptor(&Sid::world(), 1);
            let (mut present, mut defaulted, mut dacl) = (0, 9, 0);
            let outs = (raw(&mut present), raw(&mut dacl), raw(&mut defaulted));
            assert_eq!(rtl_get_dacl_security_descriptor(absolute, outs.0, outs.1, outs.2), NtStatus::SUCCESS);
            assert_eq!((outs.0.read(), outs.2.read()), (1, 0));
            assert_eq!(outs.1.read(), absolute.field::<usize>(32).read());
            let (mut relative, mut length) = ([0_u64; 16], 8);
            let (relative, length) = (Raw::of(relative.as_mut_ptr()).cast::<u8>(), raw(&mut length));
            assert_eq!(rtl_absolute_to_self_relative_sd(absolute, relative, length), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(length.read(), 48);
            assert_eq!(rtl_absolute_to_self_relative_sd(absolute, relative, length), NtStatus::SUCCESS);
            assert_eq!(rtl_length_security_descriptor(relative), 48);
            // What is self-relative already takes no pointers.
            let set = rtl_set_dacl_security_descriptor(relative, 1, 0, 0);
            assert_eq!(set, NtStatus::INVALID_SECURITY_DESCR);
            assert_eq!(rtl_set_dacl_security_descriptor(absolute, 0, 0, 0), NtStatus::SUCCESS);
            assert_eq!(rtl_get_dacl_security_descriptor(absolute, outs.0, outs.1, outs.2), NtStatus::SUCCESS);
            assert_eq!(outs.0.read(), 0);
            assert_eq!(rtl_create_security_descriptor(absolute, 2), NtStatus::UNKNOWN_REVISION);
        })
        .unwrap();
}

#[test]
fn generic_rights_are_mapped() {
    conforms!("ntddk/nf-ntddk-rtlmapgenericmask.md", "Generic rights are replaced by what the mapping says.");
    Bench::new()
        .run(|| {
            let (mut mapping, mut access) =
                (GenericMapping { read: 1, write: 2, execute: 4, all: 15 }, 0x8000_0000 | 0x4000_0000 | 0x100);
            let access = raw(&mut access);
            rtl_map_generic_mask(access, raw(&mut mapping));
            assert_eq!(access.read(), 0x103);
        })
        .unwrap();
}

#[test]
fn an_access_check_grants_what_the_list_allows_the_token() {
    conforms!("wdm/nf-wdm-seaccesscheck.md", "Access is allowed when the DACL allows all rights asked for.");
    conforms!("wdm/nf-wdm-seaccesscheck.md", "A NULL DACL lets everybody do everything; an empty one nobody.");
    conforms!("wdm/nf-wdm-seaccesscheck.md", "MAXIMUM_ALLOWED grants what there is.");
    conforms!("wdm/nf-wdm-seaccesscheck.md", "In kernel mode everything is granted.");
    conforms!(
        "wdm/nf-wdm-seaccesscheck.md",
        "ACCESS_SYSTEM_SECURITY is granted by a privilege alone, and refused with a status of its own."
    );
    let bench = Bench::new();
    let (user, admin) = (process(&bench, Token::User), process(&bench, Token::Administrator));
    let list = bench.run(|| descriptor(&Sid::administrators(), FILE_MAPPING.all).address()).unwrap();
    let list = Raw::at(list);
    let denied = (0, 0, NtStatus::ACCESS_DENIED);
    let all = FILE_MAPPING.all;
    as_process(&bench, &admin, || {
        assert_eq!(access(list, 3, USER_MODE), (1, 3, NtStatus::SUCCESS));
        let maximum = AccessMask::MAXIMUM_ALLOWED.bits();
        assert_eq!(access(list, maximum, USER_MODE), (1, all, NtStatus::SUCCESS));
        let audit = AccessMask::ACCESS_SYSTEM_SECURITY.bits();
        assert_eq!(access(list, audit, USER_MODE), (0, 0, NtStatus::PRIVILEGE_NOT_HELD));
    });
    as_process(&bench, &user, || {
        assert_eq!(access(list, 1, USER_MODE), denied);
        assert_eq!(access(list, 1, KERNEL_MODE), (1, 1, NtStatus::SUCCESS));
        assert_eq!(access(Raw::NULL, 1, USER_MODE), denied);
        assert_eq!(rtl_set_dacl_security_descriptor(list, 1, 0, 0), NtStatus::SUCCESS);
        assert_eq!(access(list, 1, USER_MODE), (1, 1, NtStatus::SUCCESS));
        let mut empty = 0_u64;
        let empty = raw(&mut empty);
        assert_eq!(rtl_create_acl(empty.cast(), 8, 2), NtStatus::SUCCESS);
        let _ = rtl_set_dacl_security_descriptor(list, 1, empty.address(), 0);
        assert_eq!(access(list, 1, USER_MODE), denied);
    });
}

#[test]
fn a_lock_that_is_claimed_and_not_held_is_found() {
    conforms!(
        "ntifs/nf-ntifs-selocksubjectcontext.md",
        "Each call to SeLockSubjectContext is matched by one to SeUnlockSubjectContext."
    );
    let bench = Bench::new();
    let mut context = SubjectContext::default();
    let context = raw(&mut context);
    let rule = |body: fn(Raw<SubjectContext>)| {
        let bench = Bench::new();
        bench.run(|| se_capture_subject_context(context)).unwrap();
        bench.run(|| body(context)).unwrap_err().0.rule
    };
    assert_eq!(rule(se_unlock_raw), Rule::BadState);
    assert_eq!(rule(release_locked), Rule::BadState);
    assert_eq!(rule(claim), Rule::BadState);
    assert!(bench.machine().finding().is_none());
}

fn se_unlock_raw(context: Raw<SubjectContext>) {
    se_unlock_subject_context(context);
}

fn release_locked(context: Raw<SubjectContext>) {
    se_lock_subject_context(context);
    se_release_subject_context(context);
}

fn claim(context: Raw<SubjectContext>) {
    let (mut mapping, mut granted, mut status) = (FILE_MAPPING, 0, NtStatus::SUCCESS);
    let descriptor = descriptor(&Sid::world(), 1);
    let outs = (raw(&mut granted), raw(&mut status));
    se_access_check(descriptor, context, 1, 1, 0, Raw::NULL, raw(&mut mapping), USER_MODE, outs.0, outs.1);
}

#[test]
fn a_captured_context_holds_tokens_until_it_is_released() {
    conforms!(
        "ntifs/nf-ntifs-sereleasesubjectcontext.md",
        "A captured context is released with SeReleaseSubjectContext; until then it holds its tokens."
    );
    let bench = Bench::new();
    let user = process(&bench, Token::User);
    let mut context = SubjectContext::default();
    let context = raw(&mut context);
    bench.run(|| se_capture_subject_context_ex(0, user.object(), context)).unwrap();
    assert_eq!(owed(&bench), 1);
    bench.run(|| se_release_subject_context(context)).unwrap();
    assert_eq!(owed(&bench), 0);
    let again = bench.run(|| se_release_subject_context(context));
    assert_eq!(again.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn tokens_say_who_their_processes_are() {
    conforms!("ntifs/nf-ntifs-setokenisadmin.md", "TRUE when the token has the group Administrators.");
    conforms!("ntifs/nf-ntifs-psreferenceprimarytoken.md", "The primary token comes with a reference to be dropped.");
    conforms!(
        "ntifs/nf-ntifs-sequeryinformationtoken.md",
        "The answer is a pool block that the caller frees, but session and integrity are the numbers themselves."
    );
    let bench = Bench::new();
    let (user, admin) = (process(&bench, Token::User), process(&bench, Token::Administrator));
    let machine = bench.machine().inner();
    bench
        .run(|| {
            let admin = ps_reference_primary_token(admin.object());
            assert_eq!((se_token_is_admin(admin), se_token_type(admin)), (1, 1));
            ps_dereference_token(admin);
            let user = ps_reference_primary_token(user.object());
            assert_eq!(se_token_is_admin(user), 0);
            let mut out = 0_usize;
            let out = raw(&mut out);
            assert_eq!(se_query_information_token(user, 1, out), NtStatus::SUCCESS);
            let sid = Raw::<usize>::at(out.read()).read();
            assert_eq!(Sid::read(Raw::at(sid)).unwrap(), Sid::account(1001));
            machine.nt.pool().free(&Call::enter(), out.read(), 0);
            assert_eq!(se_query_information_token(user, 25, out), NtStatus::SUCCESS);
            assert_eq!(out.cast::<u32>().read(), 0x2000);
            assert_eq!(se_query_information_token(user, 999, out), NtStatus::INVALID_INFO_CLASS);
            let mut logon = 0;
            assert_eq!(se_query_authentication_id_token(user, raw(&mut logon)), NtStatus::SUCCESS);
            ps_dereference_token(user);
        })
        .unwrap();
    assert_eq!((owed(&bench), machine.nt.pool().leaks(bench.driver()).len()), (0, 0));
}

#[test]
fn token_handles_are_queried_with_the_length_told() {
    conforms!(
        "ntifs/nf-ntifs-zwqueryinformationtoken.md",
        "A buffer that is too short is STATUS_BUFFER_TOO_SMALL, and ReturnLength is what it takes."
    );
    conforms!("ntifs/nf-ntifs-zwopenthreadtokenex.md", "A thread that impersonates nobody is STATUS_NO_TOKEN.");
    Bench::new()
        .run(|| {
            let handle = |number: isize| std::ptr::without_provenance_mut(number.cast_unsigned());
            let (mut token, mut needed) = (0, 0);
            let (token, needed) = (raw(&mut token), raw(&mut needed));
            assert_eq!(zw_open_thread_token_ex(handle(-2), 8, 1, 0x200, token), NtStatus::NO_TOKEN);
            assert_eq!(zw_open_process_token_ex(handle(-1), 8, 0x200, token), NtStatus::SUCCESS);
            let open = std::ptr::without_provenance_mut(token.read());
            assert_eq!(zw_query_information_token(open, 1, 0, 0, needed), NtStatus::BUFFER_TOO_SMALL);
            let mut buffer = [0_u64; 8];
            let at = Raw::of(buffer.as_mut_ptr()).address();
            assert_eq!(zw_query_information_token(open, 1, at, needed.read(), needed), NtStatus::SUCCESS);
            let sid = Raw::<usize>::at(at).read();
            assert_eq!(sid, at + 16, "behind the structure");
            assert_eq!(Sid::read(Raw::at(sid)).unwrap(), Sid::local_system());
            assert!(crate::nt::ob_exports::close(&Call::enter(), token.read(), KERNEL_MODE).is_success());
        })
        .unwrap();
}

#[test]
fn privileges_count_when_they_are_enabled() {
    conforms!("ntddk/nf-ntddk-sesingleprivilegecheck.md", "In kernel mode the check always succeeds.");
    conforms!("ntddk/nf-ntddk-sesingleprivilegecheck.md", "The privilege has to be there and enabled.");
    conforms!(
        "ntifs/nf-ntifs-seprivilegecheck.md",
        "With PRIVILEGE_SET_ALL_NECESSARY all of the set are needed, else one."
    );
    let bench = Bench::new();
    let admin = process(&bench, Token::Administrator);
    let debug = u64::from(privilege::DEBUG);
    let both = |control: u32| [2, control, privilege::CHANGE_NOTIFY, 0, 0, privilege::DEBUG, 0, 0];
    let check_set = |control| {
        let (mut set, mut context) = (both(control), SubjectContext::default());
        let context = raw(&mut context);
        se_capture_subject_context(context);
        let answer = se_privilege_check(Raw::of(set.as_mut_ptr()), context, USER_MODE);
        se_release_subject_context(context);
        answer
    };
    as_process(&bench, &admin, || {
        assert_eq!(se_single_privilege_check(debug, USER_MODE), 0, "there, but off");
        assert_eq!(se_single_privilege_check(debug, KERNEL_MODE), 1);
        assert_eq!((check_set(0), check_set(1)), (1, 0));
    });
    assert!(admin.enable_privilege(privilege::DEBUG) && !admin.enable_privilege(privilege::TCB));
    as_process(&bench, &admin, || {
        assert_eq!(se_single_privilege_check(debug, USER_MODE), 1);
        assert_eq!(check_set(1), 1);
    });
}

#[test]
fn a_thread_that_impersonates_is_checked_as_its_client() {
    conforms!(
        "ntifs/nf-ntifs-psimpersonateclient.md",
        "The thread acts with the client's token until it reverts; a NULL token reverts, too."
    );
    conforms!(
        "ntifs/nf-ntifs-psreferenceimpersonationtoken.md",
        "NULL when the thread impersonates nobody; else a token with a reference."
    );
    let bench = Bench::new();
    let (user, admin) = (process(&bench, Token::User), process(&bench, Token::Administrator));
    admin.enable_privilege(privilege::IMPERSONATE);
    as_process(&bench, &admin, || {
        let list = descriptor(&Sid::administrators(), FILE_MAPPING.all);
        let thread = Thread::current().object().addr();
        let (mut flags, mut level) = ([0_u8; 2], 0);
        let (flags, level) = (Raw::<u8>::of(flags.as_mut_ptr()), raw(&mut level));
        assert_eq!(ps_reference_impersonation_token(thread, flags, flags.index(1), level), 0);
        let token = ps_reference_primary_token(user.object());
        assert_eq!(ps_impersonate_client(thread, token, 1, 0, 2), NtStatus::SUCCESS);
        assert_eq!(access(list, 1, USER_MODE).0, 0);
        let mut state = [0_u64; 2];
        let state = Raw::of(state.as_mut_ptr()).cast::<u8>();
        assert_eq!(ps_disable_impersonation(thread, state), 1);
        assert_eq!(access(list, 1, USER_MODE).0, 1);
        ps_restore_impersonation(thread, state);
        let client = ps_reference_impersonation_token(thread, flags, flags.index(1), level);
        assert_eq!((client, flags.read(), level.read()), (token, 1, 2));
        ps_dereference_token(client);
        ps_revert_to_self();
        assert_eq!(access(list, 1, USER_MODE).0, 1);
        assert_eq!(ps_impersonate_client(thread, token, 0, 0, 2), NtStatus::SUCCESS);
        assert_eq!(ps_impersonate_client(thread, 0, 0, 0, 0), NtStatus::SUCCESS);
        ps_dereference_token(token);
    });
    assert_eq!(owed(&bench), 0);
}

#[test]
fn a_server_without_the_privilege_can_only_identify_its_client() {
    conforms!(
        "ntifs/nf-ntifs-psimpersonateclient.md",
        "A server that may not impersonate gets a copy of the token for identification only."
    );
    let bench = Bench::new();
    let (user, admin) = (process(&bench, Token::User), process(&bench, Token::Administrator));
    as_process(&bench, &user, || {
        let thread = Thread::current().object().addr();
        let token = ps_reference_primary_token(admin.object());
        assert_eq!(ps_impersonate_client(thread, token, 0, 0, 2), NtStatus::SUCCESS);
        let list = descriptor(&Sid::world(), FILE_MAPPING.all);
        assert_eq!(access(list, 1, USER_MODE), (0, 0, NtStatus::BAD_IMPERSONATION_LEVEL));
        ps_revert_to_self();
        ps_dereference_token(token);
    });
}

#[test]
fn a_client_context_lets_another_thread_act_for_the_client() {
    conforms!(
        "ntifs/nf-ntifs-secreateclientsecurity.md",
        "With static tracking the context has a copy of the client's token, with dynamic tracking a reference to it."
    );
    conforms!("ntifs/nf-ntifs-seimpersonateclientex.md", "Without a server thread the calling one impersonates.");
    let bench = Bench::new();
    let user = process(&bench, Token::User);
    let mut context = [0_u64; 9];
    let context = Raw::of(context.as_mut_ptr()).cast::<u8>();
    let mut quality = Quality { length: 12, level: 2, dynamic: 0, effective_only: 0 };
    let quality = raw(&mut quality);
    as_process(&bench, &user, || {
        let thread = Thread::current().object().addr();
        assert_eq!(se_create_client_security(thread, quality, 0, context), NtStatus::SUCCESS);
    });
    bench
        .run(|| {
            let token = context.field::<usize>(16).read();
            assert_eq!((se_token_type(token), se_token_is_admin(token)), (2, 0));
            let list = descriptor(&Sid::administrators(), FILE_MAPPING.all);
            assert_eq!(se_impersonate_client_ex(context, 0), NtStatus::SUCCESS);
            assert_eq!(access(list, 1, USER_MODE).0, 0);
            ps_revert_to_self();
            ps_dereference_token(token);
        })
        .unwrap();
    assert_eq!(owed(&bench), 0);
}

#[test]
fn a_client_that_may_only_be_identified_is_not_passed_on() {
    conforms!(
        "ntifs/nf-ntifs-secreateclientsecurity.md",
        "A client that impersonates at identification level only is STATUS_BAD_IMPERSONATION_LEVEL."
    );
    let bench = Bench::new();
    let user = process(&bench, Token::User);
    bench
        .run(|| {
            let thread = Thread::current().object().addr();
            let token = ps_reference_primary_token(user.object());
            assert_eq!(ps_impersonate_client(thread, token, 0, 0, 1), NtStatus::SUCCESS);
            let (mut context, mut quality) =
                ([0_u64; 9], Quality { length: 12, level: 2, dynamic: 0, effective_only: 0 });
            let context = Raw::of(context.as_mut_ptr()).cast::<u8>();
            let status = se_create_client_security(thread, raw(&mut quality), 0, context);
            assert_eq!(status, NtStatus::BAD_IMPERSONATION_LEVEL);
            ps_revert_to_self();
            ps_dereference_token(token);
        })
        .unwrap();
}

#[test]
fn a_callback_that_returns_impersonating_is_found() {
    let bench = Bench::new();
    let user = process(&bench, Token::User);
    let stopped = bench.run(|| {
        let token = ps_reference_primary_token(user.object());
        let _ = ps_impersonate_client(Thread::current().object().addr(), token, 0, 0, 2);
        ps_dereference_token(token);
    });
    let finding = stopped.unwrap_err().0;
    assert!(finding.message.contains("PsRevertToSelf"), "{}", finding.message);
}
