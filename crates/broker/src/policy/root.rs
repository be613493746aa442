//! Where firmware may lie.

use super::component::check_components;
use super::device_name::split_volume;
use super::{BareName, DeviceName, MAX_NAME_UNITS};
use crate::fixed_vec::FixedVec;
use crate::name::same_name;
use crate::{Error, Name};

const BACKSLASH: u16 = b'\\' as u16;

/// A folder whose files, at any depth, may be used as firmware; by its normalised name (`\Device\HarddiskVolume3\Firmware`).
#[derive(Debug, PartialEq, Eq)]
pub struct Root {
    name: Name,
}

/// The allowed roots, in the order in which a bare name is looked for.
#[derive(Debug, Default)]
pub struct SearchPath {
    roots: FixedVec<Root>,
}

impl Root {
    /// A root by the normalised name of its folder, with or without a backslash at the end. May be a whole volume.
    ///
    /// Errors as [`DeviceName::from_normalized`], and [`Error::OutOfMemory`].
    pub fn from_normalized(units: &[u16]) -> Result<Self, Error> {
        let units = units.strip_suffix(&[BACKSLASH]).unwrap_or(units);
        if units.len() > MAX_NAME_UNITS {
            return Err(Error::NameTooLong);
        }
        if let Some(rest) = split_volume(units)? {
            check_components(rest)?;
        }
        Ok(Self { name: Name::try_new(units)? })
    }

    /// Whether `file` lies below this root. `upcase` is `RtlUpcaseUnicodeChar`.
    ///
    /// Component by component: `\Firmware` does not contain `\Firmware2\a`, since a backslash has to follow. No component of
    /// `file` is empty or `..`, so equal beginnings mean what they say.
    pub fn contains(&self, file: DeviceName<'_>, upcase: impl Fn(u16) -> u16) -> bool {
        let root = self.name.units();
        file.units()
            .split_at_checked(root.len())
            .is_some_and(|(head, tail)| tail.first() == Some(&BACKSLASH) && same_name(head, root, upcase))
    }

    /// The root's own name, without a backslash at the end.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        self.name.units()
    }

    /// The normalised name of `bare` below this root, if it exists there.
    ///
    /// [`Error::NameTooLong`] (`STATUS_NAME_TOO_LONG`), [`Error::OutOfMemory`].
    pub fn join(&self, bare: BareName<'_>) -> Result<Name, Error> {
        let length = self.units().len().saturating_add(1).saturating_add(bare.units().len());
        if length > MAX_NAME_UNITS {
            return Err(Error::NameTooLong);
        }
        Name::concat(&[self.units(), &[BACKSLASH], bare.units()])
    }
}

impl SearchPath {
    /// No roots: nothing is allowed.
    #[must_use]
    pub const fn new() -> Self {
        Self { roots: FixedVec::new() }
    }

