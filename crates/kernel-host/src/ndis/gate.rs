//! One operation at a time on an adapter's stack.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::finding::Stopped;
use crate::machine::Inner;

/// How long a wait sleeps before it looks whether the machine has stopped.
const NAP: Duration = Duration::from_millis(20);

/// Admits one Plug and Play operation (start, bind, unbind, reset, remove) after the other.
///
/// No guard of a mutex, because driver code runs inside: a finding leaves it for good, and no destructor runs. The gate then stays
/// closed, which nobody notices: the machine has stopped.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_taken: Mutex<bool>,
    freed: Condvar,
}

impl Gate {
    /// Waits for the gate.
    ///
    /// # Errors
    /// The machine has stopped.
    pub(super) fn enter(&self, machine: &Inner) -> Result<(), Stopped> {
        let mut taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            if let Some(stopped) = machine.stopped() {
                return Err(stopped);
            }
            taken = self.freed.wait_timeout(taken, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        Ok(())
    }

    /// Lets the next one in.
    pub(super) fn leave(&self) {
        *self.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.freed.notify_one();
    }

    /// Whether an operation is under way.
    pub(super) fn is_taken(&self) -> bool {
        *self.is_taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
