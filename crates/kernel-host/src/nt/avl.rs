//! `RTL_AVL_TABLE`: generic tables, with the elements in memory that the driver allocates.
//!
//! An element is `RTL_BALANCED_LINKS` (32 bytes) and the caller's data. The tree is a real AVL tree in the driver's memory, so
//! that a debugger can follow it; only the order of its elements is documented. The table's own structure is opaque but for
//! `TableContext`, which drivers read.

use super::raw::Raw;
use super::table_routines::{EMPTY_TREE, EQUAL, FOUND_NODE, INSERT_AS_LEFT, INSERT_AS_RIGHT, LESS_THAN, Routines};
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitializeGenericTableAvl(max 2) = initialize;
    RtlInsertElementGenericTableAvl(max 2) = insert;
    RtlInsertElementGenericTableFullAvl(max 2) = insert_full;
    RtlDeleteElementGenericTableAvl(max 2) = delete;
    RtlLookupElementGenericTableAvl(max 2) = lookup;
    RtlLookupElementGenericTableFullAvl(max 2) = lookup_full;
    RtlLookupFirstMatchingElementGenericTableAvl(max 2) = lookup_first;
    RtlEnumerateGenericTableAvl(max 2) = enumerate;
    RtlEnumerateGenericTableWithoutSplayingAvl(max 2) = enumerate_without_splaying;
    RtlGetElementGenericTableAvl(max 2) = get;
    RtlNumberGenericTableElementsAvl(max 2) = number;
    RtlIsGenericTableEmptyAvl(max 2) = is_empty;
}

/// Fields of `RTL_AVL_TABLE`. The root of the tree is the right child of the links that the table starts with.
mod table {
    pub(super) const WHICH_ORDERED: usize = 40;
    pub(super) const COUNT: usize = 44;
    pub(super) const DEPTH: usize = 48;
    pub(super) const RESTART_KEY: usize = 56;
    pub(super) const COMPARE: usize = 72;
    pub(super) const LENGTH: usize = 104;
}

/// Bytes of `RTL_BALANCED_LINKS`: parent, left, right, balance.
const LINKS: usize = 32;
const PARENT: usize = 0;
const LEFT: usize = 8;
const RIGHT: usize = 16;
/// Height of the subtree, in the byte that Windows keeps a balance factor in, and which the header reserves.
const HEIGHT: usize = 24;

/// The table's callbacks.
const ROUTINES: Routines = Routines { compare: table::COMPARE };

/// Links of an element, or of the table itself above the root; address 0 is none.
#[derive(Clone, Copy, PartialEq)]
struct Node(usize);

impl Node {
    const NONE: Self = Self(0);

    fn link(self, which: usize) -> Self {
        Self(Raw::<usize>::at(self.0 + which).read())
    }

    fn set_link(self, which: usize, to: Self) {
        Raw::<usize>::at(self.0 + which).write(to.0);
        if to != Self::NONE {
            Raw::<usize>::at(to.0 + PARENT).write(self.0);
        }
    }

    fn height(self) -> i32 {
        if self == Self::NONE { 0 } else { i32::from(Raw::<u8>::at(self.0 + HEIGHT).read()) }
    }

    fn update(self) {
        let height = self.link(LEFT).height().max(self.link(RIGHT).height()) + 1;
        Raw::<u8>::at(self.0 + HEIGHT).write(height.unsigned_abs() as u8);
    }

    fn data(self) -> usize {
        if self == Self::NONE { 0 } else { self.0 + LINKS }
    }

    fn leftmost(self) -> Self {
        let mut node = self;
        while node != Self::NONE && node.link(LEFT) != Self::NONE {
            node = node.link(LEFT);
        }
        node
    }

    /// The next element in order; none after the last. `top` is the table's own links.
    fn successor(self, top: Self) -> Self {
        let mut node = self;
        if node.link(RIGHT) != Self::NONE {
            return node.link(RIGHT).leftmost();
        }
        loop {
            let parent = node.link(PARENT);
            if parent == top {
                return Self::NONE;
            }
            if parent.link(LEFT) == node {
                return parent;
            }
            node = parent;
        }
    }

