//! Whoever may publish to a queue can cost at most their own messages: what a producer may send that no library would.

mod frames;
mod fuzz;
