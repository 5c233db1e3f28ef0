//! A raw AMQP 0-9-1 client: it sends any bytes that the framing allows. A library refuses to send what a producer in
//! another language may send, so the tests of that cannot use one.
//!
//! [`Content`] is one message as it is written, [`encode`] builds its parts, [`fuzz`] draws them from a seed, and
//! [`Client`] sends them and reads what the broker says.

mod client;
pub mod encode;
pub mod fuzz;

pub use client::{Client, Message, Settled};
pub use encode::{Content, Properties, Property, Value};
