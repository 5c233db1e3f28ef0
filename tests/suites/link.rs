//! The broker link on a real node: consuming, settling, copies, refusals, and what happens when anything ends.

pub(crate) mod consuming;
pub(crate) mod copies;
pub(crate) mod refusals;
