//! FltGetFileNameInformation and FltGetFileNameInformationUnsafe: which name, and when it can be had.

use std::sync::Arc;

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FltCallbackDataFlags};
use nt_types::{APC_LEVEL, FILE_OBJECT, IrpFlags, NtStatus};

use super::{CacheKey, Name, answer, provider};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::create::file_object;
use crate::flt::instance::Instance;
use crate::flt::major;
use crate::flt::object::{self, FltObject};
use crate::fs::open::Open;
use crate::fs::path::{VolumePath, wide};
use crate::fs::volume::{Volume, WalkOptions};
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetFileNameInformation(max 1, fails RESOURCES) = flt_get_file_name_information;
    FltGetFileNameInformationUnsafe(max 1, fails RESOURCES) = flt_get_file_name_information_unsafe;
}

/// `FLT_FILE_NAME_OPTIONS`, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) format: u32,
    pub(super) method: u32,
    pub(super) flags: u32,
}

impl Options {
    /// # Errors
    /// `INVALID_PARAMETER` without exactly one format and one method, or with bits that mean nothing.
    pub(super) fn parse(bits: u32) -> Result<Self, NtStatus> {
        const FLAGS: u32 = flt::FLT_FILE_NAME_REQUEST_FROM_CURRENT_PROVIDER
            | flt::FLT_FILE_NAME_DO_NOT_CACHE
            | flt::FLT_FILE_NAME_ALLOW_QUERY_ON_REPARSE;
        let options = Self { format: bits & 0xFF, method: bits & 0xFF00, flags: bits & 0xFFFF_0000 };
        let formats = flt::FLT_FILE_NAME_NORMALIZED..=flt::FLT_FILE_NAME_SHORT;
        let methods = [
            flt::FLT_FILE_NAME_QUERY_DEFAULT,
            flt::FLT_FILE_NAME_QUERY_CACHE_ONLY,
            flt::FLT_FILE_NAME_QUERY_FILESYSTEM_ONLY,
            flt::FLT_FILE_NAME_QUERY_ALWAYS_ALLOW_CACHE_LOOKUP,
        ];
        let valid =
            formats.contains(&options.format) && methods.contains(&options.method) && options.flags & !FLAGS == 0;
        if valid { Ok(options) } else { Err(NtStatus::INVALID_PARAMETER) }
    }

    /// The bits again.
    pub(super) fn bits(self) -> u32 {
        self.format | self.method | self.flags
    }
}

/// A file whose name is wanted.
pub(super) struct Subject {
    /// Address of the file object.
    pub(super) file: usize,
    /// `None` before the create has succeeded, and when the file system has closed the file.
    pub(super) open: Option<Arc<Open>>,
    /// The name that the create was given.
    given: Vec<u16>,
    volume: Option<Arc<Volume>>,
    /// IRP_MJ_CLEANUP is through.
    cleaned_up: bool,
    /// The create opens the directory that the file is in.
    parent_only: bool,
}

impl Subject {
    /// Stops on what is no file object.
    pub(super) fn of(call: &Call, address: Raw<FILE_OBJECT>) -> Self {
        let file = address.address();
        if let Some(closing) = crate::flt::contexts::closing_open(call.machine(), file) {
            let open = closing.open();
            let volume = open.as_ref().map(|open| Arc::clone(&open.volume));
            return Self { file, open, given: Vec::new(), volume, cleaned_up: true, parent_only: false };
        }
        let (_object, payload) = file_object(call, address);
        let open = payload.open().ok().cloned();
        let cleaned_up = open.as_ref().is_some_and(|open| open.is_cleaned_up());
        let given = payload.name_given();
        Self { file, open, given, volume: payload.volume(), cleaned_up, parent_only: false }
    }

    /// The device name of the volume, and the volume.
    fn device(&self) -> Result<(Vec<u16>, &Arc<Volume>), NtStatus> {
        let volume = self.volume.as_ref().ok_or(NtStatus::FLT_INVALID_NAME_REQUEST)?;
        Ok((wide(&volume.device_name()), volume))
    }

