//! Pool memory: every block on pages of its own, so that an access outside of it faults at once.
//!
//! A block ends where its pages end (blocks of a page and more start where their pages start, as documented); the
//! few bytes that alignment leaves over hold a pattern that is checked when the block is freed. A freed block's
//! pages stay inaccessible for long, so that a use after free faults too.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::{Access, Arena, PAGE, pages_for};
use super::paging::Pageable;
use super::raw::Raw;
use crate::ddi::Call;
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::origin::Origin;

/// Alignment of blocks below a page, in bytes.
const ALIGNMENT: usize = 16;

/// Alignment of blocks with `POOL_FLAG_CACHE_ALIGNED`.
const CACHE_LINE: usize = 64;

/// What lies around a block on its pages.
const SLACK: u8 = 0xB5;

/// What a block that nobody asked to be zeroed starts with.
const POISON: u8 = 0xCD;

/// How much of what lies before a block is checked for the pattern.
const CHECKED_BEFORE: usize = 64;

/// Freed blocks remembered, to tell a double free from a pointer that never was a block.
const REMEMBERED: usize = 4096;

/// Paged pool may be touched up to `APC_LEVEL` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolKind {
    NonPaged,
    NonPagedExecute,
    Paged,
}

/// What to allocate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) kind: PoolKind,
    pub(crate) length: usize,
    pub(crate) tag: u32,
    pub(crate) zeroed: bool,
    pub(crate) cache_aligned: bool,
}

/// Pool of one machine.
#[derive(Debug)]
pub(crate) struct Pool {
    arena: Arc<Arena>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By address: of blocks on pages of their own, one is near any address if one is there at all.
    blocks: BTreeMap<usize, Block>,
    /// Addresses freed lately and by whom, and their order.
    freed: HashMap<usize, Freed>,
    freed_order: std::collections::VecDeque<usize>,
}

#[derive(Clone, Debug)]
struct Block {
    run: usize,
    pages: usize,
    length: usize,
    tag: u32,
    kind: PoolKind,
    driver: Arc<Driver>,
    ddi: &'static str,
    site: Origin,
}

/// Who freed a block.
#[derive(Debug)]
enum Freed {
    Call {
        ddi: &'static str,
        driver: Arc<Driver>,
        site: usize,
    },
    /// The host, with the object that the block belonged to.
    WithOwner,
}

/// Why a free is refused.
#[derive(Debug)]
enum BadFree {
    NoBlock(String),
    WrongTag(Box<Block>),
    PagedTooHigh(Box<Block>),
    Overwritten(Box<Block>, &'static str),
}

impl Pool {
    pub(crate) fn new(arena: Arc<Arena>) -> Self {
        Self { arena, state: Mutex::default() }
    }

    /// Allocates for the calling driver; 0 when memory is short.
    ///
    /// Stops on paged pool at `DISPATCH_LEVEL`.
    pub(crate) fn allocate(&self, call: &Call, request: Request) -> usize {
        let irql = call.thread().irql();
        if request.kind == PoolKind::Paged && irql > nt_types::APC_LEVEL {
            call.stop(
                Rule::IrqlTooHigh,
                format!("paged pool is allocated at IRQL {irql}; APC_LEVEL is the highest allowed"),
            );
        }
        call.bytes(request.length as u64);
        call.detail(Tag(request.tag));
        let pages = pages_for(request.length).max(1);
        let access = match request.kind {
            PoolKind::NonPagedExecute => Access::ReadWriteExecute,
            PoolKind::NonPaged | PoolKind::Paged => Access::ReadWrite,
        };
        let Some(run) = self.arena.allocate(pages, access) else { return 0 };
        let alignment = if request.cache_aligned { CACHE_LINE } else { ALIGNMENT };
        let room = pages * PAGE;
        let offset =
            if request.length >= PAGE { 0 } else { room - request.length.next_multiple_of(alignment).max(alignment) };
        let block = Block {
            run,
            pages,
            length: request.length,
            tag: request.tag,
            kind: request.kind,
            driver: Arc::clone(call.driver()),
            ddi: call.site().export.name,
            site: Origin::of(call.site()),
        };
        let address = run + offset;
        Raw::<u8>::at(address - offset.min(CHECKED_BEFORE)).fill(SLACK, offset.min(CHECKED_BEFORE));
        Raw::<u8>::at(address + request.length).fill(SLACK, room - offset - request.length);
        if !request.zeroed {
            Raw::<u8>::at(address).fill(POISON, request.length);
        }
        self.lock().blocks.insert(address, block);
        if request.kind == PoolKind::Paged {
            call.machine().nt.paging().add(run, pages, access, Pageable::Pool);
        }
        address
    }

