//! Why a request was refused, in more detail than an NTSTATUS has.

/// Declares every reason once: number, what happened and why, what to do next.
macro_rules! reasons {
    ($($code:literal $name:ident: $message:literal, $next:literal;)*) => {
        /// Why a request was refused. The number in a reply is stable; new ones may be added.
        ///
        /// Hundreds group them: 100 the message itself, 200 the session, 300 handles, 400 names, 500 files,
        /// 600 staging, 700 the driver as a whole. The NTSTATUS beside it in the reply is for programs that only know NT;
        /// the reason is for people, and for programs that react to one cause in particular.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $message] $name = $code,)*
        }

        impl Reason {
            /// Every reason, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason for a number from the wire, `None` for 0 and for those of a newer driver.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name of the reason as programs see it, e.g. in JSON output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// One line: what failed, and why. No final stop.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }

            /// One line: what to do next. No final stop.
            #[must_use]
            pub const fn next(self) -> &'static str {
                match self { $(Self::$name => $next,)* }
            }

            /// One line: what failed, why, and what to do next.
            #[must_use]
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$name => concat!($message, ": ", $next),)* }
            }
        }
    };
}

reasons! {
    // The message itself: a client that uses this crate's builders never sees these.
    100 MessageTooShort: "the message is shorter than a request header", "this is a fault of the client program; report it there";
    101 MessageSizeMismatch: "the message's size field differs from the number of bytes sent", "this is a fault of the client program; report it there";
    102 UnsupportedVersion: "the message's protocol version is not the one agreed on", "use a fwbctl of the driver's release";
    103 UnknownKind: "the driver does not know this kind of request", "use a fwbctl of the driver's release, or update the driver";
    104 ReservedNotZero: "a reserved field of the message is not zero", "use a fwbctl of the driver's release";
    105 BodyTooShort: "the message ends before its body does", "this is a fault of the client program; report it there";
    106 BodyTooLong: "the message has bytes behind the end of its body", "this is a fault of the client program; report it there";
    107 NameLengthOdd: "the name has an odd number of bytes, so it is not UTF-16", "this is a fault of the client program; report it there";
    108 LengthOverflow: "a length in the message is too large to be one", "this is a fault of the client program; report it there";
    109 MessageTooLarge: "the message is longer than the driver accepts", "send a shorter name; `fwbctl status` shows the limits";
    110 UnknownFlags: "the message has flags that the driver does not know", "use a fwbctl of the driver's release";
    111 OutputBufferTooSmall: "the reply does not fit into the output buffer", "call again with a larger output buffer";
    112 BufferNotAccessible: "a buffer of the request is not readable or writable memory of the calling process", "this is a fault of the client program; report it there";
    113 ContradictoryFields: "fields of the message exclude each other", "this is a fault of the client program; report it there";

    // The session.
    200 HelloRequired: "the session has not said hello yet", "send hello as the first message";
    201 HelloRepeated: "the session has said hello before", "open a new connection to agree on another version";
    202 NoCommonVersion: "client and driver have no protocol version in common", "use a fwbctl of the driver's release";
    203 SessionClosing: "the session is being closed", "connect again";
    204 TooManySessions: "the driver serves as many clients as it can", "end another client and try again";
    205 TooManyHandles: "the session holds as many handles as it may", "close handles that are not needed; `fwbctl status` shows the limit";
    206 SessionBytesExceeded: "the session's requests take as much memory as they may", "wait for some of them to end, or read in smaller pieces";
    207 TooManyJobs: "the session has as many images being staged as it may", "wait for some of them to be ready";
    208 NotAdministrator: "only administrators may do this", "run the command as administrator";
    209 SessionNotFound: "there is no such session, and no session of such a process", "`fwbctl sessions` shows those there are";
    210 TableFull: "all sessions together hold as many handles as the driver can keep", "`fwbctl sessions` shows who holds them; close or revoke some";

    // Handles.
    // Closed, never given out and somebody else's are one reason: a client must not learn of others' handles.
    300 HandleInvalid: "the handle is not an open handle of this session", "use the handle that open returned, in the same session, before it is closed";
    301 HandleWrongType: "the handle stands for something that this request does not work on", "use the handle that open returned";
    302 HandleBusy: "too many requests use the handle at once", "wait for some of them to end";
    303 HandleRevoked: "an administrator has revoked the handle", "close it; open the file again, or ask the administrator why";
    304 HandleNotFound: "no open handle has this number; it may have been closed or revoked meanwhile", "`fwbctl handles` shows the numbers of those that are open";
    305 HandleOfDriver: "the handle is a NIC driver's, which may be using the image at this moment", "disable the adapter, which makes its driver close the image; `fwbctl handles` shows which driver";

    // Names.
    400 NameEmpty: "the file name is empty", "give the path of a file";
    401 NameTooLong: "the file name is longer than 32,767 characters", "give a shorter path";
    402 NameNotAbsolute: "the file name is not an absolute NT path", r"give a full path such as C:\Firmware\nic.rom";
    403 NameParentDirectory: "the file name goes up with `..`", "give the path without `.` and `..`";
    404 NameStream: "the file name means an alternate data stream", "give the path of the file itself, without a colon";
    405 NameDevice: "the file name means a device, not a file on a volume", r"give a path on a local volume such as C:\Firmware\nic.rom";
    406 NameNetwork: "the file name means a network share", "copy the file to a local volume first";
    407 NameOutsideRoots: "the file is not under an allowed root", "move it there, or add its folder to the registry value FirmwareRoots of the driver's Parameters key";
    408 NameBadCharacter: "the file name has a character that no file name can have", "check the spelling of the path";
    409 NameBadComponent: "the file name has an empty part, or one that ends with a dot or a space", "check the spelling of the path";
    410 NameWildcard: "the file name has a wildcard character", "give the name of one file";
    411 NameNoFile: "the path names a volume or a folder, not a file", "give the path of a file";

    // Files.
    500 FileNotFound: "there is no such file", "check the path";
    501 PathNotFound: "a folder of the path does not exist", "check the path";
    502 FileIsDirectory: "the path is a folder", "give the path of a file in it";
    503 FileEmpty: "the file is empty, so it is no firmware", "check how the file got there";
    504 FileTooLarge: "the file is larger than the driver accepts", "check that it is the firmware file; `fwbctl status` shows the limit";
    505 FileAccessDenied: "the account may not read the file", "give the account read access, or use one that has it";
    506 FileSharingViolation: "another program has the file open for writing", "wait until it is done and try again";
    507 FileReparsePoint: "the path leads through a link or mount point", "give the path of the file itself";
    508 FileWritablyMapped: "another program has the file mapped for writing", "end that program and try again";
    509 FileChanged: "the file changed while it was being read", "wait until whoever writes it is done and try again";
    510 FileOpenFailed: "the file system could not open the file", "see the system status in this report, and check the volume";
    511 FileReadFailed: "the file system could not read the file", "see the system status in this report, and check the volume";
    512 EndOfFile: "the offset is at or behind the end of the file", "read at a smaller offset; `fwbctl open` shows the size";
    513 ReadTooLong: "one read cannot return that many bytes", "read in pieces; `fwbctl status` shows the limit";
    514 OffsetOverflow: "offset and length together are larger than any file", "read at a smaller offset";
    515 FileNotRegular: "the file is of a kind that cannot hold firmware", "give the path of a regular file";
    516 ReadEmpty: "a read of no bytes was asked for", "ask for at least one byte";
    517 FileDeletePending: "the file is being deleted", "copy the file there again";

    // Staging.
    600 DigestRequired: "the policy demands the expected SHA-256 of the file", "stage it with --sha256";
    601 DigestMismatch: "the file does not have the expected SHA-256", "get the file again from its source, and check the digest's source";
    602 SignedPolicyUnsupported: "the policy demands signed manifests, which this driver cannot check", "set the registry value Policy to 1 (digest), or install a newer driver";
    603 ImageNotFound: "no image with this number or name is staged", "`fwbctl list` shows the staged images";
    604 ImageInUse: "a driver or a session holds the image", "`fwbctl list` shows who; disable the adapter or end the client first";
    605 StagedBytesExceeded: "the staged images together would take more memory than allowed", "unstage images that are not needed; `fwbctl status` shows the limit";
    606 DeadlineExpired: "the request did not finish in time", "try again with a longer deadline; `fwbctl list` shows the progress";
    607 Cancelled: "the request was cancelled because its client went away or the driver stops", "try again";
    608 NoMemoryBelowAddress: "there is not enough memory below the highest physical address asked for", "ask for a higher address, or stage early after boot";
    609 TooManyImages: "as many images are staged as the driver can keep", "unstage images that are not needed";
    610 OwnerBytesExceeded: "your staged images together would take more memory than one owner may", "unstage images that are not needed";

    // The driver as a whole.
    700 OutOfMemory: "the system is short of memory for the driver", "close programs or images and try again";
    701 DriverUnloading: "the driver is being unloaded", "`fwbctl load` starts it again";
    702 DriverBusy: "clients or drivers still hold handles or images", "close them, then unload; `fwbctl handles` shows who";
    703 Internal: "the driver met a state that it should never be in", "report this with the status and detail shown";
}

impl Reason {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ascending_and_reversible() {
        assert!(Reason::ALL.windows(2).all(|two| two[0].code() < two[1].code()));
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
        assert_eq!(Reason::from_code(0), None);
    }

    #[test]
    fn every_reason_is_one_line_that_ends_open() {
        for reason in Reason::ALL {
            let text = reason.explain();
            assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
            assert!(!reason.message().is_empty() && !reason.next().is_empty());
        }
    }
}
