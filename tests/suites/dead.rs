//! `warrenctl dead` on a real broker: letters that a real daemon wrote are found, shown, sent back and dropped, and
//! whatever happens meanwhile, none is lost.

pub(crate) mod looking;
pub(crate) mod removing;
pub(crate) mod replaying;
pub(crate) mod rig;
pub(crate) mod trouble;
