//! Which oplocks there are, which go together, and which operations break them: the tables of `ifs/granting-oplocks` and of the
//! pages of the IRPs (`ifs/irp-mj-create2` and its neighbours).

use nt_types::NtStatus;

bitflags::bitflags! {
    /// `OPLOCK_LEVEL_CACHE_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Caching: u32 {
        const READ = 1;
        const HANDLE = 2;
        const WRITE = 4;
    }
}

/// What an oplock lets its owner do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Level1,
    Level2,
    Batch,
    Filter,
    /// The oplocks of Windows 7: R, RH, RW and RWH.
    Cache(Caching),
}

pub(super) const R: Caching = Caching::READ;
pub(super) const RH: Caching = Caching::READ.union(Caching::HANDLE);
pub(super) const RW: Caching = Caching::READ.union(Caching::WRITE);
pub(super) const RWH: Caching = Caching::all();

/// What an operation does to those who cache the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    Create {
        /// The contents go, or FILE_RESERVE_OPFILTER wants a Filter oplock.
        takes_all: bool,
        /// More than reading is asked for, without sharing reads.
        writes_alone: bool,
    },
    Read,
    /// Also a change of the length.
    Write,
    Lock,
    Rename,
    Delete,
    /// FltOplockBreakToNone.
    Everything,
    /// FltOplockBreakH.
    Handles,
}

/// Who waits for the owner's acknowledgment of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledgment {
    None,
    /// It has to come, but the operation goes on without it.
    Later,
    /// The operation waits for it.
    First,
}

/// A break: what is left of the oplock, and who waits.
pub(super) type Broken = (Option<Grant>, Acknowledgment);

impl Grant {
    /// Whether several can be on one stream.
    pub(super) fn is_shared(self) -> bool {
        matches!(self, Self::Level2 | Self::Cache(R | RH))
    }

    /// Whether it is one of the oplocks that file systems break before they check the share access.
    pub(super) fn is_batch_or_filter(self) -> bool {
        matches!(self, Self::Batch | Self::Filter)
    }

    /// `OPLOCK_LEVEL_CACHE_*` of the oplock; the older ones have none.
    pub(super) fn caching(self) -> Caching {
        match self {
            Self::Cache(caching) => caching,
            _ => Caching::empty(),
        }
    }
}

/// What a new oplock does to the others on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Stays,
    /// Ended by the grant: STATUS_OPLOCK_SWITCHED_TO_NEW_HANDLE.
    Switched,
    /// Broken to none.
    BrokenToNone,
}

/// Whether `wanted` is granted beside `held`, which has the same oplock key (or handle) or another.
///
/// # Errors
/// `OPLOCK_NOT_GRANTED`.
pub(super) fn beside(wanted: Grant, held: Grant, same: bool) -> Result<Beside, NtStatus> {
    use Grant::{Batch, Cache, Filter, Level1, Level2};
    match (wanted, held) {
        (Level1 | Batch | Filter, Level2) => Ok(Beside::BrokenToNone),
        (Cache(R), Cache(R)) | (Cache(RW), Cache(R | RW)) | (Cache(RWH), Cache(_)) if same => Ok(Beside::Switched),
        (Level2 | Cache(R), Level2 | Cache(R)) => Ok(Beside::Stays),
        (Cache(R), Cache(RH)) if !same => Ok(Beside::Stays),
        (Cache(RH), Cache(R | RH)) => Ok(if same { Beside::Switched } else { Beside::Stays }),
        _ => Err(NtStatus::OPLOCK_NOT_GRANTED),
    }
}

