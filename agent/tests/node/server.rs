//! Owns a small HTTP server for tests: a thread, a handler, a record of what was asked. Touches loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) headers: String,
    pub(crate) after: Duration,
}

impl Response {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            headers: String::new(),
            after: Duration::ZERO,
        }
    }
}

/// Serves until the test process ends.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(handler: impl FnMut(&Request) -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, handler)
    }

    pub(crate) fn on(
        listener: TcpListener,
        handler: impl FnMut(&Request) -> Response + Send + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, handler) = (Arc::clone(&asked), Arc::new(Mutex::new(handler)));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (record, handler) = (Arc::clone(&record), Arc::clone(&handler));
                count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    serve(stream, |request| {
                        record
                            .lock()
                            .unwrap()
                            .push(format!("{} {}", request.method, request.path));
                        (handler.lock().unwrap())(request)
                    });
                });
            }
        });
        Self {
            url,
            asked,
            connections,
        }
    }

    /// `METHOD /path` of each request, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, asked: &str) -> usize {
        self.asked().iter().filter(|line| *line == asked).count()
    }
}

fn serve(stream: TcpStream, mut answer: impl FnMut(&Request) -> Response) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        let response = answer(&request);
        thread::sleep(response.after);
        // One write, so that no half of the answer waits for the other's acknowledgement.
        let answer = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n{}",
            response.status,
            response.body.len(),
            response.headers,
            response.body
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let mut request = Request {
        method,
        path,
        headers,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
