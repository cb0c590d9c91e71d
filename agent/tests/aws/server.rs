//! Owns a small HTTP server for tests, with bodies and bad manners: it can hang, cut answers short, and speak TLS.
//! Touches loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The access key id of the signature.
    pub(crate) fn key(&self) -> &str {
        let (_, rest) = self
            .header("authorization")
            .split_once("Credential=")
            .unwrap_or_default();
        rest.split('/').next().unwrap()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) after: Duration,
    /// Bytes of the body that are sent before the connection is closed.
    pub(crate) cut: Option<usize>,
}

impl Response {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            headers: Vec::new(),
            after: Duration::ZERO,
            cut: None,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn cut(self, at: usize) -> Self {
        Self {
            cut: Some(at),
            ..self
        }
    }
}

/// Serves until the test process ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

/// What serves one connection: plain, or inside TLS.
type Wrap = Arc<dyn Fn(TcpStream) -> Box<dyn Stream> + Send + Sync>;

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

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
        Self::wrapped(listener, url, Arc::new(|stream| Box::new(stream)), handler)
    }

    pub(crate) fn wrapped(
        listener: TcpListener,
        url: String,
        wrap: Wrap,
        handler: impl FnMut(&Request) -> Response + Send + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, handler) = (Arc::clone(&asked), Arc::new(Mutex::new(handler)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (record, handler, wrap) = (Arc::clone(&record), Arc::clone(&handler), Arc::clone(&wrap));
                thread::spawn(move || {
                    serve(wrap(stream), |request| {
                        record.lock().unwrap().push(request.clone());
                        (handler.lock().unwrap())(request)
                    });
                });
            }
        });
        Self { url, asked }
    }

    /// What was asked, in order.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|request| request.path == path).count()
    }
}

fn serve(stream: Box<dyn Stream>, mut answer: impl FnMut(&Request) -> Response) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        let response = answer(&request);
        thread::sleep(response.after);
        let mut text = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {}\r\n",
            response.status,
            response.body.len()
        );
        for (name, value) in &response.headers {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text.push_str(&response.body[..response.cut.unwrap_or(response.body.len())]);
        let writer = stream.get_mut();
        let written = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
        if written.is_err() || response.cut.is_some() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
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
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Some(request)
}
