//! Operations that a filter starts itself, below its own instance.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;

/// FltAllocateCallbackData for a file object.
fn allocate(rig: &Rig, file: usize) -> usize {
    let instance = rig.instance;
    rig.run(|| {
        let mut data = 0usize;
        let out = (&raw mut data).expose_provenance();
        let call = ddi!(FltAllocateCallbackData: fn(usize, usize, usize) -> NtStatus);
        assert_eq!(call(instance, file, out), NtStatus::SUCCESS);
        Raw::<usize>::at(out).read()
    })
    .unwrap()
}

/// Makes it a read of `length` bytes from the start into `buffer`.
fn make_read(data: usize, buffer: usize, length: u32) {
    let block = Raw::<FLT_IO_PARAMETER_BLOCK>::of(field!(Raw::at(data), FLT_CALLBACK_DATA, Iopb).read());
    field!(block, FLT_IO_PARAMETER_BLOCK, MajorFunction).write(READ);
    let parameters = field!(block, FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u8>();
    parameters.field::<u32>(0).write(length);
    parameters.field::<usize>(24).write(buffer);
}

fn free(rig: &Rig, data: usize) -> Result<(), Rule> {
    rig.run(|| ddi!(FltFreeCallbackData: fn(usize))(data))
}

fn object_of(file: &ProgramFile, process: &Arc<Process>) -> usize {
    process.handles().entry(file.handle()).unwrap().object.body()
}

#[test]
fn a_filter_s_own_operation_starts_below_it() {
    conforms!(
        "fltkernel/nf-fltkernel-fltperformsynchronousio.md",
        "The operation reaches only instances below the initiating one, and the file system."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_callback_data.md",
        "FLTFL_CALLBACK_DATA_GENERATED_IO is set in an operation that a filter started."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecallbackdata.md",
        "The callback data is for the instance and the file object given."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let seen = log();
    let (own, below) = (Arc::clone(&seen), Arc::clone(&seen));
    rig.pre(move |_| {
        push(&own, ("own", false));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    Rig::pre_of(lower, move |op| {
        push(&below, ("lower", op.flag(0x1_0000)));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let data = allocate(&rig, object_of(&file, &process));
    let mut bytes = [0_u8; 4];
    let at = (&raw mut bytes).expose_provenance();
    make_read(data, at, 4);
    rig.run(|| ddi!(FltPerformSynchronousIo: fn(usize))(data)).unwrap();
    let status = field!(Raw::<FLT_CALLBACK_DATA>::at(data), FLT_CALLBACK_DATA, IoStatus).read();
    assert_eq!((status.Status, status.Information), (NtStatus::SUCCESS, 4));
    assert_eq!(Raw::<[u8; 4]>::at(at).read(), *b"0123");
    assert_eq!(take(&seen), [("lower", true)]);
    assert_eq!(free(&rig, data), Ok(()));
}

#[test]
fn callback_data_is_used_again_after_a_reset() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreusecallbackdata.md",
        "FltReuseCallbackData leaves TargetInstance and TargetFileObject, and clears the rest."
    );
    let rig = Rig::new(&[]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let object = object_of(&file, &process);
    let data = allocate(&rig, object);
    let mut bytes = [0_u8; 2];
    let at = (&raw mut bytes).expose_provenance();
    for _ in 0..2 {
        make_read(data, at, 2);
        rig.run(|| ddi!(FltPerformSynchronousIo: fn(usize))(data)).unwrap();
        rig.run(|| ddi!(FltReuseCallbackData: fn(usize))(data)).unwrap();
        let block = Raw::<FLT_IO_PARAMETER_BLOCK>::of(field!(Raw::at(data), FLT_CALLBACK_DATA, Iopb).read()).read();
        assert_eq!((block.MajorFunction, block.TargetFileObject.addr()), (0, object));
        assert_eq!(block.TargetInstance.addr(), rig.instance);
    }
    make_read(data, at, 2);
    rig.run(|| ddi!(FltPerformSynchronousIo: fn(usize))(data)).unwrap();
    make_read(data, at, 2);
    assert_eq!(rig.run(|| ddi!(FltPerformSynchronousIo: fn(usize))(data)), Err(Rule::BadState), "without a reset");
}

#[test]
fn callback_data_that_is_not_freed_is_a_leak() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecallbackdata.md",
        "The caller frees the callback data with FltFreeCallbackData."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltfreecallbackdata.md",
        "Only callback data that the filter allocated itself is freed."
    );
    let rig = Rig::new(&[READ]);
    allocate(&rig, 0);
    assert!(rig.setup.leaks()[0].contains("FLT_CALLBACK_DATA"), "{:?}", rig.setup.leaks());
    rig.pre(|op| {
        ddi!(FltFreeCallbackData: fn(usize))(op.data.address());
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadArgument);
}

#[test]
fn callback_data_is_freed_once() {
    conforms!("fltkernel/nf-fltkernel-fltfreecallbackdata.md", "Freed callback data is no callback data any more.");
    let rig = Rig::new(&[]);
    let data = allocate(&rig, 0);
    assert_eq!(free(&rig, data), Ok(()));
    assert_eq!(free(&rig, data), Err(Rule::BadArgument));
}

static COMPLETED: Mutex<Vec<(usize, usize, NtStatus, u8)>> = Mutex::new(Vec::new());

unsafe extern "efiapi" fn completed(data: *mut FLT_CALLBACK_DATA, context: PVOID) {
    let data = data.expose_provenance();
    let status = field!(Raw::<FLT_CALLBACK_DATA>::at(data), FLT_CALLBACK_DATA, IoStatus).read().Status;
    push(&COMPLETED, (data, context.addr(), status, Thread::current().irql()));
}

fn completions(context: usize) -> Vec<(usize, NtStatus, u8)> {
    let all = COMPLETED.lock().unwrap();
    let mine = all.iter().filter(|entry| entry.1 == context);
    mine.map(|&(data, _, status, irql)| (data, status, irql)).collect()
}

fn perform(rig: &Rig, data: usize, context: usize) -> Result<NtStatus, Rule> {
    let routine: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA, PVOID) = completed;
    let call = ddi!(FltPerformAsynchronousIo: fn(usize, usize, usize) -> NtStatus);
    rig.run(|| call(data, routine as usize, context))
}

#[test]
fn an_asynchronous_operation_calls_its_routine() {
    conforms!(
        "fltkernel/nf-fltkernel-fltperformasynchronousio.md",
        "STATUS_SUCCESS says that the file system is done and that the routine was called."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltperformasynchronousio.md",
        "STATUS_FLT_IO_COMPLETE says that a filter below completed the operation; the status is in the callback data."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltperformasynchronousio.md",
        "IRP_MJ_CREATE cannot be asynchronous: STATUS_FLT_INVALID_ASYNCHRONOUS_REQUEST, and the routine is called."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let data = allocate(&rig, object_of(&file, &process));
    let mut bytes = [0_u8; 2];
    let at = (&raw mut bytes).expose_provenance();
    make_read(data, at, 2);
    assert_eq!(perform(&rig, data, 0xA001), Ok(NtStatus::SUCCESS));
    assert_eq!(completions(0xA001), [(data, NtStatus::SUCCESS, 0)]);
    free(&rig, data).unwrap();

    Rig::pre_of(lower, |op| op.complete(NtStatus::CRC_ERROR));
    let data = allocate(&rig, object_of(&file, &process));
    make_read(data, at, 2);
    assert_eq!(perform(&rig, data, 0xA002), Ok(NtStatus::FLT_IO_COMPLETE));
    assert_eq!(completions(0xA002), [(data, NtStatus::CRC_ERROR, 0)]);
    free(&rig, data).unwrap();

    let data = allocate(&rig, 0);
    assert_eq!(perform(&rig, data, 0xA003), Ok(NtStatus::FLT_INVALID_ASYNCHRONOUS_REQUEST));
    assert_eq!(completions(0xA003).len(), 1);
}

#[test]
fn a_pending_operation_calls_its_routine_later_and_cannot_be_freed_before() {
    conforms!(
        "fltkernel/nf-fltkernel-fltperformasynchronousio.md",
        "STATUS_PENDING says that the routine will be called when the operation ends."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreusecallbackdata.md",
        "Callback data of an asynchronous operation is reused after its routine was called, not before."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let data = allocate(&rig, object_of(&file, &process));
    let mut bytes = [0_u8; 2];
    make_read(data, (&raw mut bytes).expose_provenance(), 2);
    Rig::pre_of(lower, |_| flt::FLT_PREOP_PENDING);
    assert_eq!(perform(&rig, data, 0xB001), Ok(NtStatus::PENDING));
    assert!(completions(0xB001).is_empty());
    let (machine, driver) = (rig.setup.bench.machine().inner(), rig.setup.bench.driver());
    pended::complete_pre(machine, driver, data, flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 0);
    assert_eq!(completions(0xB001), [(data, NtStatus::SUCCESS, 0)]);
    rig.run(|| ddi!(FltReuseCallbackData: fn(usize))(data)).unwrap();
    make_read(data, (&raw mut bytes).expose_provenance(), 2);
    assert_eq!(perform(&rig, data, 0xB002), Ok(NtStatus::PENDING));
    assert_eq!(rig.run(|| ddi!(FltReuseCallbackData: fn(usize))(data)), Err(Rule::BadState));
}

type ReadFile = extern "efiapi" fn(usize, usize, usize, u32, usize, u32, usize, usize, usize) -> NtStatus;

fn read_file() -> ReadFile {
    ddi!(FltReadFile: fn(usize, usize, usize, u32, usize, u32, usize, usize, usize) -> NtStatus)
}

/// FltReadFile into a buffer of the test's: status, count, bytes.
fn read(rig: &Rig, file: usize, offset: Option<i64>, length: u32, flags: u32) -> (NtStatus, u32, Vec<u8>) {
    let (mut buffer, mut count) = (vec![0_u8; length as usize], 99_u32);
    let (at, count_at) = (buffer.as_mut_ptr().expose_provenance(), (&raw mut count).expose_provenance());
    let offset_value = offset.unwrap_or(0);
    let offset_at = if offset.is_some() { (&raw const offset_value).expose_provenance() } else { 0 };
    let instance = rig.instance;
    let call = read_file();
    let status = rig.run(|| call(instance, file, offset_at, length, at, flags, count_at, 0, 0)).unwrap();
    let count = Raw::<u32>::at(count_at).read();
    (status, count, Raw::<u8>::at(at).read_bytes((count as usize).min(length as usize)))
}

#[test]
fn reads_begin_where_the_offset_or_the_file_says() {
    conforms!("fltkernel/nf-fltkernel-fltreadfile.md", "A given ByteOffset counts, whatever CurrentByteOffset is.");
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "Without ByteOffset a synchronous file is read at CurrentByteOffset, which moves."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "FILE_USE_FILE_POINTER_POSITION reads at CurrentByteOffset of a synchronous file."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "FLTFL_IO_OPERATION_DO_NOT_UPDATE_BYTE_OFFSET leaves CurrentByteOffset for the caller as it was."
    );
    conforms!("fltkernel/nf-fltkernel-fltreadfile.md", "A read beyond the end of the file is an error.");
    let rig = Rig::new(&[]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let object = object_of(&file, &process);
    assert_eq!(read(&rig, object, Some(4), 2, 0), (NtStatus::SUCCESS, 2, b"45".to_vec()));
    assert_eq!(read(&rig, object, None, 2, 0).2, b"67");
    assert_eq!(read(&rig, object, Some(-2), 1, 4).2, b"8");
    assert_eq!(read(&rig, object, None, 2, 0).2, b"89", "the flag kept the offset");
    assert_eq!(read(&rig, object, Some(10), 2, 0), (NtStatus::END_OF_FILE, 0, Vec::new()));
    assert_eq!(read(&rig, object, Some(8), 9, 0), (NtStatus::SUCCESS, 2, b"89".to_vec()), "a short read");
}

#[test]
fn asynchronous_files_have_no_current_offset() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "Without ByteOffset, or with FILE_USE_FILE_POINTER_POSITION, a read of an asynchronous file is an error."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "Without a callback routine the read is synchronous even on a file for asynchronous I/O."
    );
    let rig = Rig::new(&[]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new().overlapped()).unwrap();
    let object = object_of(&file, &process);
    assert_eq!(read(&rig, object, None, 2, 0).0, NtStatus::INVALID_PARAMETER);
    assert_eq!(read(&rig, object, Some(-2), 2, 0).0, NtStatus::INVALID_PARAMETER);
    assert_eq!(read(&rig, object, Some(1), 2, 0).2, b"12");
}

#[test]
fn non_cached_reads_are_aligned() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "A non-cached read has an offset and a length that are multiples of the sector size."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "FLTFL_IO_OPERATION_SYNCHRONOUS_PAGING needs FLTFL_IO_OPERATION_PAGING."
    );
    let rig = Rig::new(&[]);
    std::fs::write(rig.setup.folder.path().join("boot.rom"), [7; 1024]).unwrap();
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let object = object_of(&file, &process);
    for (offset, length, flags, status) in [
        (0, 512, 1, NtStatus::SUCCESS),
        (1, 512, 1, NtStatus::INVALID_PARAMETER),
        (0, 100, 1, NtStatus::INVALID_PARAMETER),
        (0, 100, 0, NtStatus::SUCCESS),
        (0, 512, 8, NtStatus::INVALID_PARAMETER),
        (0, 512, 10, NtStatus::SUCCESS),
        (0, 512, 0x100, NtStatus::INVALID_PARAMETER),
        (-5, 512, 0, NtStatus::INVALID_PARAMETER),
    ] {
        assert_eq!(read(&rig, object, Some(offset), length, flags).0, status, "{offset} {length} {flags}");
    }
    let uncached = process.create_file(BOOT, &OpenOptions::new().non_cached()).unwrap();
    let object = object_of(&uncached, &process);
    assert_eq!(read(&rig, object, Some(0), 100, 0).0, NtStatus::INVALID_PARAMETER, "by its open");
}

#[test]
fn a_read_with_a_routine_is_asynchronous() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "With a callback routine the read is asynchronous, and BytesRead is ignored."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_completed_async_io_callback.md",
        "The routine gets the callback data and the context, at IRQL <= DISPATCH_LEVEL."
    );
    let rig = Rig::new(&[]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let object = object_of(&file, &process);
    let (mut buffer, mut count, offset) = ([0_u8; 4], 99_u32, 2_i64);
    let (at, count_at) = ((&raw mut buffer).expose_provenance(), (&raw mut count).expose_provenance());
    let offset_at = (&raw const offset).expose_provenance();
    let routine: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA, PVOID) = completed;
    let (instance, call) = (rig.instance, read_file());
    let status = rig.run(|| call(instance, object, offset_at, 4, at, 0, count_at, routine as usize, 0xC001));
    assert_eq!(status, Ok(NtStatus::SUCCESS));
    assert_eq!((Raw::<[u8; 4]>::at(at).read(), Raw::<u32>::at(count_at).read()), (*b"2345", 99));
    let ended = completions(0xC001);
    assert!(ended.len() == 1 && ended[0].1 == NtStatus::SUCCESS && ended[0].2 <= 2);
}

