//! Finds what each import of a driver stands for.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::known::known;
use super::pe::Import;
use super::{Image, LoadError};
use crate::ddi::{Call, Export, Target};
use crate::finding::Rule;
use crate::machine::Inner;

/// Everything that this host exports, by module (lower case) and name.
static EXPORTS: LazyLock<HashMap<(&str, &str), &'static Export>> = LazyLock::new(|| {
    let all =
        crate::cpu::exports().chain(crate::nt::exports()).chain(crate::flt::exports()).chain(crate::ndis::exports());
    #[cfg(test)]
    let all = all.chain(super::testing::TABLE);
    all.map(|export| ((export.module, export.name), export)).collect()
});

/// Forwarders that lead from one to the next; more are a circle.
const LONGEST_FORWARDING: u32 = 8;

/// Exports made for names that are known but not implemented; leaked, once per name.
static UNIMPLEMENTED: Mutex<Option<HashMap<(&'static str, &'static str), &'static Export>>> = Mutex::new(None);

/// How well this host serves an imported name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportKind {
    /// Implemented.
    Implemented,
    /// A documented kernel export that stops the machine when it is called.
    Known,
    /// Nothing exports it.
    Unknown,
}

/// Where an import slot leads.
#[derive(Debug)]
pub(super) enum Bound {
    /// Straight to an address: a variable, or code of another driver.
    Address(u64),
    /// Through the import gate to a function of this host.
    Gate(*const (), &'static Export),
}

/// Resolves imports against this host and against drivers that are loaded already.
#[derive(Debug, Default)]
pub(crate) struct Resolver<'a> {
    /// Whose variables are meant; `None` for an image that no machine loads.
    pub(crate) machine: Option<&'a Arc<Inner>>,
    /// Loaded images, in the order of loading.
    pub(crate) images: Vec<&'a Image>,
}

/// The host's export for an imported name.
pub(super) fn find(module: &str, name: &str) -> Option<&'static Export> {
    let module = module.to_ascii_lowercase();
    // hal.dll forwards to the kernel since Windows 10 2004.
    let module = if module == "hal.dll" { "ntoskrnl.exe" } else { module.as_str() };
    EXPORTS.get(&(module, name)).copied()
}

/// How well this host serves an import.
pub(crate) fn kind(module: &str, name: &str) -> ImportKind {
    if find(module, name).is_some() {
        ImportKind::Implemented
    } else if known(module, name).is_some() {
        ImportKind::Known
    } else {
        ImportKind::Unknown
    }
}

impl Resolver<'_> {
    /// Resolves all imports, or says which names nothing exports.
    pub(super) fn bind(&self, imports: &[Import]) -> Result<Vec<Bound>, LoadError> {
        let mut missing = Vec::new();
        let mut all = Vec::with_capacity(imports.len());
        for import in imports {
            match self.bind_one(import) {
                Some(bound) => all.push(bound),
                None => missing.push(format!("{}!{}", import.module, import.name)),
            }
        }
        if missing.is_empty() { Ok(all) } else { Err(LoadError::MissingImports(missing)) }
    }

    fn bind_one(&self, Import { module, name, .. }: &Import) -> Option<Bound> {
        self.resolve(module, name, LONGEST_FORWARDING)
    }

    /// `hops`: how many forwarders may still lead on.
    fn resolve(&self, module: &str, name: &str, hops: u32) -> Option<Bound> {
        if let Some(export) = find(module, name) {
            return Some(match export.target {
                Target::Function(address) => Bound::Gate(address, export),
                Target::Data(address) => Bound::Address(address as u64),
                Target::Variable(of) => Bound::Address(of(self.machine?) as u64),
            });
        }
        for image in self.images.iter().filter(|image| image.module().name().eq_ignore_ascii_case(module)) {
            if let Some(address) = image.export(name) {
                return Some(Bound::Address(address as u64));
            }
            if let Some((module, name)) = image.forwarder(name)
                && let Some(hops) = hops.checked_sub(1)
            {
                return self.resolve(module, name, hops);
            }
        }
        let (module, name) = known(module, name)?;
        Some(Bound::Gate(not_implemented as *const (), unimplemented(module, name)))
    }
}

/// Stands for a name that Windows exports and this host does not implement: a function that stops the machine.
pub(super) fn known_export(module: &str, name: &str) -> Option<&'static Export> {
    known(module, name).map(|(module, name)| unimplemented(module, name))
}

fn unimplemented(module: &'static str, name: &'static str) -> &'static Export {
    let mut made = UNIMPLEMENTED.lock().unwrap_or_else(PoisonError::into_inner);
    made.get_or_insert_default().entry((module, name)).or_insert_with(|| {
        let target = Target::Function(not_implemented as *const ());
        Box::leak(Box::new(Export { module, name, target, max_irql: 31, failures: &[] }))
    })
}

/// Stands behind every export that is known by name only.
extern "efiapi" fn not_implemented() {
    let call = Call::enter();
    let name = call.site().export.name;
    call.stop(Rule::NotImplemented, format!("kernel-host does not implement {name} yet"));
}
