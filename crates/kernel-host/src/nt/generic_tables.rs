//! `RTL_GENERIC_TABLE`: generic tables over splay trees, with the elements in memory that the driver allocates.
//!
//! An element is `RTL_SPLAY_LINKS`, a `LIST_ENTRY` in the order of insertion, and the caller's data. Each lookup splays, so that
//! even one that finds nothing new changes the tree: which is why the pages want exclusive access for all of them.

use super::raw::Raw;
use super::splay::{LINKS, Node, Side};
use super::table_routines::{EMPTY_TREE, EQUAL, FOUND_NODE, INSERT_AS_LEFT, INSERT_AS_RIGHT, LESS_THAN, Routines};
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitializeGenericTable(max 2) = initialize;
    RtlInsertElementGenericTable(max 2) = insert;
    RtlInsertElementGenericTableFull(max 2) = insert_full;
    RtlDeleteElementGenericTable(max 2) = delete;
    RtlLookupElementGenericTable(max 2) = lookup;
    RtlLookupElementGenericTableFull(max 2) = lookup_full;
    RtlEnumerateGenericTable(max 2) = enumerate;
    RtlEnumerateGenericTableWithoutSplaying(max 2) = enumerate_without_splaying;
    RtlGetElementGenericTable(max 2) = get;
    RtlNumberGenericTableElements(max 2) = number;
    RtlIsGenericTableEmpty(max 2) = is_empty;
}

/// Fields of `RTL_GENERIC_TABLE`.
mod table {
    pub(super) const ROOT: usize = 0;
    pub(super) const INSERT_ORDER: usize = 8;
    pub(super) const ORDERED_POINTER: usize = 24;
    pub(super) const WHICH_ORDERED: usize = 32;
    pub(super) const COUNT: usize = 36;
    pub(super) const COMPARE: usize = 40;
}

/// Where an element's `LIST_ENTRY` lies, and where its data.
const ORDER: usize = LINKS;
const DATA: usize = ORDER + 16;

/// The table's callbacks.
const ROUTINES: Routines = Routines { compare: table::COMPARE };

/// A table in the driver's memory.
#[derive(Clone, Copy)]
struct Table(Raw<u8>);

impl Table {
    fn of(call: &Call, address: Raw<u8>) -> Self {
        ROUTINES.check(call, address, "RtlInitializeGenericTable");
        Self(address)
    }

    fn root(self) -> Option<Node> {
        Node::at(self.0.field::<usize>(table::ROOT).read())
    }

    fn set_root(self, root: Option<Node>) {
        self.0.field::<usize>(table::ROOT).write(root.map_or(0, |root| root.0));
    }

    fn count(self) -> Raw<u32> {
        self.0.field(table::COUNT)
    }

    fn list(self) -> usize {
        self.0.address() + table::INSERT_ORDER
    }

    /// Forgets which element was got by index last: what came or went has moved the others.
    fn forget_place(self) {
        self.0.field::<usize>(table::ORDERED_POINTER).write(self.list());
        self.0.field::<u32>(table::WHICH_ORDERED).write(0);
    }

    /// Looks for an element that equals `buffer`: the node (0 in an empty tree), or the one below which it belongs.
    fn search(self, call: Call, buffer: usize) -> (Call, usize, i32) {
        let mut call = call;
        let Some(mut node) = self.root() else { return (call, 0, EMPTY_TREE) };
        loop {
            let order;
            (call, order) = ROUTINES.compare(call, self.0, buffer, node.0 + DATA);
            let (side, place) = match order {
                EQUAL => return (call, node.0, FOUND_NODE),
                LESS_THAN => (Side::Left, INSERT_AS_LEFT),
                _ => (Side::Right, INSERT_AS_RIGHT),
            };
            let Some(next) = node.child(side) else { return (call, node.0, place) };
            node = next;
        }
    }

    /// What a search found goes to the root; its data, or 0 where nothing was found.
    fn found(self, node: usize, place: i32) -> usize {
        let Some(node) = Node::at(node) else { return 0 };
        self.set_root(Some(node.splay()));
        if place == FOUND_NODE { node.0 + DATA } else { 0 }
    }

    /// Adds a copy of `length` bytes at `buffer` where a search said; its data, or 0 when memory is short.
    fn add(self, call: Call, buffer: usize, length: u32, parent: usize, place: i32) -> usize {
        let memory = ROUTINES.allocate(call, self.0, length + DATA as u32);
        let Some(node) = Node::at(memory) else { return 0 };
        node.initialise();
        self.append(memory + ORDER);
        Raw::<u8>::at(memory + DATA).write_bytes(&Raw::<u8>::at(buffer).read_bytes(length as usize));
        if let Some(parent) = Node::at(parent) {
            parent.set(if place == INSERT_AS_LEFT { Side::Left } else { Side::Right }, Some(node));
        }
        self.set_root(Some(node.splay()));
        self.count().write(self.count().read() + 1);
        memory + DATA
    }

