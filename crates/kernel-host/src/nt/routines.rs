//! Finding exports by name at run time.

use nt_types::UNICODE_STRING;

use super::raw::Raw;
use super::unicode::name;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::image::late::routine;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    MmGetSystemRoutineAddress(max 0) = mm_get_system_routine_address;
}

extern "efiapi" fn mm_get_system_routine_address(routine_name: Raw<UNICODE_STRING>) -> usize {
    let call = Call::enter();
    let Ok(wanted) = name(routine_name) else {
        call.stop(Rule::BadArgument, "the routine's name is no UTF-16 string");
    };
    call.detail(&wanted);
    // The page: routines of the kernel and of the HAL, whose names the kernel's export table has here.
    routine(call.driver(), "ntoskrnl.exe", &wanted).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn address(routine: &str) -> usize {
        let mut text: Vec<u16> = routine.encode_utf16().collect();
        let mut string = UNICODE_STRING::from_utf16(&text).expect("short");
        let address = mm_get_system_routine_address(Raw::of(&raw mut string));
        text.clear();
        address
    }

    #[test]
    fn a_routine_is_found_by_name_and_can_be_called() {
        conforms!(
            "wdm/nf-wdm-mmgetsystemroutineaddress.md",
            "The address of an exported routine is returned, NULL when there is none of the name."
        );
        let bench = Bench::new();
        let irql = bench.run(|| {
            assert_eq!(address("KeGetCurrentIrqI"), 0);
            assert_eq!(address("KeGetCurrentIrql"), address("KeGetCurrentIrql"), "one thunk serves all");
            // SAFETY: the type of KeGetCurrentIrql.
            let routine =
                unsafe { std::mem::transmute::<usize, extern "efiapi" fn() -> u8>(address("KeGetCurrentIrql")) };
            routine()
        });
        assert_eq!(irql.unwrap(), 0);
        assert_eq!(bench.machine().trace().pop().unwrap().name, "KeGetCurrentIrql");
    }

    #[test]
    fn a_variable_is_found_as_its_address() {
        let highest = Bench::new().run(|| Raw::<usize>::at(address("MmHighestUserAddress")).read());
        assert_eq!(highest.unwrap(), crate::process::HIGHEST_USER_ADDRESS);
    }

    #[test]
    fn a_routine_that_is_not_implemented_stops_with_its_name_when_it_is_called() {
        let stopped = Bench::new().run(|| {
            // SAFETY: whatever the type, the call does not return.
            let routine = unsafe { std::mem::transmute::<usize, extern "efiapi" fn()>(address("KeLoaderBlock")) };
            routine();
        });
        let finding = stopped.unwrap_err().0;
        assert_eq!((finding.rule, finding.call.as_str()), (Rule::NotImplemented, "KeLoaderBlock"));
    }
}
