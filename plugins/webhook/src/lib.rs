//! Warren handler: POST each task to a URL.
