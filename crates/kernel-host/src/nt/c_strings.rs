//! The C library's string routines that `ntoskrnl.exe` exports, for 8-bit and 16-bit characters alike.
//!
//! Case is that of ASCII for the C routines, as in the kernel's library, whose locale is "C".

use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    strcmp(max 31) = strcmp;
    strncmp(max 31) = strncmp;
    _stricmp(max 31) = stricmp;
    _strnicmp(max 31) = strnicmp;
    strcpy(max 31) = strcpy;
    strncpy(max 31) = strncpy;
    strcat(max 31) = strcat;
    strncat(max 31) = strncat;
    strchr(max 31) = strchr;
    strrchr(max 31) = strrchr;
    strstr(max 31) = strstr;
    strspn(max 31) = strspn;
    strnlen(max 31) = strnlen;
    strcpy_s(max 31) = strcpy_s;
    strncpy_s(max 31) = strncpy_s;
    strcat_s(max 31) = strcat_s;
    strncat_s(max 31) = strncat_s;
    _strlwr(max 31) = strlwr;
    _strupr(max 31) = strupr;
    wcscmp(max 31) = wcscmp;
    wcsncmp(max 31) = wcsncmp;
    _wcsicmp(max 31) = wcsicmp;
    _wcsnicmp(max 31) = wcsnicmp;
    wcscpy(max 31) = wcscpy;
    wcsncpy(max 31) = wcsncpy;
    wcscat(max 31) = wcscat;
    wcsncat(max 31) = wcsncat;
    wcschr(max 31) = wcschr;
    wcsrchr(max 31) = wcsrchr;
    wcsstr(max 31) = wcsstr;
    wcsspn(max 31) = wcsspn;
    wcsnlen(max 31) = wcsnlen;
    wcscpy_s(max 31) = wcscpy_s;
    wcsncpy_s(max 31) = wcsncpy_s;
    wcscat_s(max 31) = wcscat_s;
    wcsncat_s(max 31) = wcsncat_s;
    _wcslwr(max 31) = wcslwr;
    _wcsupr(max 31) = wcsupr;
    memchr(max 31) = memchr;
    memcpy_s(max 31) = memcpy_s;
    memmove_s(max 31) = memcpy_s;
    toupper(max 31) = to_upper;
    tolower(max 31) = to_lower;
    towupper(max 31) = towupper;
    towlower(max 31) = towlower;
    isdigit(max 31) = is_digit;
    isspace(max 31) = is_space;
    isupper(max 31) = is_upper;
    islower(max 31) = is_lower;
    isprint(max 31) = is_print;
    isxdigit(max 31) = is_hex_digit;
    isalpha(max 31) = is_alpha;
    isalnum(max 31) = is_alnum;
    atoi(max 31) = atoi;
    atol(max 31) = atoi;
    _wtoi(max 31) = wtoi;
    _wtol(max 31) = wtoi;
    strtol(max 31) = strtol;
    strtoul(max 31) = strtoul;
    wcstoul(max 31) = wcstoul;
    _strtoui64(max 31) = strtoul64;
    _wcstoui64(max 31) = wcstoul64;
}

/// `EINVAL` and `ERANGE` of the `_s` routines.
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
/// `_TRUNCATE`.
const TRUNCATE: usize = usize::MAX;

/// A character of either width.
trait Unit: Copy + PartialEq + Default + 'static {
    fn number(self) -> u32;
    fn of(number: u32) -> Self;
}

impl Unit for u8 {
    fn number(self) -> u32 {
        u32::from(self)
    }

    fn of(number: u32) -> Self {
        number as Self
    }
}

impl Unit for u16 {
    fn number(self) -> u32 {
        u32::from(self)
    }

    fn of(number: u32) -> Self {
        number as Self
    }
}

fn lower(number: u32) -> u32 {
    if (0x41..=0x5A).contains(&number) { number + 0x20 } else { number }
}

fn upper(number: u32) -> u32 {
    if (0x61..=0x7A).contains(&number) { number - 0x20 } else { number }
}

/// Characters up to the terminator, at most `most`.
fn length<T: Unit>(text: Raw<T>, most: usize) -> usize {
    (0..most).find(|index| text.index(*index).read() == T::default()).unwrap_or(most)
}

fn compare<T: Unit>(left: Raw<T>, right: Raw<T>, most: usize, fold: impl Fn(u32) -> u32) -> i32 {
    for index in 0..most {
        let (one, other) = (left.index(index).read().number(), right.index(index).read().number());
        match fold(one).cmp(&fold(other)) {
            std::cmp::Ordering::Equal if one == 0 => return 0,
            std::cmp::Ordering::Equal => {}
            unequal => return unequal as i32,
        }
    }
    0
}

