//! Receive indications, and the return of what was indicated.

use ndis::raw::{NDIS_RECEIVE_FLAGS_RESOURCES, NET_BUFFER_LIST};

use super::{List, Way, check_held, check_level, check_new, link, lists_of, sorted};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::ndis::adapter::AdapterState;
use crate::ndis::buffers::segments;
use crate::ndis::filter::{FilterState, Module};
use crate::ndis::port::Port;
use crate::ndis::protocol::{Binding, BindingState};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisMIndicateReceiveNetBufferLists(max 2) = indicate;
    NdisFIndicateReceiveNetBufferLists(max 2) = filter_indicate;
    NdisReturnNetBufferLists(max 2) = give_back;
    NdisFReturnNetBufferLists(max 2) = filter_give_back;
}

/// Bits of `OID_GEN_CURRENT_PACKET_FILTER`.
mod packet {
    pub(super) const DIRECTED: u32 = 0x01;
    pub(super) const MULTICAST: u32 = 0x02;
    pub(super) const ALL_MULTICAST: u32 = 0x04;
    pub(super) const BROADCAST: u32 = 0x08;
    pub(super) const PROMISCUOUS: u32 = 0x20;
}

/// Length of an Ethernet address, in bytes.
const ADDRESS: usize = 6;

/// An indication: its lists, and what goes along unchanged.
struct Indication {
    lists: Vec<List>,
    origin: usize,
    port_number: u32,
    flags: u32,
}

impl Indication {
    /// Whether the lists stay with who indicates them.
    fn is_lent(&self) -> bool {
        self.flags & NDIS_RECEIVE_FLAGS_RESOURCES != 0
    }
}

extern "efiapi" fn indicate(handle: usize, first: List, port_number: u32, count: u32, flags: u32) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    let lists = counted(&call, first, count, flags);
    check_new(&call, &lists, handle);
    if !matches!(port.state(), AdapterState::Running | AdapterState::Restarting | AdapterState::Pausing) {
        port.wrong_state(&call, "no data are indicated");
    }
    let indication = Indication { lists, origin: handle, port_number, flags };
    // A stop does not come back here.
    let _ = port.pass_up(&call, None, &indication);
}

extern "efiapi" fn filter_indicate(handle: usize, first: List, port_number: u32, count: u32, flags: u32) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    let lists = counted(&call, first, count, flags);
    let ndis = &call.machine().ndis;
    let source = |list| field!(list, NET_BUFFER_LIST, SourceHandle).read().addr();
    for (origin, group) in sorted(&lists, |list| ndis.flight(list).map_or_else(|| source(list), |flight| flight.origin))
    {
        let indication = Indication { lists: group, origin, port_number, flags };
        if origin == handle {
            check_new(&call, &indication.lists, handle);
            if !matches!(module.state(), FilterState::Running | FilterState::Restarting) {
                let message = format!("the module indicates data of its own while it is {:?}", module.state());
                call.stop(Rule::BadState, message);
            }
        } else if !indication.is_lent() {
            check_held(&call, &indication.lists, handle, Way::Up);
        }
        // A stop does not come back here.
        let _ = module.port.pass_up(&call, Some(&module), &indication);
    }
}

fn counted(call: &Call, first: List, count: u32, flags: u32) -> Vec<List> {
    check_level(call, flags);
    let lists = lists_of(call, first);
    if lists.len() != count as usize {
        let message = format!("NumberOfNetBufferLists is {count}, but the chain has {}", lists.len());
        call.stop(Rule::BadArgument, message);
    }
    lists
}

