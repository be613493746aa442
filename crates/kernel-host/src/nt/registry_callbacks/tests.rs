use std::cell::RefCell;
use std::rc::Rc;

use super::objects::{
    cm_callback_get_key_object_id as get, cm_callback_get_key_object_id_ex as lend,
    cm_callback_release_key_object_id_ex as release,
};
use super::structures::{CreateKey, KeyInformation, PostOperation, SetValue};
use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::leak::LeakSource;
use crate::nt::hive::Value;
use crate::nt::raw::field;
use crate::process::Process;

const PATH: &str = r"\Registry\Machine\Software\Test";
const FULL: &str = r"\REGISTRY\MACHINE\Software\Test";
const ALL: u32 = 0xF_003F;

/// What a callback does: its number, the class, the structure.
type Script = Rc<dyn Fn(usize, u32, usize) -> NtStatus>;

thread_local! {
    static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
    static SEEN: RefCell<Vec<(usize, u32)>> = const { RefCell::new(Vec::new()) };
}

extern "efiapi" fn callback(context: usize, class: usize, information: usize) -> NtStatus {
    SEEN.with_borrow_mut(|seen| seen.push((context, class as u32)));
    let script = SCRIPT.with_borrow(Clone::clone);
    script.map_or(NtStatus::SUCCESS, |script| script(context, class as u32, information))
}

fn script(script: impl Fn(usize, u32, usize) -> NtStatus + 'static) {
    SCRIPT.set(Some(Rc::new(script)));
}

fn seen() -> Vec<(usize, u32)> {
    SEEN.take()
}

struct Rig {
    bench: Bench,
    program: Arc<Process>,
}

impl Rig {
    /// A machine with the key, and a program.
    fn new() -> Self {
        let bench = Bench::new();
        bench.machine().registry().create(PATH).unwrap().set_value("Number", Value::dword(7)).unwrap();
        let program = bench.machine().process("p.exe").start().unwrap();
        SCRIPT.set(None);
        seen();
        Self { bench, program }
    }

    fn register(&self, altitude: &str, context: usize) -> i64 {
        self.bench.run(|| register_at(altitude, context)).unwrap().unwrap()
    }

    fn finding(&self) -> Rule {
        self.bench.machine().finding().unwrap().rule
    }
}

fn register_at(altitude: &str, context: usize) -> Result<i64, NtStatus> {
    let units: Vec<u16> = altitude.encode_utf16().collect();
    let mut altitude = UNICODE_STRING::from_utf16(&units).unwrap();
    let mut cookie = 0_i64;
    let out = Raw::of(&raw mut cookie);
    let routine = callback as *const () as usize;
    cm_register_callback_ex(routine, Raw::of(&raw mut altitude), 0, context, out, 0).ok()?;
    Ok(out.read())
}

#[test]
fn every_operation_is_announced_and_reported() {
    conforms!(
        "wdm/ne-wdm-_reg_notify_class.md",
        "Each operation has a class before it and one after it; a handle's close is among them."
    );
    let rig = Rig::new();
    rig.register("100", 1);
    let (key, is_new) = rig.program.create_key(PATH, ALL).unwrap();
    assert!(!is_new);
    let classes = |operate: &dyn Fn()| {
        seen();
        operate();
        seen().into_iter().map(|(_, class)| class).collect::<Vec<_>>()
    };
    assert_eq!(seen(), [(1, 26), (1, 27)]);
    assert_eq!(classes(&|| key.set_value("a", &Value::dword(1)).unwrap()), [1, 16]);
    assert_eq!(classes(&|| assert_eq!(key.value("a").unwrap(), Value::dword(1))), [8, 23]);
    assert_eq!(classes(&|| assert_eq!(key.values().unwrap(), ["a", "Number"])), [6, 21, 6, 21, 6, 21]);
    assert_eq!(classes(&|| assert!(key.subkeys().unwrap().is_empty())), [5, 20]);
    assert_eq!(classes(&|| key.delete_value("a").unwrap()), [2, 17]);
    assert_eq!(classes(&|| key.flush().unwrap()), [30, 31]);
    assert_eq!(classes(&|| key.delete().unwrap()), [0, 15]);
    assert_eq!(classes(&|| drop(rig.program.open_key(r"\Registry\Machine", ALL).unwrap())), [28, 29, 14, 25]);
    seen();
    drop(key);
    assert_eq!(seen(), [(1, 14), (1, 25)]);
}

