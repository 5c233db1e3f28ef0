//! A real SMTP server on a port of its own: speaks the protocol of RFC 5321 over TCP and TLS, with answers that a
//! test can change, and remembers every conversation.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a test waits for a conversation before it fails, and the server for a client.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server does otherwise than usual. Steps are `CONNECT`, the commands, and `END` (the dot after the data).
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Answers in place of the usual ones.
    pub(crate) answers: Vec<(&'static str, &'static str)>,
    /// Says nothing more at this step, until the client goes away.
    pub(crate) silent_at: Option<&'static str>,
    /// Hangs up at this step.
    pub(crate) hang_up_at: Option<&'static str>,
    /// Offers `AUTH PLAIN`.
    pub(crate) login: bool,
    pub(crate) starttls: bool,
    pub(crate) tls: bool,
    /// The name of its certificate and key; `server` without.
    pub(crate) certificate: Option<&'static str>,
}

/// One conversation, from connect to close.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// The client's commands; those it said under TLS begin with `tls `.
    pub(crate) commands: Vec<String>,
    /// The mail, its dots unstuffed, if one was handed over whole.
    pub(crate) mail: Option<String>,
}

/// The running server. Dropped, it stops.
pub(crate) struct Server {
    address: SocketAddr,
    conversations: Receiver<Conversation>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (sender, conversations) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(&listener, &script, &sender, &stopped));
        Self { address, conversations, stop, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next conversation, once it is over.
    pub(crate) fn conversation(&self) -> Conversation {
        self.conversations.recv_timeout(PATIENCE).expect("a conversation")
    }

    /// Whether nobody has talked to the server (any more).
    pub(crate) fn is_idle(&self) -> bool {
        self.conversations.try_recv().is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address)); // Wakes the listener.
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread ends well");
        }
    }
}

/// The path of one of the tests' certificates: `authority.pem`, and `server.pem` with `server.key` for localhost, signed
/// by it; `self-ca` and `self-leaf`, signed by themselves as people make them with openssl, the first one an authority.
/// Made anew by each run, below the target directory.
pub(crate) fn certificate(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("smtp-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("a file");
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("authority.pem", authority.self_signed(&authority_key).expect("a certificate").pem());
        let key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let server = server.signed_by(&key, &Issuer::new(authority, authority_key)).expect("a certificate");
        write("server.pem", server.pem());
        write("server.key", key.serialize_pem());
        for (name, more) in [("self-ca", &[][..]), ("self-leaf", &["-addext", "basicConstraints=CA:FALSE"])] {
            let made = std::process::Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=localhost",
                ])
                .args(["-addext", "subjectAltName=DNS:localhost"])
                .args(more)
                .arg("-keyout")
                .arg(directory.join(format!("{name}.key")))
                .arg("-out")
                .arg(directory.join(format!("{name}.pem")))
                .output()
                .expect("openssl runs");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        directory
    });
    directory.join(name)
}

impl Conversation {
    /// The value of the mail's header, if it has it once.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let unfolded = self.head().replace("\r\n ", " ");
        let mut values = unfolded.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next()?.to_owned();
        assert!(values.next().is_none(), "two {name} headers");
        Some(value)
    }

    /// The names of the mail's headers, in order.
    pub(crate) fn header_names(&self) -> Vec<String> {
        let lines = self.head().lines().filter(|line| !line.starts_with(' '));
        lines.map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
    }

    /// What stands below the mail's headers.
    pub(crate) fn text(&self) -> &str {
        self.mail.as_deref().expect("a mail").split_once("\r\n\r\n").expect("head and text").1
    }

    fn head(&self) -> &str {
        self.mail.as_deref().expect("a mail").split_once("\r\n\r\n").expect("head and text").0
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn secured(self, name: &str) -> Self {
        let Wire::Plain(stream) = self else { return self };
        let chain = CertificateDer::pem_file_iter(certificate(&format!("{name}.pem")))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .expect("the certificate");
        let key = PrivateKeyDer::from_pem_file(certificate(&format!("{name}.key"))).expect("its key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .expect("a TLS server");
        let connection = ServerConnection::new(Arc::new(config)).expect("a TLS connection");
        Wire::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let write = |to: &mut dyn Write| {
            to.write_all(text.as_bytes())?;
            to.write_all(b"\r\n")?;
            to.flush()
        };
        match self {
            Wire::Plain(stream) => write(stream),
            Wire::Tls(stream) => write(stream.as_mut()),
        }
    }

    /// The next line without its end, which is CRLF as RFC 5321 has it; an error when the client is gone.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            let read = match self {
                Wire::Plain(stream) => stream.read(&mut byte)?,
                Wire::Tls(stream) => stream.read(&mut byte)?,
            };
            match (read, byte[0]) {
                (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (_, b'\n') if line.pop() != Some(b'\r') => return Err(io::ErrorKind::InvalidData.into()),
                (_, b'\n') => return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into()),
                (_, byte) => line.push(byte),
            }
        }
    }
}

