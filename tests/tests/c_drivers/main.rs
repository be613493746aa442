//! The model drivers in C, built with clang: what they do, what they do while calls fail, and that they leave nothing.

mod bench;
mod context_filter;
mod memo;
