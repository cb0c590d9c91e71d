//! Owns what an HTTP request is in AWS's words: service, operation, protocol, the ids it names, and an error's shape.
//! Touches nothing.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serde_json::json;

/// One call of an AWS API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Signing name, such as `ec2`; `-` if the request is not signed.
    pub service: String,
    /// Operation, such as `RunInstances`; `METHOD /path` where it is not known.
    pub operation: String,
}

impl Call {
    /// Recognises a request by its signature, target header, form body or path.
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let service = signing_name(headers).unwrap_or("-").to_owned();
        let operation = target(headers)
            .or_else(|| action(uri.query().unwrap_or_default().as_bytes()))
            .or_else(|| action(body))
            .or_else(|| {
                (service == "ebs")
                    .then(|| ebs_operation(method, uri.path()))
                    .flatten()
            })
            .unwrap_or_else(|| format!("{method} {}", uri.path()));
        Self { service, operation }
    }

    /// An error in the shape that this service's clients read.
    pub fn error(&self, status: StatusCode, code: &str, message: &str) -> Response<Body> {
        let request = uuid::Uuid::new_v4();
        let (kind, text) = match self.service.as_str() {
            "ec2" => (
                "text/xml",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{}\
                     </Message></Error></Errors><RequestID>{request}</RequestID></Response>",
                    escape(message)
                ),
            ),
            "iam" | "sts" | "autoscaling" | "elasticloadbalancing" => (
                "text/xml",
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{}</Message></Error>\
                     <RequestId>{request}</RequestId></ErrorResponse>",
                    escape(message)
                ),
            ),
            "ebs" => ("application/json", json!({"Message": message}).to_string()),
            _ => (
                "application/x-amz-json-1.1",
                json!({"__type": code, "message": message}).to_string(),
            ),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Ok(code) = HeaderValue::from_str(code) {
            response.headers_mut().insert("x-amzn-errortype", code);
        }
        response
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// `Credential=AKID/20261123/us-east-1/ec2/aws4_request` names the service.
fn signing_name(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    authorization.split_once("Credential=")?.1.split('/').nth(3)
}

/// `AmazonSSM.SendCommand`.
fn target(headers: &HeaderMap) -> Option<String> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    target.rsplit('.').next().map(str::to_owned)
}

fn action(form: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(form).ok()?;
    text.split('&')
        .find_map(|pair| pair.strip_prefix("Action="))
        .map(str::to_owned)
}

fn ebs_operation(method: &Method, path: &str) -> Option<String> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let name = match (method.as_str(), parts.as_slice()) {
        ("POST", ["snapshots"]) => "StartSnapshot",
        ("POST", ["snapshots", "completion", _]) => "CompleteSnapshot",
        ("PUT", ["snapshots", _, "blocks", _]) => "PutSnapshotBlock",
        ("GET", ["snapshots", _, "blocks", _]) => "GetSnapshotBlock",
        ("GET", ["snapshots", _, "blocks"]) => "ListSnapshotBlocks",
        ("GET", ["snapshots", _, "changedblocks"]) => "ListChangedBlocks",
        _ => return None,
    };
    Some(name.to_owned())
}

/// The AWS ids in a text, each once, in order, at most `limit`.
pub fn ids(text: &str, limit: usize) -> Vec<String> {
    const KINDS: [&str; 9] = ["i", "ami", "vol", "snap", "sg", "subnet", "vpc", "lt", "eni"];
    let mut found: Vec<String> = Vec::new();
    for word in text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '-')) {
        let Some((kind, rest)) = word.split_once('-') else {
            continue;
        };
        let is_id = KINDS.contains(&kind)
            && (8..=17).contains(&rest.len())
            && rest
                .bytes()
                .all(|it| it.is_ascii_hexdigit() && !it.is_ascii_uppercase());
        if (is_id || uuid::Uuid::try_parse(word).is_ok()) && !found.iter().any(|it| it == word) {
            found.push(word.to_owned());
            if found.len() == limit {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(service: &str) -> HeaderMap {
        let text = format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20261123/us-east-1/{service}/aws4_request, Signature=0"
        );
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&text).unwrap())])
    }

    #[test]
    fn query_json_and_rest_calls_are_recognised() {
        let root = Uri::from_static("/");
        let call = Call::of(
            &Method::POST,
            &root,
            &signed("ec2"),
            b"Action=RunInstances&Version=2016-11-15",
        );
        assert_eq!(
            (call.service.as_str(), call.operation.as_str()),
            ("ec2", "RunInstances")
        );
        let mut headers = signed("ssm");
        headers.insert("x-amz-target", HeaderValue::from_static("AmazonSSM.SendCommand"));
        assert_eq!(
            Call::of(&Method::POST, &root, &headers, b"{}").operation,
            "SendCommand"
        );
        let path = Uri::from_static("/snapshots/snap-1/blocks/7?x=1");
        assert_eq!(
            Call::of(&Method::PUT, &path, &signed("ebs"), b"").operation,
            "PutSnapshotBlock"
        );
        assert_eq!(
            Call::of(&Method::GET, &root, &HeaderMap::new(), b"").operation,
            "GET /"
        );
    }

    #[test]
    fn ids_are_found_once() {
        let text = "<a>i-0123456789abcdef0</a> ami-12345678 i-0123456789abcdef0 i-am not-an-id snap-XYZ";
        assert_eq!(ids(text, 8), ["i-0123456789abcdef0", "ami-12345678"]);
    }
}
