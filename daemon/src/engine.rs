//! The data path: one event loop that dispatches, settles and watches time limits.
