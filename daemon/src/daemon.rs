//! Owns everything: start, signals, reload, drain.
