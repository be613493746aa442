//! One family of mutants: a source, how it is driven, and what is found in each mutant.

use std::fmt;

use kernel_host::{DriverError, Finding, LeakKind, Rule};
use nt_types::NtStatus;

use crate::rig::{Broken, Rig};

/// Drives a driver that is not loaded yet; it ends early when something fails, which in a mutant is to be expected.
pub(crate) type Scenario = fn(&Rig) -> Result<(), Broken>;

/// A deliberate mistake and how it is caught.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// Name of its source, without extension.
    pub(crate) family: &'static str,
    /// What is behind `MUTANT_` in the source, in lower case.
    pub(crate) name: &'static str,
    /// What kernel-host has to say.
    pub(crate) caught: Caught,
}

/// What has to be found in a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caught {
    /// The rule, the call in which it was noticed, and the function of the driver that has to be on the stack.
    While(Rule, &'static str, &'static str),
    /// The rule and the callback that returned and broke it: the driver is on the stack no more.
    Returning(Rule, &'static str),
    /// The status that `DriverEntry` returns: the mistake is refused and nothing is left.
    Refused(NtStatus),
    /// The rule when the driver has gone, the kind of leak, and a word of its description.
    Left(Rule, LeakKind, &'static str),
}

impl Caught {
    /// The rule as reports spell it.
    pub(crate) fn rule(&self) -> String {
        match self {
            Self::While(rule, ..) | Self::Returning(rule, _) | Self::Left(rule, ..) => format!("{rule:?}"),
            Self::Refused(_) => "refused at load".to_owned(),
        }
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::While(_, call, function) => write!(f, "in `{call}`, with `{function}` on the stack"),
            Self::Returning(_, call) => write!(f, "when `{call}` has returned"),
            Self::Refused(status) => write!(f, "`DriverEntry` returns {status}"),
            Self::Left(_, kind, detail) => write!(f, "after unload: {kind:?}, \"{detail}\""),
        }
    }
}

impl Mutant {
    /// Name of the image, without extension.
    fn image(&self) -> String {
        format!("{}-{}", self.family, self.name.replace('_', "-"))
    }

    /// Drives the mutant until kernel-host stops the machine, and compares what it says.
    ///
    /// # Panics
    /// When nothing is found, or something else.
    pub(crate) fn check(&self, scenario: Scenario) {
        let image = self.image();
        let rig = Rig::new(&image);
        let driven = scenario(&rig);
        if let Caught::Refused(status) = self.caught {
            return self.check_refused(&rig, &driven, status);
        }
        let unloaded = rig.unload();
        let finding = rig.finding();
        let finding = finding.unwrap_or_else(|| panic!("{image}: nothing was found; {driven:?}, {unloaded:?}"));
        println!("{image}: {finding}");
        assert_eq!(finding.driver, format!("{image}.sys"), "{image}: the wrong driver: {finding}");
        match self.caught {
            Caught::While(rule, call, function) => {
                assert_eq!((finding.rule, finding.call.as_str()), (rule, call), "{image}: {finding}");
                let frame = format!("{image}!{function}+");
                assert!(finding.stack.iter().any(|line| line.starts_with(&frame)), "{image}: no {frame} in {finding}");
            }
            Caught::Returning(rule, call) => {
                assert_eq!((finding.rule, finding.call.as_str()), (rule, call), "{image}: {finding}");
            }
            Caught::Left(rule, kind, detail) => self.check_left(&rig, &driven, &finding, (rule, kind, detail)),
            Caught::Refused(_) => unreachable!("checked above"),
        }
    }

    fn check_refused(&self, rig: &Rig, driven: &Result<(), Broken>, expected: NtStatus) {
        let image = self.image();
        let Err(Broken::Driver(DriverError::EntryFailed { status, report })) = driven else {
            panic!("{image}: it was not refused: {driven:?}; {:?}", rig.machine().finding());
        };
        assert_eq!(*status, expected, "{image}");
        assert!(report.is_clean(), "{image}: {report}");
    }

    fn check_left(
        &self,
        rig: &Rig,
        driven: &Result<(), Broken>,
        finding: &Finding,
        (rule, kind, detail): (Rule, LeakKind, &str),
    ) {
        let image = self.image();
        assert_eq!(finding.rule, rule, "{image}: {finding}");
        let report = match driven {
            Err(Broken::Driver(DriverError::EntryFailed { report, .. })) => report.clone(),
            _ => rig.machine().unload_reports().pop().unwrap_or_else(|| panic!("{image}: no report, but {finding}")),
        };
        let is_it = report.leaks.iter().any(|leak| leak.kind == kind && leak.detail.contains(detail));
        assert!(is_it, "{image}: no {kind:?} \"{detail}\" in {report}");
    }
}

/// Drives the correct driver of a family, which leaves nothing and breaks no rule.
///
/// # Panics
/// When anything fails.
pub(crate) fn check_twin(family: &str, scenario: Scenario) {
    let rig = Rig::new(family);
    if let Err(broken) = scenario(&rig) {
        panic!("{family}: {broken:?}; {:?}", rig.machine().finding());
    }
    match rig.unload() {
        Ok(report) => assert!(report.is_clean(), "{family}: {report}"),
        Err(broken) => panic!("{family}: {broken:?}"),
    }
    if let Some(finding) = rig.machine().finding() {
        panic!("{family}: {finding}");
    }
}

/// Declares a family: its source, its scenario, and for each mutant a test of its own.
macro_rules! family {
    ($family:ident, $scenario:expr; $($name:ident: $caught:expr;)*) => {
        /// The mutants of this family.
        pub(crate) const MUTANTS: &[crate::family::Mutant] = &[
            $(crate::family::Mutant { family: stringify!($family), name: stringify!($name), caught: $caught },)*
        ];

        #[test]
        fn the_correct_driver_passes() {
            crate::family::check_twin(stringify!($family), $scenario);
        }

        $(
            #[test]
            fn $name() {
                let mutant = crate::family::Mutant { family: stringify!($family), name: stringify!($name), caught: $caught };
                mutant.check($scenario);
            }
        )*
    };
}
pub(crate) use family;
