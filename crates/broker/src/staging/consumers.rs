//! Who has been given an image.

use crate::Error;
use crate::fixed_vec::FixedVec;

/// The longest consumer name that is recorded, in UTF-16 units. Service names of NIC drivers are shorter.
pub const MAX_CONSUMER_UNITS: usize = 64;

/// How many consumers are remembered per image. Those that hold it are never forgotten for others.
const REMEMBERED: usize = 8;

/// A driver, or a session, that has or had an image.
#[derive(Debug, Clone, Copy)]
pub struct Consumer {
    units: [u16; MAX_CONSUMER_UNITS],
    length: usize,
    /// How many times it holds the image now.
    pub open: u32,
    /// How many times it has been given the image.
    pub times: u32,
}

/// The consumers of one image. Bounded, so that recording one needs no memory.
pub(super) struct Consumers {
    records: FixedVec<Consumer>,
    last: Option<usize>,
}

impl Consumer {
    /// [`Error::ConsumerName`] (`STATUS_INVALID_PARAMETER`) for more than [`MAX_CONSUMER_UNITS`].
    pub(super) fn new(name: &[u16]) -> Result<Self, Error> {
        let mut units = [0; MAX_CONSUMER_UNITS];
        units.get_mut(..name.len()).ok_or(Error::ConsumerName)?.copy_from_slice(name);
        Ok(Self { units, length: name.len(), open: 0, times: 0 })
    }

    /// The name it gave for itself.
    #[must_use]
    pub fn name(&self) -> &[u16] {
        self.units.get(..self.length).unwrap_or_default()
    }
}

impl Consumers {
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(super) fn try_new() -> Result<Self, Error> {
        Ok(Self { records: FixedVec::try_with_capacity(REMEMBERED)?, last: None })
    }

    /// Records that `consumer` is given the image. Returns where, for [`closed`](Self::closed); `None` where all records
    /// are of consumers that hold the image.
    pub(super) fn opened(&mut self, consumer: &Consumer) -> Option<usize> {
        let same = self.records.iter().position(|record| record.name() == consumer.name());
        let index = same.or_else(|| {
            if self.records.len() < REMEMBERED {
                return self.records.push(*consumer).ok();
            }
            let forgotten = self.records.iter().position(|record| record.open == 0)?;
            *self.records.get_mut(forgotten)? = *consumer;
            Some(forgotten)
        })?;
        let record = self.records.get_mut(index)?;
        record.open = record.open.saturating_add(1);
        record.times = record.times.saturating_add(1);
        self.last = Some(index);
        Some(index)
    }

    /// Records that one holder at `index` is gone.
    pub(super) fn closed(&mut self, index: usize) {
        if let Some(record) = self.records.get_mut(index) {
            record.open = record.open.saturating_sub(1);
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Consumer> {
        self.records.get(index).copied()
    }

    pub(super) fn last(&self) -> Option<Consumer> {
        self.get(self.last?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_remembered_before_those_who_left() {
        let mut consumers = Consumers::try_new().unwrap();
        let named = |n: u16| Consumer::new(&[n]).unwrap();
        let first = consumers.opened(&named(0)).unwrap();
        for n in 1..8 {
            consumers.opened(&named(n)).unwrap();
        }
        assert_eq!(consumers.opened(&named(100)), None);
        consumers.closed(first);
        assert_eq!(consumers.opened(&named(100)), Some(first));
        assert_eq!(consumers.last().unwrap().name(), [100]);
        assert_eq!(consumers.opened(&named(3)), Some(3));
        assert_eq!(consumers.get(3).map(|c| (c.open, c.times)), Some((2, 2)));
    }

    #[test]
    fn names_that_are_too_long_are_refused() {
        assert!(Consumer::new(&[1; MAX_CONSUMER_UNITS]).is_ok());
        assert_eq!(Consumer::new(&[1; MAX_CONSUMER_UNITS + 1]).unwrap_err(), Error::ConsumerName);
    }
}
