//! What a driver left behind.

use std::fmt;

use crate::machine::Driver;

/// The kinds of things a driver has to give back before it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[non_exhaustive]
pub enum LeakKind {
    /// Pool memory.
    Pool,
    /// A kernel handle.
    Handle,
    /// An object reference.
    Reference,
    /// Locked or mapped pages, system mappings, sections.
    Mapping,
    /// A communication port.
    Port,
    /// A registration or callback that still points into the driver.
    Registration,
    /// A device object or symbolic link.
    Device,
    /// A system thread, work item, timer or DPC that may still run driver code.
    Execution,
}

/// One group of things that were not given back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Leak {
    /// What it is.
    pub kind: LeakKind,
    /// How many.
    pub count: u64,
    /// Bytes in them, where that has a meaning; else 0.
    pub bytes: u64,
    /// Which: pool tag, object name, DDI that made it.
    pub detail: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} ({} bytes) {}", self.kind, self.count, self.bytes, self.detail)
    }
}

/// A subsystem that knows what drivers hold.
pub(crate) trait LeakSource {
    /// What `driver` still holds.
    fn leaks(&self, driver: &Driver) -> Vec<Leak>;
}

/// What a driver held when it was gone; empty when it is clean.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct LeakReport {
    /// Image name.
    pub driver: String,
    /// Everything not given back.
    pub leaks: Vec<Leak>,
}

impl LeakReport {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.leaks.is_empty()
    }

    /// Number of things of one kind that were left behind.
    #[must_use]
    pub fn count(&self, kind: LeakKind) -> u64 {
        self.leaks.iter().filter(|leak| leak.kind == kind).map(|leak| leak.count).sum()
    }

    /// Bytes in things of one kind that were left behind.
    #[must_use]
    pub fn bytes(&self, kind: LeakKind) -> u64 {
        self.leaks.iter().filter(|leak| leak.kind == kind).map(|leak| leak.bytes).sum()
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} handles, {} pool bytes, {} references, {} mappings, {} ports",
            self.driver,
            self.count(LeakKind::Handle),
            self.bytes(LeakKind::Pool),
            self.count(LeakKind::Reference),
            self.count(LeakKind::Mapping),
            self.count(LeakKind::Port),
        )?;
        for leak in &self.leaks {
            write!(f, "\n  {leak}")?;
        }
        Ok(())
    }
}
