//! `RtlNtStatusToDosError`: which Win32 error a program sees for a status.
//!
//! The pages name the routine and not the pairs; those are the ones that Windows is generally known to have, and a status that
//! is not here is one that it has no error for, or that nobody asked for yet.

use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlNtStatusToDosError(max 1) = rtl_nt_status_to_dos_error;
    RtlNtStatusToDosErrorNoTeb(max 1) = rtl_nt_status_to_dos_error;
}

/// `ERROR_MR_MID_NOT_FOUND`: no error corresponds.
const MESSAGE_NOT_FOUND: u32 = 317;
/// Bit of statuses that an application made up; they are errors of its own, too.
const CUSTOMER: u32 = 0x2000_0000;
/// Statuses that carry a Win32 error in their low half, and `HRESULT`s that do.
const WIN32_FACILITIES: [u32; 2] = [0xC007, 0x8007];
/// `FACILITY_FILTER_MANAGER` of statuses, and of the errors that go with them.
const FILTER_STATUS: u32 = 0xC01C;
const FILTER_ERROR: u32 = 0x801F_0000;

/// Errors by the low half of a status of success or information.
const INFORMATION: &[(u16, u16)] = &[
    (0x0000, 0),
    (0x0102, 258),
    (0x0103, 997),
    (0x0105, 234),
    (0x0106, 1300),
    (0x0107, 1301),
    (0x0108, 742),
    (0x010C, 1022),
];

/// Errors by the low half of a warning, `0x8000xxxx`.
const WARNINGS: &[(u16, u16)] = &[
    (0x0002, 998),
    (0x0005, 234),
    (0x0006, 18),
    (0x000D, 299),
    (0x000E, 28),
    (0x0010, 21),
    (0x0011, 170),
    (0x0012, 259),
    (0x0013, 254),
    (0x0014, 255),
    (0x001A, 259),
    (0x002D, 681),
];

/// Errors by the low half of an error, `0xC000xxxx`.
#[rustfmt::skip]
const ERRORS: &[(u16, u16)] = &[
    (0x0001, 31), (0x0002, 1), (0x0003, 87), (0x0004, 24), (0x0005, 998), (0x0006, 999), (0x0007, 1454), (0x0008, 6),
    (0x0009, 1001), (0x000A, 193), (0x000B, 87), (0x000D, 87), (0x000E, 433), (0x000F, 2), (0x0010, 1), (0x0011, 38),
    (0x0012, 34), (0x0013, 21), (0x0014, 1785), (0x0015, 27), (0x0016, 234), (0x0017, 8), (0x0018, 487), (0x0019, 487),
    (0x001A, 87), (0x001C, 1), (0x001E, 5), (0x001F, 5), (0x0020, 193), (0x0021, 5), (0x0022, 5), (0x0023, 122),
    (0x0024, 6), (0x002A, 158), (0x002D, 487), (0x0030, 87), (0x0032, 1393), (0x0033, 123), (0x0034, 2), (0x0035, 183),
    (0x0037, 6), (0x0039, 161), (0x003A, 3), (0x003B, 161), (0x003C, 1117), (0x003D, 1117), (0x003E, 23), (0x003F, 23),
    (0x0040, 8), (0x0041, 5), (0x0043, 32), (0x0044, 1816), (0x0045, 87), (0x0046, 288), (0x0047, 298), (0x0048, 87),
    (0x0049, 87), (0x004A, 156), (0x004B, 5), (0x004C, 87), (0x004D, 87), (0x004E, 87), (0x004F, 282), (0x0050, 255),
    (0x0051, 1392), (0x0052, 1392), (0x0053, 1392), (0x0054, 33), (0x0055, 33), (0x0056, 5), (0x0058, 1305), (0x0059, 1306),
    (0x005A, 1307), (0x005B, 1308), (0x005C, 1309), (0x005D, 1310), (0x005E, 1311), (0x005F, 1312), (0x0060, 1313),
    (0x0061, 1314), (0x0062, 1315), (0x0063, 1316), (0x0064, 1317), (0x006A, 86), (0x006D, 1326), (0x0077, 1336),
    (0x0078, 1337), (0x0079, 1338), (0x007A, 127), (0x007B, 193), (0x007C, 1008), (0x007D, 1340), (0x007E, 158),
    (0x007F, 112), (0x0080, 1341), (0x0086, 154), (0x0095, 534), (0x0097, 8), (0x0098, 1006), (0x0099, 1344),
    (0x009A, 1450), (0x009B, 3), (0x009D, 1167), (0x009F, 487), (0x00A0, 487), (0x00A1, 1453), (0x00A2, 19), (0x00A3, 21),
    (0x00A5, 1346), (0x00A6, 1347), (0x00A7, 1348), (0x00A8, 1349), (0x00AB, 231), (0x00AC, 231), (0x00AD, 230),
    (0x00AE, 231), (0x00AF, 1), (0x00B0, 233), (0x00B1, 232), (0x00B2, 535), (0x00B3, 536), (0x00B5, 121), (0x00B6, 38),
    (0x00BA, 5), (0x00BB, 50), (0x00BE, 53), (0x00C9, 64), (0x00CC, 67), (0x00D4, 17), (0x00D7, 1350), (0x00E2, 300),
    (0x00E3, 301), (0x00E5, 1359), (0x00E8, 1784), (0x00EF, 87), (0x00F0, 87), (0x00F1, 87), (0x00F2, 87), (0x00F3, 87),
    (0x00F4, 87), (0x00F5, 87), (0x00F6, 87), (0x00F7, 87), (0x00F8, 87), (0x00F9, 87), (0x00FA, 87), (0x00FD, 1001),
    (0x0101, 145), (0x0102, 1392), (0x0103, 267), (0x0106, 206), (0x0108, 2401), (0x010A, 5), (0x010E, 1056), (0x011F, 4),
    (0x0120, 995), (0x0121, 5), (0x0122, 1210), (0x0123, 5), (0x0128, 6), (0x012D, 1455), (0x0135, 126), (0x0138, 182),
    (0x0139, 127), (0x0142, 1114), (0x014B, 109), (0x014C, 1015), (0x014D, 1016), (0x014F, 1005), (0x017C, 1018),
    (0x0180, 1020), (0x0181, 1021), (0x0184, 22), (0x0185, 1117), (0x0188, 1502), (0x0205, 1130), (0x0206, 1784),
    (0x0225, 1168), (0x022D, 1237), (0x0236, 1225), (0x0240, 1235), (0x0243, 1224), (0x0246, 1238), (0x0272, 1169),
    (0x0275, 4390), (0x0276, 4393), (0x0277, 4394), (0x0278, 4392), (0x0279, 1920), (0x0280, 1921), (0x0361, 1260),
    (0x0365, 647), (0x0428, 577), (0x0904, 223), (0x0909, 802),
];

