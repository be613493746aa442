//! Security: identifiers, access lists and descriptors, tokens, impersonation, and the access check over them.
//!
//! A process's [`Token`](crate::process::Token) says who it is in one word; what drivers see of it, a token object with its
//! groups and privileges, is made from that on first use.

pub(crate) mod access;
pub(crate) mod acl;
pub(crate) mod client;
pub(crate) mod descriptor;
pub(crate) mod duplicate;
pub(crate) mod impersonation;
pub(crate) mod object;
pub(crate) mod query;
pub(crate) mod relative;
pub(crate) mod seexports;
pub(crate) mod sid;
pub(crate) mod subject;
pub(crate) mod token;

use crate::ddi::Export;

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        access::EXPORTS,
        acl::EXPORTS,
        client::EXPORTS,
        descriptor::EXPORTS,
        duplicate::EXPORTS,
        impersonation::EXPORTS,
        object::EXPORTS,
        query::EXPORTS,
        relative::EXPORTS,
        seexports::EXPORTS,
        sid::EXPORTS,
        subject::EXPORTS,
        token::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;
