//! The power manager, as far as a computer that is always on has one: settings that drivers watch, states that they report.
//!
//! Pages: `ntifs/nf-ntifs-poregisterpowersettingcallback`, `ntifs/nf-ntifs-posetpowerstate`, `ntifs/nf-ntifs-pocalldriver`,
//! `ntifs/nf-ntifs-postartnextpowerirp`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nt_types::{APC_LEVEL, DEVICE_OBJECT, IO_STACK_LOCATION, IRP, IRP_MJ_POWER, NtStatus};

use super::io::request::iof_call_driver;
use super::raw::{Raw, field};
use super::registered::{Kind, Registration};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::Machine;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PoRegisterPowerSettingCallback(max 0, fails RESOURCES) = register_setting;
    PoUnregisterPowerSettingCallback(max 0) = unregister_setting;
    PoCallDriver(max 2, fails REQUEST) = iof_call_driver;
    PoStartNextPowerIrp(max 2) = start_next_power_irp;
    PoSetPowerState(max 2) = set_power_state;
}

/// A GUID as it lies in memory.
type Guid = [u8; 16];

/// `GUID_ACDC_POWER_SOURCE`: 0 while on mains power, and `GUID_CONSOLE_DISPLAY_STATE`: 1 while the display is on.
const INITIAL: [(Guid, u32); 2] = [
    ([0x59, 0x9A, 0x3E, 0x5D, 0xD5, 0xE9, 0x00, 0x4B, 0xA6, 0xBD, 0xFF, 0x34, 0xFF, 0x51, 0x65, 0x48], 0),
    ([0x56, 0x95, 0xE6, 0x6F, 0x4A, 0x70, 0xA0, 0x47, 0x8F, 0x24, 0xC2, 0x8D, 0x93, 0x6F, 0xDA, 0x47], 1),
];

/// `DevicePowerState`, and `PowerDeviceD0`: on. Devices are on when they begin.
const DEVICE_POWER_STATE: i32 = 1;
const D0: u32 = 1;

/// Values of power settings, and states of devices.
#[derive(Debug)]
pub(crate) struct Power {
    settings: Mutex<HashMap<Guid, Vec<u8>>>,
    devices: Mutex<HashMap<usize, u32>>,
}

impl Default for Power {
    fn default() -> Self {
        let settings = INITIAL.into_iter().map(|(setting, value)| (setting, value.to_le_bytes().to_vec()));
        Self { settings: Mutex::new(settings.collect()), devices: Mutex::default() }
    }
}

impl Power {
    fn value(&self, setting: &Guid) -> Option<Vec<u8>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).get(setting).cloned()
    }
}

impl Machine {
    /// Changes a power setting (`GUID_LIDSWITCH_STATE_CHANGE`, ...), of which drivers hear that have registered for it.
    ///
    /// `setting` is the GUID as it lies in memory. At first mains power and an active display are set, nothing else.
    ///
    /// # Errors
    /// The finding, when a driver's routine broke a rule.
    pub fn change_power_setting(&self, setting: [u8; 16], value: &[u8]) -> Result<(), Stopped> {
        let nt = &self.inner().nt;
        nt.power().settings.lock().unwrap_or_else(PoisonError::into_inner).insert(setting, value.to_vec());
        Thread::enter(self.inner(), |thread| {
            let watching = nt.registered().of_kind(Kind::PowerSetting).into_iter();
            watching.filter(|entry| setting_of(entry) == setting).try_for_each(|entry| notify(thread, &entry, value))
        })
    }
}

/// What a registration watches: its GUID is kept in the page that its handle is the address of.
fn setting_of(entry: &Registration) -> Guid {
    Raw::<Guid>::at(entry.key).read()
}

fn notify(thread: &Thread, entry: &Registration, value: &[u8]) -> Result<(), Stopped> {
    type Callback = unsafe extern "efiapi" fn(usize, *const u8, u32, usize) -> NtStatus;
    // SAFETY: the address of the driver's POWER_SETTING_CALLBACK.
    let routine = unsafe { std::mem::transmute::<usize, Callback>(entry.routine) };
    // SAFETY: it gets the setting, its value and its length, and its context.
    let body = || unsafe { routine(entry.key, value.as_ptr(), value.len() as u32, entry.context) };
    thread.call_driver(&entry.driver, "PowerSettingCallback", 0, body).map(drop)
}

