//! What drivers registered with the kernel and have to take back: routines that are called, settings that are kept.
//!
//! One list for all of these that need nothing but a routine and its context; each is known by its kind and a key, which
//! is what the driver passes to take it back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ddi::Call;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;

/// The kinds of registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `KeRegisterBugCheckCallback`; the key is the record.
    BugCheck,
    /// `KeRegisterBugCheckReasonCallback`; likewise.
    BugCheckReason,
    /// `KeRegisterProcessorChangeCallback`; the key is the handle.
    ProcessorChange,
    /// `PoRegisterPowerSettingCallback`; the key is the handle.
    PowerSetting,
    /// `IoRegisterFileSystem`; the key is the control device.
    FileSystem,
    /// `IoRegisterFsRegistrationChange`; the key is the routine.
    FileSystemChange,
    /// `IoRegisterPlugPlayNotification`; the key is the entry.
    PlugPlay,
    /// `ExSetTimerResolution`; the key is the driver, the context the resolution.
    TimerResolution,
}

impl Kind {
    /// The routine that makes one and the one that takes it back.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::BugCheck => ("KeRegisterBugCheckCallback", "KeDeregisterBugCheckCallback"),
            Self::BugCheckReason => ("KeRegisterBugCheckReasonCallback", "KeDeregisterBugCheckReasonCallback"),
            Self::ProcessorChange => ("KeRegisterProcessorChangeCallback", "KeDeregisterProcessorChangeCallback"),
            Self::PowerSetting => ("PoRegisterPowerSettingCallback", "PoUnregisterPowerSettingCallback"),
            Self::FileSystem => ("IoRegisterFileSystem", "IoUnregisterFileSystem"),
            Self::FileSystemChange => ("IoRegisterFsRegistrationChange", "IoUnregisterFsRegistrationChange"),
            Self::PlugPlay => ("IoRegisterPlugPlayNotification", "IoUnregisterPlugPlayNotificationEx"),
            Self::TimerResolution => ("ExSetTimerResolution with TRUE", "ExSetTimerResolution with FALSE"),
        }
    }
}

/// One registration.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) kind: Kind,
    pub(crate) key: usize,
    pub(crate) driver: Arc<Driver>,
    pub(crate) routine: usize,
    pub(crate) context: usize,
}

/// All registrations of a machine, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Registered(Mutex<Vec<Registration>>);

impl Registered {
    fn lock(&self) -> MutexGuard<'_, Vec<Registration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one for the calling driver; false when there is one of the same kind and key.
    pub(crate) fn add(&self, call: &Call, kind: Kind, key: usize, routine: usize, context: usize) -> bool {
        let mut all = self.lock();
        if all.iter().any(|entry| entry.kind == kind && entry.key == key) {
            return false;
        }
        all.push(Registration { kind, key, driver: Arc::clone(call.driver()), routine, context });
        true
    }

    /// Takes one back.
    pub(crate) fn remove(&self, kind: Kind, key: usize) -> Option<Registration> {
        let mut all = self.lock();
        let index = all.iter().position(|entry| entry.kind == kind && entry.key == key)?;
        Some(all.remove(index))
    }

    /// Those of one kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<Registration> {
        self.lock().iter().filter(|entry| entry.kind == kind).cloned().collect()
    }

    /// What `driver` has not taken back.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let all = self.lock();
        let mine = all.iter().filter(|entry| std::ptr::eq(Arc::as_ptr(&entry.driver), driver));
        let leak = |entry: &Registration| {
            let (made, undone) = entry.kind.names();
            let detail = format!("the routine {:#x} is registered ({made} without {undone})", entry.routine);
            Leak { kind: LeakKind::Registration, count: 1, bytes: 0, detail }
        };
        mine.map(leak).collect()
    }
}
