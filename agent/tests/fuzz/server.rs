//! Owns the agents of a machine, as far as they answer: Nomad and Consul over loopback, Docker over a socket.
//! Touches loopback, and a folder of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// What is said on a path.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// A status and a body, in good manners.
    Body(u16, Vec<u8>),
    /// Everything from the status line on; then the connection ends.
    Raw(Vec<u8>),
}

/// Answers by path; the longest path that the request's begins with is taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<BTreeMap<String, Said>>>);

impl Answers {
    pub(crate) fn set(&self, path: &str, said: Said) {
        self.0.lock().unwrap().insert(path.to_owned(), said);
    }

    fn of(&self, path: &str) -> Said {
        let answers = self.0.lock().unwrap();
        let mut found = answers.iter().rev().filter(|(begin, _)| path.starts_with(*begin));
        found
            .next()
            .map_or(Said::Body(404, Vec::new()), |(_, said)| said.clone())
    }

    /// Serves them until the test ends; says where.
    pub(crate) fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = answers.clone();
                // Whoever asked may be gone before it was answered.
                thread::spawn(move || converse(&stream, &answers));
            }
        });
        url
    }

    /// Serves what is said on `/_ping` on a socket in a folder.
    pub(crate) fn serve_docker(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let answers = self.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 256];
                let _ = stream.read(&mut request);
                if let Said::Raw(bytes) = answers.of("/_ping") {
                    let _ = stream.write_all(&bytes);
                }
            }
        });
    }
}

fn converse(stream: &TcpStream, answers: &Answers) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        reader.read_line(&mut head).ok().filter(|length| *length > 0)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
        let mut writer = stream;
        match answers.of(&path) {
            Said::Body(status, body) => {
                let mut bytes =
                    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
                bytes.extend(body);
                writer.write_all(&bytes).ok()?;
            }
            Said::Raw(bytes) => {
                writer.write_all(&bytes).ok()?;
                return None;
            }
        }
    }
}
