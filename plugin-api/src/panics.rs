//! Turns a panic into words: what it said and where.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Where this thread panicked last. Only a panic hook is told the place, and only the unwinding thread is
    /// asked.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f`; a panic becomes its message and place. A handler that panicked is in an unknown state: the host
/// that has it is replaced, so nothing is asked of it afterwards but to be dropped.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    remember_places();
    PLACE.take();
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = payload_text(&*payload);
        // A payload may panic again when it is dropped, and then there is nothing left to say.
        if let Err(again) = panic::catch_unwind(AssertUnwindSafe(move || drop(payload))) {
            std::mem::forget(again);
        }
        match PLACE.take() {
            Some(place) => format!("{text}, at {place}"),
            None => text,
        }
    })
}

/// Installs the hook, before whatever hook is there (the default one prints the panic to stderr, which is the
/// log).
fn remember_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PLACE.set(info.location().map(ToString::to_string));
            next(info);
        }));
    });
}

fn payload_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic whose payload is no text".to_owned()
    }
}
