//! Owns the Query protocol of Auto Scaling and EC2: a form goes out, XML comes back.
//! Touches AWS.

use std::time::Duration;

use roxmltree::{Document, Node};

use super::client::{Client, Request};
use super::endpoint::Service;
use super::error::{AwsError, Kind};

/// The parameters of one request.
#[derive(Debug, Clone)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// A request of an operation in a version of the service's API.
    pub(super) fn new(operation: &str, version: &str) -> Self {
        Self(vec![
            ("Action".to_owned(), operation.to_owned()),
            ("Version".to_owned(), version.to_owned()),
        ])
    }

    /// Adds a parameter.
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }
}

impl Client {
    /// Sends a form; `read` gets the root of the answer. Says how many tries it took.
    pub(super) fn query<T>(
        &self,
        service: Service,
        action: &'static str,
        form: &Form,
        read: impl Fn(Node<'_, '_>) -> Option<T>,
    ) -> Result<(T, u32), AwsError> {
        let body = form.encode();
        let request = Request {
            service,
            action,
            headers: &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
            body: body.as_bytes(),
        };
        self.call(&request, |body| {
            let text = std::str::from_utf8(body).map_err(|_| "its answer is no text".to_owned())?;
            let document =
                Document::parse(text).map_err(|error| format!("its answer is not readable XML: {error}"))?;
            let operation = action.rsplit(':').next().unwrap_or(action);
            let root = document.root_element();
            // Whatever else says 200 is somebody else, such as a proxy's page.
            if root.tag_name().name() != format!("{operation}Response") {
                return Err(format!("its answer is a {} document", root.tag_name().name()));
            }
            read(root).ok_or_else(|| "its answer lacks something that AWS describes".to_owned())
        })
    }

    /// As [`Client::query`], page after page; `read` gets one page and gives its items. `token` is the name of the
    /// element and of the parameter that lead to the next page.
    pub(super) fn pages<T>(
        &self,
        service: Service,
        action: &'static str,
        form: &Form,
        token: &str,
        read: impl Fn(Node<'_, '_>) -> Option<Vec<T>>,
    ) -> Result<Vec<T>, AwsError> {
        let mut items = Vec::new();
        let mut form = form.clone();
        loop {
            let page = |root: Node<'_, '_>| {
                let next = root
                    .children()
                    .find(|node| node.tag_name().name().eq_ignore_ascii_case(token))
                    .map(text)
                    .filter(|token| !token.is_empty());
                Some((read(root)?, next))
            };
            let ((some, next), _) = self.query(service, action, &form, page)?;
            items.extend(some);
            match next {
                // Whoever sends round in a circle is not the service, and would be asked for ever.
                Some(next) if form.0.iter().any(|(name, value)| name == token && *value == next) => {
                    return Err(AwsError {
                        action,
                        tries: 1,
                        after: Duration::ZERO,
                        kind: Kind::Unavailable {
                            endpoint: self.endpoint(service),
                            reason: "it names a page that leads to itself".to_owned(),
                        },
                    });
                }
                Some(next) => {
                    form.0.retain(|(name, _)| name != token);
                    form = form.with(token, next);
                }
                None => return Ok(items),
            }
        }
    }
}

/// The child of that name.
pub(super) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.tag_name().name() == name)
}

/// Text of the child of that name; none if there is no such child.
pub(super) fn field(node: Node<'_, '_>, name: &str) -> Option<String> {
    child(node, name).map(text)
}

/// A number in the child of that name.
pub(super) fn number(node: Node<'_, '_>, name: &str) -> Option<u32> {
    field(node, name)?.parse().ok()
}

/// Whole seconds in the child of that name.
pub(super) fn seconds(node: Node<'_, '_>, name: &str) -> Option<Duration> {
    number(node, name).map(|seconds| Duration::from_secs(seconds.into()))
}

/// The elements of a list: the children `item` (EC2: `item`, Auto Scaling: `member`) of the child `name`. A list
/// that is empty may be left out.
pub(super) fn list<'a, 'input>(node: Node<'a, 'input>, name: &str, item: &str) -> Vec<Node<'a, 'input>> {
    child(node, name)
        .into_iter()
        .flat_map(|list| list.children())
        .filter(|child| child.tag_name().name() == item)
        .collect()
}

fn text(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_whatever_they_hold() {
        let form = Form::new("DescribeTags", "2016-11-15").with("Filter.1.Value.1", "a b&c=ü+%");
        assert_eq!(
            form.encode(),
            "Action=DescribeTags&Version=2016-11-15&Filter.1.Value.1=a+b%26c%3D%C3%BC%2B%25"
        );
    }

    #[test]
    fn lists_and_fields_are_found_by_their_names_only() {
        let document = Document::parse(
            "<R xmlns=\"http://x/\"><L><member><N> 3 </N></member><other/><member/></L><T>60</T></R>",
        )
        .unwrap();
        let root = document.root_element();
        let members = list(root, "L", "member");
        assert_eq!(members.len(), 2);
        assert_eq!(number(members[0], "N"), Some(3));
        assert_eq!(number(members[1], "N"), None);
        assert_eq!(seconds(root, "T"), Some(Duration::from_mins(1)));
        assert!(list(root, "Absent", "member").is_empty());
    }
}
