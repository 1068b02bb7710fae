//! draft
pub mod front;
