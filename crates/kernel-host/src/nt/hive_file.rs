//! The registry as a file: the text that `reg export` and `reg import` of Windows use.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use nt_types::{NtStatus, REG_DWORD, REG_SZ};

use super::hive::{Hive, Key, Value};
use crate::machine::Machine;

/// First line of such a file.
const HEADER: &str = "Windows Registry Editor Version 5.00";

/// Names of the roots in files, and in the kernel.
const ROOTS: [(&str, &str); 2] = [("HKEY_LOCAL_MACHINE", r"\Registry\Machine"), ("HKEY_USERS", r"\Registry\User")];

/// Why a registry file was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryFileError {
    /// It could not be read or written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// A line is not what the format wants there.
    #[error("line {0}: {1}")]
    Line(usize, &'static str),
}

impl Hive {
    /// All keys and values as text.
    #[must_use]
    pub fn export(&self) -> String {
        let mut text = format!("{HEADER}\r\n");
        for (shown, path) in ROOTS {
            if let Ok(root) = self.open(path) {
                export_key(&mut text, shown, &root);
            }
        }
        text
    }

    /// Adds the keys and values of such a text; values that are there already are replaced.
    ///
    /// # Errors
    /// [`RegistryFileError::Line`]; the lines before it have been taken.
    pub fn import(&self, text: &str) -> Result<(), RegistryFileError> {
        let mut key: Option<Arc<Key>> = None;
        // A line that ends in a backslash goes on in the next.
        let joined = text.replace("\\\r\n", "").replace("\\\n", "");
        for (index, line) in joined.lines().enumerate() {
            let bad = |why| RegistryFileError::Line(index + 1, why);
            let line = line.trim();
            if index == 0 && line.trim_start_matches('\u{FEFF}') != HEADER {
                return Err(bad("no registry file of version 5.00"));
            }
            if index == 0 || line.is_empty() || line.starts_with(';') {
                continue;
            }
            if let Some(path) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                let path = kernel_path(path).ok_or_else(|| bad("a key of an unknown root"))?;
                key = Some(self.create(&path).map_err(|_| bad("no path of a key"))?);
                continue;
            }
            let key = key.as_ref().ok_or_else(|| bad("a value before any key"))?;
            let (name, data) = split_value(line).ok_or_else(|| bad("neither a key nor a value"))?;
            let value = parse_value(data).ok_or_else(|| bad("no value that this format has"))?;
            key.set_value(&name, value).map_err(|_: NtStatus| bad("the key is deleted"))?;
        }
        Ok(())
    }
}

impl Machine {
    /// Saves the registry in the format of `reg export`, as UTF-16.
    ///
    /// # Errors
    /// [`RegistryFileError::File`].
    pub fn save_registry(&self, path: &Path) -> Result<(), RegistryFileError> {
        let text = self.registry().export();
        let bytes: Vec<u8> = "\u{FEFF}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        Ok(std::fs::write(path, bytes)?)
    }

    /// Loads a file of that format, UTF-16 or UTF-8, into the registry.
    ///
    /// # Errors
    /// [`RegistryFileError`].
    pub fn load_registry(&self, path: &Path) -> Result<(), RegistryFileError> {
        let bytes = std::fs::read(path)?;
        let text = if let [0xFF, 0xFE, rest @ ..] = bytes.as_slice() {
            let units: Vec<u16> = rest.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            String::from_utf16_lossy(&units)
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        };
        self.registry().import(&text)
    }
}

fn export_key(text: &mut String, path: &str, key: &Arc<Key>) {
    let values = key.values().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(text, "\r\n[{path}]\r\n");
    for (name, value) in values {
        let name = if name.is_empty() { "@".to_owned() } else { format!("\"{}\"", escape(&name)) };
        let _ = write!(text, "{name}={}\r\n", shown(&value));
    }
    for name in key.subkeys().unwrap_or_default() {
        if let Ok(child) = key.open(&name) {
            export_key(text, &format!("{path}\\{name}"), &child);
        }
    }
}