fn serve(listener: &TcpListener, script: &Script, sender: &Sender<Conversation>, stop: &AtomicBool) {
    loop {
        let (stream, _) = listener.accept().expect("a client");
        if stop.load(Ordering::SeqCst) {
            return;
        }
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        let mut conversation = Conversation::default();
        // An error ends the conversation: the client is gone, or does not like the certificate.
        let _ = converse(Wire::Plain(stream), script, &mut conversation);
        if sender.send(conversation).is_err() {
            return;
        }
    }
}

fn converse(mut wire: Wire, script: &Script, conversation: &mut Conversation) -> io::Result<()> {
    let certificate = script.certificate.unwrap_or("server");
    if script.tls {
        wire = wire.secured(certificate);
    }
    answer(&mut wire, script, "CONNECT", "220 test ESMTP")?;
    loop {
        let line = wire.line()?;
        let secured = matches!(wire, Wire::Tls(_));
        conversation.commands.push(if secured { format!("tls {line}") } else { line.clone() });
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let mut offers = vec!["test", "8BITMIME"];
                offers.extend(script.login.then_some("AUTH PLAIN"));
                offers.extend((script.starttls && !secured).then_some("STARTTLS"));
                let last = offers.pop().unwrap_or_default();
                let mut lines: Vec<String> = offers.iter().map(|offer| format!("250-{offer}")).collect();
                lines.push(format!("250 {last}"));
                answer(&mut wire, script, "EHLO", &lines.join("\r\n"))?;
            }
            "STARTTLS" => {
                answer(&mut wire, script, "STARTTLS", "220 go on")?;
                wire = wire.secured(certificate);
            }
            "AUTH" => drop(answer(&mut wire, script, "AUTH", "235 welcome")?),
            "MAIL" => drop(answer(&mut wire, script, "MAIL", "250 sender ok")?),
            "RCPT" => drop(answer(&mut wire, script, "RCPT", "250 recipient ok")?),
            "DATA" => {
                if answer(&mut wire, script, "DATA", "354 go on")? {
                    conversation.mail = Some(data(&mut wire)?);
                    answer(&mut wire, script, "END", "250 2.0.0 queued as 4711")?;
                }
            }
            "QUIT" => return wire.say("221 bye"),
            _ => wire.say("502 not here")?,
        }
    }
}

/// Says what the script or else custom wants at this step; whether it was the usual.
fn answer(wire: &mut Wire, script: &Script, step: &str, usual: &str) -> io::Result<bool> {
    if script.hang_up_at == Some(step) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if script.silent_at == Some(step) {
        while wire.line().is_ok() {}
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let other = script.answers.iter().find(|(at, _)| *at == step);
    wire.say(other.map_or(usual, |(_, text)| text))?;
    Ok(other.is_none())
}

fn data(wire: &mut Wire) -> io::Result<String> {
    let mut mail = String::new();
    loop {
        let line = wire.line()?;
        if line == "." {
            return Ok(mail);
        }
        mail.push_str(line.strip_prefix('.').unwrap_or(&line));
        mail.push_str("\r\n");
    }
}
