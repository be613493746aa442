//! Executes an INF's install section for this machine: the service key, its settings, and a device's defaults.

use std::sync::Arc;

use super::file::{Inf, InfError};
use super::registry::{add_registry, number};
use crate::nt::hive::{Hive, Key, Value};

/// The Windows build that packages are installed for: the first that keeps minifilter instances below `Parameters`.
const BUILD: u32 = 26100;

/// Where services live.
const SERVICES: &str = r"\Registry\Machine\System\CurrentControlSet\Services";

/// What kind of package an INF is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// A primitive driver: installed once, through `DefaultInstall`.
    Primitive,
    /// A Plug and Play driver: its service is started for a device.
    Device,
}

/// An installed package.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Name of the service, as `AddService` spells it.
    pub service: String,
    /// Registry path of the service key.
    pub registry_path: String,
    /// What kind of package it is.
    pub package: Package,
    /// A [`Package::Device`]'s defaults: what its `AddReg` directives write to the software key of each new device.
    pub device_defaults: Option<Arc<Key>>,
}

/// Writes the registry as installing the package for x64 would.
///
/// # Errors
/// [`InfError::Missing`] when no install section fits x64, or it adds no service; [`InfError::BadEntry`].
pub fn install(inf: &Inf, hive: &Hive) -> Result<Installed, InfError> {
    let (package, section) = install_section(inf)?;
    let services = decorated(inf, &section, ".Services")
        .ok_or_else(|| InfError::Missing(format!("section [{section}.Services]")))?;
    let entry = inf.entry(&services, "AddService");
    let entry = entry.ok_or_else(|| InfError::Missing(format!("AddService directive in [{services}]")))?;
    let (Some(service), Some(service_section)) = (entry.first(), entry.get(2)) else {
        return Err(InfError::BadEntry { section: services, entry: entry.join(",") });
    };
    let registry_path = format!(r"{SERVICES}\{service}");
    let key = hive.create(&registry_path).map_err(|_| InfError::Missing("usable service name".to_owned()))?;
    write_service(inf, service_section, &key)?;
    add_all(inf, service_section, hive, &key)?;
    let device_defaults = match package {
        Package::Primitive => {
            // Without a device, HKR of the install section itself is the service key.
            add_all(inf, &section, hive, &key)?;
            None
        }
        Package::Device => {
            let path = format!(r"\Registry\Machine\System\CurrentControlSet\Control\Class\Defaults\{service}");
            let defaults = hive.create(&path).map_err(|_| InfError::Missing("usable service name".to_owned()))?;
            add_all(inf, &section, hive, &defaults)?;
            Some(defaults)
        }
    };
    Ok(Installed { service: service.clone(), registry_path, package, device_defaults })
}

/// Writes the registry as `CreateService` does for a driver without a package: a kernel driver (`SERVICE_KERNEL_DRIVER`) that is
/// started on demand.
///
/// # Errors
/// [`InfError::Missing`] when the name cannot be a key's.
pub fn create(service: &str, image: &str, hive: &Hive) -> Result<Installed, InfError> {
    let registry_path = format!(r"{SERVICES}\{service}");
    let is_name = !service.is_empty() && !service.contains(['\\', '/']);
    let key = is_name.then(|| hive.create(&registry_path).ok()).flatten();
    let key = key.ok_or_else(|| InfError::Missing("usable service name".to_owned()))?;
    for (name, number) in [("Type", 1), ("Start", 3), ("ErrorControl", 1)] {
        set(&key, name, Value::dword(number));
    }
    set(&key, "ImagePath", Value::expandable(image));
    let service = service.to_owned();
    Ok(Installed { service, registry_path, package: Package::Primitive, device_defaults: None })
}

