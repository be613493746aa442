//! Small numbered sets on the wire: what is asked for, how far staging is, what a handle is and is used for, which policy rules.
//!
//! Numbers are stable: a meaning may be added, never moved. A number that this crate does not know is kept apart
//! from those it does (`from_code` gives `None`), so that an old client can say so instead of guessing.

/// Declares a numbered set with its conversions and its name for people.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident: $repr:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal => $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)* }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> $repr {
                self as $repr
            }

            /// The value for a number from the wire, `None` where this version does not know it.
            #[must_use]
            pub const fn from_code(code: $repr) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Lower-case name, as in JSON output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    )*};
}

codes! {
    /// What a message asks for.
    Kind: u16 {
        /// Agree on a version, learn the limits. First message of a session.
        Hello = 1 => "hello",
        /// Open a file under an allowed root for reading.
        Open = 2 => "open",
        /// Facts of an open file.
        Query = 3 => "query",
        /// Bytes of an open file.
        Read = 4 => "read",
        /// Close a handle.
        Close = 5 => "close",
        /// Read a file, verify it, and keep it in memory for drivers.
        Stage = 6 => "stage",
        /// Take a staged image out, so that no new driver gets it.
        Unstage = 7 => "unstage",
        /// Which images are staged.
        List = 8 => "list",
        /// Who holds which handle. Administrators only.
        Handles = 9 => "handles",
        /// Who is connected, and what of their quotas they use. Administrators only.
        Sessions = 10 => "sessions",
        /// Take handles away from their owners. Administrators only.
        Revoke = 11 => "revoke",
    }

    /// How far the staging of an image has come. It only goes up.
    Phase: u32 {
        /// Opening the file and checking what it is.
        Opening = 1 => "opening",
        /// Allocating the pages.
        Allocating = 2 => "allocating",
        /// Reading and hashing.
        Reading = 3 => "reading",
        /// Comparing with what the policy demands.
        Verifying = 4 => "verifying",
        /// Ready for drivers.
        Ready = 5 => "ready",
        /// Given up; the entry stays until whoever waits for it has been told.
        Failed = 6 => "failed",
    }

    /// What a handle stands for.
    ObjectKind: u32 {
        /// A file, opened by this session.
        File = 1 => "file",
        /// A staged image.
        Image = 2 => "image",
    }

    /// What is being done with an open handle.
    HandlePhase: u32 {
        /// Nothing at this moment.
        Idle = 1 => "idle",
        /// Requests use it, as many as the entry's pins say.
        InUse = 2 => "in-use",
        /// A NIC driver has mapped the image.
        Mapped = 3 => "mapped",
    }

    /// Whose handles a revocation is about.
    RevokeScope: u32 {
        /// One handle, by its number in the list of handles.
        Handle = 1 => "handle",
        /// All handles of a session, by the session's number.
        Session = 2 => "session",
        /// All handles of all sessions of a process, by the process's identifier.
        Process = 3 => "process",
    }

    /// What staging demands of a file. Set by the registry value `Policy` of the driver's `Parameters` key.
    Policy: u32 {
        /// Any file under an allowed root.
        Unsigned = 0 => "unsigned",
        /// The request must carry the SHA-256 that the file must have.
        Digest = 1 => "digest",
        /// The file must come with a signed manifest.
        Signed = 2 => "signed",
    }
}