impl Port {
    /// Gives lists to the next driver above `from` that takes receives.
    fn pass_up(&self, call: &Call, from: Option<&Module>, what: &Indication) -> Result<(), Stopped> {
        let (thread, ndis) = (call.thread(), &call.machine().ndis);
        let next = self.above(from, |module| module.data_handlers().ReceiveNetBufferListsHandler.is_some());
        let of_module = next.and_then(|module| {
            let handler = module.data_handlers().ReceiveNetBufferListsHandler?;
            Some((module, handler))
        });
        let Some((module, handler)) = of_module else { return self.pass_to_protocols(call, what) };
        if !what.is_lent() {
            ndis.hold(&what.lists, Way::Up, what.origin, module.handle);
        }
        let (context, first, count) = (module.context(), link(&what.lists).pointer(), what.lists.len() as u32);
        module.call(thread, "FilterReceiveNetBufferLists", thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, first, what.port_number, count, what.flags) }
        })
    }

    /// Gives each list to the protocols whose packet filter it matches. The last one gets it as it was indicated, the others on loan;
    /// what nobody wants goes back.
    fn pass_to_protocols(&self, call: &Call, what: &Indication) -> Result<(), Stopped> {
        let thread = call.thread();
        let running = |binding: &std::sync::Arc<Binding>| {
            matches!(binding.state(), BindingState::Running | BindingState::Restarting | BindingState::Pausing)
        };
        let bindings: Vec<_> = self.bindings(thread.machine()).into_iter().filter(running).collect();
        let destinations: Vec<Vec<u8>> = what.lists.iter().map(|list| destination(call, *list)).collect();
        let wants = |binding: &Binding, index: usize| self.wants(binding, &destinations[index]);
        let last_of = |index: usize| bindings.iter().rposition(|binding| wants(binding, index));
        let mut kept = Vec::new();
        for (position, binding) in bindings.iter().enumerate() {
            let its: Vec<usize> = (0..what.lists.len()).filter(|index| wants(binding, *index)).collect();
            let of = |is_last: bool| -> Vec<List> {
                let chosen = its.iter().filter(|index| (last_of(**index) == Some(position)) == is_last);
                chosen.map(|index| what.lists[*index]).collect()
            };
            let (lent, own) = (of(false), of(true));
            receive(thread, binding, &lent, what.port_number, what.flags | NDIS_RECEIVE_FLAGS_RESOURCES)?;
            kept.push(own);
        }
        for (binding, own) in bindings.iter().zip(&kept) {
            if !what.is_lent() {
                thread.machine().ndis.hold(own, Way::Up, what.origin, binding.handle);
            }
            receive(thread, binding, own, what.port_number, what.flags)?;
        }
        let is_unwanted = |index: &usize| last_of(*index).is_none();
        let unwanted: Vec<List> = (0..what.lists.len()).filter(is_unwanted).map(|index| what.lists[index]).collect();
        if what.is_lent() || unwanted.is_empty() {
            return Ok(());
        }
        thread.machine().ndis.hold(&unwanted, Way::Up, what.origin, 0);
        self.pass_back(thread, None, &unwanted, what.flags & 1)
    }

    /// Whether a frame to an address is for a binding.
    fn wants(&self, binding: &Binding, destination: &[u8]) -> bool {
        let filter = binding.packet_filter();
        let general = self.attributes().general;
        let is_ethernet = general.as_ref().is_some_and(|general| general.media == 0);
        if filter & packet::PROMISCUOUS != 0 || !is_ethernet {
            return filter != 0;
        }
        let is_multicast = destination.first().is_some_and(|byte| byte & 1 != 0);
        if destination == [0xFF; ADDRESS] {
            filter & packet::BROADCAST != 0
        } else if is_multicast {
            let is_listed = binding.multicast_list().chunks_exact(ADDRESS).any(|address| address == destination);
            filter & packet::ALL_MULTICAST != 0 || filter & packet::MULTICAST != 0 && is_listed
        } else {
            filter & packet::DIRECTED != 0 && general.is_some_and(|general| general.mac_address == destination)
        }
    }

    /// Gives lists back to the next driver below `from` through which they came, down to the one that indicated them.
    fn pass_back(&self, thread: &Thread, from: Option<&Module>, lists: &[List], flags: u32) -> Result<(), Stopped> {
        let ndis = &thread.machine().ndis;
        for (origin, group) in sorted(lists, |list| ndis.flight(list).map_or(0, |flight| flight.origin)) {
            let takes = |module: &Module| {
                module.data_handlers().ReturnNetBufferListsHandler.is_some() || module.handle == origin
            };
            if let Some(module) = self.below(from, takes) {
                back_to_module(thread, &module, &group, origin, flags)?;
                continue;
            }
            ndis.land(&group);
            let Some(handler) = self.miniport.callbacks.0.ReturnNetBufferListsHandler else { continue };
            let (context, first) = (self.context(), link(&group).pointer());
            thread.call_driver(&self.miniport.driver, "MiniportReturnNetBufferLists", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, first, flags) }
            })?;
        }
        Ok(())
    }
}

/// `ProtocolReceiveNetBufferLists`, for lists if there are any.
fn receive(thread: &Thread, binding: &Binding, lists: &[List], port_number: u32, flags: u32) -> Result<(), Stopped> {
    let Some(handler) = binding.protocol.callbacks.0.ReceiveNetBufferListsHandler else { return Ok(()) };
    if lists.is_empty() {
        return Ok(());
    }
    let (context, first, count) = (Raw::at(binding.context).pointer(), link(lists).pointer(), lists.len() as u32);
    thread.call_driver(&binding.protocol.driver, "ProtocolReceiveNetBufferLists", thread.irql(), || {
        // SAFETY: the driver's callback, with the arguments that its page documents.
        unsafe { handler(context, first, port_number, count, flags) }
    })
}

fn back_to_module(thread: &Thread, module: &Module, lists: &[List], origin: usize, flags: u32) -> Result<(), Stopped> {
    let Some(handler) = module.data_handlers().ReturnNetBufferListsHandler else { return Ok(()) };
    if module.handle == origin {
        thread.machine().ndis.land(lists);
    } else {
        thread.machine().ndis.hold(lists, Way::Up, origin, module.handle);
    }
    let (context, first) = (module.context(), link(lists).pointer());
    module.call(thread, "FilterReturnNetBufferLists", thread.irql(), || {
        // SAFETY: the driver's callback, with the arguments that its page documents.
        unsafe { handler(context, first, flags) }
    })
}

/// The first bytes of a list's first frame: where it goes to.
fn destination(call: &Call, list: List) -> Vec<u8> {
    let buffer = Raw::of(field!(list, NET_BUFFER_LIST, FirstNetBuffer).read());
    let data = segments(call, buffer).into_iter();
    let bytes = data.flat_map(|(address, count)| Raw::<u8>::at(address).read_bytes(count.min(ADDRESS)));
    bytes.take(ADDRESS).collect()
}

extern "efiapi" fn give_back(handle: usize, first: List, flags: u32) {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    check_level(&call, flags);
    let lists = lists_of(&call, first);
    check_held(&call, &lists, handle, Way::Up);
    // A stop does not come back here.
    let _ = binding.port.pass_back(call.thread(), None, &lists, flags);
}

extern "efiapi" fn filter_give_back(handle: usize, first: List, flags: u32) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    check_level(&call, flags);
    let lists = lists_of(&call, first);
    check_held(&call, &lists, handle, Way::Up);
    // A stop does not come back here.
    let _ = module.port.pass_back(call.thread(), Some(&module), &lists, flags);
}
