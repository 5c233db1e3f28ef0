//! Outcome + attempt + policy → what is done at the broker. Pure.