#[test]
fn writes_go_to_the_offset_or_to_the_end() {
    conforms!("fltkernel/nf-fltkernel-fltwritefile.md", "FltWriteFile writes at ByteOffset and says how much.");
    let rig = Rig::new(&[]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new().write()).unwrap();
    let object = object_of(&file, &process);
    let call = ddi!(FltWriteFile: fn(usize, usize, usize, u32, usize, u32, usize, usize, usize) -> NtStatus);
    let instance = rig.instance;
    for (offset, text) in [(0_i64, b"ab"), (-1, b"yz")] {
        let mut count = 0_u32;
        let (offset_at, count_at) = ((&raw const offset).expose_provenance(), (&raw mut count).expose_provenance());
        let at = text.as_ptr().expose_provenance();
        let status = rig.run(|| call(instance, object, offset_at, 2, at, 0, count_at, 0, 0));
        assert_eq!((status, Raw::<u32>::at(count_at).read()), (Ok(NtStatus::SUCCESS), 2));
    }
    assert_eq!(file.read(0, 20), Ok(b"ab23456789yz".to_vec()));
}

#[test]
fn an_mdl_stands_for_the_buffer_in_the_extended_forms() {
    conforms!("fltkernel/nf-fltkernel-fltreadfileex.md", "FltReadFileEx takes a buffer or an MDL, not both.");
    let rig = Rig::new(&[]);
    let process = rig.setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    let object = object_of(&file, &process);
    let call = ddi!(FltReadFileEx:
        fn(usize, usize, usize, u32, usize, u32, usize, usize, usize, usize, usize) -> NtStatus);
    let instance = rig.instance;
    let outcome = rig.run(|| {
        let pool = ddi!(ExAllocatePool2: fn(u64, usize, u32) -> usize)(0x40, 64, u32::from_le_bytes(*b"Mdl1"));
        let list = ddi!(IoAllocateMdl: fn(usize, u32, u8, u8, usize) -> usize)(pool, 64, 0, 0, 0);
        ddi!(MmBuildMdlForNonPagedPool: fn(usize))(list);
        let offset = 1_i64;
        let offset_at = (&raw const offset).expose_provenance();
        let status = call(instance, object, offset_at, 3, 0, 0, 0, 0, 0, 0, list);
        let bytes = Raw::<u8>::at(pool).read_bytes(3);
        assert_eq!((status, bytes), (NtStatus::SUCCESS, b"123".to_vec()));
        call(instance, object, offset_at, 3, pool, 0, 0, 0, 0, 0, list)
    });
    assert_eq!(outcome, Err(Rule::BadArgument), "both");
}
