//! AMQP URIs: checked when they are read, printed without their credentials. No message here quotes any part of
//! a URI, because a mistyped one can hold the password anywhere.

use std::net::Ipv6Addr;

use lapin::uri::AMQPUri;

use super::{Broker, Secret};

const FORM: &str = "write amqp:// or amqps://, then USER:PASSWORD@HOST:PORT/VHOST, with %2f for the vhost /";
const FORM_V6: &str = "write an IPv6 address in brackets, as in amqp://USER:PASSWORD@[::1]:5672/VHOST";

/// Checks a URI and returns it in the form lapin understands as meant; else the fault and the remedy.
pub(super) fn check(text: &str) -> Result<Secret, (&'static str, &'static str)> {
    let text = text.trim();
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("the AMQP URI has a space or control character in it", FORM));
    }
    let Some(rest) = text.strip_prefix("amqp://").or_else(|| text.strip_prefix("amqps://")) else {
        return Err(("the AMQP URI does not begin with amqp:// or amqps://", FORM));
    };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if tail.contains(['@', '#']) {
        let remedy = "percent-encode / as %2f, ? as %3f, # as %23 and @ as %40 in user, password and vhost";
        return Err(("the AMQP URI has an @ or # behind its host", remedy));
    }
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let port = match address.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, port)))
            if host.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.starts_with(':')) =>
        {
            port
        }
        Some(_) => return Err(("the AMQP URI's host in brackets is not an IPv6 address", FORM_V6)),
        None if address.matches(':').count() > 1 => {
            return Err(("the AMQP URI's host has several colons in it", FORM_V6));
        }
        None if address.is_empty() || address.starts_with(':') => {
            return Err(("the AMQP URI names no host", FORM));
        }
        None => address.find(':').map_or("", |colon| &address[colon..]),
    };
    let port = if port.is_empty() { "5672" } else { &port[1..] };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(("the AMQP URI's port is not a number from 1 to 65535", FORM));
    }
    let path = tail.split('?').next().unwrap_or_default();
    if path.get(1..).is_some_and(|vhost| vhost.contains('/')) {
        return Err(("the AMQP URI's vhost holds a /", "percent-encode it as %2f"));
    }
    // A trailing slash would name the vhost "", which no broker has; every other client means "/" by it.
    let text = if path == "/" {
        text.replacen(&format!("{authority}/"), &format!("{authority}/%2f"), 1)
    } else {
        text.to_owned()
    };
    let uri = Secret(text);
    match parse(&uri) {
        Some(_) => Ok(uri),
        None => Err(("the AMQP URI cannot be understood", FORM)),
    }
}

/// What a URI says. The parser's own error is not passed on: it may quote the URI.
pub(crate) fn parse(uri: &Secret) -> Option<AMQPUri> {
    let mut parsed: AMQPUri = uri.0.parse().ok()?;
    // The parser takes only names for hosts and means localhost by `[::1]`.
    if let Some(host) = bracketed_host(&uri.0) {
        host.clone_into(&mut parsed.authority.host);
    }
    Some(parsed)
}

/// Host and port of a URI, an IPv6 address in brackets.
pub(crate) fn host_and_port(uri: &AMQPUri) -> String {
    let (host, port) = (&uri.authority.host, uri.authority.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn bracketed_host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(host, _)| host)
}

/// Whether a checked URI asks for TLS.
pub(super) fn is_tls(uri: &Secret) -> bool {
    uri.0.starts_with("amqps://")
}

/// A checked URI with its user and password masked; it can be parsed again.
pub(super) fn masked(uri: &Secret) -> String {
    let scheme = if is_tls(uri) { "amqps" } else { "amqp" };
    let query = uri.0.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://***:***@{}{query}", address(uri))
}

impl Broker {
    /// `host:port/vhost` of every URI, in order, without credentials; a `/` in the vhost is `%2f`.
    pub fn addresses(&self) -> Vec<String> {
        self.uris.iter().map(address).collect()
    }
}

fn address(uri: &Secret) -> String {
    parse(uri).map_or_else(
        || "(not an AMQP URI)".to_owned(),
        |uri| {
            let vhost = uri
                .vhost
                .replace('%', "%25")
                .replace('/', "%2f")
                .replace('?', "%3f")
                .replace('#', "%23")
                .replace('@', "%40");
            format!("{}/{vhost}", host_and_port(&uri))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_uris_pass_and_print_without_credentials() {
        let table = [
            ("amqp://guest:guest@127.0.0.1:5672/%2f", "127.0.0.1:5672/%2f"),
            ("amqp://u:p@broker.example/mail", "broker.example:5672/mail"),
            ("amqps://u:p@broker.example/mail\n", "broker.example:5671/mail"),
            ("amqp://broker.example", "broker.example:5672/%2f"),
            ("amqp://u:p@broker.example/", "broker.example:5672/%2f"),
            ("amqp://u:p%40%2f@h:1/a%2fb?heartbeat=5", "h:1/a%2fb"),
            ("amqp://u:p@[::1]:5673/mail", "[::1]:5673/mail"),
            ("amqps://u:p@[2001:db8::7]", "[2001:db8::7]:5671/%2f"),
            ("amqp://[::1]/", "[::1]:5672/%2f"),
            ("amqp://u:p@[::ffff:10.0.0.1]:1/v?heartbeat=5", "[::ffff:10.0.0.1]:1/v"),
        ];
        for (text, expected) in table {
            let uri = check(text).expect(text);
            assert_eq!(address(&uri), expected, "{text}");
            let again = check(&masked(&uri)).expect("a masked URI parses");
            assert_eq!(address(&again), expected, "{text}");
        }
    }

    #[test]
    fn bad_uris_are_refused_without_quoting_them() {
        let table = [
            ("http://u:s3cret@h/", "begin"),
            ("u:s3cret@h", "begin"),
            ("", "begin"),
            ("amqp://u:s3cret@h:99999/", "port"),
            ("amqp://u:s3cret@h:0/", "port"),
            ("amqp://u:s3cret", "port"),
            ("amqp://u:s3cret@/v", "no host"),
            ("amqp://u:1/s3cret@h/v", "behind its host"),
            ("amqp://u:1?s3cret@h/v", "behind its host"),
            ("amqp://u:s3cret@[::g]/v", "not an IPv6 address"),
            ("amqp://u:s3cret@[::1/v", "not an IPv6 address"),
            ("amqp://u:s3cret@[::1]5672/v", "not an IPv6 address"),
            ("amqp://u:s3cret@[::1]:0/v", "port"),
            ("amqp://u:s3cret@[broker]/v", "not an IPv6 address"),
            ("amqp://u:s3cret@[fe80::1%25eth0]/v", "not an IPv6 address"),
            ("amqp://u:s3cret@::1/v", "several colons"),
            ("amqp://u:s3cret@2001:db8::7:5672/v", "several colons"),
            ("amqp://u:s3 cret@h/v", "space"),
            ("amqp://u:s3cret@h/a/b", "vhost"),
            ("amqp://u:s3cret@h/v?heartbeat=s3cret", "understood"),
        ];
        for (text, expected) in table {
            let (message, remedy) = check(text).expect_err(text);
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("s3cret") && !remedy.contains("s3cret"));
        }
    }
}
