//! Owns which secrets a node needs, and who needs them.
//! Touches nothing.

use super::Shape;
use crate::node::config::{KeyPair, NodeSpec, SecretSource};

/// A certificate, its key, and the keys of the NodeConfig that name them.
pub(super) struct Pair<'a> {
    pub(super) certificate: (&'static str, &'a SecretSource),
    pub(super) key: (&'static str, &'a SecretSource),
}

/// All pairs of a node.
pub(super) fn pairs(spec: &NodeSpec) -> Vec<Pair<'_>> {
    let consul = spec.consul.tls.as_ref().and_then(|tls| tls.pair.as_ref());
    let nomad = spec.nomad.as_ref().and_then(|nomad| nomad.tls.as_ref());
    let consul = consul.map(|pair| ("consul.tls.certificate", "consul.tls.key", pair));
    let nomad = nomad.map(|tls| ("nomad.tls.certificate", "nomad.tls.key", &tls.pair));
    consul
        .into_iter()
        .chain(nomad)
        .map(|(certificate, key, pair)| Pair {
            certificate: (certificate, &pair.certificate),
            key: (key, &pair.key),
        })
        .collect()
}

/// One secret that a node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need<'a> {
    /// Key of the NodeConfig that asks for it.
    pub key: &'static str,
    /// Where it is.
    pub source: &'a SecretSource,
    /// What it must look like.
    pub shape: Shape,
}

/// All secrets of a node, in the order of the keys in a NodeConfig.
pub fn needs(spec: &NodeSpec) -> Vec<Need<'_>> {
    let mut needs = Vec::new();
    let mut need = |key, source: Option<_>, shape| {
        needs.extend(source.map(|source| Need { key, source, shape }));
    };
    let consul = &spec.consul;
    need("consul.gossip_key", consul.gossip_key.as_ref(), Shape::GossipKey);
    if let Some(tls) = &consul.tls {
        need("consul.tls.ca", Some(&tls.ca), Shape::Certificates);
        if let Some(KeyPair { certificate, key }) = &tls.pair {
            need("consul.tls.certificate", Some(certificate), Shape::Certificates);
            need("consul.tls.key", Some(key), Shape::Key);
        }
    }
    if let Some(acl) = &consul.acl {
        need("consul.acl.agent_token", acl.agent.as_ref(), Shape::Token);
        need("consul.acl.default_token", acl.default.as_ref(), Shape::Token);
        let management = acl.initial_management.as_ref();
        need("consul.acl.initial_management_token", management, Shape::Token);
    }
    if let Some(nomad) = &spec.nomad {
        let server = nomad.server.as_ref();
        let gossip_key = server.and_then(|server| server.gossip_key.as_ref());
        need("nomad.gossip_key", gossip_key, Shape::GossipKey);
        if let Some(tls) = &nomad.tls {
            need("nomad.tls.ca", Some(&tls.ca), Shape::Certificates);
            need(
                "nomad.tls.certificate",
                Some(&tls.pair.certificate),
                Shape::Certificates,
            );
            need("nomad.tls.key", Some(&tls.pair.key), Shape::Key);
        }
        need("nomad.consul_token", nomad.consul_token.as_ref(), Shape::Token);
        let client = nomad.client.as_ref();
        let introduction = client.and_then(|client| client.introduction_token.as_ref());
        need("nomad.introduction_token", introduction, Shape::Token);
    }
    needs
}
