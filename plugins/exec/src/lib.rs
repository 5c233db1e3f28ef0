//! Warren handler: run a command per task.
