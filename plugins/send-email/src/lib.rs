//! Warren handler: send an email per task over SMTP.