    /// Appends a root, which is looked at after those before it.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub fn push(&mut self, root: Root) -> Result<(), Error> {
        self.roots.try_reserve_one()?;
        self.roots.push(root).map(|_| ()).map_err(|_| Error::OutOfMemory)
    }

    /// The roots in order.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Whether a file lies below one of the roots.
    ///
    /// [`Error::OutsideRoots`] (`STATUS_ACCESS_DENIED`).
    pub fn check(&self, file: DeviceName<'_>, upcase: impl Fn(u16) -> u16) -> Result<(), Error> {
        if self.roots.iter().any(|root| root.contains(file, &upcase)) { Ok(()) } else { Err(Error::OutsideRoots) }
    }

    /// How well the file `name` fits what a driver calls `bare`, less being better: the position of the root that it
    /// lies in directly, or the number of roots where it lies in some folder below one. `None` where it is another file.
    ///
    /// Needs no memory, so it can be asked under a lock. `upcase` is `RtlUpcaseUnicodeChar`.
    pub fn rank(&self, name: &[u16], bare: BareName<'_>, upcase: impl Fn(u16) -> u16) -> Option<usize> {
        let (folder, last) = name.split_at_checked(name.len().checked_sub(bare.units().len())?)?;
        // Behind a separator: `e1000.rom` is not the end of `be1000.rom`.
        let folder = folder.strip_suffix(&[BACKSLASH])?;
        if !same_name(last, bare.units(), &upcase) {
            return None;
        }
        let root = self.roots.iter().position(|root| same_name(folder, root.units(), &upcase));
        Some(root.unwrap_or(self.roots.len()))
    }

    /// The names that a bare name may mean, best first.
    pub fn candidates<'a>(&'a self, bare: BareName<'a>) -> impl Iterator<Item = Result<Name, Error>> + 'a {
        self.roots.iter().map(move |root| root.join(bare))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn upcase(unit: u16) -> u16 {
        u8::try_from(unit).map_or(unit, |byte| u16::from(byte.to_ascii_uppercase()))
    }

    fn contains(root: &str, file: &str) -> bool {
        let file = units(file);
        let file = DeviceName::from_normalized(&file).unwrap();
        Root::from_normalized(&units(root)).unwrap().contains(file, upcase)
    }

    #[test]
    fn containment_is_by_component_and_without_case() {
        let root = r"\Device\HarddiskVolume1\Firmware";
        assert!(contains(root, r"\Device\HarddiskVolume1\Firmware\a"));
        assert!(contains(root, r"\device\harddiskvolume1\FIRMWARE\deep\er\a"));
        assert!(contains(r"\Device\HarddiskVolume1\Firmware\", r"\Device\HarddiskVolume1\Firmware\a"));
        assert!(!contains(root, r"\Device\HarddiskVolume1\Firmware"));
        assert!(!contains(root, r"\Device\HarddiskVolume1\Firmware2\a"));
        assert!(!contains(root, r"\Device\HarddiskVolume10\Firmware\a"));
        assert!(contains(r"\Device\HarddiskVolume1", r"\Device\HarddiskVolume1\a"));
        assert!(!contains(r"\Device\HarddiskVolume1", r"\Device\HarddiskVolume10\a"));
    }

    #[test]
    fn normalised_names_with_streams_or_on_other_machines_are_refused() {
        for (name, error) in [
            (r"\Device\HarddiskVolume1\a:s", Error::NameStream),
            (r"\Device\Mup\server\a", Error::NameUnc),
            (r"\Device\HarddiskVolume1", Error::NameNoFile),
            (r"\Device\\a", Error::NameNotAbsolute),
            (r"\??\C:\a", Error::NameNotAbsolute),
        ] {
            assert_eq!(DeviceName::from_normalized(&units(name)), Err(error), "{name}");
        }
    }

    #[test]
    fn candidates_come_in_the_order_of_the_roots() {
        let mut path = SearchPath::new();
        for root in [r"\Device\V1\First", r"\Device\V2\Second\"] {
            path.push(Root::from_normalized(&units(root)).unwrap()).unwrap();
        }
        let bare = units(r"intel\e1000.rom");
        let names: Vec<_> = path.candidates(BareName::parse(&bare).unwrap()).map(Result::unwrap).collect();
        assert_eq!(names[0].units(), units(r"\Device\V1\First\intel\e1000.rom"));
        assert_eq!(names[1].units(), units(r"\Device\V2\Second\intel\e1000.rom"));
        let file = units(r"\Device\V3\a");
        assert_eq!(path.check(DeviceName::from_normalized(&file).unwrap(), upcase), Err(Error::OutsideRoots));
        assert_eq!(path.check(DeviceName::from_normalized(names[1].units()).unwrap(), upcase), Ok(()));
    }

    #[test]
    fn images_fit_a_bare_name_best_where_their_root_comes_first() {
        let mut path = SearchPath::new();
        for root in [r"\Device\V1\First", r"\Device\V2\Second"] {
            path.push(Root::from_normalized(&units(root)).unwrap()).unwrap();
        }
        let rank = |name: &str, bare: &str| path.rank(&units(name), BareName::parse(&units(bare)).unwrap(), upcase);
        assert_eq!(rank(r"\Device\V1\First\a.rom", "A.ROM"), Some(0));
        assert_eq!(rank(r"\device\v2\SECOND\a.rom", "a.rom"), Some(1));
        assert_eq!(rank(r"\Device\V1\First\deep\a.rom", "a.rom"), Some(2));
        assert_eq!(rank(r"\Device\V1\First\deep\a.rom", r"deep\a.rom"), Some(0));
        assert_eq!(rank(r"\Device\V1\First\ba.rom", "a.rom"), None);
        assert_eq!(rank(r"\Device\V1\First\a.rom", "b.rom"), None);
        assert_eq!(rank("a.rom", "a.rom"), None, "no folder at all");
        assert_eq!(rank("rom", "a.rom"), None, "shorter than what is looked for");
    }
}