    /// Frees a block for the calling driver; `tag` 0 means any.
    ///
    /// Stops on anything that is not exactly one live block.
    pub(crate) fn free(&self, call: &Call, address: usize, tag: u32) {
        if let Some((start, length)) = self.containing(address)
            && let Some(why) = in_use(call.machine(), start, length)
        {
            call.stop(Rule::BadState, format!("the pool block {address:#x} is freed although {why}"));
        }
        let block = match self.take(call, address, tag) {
            Ok(block) => block,
            Err(bad) => {
                let (rule, message) = bad.describe(address, tag);
                call.stop(rule, message);
            }
        };
        call.bytes(block.length as u64);
        if block.kind == PoolKind::Paged {
            call.machine().nt.paging().remove(block.run);
        }
        self.arena.release(block.run, block.pages);
    }

    /// Frees a block that the host holds for a driver, wherever it is: contexts end with the objects that they are set on.
    ///
    /// # Errors
    /// Which rule the driver broke with the block, and how.
    pub(crate) fn reclaim(&self, address: usize) -> Result<(), (Rule, String)> {
        let block = {
            let mut state = self.lock();
            let block = match state.blocks.get(&address) {
                None => Err(BadFree::NoBlock(state.explain(address))),
                Some(block) => match block.overwritten_side(address) {
                    Some(side) => Err(BadFree::Overwritten(Box::new(block.clone()), side)),
                    None => Ok(block.clone()),
                },
            };
            let block = block.map_err(|bad| bad.describe(address, 0))?;
            state.blocks.remove(&address);
            state.remember(address, Freed::WithOwner);
            block
        };
        self.arena.release(block.run, block.pages);
        Ok(())
    }

    fn take(&self, call: &Call, address: usize, tag: u32) -> Result<Block, BadFree> {
        let mut state = self.lock();
        let Some(block) = state.blocks.get(&address) else { return Err(BadFree::NoBlock(state.explain(address))) };
        if tag != 0 && block.tag != tag {
            return Err(BadFree::WrongTag(Box::new(block.clone())));
        }
        if block.kind == PoolKind::Paged && call.thread().irql() > nt_types::APC_LEVEL {
            return Err(BadFree::PagedTooHigh(Box::new(block.clone())));
        }
        if let Some(side) = block.overwritten_side(address) {
            return Err(BadFree::Overwritten(Box::new(block.clone()), side));
        }
        let block = block.clone();
        state.blocks.remove(&address);
        let (ddi, site) = (call.site().export.name, call.site().return_address);
        state.remember(address, Freed::Call { ddi, driver: Arc::clone(call.driver()), site });
        Ok(block)
    }

    /// What `driver` has not freed, one entry per tag and place.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mut groups: BTreeMap<(u32, &'static str, Origin), (u64, u64)> = BTreeMap::new();
        for block in self.lock().blocks.values() {
            if std::ptr::eq(Arc::as_ptr(&block.driver), driver) {
                let group = groups.entry((block.tag, block.ddi, block.site)).or_default();
                *group = (group.0 + 1, group.1 + block.length as u64);
            }
        }
        let leak = |((tag, ddi, site), (count, bytes))| Leak {
            kind: LeakKind::Pool,
            count,
            bytes,
            detail: format!("tag {}, allocated by {ddi} from {site}", Tag(tag)),
        };
        groups.into_iter().map(leak).collect()
    }

    /// Blocks and bytes that are allocated now.
    #[cfg(test)]
    pub(crate) fn usage(&self) -> (u64, u64) {
        let state = self.lock();
        (state.blocks.len() as u64, state.blocks.values().map(|block| block.length as u64).sum())
    }

