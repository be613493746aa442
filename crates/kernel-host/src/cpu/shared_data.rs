//! `KUSER_SHARED_DATA`: the page at 0xFFFFF78000000000 from which inlined code reads clocks and versions.
//!
//! No Linux process can have memory there. So each access faults, and is carried out on a copy of the page instead: the
//! instruction's base register is moved to the copy, the processor's trap flag lets just that instruction run, and the
//! debug exception behind it puts the register back. The copy's clocks are set at each access.

use std::cell::{Cell, UnsafeCell};
use std::sync::LazyLock;

use iced_x86::{Code, OpKind, Register};

use super::context::{Context, RAX};
use super::epilogue::decode;
use crate::nt::misc::{BUILD, MAJOR_VERSION, MINOR_VERSION};
use crate::nt::raw::Raw;
use crate::nt::time::{PERFORMANCE_FREQUENCY, TIME_INCREMENT, interrupt_time, system_time};

/// Where the kernel sees the page.
const ADDRESS: u64 = 0xFFFF_F780_0000_0000;
const LENGTH: u64 = 0x1000;
/// `TF` of the flags: a debug exception after the next instruction.
const TRAP_FLAG: u32 = 0x100;

/// Fields, by offset.
mod at {
    pub(super) const TICK_COUNT_MULTIPLIER: usize = 0x4;
    pub(super) const INTERRUPT_TIME: usize = 0x8;
    pub(super) const SYSTEM_TIME: usize = 0x14;
    pub(super) const IMAGE_NUMBER_LOW: usize = 0x2C;
    pub(super) const IMAGE_NUMBER_HIGH: usize = 0x2E;
    pub(super) const NT_SYSTEM_ROOT: usize = 0x30;
    pub(super) const LARGE_PAGE_MINIMUM: usize = 0x244;
    pub(super) const NT_BUILD_NUMBER: usize = 0x260;
    pub(super) const NT_PRODUCT_TYPE: usize = 0x264;
    pub(super) const PRODUCT_TYPE_IS_VALID: usize = 0x268;
    pub(super) const NATIVE_ARCHITECTURE: usize = 0x26A;
    pub(super) const NT_MAJOR_VERSION: usize = 0x26C;
    pub(super) const NT_MINOR_VERSION: usize = 0x270;
    pub(super) const PROCESSOR_FEATURES: usize = 0x274;
    pub(super) const NUMBER_OF_PHYSICAL_PAGES: usize = 0x2E8;
    pub(super) const QPC_FREQUENCY: usize = 0x300;
    pub(super) const TICK_COUNT: usize = 0x320;
    pub(super) const ACTIVE_PROCESSOR_COUNT: usize = 0x3C0;
    pub(super) const ACTIVE_GROUP_COUNT: usize = 0x3C4;
}

/// The machine type of x64 images.
const AMD64_IMAGE: u16 = 0x8664;
/// `PROCESSOR_ARCHITECTURE_AMD64`.
const ARCHITECTURE: u16 = 9;
/// `NtProductWinNt`: a workstation.
const WORKSTATION: u32 = 1;
/// Milliseconds per tick as a fixed-point number with 24 bits behind the point: 15.625.
const TICK_COUNT_MULTIPLIER: u32 = 0x0FA0_0000;

/// The copy of one Linux thread: two threads must not change each other's clocks in the middle of a read.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; LENGTH as usize]>);

thread_local! {
    static PAGE: Box<Page> = Box::new(Page(UnsafeCell::new([0; LENGTH as usize])));
    /// The step that is under way: the register that was moved, its value before, and by how much it was moved.
    static STEP: Cell<Option<(usize, u64, u64)>> = const { Cell::new(None) };
}

/// Whether an address is in the page.
pub(super) fn contains(address: u64) -> bool {
    address.wrapping_sub(ADDRESS) < LENGTH
}

/// Prepares `context`, which faulted reading the page, to run that instruction on the copy; false when it cannot be done.
pub(super) fn prepare(context: &mut Context) -> bool {
    let Some(instruction) = decode(context.rip) else { return false };
    let base = refreshed();
    if matches!(
        instruction.code(),
        Code::Mov_RAX_moffs64 | Code::Mov_EAX_moffs32 | Code::Mov_AX_moffs16 | Code::Mov_AL_moffs8
    ) {
        // The address is in the instruction itself.
        let from = Raw::<u8>::at((base + (instruction.memory_displacement64() - ADDRESS)) as usize);
        let (bytes, keep) = match instruction.code() {
            Code::Mov_RAX_moffs64 => (8, 0),
            Code::Mov_EAX_moffs32 => (4, 0), // the upper half becomes zero
            Code::Mov_AX_moffs16 => (2, !0xFFFF),
            _ => (1, !0xFF),
        };
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&from.read_bytes(bytes));
        context.integer[RAX] = context.integer[RAX] & keep | u64::from_le_bytes(value);
        context.rip = instruction.next_ip();
        return true;
    }
    // String instructions read through RSI; others name their base.
    let register = match (instruction.memory_base(), instruction.op1_kind()) {
        (_, OpKind::MemorySegRSI) => Register::RSI,
        (Register::None, _) if instruction.memory_index_scale() == 1 => instruction.memory_index(),
        (base, _) => base,
    };
    // A repeated instruction is trapped after each round, and faults again in the next.
    if !register.is_gpr64() {
        return false;
    }
    let delta = base.wrapping_sub(ADDRESS);
    let index = register.number();
    let before = context.integer[index];
    context.integer[index] = before.wrapping_add(delta);
    context.eflags |= TRAP_FLAG;
    STEP.set(Some((index, before, delta)));
    true
}

