//! TLS to a real listener: a private authority, a certificate as the login, and errors that name the cause.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tempfile::TempDir;
use warren::broker::{DialError, dial};
use warren::config::{Broker as BrokerConfig, ClientCert};
use warren_tests::authority::{Authority, Certified};
use warren_tests::{Broker, Daemon, Home, Keys, Node, rig};

/// The node of all these tests, and the authority that it trusts. It knows the user `warren` by the certificate alone.
fn node() -> &'static (Node, Authority) {
    static NODE: OnceLock<(Node, Authority)> = OnceLock::new();
    NODE.get_or_init(|| {
        let authority = Authority::new();
        let node = Node::start_with_tls(&authority).expect("a node with TLS");
        node.ctl(&["add_user", "warren", "never used"]).expect("add_user");
        node.ctl(&["clear_password", "warren"]).expect("clear_password");
        node.ctl(&["set_permissions", "-p", "/", "warren", ".*", ".*", ".*"]).expect("set_permissions");
        (node, authority)
    })
}

/// PEM files in a directory of a test's own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("write");
        path
    }

    fn client(&self, client: &Certified) -> ClientCert {
        ClientCert {
            cert_file: self.write("client.pem", &client.certificate),
            key_file: self.write("client.key", &client.key),
        }
    }
}

fn refused(broker: &BrokerConfig) -> DialError {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { dial(broker, "test").await.map(drop) }).expect_err("refused")
}

/// Asserts that the attempt failed in TLS, for this reason and with this remedy.
fn assert_tls(error: &DialError, parts: &[&str]) {
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");
    let text = error.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{text} should have {parts:?}");
}

/// A listener that presents a certificate to one client, and goes no further.
fn listener(server: &Certified) -> (SocketAddr, JoinHandle<()>) {
    let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        // The client is to refuse it.
        let _ = connection.complete_io(&mut stream);
    });
    (address, thread)
}

#[test]
fn a_daemon_with_a_certificate_works_without_user_and_password() {
    let (node, authority) = node();
    let uri = format!("amqps://localhost:{}/%2f?auth_mechanism=external", node.tls_port());
    let home = Home::new(&uri, "tls_tasks");
    home.install("fixture-scenario");
    let client = authority.issue("warren");
    for (name, text) in [
        ("ca.pem", authority.certificate()),
        ("client.pem", &client.certificate),
        ("client.key", &client.key),
    ] {
        fs::write(home.path(name), text).expect("write");
    }
    let file = |name: &str| home.path(name).display().to_string();
    let broker = format!(
        "ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}",
        file("ca.pem"),
        file("client.pem"),
        file("client.key")
    );
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { broker: &broker, rest: &rest, ..Keys::default() });
    let mut daemon = Daemon::start(&home);
    let config = home.config();
    let publish = ["publish", "--id", "by-tls", "Scenario done", "--config", config.to_str().expect("UTF-8")];
    let published = daemon.warrenctl(&publish);
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    home.wait_run("end", "by-tls", 1);
    let connections =
        node.ctl(&["list_connections", "user", "ssl", "auth_mechanism"]).expect("list_connections");
    let ours = connections.lines().filter(|line| line.starts_with("warren\ttrue\tEXTERNAL")).count();
    assert_eq!(ours, 2, "consuming and publishing: {connections}");
    assert!(daemon.terminate().success());
    Broker::connect(&node.uri()).delete_family("tls_tasks");
}

#[test]
fn an_authority_that_nobody_named_is_unknown() {
    let (node, authority) = node();
    let files = Files::new();
    let mut broker = rig::broker(&format!("amqps://localhost:{}/%2f", node.tls_port()));
    broker.client_cert = Some(files.client(&authority.issue("warren")));
    assert_tls(&refused(&broker), &["UnknownIssuer", "`broker.ca_file`"]);
    broker.ca_file = Some(files.write("other.pem", Authority::new().certificate()));
    assert_tls(&refused(&broker), &["UnknownIssuer", "`broker.ca_file`"]);
}

#[test]
fn a_broker_that_wants_a_certificate_says_so() {
    let (node, authority) = node();
    let files = Files::new();
    let mut broker = rig::broker(&format!("amqps://localhost:{}/%2f", node.tls_port()));
    broker.ca_file = Some(files.write("ca.pem", authority.certificate()));
    // Its alert, unless the end of the connection was faster.
    let assert_explained = |error: &DialError| {
        assert_tls(error, &["`broker.cert_file`"]);
        let text = error.to_string();
        assert!(text.contains("fatal alert") || text.contains("the broker hung up"), "{text}");
    };
    assert_explained(&refused(&broker));
    broker.client_cert = Some(files.client(&Authority::new().issue("warren")));
    assert_explained(&refused(&broker));
}

#[test]
fn a_certificate_of_a_name_that_is_no_user_is_no_login() {
    let (node, authority) = node();
    let files = Files::new();
    let mut broker =
        rig::broker(&format!("amqps://localhost:{}/%2f?auth_mechanism=external", node.tls_port()));
    broker.ca_file = Some(files.write("ca.pem", authority.certificate()));
    broker.client_cert = Some(files.client(&authority.issue("stranger")));
    let error = refused(&broker);
    assert!(matches!(error, DialError::External { .. }), "{error:?}");
}

#[test]
fn the_brokers_certificate_is_for_its_name_and_in_time() {
    let authority = Authority::new();
    let files = Files::new();
    for (server, why) in [
        (authority.issue("elsewhere.example"), "not valid for name"),
        (authority.issue_until("localhost", 2020), "expired"),
    ] {
        let (address, thread) = listener(&server);
        let mut broker = rig::broker(&format!("amqps://localhost:{}/%2f", address.port()));
        broker.ca_file = Some(files.write("ca.pem", authority.certificate()));
        assert_tls(&refused(&broker), &[why, "the host name and the dates"]);
        thread.join().expect("the listener");
    }
}

#[test]
fn a_file_that_went_away_is_named() {
    let (node, authority) = node();
    let files = Files::new();
    let mut broker = rig::broker(&format!("amqps://localhost:{}/%2f", node.tls_port()));
    broker.ca_file = Some(files.write("ca.pem", authority.certificate()));
    fs::remove_file(broker.ca_file.as_ref().expect("it is set")).expect("remove");
    let error = refused(&broker);
    assert!(
        error.to_string().contains("ca.pem") && error.to_string().contains("`broker.ca_file`"),
        "{error}"
    );
}
