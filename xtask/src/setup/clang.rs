//! Clang, which builds the C drivers that use `__try`.

use std::path::PathBuf;
use std::process::Command;

use super::apt;
use crate::process;

/// The oldest clang that is good enough: 14 still leaves plain loads inside `__try` out of the scope table. Debian 12 has both.
const OLDEST: u32 = 19;

/// Newest version whose program name is looked for.
const NEWEST: u32 = 30;

/// The program, whatever it is called.
pub(crate) fn find() -> Option<PathBuf> {
    let versioned = (OLDEST..=NEWEST).map(|version| format!("clang-{version}"));
    let found = versioned.into_iter().find(|name| process::is_installed(name));
    found
        .or_else(|| plain_version().filter(|version| *version >= OLDEST).map(|_| "clang".to_owned()))
        .map(PathBuf::from)
}

/// Version of the program that is just called `clang`, if there is one.
fn plain_version() -> Option<u32> {
    if !process::is_installed("clang") {
        return None;
    }
    major(&process::output(Command::new("clang").arg("--version")).ok()?)
}

/// `Debian clang version 19.1.7 (3)`, or `clang version 19.1.7`.
fn major(about: &str) -> Option<u32> {
    let (_, rest) = about.split_once("version ")?;
    rest.split('.').next()?.parse().ok()
}

/// The package that brings the oldest good enough one; where that cannot be found out, the name that Debian 12 has.
pub(super) fn package() -> String {
    let offered = apt::search("^clang-[0-9]+$").unwrap_or_default();
    let version = |name: &String| name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
    let fitting = offered.into_iter().filter(|name| version(name).is_some_and(|version| version >= OLDEST));
    fitting.min_by_key(version).unwrap_or_else(|| format!("clang-{OLDEST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_whoever_built_it() {
        assert_eq!(major("Debian clang version 19.1.7 (3~deb12u1)\nTarget: x"), Some(19));
        assert_eq!(major("clang version 20.0.0"), Some(20));
        assert_eq!(major("something else"), None);
    }
}
