//! Numbers that keep one client, or one file, from using up the machine.

use crate::Error;

/// The driver's limits: read from the registry at start, then constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file that counts as a firmware image, in bytes.
    pub image_bytes: u64,
    /// What all staged images may use together, in bytes.
    pub total_bytes: u64,
    /// What the staged images of one owner may use together, in bytes.
    pub owner_bytes: u64,
    /// How many images may be staged at a time, under all names, jobs under way included.
    pub images: u32,
    /// How many handles the table may hold.
    pub handles: u32,
    /// The most that one read request may ask for, in bytes.
    pub read_bytes: u32,
    /// The longest name a client may send, in UTF-16 units.
    pub name_units: u32,
    /// What each session may use.
    pub session: SessionLimits,
}

/// What one session may use at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Handles.
    pub handles: u32,
    /// Memory of requests under way, in bytes.
    pub bytes: u64,
    /// Staging jobs under way.
    pub jobs: u32,
}

impl SessionLimits {
    /// Of these limits, what a client gets that is no administrator: enough to read a file, too little for all such clients together
    /// to use up what administrators need.
    #[must_use]
    pub fn of_user(self) -> Self {
        Self { handles: self.handles.min(64), bytes: self.bytes.min(2 * MIB), jobs: self.jobs.min(1) }
    }
}

const MIB: u64 = 1 << 20;

impl Limits {
    /// What a driver without any settings uses.
    pub const DEFAULT: Self = Self {
        image_bytes: 64 * MIB,
        total_bytes: 512 * MIB,
        owner_bytes: 256 * MIB,
        images: 256,
        handles: 65_536,
        read_bytes: MIB as u32,
        name_units: 32_767,
        session: SessionLimits { handles: 1_024, bytes: 16 * MIB, jobs: 8 },
    };

    /// What no setting can exceed. An administrator who mistypes a value must not thereby take the machine down.
    pub const HARD: Self = Self {
        image_bytes: 1024 * MIB,
        total_bytes: 8192 * MIB,
        owner_bytes: 8192 * MIB,
        images: 4_096,
        handles: 16_777_216,
        read_bytes: 16 * MIB as u32,
        name_units: 32_767,
        session: SessionLimits { handles: 1_048_576, bytes: 256 * MIB, jobs: 64 },
    };

    /// These limits, each forced between 1 and its hard cap.
    #[must_use]
    pub fn clamped(self) -> Self {
        let hard = Self::HARD;
        Self {
            image_bytes: self.image_bytes.clamp(1, hard.image_bytes),
            total_bytes: self.total_bytes.clamp(1, hard.total_bytes),
            owner_bytes: self.owner_bytes.clamp(1, hard.owner_bytes),
            images: self.images.clamp(1, hard.images),
            handles: self.handles.clamp(1, hard.handles),
            read_bytes: self.read_bytes.clamp(1, hard.read_bytes),
            name_units: self.name_units.clamp(1, hard.name_units),
            session: SessionLimits {
                handles: self.session.handles.clamp(1, hard.session.handles),
                bytes: self.session.bytes.clamp(1, hard.session.bytes),
                jobs: self.session.jobs.clamp(1, hard.session.jobs),
            },
        }
    }

    /// How many bytes a read of `length` at `offset` gets from a file of `size` bytes.
    ///
    /// [`Error::ReadEmpty`], [`Error::ReadTooLarge`] (more than [`read_bytes`](Self::read_bytes)) or
    /// [`Error::OffsetOverflow`] (`STATUS_INVALID_PARAMETER`); [`Error::EndOfFile`] (`STATUS_END_OF_FILE`) for a read that
    /// starts at or behind the end.
    pub fn check_read(&self, offset: u64, length: u32, size: u64) -> Result<u32, Error> {
        if length == 0 {
            return Err(Error::ReadEmpty);
        }
        if length > self.read_bytes {
            return Err(Error::ReadTooLarge);
        }
        // File positions are signed in NT (LARGE_INTEGER).
        let end = offset.checked_add(u64::from(length)).and_then(|end| i64::try_from(end).ok());
        if end.is_none() {
            return Err(Error::OffsetOverflow);
        }
        let left = size.checked_sub(offset).filter(|left| *left > 0).ok_or(Error::EndOfFile)?;
        Ok(u32::try_from(left).map_or(length, |left| left.min(length)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_forced_under_the_hard_caps_and_above_zero() {
        let wild = Limits { image_bytes: u64::MAX, images: 0, ..Limits::DEFAULT }.clamped();
        assert_eq!(wild.image_bytes, 1 << 30);
        assert_eq!(wild.images, 1);
        assert_eq!(Limits::DEFAULT.clamped(), Limits::DEFAULT);
        assert_eq!(Limits::HARD.clamped(), Limits::HARD);
    }

    #[test]
    fn all_users_together_leave_most_of_the_table_to_administrators() {
        let user = Limits::DEFAULT.session.of_user();
        assert!(user.handles * 64 * 10 < Limits::DEFAULT.handles);
        assert!(user.bytes > u64::from(Limits::DEFAULT.read_bytes), "one read of any size");
        let tight = SessionLimits { handles: 3, bytes: 10, jobs: 1 };
        assert_eq!(tight.of_user(), tight);
    }

    #[test]
    fn reads_are_cut_at_the_end_and_refused_behind_it() {
        let limits = Limits::DEFAULT;
        assert_eq!(limits.check_read(0, 100, 50), Ok(50));
        assert_eq!(limits.check_read(49, 100, 50), Ok(1));
        assert_eq!(limits.check_read(50, 1, 50), Err(Error::EndOfFile));
        assert_eq!(limits.check_read(u64::MAX, 1, 50), Err(Error::OffsetOverflow));
        assert_eq!(limits.check_read(i64::MAX as u64, 1, 50), Err(Error::OffsetOverflow));
        assert_eq!(limits.check_read(0, 0, 50), Err(Error::ReadEmpty));
        assert_eq!(limits.check_read(0, u32::MAX, 50), Err(Error::ReadTooLarge));
        assert_eq!(limits.check_read(0, 10, u64::MAX), Ok(10));
    }
}
