//! Logs: journald's native protocol under systemd, human text on stderr otherwise.