    /// Blocks of this tag and length that are allocated now and came from `ddi`.
    pub(crate) fn count(&self, tag: u32, length: usize, ddi: &str) -> usize {
        let state = self.lock();
        state.blocks.values().filter(|block| block.tag == tag && block.length == length && block.ddi == ddi).count()
    }

    /// Whether `address` is in a live block of paged pool.
    pub(crate) fn is_paged(&self, address: usize) -> bool {
        let Some((start, _)) = self.containing(address) else { return false };
        self.lock().blocks.get(&start).is_some_and(|block| block.kind == PoolKind::Paged)
    }

    /// Start and length of the live block that contains `address`.
    pub(crate) fn containing(&self, address: usize) -> Option<(usize, usize)> {
        let state = self.lock();
        let (start, block) = state.around(address)?;
        Some((start, block.length))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of the kernel's, or of NDIS's, is still in use in a range of memory.
fn in_use(machine: &Inner, start: usize, length: usize) -> Option<String> {
    machine.nt.active_in(start, length).or_else(|| machine.ndis.active_in(start, length))
}

impl State {
    fn remember(&mut self, address: usize, who: Freed) {
        self.freed.insert(address, who);
        self.freed_order.push_back(address);
        if self.freed_order.len() > REMEMBERED
            && let Some(oldest) = self.freed_order.pop_front()
        {
            self.freed.remove(&oldest);
        }
    }

    /// The block on whose pages `address` lies.
    fn around(&self, address: usize) -> Option<(usize, &Block)> {
        let page_end = (address | (PAGE - 1)).checked_add(1)?;
        let (start, block) = self.blocks.range(..page_end).next_back()?;
        (address.wrapping_sub(block.run) < block.pages * PAGE).then_some((*start, block))
    }

    fn explain(&self, address: usize) -> String {
        match self.freed.get(&address) {
            Some(Freed::Call { ddi, driver, site }) => {
                return format!("it was freed before: {ddi} by {} from {site:#x}", driver.name);
            }
            Some(Freed::WithOwner) => {
                return "it was freed before: by the owner of the object it belonged to".to_owned();
            }
            None => {}
        }
        match self.around(address) {
            Some((start, block)) if address.wrapping_sub(start) < block.length => {
                format!("it lies {} bytes into the block {start:#x} with tag {}", address - start, Tag(block.tag))
            }
            _ => "it never was a pool block".to_owned(),
        }
    }
}

impl Block {
    /// On which side somebody wrote outside of the block.
    fn overwritten_side(&self, address: usize) -> Option<&'static str> {
        let before = (address - self.run).min(CHECKED_BEFORE);
        let end = address + self.length;
        let after = self.run + self.pages * PAGE - end;
        let intact = |at: usize, length| Raw::<u8>::at(at).read_bytes(length).iter().all(|byte| *byte == SLACK);
        if !intact(address - before, before) {
            Some("before")
        } else if !intact(end, after) {
            Some("behind")
        } else {
            None
        }
    }

    fn origin(&self) -> String {
        let Self { length, tag, ddi, site, .. } = self;
        let text = format!("{length} bytes, tag {}, allocated by {ddi} from {site}", Tag(*tag));
        crate::machine::name_addresses(&text)
    }
}

impl BadFree {
    fn describe(&self, address: usize, tag: u32) -> (Rule, String) {
        match self {
            Self::NoBlock(why) => (Rule::BadPoolFree, format!("{address:#x} is no pool block: {why}")),
            Self::WrongTag(block) => {
                (Rule::BadPoolFree, format!("{address:#x} is freed with tag {}: {}", Tag(tag), block.origin()))
            }
            Self::PagedTooHigh(block) => {
                (Rule::IrqlTooHigh, format!("paged pool {address:#x} is freed above APC_LEVEL: {}", block.origin()))
            }
            Self::Overwritten(block, side) => {
                (Rule::PoolCorruption, format!("bytes {side} the block {address:#x} were written: {}", block.origin()))
            }
        }
    }
}

/// A tag, to be printed as debuggers do: four characters, low byte first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag(pub(crate) u32);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let characters =
            self.0.to_le_bytes().map(|byte| if (0x20..0x7F).contains(&byte) { char::from(byte) } else { '.' });
        characters.iter().try_for_each(|character| f.write_char(*character))
    }
}
