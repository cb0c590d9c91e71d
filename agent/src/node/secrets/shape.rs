//! Owns what a secret must look like before a product reads it, told without showing any of it.
//! Touches nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Secret;

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// 32 bytes in base64: the key with which memberlist encrypts gossip. Consul and Nomad would take 16 and 24 too,
    /// but make 32 themselves.
    GossipKey,
    /// One word without white space or quotes.
    Token,
    /// One or more certificates, PEM.
    Certificates,
    /// One private key that no passphrase protects, PEM.
    Key,
}

impl Shape {
    /// What could be such a secret and is none: to render a node without asking for its secrets.
    pub(super) fn placeholder(self) -> Secret {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        Secret::new(match self {
            Self::GossipKey => STANDARD.encode([0; 32]),
            Self::Token => "00000000-0000-0000-0000-000000000000".to_owned(),
            Self::Certificates => block("CERTIFICATE"),
            Self::Key => block("PRIVATE KEY"),
        })
    }

    /// The secret as the product reads it: without white space around it, or with a line feed at its end. The error
    /// is the rest of a sentence that begins with where the secret is.
    pub(super) fn take(self, secret: &Secret) -> Result<Secret, String> {
        let text = secret.expose().trim();
        match self {
            Self::GossipKey => gossip_key(text)?,
            Self::Token => token(text)?,
            Self::Certificates => certificates(text)?,
            Self::Key => key(text)?,
        }
        let end = match self {
            Self::GossipKey | Self::Token => "",
            Self::Certificates | Self::Key => "\n",
        };
        Ok(Secret::new(format!("{text}{end}")))
    }
}

fn gossip_key(text: &str) -> Result<(), String> {
    match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == 32 => Ok(()),
        Ok(bytes) => Err(format!(
            "must be 32 bytes in base64, and is {} (make one by `consul keygen`)",
            bytes.len()
        )),
        Err(_) => {
            Err("must be 32 bytes in base64, and is no base64 (make one by `consul keygen`)".to_owned())
        }
    }
}

/// The characters of UUIDs, of JSON Web Tokens and of base64: none that a configuration reads in its own way.
fn token(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if text.is_empty() {
        return Err("must be a token, and is empty".to_owned());
    }
    if !text.bytes().all(fits) {
        return Err("must be a token: one line of letters, digits and `-._~+/=`".to_owned());
    }
    Ok(())
}

fn certificates(text: &str) -> Result<(), String> {
    let labels = labels(text)?;
    match labels.iter().find(|label| *label != "CERTIFICATE") {
        Some(label) if label.ends_with("PRIVATE KEY") => {
            Err("must hold certificates and nothing else, and holds a private key".to_owned())
        }
        Some(_) => Err("must hold certificates and nothing else".to_owned()),
        None => Ok(()),
    }
}

fn key(text: &str) -> Result<(), String> {
    match labels(text)?.as_slice() {
        [label] if label == "ENCRYPTED PRIVATE KEY" => Err(ENCRYPTED.to_owned()),
        [label] if label.ends_with("PRIVATE KEY") => Ok(()),
        // OpenSSL writes the parameters of a curve before the key.
        [parameters, label] if parameters == "EC PARAMETERS" && label.ends_with("PRIVATE KEY") => Ok(()),
        [_] => Err("must be a private key in PEM, and is something else in PEM".to_owned()),
        several => Err(format!(
            "must be one private key in PEM, and has {} blocks",
            several.len()
        )),
    }
}

const ENCRYPTED: &str = "is a private key with a passphrase, which nobody would be there to type";