/// Puts the moved register back after the step; false when no step was under way.
pub(super) fn finish(context: &mut Context) -> bool {
    let Some((index, before, delta)) = STEP.take() else { return false };
    context.eflags &= !TRAP_FLAG;
    let now = context.integer[index];
    // The instruction may have loaded the register, or (string instructions) advanced it.
    if now.wrapping_sub(before.wrapping_add(delta)) <= 8 {
        context.integer[index] = now.wrapping_sub(delta);
    }
    true
}

/// The instruction that was to run on the copy faulted in another way: the register is put back as it was.
pub(super) fn cancel(context: &mut Context) {
    if let Some((index, before, _)) = STEP.take() {
        context.eflags &= !TRAP_FLAG;
        context.integer[index] = before;
    }
}

/// The calling thread's copy with clocks as they are now; its address.
fn refreshed() -> u64 {
    PAGE.with(|page| {
        let base = Raw::<u8>::of(page.0.get().cast());
        if base.field::<u32>(at::NT_MAJOR_VERSION).read() == 0 {
            fill(base);
        }
        put_time(base.field(at::INTERRUPT_TIME), interrupt_time());
        put_time(base.field(at::SYSTEM_TIME), system_time().cast_unsigned());
        put_time(base.field(at::TICK_COUNT), interrupt_time() / u64::from(TIME_INCREMENT));
        base.address() as u64
    })
}

/// Writes a `KSYSTEM_TIME`: readers compare the two copies of the upper half.
fn put_time(to: Raw<u32>, value: u64) {
    for (index, word) in [value as u32, (value >> 32) as u32, (value >> 32) as u32].into_iter().enumerate() {
        to.index(index).write(word);
    }
}

/// Writes what does not change.
fn fill(base: Raw<u8>) {
    base.field::<u32>(at::TICK_COUNT_MULTIPLIER).write(TICK_COUNT_MULTIPLIER);
    base.field::<u16>(at::IMAGE_NUMBER_LOW).write(AMD64_IMAGE);
    base.field::<u16>(at::IMAGE_NUMBER_HIGH).write(AMD64_IMAGE);
    for (index, unit) in "C:\\Windows".encode_utf16().enumerate() {
        base.field::<u16>(at::NT_SYSTEM_ROOT).index(index).write(unit);
    }
    base.field::<u32>(at::LARGE_PAGE_MINIMUM).write(2 << 20);
    base.field::<u32>(at::NT_BUILD_NUMBER).write(BUILD);
    base.field::<u32>(at::NT_PRODUCT_TYPE).write(WORKSTATION);
    base.field::<u8>(at::PRODUCT_TYPE_IS_VALID).write(1);
    base.field::<u16>(at::NATIVE_ARCHITECTURE).write(ARCHITECTURE);
    base.field::<u32>(at::NT_MAJOR_VERSION).write(MAJOR_VERSION);
    base.field::<u32>(at::NT_MINOR_VERSION).write(MINOR_VERSION);
    for feature in FEATURES.iter() {
        base.field::<u8>(at::PROCESSOR_FEATURES + feature).write(1);
    }
    base.field::<u32>(at::NUMBER_OF_PHYSICAL_PAGES).write(crate::nt::physical::FRAMES as u32);
    base.field::<i64>(at::QPC_FREQUENCY).write(PERFORMANCE_FREQUENCY);
    base.field::<u32>(at::ACTIVE_PROCESSOR_COUNT).write(1);
    base.field::<u8>(at::ACTIVE_GROUP_COUNT).write(1);
}

/// `PF_*` numbers of what this processor has.
pub(crate) static FEATURES: LazyLock<Vec<usize>> = LazyLock::new(|| {
    // What every x64 processor has: CMPXCHG8B, MMX, SSE, RDTSC, PAE, SSE2, NX, CMPXCHG16B, fast fail.
    let mut features = vec![2, 3, 6, 8, 9, 10, 12, 14, 23];
    let more = [
        (std::is_x86_feature_detected!("sse3"), 13),
        (std::is_x86_feature_detected!("xsave"), 17),
        (std::is_x86_feature_detected!("rdrand"), 28),
        (std::is_x86_feature_detected!("ssse3"), 36),
        (std::is_x86_feature_detected!("sse4.1"), 37),
        (std::is_x86_feature_detected!("sse4.2"), 38),
        (std::is_x86_feature_detected!("avx"), 39),
        (std::is_x86_feature_detected!("avx2"), 40),
    ];
    features.extend(more.iter().filter(|(there, _)| *there).map(|(_, number)| *number));
    features
});
