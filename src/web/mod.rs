//! What HTTP messages are made of on our side: bodies.
//!
//! May not know what any of them is for: it imports leaves and nothing else.

pub mod body;

pub use body::Body;