/// Labels of all PEM blocks (RFC 7468); at least one.
fn labels(text: &str) -> Result<Vec<String>, String> {
    let no = |what: &str| Err(format!("must be PEM, {what}"));
    let mut labels = Vec::new();
    let mut block: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        let marker = |word: &str| {
            let rest = line.strip_prefix("-----")?.strip_prefix(word)?;
            rest.strip_prefix(' ')?.strip_suffix("-----")
        };
        block = match (block, marker("BEGIN"), marker("END")) {
            (None, Some(label), _) => Some((label.to_owned(), String::new())),
            (Some((begun, body)), None, Some(ended)) if begun == ended => {
                if body.contains("ENCRYPTED") {
                    return Err(ENCRYPTED.to_owned());
                }
                if body.is_empty() || STANDARD.decode(&body).is_err() {
                    return no("and a block in it is no base64");
                }
                labels.push(begun);
                None
            }
            (Some((begun, mut body)), None, None) => {
                body.push_str(line);
                Some((begun, body))
            }
            // Words between blocks are allowed, and usual in bundles of authorities.
            (None, None, None) => None,
            _ => return no("and its blocks do not begin and end in turn"),
        };
    }
    if block.is_some() {
        return no("and its last block does not end");
    }
    if labels.is_empty() {
        return no("and has no block (is it the name of a file, or cut off?)");
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(shape: Shape, text: &str) -> Result<String, String> {
        let taken = shape.take(&Secret::new(text.to_owned()));
        taken.map(|secret| secret.expose().to_owned())
    }

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA\n-----END CERTIFICATE-----";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----";

    #[test]
    fn what_the_products_make_is_taken() {
        let key = STANDARD.encode([7; 32]);
        assert_eq!(take(Shape::GossipKey, &format!("{key}\n")).unwrap(), key);
        let uuid = "8e2a4f5c-0b1d-4c8e-9a7f-3d6b2e1c0f9a";
        assert_eq!(take(Shape::Token, &format!(" {uuid}\r\n")).unwrap(), uuid);
        let introduction = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln_-";
        assert_eq!(take(Shape::Token, introduction).unwrap(), introduction);
        let chain = format!("# an authority\r\n{CERTIFICATE}\r\nand another\r\n{CERTIFICATE}\r\n");
        assert!(
            take(Shape::Certificates, &chain)
                .unwrap()
                .ends_with("-----END CERTIFICATE-----\n")
        );
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let key = KEY.replace("EC PRIVATE KEY", label);
            assert_eq!(take(Shape::Key, &key).unwrap(), key + "\n");
        }
        let with_curve = format!("-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n{KEY}");
        assert!(take(Shape::Key, &with_curve).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let encrypted = KEY.replace("MIIB", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB");
        let sealed = KEY.replace("EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let cases = [
            (Shape::GossipKey, "c2hvcnQ=", "32 bytes in base64, and is 5"),
            (Shape::GossipKey, "no base64!", "is no base64"),
            (Shape::Token, " \n", "is empty"),
            (Shape::Token, "two words", "one line"),
            (Shape::Token, "a\nb", "one line"),
            (Shape::Token, "${env}", "one line"),
            (Shape::Certificates, KEY, "holds a private key"),
            (Shape::Certificates, "/opt/ca.pem", "has no block"),
            (Shape::Certificates, &CERTIFICATE[..40], "does not end"),
            (
                Shape::Certificates,
                &CERTIFICATE.replace("MIIB", "M*IB"),
                "no base64",
            ),
            (Shape::Key, CERTIFICATE, "something else"),
            (Shape::Key, &format!("{KEY}\n{CERTIFICATE}"), "has 2 blocks"),
            (Shape::Key, &encrypted, "passphrase"),
            (Shape::Key, &sealed, "passphrase"),
        ];
        for (shape, text, expected) in cases {
            let why = take(shape, text).unwrap_err();
            assert!(why.contains(expected), "{shape:?}: {why}");
        }
    }

    #[test]
    fn placeholders_have_their_shape() {
        for shape in [Shape::GossipKey, Shape::Token, Shape::Certificates, Shape::Key] {
            let placeholder = shape.placeholder();
            assert_eq!(shape.take(&placeholder).unwrap(), placeholder);
        }
    }

    proptest! {
        /// Whatever is wrong, none of it is repeated.
        #[test]
        fn a_fault_shows_nothing_of_the_secret(text in r"[ -~\n]{0,200}") {
            for shape in [Shape::GossipKey, Shape::Token, Shape::Certificates, Shape::Key] {
                if let Err(why) = take(shape, &format!("{text}\u{1}PLANTED")) {
                    prop_assert!(!why.contains("PLANTED"), "{}", why);
                    let mut lines = text.lines().map(str::trim).filter(|line| line.len() > 12);
                    prop_assert!(!lines.any(|line| why.contains(line)), "{}", why);
                }
            }
        }
    }
}
