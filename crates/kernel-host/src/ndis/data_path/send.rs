//! Sends, and their completion.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::NET_BUFFER_LIST;

use super::{List, Way, check_held, check_level, check_new, link, lists_of, sorted};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::ndis::filter::{FilterState, Module};
use crate::ndis::port::Port;
use crate::ndis::protocol::{Binding, BindingState};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisSendNetBufferLists(max 2) = send;
    NdisFSendNetBufferLists(max 2) = filter_send;
    NdisMSendNetBufferListsComplete(max 2) = complete;
    NdisFSendNetBufferListsComplete(max 2) = filter_complete;
    NdisCancelSendNetBufferLists(max 2) = cancel;
    NdisFCancelSendNetBufferLists(max 2) = filter_cancel;
}

extern "efiapi" fn send(handle: usize, first: List, port_number: u32, flags: u32) {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    check_level(&call, flags);
    let lists = lists_of(&call, first);
    check_new(&call, &lists, handle);
    if !matches!(binding.state(), BindingState::Running | BindingState::Restarting) {
        let message = format!("sent while the binding is {:?}; only a running one may send", binding.state());
        call.stop(Rule::BadState, message);
    }
    // A stop does not come back here.
    let _ = binding.port.pass_down(call.thread(), None, &lists, handle, port_number, flags);
}

extern "efiapi" fn filter_send(handle: usize, first: List, port_number: u32, flags: u32) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    check_level(&call, flags);
    let lists = lists_of(&call, first);
    let ndis = &call.machine().ndis;
    // What the filter did not get from above is its own.
    let groups = sorted(&lists, |list| ndis.flight(list).map_or(handle, |flight| flight.origin));
    for (origin, group) in groups {
        if origin == handle {
            check_new(&call, &group, handle);
            if module.state() != FilterState::Running {
                let message = format!("the module sends on its own while it is {:?}", module.state());
                call.stop(Rule::BadState, message);
            }
            if module.data_handlers().SendNetBufferListsCompleteHandler.is_none() {
                call.stop(Rule::BadState, "a filter that sends on its own needs FilterSendNetBufferListsComplete");
            }
        } else {
            check_held(&call, &group, handle, Way::Down);
        }
        // A stop does not come back here.
        let _ = module.port.pass_down(call.thread(), Some(&module), &group, origin, port_number, flags);
    }
}

impl Port {
    /// Gives lists to the next driver below `from` that takes sends.
    fn pass_down(
        &self,
        thread: &Thread,
        from: Option<&Module>,
        lists: &[List],
        origin: usize,
        port_number: u32,
        flags: u32,
    ) -> Result<(), Stopped> {
        let ndis = &thread.machine().ndis;
        let next = self.below(from, |module| module.data_handlers().SendNetBufferListsHandler.is_some());
        let of_module = next.and_then(|module| {
            let handler = module.data_handlers().SendNetBufferListsHandler?;
            Some((module, handler))
        });
        if let Some((module, handler)) = of_module {
            ndis.hold(lists, Way::Down, origin, module.handle);
            let (context, first) = (module.context(), link(lists).pointer());
            return module.call(thread, "FilterSendNetBufferLists", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, first, port_number, flags) }
            });
        }
        let Some(handler) = self.miniport.callbacks.0.SendNetBufferListsHandler else { return Ok(()) };
        ndis.hold(lists, Way::Down, origin, self.handle);
        let (context, first) = (self.context(), link(lists).pointer());
        thread.call_driver(&self.miniport.driver, "MiniportSendNetBufferLists", thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, first, port_number, flags) }
        })
    }

    /// Gives complete lists to the next driver above `from` through which they came, up to the one that sent them.
    fn pass_complete(
        self: &Arc<Self>,
        thread: &Thread,
        from: Option<&Module>,
        lists: &[List],
        flags: u32,
    ) -> Result<(), Stopped> {
        let ndis = &thread.machine().ndis;
        for (origin, group) in sorted(lists, |list| ndis.flight(list).map_or(0, |flight| flight.origin)) {
            let takes = |module: &Module| {
                module.data_handlers().SendNetBufferListsCompleteHandler.is_some() || module.handle == origin
            };
            if let Some(module) = self.above(from, takes) {
                complete_to_module(thread, &module, &group, origin, flags)?;
                continue;
            }
            let binding = self.bindings(thread.machine()).into_iter().find(|binding| binding.handle == origin);
            ndis.land(&group);
            if let Some(binding) = binding {
                complete_to_binding(thread, &binding, &group, flags)?;
            }
        }
        Ok(())
    }
}

