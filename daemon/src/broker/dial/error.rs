//! Why there is no connection, in words that name the remedy. Never a credential.

use std::path::PathBuf;
use std::time::Duration;

use lapin::ErrorKind;

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
    Certificate { file: PathBuf, error: std::io::Error },
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
    /// What the broker asks for permissions says no, or cannot be asked.
    #[error(
        "{address}: {why}; the broker asks this backend for permissions: look there, and in the broker's log"
    )]
    Backend {
        /// Host, port and vhost.
        address: String,
        /// The broker's words.
        why: String,
    },
    /// There are as many connections as there may be.
    #[error("{address}: the connection limit of {of} ({limit}) is reached; each warrend has two connections: close others (`rabbitmqctl list_connections user vhost client_properties`), or raise the limit: {}", of.remedy())]
    Limit {
        /// Host, port and vhost.
        address: String,
        /// Whose limit it is.
        of: LimitOf,
        /// How many there may be.
        limit: String,
    },
    /// The virtual host exists and does not run.
    #[error(
        "{address}: vhost `{vhost}` is down at the broker's node; `rabbitmqctl restart_vhost -p {vhost}`, and the broker's log says why"
    )]
    VhostDown {
        /// Host, port and vhost.
        address: String,
        /// The vhost's name.
        vhost: String,
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

/// Whose connections the broker counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitOf {
    /// A user's, over all vhosts.
    User(String),
    /// A virtual host's, over all users.
    Vhost(String),
    /// A node's, over all of both.
    Node,
}

impl LimitOf {
    fn remedy(&self) -> String {
        match self {
            Self::User(user) => {
                format!("`rabbitmqctl set_user_limits {user} '{{\"max-connections\": NUMBER}}'`")
            }
            Self::Vhost(vhost) => {
                format!("`rabbitmqctl set_vhost_limits -p {vhost} '{{\"max-connections\": NUMBER}}'`")
            }
            Self::Node => "`connection_max` in the node's rabbitmq.conf".to_owned(),
        }
    }
}

impl std::fmt::Display for LimitOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "user `{user}`"),
            Self::Vhost(vhost) => write!(f, "vhost `{vhost}`"),
            Self::Node => f.write_str("the broker's node"),
        }
    }
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
                Self::refused(error.get_message().as_str(), address, user, vhost)
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

    /// Sorts the broker's own words; what is not known among them is passed on as it is, without a guess at a remedy.
    /// They are those of `rabbit_reader` and `rabbit_access_control`, the same in 3.10, 4.0 and 4.3.
    fn refused(text: &str, address: String, user: Option<String>, vhost: String) -> Self {
        let why = text.to_owned();
        if text.starts_with("ACCESS_REFUSED - Login was refused") {
            return match user {
                Some(user) => Self::Login { address, user },
                None => Self::External { address },
            };
        }
        let words = text.split_once(" - ").map_or(text, |(_, words)| words);
        if words == format!("vhost {vhost} not found") {
            return Self::VhostMissing { address, vhost };
        }
        if let Some(limit) = words.strip_prefix("connection refused: node connection limit (") {
            return Self::limit(LimitOf::Node, limit, address, why);
        }
        // A name may hold anything, quotes included: what stands behind the last one is the broker's.
        if let Some(rest) =
            strip_prefix(words, &["Connection refused for user '", "connection refused for user '"])
            && let Some((user, limit)) = rest.rsplit_once("': user connection limit (")
        {
            return Self::limit(LimitOf::User(user.to_owned()), limit, address, why);
        }
        let Some(rest) = words.strip_prefix(&format!("access to vhost '{vhost}' refused for user '")) else {
            return Self::Handshake { address, why };
        };
        if let Some((_, limit)) = rest.rsplit_once("': connection limit (") {
            Self::limit(LimitOf::Vhost(vhost), limit, address, why)
        } else if rest.ends_with(&format!("': vhost '{vhost}' is down")) {
            Self::VhostDown { address, vhost }
        } else if rest.contains("' by backend ") || rest.contains("', backend ") {
            Self::Backend { address, why }
        } else if let Some(user) = rest.strip_suffix('\'') {
            Self::VhostRefused { address, vhost, user: user.to_owned() }
        } else {
            Self::Handshake { address, why }
        }
    }

    /// `tail` is what follows the opening bracket of the number.
    fn limit(of: LimitOf, tail: &str, address: String, why: String) -> Self {
        match tail.strip_suffix(") is reached") {
            Some(limit) => Self::Limit { address, of, limit: limit.to_owned() },
            None => Self::Handshake { address, why },
        }
    }
}

fn strip_prefix<'a>(text: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What brokers of 3.10, 4.0 and 4.3 say, and what of it the error has to say.
    #[test]
    fn each_refusal_of_the_broker_has_the_remedy_of_its_own() {
        let table = [
            (
                "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.",
                "login refused for user `joe`",
            ),
            ("NOT_ALLOWED - vhost shop not found", "add_vhost"),
            ("NOT_ALLOWED - access to vhost 'shop' refused for user 'joe'", "set_permissions -p shop joe"),
            (
                "NOT_ALLOWED - access to vhost 'shop' refused for user 'joe' by backend rabbit_auth_backend_http: no",
                "backend",
            ),
            (
                "NOT_ALLOWED - access to vhost 'shop' refused for user 'joe', backend rabbit_auth_backend_ldap returned an error: timeout",
                "backend",
            ),
            (
                "NOT_ALLOWED - access to vhost 'shop' refused for user 'joe': connection limit (7) is reached",
                "connection limit of vhost `shop` (7) is reached",
            ),
            (
                "NOT_ALLOWED - access to vhost 'shop' refused for user 'joe': connection limit (7) is reached",
                "set_vhost_limits -p shop",
            ),
            (
                "NOT_ALLOWED - Connection refused for user 'joe': user connection limit (1) is reached",
                "connection limit of user `joe` (1) is reached",
            ),
            (
                "NOT_ALLOWED - connection refused for user 'joe': user connection limit (1) is reached",
                "set_user_limits joe '{\"max-connections\": NUMBER}'",
            ),
            ("NOT_ALLOWED - connection refused: node connection limit (100) is reached", "connection_max"),
            (
                "INTERNAL_ERROR - access to vhost 'shop' refused for user 'joe': vhost 'shop' is down",
                "restart_vhost -p shop",
            ),
        ];
        for (text, expected) in table {
            let error = DialError::refused(text, "h:1/shop".into(), Some("joe".into()), "shop".into());
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(!matches!(error, DialError::Handshake { .. }), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_on_and_nothing_is_guessed() {
        for text in [
            "NOT_ALLOWED - negotiated channel_max = 2047 is higher than the maximum allowed value (4)",
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'joe': connection limit cannot be queried, timeout",
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'joe': on Mondays",
            "NOT_ALLOWED - connection refused for user 'joe': user connection limit (1",
            "NOT_ALLOWED - refused and not found",
            "ACCESS_REFUSED - not today",
            "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
            "",
        ] {
            let error = DialError::refused(text, "h:1/shop".into(), Some("joe".into()), "shop".into());
            assert_eq!(error.to_string(), format!("h:1/shop: {text}"));
        }
    }

    #[test]
    fn names_that_look_like_the_brokers_words_change_nothing() {
        let vhost = "a' refused for user 'b': connection limit (1) is reached";
        let text = format!("NOT_ALLOWED - access to vhost '{vhost}' refused for user 'vhost not found'");
        let error = DialError::refused(&text, "h:1/".into(), None, vhost.into());
        assert!(matches!(error, DialError::VhostRefused { user, .. } if user == "vhost not found"));
    }
}