#[test]
fn a_refused_operation_does_not_happen_and_its_end_is_only_for_those_above() {
    conforms!(
        "docs:kernel/supporting-layered-registry-filtering-drivers.md",
        "Callbacks are called from the highest altitude down, until one does not return success."
    );
    conforms!(
        "docs:kernel/handling-notifications.md",
        "A status that is no success blocks the operation and goes to its caller; that callback gets no post-notification."
    );
    let rig = Rig::new();
    rig.register("100", 3);
    rig.register("300", 1);
    rig.register("200", 2);
    let key = rig.program.open_key(PATH, ALL).unwrap();
    assert_eq!(seen(), [(1, 28), (2, 28), (3, 28), (3, 29), (2, 29), (1, 29)]);
    script(|context, class, information| {
        if class == 16 {
            let post = Raw::<PostOperation>::at(information).read();
            assert_eq!((post.status, post.return_status), (NtStatus::ACCESS_DENIED, NtStatus::ACCESS_DENIED));
        }
        if (context, class) == (2, 1) { NtStatus::ACCESS_DENIED } else { NtStatus::SUCCESS }
    });
    assert_eq!(key.set_value("Number", &Value::dword(8)), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(seen(), [(1, 1), (2, 1), (1, 16)]);
    assert_eq!(key.value("Number").unwrap(), Value::dword(7));
}

#[test]
fn a_bypassed_operation_is_the_callback_s_and_succeeds() {
    conforms!(
        "docs:kernel/handling-notifications.md",
        "STATUS_CALLBACK_BYPASS before an operation makes it succeed for the caller without being carried out."
    );
    let rig = Rig::new();
    rig.register("100", 1);
    let key = rig.program.open_key(PATH, ALL).unwrap();
    script(|_, class, information| {
        if class != 1 {
            return NtStatus::SUCCESS;
        }
        let set = Raw::<SetValue>::at(information).read();
        assert_eq!(unicode::name(set.name).as_deref(), Ok("Number"));
        assert_eq!((set.kind, set.data.read_bytes(set.size as usize)), (4, vec![8, 0, 0, 0]));
        NtStatus::CALLBACK_BYPASS
    });
    assert_eq!(key.set_value("Number", &Value::dword(8)), Ok(()));
    assert_eq!(key.value("Number").unwrap(), Value::dword(7));
}

#[test]
fn a_post_notification_can_replace_the_status() {
    conforms!(
        "wdm/ns-wdm-_reg_post_operation_information.md",
        "With STATUS_CALLBACK_BYPASS after an operation, ReturnStatus is what the caller gets; else it is ignored."
    );
    conforms!(
        "wdm/ns-wdm-_reg_post_operation_information.md",
        "CallContext is what the callback stored in the pre-notification's structure."
    );
    let rig = Rig::new();
    rig.register("100", 1);
    let key = rig.program.open_key(PATH, ALL).unwrap();
    let answer = |bypasses: bool| {
        script(move |_, class, information| match class {
            1 => {
                field!(Raw::<SetValue>::at(information), SetValue, call_context).write(0x77);
                NtStatus::SUCCESS
            }
            16 => {
                let post = Raw::<PostOperation>::at(information);
                assert_eq!(post.read().call_context, 0x77);
                field!(post, PostOperation, return_status).write(NtStatus::ACCESS_DENIED);
                if bypasses { NtStatus::CALLBACK_BYPASS } else { NtStatus::SUCCESS }
            }
            _ => NtStatus::SUCCESS,
        });
    };
    answer(false);
    assert_eq!(key.set_value("Number", &Value::dword(8)), Ok(()));
    answer(true);
    assert_eq!(key.set_value("Number", &Value::dword(9)), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(rig.bench.machine().registry().open(PATH).unwrap().value("Number").unwrap(), Value::dword(9));
}

#[test]
fn an_open_says_what_is_opened_and_what_came_of_it() {
    conforms!(
        "wdm/ns-wdm-_reg_create_key_information_v1.md",
        "CompleteName is the path as given; an absolute one is under the RootObject \\REGISTRY; RemainingName is relative."
    );
    conforms!(
        "wdm/nf-wdm-cmgetcallbackversion.md",
        "Since Windows 7, an open that failed has a NULL Object afterwards."
    );
    let rig = Rig::new();
    rig.register("100", 1);
    script(|_, class, information| {
        match class {
            28 => {
                let open = Raw::<CreateKey>::at(information).read();
                let complete = unicode::name(open.complete_name).unwrap();
                assert_eq!(complete.strip_prefix(r"\Registry\"), unicode::name(open.remaining_name).ok().as_deref());
                assert_eq!((open.desired, open.version, open.transaction), (0x2_0019, 1, 0));
                let root = Thread::current().machine().nt.objects().lookup(open.root).unwrap();
                assert_eq!((root.type_name(), root.name().as_deref()), ("Key", Some(r"\REGISTRY")));
            }
            29 => {
                let post = Raw::<PostOperation>::at(information).read();
                let found = Thread::current().machine().nt.objects().lookup(post.object);
                assert_eq!(found.is_some(), post.status == NtStatus::SUCCESS);
                assert_eq!(found.and_then(|key| key.name()), post.status.ok().ok().map(|()| FULL.to_owned()));
            }
            _ => {}
        }
        NtStatus::SUCCESS
    });
    assert!(rig.program.open_key(PATH, 0x2_0019).is_ok());
    let missing = rig.program.open_key(r"\Registry\Machine\None", 0x2_0019);
    assert_eq!(missing.map(drop), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    assert!(rig.bench.machine().finding().is_none());
}

#[test]
fn a_bypassed_open_gives_the_key_that_the_callback_has_put_in() {
    conforms!(
        "wdm/ns-wdm-_reg_create_key_information_v1.md",
        "A callback that bypasses an open supplies GrantedAccess, Disposition and ResultObject."
    );
    let rig = Rig::new();
    let other = rig.bench.machine().registry().create(r"\Registry\Machine\Software\Other").unwrap();
    other.set_value("Here", Value::dword(1)).unwrap();
    rig.register("100", 1);
    let held = rig.program.open_key(r"\Registry\Machine\Software\Other", ALL).unwrap();
    let body = rig.program.handles().entry(held.handle()).unwrap().object.body();
    script(move |_, class, information| {
        if class != 28 {
            return NtStatus::SUCCESS;
        }
        // As ObReferenceObjectByHandle leaves it.
        let call = Call::enter();
        call.machine().nt.objects().reference(&call, body);
        let open = Raw::<CreateKey>::at(information);
        field!(open, CreateKey, granted).write(1);
        field!(open, CreateKey, result).read().write(body);
        NtStatus::CALLBACK_BYPASS
    });
    let key = rig.program.open_key(PATH, ALL).unwrap();
    assert_eq!(rig.program.granted_access(key.handle()), Ok(1));
    assert_eq!(key.value("Here").unwrap(), Value::dword(1));
    SCRIPT.set(None);
    drop((key, held));
    assert!(rig.bench.machine().inner().nt.objects().references_of(rig.bench.driver()).is_empty());
}

#[test]
fn contexts_come_back_and_are_cleaned_up_with_the_handle_and_with_the_callback() {
    conforms!(
        "wdm/nf-wdm-cmsetcallbackobjectcontext.md",
        "The context comes with later notifications of the object, and RegNtCallbackObjectContextCleanup after its handle's close."
    );
    conforms!(
        "wdm/nf-wdm-cmsetcallbackobjectcontext.md",
        "Unregistering the callback cleans its contexts up too; the context before is returned."
    );
    let rig = Rig::new();
    let cookie = rig.register("100", 1);
    let key = rig.program.open_key(PATH, ALL).unwrap();
    let other = rig.program.open_key(PATH, ALL).unwrap();
    let body = |key: &crate::nt::registry::program::ProgramKey| {
        rig.program.handles().entry(key.handle()).unwrap().object.body()
    };
    let set = |object, context| {
        let (mut cookie, mut old) = (cookie, 0_usize);
        let old = Raw::of(&raw mut old);
        let status = objects::cm_set_callback_object_context(object, Raw::of(&raw mut cookie), context, old);
        (status, old.read())
    };
    let bodies = [body(&key), body(&other)];
    rig.bench
        .run(|| {
            assert_eq!(set(bodies[0], 0x11), (NtStatus::SUCCESS, 0));
            assert_eq!(set(bodies[0], 0x12), (NtStatus::SUCCESS, 0x11));
            assert_eq!(set(bodies[1], 0x21), (NtStatus::SUCCESS, 0));
            assert_eq!(set(0x1234, 0x21).0, NtStatus::INVALID_PARAMETER);
        })
        .unwrap();
    let contexts = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&contexts);
    script(move |_, class, information| {
        let offset = match class {
            1 => std::mem::offset_of!(SetValue, object_context),
            14 => std::mem::offset_of!(KeyInformation, object_context),
            16 | 25 => std::mem::offset_of!(PostOperation, object_context),
            _ => 8,
        };
        log.borrow_mut().push((class, Raw::<usize>::at(information + offset).read()));
        NtStatus::SUCCESS
    });
    key.set_value("Number", &Value::dword(8)).unwrap();
    drop(key);
    assert_eq!(contexts.take(), [(1, 0x12), (16, 0x12), (14, 0x12), (25, 0x12), (40, 0x12)]);
    rig.bench.run(|| assert!(cm_un_register_callback(cookie).is_success())).unwrap();
    assert_eq!(contexts.take(), [(40, 0x21)]);
}

#[test]
fn what_a_callback_calls_goes_to_those_below_it_only() {
    conforms!(
        "docs:kernel/supporting-layered-registry-filtering-drivers.md",
        "A registry call that a callback makes does not start at the top again."
    );
    let rig = Rig::new();
    rig.register("300", 1);
    rig.register("200", 2);
    rig.register("100", 3);
    let program = Arc::clone(&rig.program);
    let key = rig.program.open_key(PATH, ALL).unwrap();
    seen();
    script(move |context, class, _| {
        if (context, class) == (2, 1) {
            assert!(program.open_key(r"\Registry\Machine", 0x2_0019).map(std::mem::forget).is_ok());
        }
        NtStatus::SUCCESS
    });
    key.set_value("Number", &Value::dword(8)).unwrap();
    assert_eq!(seen(), [(1, 1), (2, 1), (3, 28), (3, 29), (3, 1), (3, 16), (2, 16), (1, 16)]);
}

#[test]
fn keys_have_ids_and_names_that_are_lent() {
    conforms!(
        "wdm/nf-wdm-cmcallbackgetkeyobjectidex.md",
        "Two objects of one key have the same id; the name is the full path, and the caller releases it."
    );
    conforms!(
        "wdm/nf-wdm-cmcallbackgetkeyobjectid.md",
        "The name is the object's: nobody releases it. A wrong cookie or object is STATUS_INVALID_PARAMETER."
    );
    let rig = Rig::new();
    let cookie = rig.register("100", 1);
    let keys = [(); 2].map(|()| rig.program.open_key(PATH, ALL).unwrap());
    let bodies = [0, 1].map(|index| rig.program.handles().entry(keys[index].handle()).unwrap().object.body());
    let leaks = || rig.bench.machine().inner().nt.leaks(rig.bench.driver());
    let (mut cookie, mut id, mut name) = (cookie, 0_usize, 0_usize);
    let (cookie, id, name) = (Raw::of(&raw mut cookie), Raw::of(&raw mut id), Raw::of(&raw mut name));
    rig.bench
        .run(|| {
            assert!(get(cookie, bodies[0], id, name).is_success());
            let first = id.read();
            assert_eq!(unicode::name(Raw::at(name.read())).as_deref(), Ok(FULL));
            assert!(get(cookie, bodies[1], id, Raw::NULL).is_success());
            assert_eq!(id.read(), first);
            assert_eq!(get(cookie, 0x1234, id, name), NtStatus::INVALID_PARAMETER);
            assert_eq!(leaks().len(), 1, "the registration alone");
            assert_eq!(lend(cookie, bodies[0], id, name, 1), NtStatus::INVALID_PARAMETER);
            assert!(lend(cookie, bodies[0], id, name, 0).is_success());
            assert_eq!((unicode::name(Raw::at(name.read())).as_deref(), id.read()), (Ok(FULL), first));
            assert_eq!(leaks().len(), 2);
            release(name.read());
            assert_eq!(leaks().len(), 1);
        })
        .unwrap();
    assert_eq!(rig.bench.run(|| release(name.read())).unwrap_err().0.rule, Rule::BadPoolFree);
}

#[test]
fn registrations_have_altitudes_of_their_own_and_end_once() {
    conforms!(
        "wdm/nf-wdm-cmregistercallbackex.md",
        "An altitude that is taken is STATUS_FLT_INSTANCE_ALTITUDE_COLLISION."
    );
    conforms!("wdm/nf-wdm-cmunregistercallback.md", "A cookie of no callback is STATUS_INVALID_PARAMETER.");
    let rig = Rig::new();
    let cookie = rig.register("100", 1);
    rig.bench
        .run(|| {
            assert_eq!(register_at("100.0", 2), Err(NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION));
            let (mut one, mut two) = (0_i64, 0_i64);
            let routine = callback as *const () as usize;
            assert!(cm_register_callback(routine, 3, Raw::of(&raw mut one)).is_success());
            assert!(cm_register_callback(routine, 4, Raw::of(&raw mut two)).is_success());
        })
        .unwrap();
    drop(rig.program.open_key(PATH, ALL).unwrap());
    let order: Vec<usize> = seen().into_iter().take(3).map(|(context, _)| context).collect();
    assert_eq!(order, [3, 4, 1], "those without an altitude are near the top, in their order");
    rig.bench
        .run(|| {
            assert!(cm_un_register_callback(cookie).is_success());
            assert_eq!(cm_un_register_callback(cookie), NtStatus::INVALID_PARAMETER);
        })
        .unwrap();
}

#[test]
fn a_callback_that_unregisters_itself_is_found() {
    conforms!(
        "wdm/nf-wdm-cmunregistercallback.md",
        "A driver must not call CmUnRegisterCallback from its callback: that deadlocks."
    );
    let rig = Rig::new();
    let cookie = rig.register("100", 1);
    script(move |_, _, _| cm_un_register_callback(cookie));
    let _stopped = rig.program.open_key(PATH, ALL);
    assert_eq!(rig.finding(), Rule::Deadlock);
}

#[test]
fn programs_have_the_rights_that_their_tokens_have() {
    let rig = Rig::new();
    let user = rig.bench.machine().process("user.exe").plain_user().start().unwrap();
    assert_eq!(user.open_key(PATH, ALL).map(drop), Err(NtStatus::ACCESS_DENIED));
    let refused = user.create_key(r"\Registry\Machine\Software\Mine", 0x2_0019);
    assert_eq!(refused.map(drop), Err(NtStatus::ACCESS_DENIED));
    let reads = user.open_key(PATH, 0x2_0019).unwrap();
    assert_eq!(reads.value("Number").unwrap().as_dword(), Some(7));
    assert_eq!(reads.set_value("Number", &Value::dword(8)), Err(NtStatus::ACCESS_DENIED));
    rig.bench.machine().registry().create(r"\Registry\User\S-1-5-21").unwrap();
    let (own, is_new) = user.create_key(r"\Registry\User\S-1-5-21\Software", ALL).unwrap();
    assert!(is_new);
    assert_eq!(own.set_value("a", &Value::text("b")), Ok(()));
}
