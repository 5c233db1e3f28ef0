//! `sd_notify`: readiness, reload, drain and watchdog.
