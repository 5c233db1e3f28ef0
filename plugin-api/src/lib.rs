//! Write Warren handlers.
