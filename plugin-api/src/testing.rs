//! The test kit: runs a handler without a broker and without a daemon.