/// Copies `count` characters, and a terminator.
fn put<T: Unit>(target: Raw<T>, source: Raw<T>, count: usize) {
    for index in 0..count {
        target.index(index).write(source.index(index).read());
    }
    target.index(count).write(T::default());
}

fn concatenate<T: Unit>(target: Raw<T>, source: Raw<T>, most: usize) -> Raw<T> {
    let end = target.index(length(target, usize::MAX));
    put(end, source, length(source, most));
    target
}

/// As `strncpy`: pads with terminators, and writes none when there is no room.
fn copy_padded<T: Unit>(target: Raw<T>, source: Raw<T>, count: usize) -> Raw<T> {
    let text = length(source, count);
    for index in 0..count {
        target.index(index).write(if index < text { source.index(index).read() } else { T::default() });
    }
    target
}

fn find<T: Unit>(text: Raw<T>, wanted: u32, last: bool) -> usize {
    let wanted = T::of(wanted);
    // The terminator can be looked for, too.
    let mut places = 0..=length(text, usize::MAX);
    let is_it = |index: &usize| text.index(*index).read() == wanted;
    let place = if last { places.rfind(is_it) } else { places.find(is_it) };
    place.map_or(0, |index| text.index(index).address())
}

fn find_text<T: Unit>(text: Raw<T>, wanted: Raw<T>) -> usize {
    let (have, want) = (text.read_slice(length(text, usize::MAX)), wanted.read_slice(length(wanted, usize::MAX)));
    if want.is_empty() {
        return text.address();
    }
    have.windows(want.len()).position(|window| window == want).map_or(0, |index| text.index(index).address())
}

fn span<T: Unit>(text: Raw<T>, set: Raw<T>) -> usize {
    let set = set.read_slice(length(set, usize::MAX));
    let length = length(text, usize::MAX);
    (0..length).find(|index| !set.contains(&text.index(*index).read())).unwrap_or(length)
}

fn change<T: Unit>(text: Raw<T>, to: impl Fn(u32) -> u32) -> Raw<T> {
    for index in 0..length(text, usize::MAX) {
        let unit = text.index(index);
        unit.write(T::of(to(unit.read().number())));
    }
    text
}

/// The `_s` routines: copies to `target[at..size]`, empties the target when there is no room. The C library's invalid-parameter
/// handler would end the driver: a finding.
fn copy_safely<T: Unit>(call: &Call, target: Raw<T>, size: usize, at: usize, source: Raw<T>, most: usize) -> i32 {
    if target.is_null() || size == 0 || source.is_null() {
        call.stop(Rule::BadArgument, format!("target {target:?} with room for {size}, source {source:?}"));
    }
    let wanted = length(source, most.min(size));
    if at + wanted < size {
        put(target.index(at), source, wanted);
        return 0;
    }
    if most == TRUNCATE {
        put(target.index(at), source, size.saturating_sub(at + 1));
        return 80; // STRUNCATE
    }
    target.write(T::default());
    if at >= size { EINVAL } else { ERANGE }
}

fn parse<T: Unit>(text: Raw<T>, end: Raw<usize>, base: u32) -> (bool, u128) {
    let unit = |index: usize| text.index(index).read().number();
    let mut at = 0;
    while matches!(unit(at), 9..=13 | 32) {
        at += 1;
    }
    let negative = unit(at) == u32::from(b'-');
    if negative || unit(at) == u32::from(b'+') {
        at += 1;
    }
    let has_prefix = unit(at) == u32::from(b'0') && matches!(unit(at + 1), 0x78 | 0x58);
    let base = match base {
        0 if has_prefix => 16,
        0 if unit(at) == u32::from(b'0') => 8,
        0 => 10,
        base => base,
    };
    if base == 16 && has_prefix {
        at += 2;
    }
    let mut value = 0_u128;
    let start = at;
    while let Some(digit) = char::from_u32(unit(at)).and_then(|unit| unit.to_digit(base.clamp(2, 36))) {
        value = value.saturating_mul(u128::from(base)).saturating_add(u128::from(digit));
        at += 1;
    }
    end.write_if_some(text.index(if at == start { 0 } else { at }).address());
    (negative, value)
}

/// A parsed number, cut to 32 bits as unsigned: what is too large is all ones.
fn clamp_unsigned((negative, value): (bool, u128), highest: u64) -> u64 {
    let value = u64::try_from(value).unwrap_or(u64::MAX).min(highest);
    if negative { value.wrapping_neg() & highest } else { value }
}

