//! The tree of object names: directories, symbolic links, and objects.
//!
//! Names compare without regard to case, whatever `OBJ_CASE_INSENSITIVE` says: that is what Windows does as installed
//! (registry value `obcaseinsensitive` = 1).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::ob::ObjectRef;
use super::unicode::upcase_str;

/// Links followed in one look-up before it fails: cycles end here.
const MAX_LINKS: usize = 32;

/// The namespace of a machine.
#[derive(Debug)]
pub(crate) struct Namespace {
    root: Mutex<Directory>,
}

/// Children by upcased name.
type Directory = BTreeMap<String, Node>;

#[derive(Debug)]
enum Node {
    Directory(Directory),
    Link(String),
    Object(ObjectRef),
}

/// Where a look-up ended.
#[derive(Debug)]
pub(crate) struct Found {
    /// The object.
    pub object: ObjectRef,
    /// What is left of the path: begins with a backslash, or is empty.
    pub rest: String,
}

impl Default for Namespace {
    /// The tree as the kernel makes it at boot.
    fn default() -> Self {
        let namespace = Self { root: Mutex::default() };
        for directory in [
            "\\Device",
            "\\Driver",
            "\\FileSystem",
            // FltMgr makes it, for the control devices of filters.
            "\\FileSystem\\Filters",
            "\\GLOBAL??",
            "\\BaseNamedObjects",
            "\\Callback",
            "\\ObjectTypes",
        ] {
            let made = namespace.insert(directory, Node::Directory(Directory::new()));
            debug_assert!(made.is_ok(), "{directory}");
        }
        for (link, target) in [
            ("\\??", "\\GLOBAL??"),
            ("\\DosDevices", "\\GLOBAL??"),
            ("\\GLOBAL??\\Global", "\\GLOBAL??"),
            ("\\GLOBAL??\\GLOBALROOT", ""),
            ("\\SystemRoot", "\\GLOBAL??\\C:\\Windows"),
        ] {
            let made = namespace.insert_link(link, target);
            debug_assert!(made.is_ok(), "{link}");
        }
        namespace
    }
}

impl Namespace {
    /// Names `object`. The name holds a reference until [`remove`](Self::remove).
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_COLLISION`, `STATUS_OBJECT_PATH_NOT_FOUND`, `STATUS_OBJECT_PATH_SYNTAX_BAD`,
    /// `STATUS_OBJECT_NAME_INVALID`.
    pub(crate) fn insert_object(&self, path: &str, object: &ObjectRef) -> Result<(), NtStatus> {
        self.insert(path, Node::Object(object.clone()))?;
        object.set_name(Some(path.to_owned()));
        Ok(())
    }

    /// Makes a symbolic link from `path` to the path `target`, which need not exist. Errors as for objects.
    pub(crate) fn insert_link(&self, path: &str, target: &str) -> Result<(), NtStatus> {
        self.insert(path, Node::Link(target.to_owned()))
    }

    /// Makes an empty directory. Errors as for objects.
    pub(crate) fn insert_directory(&self, path: &str) -> Result<(), NtStatus> {
        self.insert(path, Node::Directory(Directory::new()))
    }

    /// Removes an empty directory. Errors as for objects; `STATUS_OBJECT_TYPE_MISMATCH` also when it is not empty.
    pub(crate) fn remove_directory(&self, path: &str) -> Result<(), NtStatus> {
        let is_empty = |node: &Node| matches!(node, Node::Directory(children) if children.is_empty());
        self.remove(path, is_empty).map(drop)
    }

    /// Whether the path names a directory.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        self.node(path, |node| matches!(node, Node::Directory(_))).unwrap_or(false)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As for objects; `STATUS_OBJECT_TYPE_MISMATCH` when the path names no link.
    pub(crate) fn link_target(&self, path: &str) -> Result<String, NtStatus> {
        self.node(path, |node| match node {
            Node::Link(target) => Ok(target.clone()),
            Node::Directory(_) | Node::Object(_) => Err(NtStatus::OBJECT_TYPE_MISMATCH),
        })?
    }

    /// Looks at the node that a path names, without following it if it is a link.
    fn node<R>(&self, path: &str, look: impl FnOnce(&Node) -> R) -> Result<R, NtStatus> {
        let (parent, name) = self.resolve_parent(path)?;
        let root = self.lock();
        let directory = walk(&root, &parent).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        directory.get(&upcase_str(&name)).map(look).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    /// Takes the name of an object away; the object lives on while referenced.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_OBJECT_PATH_NOT_FOUND`, `STATUS_OBJECT_TYPE_MISMATCH` for a link.
    pub(crate) fn remove_object(&self, path: &str) -> Result<(), NtStatus> {
        match self.remove(path, |node| matches!(node, Node::Object(_)))? {
            Node::Object(object) => {
                object.set_name(None);
                Ok(())
            }
            Node::Directory(_) | Node::Link(_) => Err(NtStatus::OBJECT_TYPE_MISMATCH),
        }
    }