fn dos_error(status: u32) -> u32 {
    let (facility, code) = (status >> 16, status as u16);
    if status & CUSTOMER != 0 {
        return status;
    }
    if WIN32_FACILITIES.contains(&facility) {
        return code.into();
    }
    if facility == FILTER_STATUS {
        return FILTER_ERROR | u32::from(code);
    }
    let known = match facility {
        0x0000 | 0x4000 => INFORMATION,
        0x8000 => WARNINGS,
        0xC000 => ERRORS,
        _ => &[],
    };
    known.iter().find(|(known, _)| *known == code).map_or(MESSAGE_NOT_FOUND, |(_, error)| u32::from(*error))
}

extern "efiapi" fn rtl_nt_status_to_dos_error(status: u32) -> u32 {
    let _call = Call::enter();
    dos_error(status)
}

#[cfg(test)]
mod tests {
    use nt_types::NtStatus;

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn statuses_become_the_errors_that_programs_know() {
        conforms!("ntifs/nf-ntifs-rtlntstatustodoserror.md", "The system error code of the status is returned.");
        Bench::new()
            .run(|| {
                for (status, error) in [
                    (NtStatus::SUCCESS, 0),
                    (NtStatus::ACCESS_DENIED, 5),
                    (NtStatus::OBJECT_NAME_NOT_FOUND, 2),
                    (NtStatus::SHARING_VIOLATION, 32),
                    (NtStatus::NO_MORE_FILES, 18),
                    (NtStatus::PENDING, 997),
                    (NtStatus::FLT_DELETING_OBJECT, 0x801F_000B),
                    (NtStatus::from_bits(0xC007_0035), 53),
                    (NtStatus::from_bits(0xE000_0001), 0xE000_0001),
                ] {
                    assert_eq!(rtl_nt_status_to_dos_error(status.bits()), error, "{status}");
                }
            })
            .unwrap();
    }

    #[test]
    fn a_status_without_an_error_has_no_message() {
        conforms!("ntifs/nf-ntifs-rtlntstatustodoserror.md", "ERROR_MR_MID_NOT_FOUND is returned for other statuses.");
        let none = Bench::new().run(|| rtl_nt_status_to_dos_error(0xC0FF_FFFF));
        assert_eq!(none.unwrap(), 317);
    }

    #[test]
    fn no_status_is_listed_twice() {
        for list in [INFORMATION, WARNINGS, ERRORS] {
            assert!(list.windows(2).all(|pair| pair[0].0 < pair[1].0), "the lists are sorted");
        }
    }
}
