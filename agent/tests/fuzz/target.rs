//! Owns what a target is. Touches nothing.

/// Reads an input; says whether it was accepted. What is refused is an answer as well.
pub(crate) type Read = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// One reader of the agent.
pub(crate) struct Target {
    pub(crate) name: String,
    /// Share of all inputs.
    pub(crate) weight: u32,
    pub(crate) samples: Vec<Vec<u8>>,
    /// What the format is made of; none for binary formats.
    pub(crate) words: &'static [&'static str],
    pub(crate) read: Read,
}

impl Target {
    pub(crate) fn new<S: Into<Vec<u8>>>(
        name: impl Into<String>,
        samples: impl IntoIterator<Item = S>,
        words: &'static [&'static str],
        read: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            weight: 20,
            samples: samples.into_iter().map(Into::into).collect(),
            words,
            read: Box::new(read),
        }
    }

    /// With another share: readers differ a thousandfold in what one input costs.
    pub(crate) fn weighing(self, weight: u32) -> Self {
        Self { weight, ..self }
    }
}

pub(crate) const JSON: &[&str] = &[
    "null",
    "true",
    "[]",
    "{}",
    "[",
    "{\"a\":",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    ",",
    "\"x\":1,",
    "}",
    "]",
    "\"",
];

pub(crate) const XML: &[&str] = &[
    "<a>",
    "</a>",
    "<a/>",
    "<!-- ",
    " -->",
    "<![CDATA[",
    "]]>",
    "&amp;",
    "&#0;",
    "&#x10FFFF;",
    "&lt;",
    "<!DOCTYPE a [",
    "<!ENTITY b \"c\">",
    "&b;",
    "<?x ?>",
    " xmlns=\"u\"",
    " xmlns:n=\"u\"",
];

pub(crate) const YAML: &[&str] = &[
    "null",
    "~",
    "[]",
    "{}",
    "[",
    "{a: ",
    "- ",
    "\n  ",
    "\n",
    ": ",
    "&a ",
    "*a",
    "!!binary ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "# ",
    "---\n",
    "...\n",
    "? ",
    "<<: ",
    "ssm:/a",
    "file:/a",
    "true",
    "\t",
    "%YAML 1.2\n",
    "\u{feff}",
];

pub(crate) const TEXT: &[&str] = &[
    "\n",
    "\r\n",
    "\r\n\r\n",
    ": ",
    ";",
    "=",
    "\"",
    "--B",
    "--B--\n",
    "Content-Type: ",
    "base64",
    "multipart/mixed",
    "boundary=",
    "%20",
    "HTTP/1.1 200 OK\r\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "/",
    "\\",
];
