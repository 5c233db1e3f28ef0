//! Warren handler: an SQL query as CSV and as an HTML page.
