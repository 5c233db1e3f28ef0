//! Warren handler: delete old files below configured directories.