    /// Puts `to` in the place that this node has at its parent.
    fn replace_by(self, to: Self) {
        let parent = self.link(PARENT);
        parent.set_link(if parent.link(LEFT) == self { LEFT } else { RIGHT }, to);
    }

    /// Makes the child on side `up` the parent; the new top of the subtree.
    fn rotate(self, up: usize) -> Self {
        let down = LEFT + RIGHT - up;
        let child = self.link(up);
        self.replace_by(child);
        self.set_link(up, child.link(down));
        child.set_link(down, self);
        self.update();
        child.update();
        child
    }

    /// Restores heights and balance from here up to the root.
    fn rebalance(self, top: Self) {
        let mut node = self;
        while node != top {
            node.update();
            let difference = node.link(LEFT).height() - node.link(RIGHT).height();
            if difference.abs() > 1 {
                let (heavy, light) = if difference > 1 { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
                let child = node.link(heavy);
                if child.link(light).height() > child.link(heavy).height() {
                    child.rotate(light);
                }
                node = node.rotate(heavy);
            }
            node = node.link(PARENT);
        }
    }
}

/// An `RTL_AVL_TABLE` in the driver's memory.
#[derive(Clone, Copy)]
struct Table(Raw<u8>);

impl Table {
    fn of(call: &Call, address: Raw<u8>) -> Self {
        ROUTINES.check(call, address, "RtlInitializeGenericTableAvl");
        Self(address)
    }

    fn top(self) -> Node {
        Node(self.0.address())
    }

    fn root(self) -> Node {
        self.top().link(RIGHT)
    }

    fn count(self) -> Raw<u32> {
        self.0.field(table::COUNT)
    }

    fn changed(self, count: u32) {
        self.count().write(count);
        self.0.field::<u32>(table::DEPTH).write(self.root().height().unsigned_abs());
        self.0.field::<u32>(table::WHICH_ORDERED).write(0);
    }

    /// Looks for an element that equals `buffer`: the node, or where it belongs.
    fn search(self, call: Call, buffer: usize) -> (Call, Node, i32) {
        let mut call = call;
        let mut node = self.root();
        if node == Node::NONE {
            return (call, Node::NONE, EMPTY_TREE);
        }
        loop {
            let order;
            (call, order) = ROUTINES.compare(call, self.0, buffer, node.data());
            let (side, place) = match order {
                EQUAL => return (call, node, FOUND_NODE),
                LESS_THAN => (LEFT, INSERT_AS_LEFT),
                _ => (RIGHT, INSERT_AS_RIGHT),
            };
            if node.link(side) == Node::NONE {
                return (call, node, place);
            }
            node = node.link(side);
        }
    }

    /// Adds a copy of `length` bytes at `buffer` where a search said; its data, or 0 when memory is short.
    fn add(self, call: Call, buffer: usize, length: u32, at: Node, place: i32) -> usize {
        let memory = ROUTINES.allocate(call, self.0, length + LINKS as u32);
        if memory == 0 {
            return 0;
        }
        let node = Node(memory);
        Raw::<u8>::at(memory).fill(0, LINKS);
        Raw::<u8>::at(node.data()).write_bytes(&Raw::<u8>::at(buffer).read_bytes(length as usize));
        match place {
            EMPTY_TREE => self.top().set_link(RIGHT, node),
            INSERT_AS_LEFT => at.set_link(LEFT, node),
            _ => at.set_link(RIGHT, node),
        }
        node.rebalance(self.top());
        self.changed(self.count().read() + 1);
        node.data()
    }