    /// What the file system says.
    pub(super) fn ask_file_system(&self, format: u32) -> Result<Name, NtStatus> {
        let (device, volume) = self.device()?;
        let mut below = match (format, &self.open) {
            (flt::FLT_FILE_NAME_SHORT, None) => return Err(NtStatus::FLT_INVALID_NAME_REQUEST),
            (flt::FLT_FILE_NAME_SHORT, Some(open)) => return short_name(&open.name()),
            (flt::FLT_FILE_NAME_NORMALIZED, Some(open)) => open.name(),
            (flt::FLT_FILE_NAME_NORMALIZED, None) => normalized(volume, &self.given)?,
            (_, _) => self.given.clone(),
        };
        if self.parent_only && self.open.is_none() {
            let end = below.iter().rposition(|&unit| unit == u16::from(b'\\')).unwrap_or(0);
            below.truncate(end.max(1));
        }
        let length = device.len();
        Ok(Name { text: [device, below].concat(), volume: length })
    }
}

/// Long names as they are stored, links of the path resolved; the last component need not exist.
///
/// # Errors
/// `OBJECT_PATH_NOT_FOUND` and the like when the path to it does not exist.
pub(super) fn normalized(volume: &Arc<Volume>, given: &[u16]) -> Result<Vec<u16>, NtStatus> {
    let mut path = VolumePath::parse(given)?;
    let options = WalkOptions { open_reparse_point: true, ..WalkOptions::default() };
    volume.walk(&mut path, options)?;
    Ok(path.display())
}

/// The 8.3 name. The volumes make none, as NTFS volumes other than the system's do not by default (general knowledge, no
/// page): a name has one only when it is one.
///
/// # Errors
/// `OBJECT_NAME_NOT_FOUND` for a name without.
fn short_name(name: &[u16]) -> Result<Name, NtStatus> {
    let start = name.iter().rposition(|&unit| unit == u16::from(b'\\')).map_or(0, |at| at + 1);
    let last = String::from_utf16_lossy(&name[start..]);
    // The short name has no stream.
    let last = last.split(':').next().unwrap_or_default();
    let (base, extension) = last.rsplit_once('.').unwrap_or((last, ""));
    let fits = |part: &str, most| {
        part.chars().count() <= most && part.chars().all(|c| c.is_ascii_graphic() && !"+,;=[].".contains(c))
    };
    if base.is_empty() || !fits(base, 8) || !fits(extension, 3) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    Ok(Name { text: wide(last), volume: 0 })
}

/// A query under way.
pub(super) struct Query<'a> {
    pub(super) call: &'a Call,
    pub(super) subject: Subject,
    pub(super) options: Options,
    /// Who asks; `None` before the filter has an instance.
    pub(super) instance: Option<Arc<Instance>>,
    /// `FLT_CALLBACK_DATA`, or NULL outside of an operation.
    pub(super) data: Raw<FLT_CALLBACK_DATA>,
    /// The file system may be asked.
    pub(super) safe: bool,
}

impl Query<'_> {
    /// The name, from the cache or from whom it comes from, as the query method says.
    ///
    /// # Errors
    /// `FLT_INVALID_NAME_REQUEST`, `FLT_NAME_CACHE_MISS`, and those of the file system and of name providers.
    pub(super) fn run(&self) -> Result<Name, NtStatus> {
        let provider = provider::below(self);
        let key = CacheKey {
            file: self.subject.file,
            format: self.options.format,
            provider: provider.as_ref().map_or(0, |instance| instance.address),
        };
        if self.options.format == flt::FLT_FILE_NAME_SHORT && self.subject.open.is_none() {
            return Err(NtStatus::FLT_INVALID_NAME_REQUEST);
        }
        let cached = || self.cached(key).ok_or(NtStatus::FLT_NAME_CACHE_MISS);
        match self.options.method {
            flt::FLT_FILE_NAME_QUERY_CACHE_ONLY => cached(),
            flt::FLT_FILE_NAME_QUERY_ALWAYS_ALLOW_CACHE_LOOKUP if !self.safe => cached(),
            _ if !self.safe => Err(NtStatus::FLT_INVALID_NAME_REQUEST),
            flt::FLT_FILE_NAME_QUERY_FILESYSTEM_ONLY => Ok(self.fetch(provider.as_ref())?.0),
            _ => cached().or_else(|_| {
                let (name, cacheable) = self.fetch(provider.as_ref())?;
                if cacheable && self.options.flags & flt::FLT_FILE_NAME_DO_NOT_CACHE == 0 {
                    self.call.machine().flt.names.lock().cache.insert(key, name.clone());
                }
                Ok(name)
            }),
        }
    }

    /// The name and whether it may be cached.
    fn fetch(&self, provider: Option<&Arc<Instance>>) -> Result<(Name, bool), NtStatus> {
        match provider {
            Some(instance) => provider::ask(self, instance),
            None => Ok((self.subject.ask_file_system(self.options.format)?, true)),
        }
    }

    /// A cached name, unless the file has been renamed since.
    fn cached(&self, key: CacheKey) -> Option<Name> {
        let known = self.call.machine().flt.names.lock().cache.get(&key).cloned()?;
        let stale = key.provider == 0
            && self.subject.ask_file_system(key.format).is_ok_and(|current| current != known)
            && !self.subject.cleaned_up;
        (!stale).then_some(known)
    }
}

