//! A mail server and a web server, which keep what they are sent.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use tiny_http::{Response, Server};

/// Both servers. Their threads end with the process.
#[derive(Debug)]
pub struct Servers {
    /// Where they are.
    pub address: Ipv4Addr,
    /// The mail server's port.
    pub smtp_port: u16,
    /// The web server's port.
    pub http_port: u16,
    mails: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Servers {
    /// Starts both on free ports of an address.
    pub fn start(address: Ipv4Addr) -> Result<Self> {
        let smtp = TcpListener::bind((address, 0))?;
        let http = Server::http((address, 0)).map_err(|error| anyhow!("a web server: {error}"))?;
        let servers = Self {
            address,
            smtp_port: smtp.local_addr()?.port(),
            http_port: http.server_addr().to_ip().map_or(0, |address| address.port()),
            mails: Arc::default(),
            requests: Arc::default(),
        };
        let mails = servers.mails.clone();
        std::thread::spawn(move || {
            for stream in smtp.incoming().map_while(Result::ok) {
                // A client that leaves in the middle is the client's matter.
                let _ = converse(&stream, &mails);
            }
        });
        let requests = servers.requests.clone();
        std::thread::spawn(move || {
            for mut request in http.incoming_requests() {
                let mut body = String::new();
                let _ = request.as_reader().read_to_string(&mut body);
                lock(&requests).push((request.url().to_owned(), body));
                let _ = request.respond(Response::empty(204));
            }
        });
        Ok(servers)
    }

    /// Mails received, whole.
    pub fn mails(&self) -> Vec<String> {
        lock(&self.mails).clone()
    }

    /// Path and body of every request.
    pub fn requests(&self) -> Vec<(String, String)> {
        lock(&self.requests).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As much of SMTP as one honest client needs.
fn converse(stream: &TcpStream, mails: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (reader, mut writer) = (BufReader::new(stream), stream);
    let mut mail: Option<String> = None;
    writer.write_all(b"220 demo\r\n")?;
    for line in reader.lines() {
        let line = line?;
        if let Some(mut text) = mail.take() {
            if line == "." {
                lock(mails).push(text);
                writer.write_all(b"250 kept\r\n")?;
            } else {
                text.push_str(&line);
                text.push('\n');
                mail = Some(text);
            }
            continue;
        }
        match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "DATA" => {
                mail = Some(String::new());
                writer.write_all(b"354 go on\r\n")?;
            }
            "QUIT" => return writer.write_all(b"221 bye\r\n"),
            _ => writer.write_all(b"250 fine\r\n")?,
        }
    }
    Ok(())
}
