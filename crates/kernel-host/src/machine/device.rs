//! Plugging in devices.

use super::{DriverError, Machine};
use crate::ndis::adapter::{Adapter, AdapterError};

/// Why a device was not plugged in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlugInError {
    /// Its driver could not be loaded.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The driver did not start the device.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl Machine {
    /// Plugs in a network adapter as Plug and Play does: loads its driver where no other device has, then starts the adapter.
    ///
    /// `driver` names the service or its image file. `parameters` are written over the INF's defaults.
    ///
    /// # Errors
    /// The driver's or the miniport's refusal.
    pub fn plug_in(&self, driver: &str, name: &str, parameters: &[(&str, &str)]) -> Result<Adapter, PlugInError> {
        let service = self.service(driver)?.installed.service;
        match self.load_driver(&service) {
            Ok(()) | Err(DriverError::AlreadyLoaded(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.add_adapter(&service, name, parameters)?)
    }
}
