//! `config/warren.toml`, the commented reference, against the loader.