/// `KeAreAllApcsDisabled`.
fn all_apcs_disabled(call: &Call) -> bool {
    call.thread().guarded_regions() != 0 || call.thread().irql() >= APC_LEVEL
}

/// Whether the file system may be asked for a name in this operation, as the page lists it.
fn is_safe(call: &Call, subject: &Subject, irp_flags: u32, major: u8, is_post: bool) -> bool {
    use flt::fs_filter_major as fs_filter;
    let paging = IrpFlags::PAGING_IO | IrpFlags::SYNCHRONOUS_PAGING_IO;
    let transfer = matches!(major, major::READ | major::WRITE);
    let locked = matches!(
        major,
        fs_filter::IRP_MJ_ACQUIRE_FOR_CC_FLUSH
            | fs_filter::IRP_MJ_RELEASE_FOR_CC_FLUSH
            | fs_filter::IRP_MJ_ACQUIRE_FOR_MOD_WRITE
            | fs_filter::IRP_MJ_RELEASE_FOR_MOD_WRITE
            | fs_filter::IRP_MJ_RELEASE_FOR_SECTION_SYNCHRONIZATION
    );
    let section = major == fs_filter::IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION && is_post;
    let pages = transfer && IrpFlags::from_bits_retain(irp_flags).intersects(paging);
    !(pages || locked || section || subject.cleaned_up || all_apcs_disabled(call))
}

extern "efiapi" fn flt_get_file_name_information(
    data: Raw<FLT_CALLBACK_DATA>,
    options: u32,
    out: Raw<usize>,
) -> NtStatus {
    /// `SL_OPEN_TARGET_DIRECTORY`.
    const OPEN_TARGET_DIRECTORY: u8 = 0x04;
    let call = Call::enter();
    if data.is_null() || out.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let options = match Options::parse(options) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let flags = FltCallbackDataFlags::from_bits_retain(field!(data, FLT_CALLBACK_DATA, Flags).read());
    let block = Raw::<FLT_IO_PARAMETER_BLOCK>::of(field!(data, FLT_CALLBACK_DATA, Iopb).read());
    let file = Raw::<FILE_OBJECT>::of(field!(block, FLT_IO_PARAMETER_BLOCK, TargetFileObject).read());
    if file.is_null() {
        return NtStatus::FLT_INVALID_NAME_REQUEST;
    }
    let major = field!(block, FLT_IO_PARAMETER_BLOCK, MajorFunction).read();
    let irp_flags = field!(block, FLT_IO_PARAMETER_BLOCK, IrpFlags).read();
    let mut subject = Subject::of(&call, file);
    subject.parent_only = major == major::CREATE
        && field!(block, FLT_IO_PARAMETER_BLOCK, OperationFlags).read() & OPEN_TARGET_DIRECTORY != 0;
    let safe = is_safe(&call, &subject, irp_flags, major, flags.contains(FltCallbackDataFlags::POST_OPERATION));
    let instance = Raw::of(field!(block, FLT_IO_PARAMETER_BLOCK, TargetInstance).read()).address();
    let instance = match call.machine().flt.objects.get(instance) {
        Some(FltObject::Instance(instance)) => Some(instance),
        _ => None,
    };
    let name = Query { call: &call, subject, options, instance, data, safe }.run();
    answer(&call, name, options.format, out)
}

extern "efiapi" fn flt_get_file_name_information_unsafe(
    file: Raw<FILE_OBJECT>,
    instance: usize,
    options: u32,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    if out.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let options = match Options::parse(options) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let instance = (instance != 0).then(|| object::instance(&call, instance));
    if options.method != flt::FLT_FILE_NAME_QUERY_CACHE_ONLY && all_apcs_disabled(&call) {
        call.stop(Rule::Deadlock, "a name query with all APCs disabled can wait for ever");
    }
    let subject = Subject::of(&call, file);
    if subject.open.is_none() || subject.cleaned_up {
        return NtStatus::FLT_INVALID_NAME_REQUEST;
    }
    let name = Query { call: &call, subject, options, instance, data: Raw::NULL, safe: true }.run();
    answer(&call, name, options.format, out)
}
