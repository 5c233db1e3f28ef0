//! Config + plugins → a new registry, probed before it is swapped in.
