//! Putting a file in its place, all or nothing.
//!
//! `NdisOpenFile` reads whatever lies in the drivers folder when an adapter starts, which may be at any moment, and after a power
//! failure. So the bytes go to a temporary file in the same folder, are flushed to the disk, and only then take the
//! name; the folder's change is flushed too. At every moment the name means either the whole old file or the whole new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

/// A file that is being written beside its final place. Dropping it without [`commit`](Self::commit) removes it.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    temporary: TempPath,
    target: PathBuf,
}

impl PendingFile {
    /// Starts a file that shall become `folder`/`name`. `name` has to satisfy [`is_plain_name`].
    pub fn create(folder: &Path, name: &str) -> io::Result<Self> {
        if !is_plain_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is not a plain file name")));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".fwbctl-").suffix(".tmp");
        // The driver reads it as the system; on Linux kernel-host may be another user.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let (file, temporary) = builder.tempfile_in(folder)?.into_parts();
        Ok(Self { file, temporary, target: folder.join(name) })
    }

    /// Where the file will be.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Appends bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Makes the file durable, then puts it in its place, taking that of an older one.
    pub fn commit(self) -> io::Result<PathBuf> {
        self.file.sync_all()?;
        // Windows does not rename a file that is open without FILE_SHARE_DELETE.
        drop(self.file);
        rename_durably(self.temporary, &self.target)?;
        Ok(self.target)
    }
}

/// Whether `name` is one file name in any folder: no separator, drive, stream or wildcard, nothing that Win32 rewrites.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.encode_utf16().count() <= 255
        && !name.ends_with(['.', ' '])
        && !name.contains(|c: char| c.is_control() || r#"\/:*?"<>|"#.contains(c))
}

#[cfg(unix)]
fn rename_durably(temporary: TempPath, target: &Path) -> io::Result<()> {
    temporary.persist(target)?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

#[cfg(windows)]
#[expect(unsafe_code, reason = "std's rename does not write through")]
fn rename_durably(temporary: TempPath, target: &Path) -> io::Result<()> {
    use std::os::windows::ffi::OsStrExt;
    use windows_sys::Win32::Storage::FileSystem::{MOVEFILE_REPLACE_EXISTING, MOVEFILE_WRITE_THROUGH, MoveFileExW};

    let wide = |path: &Path| path.as_os_str().encode_wide().chain([0]).collect::<Vec<u16>>();
    let flags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    // Also takes the attribute off that marks temporary files, which NTFS is reluctant to write out.
    let kept = temporary.keep()?;
    let (from, to) = (wide(&kept), wide(target));
    // SAFETY: both are terminated UTF-16 strings that outlive the call.
    if unsafe { MoveFileExW(from.as_ptr(), to.as_ptr(), flags) } == 0 {
        let error = io::Error::last_os_error();
        // The error that counts is the first one.
        let _ = std::fs::remove_file(&kept);
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_name_means_the_old_file_until_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nic.rom");
        fs::write(&path, "old").unwrap();
        let mut pending = PendingFile::create(folder.path(), "nic.rom").unwrap();
        pending.write_all(b"new, and ").unwrap();
        pending.write_all(b"longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(pending.commit().unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"new, and longer");
        assert_eq!(names(folder.path()), ["nic.rom"]);
    }

    #[test]
    fn a_reader_of_the_old_file_keeps_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nic.rom");
        fs::write(&path, "old").unwrap();
        let reader = File::open(&path).unwrap();
        let mut pending = PendingFile::create(folder.path(), "nic.rom").unwrap();
        pending.write_all(b"new").unwrap();
        pending.commit().unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
    }

    #[test]
    fn a_file_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut pending = PendingFile::create(folder.path(), "nic.rom").unwrap();
        pending.write_all(b"half").unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        drop(pending);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn a_target_that_cannot_be_replaced_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("nic.rom")).unwrap();
        let pending = PendingFile::create(folder.path(), "nic.rom").unwrap();
        pending.commit().unwrap_err();
        assert_eq!(names(folder.path()), ["nic.rom"]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", r"a\b", "C:x", "a:stream", "a*", "a.", "a ", "a\0b"] {
            let error = PendingFile::create(folder.path(), name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(is_plain_name("ipxe 8086.rom"));
    }
}