fn shown(value: &Value) -> String {
    match (value.kind, value.as_dword(), value.as_text()) {
        (REG_DWORD, Some(number), _) => format!("dword:{number:08x}"),
        // Only text that comes back the same: anything odd goes as bytes.
        (REG_SZ, _, Some(text)) if Value::text(&text) == *value && !text.contains(['\r', '\n']) => {
            format!("\"{}\"", escape(&text))
        }
        (kind, ..) => {
            let bytes: Vec<String> = value.data.iter().map(|byte| format!("{byte:02x}")).collect();
            let kind = if kind == nt_types::REG_BINARY { String::new() } else { format!("({kind:x})") };
            format!("hex{kind}:{}", bytes.join(","))
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}

fn kernel_path(path: &str) -> Option<String> {
    ROOTS.iter().find_map(|(shown, kernel)| {
        let (head, rest) = path.split_at_checked(shown.len())?;
        (head.eq_ignore_ascii_case(shown) && (rest.is_empty() || rest.starts_with('\\')))
            .then(|| format!("{kernel}{rest}"))
    })
}

/// A value's name, unescaped, and what is behind its equals sign.
fn split_value(line: &str) -> Option<(String, &str)> {
    if let Some(data) = line.strip_prefix("@=") {
        return Some((String::new(), data));
    }
    let inside = line.strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.char_indices().find_map(|(at, character)| {
        let closes = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        closes.then_some(at)
    })?;
    let (name, rest) = inside.split_at(end);
    Some((unescape(name), rest.strip_prefix("\"=")?))
}

fn parse_value(data: &str) -> Option<Value> {
    if let Some(number) = data.strip_prefix("dword:") {
        return Some(Value::dword(u32::from_str_radix(number, 16).ok()?));
    }
    if let Some(text) = data.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return Some(Value::text(&unescape(text)));
    }
    let hex = data.strip_prefix("hex")?;
    let (kind, bytes) = match hex.strip_prefix('(') {
        Some(rest) => rest.split_once("):").map(|(kind, bytes)| (u32::from_str_radix(kind, 16), bytes))?,
        None => (Ok(nt_types::REG_BINARY), hex.strip_prefix(':')?),
    };
    let parts = bytes.split(',').map(str::trim).filter(|part| !part.is_empty());
    let data = parts.map(|part| u8::from_str_radix(part, 16)).collect::<Result<Vec<_>, _>>().ok()?;
    Some(Value { kind: kind.ok()?, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r"\Registry\Machine\System\CurrentControlSet\Services\X";

    #[test]
    fn a_registry_that_was_saved_is_the_same_when_it_is_loaded() {
        let (one, two) = (Machine::builder().build().unwrap(), Machine::builder().build().unwrap());
        let key = one.registry().create(KEY).unwrap();
        key.set_value("", Value::text("default")).unwrap();
        key.set_value("a \"b\" \\", Value::text("C:\\x \"y\"")).unwrap();
        key.set_value("Number", Value::dword(0xABCD)).unwrap();
        key.set_value("List", Value::list(&["a", "b"])).unwrap();
        key.set_value("Odd", Value { kind: REG_SZ, data: vec![1] }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.reg");
        one.save_registry(&file).unwrap();
        two.load_registry(&file).unwrap();
        assert_eq!(two.registry().open(KEY).unwrap().values().unwrap(), key.values().unwrap());
        assert_eq!(one.registry().export(), two.registry().export());
    }

    #[test]
    fn long_lines_go_on_behind_a_backslash_and_comments_are_skipped() {
        let hive = Hive::default();
        let text = format!("{HEADER}\r\n; note\r\n[HKEY_LOCAL_MACHINE\\A]\r\n\"B\"=hex:01,\\\r\n  02\r\n");
        hive.import(&text).unwrap();
        assert_eq!(hive.open(r"\Registry\Machine\A").unwrap().value("b").unwrap().data, [1, 2]);
    }

    #[test]
    fn what_is_no_registry_file_is_refused_with_its_line() {
        let hive = Hive::default();
        let line = |text: &str| match hive.import(&format!("{HEADER}\n{text}")) {
            Err(RegistryFileError::Line(line, _)) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line("\"a\"=dword:1"), 2);
        assert_eq!(line("[HKEY_LOCAL_MACHINE\\A]\n\"a\"=dword:xyz"), 3);
        assert_eq!(line("[HKEY_NOWHERE\\A]"), 2);
        assert!(hive.import("nothing").is_err());
    }
}