/// What an operation does to an oplock; `None`: nothing. `same`: it comes on the owner's handle, or with the owner's key.
pub(super) fn broken_by(trigger: Trigger, held: Grant, same: bool) -> Option<Broken> {
    use Acknowledgment as Ack;
    use Grant::{Batch, Cache, Filter, Level1, Level2};
    // Whoever writes or locks breaks even its own Level 2 oplock.
    if same && held != Level2 && trigger != Trigger::Everything {
        return None;
    }
    // The owner has something to write back, or a handle that only it can close.
    let first = if held.is_shared() { Ack::None } else { Ack::First };
    let later = if held == Cache(RH) { Ack::Later } else { first };
    let to = |caching| Some(Cache(caching));
    match (trigger, held) {
        (Trigger::Create { .. }, Level2) if same => None,
        (Trigger::Create { writes_alone, .. }, Filter) => writes_alone.then_some((None, first)),
        (Trigger::Create { takes_all: true, .. } | Trigger::Write | Trigger::Everything, _) => Some((None, later)),
        (Trigger::Create { .. } | Trigger::Read, Level1 | Batch) => Some((Some(Level2), first)),
        (Trigger::Create { .. } | Trigger::Read, Cache(RW)) => Some((to(R), first)),
        (Trigger::Create { .. } | Trigger::Read, Cache(RWH)) => Some((to(RH), first)),
        (Trigger::Create { .. } | Trigger::Read, _) | (Trigger::Lock, Filter) => None,
        (Trigger::Lock, Cache(RH | RWH)) => Some((None, Ack::Later)),
        (Trigger::Lock, _) | (Trigger::Rename, Batch | Filter) => Some((None, first)),
        (Trigger::Rename | Trigger::Delete | Trigger::Handles, Cache(RH)) => Some((to(R), Ack::First)),
        (Trigger::Rename | Trigger::Delete | Trigger::Handles, Cache(RWH)) => Some((to(RW), Ack::First)),
        (Trigger::Rename | Trigger::Delete | Trigger::Handles, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use Grant::{Batch, Cache, Filter, Level1, Level2};

    const ALL: [Grant; 8] = [Level1, Level2, Batch, Filter, Cache(R), Cache(RH), Cache(RW), Cache(RWH)];

    #[test]
    fn exclusive_oplocks_go_beside_level_2_only_which_they_break() {
        conforms!(
            "docs:ifs/granting-oplocks.md",
            "Level 1, Batch and Filter break Level 2, and go beside nothing else."
        );
        for wanted in [Level1, Batch, Filter] {
            for held in ALL {
                let expected =
                    if held == Level2 { Ok(Beside::BrokenToNone) } else { Err(NtStatus::OPLOCK_NOT_GRANTED) };
                assert_eq!(beside(wanted, held, false), expected, "{wanted:?} beside {held:?}");
            }
        }
    }

    #[test]
    fn shared_oplocks_coexist_but_level_2_and_read_handle_do_not() {
        conforms!("docs:ifs/granting-oplocks.md", "Read goes beside Level 2, Read, and Read-Handle of another key.");
        conforms!("docs:ifs/granting-oplocks.md", "Level 2 and Read-Handle cannot coexist.");
        conforms!(
            "docs:ifs/granting-oplocks.md",
            "Read-Write goes beside an own Read or Read-Write, which it replaces."
        );
        let no = Err(NtStatus::OPLOCK_NOT_GRANTED);
        for (wanted, held, same, expected) in [
            (Cache(R), Level2, false, Ok(Beside::Stays)),
            (Cache(R), Cache(RH), false, Ok(Beside::Stays)),
            (Cache(R), Cache(RH), true, no),
            (Cache(R), Cache(R), true, Ok(Beside::Switched)),
            (Level2, Cache(RH), false, no),
            (Cache(RH), Level2, false, no),
            (Cache(RH), Cache(R), true, Ok(Beside::Switched)),
            (Cache(RW), Cache(RW), true, Ok(Beside::Switched)),
            (Cache(RW), Cache(R), false, no),
            (Cache(RW), Cache(RH), true, no),
            (Cache(RWH), Cache(RW), true, Ok(Beside::Switched)),
            (Cache(RWH), Level1, true, no),
        ] {
            assert_eq!(beside(wanted, held, same), expected, "{wanted:?} beside {held:?}, {same}");
        }
    }

    #[test]
    fn reads_take_the_right_to_write_away_and_no_more() {
        conforms!(
            "docs:ifs/irp-mj-read2.md",
            "A read breaks Level 1 and Batch to Level 2, Read-Write to Read, Read-Write-Handle to Read-Handle."
        );
        conforms!("docs:ifs/irp-mj-read2.md", "A read does not break Level 2, Filter, Read and Read-Handle.");
        let first = Acknowledgment::First;
        for held in [Level1, Batch] {
            assert_eq!(broken_by(Trigger::Read, held, false), Some((Some(Level2), first)));
        }
        assert_eq!(broken_by(Trigger::Read, Cache(RW), false), Some((Some(Cache(R)), first)));
        assert_eq!(broken_by(Trigger::Read, Cache(RWH), false), Some((Some(Cache(RH)), first)));
        for held in [Level2, Filter, Cache(R), Cache(RH)] {
            assert_eq!(broken_by(Trigger::Read, held, false), None);
        }
    }

    #[test]
    fn writes_break_everything_of_others_and_level_2_of_the_writer() {
        conforms!("docs:ifs/irp-mj-write2.md", "A write always breaks Level 2 to None, the writer's own, too.");
        conforms!("docs:ifs/irp-mj-write2.md", "A write breaks all oplocks of other keys to None.");
        conforms!("docs:ifs/irp-mj-write2.md", "For Read-Handle the write goes on before the acknowledgment has come.");
        for held in ALL {
            let ack = match held {
                Level2 | Cache(R) => Acknowledgment::None,
                Cache(RH) => Acknowledgment::Later,
                _ => Acknowledgment::First,
            };
            assert_eq!(broken_by(Trigger::Write, held, false), Some((None, ack)), "{held:?}");
            let own = if held == Level2 { Some((None, Acknowledgment::None)) } else { None };
            assert_eq!(broken_by(Trigger::Write, held, true), own, "{held:?}");
        }
    }

    #[test]
    fn locks_spare_the_filter_oplock() {
        conforms!("docs:ifs/irp-mj-lock-control2.md", "A lock does not break a Filter oplock, and all others to None.");
        conforms!(
            "docs:ifs/irp-mj-lock-control2.md",
            "For Read-Handle and Read-Write-Handle the lock goes on before the acknowledgment has come."
        );
        for held in ALL {
            let expected = match held {
                Filter => None,
                Level2 | Cache(R) => Some((None, Acknowledgment::None)),
                Cache(RH | RWH) => Some((None, Acknowledgment::Later)),
                _ => Some((None, Acknowledgment::First)),
            };
            assert_eq!(broken_by(Trigger::Lock, held, false), expected, "{held:?}");
        }
    }

    #[test]
    fn renames_and_deletions_break_what_caches_handles() {
        conforms!(
            "docs:ifs/irp-mj-set-information2.md",
            "A rename breaks Batch and Filter to None, Read-Handle to Read, Read-Write-Handle to Read-Write."
        );
        conforms!(
            "docs:ifs/irp-mj-set-information2.md",
            "A deletion breaks Read-Handle to Read and Read-Write-Handle to Read-Write, and nothing else."
        );
        let first = Acknowledgment::First;
        for held in ALL {
            let handles = match held {
                Cache(RH) => Some((Some(Cache(R)), first)),
                Cache(RWH) => Some((Some(Cache(RW)), first)),
                _ => None,
            };
            assert_eq!(broken_by(Trigger::Delete, held, false), handles, "{held:?}");
            let rename = if held.is_batch_or_filter() { Some((None, first)) } else { handles };
            assert_eq!(broken_by(Trigger::Rename, held, false), rename, "{held:?}");
        }
    }

    #[test]
    fn opens_that_overwrite_leave_nothing_and_others_leave_what_is_shared() {
        conforms!(
            "docs:ifs/irp-mj-create2.md",
            "An open that overwrites breaks oplocks of other keys to None; other opens leave the shared ones alone."
        );
        conforms!(
            "docs:ifs/irp-mj-create2.md",
            "An open breaks Level 1 and Batch to Level 2, Read-Write to Read, and Read-Write-Handle to Read-Handle."
        );
        conforms!(
            "docs:ifs/irp-mj-create2.md",
            "A Filter oplock is broken by opens that write and do not share reads."
        );
        let open = |takes_all, writes_alone| Trigger::Create { takes_all, writes_alone };
        let first = Acknowledgment::First;
        for held in ALL {
            let expected = match held {
                Level1 | Batch => Some((Some(Level2), first)),
                Cache(RW) => Some((Some(Cache(R)), first)),
                Cache(RWH) => Some((Some(Cache(RH)), first)),
                _ => None,
            };
            assert_eq!(broken_by(open(false, false), held, false), expected, "{held:?}");
            assert_eq!(broken_by(open(true, true), held, true), None, "{held:?}");
            assert_eq!(broken_by(open(true, true), held, false).map(|(to, _)| to), Some(None), "{held:?}");
        }
        assert_eq!(broken_by(open(true, false), Filter, false), None);
        assert_eq!(broken_by(open(false, true), Filter, false), Some((None, first)));
    }
}