    /// Removes a symbolic link. Errors as for objects.
    pub(crate) fn remove_link(&self, path: &str) -> Result<(), NtStatus> {
        self.remove(path, |node| matches!(node, Node::Link(_))).map(drop)
    }

    /// The first object on `path`, links followed, and what is left of the path behind it.
    ///
    /// # Errors
    /// `STATUS_OBJECT_PATH_SYNTAX_BAD` for a path that does not begin with a backslash,
    /// `STATUS_OBJECT_NAME_INVALID` for an empty component, `STATUS_OBJECT_PATH_NOT_FOUND` and
    /// `STATUS_OBJECT_NAME_NOT_FOUND` when a directory, or the last name, is missing,
    /// `STATUS_OBJECT_TYPE_MISMATCH` when the path names a directory.
    pub(crate) fn lookup(&self, path: &str) -> Result<Found, NtStatus> {
        let root = self.lock();
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match step(&root, &path)? {
                Step::Found(found) => return Ok(found),
                Step::Link(next) => path = next,
            }
        }
        Err(NtStatus::NAME_TOO_LONG)
    }

    fn insert(&self, path: &str, node: Node) -> Result<(), NtStatus> {
        let (parent, name) = self.resolve_parent(path)?;
        let mut root = self.lock();
        let directory = walk_mut(&mut root, &parent).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        let key = upcase_str(&name);
        if directory.contains_key(&key) {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        directory.insert(key, node);
        Ok(())
    }

    /// The node leaves the tree inside the lock and is dropped by the caller outside it: dropping may run driver code.
    fn remove(&self, path: &str, wanted: impl Fn(&Node) -> bool) -> Result<Node, NtStatus> {
        let (parent, name) = self.resolve_parent(path)?;
        let mut root = self.lock();
        let directory = walk_mut(&mut root, &parent).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        let key = upcase_str(&name);
        let child = directory.get(&key).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        if !wanted(child) {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        directory.remove(&key).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    /// Splits off the last name and follows links in the directories before it: the directory's real path.
    fn resolve_parent(&self, path: &str) -> Result<(Vec<String>, String), NtStatus> {
        let root = self.lock();
        let names = components(path)?;
        let (last, parents) = names.split_last().ok_or(NtStatus::OBJECT_NAME_INVALID)?;
        let mut pending: Vec<String> = parents.iter().rev().map(|name| (*name).to_owned()).collect();
        let mut real: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            let directory = walk(&root, &real).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
            match directory.get(&upcase_str(&name)) {
                Some(Node::Directory(_)) => real.push(name),
                Some(Node::Link(target)) if links < MAX_LINKS => {
                    links += 1;
                    real.clear();
                    if !target.is_empty() {
                        pending.extend(components(target)?.iter().rev().map(|name| (*name).to_owned()));
                    }
                }
                _ => return Err(NtStatus::OBJECT_PATH_NOT_FOUND),
            }
        }
        Ok((real, (*last).to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Step {
    Found(Found),
    /// A link was met: go on from the root with this path.
    Link(String),
}

/// Walks from the root until an object or a link is met.
fn step(root: &Directory, path: &str) -> Result<Step, NtStatus> {
    let mut rest = path.strip_prefix('\\').ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
    let mut directory = root;
    loop {
        let (name, behind) = match rest.find('\\') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        if name.is_empty() {
            let named_directory = behind.is_empty();
            return Err(if named_directory { NtStatus::OBJECT_TYPE_MISMATCH } else { NtStatus::OBJECT_NAME_INVALID });
        }
        let missing = if behind.is_empty() { NtStatus::OBJECT_NAME_NOT_FOUND } else { NtStatus::OBJECT_PATH_NOT_FOUND };
        match directory.get(&upcase_str(name)).ok_or(missing)? {
            Node::Directory(children) => {
                directory = children;
                rest = behind.strip_prefix('\\').ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
            }
            Node::Link(target) => return Ok(Step::Link(format!("{target}{behind}"))),
            Node::Object(object) => {
                return Ok(Step::Found(Found { object: object.clone(), rest: behind.to_owned() }));
            }
        }
    }
}

fn walk<'a>(root: &'a Directory, names: &[String]) -> Option<&'a Directory> {
    names.iter().try_fold(root, |directory, name| match directory.get(&upcase_str(name))? {
        Node::Directory(children) => Some(children),
        Node::Link(_) | Node::Object(_) => None,
    })
}

fn walk_mut<'a>(root: &'a mut Directory, names: &[String]) -> Option<&'a mut Directory> {
    names.iter().try_fold(root, |directory, name| match directory.get_mut(&upcase_str(name))? {
        Node::Directory(children) => Some(children),
        Node::Link(_) | Node::Object(_) => None,
    })
}

fn components(path: &str) -> Result<Vec<&str>, NtStatus> {
    let rest = path.strip_prefix('\\').ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
    let names: Vec<&str> = rest.split('\\').collect();
    if names.iter().any(|name| name.is_empty()) { Err(NtStatus::OBJECT_NAME_INVALID) } else { Ok(names) }
}