fn clamp_signed((negative, value): (bool, u128)) -> i32 {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    let value = if negative { -value } else { value };
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// Both widths of each routine; `T` is the character's type in its body. Texts are passed as addresses.
macro_rules! routines {
    ($($narrow:ident, $wide:ident = |$call:ident, $($name:ident: $type:ty),*| -> $result:ty { $T:ident: $body:expr })*) => {$(
        extern "efiapi" fn $narrow($($name: $type),*) -> $result {
            type $T = u8;
            let call = Call::enter();
            let $call = &call;
            let _ = $call;
            $body
        }

        extern "efiapi" fn $wide($($name: $type),*) -> $result {
            type $T = u16;
            let call = Call::enter();
            let $call = &call;
            let _ = $call;
            $body
        }
    )*};
}

fn text<T>(address: usize) -> Raw<T> {
    Raw::at(address)
}

routines! {
    strcmp, wcscmp = |call, left: usize, right: usize| -> i32 { T: compare::<T>(text(left), text(right), usize::MAX, |n| n) }
    strncmp, wcsncmp = |call, left: usize, right: usize, most: usize| -> i32 { T: compare::<T>(text(left), text(right), most, |n| n) }
    stricmp, wcsicmp = |call, left: usize, right: usize| -> i32 { T: compare::<T>(text(left), text(right), usize::MAX, lower) }
    strnicmp, wcsnicmp = |call, left: usize, right: usize, most: usize| -> i32 { T: compare::<T>(text(left), text(right), most, lower) }
    strcpy, wcscpy = |call, target: usize, source: usize| -> usize {
        T: { put::<T>(text(target), text(source), length::<T>(text(source), usize::MAX)); target }
    }
    strncpy, wcsncpy = |call, target: usize, source: usize, count: usize| -> usize { T: copy_padded::<T>(text(target), text(source), count).address() }
    strcat, wcscat = |call, target: usize, source: usize| -> usize { T: concatenate::<T>(text(target), text(source), usize::MAX).address() }
    strncat, wcsncat = |call, target: usize, source: usize, most: usize| -> usize { T: concatenate::<T>(text(target), text(source), most).address() }
    strchr, wcschr = |call, string: usize, wanted: u32| -> usize { T: find::<T>(text(string), wanted, false) }
    strrchr, wcsrchr = |call, string: usize, wanted: u32| -> usize { T: find::<T>(text(string), wanted, true) }
    strstr, wcsstr = |call, string: usize, wanted: usize| -> usize { T: find_text::<T>(text(string), text(wanted)) }
    strspn, wcsspn = |call, string: usize, set: usize| -> usize { T: span::<T>(text(string), text(set)) }
    strnlen, wcsnlen = |call, string: usize, most: usize| -> usize { T: length::<T>(text(string), most) }
    strcpy_s, wcscpy_s = |call, target: usize, size: usize, source: usize| -> i32 {
        T: copy_safely::<T>(call, text(target), size, 0, text(source), TRUNCATE - 1)
    }
    strncpy_s, wcsncpy_s = |call, target: usize, size: usize, source: usize, count: usize| -> i32 {
        T: copy_safely::<T>(call, text(target), size, 0, text(source), count)
    }
    strcat_s, wcscat_s = |call, target: usize, size: usize, source: usize| -> i32 {
        T: copy_safely::<T>(call, text(target), size, length::<T>(text(target), size), text(source), TRUNCATE - 1)
    }
    strncat_s, wcsncat_s = |call, target: usize, size: usize, source: usize, count: usize| -> i32 {
        T: copy_safely::<T>(call, text(target), size, length::<T>(text(target), size), text(source), count)
    }
    strlwr, wcslwr = |call, string: usize| -> usize { T: change::<T>(text(string), lower).address() }
    strupr, wcsupr = |call, string: usize| -> usize { T: change::<T>(text(string), upper).address() }
    atoi, wtoi = |call, string: usize| -> i32 { T: clamp_signed(parse::<T>(text(string), Raw::NULL, 10)) }
    strtoul, wcstoul = |call, string: usize, end: Raw<usize>, base: u32| -> u32 {
        T: clamp_unsigned(parse::<T>(text(string), end, base), u32::MAX.into()) as u32
    }
    strtoul64, wcstoul64 = |call, string: usize, end: Raw<usize>, base: u32| -> u64 {
        T: clamp_unsigned(parse::<T>(text(string), end, base), u64::MAX)
    }
}

extern "efiapi" fn strtol(string: Raw<u8>, end: Raw<usize>, base: u32) -> i32 {
    let _call = Call::enter();
    clamp_signed(parse(string, end, base))
}

extern "efiapi" fn memchr(memory: Raw<u8>, wanted: u32, length: usize) -> usize {
    let _call = Call::enter();
    let place = (0..length).find(|index| memory.index(*index).read() == wanted as u8);
    place.map_or(0, |index| memory.index(index).address())
}

extern "efiapi" fn memcpy_s(target: Raw<u8>, size: usize, source: Raw<u8>, count: usize) -> i32 {
    let call = Call::enter();
    if count == 0 {
        return 0;
    }
    if target.is_null() || source.is_null() || count > size {
        call.stop(Rule::BadArgument, format!("{count} bytes from {source:?} to {target:?}, which has room for {size}"));
    }
    target.write_bytes(&source.read_bytes(count));
    0
}

extern "efiapi" fn to_upper(unit: u32) -> u32 {
    let _call = Call::enter();
    upper(unit)
}

extern "efiapi" fn to_lower(unit: u32) -> u32 {
    let _call = Call::enter();
    lower(unit)
}

extern "efiapi" fn towupper(unit: u16) -> u16 {
    let _call = Call::enter();
    super::unicode::upcase(unit)
}

extern "efiapi" fn towlower(unit: u16) -> u16 {
    let _call = Call::enter();
    super::unicode::downcase(unit)
}

/// Tests of one ASCII character each.
macro_rules! classes {
    ($($name:ident = $is:expr;)*) => {$(
        extern "efiapi" fn $name(unit: u32) -> i32 {
            let _call = Call::enter();
            let is: fn(&u8) -> bool = $is;
            i32::from(u8::try_from(unit).is_ok_and(|unit| is(&unit)))
        }
    )*};
}

classes! {
    is_digit = u8::is_ascii_digit;
    is_space = |unit| matches!(unit, 9..=13 | 32);
    is_upper = u8::is_ascii_uppercase;
    is_lower = u8::is_ascii_lowercase;
    is_print = |unit| matches!(unit, 0x20..=0x7E);
    is_hex_digit = u8::is_ascii_hexdigit;
    is_alpha = u8::is_ascii_alphabetic;
    is_alnum = u8::is_ascii_alphanumeric;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;

    fn run<R>(body: impl FnOnce() -> R) -> R {
        Bench::new().run(body).expect("no rule is broken")
    }

    fn c(text: &str) -> Vec<u8> {
        text.bytes().chain([0]).collect()
    }

    fn at(text: &[u8]) -> usize {
        text.as_ptr().expose_provenance()
    }

    #[test]
    fn texts_are_compared_by_their_bytes_and_case_is_folded_when_asked() {
        run(|| {
            let (one, other) = (c("Driver"), c("driver7"));
            assert!(strcmp(at(&one), at(&other)) < 0);
            assert!(stricmp(at(&one), at(&other)) < 0);
            assert_eq!(strnicmp(at(&one), at(&other), 6), 0);
            assert_eq!(strncmp(at(&one), at(&one), usize::MAX), 0);
        });
    }

    #[test]
    fn places_are_found_from_both_ends() {
        run(|| {
            let text = c("a\\b\\c");
            assert_eq!(strchr(at(&text), u32::from(b'\\')), at(&text) + 1);
            assert_eq!(strrchr(at(&text), u32::from(b'\\')), at(&text) + 3);
            assert_eq!(strchr(at(&text), 0), at(&text) + 5);
            assert_eq!((strstr(at(&text), at(&c("b\\"))), strstr(at(&text), at(&c("x")))), (at(&text) + 2, 0));
        });
    }

    #[test]
    fn copies_end_where_their_pages_say() {
        run(|| {
            let mut target = [0xEE_u8; 8];
            let to = Raw::of(target.as_mut_ptr()).address();
            strncpy(to, at(&c("ab")), 4);
            assert_eq!(Raw::<u8>::at(to).read_bytes(5), [b'a', b'b', 0, 0, 0xEE]);
            strcat(to, at(&c("cd")));
            assert_eq!(Raw::<u8>::at(to).read_bytes(5), *b"abcd\0");
            assert_eq!(strcpy_s(to, 4, at(&c("wxyz"))), ERANGE);
            assert_eq!(Raw::<u8>::at(to).read(), 0, "emptied");
            assert_eq!(strncpy_s(to, 4, at(&c("wxyz")), TRUNCATE), 80);
            assert_eq!(Raw::<u8>::at(to).read_bytes(4), *b"wxy\0");
        });
    }

    #[test]
    fn numbers_are_read_with_sign_prefix_and_limits() {
        run(|| {
            assert_eq!(atoi(at(&c(" -42x"))), -42);
            assert_eq!(atoi(at(&c("99999999999"))), i32::MAX);
            let text = c("0x1Fz");
            let mut end = 0;
            assert_eq!(strtoul(at(&text), Raw::of(&raw mut end), 0), 0x1F);
            assert_eq!(end, at(&text) + 4);
            assert_eq!(strtoul64(at(&c("18446744073709551616")), Raw::NULL, 10), u64::MAX);
        });
    }
}