/// The service-install section's own entries. Page: "INF `AddService` directive".
fn write_service(inf: &Inf, section: &str, key: &Arc<Key>) -> Result<(), InfError> {
    let first = |name: &str| inf.entry(section, name).and_then(|values| values.into_iter().next());
    for (entry, value) in [("ServiceType", "Type"), ("StartType", "Start"), ("ErrorControl", "ErrorControl")] {
        let text = first(entry).ok_or_else(|| InfError::Missing(format!("{entry} in [{section}]")))?;
        let bad = InfError::BadEntry { section: section.to_owned(), entry: format!("{entry} = {text}") };
        set(key, value, Value::dword(number(&text).ok_or(bad)?));
    }
    let binary = first("ServiceBinary").ok_or_else(|| InfError::Missing(format!("ServiceBinary in [{section}]")))?;
    set(key, "ImagePath", Value::expandable(&binary));
    for (entry, value) in [("LoadOrderGroup", "Group"), ("DisplayName", "DisplayName"), ("Description", "Description")]
    {
        if let Some(text) = first(entry) {
            set(key, value, Value::text(&text));
        }
    }
    if let Some(dependencies) = inf.entry(section, "Dependencies") {
        set(key, "DependOnService", Value::list(&dependencies));
    }
    Ok(())
}

fn set(key: &Key, name: &str, value: Value) {
    key.set_value(name, value).expect("nobody deletes a service key while it is installed");
}

/// Executes all `AddReg` directives of `section`.
fn add_all(inf: &Inf, section: &str, hive: &Hive, relative: &Arc<Key>) -> Result<(), InfError> {
    for sections in inf.entries(section, "AddReg") {
        for name in sections {
            add_registry(inf, &name, hive, relative)?;
        }
    }
    Ok(())
}

/// The install section for this machine, undecorated `DefaultInstall` included for legacy packages.
fn install_section(inf: &Inf) -> Result<(Package, String), InfError> {
    if let Some(section) = best(inf, "DefaultInstall") {
        return Ok((Package::Primitive, section));
    }
    let models = inf.lines("Manufacturer").next();
    let models = models.ok_or_else(|| InfError::Missing("[DefaultInstall.NTamd64] or [Manufacturer]".to_owned()))?;
    let base = models.values.first().cloned().unwrap_or_default();
    // `%Maker% = Models, NTamd64, NTamd64.10.0`: the decorations say for which systems there are model sections.
    let section = models
        .values
        .iter()
        .skip(1)
        .filter_map(|decoration| Some((rank(decoration)?, format!("{base}.{decoration}"))))
        .max()
        .map_or(base, |(_, section)| section);
    let model = inf.lines(&section).next();
    let model = model.and_then(|line| line.values.into_iter().next());
    let name = model.ok_or_else(|| InfError::Missing(format!("model in [{section}] (no section fits x64)")))?;
    let section = best(inf, &name).ok_or_else(|| InfError::Missing(format!("section [{name}]")))?;
    Ok((Package::Device, section))
}

/// The section `base` with the decoration that fits this machine best.
fn best(inf: &Inf, base: &str) -> Option<String> {
    let base = base.to_lowercase();
    let fitting = inf.section_names().filter_map(|name| {
        let rest = name.strip_prefix(&base)?;
        let rank = if rest.is_empty() { (0, 0) } else { rank(rest.strip_prefix('.')?)? };
        Some((rank, name))
    });
    fitting.max().map(|(_, name)| name.to_owned())
}

/// The section's `.Services`, `.HW` or similar; these follow the whole decorated name.
fn decorated(inf: &Inf, section: &str, suffix: &str) -> Option<String> {
    let name = format!("{section}{suffix}");
    inf.has(&name).then_some(name)
}

