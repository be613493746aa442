//! IRQL and APC regions.

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use nt_types::{APC_LEVEL, DISPATCH_LEVEL, HIGH_LEVEL};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeGetCurrentIrql(max 15) = ke_get_current_irql;
    KfRaiseIrql(max 15) = kf_raise_irql;
    KeRaiseIrqlToDpcLevel(max 2) = ke_raise_irql_to_dpc_level;
    KeLowerIrql(max 15) = ke_lower_irql;
    KeEnterCriticalRegion(max 1) = ke_enter_critical_region;
    KeLeaveCriticalRegion(max 1) = ke_leave_critical_region;
    KeEnterGuardedRegion(max 1) = ke_enter_guarded_region;
    KeLeaveGuardedRegion(max 1) = ke_leave_guarded_region;
    KeAreApcsDisabled(max 2) = ke_are_apcs_disabled;
    KeAreAllApcsDisabled(max 2) = ke_are_all_apcs_disabled;
}

extern "efiapi" fn ke_get_current_irql() -> u8 {
    Call::enter().thread().irql()
}

extern "efiapi" fn kf_raise_irql(irql: u8) -> u8 {
    raise(&Call::enter(), irql)
}

extern "efiapi" fn ke_raise_irql_to_dpc_level() -> u8 {
    raise(&Call::enter(), DISPATCH_LEVEL)
}

/// Raises the IRQL; gives the one before. Stops when that would lower it.
pub(crate) fn raise(call: &Call, irql: u8) -> u8 {
    let before = call.thread().irql();
    if irql < before || irql > HIGH_LEVEL {
        call.stop(Rule::BadArgument, format!("IRQL {before} cannot be raised to {irql}"));
    }
    call.thread().set_irql(irql);
    before
}

extern "efiapi" fn ke_lower_irql(irql: u8) {
    lower(&Call::enter(), irql);
}

/// Lowers the IRQL. Stops when that would raise it.
pub(crate) fn lower(call: &Call, irql: u8) {
    let before = call.thread().irql();
    if irql > before {
        call.stop(Rule::BadArgument, format!("IRQL {before} cannot be lowered to {irql}"));
    }
    call.thread().set_irql(irql);
}

extern "efiapi" fn ke_enter_critical_region() {
    enter_critical_region(&Call::enter());
}

pub(super) fn enter_critical_region(call: &Call) {
    call.thread().set_critical_regions(call.thread().critical_regions() + 1);
}

extern "efiapi" fn ke_leave_critical_region() {
    let call = Call::enter();
    leave_critical_region(&call);
}

pub(super) fn leave_critical_region(call: &Call) {
    let Some(left) = call.thread().critical_regions().checked_sub(1) else {
        call.stop(Rule::BadState, "the thread is in no critical region");
    };
    call.thread().set_critical_regions(left);
}

extern "efiapi" fn ke_enter_guarded_region() {
    enter_guarded_region(&Call::enter());
}

pub(super) fn enter_guarded_region(call: &Call) {
    call.thread().set_guarded_regions(call.thread().guarded_regions() + 1);
}

extern "efiapi" fn ke_leave_guarded_region() {
    leave_guarded_region(&Call::enter());
}

pub(super) fn leave_guarded_region(call: &Call) {
    let Some(left) = call.thread().guarded_regions().checked_sub(1) else {
        call.stop(Rule::BadState, "the thread is in no guarded region");
    };
    call.thread().set_guarded_regions(left);
}

extern "efiapi" fn ke_are_apcs_disabled() -> u8 {
    u8::from(normal_apcs_disabled(&Call::enter()))
}

/// Whether no normal kernel APC can run in the calling thread.
pub(super) fn normal_apcs_disabled(call: &Call) -> bool {
    call.thread().critical_regions() > 0 || all_apcs_disabled(call)
}

extern "efiapi" fn ke_are_all_apcs_disabled() -> u8 {
    u8::from(all_apcs_disabled(&Call::enter()))
}

fn all_apcs_disabled(call: &Call) -> bool {
    call.thread().guarded_regions() > 0 || call.thread().irql() >= APC_LEVEL
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn raising_gives_the_level_to_go_back_to() {
        conforms!("wdm/nf-wdm-kelowerirql.md", "The IRQL is restored to the one that raising returned.");
        let levels = Bench::new().run(|| {
            let before = ke_raise_irql_to_dpc_level();
            let raised = ke_get_current_irql();
            ke_lower_irql(before);
            (before, raised, ke_get_current_irql())
        });
        assert_eq!(levels.unwrap(), (0, 2, 0));
    }

    #[test]
    fn the_irql_cannot_be_raised_downwards_or_lowered_upwards() {
        conforms!(
            "wdm/nf-wdm-keraiseirql.md",
            "The new IRQL is not below the current one; KeLowerIrql takes none above it."
        );
        let down = Bench::new().run(|| {
            kf_raise_irql(2);
            kf_raise_irql(1);
        });
        assert_eq!(down.unwrap_err().0.rule, Rule::BadArgument);
        assert_eq!(Bench::new().run(|| ke_lower_irql(1)).unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn a_critical_region_disables_normal_apcs_and_a_guarded_one_all() {
        conforms!(
            "wdm/nf-wdm-keareallapcsdisabled.md",
            "TRUE is returned in a guarded region or at APC_LEVEL, not in a critical region."
        );
        conforms!(
            "wdm/nf-wdm-keareapcsdisabled.md",
            "TRUE is returned in a critical or guarded region, or at APC_LEVEL."
        );
        Bench::new()
            .run(|| {
                assert_eq!((ke_are_apcs_disabled(), ke_are_all_apcs_disabled()), (0, 0));
                ke_enter_critical_region();
                assert_eq!((ke_are_apcs_disabled(), ke_are_all_apcs_disabled()), (1, 0));
                ke_enter_guarded_region();
                assert_eq!((ke_are_apcs_disabled(), ke_are_all_apcs_disabled()), (1, 1));
                ke_leave_guarded_region();
                ke_leave_critical_region();
            })
            .unwrap();
    }

    #[test]
    fn a_region_that_was_not_entered_cannot_be_left() {
        conforms!("wdm/nf-wdm-keleaveguardedregion.md", "Each call matches one of KeEnterGuardedRegion.");
        assert_eq!(Bench::new().run(|| ke_leave_critical_region()).unwrap_err().0.rule, Rule::BadState);
        assert_eq!(Bench::new().run(|| ke_leave_guarded_region()).unwrap_err().0.rule, Rule::BadState);
    }
}
