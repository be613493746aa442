//! Services: installing a driver package from its INF.

use std::fs;
use std::path::{Path, PathBuf};

use super::{DriverError, Machine};
use crate::inf::{Inf, Installed, Package};

/// An installed service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) installed: Installed,
    /// Host path of the image file.
    pub(crate) image: PathBuf,
}

impl Machine {
    /// Installs the package of the driver image `sys` and returns its service's name.
    ///
    /// `inf` is the INF (or INX) to install; by default the one of the same name beside the image. Only the registry is
    /// written: the image stays where it is. Installing a service again replaces its image and rewrites its settings.
    ///
    /// # Errors
    /// [`DriverError::File`] when a file cannot be read, [`DriverError::Inf`].
    pub fn install_service(&self, sys: &Path, inf: Option<&Path>) -> Result<String, DriverError> {
        let inf_path = inf.map_or_else(|| beside(sys), Path::to_owned);
        let bytes = fs::read(&inf_path).map_err(|error| DriverError::File(inf_path, error))?;
        let image = sys.canonicalize().map_err(|error| DriverError::File(sys.to_owned(), error))?;
        let inner = self.inner();
        let installed = crate::inf::install(&Inf::parse(&text_of(&bytes))?, inner.nt.hive())?;
        if let (Package::Device, Some(defaults)) = (installed.package, &installed.device_defaults) {
            inner.ndis.set_device_defaults(&installed.service, std::sync::Arc::clone(defaults));
        }
        let name = installed.service.clone();
        inner.services().insert(name.to_lowercase(), Service { installed, image });
        Ok(name)
    }

    /// Makes the service `name` for the driver image `sys`, as `CreateService` and `sc create` do: for a legacy driver that has no
    /// INF. It starts on demand and has no settings; what is below its key already stays.
    ///
    /// # Errors
    /// [`DriverError::File`] when the image is not there, [`DriverError::Inf`] for a name that cannot be a key's.
    pub fn create_service(&self, name: &str, sys: &Path) -> Result<(), DriverError> {
        let image = sys.canonicalize().map_err(|error| DriverError::File(sys.to_owned(), error))?;
        let file = image.file_name().unwrap_or_default().to_string_lossy();
        let path = format!(r"\SystemRoot\System32\drivers\{file}");
        let installed = crate::inf::create(name, &path, self.inner().nt.hive())?;
        self.inner().services().insert(name.to_lowercase(), Service { installed, image });
        Ok(())
    }

    /// Whether the service's package starts with a device (an NDIS miniport) instead of by itself.
    ///
    /// # Errors
    /// [`DriverError::NotInstalled`].
    pub fn is_device_service(&self, service: &str) -> Result<bool, DriverError> {
        Ok(self.service(service)?.installed.package == Package::Device)
    }

    /// A service by its name or its image's file name, in any case.
    pub(super) fn service(&self, name: &str) -> Result<Service, DriverError> {
        let services = self.inner().services();
        let by_name = services.get(&name.to_lowercase());
        let is_image = |service: &&Service| {
            let file = service.image.file_name().unwrap_or_default().to_string_lossy();
            file.eq_ignore_ascii_case(name)
        };
        let found = by_name.or_else(|| services.values().find(is_image));
        found.cloned().ok_or_else(|| DriverError::NotInstalled(name.to_owned()))
    }
}

/// The INF that belongs to an image: same name, `.inf`, else `.inx`.
fn beside(sys: &Path) -> PathBuf {
    let inf = sys.with_extension("inf");
    let inx = sys.with_extension("inx");
    if !inf.exists() && inx.exists() { inx } else { inf }
}

/// INF files are UTF-16 with a byte order mark, or bytes.
fn text_of(bytes: &[u8]) -> String {
    match bytes {
        [0xFF, 0xFE, rest @ ..] => {
            let units: Vec<u16> = rest.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inf_files_may_be_utf_16() {
        let bytes: Vec<u8> = "\u{FEFF}[Version]".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(text_of(&bytes), "[Version]");
        assert_eq!(text_of(b"\xEF\xBB\xBF[Version]"), "[Version]");
    }

    #[test]
    fn a_driver_without_an_inf_gets_a_service_of_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path().join("legacy.sys");
        std::fs::write(&sys, crate::image::testing::driver_file()).unwrap();
        let machine = Machine::builder().build().unwrap();
        assert!(matches!(machine.install_service(&sys, None), Err(DriverError::File(..))));
        machine.create_service("Legacy One", &sys).unwrap();
        let key =
            machine.inner().nt.hive().open(r"\Registry\Machine\System\CurrentControlSet\Services\Legacy One").unwrap();
        assert_eq!(key.value("Start").unwrap().as_dword(), Some(3));
        assert_eq!(
            key.value("ImagePath").unwrap().as_text().as_deref(),
            Some(r"\SystemRoot\System32\drivers\legacy.sys")
        );
        assert!(!machine.is_device_service("legacy one").unwrap());
        assert!(matches!(machine.create_service(r"a\b", &sys), Err(DriverError::Inf(_))));
        assert!(matches!(machine.create_service("x", &folder.path().join("nothing.sys")), Err(DriverError::File(..))));
    }

    #[test]
    fn a_service_that_is_not_installed_has_no_driver() {
        let machine = Machine::builder().build().unwrap();
        assert!(matches!(machine.load_driver("nobody"), Err(DriverError::NotInstalled(name)) if name == "nobody"));
        assert!(matches!(machine.unload_driver("nobody", true), Err(DriverError::NotLoaded(_))));
    }
}