    /// Puts a `LIST_ENTRY` at the end of the insertion order.
    fn append(self, entry: usize) {
        let head = Raw::<[usize; 2]>::at(self.list());
        let [first, last] = head.read();
        Raw::at(entry).write([self.list(), last]);
        // For an empty list the last entry is the head itself, whose first one this is.
        Raw::<usize>::at(last).write(entry);
        let first = if last == self.list() { entry } else { first };
        head.write([first, entry]);
    }

    /// Takes an element out of the tree and out of the insertion order.
    fn remove(self, node: Node) {
        self.set_root(node.delete());
        let [next, previous] = Raw::<[usize; 2]>::at(node.0 + ORDER).read();
        Raw::<usize>::at(previous).write(next);
        Raw::<usize>::at(next + 8).write(previous);
        self.count().write(self.count().read() - 1);
        self.forget_place();
    }
}

extern "efiapi" fn initialize(address: Raw<u8>, compare: usize, allocate: usize, free: usize, context: usize) {
    let call = Call::enter();
    ROUTINES.store(&call, address, [compare, allocate, free], context);
    let table = Table(address);
    table.set_root(None);
    address.field(table::INSERT_ORDER).write([table.list(); 2]);
    table.forget_place();
    table.count().write(0);
}

fn insert_or_find(call: Call, table: Table, buffer: usize, length: u32, new: Raw<u8>, at: (usize, i32)) -> usize {
    let (node, place) = at;
    new.write_if_some(0);
    if place == FOUND_NODE {
        return table.found(node, place);
    }
    let data = table.add(call, buffer, length, node, place);
    new.write_if_some(u8::from(data != 0));
    data
}

extern "efiapi" fn insert(address: Raw<u8>, buffer: usize, length: u32, new: Raw<u8>) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (call, node, place) = table.search(call, buffer);
    insert_or_find(call, table, buffer, length, new, (node, place))
}

extern "efiapi" fn insert_full(
    address: Raw<u8>,
    buffer: usize,
    length: u32,
    new: Raw<u8>,
    node_or_parent: usize,
    result: i32,
) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    insert_or_find(call, table, buffer, length, new, (node_or_parent, result))
}

extern "efiapi" fn delete(address: Raw<u8>, buffer: usize) -> u8 {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (call, node, place) = table.search(call, buffer);
    if place != FOUND_NODE {
        return 0;
    }
    table.remove(Node(node));
    ROUTINES.free(call, address, node);
    1
}

extern "efiapi" fn lookup(address: Raw<u8>, buffer: usize) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (_call, node, place) = table.search(call, buffer);
    table.found(node, place)
}

extern "efiapi" fn lookup_full(address: Raw<u8>, buffer: usize, out: Raw<usize>, result: Raw<i32>) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (_call, node, place) = table.search(call, buffer);
    out.write(node);
    result.write(place);
    // The tree stays as it is until the insertion: the place found has to be one then.
    if place == FOUND_NODE { table.found(node, place) } else { 0 }
}

/// The one that comes next is the root then, which is how the following call knows where the enumeration stands.
extern "efiapi" fn enumerate(address: Raw<u8>, restart: u8) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let Some(root) = table.root() else { return 0 };
    let next = if restart != 0 { Some(root.outermost(Side::Left)) } else { root.neighbour(Side::Right) };
    next.map_or(0, |next| table.found(next.0, FOUND_NODE))
}

extern "efiapi" fn enumerate_without_splaying(address: Raw<u8>, key: Raw<usize>) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let next = match Node::at(key.read()) {
        None => table.root().map(|root| root.outermost(Side::Left)),
        Some(last) => last.neighbour(Side::Right),
    };
    let Some(next) = next else { return 0 };
    key.write(next.0);
    next.0 + DATA
}

extern "efiapi" fn get(address: Raw<u8>, index: u32) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    if index >= table.count().read() {
        return 0;
    }
    // Goes on from the element got last where that is before the wanted one: a loop over all indices takes no detours.
    let known = address.field::<u32>(table::WHICH_ORDERED).read();
    let (mut entry, mut at) = if known != 0 && known <= index + 1 {
        (address.field::<usize>(table::ORDERED_POINTER).read(), known)
    } else {
        (table.list(), 0)
    };
    while at <= index {
        entry = Raw::<usize>::at(entry).read();
        at += 1;
    }
    address.field::<usize>(table::ORDERED_POINTER).write(entry);
    address.field::<u32>(table::WHICH_ORDERED).write(at);
    entry - ORDER + DATA
}

extern "efiapi" fn number(address: Raw<u8>) -> u32 {
    let call = Call::enter();
    Table::of(&call, address).count().read()
}

extern "efiapi" fn is_empty(address: Raw<u8>) -> u8 {
    let call = Call::enter();
    u8::from(Table::of(&call, address).root().is_none())
}

#[cfg(test)]
mod tests;
