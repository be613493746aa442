//! The simulated NIC: a few registers, and a window through which it takes its firmware.
//!
//! Shaped after the loaders of real NICs: the host fills a window in the device's memory, rings a doorbell, and the device's boot
//! code takes the bytes and keeps a running CRC. At the end the host says what the CRC ought to be, and the device starts or does not.

use crate::image::Crc32;

/// Bytes that the window holds.
pub(crate) const WINDOW: usize = 256;

/// State of the boot code, as the status register shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for a load.
    Reset,
    /// Takes bursts.
    Loading,
    /// Runs its firmware.
    Running,
    /// Refused what it got; only a reset helps.
    Failed,
}

/// The device.
pub(crate) struct Device {
    state: State,
    window: [u8; WINDOW],
    crc: Crc32,
    received: u64,
}

/// The device did not start.
pub(crate) struct BootRefused;

impl Device {
    /// A device out of power-on reset.
    pub(crate) const fn new() -> Self {
        Self { state: State::Reset, window: [0; WINDOW], crc: Crc32::new(), received: 0 }
    }

    /// Puts the device back to where power-on leaves it, firmware gone.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Loads `image` burst by burst and starts it. `expected` is the CRC-32 that the host computed.
    pub(crate) fn load(&mut self, image: &[u8], expected: u32) -> Result<(), BootRefused> {
        self.reset();
        self.state = State::Loading;
        for burst in image.chunks(WINDOW) {
            let Some(window) = self.window.get_mut(..burst.len()) else {
                return Err(BootRefused);
            };
            window.copy_from_slice(burst);
            self.doorbell(burst.len());
        }
        self.start(expected);
        if self.is_running() { Ok(()) } else { Err(BootRefused) }
    }

    /// True once the firmware runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Bytes received since the reset.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// CRC-32 of the bytes received since the reset.
    pub(crate) const fn checksum(&self) -> u32 {
        self.crc.value()
    }

    /// The device's side of a doorbell: takes `length` bytes out of the window.
    fn doorbell(&mut self, length: usize) {
        if let Some(bytes) = self.window.get(..length) {
            self.crc.update(bytes);
            self.received = self.received.saturating_add(bytes.len() as u64);
        }
    }

    /// The device's side of the start command.
    fn start(&mut self, expected: u32) {
        self.state = if self.received > 0 && self.crc.value() == expected { State::Running } else { State::Failed };
    }
}
