//! Why a driver operation did not happen.

use nt_types::NtStatus;

use crate::finding::Stopped;
use crate::image::LoadError;
use crate::inf::InfError;
use crate::leak::LeakReport;

/// Why a service was not installed, a driver not loaded or not unloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// A file could not be read.
    #[error("cannot read {0}: {1}")]
    File(std::path::PathBuf, std::io::Error),
    /// The INF cannot be installed.
    #[error("the INF cannot be installed: {0}")]
    Inf(#[from] InfError),
    /// No service of that name is installed.
    #[error("no service {0} is installed")]
    NotInstalled(String),
    /// The driver runs already (`ERROR_SERVICE_ALREADY_RUNNING`).
    #[error("{0} is loaded already")]
    AlreadyLoaded(String),
    /// The driver does not run (`ERROR_SERVICE_NOT_ACTIVE`).
    #[error("{0} is not loaded")]
    NotLoaded(String),
    /// The image was refused.
    #[error(transparent)]
    Image(#[from] LoadError),
    /// `DriverEntry` failed.
    #[error("DriverEntry returned {status}; {report}")]
    EntryFailed {
        /// What `DriverEntry` returned.
        status: NtStatus,
        /// What the driver did not give back before it failed.
        report: LeakReport,
    },
    /// The driver cannot unload, or does not want to.
    #[error("the driver refused to unload: {0}")]
    UnloadRefused(NtStatus),
    /// The unload is held back, as Windows does while a device of the driver is in use; it happens by itself when the last
    /// open is gone. The service control manager shows the driver as stopping.
    #[error("the unload waits: {0}")]
    UnloadHeldBack(String),
    /// The host could not provide what the operation needs.
    #[error("{0}")]
    Host(NtStatus),
    /// The machine stopped on a finding.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl DriverError {
    /// The status that Windows would return for it.
    pub fn status(&self) -> NtStatus {
        match self {
            Self::File(..) | Self::Inf(_) | Self::NotInstalled(_) | Self::NotLoaded(_) => {
                NtStatus::OBJECT_NAME_NOT_FOUND
            }
            Self::UnloadHeldBack(_) => NtStatus::PENDING,
            Self::AlreadyLoaded(_) => NtStatus::IMAGE_ALREADY_LOADED,
            Self::Image(LoadError::MissingImports(_)) => NtStatus::DRIVER_ENTRYPOINT_NOT_FOUND,
            Self::Image(_) => NtStatus::INVALID_IMAGE_FORMAT,
            Self::EntryFailed { status, .. } | Self::UnloadRefused(status) | Self::Host(status) => *status,
            Self::Stopped(_) => NtStatus::SHUTDOWN_IN_PROGRESS,
        }
    }
}
