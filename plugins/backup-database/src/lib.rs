//! Warren handler: back up an SQLite database.
