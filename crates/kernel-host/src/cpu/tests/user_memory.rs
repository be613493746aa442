//! Touches of user memory that is there: with a guard and without, from the right process and from others.

use std::sync::Arc;

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::machine::Machine;
use crate::process::{Process, UserBuffer, UserMemoryChecks};

struct World {
    bench: Bench,
    image: Image,
    process: Arc<Process>,
    buffer: UserBuffer,
}

impl World {
    fn new(checks: UserMemoryChecks) -> Self {
        let bench = Bench::with(Machine::builder().user_memory_checks(checks));
        let image = load_on(&bench);
        let process = bench.machine().process("p.exe").start().expect("room");
        let buffer = process.buffer(b"data").expect("room");
        Self { bench, image, process, buffer }
    }

    /// Driver code in the process: its guarded copy of the buffer.
    fn copy(&self) -> (NtStatus, [u8; 4]) {
        let copy: Copy = function(&self.image, "guarded_copy");
        let mut bytes = [0; 4];
        let status = copy(bytes.as_mut_ptr(), std::ptr::with_exposed_provenance(self.buffer.address()), 4);
        (status, bytes)
    }

    fn poke(&self) {
        function::<Poke>(&self.image, "poke")(self.buffer.address(), b'X');
    }

    fn run<R>(&self, process: &Arc<Process>, body: impl FnOnce() -> R) -> Result<R, Box<Finding>> {
        let result = self.bench.enter(|thread| {
            let before = thread.set_process(Some(Arc::clone(process)));
            let result = self.bench.run(body);
            thread.set_process(before);
            result
        });
        result.map_err(|stopped| stopped.0)
    }
}

#[test]
fn user_memory_that_is_there_is_touched_inside_try_only() {
    conforms!(
        "docs:kernel/errors-in-referencing-user-space-addresses.md",
        "A driver touches user memory inside a try/except block, also memory that it has probed."
    );
    let world = World::new(UserMemoryChecks::Sampled);
    for _ in 0..3 {
        assert_eq!(world.run(&world.process, || world.copy()).unwrap(), (NtStatus::SUCCESS, *b"data"));
    }
    // The copy showed the page; the end of the callback has hidden it.
    let finding = world.run(&world.process, || world.poke()).unwrap_err();
    assert_eq!(finding.rule, Rule::UnguardedUserAccess);
    assert!(finding.message.contains("writes user address") && finding.message.contains("p.exe"), "{finding}");
    assert!(finding.stack[0].starts_with("test+0x"), "{:?}", finding.stack);
    assert_eq!(world.buffer.read(), Ok(b"data".to_vec()), "it did not happen");
}

#[test]
fn memory_of_another_process_is_not_there() {
    let world = World::new(UserMemoryChecks::Sampled);
    let other = world.bench.machine().process("q.exe").start().expect("room");
    // Also when its owner's callback has it open at the moment.
    let statuses = world.run(&world.process, || {
        let before = world.copy().0;
        Thread::current().attach(Some(Arc::clone(&other)));
        let attached = world.copy().0;
        Thread::current().detach(1);
        (before, attached, world.copy().0)
    });
    assert_eq!(statuses.unwrap(), (NtStatus::SUCCESS, NtStatus::ACCESS_VIOLATION, NtStatus::SUCCESS));
    let finding = world.run(&other, || world.poke()).unwrap_err();
    assert_eq!(finding.rule, Rule::UnhandledException);
    let words = ["memory of p.exe", "address space of q.exe"];
    assert!(words.iter().all(|word| finding.message.contains(word)), "{finding}");
}

#[test]
fn protections_count_for_drivers_as_for_programs() {
    let world = World::new(UserMemoryChecks::Always);
    assert_eq!(world.run(&world.process, || world.copy().0).unwrap(), NtStatus::SUCCESS);
    world.buffer.protect(crate::process::Protection::NoAccess).expect("its own page");
    assert_eq!(world.run(&world.process, || world.copy().0).unwrap(), NtStatus::ACCESS_VIOLATION);
    world.buffer.protect(crate::process::Protection::ReadOnly).expect("its own page");
    assert_eq!(world.run(&world.process, || world.copy()).unwrap(), (NtStatus::SUCCESS, *b"data"));
    let finding = world.run(&world.process, || world.poke()).unwrap_err();
    assert_eq!(finding.rule, Rule::UnhandledException, "as bad as a bad address: {finding}");
}

#[test]
fn a_machine_can_be_told_not_to_look() {
    let world = World::new(UserMemoryChecks::Never);
    world.run(&world.process, || world.poke()).unwrap();
    assert_eq!(world.buffer.read(), Ok(b"Xata".to_vec()));
}
