//! `AddReg` sections. Page: "INF `AddReg` directive".

use std::sync::Arc;

use super::file::{Inf, InfError, Line};
use crate::nt::hive::{Hive, Key, Value};

const FLG_ADDREG_BINVALUETYPE: u32 = 0x0000_0001;
const FLG_ADDREG_NOCLOBBER: u32 = 0x0000_0002;
const FLG_ADDREG_DELVAL: u32 = 0x0000_0004;
const FLG_ADDREG_APPEND: u32 = 0x0000_0008;
const FLG_ADDREG_KEYONLY: u32 = 0x0000_0010;

/// The bits of the flags that say the value's type.
const TYPE_BITS: u32 = 0xFFFF_0000 | FLG_ADDREG_BINVALUETYPE;

/// Executes one `AddReg` section; `relative` is the key that `HKR` stands for.
pub(super) fn add_registry(inf: &Inf, section: &str, hive: &Hive, relative: &Arc<Key>) -> Result<(), InfError> {
    if !inf.has(section) {
        return Err(InfError::Missing(format!("section [{section}], which an AddReg directive names")));
    }
    for line in inf.lines(section) {
        let bad = || InfError::BadEntry { section: section.to_owned(), entry: line.values.join(",") };
        add_line(&line, hive, relative).ok_or_else(bad)?;
    }
    Ok(())
}

/// `root, subkey, name, flags, data...`
fn add_line(line: &Line, hive: &Hive, relative: &Arc<Key>) -> Option<()> {
    let field = |index: usize| line.values.get(index).map_or("", String::as_str);
    let base = match field(0).to_uppercase().as_str() {
        "HKR" => Arc::clone(relative),
        "HKLM" => hive.create(r"\Registry\Machine").ok()?,
        _ => return None,
    };
    let (key, _) = base.create(field(1)).ok()?;
    let flags = if field(3).is_empty() { 0 } else { number(field(3))? };
    if flags & FLG_ADDREG_KEYONLY != 0 || (line.values.len() <= 2) {
        return Some(());
    }
    let name = field(2);
    if flags & FLG_ADDREG_DELVAL != 0 {
        // Deleting what is not there is what the directive asks for.
        let _ = key.delete_value(name);
        return Some(());
    }
    let present = key.value(name).is_ok();
    if present && flags & FLG_ADDREG_NOCLOBBER != 0 {
        return Some(());
    }
    let data = line.values.get(4..).unwrap_or_default();
    let value = match flags & TYPE_BITS {
        0x0000_0000 => Value::text(field(4)),
        0x0001_0000 if flags & FLG_ADDREG_APPEND != 0 && present => append(&key.value(name).ok()?, data)?,
        0x0001_0000 => Value::list(data),
        0x0002_0000 => Value::expandable(field(4)),
        // A DWORD is a number, or its four bytes lowest first.
        0x0001_0001 if data.len() == 4 => Value { kind: nt_types::REG_DWORD, data: bytes(data)? },
        0x0001_0001 => Value::dword(number(field(4))?),
        FLG_ADDREG_BINVALUETYPE => Value { kind: nt_types::REG_BINARY, data: bytes(data)? },
        _ => return None,
    };
    key.set_value(name, value).ok()
}

/// A multi-string with more strings, those that it has already left out.
fn append(old: &Value, more: &[String]) -> Option<Value> {
    let (units, _) = old.data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let old = String::from_utf16(&units).ok()?;
    let mut texts: Vec<&str> = old.split('\0').filter(|text| !text.is_empty()).collect();
    for text in more {
        if !texts.contains(&text.as_str()) {
            texts.push(text);
        }
    }
    Some(Value::list(&texts))
}

/// A number as INF files write it: decimal, or hexadecimal behind `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse::<i64>().ok().and_then(|number| u32::try_from(number & 0xFFFF_FFFF).ok()),
    }
}

/// Bytes as two hexadecimal digits each.
fn bytes(data: &[String]) -> Option<Vec<u8>> {
    let digits = |text: &String| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    data.iter().filter(|text| !text.is_empty()).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(lines: &str) -> (Hive, Result<(), InfError>) {
        let hive = Hive::default();
        let inf = Inf::parse(&format!("[R]\n{lines}")).unwrap();
        let key = hive.create(r"\Registry\Machine\X").unwrap();
        let result = add_registry(&inf, "R", &hive, &key);
        (hive, result)
    }

    #[test]
    fn every_type_of_value_is_written_as_windows_writes_it() {
        let (hive, result) = installed(
            "HKR,,Text,,hello\nHKR,Sub\\Key,Number,0x00010001,0x20\nHKR,,Bytes,1,de,ad\n\
             HKR,,Four,0x00010001,1,0,0,0\nHKR,,List,0x00010000,a,b\nHKR,,List,0x00010008,b,c\nHKR,,Path,0x00020000,x\n",
        );
        result.unwrap();
        let key = hive.open(r"\Registry\Machine\X").unwrap();
        assert_eq!(key.value("text").unwrap(), Value::text("hello"));
        assert_eq!(key.open(r"sub\key").unwrap().value("Number").unwrap(), Value::dword(32));
        assert_eq!(key.value("Bytes").unwrap().data, [0xDE, 0xAD]);
        assert_eq!(key.value("Four").unwrap(), Value::dword(1));
        assert_eq!(key.value("List").unwrap(), Value::list(&["a", "b", "c"]));
        assert_eq!(key.value("Path").unwrap(), Value::expandable("x"));
    }

    #[test]
    fn noclobber_keeps_and_delval_removes_what_is_there() {
        let (hive, result) = installed("HKR,,A,,old\nHKR,,A,2,new\nHKR,,B,,gone\nHKR,,B,4\nHKR,Only,,0x10\nHKR,,C,4\n");
        result.unwrap();
        let key = hive.open(r"\Registry\Machine\X").unwrap();
        assert_eq!(key.value("A").unwrap(), Value::text("old"));
        assert!(key.value("B").is_err());
        assert!(key.open("Only").is_ok());
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_named() {
        let (_, result) = installed("HKR,,A,0x00010001,many\n");
        let entry = "HKR,,A,0x00010001,many".to_owned();
        assert_eq!(result, Err(InfError::BadEntry { section: "R".to_owned(), entry }));
    }
}