/// How well `NT[architecture][.major[.minor[.product[.suite[.build]]]]]` fits x64 and [`BUILD`]; `None` when it does not.
fn rank(decoration: &str) -> Option<(u32, u32)> {
    let decoration = decoration.to_lowercase();
    let mut parts = decoration.split('.');
    let architecture = match parts.next()? {
        "ntamd64" => 2,
        "nt" => 1,
        _ => return None,
    };
    let parts: Vec<&str> = parts.collect();
    let version = |index: usize| parts.get(index).copied().unwrap_or("");
    let major = if version(0).is_empty() { 0 } else { number(version(0))? };
    let build = if version(4).is_empty() { 0 } else { number(version(4))? };
    // `.Services` and other suffixes are no decorations; a newer system than this one does not fit.
    (major <= 10 && build <= BUILD && parts.len() <= 5).then_some((architecture, major * 1_000_000 + build))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: &str = r#"
[Version]
Signature = "$Windows NT$"
[DefaultInstall.NTamd64.Services]
AddService = Old,,Old.Service
[DefaultInstall.NTamd64]
[DefaultInstall.NTamd64.10.0...25952]
[DefaultInstall.NTamd64.10.0...25952.Services]
AddService = %Name%,,Filter.Service
[DefaultInstall.NTamd64.10.0...99999.Services]
[DefaultInstall.NTamd64.10.0...99999]
[DefaultInstall.NTarm64]
[Filter.Service]
ServiceType = 2
StartType = 3
ErrorControl = 1
ServiceBinary = %13%\x.sys
LoadOrderGroup = "FSFilter Activity Monitor"
Dependencies = FltMgr
AddReg = Filter.Instances
[Filter.Instances]
HKR,Parameters\Instances,DefaultInstance,,Main
HKR,Parameters\Instances\Main,Altitude,,370030.5
HKR,Parameters\Instances\Main,Flags,0x00010001,0
[Strings]
Name = XFilter
"#;

    #[test]
    fn the_section_for_the_newest_fitting_build_is_executed() {
        let hive = Hive::default();
        let installed = install(&Inf::parse(FILTER).unwrap(), &hive).unwrap();
        assert_eq!((installed.service.as_str(), installed.package), ("XFilter", Package::Primitive));
        let key = hive.open(&installed.registry_path).unwrap();
        assert_eq!(key.value("Type").unwrap(), Value::dword(2));
        assert_eq!(key.value("Group").unwrap(), Value::text("FSFilter Activity Monitor"));
        let instance = key.open(r"Parameters\Instances\Main").unwrap();
        assert_eq!(instance.value("Altitude").unwrap().as_text().unwrap(), "370030.5");
    }

    #[test]
    fn a_device_package_keeps_its_defaults_for_each_device() {
        let text = r#"
[Manufacturer]
%Maker% = Models,NTamd64,NTarm64
[Models.NTamd64]
%Device% = Nic.Install, ROOT\NIC
[Models.NTarm64]
%Device% = Other.Install, ROOT\NIC
[Nic.Install.NT]
AddReg = Nic.Reg
[Nic.Install.NT.Services]
AddService = nic, 2, Nic.Service
[Nic.Service]
ServiceType = 1
StartType = 3
ErrorControl = 1
ServiceBinary = %12%\nic.sys
[Nic.Reg]
HKR,,FirmwareName,0,"e1000.rom"
"#;
        let hive = Hive::default();
        let installed = install(&Inf::parse(text).unwrap(), &hive).unwrap();
        assert_eq!((installed.service.as_str(), installed.package), ("nic", Package::Device));
        let defaults = installed.device_defaults.unwrap();
        assert_eq!(defaults.value("FirmwareName").unwrap(), Value::text("e1000.rom"));
        assert!(hive.open(&installed.registry_path).unwrap().value("FirmwareName").is_err());
    }

    #[test]
    fn a_manufacturer_without_models_is_refused() {
        let hive = Hive::default();
        let inf = Inf::parse("[Manufacturer]\n%Maker%=\n").unwrap();
        assert!(matches!(install(&inf, &hive), Err(InfError::Missing(_))));
        let inf = Inf::parse("[Manufacturer]\nMaker\n").unwrap();
        assert!(matches!(install(&inf, &hive), Err(InfError::Missing(_))));
    }

    #[test]
    fn a_package_for_another_architecture_is_refused_by_name() {
        let inf = Inf::parse("[DefaultInstall.NTarm64]\n[DefaultInstall.NTarm64.Services]\n").unwrap();
        let error = install(&inf, &Hive::default()).unwrap_err();
        assert!(error.to_string().contains("DefaultInstall.NTamd64"), "{error}");
    }
}