fn complete_to_module(
    thread: &Thread,
    module: &Module,
    lists: &[List],
    origin: usize,
    flags: u32,
) -> Result<(), Stopped> {
    let Some(handler) = module.data_handlers().SendNetBufferListsCompleteHandler else { return Ok(()) };
    if module.handle == origin {
        thread.machine().ndis.land(lists);
    } else {
        thread.machine().ndis.hold(lists, Way::Down, origin, module.handle);
    }
    let (context, first) = (module.context(), link(lists).pointer());
    module.call(thread, "FilterSendNetBufferListsComplete", thread.irql(), || {
        // SAFETY: the driver's callback, with the arguments that its page documents.
        unsafe { handler(context, first, flags) }
    })
}

fn complete_to_binding(thread: &Thread, binding: &Binding, lists: &[List], flags: u32) -> Result<(), Stopped> {
    let Some(handler) = binding.protocol.callbacks.0.SendNetBufferListsCompleteHandler else { return Ok(()) };
    let (context, first) = (Raw::at(binding.context).pointer(), link(lists).pointer());
    thread.call_driver(&binding.protocol.driver, "ProtocolSendNetBufferListsComplete", thread.irql(), || {
        // SAFETY: the driver's callback, with the arguments that its page documents.
        unsafe { handler(context, first, flags) }
    })
}

extern "efiapi" fn complete(handle: usize, first: List, flags: u32) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    let lists = completed(&call, handle, first, flags);
    // A stop does not come back here.
    let _ = port.pass_complete(call.thread(), None, &lists, flags);
}

extern "efiapi" fn filter_complete(handle: usize, first: List, flags: u32) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    let lists = completed(&call, handle, first, flags);
    // A stop does not come back here.
    let _ = module.port.pass_complete(call.thread(), Some(&module), &lists, flags);
}

/// The lists that a driver completes: its, with a final status each.
fn completed(call: &Call, handle: usize, first: List, flags: u32) -> Vec<List> {
    check_level(call, flags);
    let lists = lists_of(call, first);
    check_held(call, &lists, handle, Way::Down);
    for list in &lists {
        if field!(*list, NET_BUFFER_LIST, Status).read() == NdisStatus::PENDING {
            call.stop(
                Rule::BadArgument,
                format!("Status of {list:?} is NDIS_STATUS_PENDING, which is no final status"),
            );
        }
    }
    lists
}

extern "efiapi" fn cancel(handle: usize, id: usize) {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    // A stop does not come back here.
    let _ = binding.port.pass_cancel(call.thread(), None, id);
}

extern "efiapi" fn filter_cancel(handle: usize, id: usize) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    // A stop does not come back here.
    let _ = module.port.pass_cancel(call.thread(), Some(&module), id);
}

impl Port {
    /// Asks the next driver below `from` that can to give up the sends with an identifier.
    fn pass_cancel(&self, thread: &Thread, from: Option<&Module>, id: usize) -> Result<(), Stopped> {
        let id = Raw::at(id).pointer();
        let next = self.below(from, |module| module.data_handlers().CancelSendNetBufferListsHandler.is_some());
        let of_module = next.and_then(|module| {
            let handler = module.data_handlers().CancelSendNetBufferListsHandler?;
            Some((module, handler))
        });
        if let Some((module, handler)) = of_module {
            let context = module.context();
            return module.call(thread, "FilterCancelSendNetBufferLists", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, id) }
            });
        }
        let Some(handler) = self.miniport.callbacks.0.CancelSendHandler else { return Ok(()) };
        let context = self.context();
        thread.call_driver(&self.miniport.driver, "MiniportCancelSend", thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, id) }
        })
    }
}
