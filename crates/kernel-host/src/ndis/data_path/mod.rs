//! The data path: net buffer lists on their way through a stack.
//!
//! Lists go down from the protocol or filter that sends them to the miniport, and come back complete ([`send`]); they go up from the
//! miniport or filter that indicates them to the protocols, and are returned ([`receive`]). Each is with one driver at a time, which
//! is kept here, by the address of the list: whoever passes on, completes, returns or frees what is not his is found.
//!
//! Simplified: of several protocols that want a list, only the last gets it for as long as it likes, the others see it with
//! `NDIS_RECEIVE_FLAGS_RESOURCES`; what a protocol sends is not looped back to other protocols.

use std::sync::Arc;

use ndis::raw::{NET_BUFFER, NET_BUFFER_LIST};
use nt_types::DISPATCH_LEVEL;

use super::Ndis;
use super::adapter::AdapterError;
use super::buffers::segments;
use super::port::Port;
use crate::ddi::Call;
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

mod receive;
mod send;

pub(super) use receive::EXPORTS as RECEIVE_EXPORTS;
pub(super) use send::EXPORTS as SEND_EXPORTS;

/// Longest chain that is followed: one that is longer has lost its end.
const MOST: usize = 65536;

type List = Raw<NET_BUFFER_LIST>;

/// Where a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the miniport, and back complete.
    Down,
    /// To the protocols, and back.
    Up,
}

/// A list that is not with the driver that sent or indicated it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    way: Way,
    /// Handle of the binding, module or adapter that sent or indicated it.
    origin: usize,
    /// Handle of the binding, module or adapter whose driver has it now.
    holder: usize,
}

impl Ndis {
    fn flight(&self, list: List) -> Option<Flight> {
        self.lock().flights.get(&list.address()).copied()
    }

    /// Lists now belong to `holder`.
    fn hold(&self, lists: &[List], way: Way, origin: usize, holder: usize) {
        let mut state = self.lock();
        for list in lists {
            state.flights.insert(list.address(), Flight { way, origin, holder });
        }
    }

    fn land(&self, lists: &[List]) {
        let mut state = self.lock();
        for list in lists {
            state.flights.remove(&list.address());
        }
    }

    /// Who has a list that its driver must not free now.
    pub(super) fn holder(&self, list: usize) -> Option<&'static str> {
        self.lock().flights.get(&list).map(|flight| match flight.way {
            Way::Down => "its send is not complete",
            Way::Up => "it was indicated and is not returned",
        })
    }

    /// How many lists `handle` still has to complete or return, and how many of its own are not back.
    pub(super) fn in_flight(&self, handle: usize) -> (usize, usize) {
        let state = self.lock();
        let held = state.flights.values().filter(|flight| flight.holder == handle && flight.origin != handle).count();
        (held, state.flights.values().filter(|flight| flight.origin == handle).count())
    }

    /// Says that lists are on their way to or from `handle`, which must not be so.
    pub(super) fn find_in_flight(
        &self,
        thread: &Thread,
        driver: &Driver,
        handle: usize,
        what: &str,
    ) -> Result<(), AdapterError> {
        match self.in_flight(handle) {
            (0, 0) => Ok(()),
            (held, own) => {
                let message = format!(
                    "{what} with {held} net buffer lists of others not completed or returned, and {own} of its own not back"
                );
                Err(AdapterError::Stopped(super::find(thread, driver, Rule::BadState, what, message)))
            }
        }
    }
}

/// The lists of a chain, in their order.
fn lists_of(call: &Call, first: List) -> Vec<List> {
    let mut lists = Vec::new();
    let mut next = first.some();
    while let Some(list) = next {
        if lists.len() == MOST {
            call.stop(Rule::BadArgument, format!("the chain of net buffer lists at {first:?} is a ring"));
        }
        lists.push(list);
        next = Raw::of(field!(list, NET_BUFFER_LIST, Next).read()).some();
    }
    if lists.is_empty() {
        call.stop(Rule::BadArgument, "no net buffer list");
    }
    lists
}

/// Makes a chain of lists; its first.
fn link(lists: &[List]) -> List {
    for (index, list) in lists.iter().enumerate() {
        let next = lists.get(index + 1).copied().unwrap_or(Raw::NULL);
        field!(*list, NET_BUFFER_LIST, Next).write(next.pointer());
    }
    lists.first().copied().unwrap_or(Raw::NULL)
}

/// Lists by where they go next, in the order in which they came.
fn sorted(lists: &[List], next: impl Fn(List) -> usize) -> Vec<(usize, Vec<List>)> {
    let mut groups: Vec<(usize, Vec<List>)> = Vec::new();
    for list in lists {
        let to = next(*list);
        match groups.iter_mut().find(|(other, _)| *other == to) {
            Some((_, group)) => group.push(*list),
            None => groups.push((to, vec![*list])),
        }
    }
    groups
}

/// The flag by which a caller says that it is at `DISPATCH_LEVEL` (bit 0 of all four sets of flags) must be true.
fn check_level(call: &Call, flags: u32) {
    let irql = call.thread().irql();
    if flags & 1 != 0 && irql != DISPATCH_LEVEL {
        call.stop(Rule::BadArgument, format!("the flags say DISPATCH_LEVEL, and the IRQL is {irql}"));
    }
}

/// Checks lists that a driver sends or indicates on its own: they are free, from a pool, say who sends them and describe their data.
fn check_new(call: &Call, lists: &[List], handle: usize) {
    for list in lists {
        let ndis = &call.machine().ndis;
        if let Some(holder) = ndis.holder(list.address()) {
            call.stop(Rule::BadState, format!("the net buffer list {list:?} is passed again although {holder}"));
        }
        if !ndis.lock().buffers.lists.contains_key(&list.address()) {
            call.stop(Rule::BadArgument, format!("{list:?} is no net buffer list from a pool of NDIS"));
        }
        let source = field!(*list, NET_BUFFER_LIST, SourceHandle).read().addr();
        if source != handle {
            let message = format!("SourceHandle of {list:?} is {source:#x}; it must be the handle {handle:#x}");
            call.stop(Rule::BadArgument, message);
        }
        check_data(call, *list);
    }
}

/// Each list has a buffer, and each buffer as many bytes as it says.
fn check_data(call: &Call, list: List) {
    let mut next = Raw::of(field!(list, NET_BUFFER_LIST, FirstNetBuffer).read());
    if next.is_null() {
        call.stop(Rule::BadArgument, format!("the net buffer list {list:?} has no net buffer"));
    }
    while !next.is_null() {
        let _ = segments(call, next);
        next = Raw::of(field!(next, NET_BUFFER, Next).read());
    }
}

/// Checks lists that a driver passes on, completes or returns: they are with it, on that way.
fn check_held(call: &Call, lists: &[List], handle: usize, way: Way) {
    for list in lists {
        let flight = call.machine().ndis.flight(*list);
        if !flight.is_some_and(|flight| flight.holder == handle && flight.way == way) {
            let message =
                format!("the net buffer list {list:?} was not given to this driver, or is given back already");
            call.stop(Rule::BadState, message);
        }
    }
}

impl Port {
    /// Stops a miniport that is paused with lists of others, or with lists of its own that are not returned.
    pub(super) fn check_no_lists(&self, thread: &Arc<Thread>, callback: &str) -> Result<(), AdapterError> {
        thread.machine().ndis.find_in_flight(thread, &self.miniport.driver, self.handle, callback)
    }
}
