//! Warren handler: orders, payments and inventory in one SQLite store.
