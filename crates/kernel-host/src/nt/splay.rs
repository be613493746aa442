//! Splay links: binary trees whose nodes lie in the driver's own structures.
//!
//! `RTL_SPLAY_LINKS` is public, and drivers walk and link nodes by the macros of the headers: so a root is its own parent here,
//! as there, and every rotation leaves the tree that a debugger would show.

use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlSplay(max 2) = rtl_splay;
    RtlDelete(max 2) = rtl_delete;
    RtlDeleteNoSplay(max 2) = rtl_delete_no_splay;
    RtlSubtreeSuccessor(max 2) = rtl_subtree_successor;
    RtlSubtreePredecessor(max 2) = rtl_subtree_predecessor;
    RtlRealSuccessor(max 2) = rtl_real_successor;
    RtlRealPredecessor(max 2) = rtl_real_predecessor;
}

const PARENT: usize = 0;
const LEFT: usize = 8;
const RIGHT: usize = 16;

/// Bytes of `RTL_SPLAY_LINKS`.
pub(super) const LINKS: usize = 24;

/// Which child of its parent a node is, or is to be.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    fn offset(self) -> usize {
        match self {
            Self::Left => LEFT,
            Self::Right => RIGHT,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// A node of a splay tree, by the address of its links.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node(pub(super) usize);

impl Node {
    /// The node whose address a driver or another node gave; `None` for NULL.
    pub(super) fn at(address: usize) -> Option<Self> {
        (address != 0).then_some(Self(address))
    }

    /// `RtlInitializeSplayLinks`: a tree of one node.
    pub(super) fn initialise(self) {
        self.set_parent(self);
        self.set(Side::Left, None);
        self.set(Side::Right, None);
    }

    pub(super) fn parent(self) -> Self {
        Self(Raw::<usize>::at(self.0 + PARENT).read())
    }

    fn set_parent(self, parent: Self) {
        Raw::<usize>::at(self.0 + PARENT).write(parent.0);
    }

    pub(super) fn child(self, side: Side) -> Option<Self> {
        Self::at(Raw::<usize>::at(self.0 + side.offset()).read())
    }

    /// Makes `child` the child on `side`.
    pub(super) fn set(self, side: Side, child: Option<Self>) {
        Raw::<usize>::at(self.0 + side.offset()).write(child.map_or(0, |child| child.0));
        if let Some(child) = child {
            child.set_parent(self);
        }
    }

    fn is_root(self) -> bool {
        self.parent() == self
    }

    /// The side on which this node, which is no root, hangs at its parent.
    fn side(self) -> Side {
        if self.parent().child(Side::Left) == Some(self) { Side::Left } else { Side::Right }
    }

    /// The last node to one side of the subtree.
    pub(super) fn outermost(self, side: Side) -> Self {
        let mut node = self;
        while let Some(next) = node.child(side) {
            node = next;
        }
        node
    }

    /// The neighbour in order among the nodes below this one.
    fn subtree_neighbour(self, side: Side) -> Option<Self> {
        self.child(side).map(|child| child.outermost(side.other()))
    }

    /// The neighbour in order in the whole tree.
    pub(super) fn neighbour(self, side: Side) -> Option<Self> {
        if let Some(below) = self.subtree_neighbour(side) {
            return Some(below);
        }
        let mut node = self;
        while !node.is_root() {
            let parent = node.parent();
            if node.side() != side {
                return Some(parent);
            }
            node = parent;
        }
        None
    }

    /// Puts `to` in the place that this node has at its parent, or at the root.
    fn replace_by(self, to: Option<Self>) {
        match to {
            Some(to) if self.is_root() => to.set_parent(to),
            _ if self.is_root() => {}
            to => self.parent().set(self.side(), to),
        }
    }

    /// Moves this node, which is no root, to its parent's place.
    fn rotate(self) {
        let (parent, side) = (self.parent(), self.side());
        parent.replace_by(Some(self));
        parent.set(side, self.child(side.other()));
        self.set(side.other(), Some(parent));
    }

    /// Moves this node to the root, two levels at a time where it can.
    pub(super) fn splay(self) -> Self {
        while !self.is_root() {
            let parent = self.parent();
            if !parent.is_root() {
                // A straight line is folded from the top, a bent one from below.
                if parent.side() == self.side() { parent.rotate() } else { self.rotate() }
            }
            self.rotate();
        }
        self
    }

    /// Takes the node out. What is left of the tree is found from the node that is returned; `None` when nothing is.
    fn unlink(self) -> Option<Self> {
        let (left, right) = (self.child(Side::Left), self.child(Side::Right));
        let (Some(left), Some(right)) = (left, right) else {
            let (was_root, parent) = (self.is_root(), self.parent());
            let child = left.or(right);
            self.replace_by(child);
            return if was_root { child } else { Some(parent) };
        };
        // The node before it has no right child, and takes its place.
        let before = left.outermost(Side::Right);
        let around = if before == left { before } else { before.parent() };
        if before != left {
            before.replace_by(before.child(Side::Left));
            before.set(Side::Left, self.child(Side::Left));
        }
        self.replace_by(Some(before));
        before.set(Side::Right, Some(right));
        Some(around)
    }

    /// Takes the node out and splays around where it was; the new root.
    pub(super) fn delete(self) -> Option<Self> {
        self.unlink().map(Self::splay)
    }

    fn root(self) -> Self {
        let mut node = self;
        while !node.is_root() {
            node = node.parent();
        }
        node
    }
}

/// The node at an address; stops when its links were never initialised.
fn node(call: &Call, links: usize) -> Node {
    let Some(node) = Node::at(links).filter(|node| node.parent().0 != 0) else {
        call.stop(Rule::BadArgument, format!("the splay links at {links:#x} were not set by RtlInitializeSplayLinks"));
    };
    node
}

fn address(node: Option<Node>) -> usize {
    node.map_or(0, |node| node.0)
}

extern "efiapi" fn rtl_splay(links: usize) -> usize {
    let call = Call::enter();
    node(&call, links).splay().0
}

extern "efiapi" fn rtl_delete(links: usize) -> usize {
    let call = Call::enter();
    address(node(&call, links).delete())
}

extern "efiapi" fn rtl_delete_no_splay(links: usize, root: Raw<usize>) {
    let call = Call::enter();
    let left = node(&call, links).unlink().map(Node::root);
    root.write(address(left));
}

extern "efiapi" fn rtl_subtree_successor(links: usize) -> usize {
    let call = Call::enter();
    address(node(&call, links).subtree_neighbour(Side::Right))
}

extern "efiapi" fn rtl_subtree_predecessor(links: usize) -> usize {
    let call = Call::enter();
    address(node(&call, links).subtree_neighbour(Side::Left))
}

extern "efiapi" fn rtl_real_successor(links: usize) -> usize {
    let call = Call::enter();
    address(node(&call, links).neighbour(Side::Right))
}

extern "efiapi" fn rtl_real_predecessor(links: usize) -> usize {
    let call = Call::enter();
    address(node(&call, links).neighbour(Side::Left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    /// A right-leaning line of nodes in order: the worst tree there is. Checked to stay in order by whoever changes it.
    fn line(count: usize) -> Vec<Node> {
        let memory = Box::leak(vec![[0_usize; 3]; count].into_boxed_slice());
        let base = Raw::<[usize; 3]>::of(memory.as_mut_ptr());
        let nodes: Vec<Node> = (0..count).map(|index| Node(base.index(index).address())).collect();
        for (index, node) in nodes.iter().enumerate() {
            node.initialise();
            if index > 0 {
                nodes[index - 1].set(Side::Right, Some(*node));
            }
        }
        nodes
    }

    fn in_order(root: usize) -> Vec<usize> {
        let first = Node::at(root).map(|root| root.outermost(Side::Left).0);
        std::iter::successors(first, |node| Some(rtl_real_successor(*node)).filter(|next| *next != 0)).collect()
    }

    fn addresses(nodes: &[Node]) -> Vec<usize> {
        nodes.iter().map(|node| node.0).collect()
    }

    #[test]
    fn a_splayed_node_is_the_root_of_a_tree_with_the_same_order() {
        conforms!("ntddk/nf-ntddk-rtlsplay.md", "The node becomes the root of the rebalanced tree, and is returned.");
        Bench::new()
            .run(|| {
                let nodes = line(9);
                for index in [8, 0, 4, 7, 2] {
                    assert_eq!(rtl_splay(nodes[index].0), nodes[index].0);
                    assert_eq!(nodes[index].parent(), nodes[index], "a root is its own parent");
                    assert_eq!(in_order(nodes[index].0), addresses(&nodes));
                }
            })
            .unwrap();
    }

    #[test]
    fn nodes_are_deleted_from_wherever_they_are() {
        conforms!("ntddk/nf-ntddk-rtldelete.md", "The root of what is left is returned, NULL for an empty tree.");
        conforms!("ntddk/nf-ntddk-rtldeletenosplay.md", "The caller's pointer to the root is updated.");
        Bench::new()
            .run(|| {
                for splays in [true, false] {
                    let mut nodes = line(9);
                    let mut root = rtl_splay(nodes[4].0);
                    for index in [4, 0, 6, 2, 1, 0, 2, 0, 0] {
                        let gone = nodes.remove(index);
                        if splays {
                            root = rtl_delete(gone.0);
                        } else {
                            rtl_delete_no_splay(gone.0, Raw::of(&raw mut root));
                        }
                        assert_eq!(in_order(root), addresses(&nodes));
                    }
                    assert_eq!(root, 0);
                }
            })
            .unwrap();
    }

    #[test]
    fn neighbours_in_the_subtree_are_not_those_in_the_tree() {
        conforms!(
            "ntddk/nf-ntddk-rtlsubtreesuccessor.md",
            "NULL is returned for a node without a right subtree, whatever comes after it in the tree."
        );
        conforms!(
            "ntddk/nf-ntddk-rtlrealsuccessor.md",
            "Without a right subtree the successor is the nearest ancestor whose left subtree has the node."
        );
        conforms!("ntddk/nf-ntddk-rtlsubtreepredecessor.md", "The rightmost node of the left subtree is returned.");
        conforms!("ntddk/nf-ntddk-rtlrealpredecessor.md", "NULL is returned for the first node of the tree.");
        Bench::new()
            .run(|| {
                let nodes = line(3);
                let (low, middle, high) = (nodes[0].0, nodes[1].0, nodes[2].0);
                rtl_splay(middle);
                assert_eq!((rtl_subtree_successor(middle), rtl_subtree_predecessor(middle)), (high, low));
                assert_eq!((rtl_subtree_successor(low), rtl_real_successor(low)), (0, middle));
                assert_eq!((rtl_real_predecessor(high), rtl_real_predecessor(low)), (middle, 0));
            })
            .unwrap();
    }

    #[test]
    fn links_that_were_never_initialised_are_found() {
        conforms!("ntddk/nf-ntddk-rtlsplay.md", "The node has to be initialised by RtlInitializeSplayLinks before.");
        let mut links = [0_usize; 3];
        let stopped = Bench::new().run(|| rtl_splay(Raw::of(&raw mut links).address()));
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
    }
}