extern "efiapi" fn register_setting(
    _device: usize,
    setting: Raw<Guid>,
    callback: usize,
    context: usize,
    handle: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    if callback == 0 {
        call.stop(Rule::BadArgument, "Callback is NULL");
    }
    let setting = setting.read();
    let nt = &call.machine().nt;
    let Some(page) = nt.arena().allocate(1, crate::nt::arena::Access::ReadWrite) else {
        return NtStatus::INSUFFICIENT_RESOURCES;
    };
    Raw::at(page).write(setting);
    nt.registered().add(&call, Kind::PowerSetting, page, callback, context);
    handle.write_if_some(page);
    // The page: the first call may come before this one returns, and tells what the setting is now.
    let now = nt.power().value(&setting);
    let entry = nt.registered().of_kind(Kind::PowerSetting).into_iter().find(|entry| entry.key == page);
    if let (Some(value), Some(entry)) = (now, entry)
        && notify(call.thread(), &entry, &value).is_err()
    {
        call.thread().leave_if_stopped();
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn unregister_setting(handle: usize) -> NtStatus {
    let call = Call::enter();
    let nt = &call.machine().nt;
    if nt.registered().remove(Kind::PowerSetting, handle).is_none() {
        return NtStatus::INVALID_PARAMETER;
    }
    nt.arena().release(handle, 1);
    NtStatus::SUCCESS
}

/// The page: since Windows Vista the call does nothing. That it is one for a power request is checked all the same.
extern "efiapi" fn start_next_power_irp(irp: Raw<IRP>) {
    let call = Call::enter();
    let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    if field!(location, IO_STACK_LOCATION, MajorFunction).read() != IRP_MJ_POWER {
        call.stop(Rule::BadArgument, format!("{irp:?} is no power IRP at the caller's stack location"));
    }
}

extern "efiapi" fn set_power_state(device: Raw<DEVICE_OBJECT>, kind: i32, state: u32) -> u32 {
    let call = Call::enter();
    if kind != DEVICE_POWER_STATE {
        call.stop(Rule::BadArgument, format!("POWER_STATE_TYPE {kind}: drivers specify DevicePowerState"));
    }
    if state != D0 && call.thread().irql() > APC_LEVEL {
        call.stop(Rule::IrqlTooHigh, "PoSetPowerState for a state other than D0 above APC_LEVEL");
    }
    let mut devices = call.machine().nt.power().devices.lock().unwrap_or_else(PoisonError::into_inner);
    devices.insert(device.address(), state).unwrap_or(D0)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::leak::LeakKind;

    thread_local! {
        static SEEN: RefCell<Vec<(usize, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    }

    extern "efiapi" fn changed(_setting: usize, value: Raw<u8>, length: u32, context: usize) -> NtStatus {
        SEEN.with_borrow_mut(|seen| seen.push((context, value.read_bytes(length as usize))));
        NtStatus::SUCCESS
    }

    fn register(setting: Guid) -> usize {
        let (mut setting, mut handle) = (setting, 0);
        let out = Raw::of(&raw mut handle);
        let status = register_setting(0, Raw::of(&raw mut setting), changed as *const () as usize, 5, out);
        assert_eq!(status, NtStatus::SUCCESS);
        out.read()
    }

    #[test]
    fn a_driver_hears_what_a_setting_is_and_of_each_change() {
        conforms!(
            "ntifs/nf-ntifs-poregisterpowersettingcallback.md",
            "The routine is called with the setting's present value first, then with each new one, and its context."
        );
        conforms!(
            "ntifs/nf-ntifs-pounregisterpowersettingcallback.md",
            "STATUS_SUCCESS is returned for a registration, STATUS_INVALID_PARAMETER for what is none."
        );
        let bench = Bench::new();
        let lid = [7; 16];
        let (source, other) = bench.run(|| (register(INITIAL[0].0), register(lid))).unwrap();
        assert_eq!(SEEN.take(), [(5, vec![0; 4])]);
        bench.machine().change_power_setting(lid, &[1]).unwrap();
        bench.machine().change_power_setting([9; 16], &[2]).unwrap();
        assert_eq!(SEEN.take(), [(5, vec![1])]);
        let statuses = bench.run(|| [source, source, other].map(|handle| unregister_setting(handle)));
        assert_eq!(statuses.unwrap(), [NtStatus::SUCCESS, NtStatus::INVALID_PARAMETER, NtStatus::SUCCESS]);
        bench.machine().change_power_setting(lid, &[0]).unwrap();
        assert_eq!(SEEN.take(), []);
    }

    #[test]
    fn a_watch_that_is_kept_is_found_at_unload() {
        conforms!(
            "ntifs/nf-ntifs-pounregisterpowersettingcallback.md",
            "All callbacks are unregistered in the driver's Unload routine."
        );
        let bench = Bench::new();
        bench.run(|| register([7; 16])).unwrap();
        assert_eq!(bench.machine().held_by(bench.driver()).count(LeakKind::Registration), 1);
    }

    #[test]
    fn the_state_before_is_returned_and_only_waking_is_told_at_dispatch_level() {
        conforms!("ntifs/nf-ntifs-posetpowerstate.md", "The previous power state is returned.");
        conforms!(
            "ntifs/nf-ntifs-posetpowerstate.md",
            "The caller is at APC_LEVEL at most, except when it sets D0; the type is DevicePowerState."
        );
        let device = Raw::<DEVICE_OBJECT>::at(0x1000);
        let bench = Bench::new();
        bench
            .run(|| {
                let states = [4, 1].map(|state| set_power_state(device, 1, state));
                Thread::current().set_irql(2);
                assert_eq!((states, set_power_state(device, 1, 1)), ([1, 4], 1));
                Thread::current().set_irql(0);
            })
            .unwrap();
        let high = bench.run(|| {
            Thread::current().set_irql(2);
            set_power_state(device, 1, 4)
        });
        assert_eq!(high.unwrap_err().0.rule, Rule::IrqlTooHigh);
        assert_eq!(Bench::new().run(|| set_power_state(device, 0, 1)).unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn only_power_requests_are_started_next() {
        conforms!("ntifs/nf-ntifs-postartnextpowerirp.md", "The IRP is one whose major function is IRP_MJ_POWER.");
        let start = |major: u8| {
            let mut location = [0_u64; 9];
            let mut irp = [0_u64; 26];
            let (location, irp) = (Raw::<u64>::of((&raw mut location).cast()), Raw::<u64>::of((&raw mut irp).cast()));
            location.cast::<u8>().write(major);
            field!(irp.cast::<IRP>(), IRP, CurrentStackLocation).write(location.cast().pointer());
            Bench::new().run(|| start_next_power_irp(irp.cast()))
        };
        assert!(start(IRP_MJ_POWER).is_ok());
        assert_eq!(start(3).unwrap_err().0.rule, Rule::BadArgument);
    }
}
