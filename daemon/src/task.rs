//! A task as its text and properties say: label stripped, identity and attempt read. Pure.
