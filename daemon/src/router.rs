//! Prefix → handler. Pure.
