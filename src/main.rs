//! The `portcullis` command.
#![forbid(unsafe_code)]

fn main() {}
