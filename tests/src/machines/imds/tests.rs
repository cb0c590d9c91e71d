use super::*;
use std::collections::BTreeMap;

use axum::http::HeaderValue;

const CALLER: Ipv4Addr = Ipv4Addr::new(172, 31, 5, 6);

fn directory(token_required: bool) -> Directory {
    let directory = Directory::default();
    directory.put(Subject {
        id: "i-0123456789abcdef0".to_owned(),
        address: CALLER,
        metadata: Metadata {
            image: "ami-1".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            zone: "us-east-1b".to_owned(),
            instance_type: "m5.large".to_owned(),
            architecture: "x86_64".to_owned(),
            user_data: Some(b"#!/bin/sh\n\xff".to_vec()),
            tags: BTreeMap::from([("Name".to_owned(), "node".to_owned())]),
            instance_tags: true,
            token_required,
            role: Some("node-role".to_owned()),
            notices: BTreeMap::new(),
        },
        pending_time: "2026-01-01T00:00:00Z".to_owned(),
    });
    directory
}

async fn ask(
    directory: &Directory,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (u16, Vec<u8>) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let response = respond(directory, CALLER, &method, path, &map);
    let status = response.status().as_u16();
    (
        status,
        axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap()
            .to_vec(),
    )
}

async fn get(directory: &Directory, path: &str) -> (u16, String) {
    let (status, body) = ask(directory, Method::GET, path, &[]).await;
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn a_session_is_needed_where_it_is_required() {
    let directory = directory(true);
    assert_eq!(get(&directory, "/latest/meta-data/instance-id").await.0, 401);
    for ttl in ["0", "21601", "x", ""] {
        assert_eq!(
            ask(&directory, Method::PUT, "/latest/api/token", &[(TTL_HEADER, ttl)])
                .await
                .0,
            400
        );
    }
    assert_eq!(
        ask(&directory, Method::PUT, "/latest/api/token", &[]).await.0,
        400
    );
    let (status, token) = ask(
        &directory,
        Method::PUT,
        "/latest/api/token",
        &[(TTL_HEADER, "60")],
    )
    .await;
    assert_eq!(status, 200);
    let token = String::from_utf8(token).unwrap();
    let with = |token: &str| [(TOKEN_HEADER, token.to_owned())];
    for (token, status) in [(token.as_str(), 200), ("other", 401)] {
        let headers = with(token);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            ask(&directory, Method::GET, "/latest/meta-data/instance-id", &headers)
                .await
                .0,
            status
        );
    }
    let forwarded = [(TTL_HEADER, "60"), ("x-forwarded-for", "10.0.0.1")];
    assert_eq!(
        ask(&directory, Method::PUT, "/latest/api/token", &forwarded)
            .await
            .0,
        403
    );
}

#[tokio::test]
async fn folders_list_their_entries_and_absent_paths_are_404() {
    let directory = directory(false);
    let (_, listed) = get(&directory, "/2021-03-23/meta-data/").await;
    for entry in ["instance-id", "placement/", "network/", "tags/", "iam/"] {
        assert!(listed.lines().any(|line| line == entry), "{entry} in {listed}");
    }
    assert_eq!(
        get(&directory, "/latest/meta-data/iam/security-credentials/")
            .await
            .1,
        "node-role"
    );
    assert_eq!(
        get(&directory, "/latest/meta-data/placement/availability-zone-id")
            .await
            .1,
        "use1-az2"
    );
    assert_eq!(
        get(&directory, "/latest/meta-data/tags/instance/Name").await.1,
        "node"
    );
    assert_eq!(
        get(&directory, "/latest/").await.1,
        "dynamic/\nmeta-data/\nuser-data"
    );
    for absent in [
        "public-keys/",
        "spot/instance-action",
        "events/recommendations/rebalance",
        "nothing",
    ] {
        assert_eq!(
            get(&directory, &format!("/latest/meta-data/{absent}")).await.0,
            404,
            "{absent}"
        );
    }
    assert_eq!(get(&directory, "/1999-01-01/meta-data/").await.0, 404);
    let (status, body) = ask(&directory, Method::GET, "/latest/user-data", &[]).await;
    assert_eq!((status, body.as_slice()), (200, b"#!/bin/sh\n\xff".as_slice()));
}

#[tokio::test]
async fn notices_and_tags_change_while_it_runs() {
    let directory = directory(false);
    assert!(directory.change("i-0123456789abcdef0", |subject| {
        subject
            .metadata
            .notices
            .insert("spot/instance-action".to_owned(), "{}".to_owned());
        subject.metadata.tags.insert("New".to_owned(), "1".to_owned());
    }));
    assert_eq!(
        get(&directory, "/latest/meta-data/spot/instance-action").await,
        (200, "{}".to_owned())
    );
    assert_eq!(
        get(&directory, "/latest/meta-data/tags/instance/").await.1,
        "Name\nNew"
    );
    assert!(!directory.change("i-other", |_| {}));
    directory.remove(CALLER);
    assert_eq!(get(&directory, "/latest/meta-data/").await.0, 404);
}
