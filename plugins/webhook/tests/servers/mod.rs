//! Real servers to send to: one that answers properly, one that does whatever a test wants with the connection, one
//! that speaks TLS. Each on a port of its own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tiny_http::{Header, Response, Server};

/// A request as the server received it. Header names are in lower case.
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// What a proper server answers.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<u8>,
}

/// A proper HTTP server that gives every request the same reply, or one made from the request.
pub(crate) struct Proper {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
    pub(crate) received: Receiver<Received>,
}

impl Proper {
    pub(crate) fn replies(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    pub(crate) fn start(answer: impl Fn(&Received) -> Reply + Send + 'static) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let (requests, received) = channel();
        let listener = server.clone();
        let thread = std::thread::spawn(move || {
            for mut request in listener.incoming_requests() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).expect("JSON is UTF-8");
                let header = |header: &Header| {
                    (header.field.as_str().as_str().to_ascii_lowercase(), header.value.as_str().to_owned())
                };
                let headers = request.headers().iter().map(header).collect();
                let (method, path) = (request.method().to_string(), request.url().to_owned());
                let incoming = Received { method, path, headers, body };
                let reply = answer(&incoming);
                let mut response = Response::from_data(reply.body).with_status_code(reply.status);
                for (name, value) in reply.headers {
                    response.add_header(Header::from_bytes(name, value).expect("a header"));
                }
                // Noted before it is answered: the test looks as soon as the answer is there. Both fail only when
                // the test has ended.
                let _ = (requests.send(incoming), request.respond(response));
            }
        });
        Self { server, thread: Some(thread), received }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let address = self.server.server_addr().to_ip().expect("TCP");
        format!("http://{address}{path}")
    }
}

impl Drop for Proper {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }
}

/// Accepts connections one after another, reads the request of each, then lets the test do what it wants with it.
/// The thread ends with the test process.
pub(crate) fn improper(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            read_request(&stream);
            serve(stream);
        }
    });
    format!("http://{address}/")
}

/// A TLS server that answers `200 secure`, and the PEM of the CA that its certificate is from.
pub(crate) fn tls() -> (String, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
    (secure(&certificate, &key), ca_pem)
}

/// The same with a certificate that is signed by itself, as an authority's or not, and its PEM.
pub(crate) fn tls_signed_by_itself(is_ca: IsCa) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = is_ca;
    let certificate = params.self_signed(&key).expect("a certificate");
    (secure(&certificate, &key), certificate.pem())
}

fn secure(certificate: &Certificate, key: &KeyPair) -> String {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("key and certificate belong together");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).expect("a good configuration");
            let mut tls = StreamOwned::new(connection, stream);
            if read_request(&mut tls) {
                let reply = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nsecure";
                // It fails when the client has hung up.
                let _ = tls.write_all(reply.as_bytes()).and_then(|()| tls.flush());
            }
        }
    });
    format!("https://localhost:{port}/")
}

/// Reads headers and body; false when the connection ends before.
fn read_request(mut stream: impl Read) -> bool {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return false,
        }
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
        if body.len() >= length.trim().parse().expect("a number") {
            return true;
        }
    }
}