    /// Takes a node out of the tree.
    fn remove(self, node: Node) {
        let top = self.top();
        let (left, right) = (node.link(LEFT), node.link(RIGHT));
        let unbalanced = if left == Node::NONE || right == Node::NONE {
            let parent = node.link(PARENT);
            node.replace_by(if left == Node::NONE { right } else { left });
            parent
        } else {
            // The next in order has no left child and takes the node's place.
            let next = right.leftmost();
            let from = if next == right { next } else { next.link(PARENT) };
            if next != right {
                next.replace_by(next.link(RIGHT));
                next.set_link(RIGHT, node.link(RIGHT));
            }
            node.replace_by(next);
            next.set_link(LEFT, left);
            from
        };
        unbalanced.rebalance(top);
        self.changed(self.count().read() - 1);
    }
}

extern "efiapi" fn initialize(address: Raw<u8>, compare: usize, allocate: usize, free: usize, context: usize) {
    let call = Call::enter();
    address.fill(0, table::LENGTH);
    ROUTINES.store(&call, address, [compare, allocate, free], context);
    // The root's parent is the table; the table's own parent is itself.
    address.cast::<usize>().write(address.address());
}

fn insert_or_find(call: Call, table: Table, buffer: usize, length: u32, new: Raw<u8>, found: (Node, i32)) -> usize {
    let (node, place) = found;
    new.write_if_some(0);
    if place == FOUND_NODE {
        return node.data();
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
    insert_or_find(call, table, buffer, length, new, (Node(node_or_parent), result))
}

extern "efiapi" fn delete(address: Raw<u8>, buffer: usize) -> u8 {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (call, node, place) = table.search(call, buffer);
    if place != FOUND_NODE {
        return 0;
    }
    // An enumeration that stands here goes on with the element before.
    table.remove(node);
    let restart = address.field::<usize>(table::RESTART_KEY);
    if restart.read() == node.0 {
        restart.write(0);
    }
    ROUTINES.free(call, address, node.0);
    1
}

extern "efiapi" fn lookup(address: Raw<u8>, buffer: usize) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (_call, node, place) = table.search(call, buffer);
    if place == FOUND_NODE { node.data() } else { 0 }
}

extern "efiapi" fn lookup_full(address: Raw<u8>, buffer: usize, out: Raw<usize>, result: Raw<i32>) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let (_call, node, place) = table.search(call, buffer);
    out.write(node.0);
    result.write(place);
    if place == FOUND_NODE { node.data() } else { 0 }
}

extern "efiapi" fn lookup_first(address: Raw<u8>, buffer: usize, restart: Raw<usize>) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    // Elements of a table differ from each other, so that the first match is the only one.
    let (_call, node, place) = table.search(call, buffer);
    restart.write(if place == FOUND_NODE { node.0 } else { 0 });
    if place == FOUND_NODE { node.data() } else { 0 }
}

/// The element behind `key` (0 for the first), which is then the key.
fn next(table: Table, key: Raw<usize>) -> usize {
    let node = match key.read() {
        0 => table.root().leftmost(),
        node => Node(node).successor(table.top()),
    };
    if node != Node::NONE {
        key.write(node.0);
    }
    node.data()
}

extern "efiapi" fn enumerate(address: Raw<u8>, restart: u8) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    let key = address.field::<usize>(table::RESTART_KEY);
    if restart != 0 {
        key.write(0);
    }
    next(table, key)
}

extern "efiapi" fn enumerate_without_splaying(address: Raw<u8>, key: Raw<usize>) -> usize {
    let call = Call::enter();
    next(Table::of(&call, address), key)
}

extern "efiapi" fn get(address: Raw<u8>, index: u32) -> usize {
    let call = Call::enter();
    let table = Table::of(&call, address);
    if index >= table.count().read() {
        return 0;
    }
    let mut node = table.root().leftmost();
    for _ in 0..index {
        node = node.successor(table.top());
    }
    node.data()
}

extern "efiapi" fn number(address: Raw<u8>) -> u32 {
    let call = Call::enter();
    Table::of(&call, address).count().read()
}

extern "efiapi" fn is_empty(address: Raw<u8>) -> u8 {
    let call = Call::enter();
    u8::from(Table::of(&call, address).count().read() == 0)
}

#[cfg(test)]
mod tests;
