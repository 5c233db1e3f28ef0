//! Why there is no connection, in words that name the remedy. Never a credential.

use std::path::PathBuf;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError};

/// Why a connection attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The configuration names no address at all.
    #[error("no broker address is configured; set `broker.uri`")]
    NoAddress,
    /// The URI cannot be parsed.
    #[error(
        "`broker.uri` is no AMQP URI; write amqp://USER:PASSWORD@HOST:PORT/VHOST, each part percent-encoded"
    )]
    BadUri,
    /// A TLS file cannot be read.
    #[error("cannot read {}: {error}; check `broker.ca_file`, `broker.cert_file`, `broker.key_file` and the file's owner", file.display())]
    Certificate {
        /// Which.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The host's name cannot be resolved.
    #[error(
        "{address}: cannot resolve the host name ({why}); check `broker.uri`, the name service, and under systemd that the unit's IPAddressAllow= lets warrend reach it"
    )]
    Dns {
        /// Host, port and vhost.
        address: String,
        /// The resolver's words.
        why: String,
    },
    /// Nobody answers at the address.
    #[error("{address}: {why}; check that the broker runs and listens there")]
    Connect {
        /// Host, port and vhost.
        address: String,
        /// The system's words.
        why: String,
    },
    /// The TLS handshake failed.
    #[error(
        "{address}: TLS failed: {why}; check `broker.ca_file`, the host name and the dates in the broker's certificate, that the port speaks TLS, and `broker.cert_file` if the broker wants to know its clients"
    )]
    Tls {
        /// Host, port and vhost.
        address: String,
        /// TLS's words.
        why: String,
    },
    /// Time is up.
    #[error(
        "{address}: no answer in {limit:?} ({stage}); check that it is a RabbitMQ port (TLS or not), that the network lets it pass, and under systemd that the unit's IPAddressAllow= does"
    )]
    Timeout {
        /// Host, port and vhost.
        address: String,
        /// `broker.connect_timeout`.
        limit: Duration,
        /// How far it came.
        stage: Stage,
    },
    /// The broker refused user or password.
    #[error(
        "{address}: login refused for user `{user}`; check user and password in `broker.uri`, and `rabbitmqctl list_users` (guest may log in from loopback only)"
    )]
    Login {
        /// Host, port and vhost.
        address: String,
        /// The user's name.
        user: String,
    },
    /// The broker does not know the client's certificate (SASL's EXTERNAL).
    #[error(
        "{address}: login by certificate refused; check `broker.cert_file`, and that the broker has a user of the certificate's name (`ssl_cert_login_from` says which name) and the plugin rabbitmq_auth_mechanism_ssl"
    )]
    External {
        /// Host, port and vhost.
        address: String,
    },
    /// The virtual host does not exist.
    #[error(
        "{address}: there is no vhost `{vhost}`; create it with `rabbitmqctl add_vhost`, or correct `broker.uri` (the default vhost is written %2f)"
    )]
    VhostMissing {
        /// Host, port and vhost.
        address: String,
        /// The vhost's name.
        vhost: String,
    },
    /// The user may not use the virtual host.
    #[error(
        "{address}: user `{user}` may not use vhost `{vhost}`; grant it with `rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'` or narrower"
    )]
    VhostRefused {
        /// Host, port and vhost.
        address: String,
        /// The vhost's name.
        vhost: String,
        /// The user's name.
        user: String,
    },
    /// The broker, or whoever listens there, ended the handshake.
    #[error("{address}: {why}")]
    Handshake {
        /// Host, port and vhost.
        address: String,
        /// The broker's or lapin's words.
        why: String,
    },
}

/// How far an attempt came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Finding the host's addresses.
    #[default]
    Resolve,
    /// Opening the socket.
    Connect,
    /// Encrypting it.
    Tls,
    /// Greeting the broker.
    Handshake,
    /// Greeting it over TLS.
    EncryptedHandshake,
}

impl DialError {
    /// Names what happened. `error` is `None` when time was up. No `user`: the certificate is the login.
    pub(super) fn of(
        stage: Stage,
        error: Option<&lapin::Error>,
        address: String,
        user: Option<String>,
        vhost: String,
        limit: Duration,
    ) -> Self {
        let Some(error) = error else { return Self::Timeout { address, limit, stage } };
        match (stage, error.kind()) {
            (_, ErrorKind::IOError(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                Self::Timeout { address, limit, stage }
            }
            (Stage::Resolve, ErrorKind::IOError(error)) => Self::Dns { address, why: error.to_string() },
            (Stage::Connect, ErrorKind::IOError(error)) => Self::Connect { address, why: error.to_string() },
            (Stage::Tls, ErrorKind::IOError(error)) => Self::Tls { address, why: error.to_string() },
            (_, ErrorKind::ProtocolError(error)) => {
                let text = error.get_message().as_str();
                match error.kind() {
                    AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.ends_with("not found") => {
                        Self::VhostMissing { address, vhost }
                    }
                    AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("refused") => {
                        let user = user.unwrap_or_else(|| "of the certificate".to_owned());
                        Self::VhostRefused { address, vhost, user }
                    }
                    _ if text.starts_with("ACCESS_REFUSED") => match user {
                        Some(user) => Self::Login { address, user },
                        None => Self::External { address },
                    },
                    _ => Self::Handshake { address, why: text.to_owned() },
                }
            }
            // With TLS 1.3 the broker judges our certificate when we take the connection for open already. It sends an
            // alert and hangs up; where our greeting comes in between, the reset overtakes the alert.
            (Stage::EncryptedHandshake, ErrorKind::IOError(error)) => {
                let why = match error.to_string() {
                    alert if alert.contains("fatal alert") => alert,
                    other => format!("the broker hung up as soon as it was agreed on ({other})"),
                };
                Self::Tls { address, why }
            }
            (_, ErrorKind::IOError(error)) => Self::Handshake {
                address,
                why: format!(
                    "the connection ended during the handshake ({error}); check that it is a RabbitMQ port (TLS or not)"
                ),
            },
            _ => Self::Handshake { address, why: error.to_string() },
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving its name",
            Self::Connect => "connecting",
            Self::Tls => "in the TLS handshake",
            Self::Handshake => "in the AMQP handshake",
            Self::EncryptedHandshake => "in the AMQP handshake over TLS",
        })
    }
}
