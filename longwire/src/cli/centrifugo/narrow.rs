//! What narrows what: without the one, what it narrowed is left out too.
//!
//! `mapping` and `output` ask here when an option has no counterpart, or a setting cannot be written. Only what longwire
//! would allow by itself is meant; whether a channel keeps history, or how long something may take, closes
//! nothing. What must stay true: whoever uses the file that is made is allowed no more than Centrifugo allowed, and
//! every option without a counterpart stands either in [`NARROWS`] or in [`CLOSES_NOTHING`] (a test demands it).

/// One row: what closes something, and what it closes.
pub(super) struct Narrow {
    /// Options of Centrifugo by where they stand in `table`, an option within one that is a table, or settings of
    /// longwire with their sections.
    pub(super) without: &'static [&'static str],
    /// What is left out without it: the section, and its keys.
    pub(super) out: &'static [(Where, &'static [&'static str])],
}

/// Where something is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    /// In the section of what is not there.
    Here,
    /// In this section; `NAME` stands for any name.
    In(&'static str),
}

use Where::{Here, In};

impl Where {
    /// Whether `section` is meant, `here` being the one of what is not there; both as [`pattern`] names them.
    pub(super) fn holds(self, section: &[String], here: &[String]) -> bool {
        match self {
            Here => section == here,
            In(meant) => pattern(section) == meant,
        }
    }
}

/// A section's name, with `NAME` in the place of the one that its user chose.
pub(super) fn pattern(section: &[String]) -> String {
    match section {
        [list, _] if ["namespaces", "webhooks", "rpc_namespaces"].contains(&list.as_str()) => {
            format!("{list}.NAME")
        }
        _ => section.join("."),
    }
}

/// Keys that tokens are verified with.
pub(super) const KEYS: &[&str] =
    &["hmac_secret", "hmac_previous_secret", "rsa_public_key", "ecdsa_public_key", "jwks_url"];

const SUBSCRIBE: &[&str] = &["allow_subscribe_for_client", "allow_subscribe_for_anonymous"];

const PUBLISH: &[&str] =
    &["allow_publish_for_client", "allow_publish_for_subscriber", "allow_publish_for_anonymous"];

/// All that lets a client do something in a channel without a token for that channel.
const WITHOUT_TOKEN: &[&str] = &[
    "allow_subscribe_for_client",
    "allow_subscribe_for_anonymous",
    "allow_user_limited_channels",
    "subscribe_webhook",
    "allow_publish_for_client",
    "allow_publish_for_subscriber",
    "allow_publish_for_anonymous",
    "publish_webhook",
    "allow_presence_for_client",
    "allow_presence_for_subscriber",
    "allow_presence_for_anonymous",
    "allow_history_for_client",
    "allow_history_for_subscriber",
    "allow_history_for_anonymous",
];

/// What lets somebody in without a credential.
const WITHOUT_CREDENTIAL: &[&str] = &["allow_anonymous", "insecure"];

pub(super) const NARROWS: &[Narrow] = &[
    // Only the internal address, or whoever knew the path, could call the API without a key.
    Narrow {
        without: &[
            "http_server.internal_address",
            "http_server.internal_port",
            "http_server.internal_tls",
            "http_api.handler_prefix",
        ],
        out: &[(In("api"), &["insecure"])],
    },
    // Only whoever had a certificate could connect at all.
    Narrow {
        without: &["http_server.tls.client_ca_pem"],
        out: &[(In("api"), &["insecure"]), (In("client"), WITHOUT_CREDENTIAL)],
    },
    // The backend could turn away who has no token.
    Narrow { without: &["webhook.connect.endpoint"], out: &[(In("client"), WITHOUT_CREDENTIAL)] },
    // The signs decide which namespace a channel is of, and who may enter it.
    Narrow {
        without: &[
            "channel.private_prefix",
            "channel.namespace_boundary",
            "channel.user_boundary",
            "channel.user_separator",
        ],
        out: &[
            (In("client"), &["insecure"]),
            (In("channel"), WITHOUT_TOKEN),
            (In("namespaces.NAME"), WITHOUT_TOKEN),
        ],
    },
    Narrow {
        without: &[
            "channel.without_namespace.channel_regex",
            "channel.namespaces[].channel_regex",
            "channel.without_namespace.subscription_type",
            "channel.namespaces[].subscription_type",
        ],
        out: &[(In("client"), &["insecure"]), (Here, WITHOUT_TOKEN)],
    },
    // The backend was asked before anything else was looked at.
    Narrow {
        without: &[
            "channel.without_namespace.subscribe_stream_proxy_enabled",
            "channel.namespaces[].subscribe_stream_proxy_enabled",
        ],
        out: &[(In("client"), &["insecure"]), (Here, SUBSCRIBE), (Here, PUBLISH)],
    },
    Narrow {
        without: &["channel.subscribe_webhook", "namespaces.NAME.subscribe_webhook"],
        out: &[(In("client"), &["insecure"]), (Here, SUBSCRIBE)],
    },
    Narrow {
        without: &["channel.publish_webhook", "namespaces.NAME.publish_webhook"],
        out: &[(In("client"), &["insecure"]), (Here, PUBLISH)],
    },
    // The sign decides which backend a method reaches.
    Narrow {
        without: &["rpc.namespace_boundary"],
        out: &[(In("webhook.rpc"), &["*"]), (In("rpc_namespaces.NAME"), &["*"])],
    },
    // Tokens.
    Narrow {
        without: &[
            "auth.audience",
            "auth.audience_pattern",
            "auth.issuer",
            "auth.issuer_pattern",
            "auth.user_claim",
            "subscription_auth.audience",
            "subscription_auth.audience_pattern",
            "subscription_auth.issuer",
            "subscription_auth.issuer_pattern",
            "subscription_auth.user_claim",
        ],
        out: &[(Here, KEYS)],
    },
    Narrow {
        without: &[
            "client.token.hmac_previous_secret_key_valid_until",
            "client.subscription_token.hmac_previous_secret_key_valid_until",
        ],
        out: &[(Here, &["hmac_previous_secret"])],
    },
    // Without it `[auth]` would judge subscription tokens, whose makers are others.
    Narrow { without: &["subscription_auth.enabled"], out: &[(In("auth"), KEYS)] },
];

/// Options without a counterpart that forbade nobody anything: what they gave is not there, or is there for those
/// who had it.
#[cfg(test)]
const CLOSES_NOTHING: &[&str] = &[
    // How bytes travel, and where endpoints are that ask for credentials of their own.
    "http_server.tls",
    "http_server.tls_autocert",
    "http_server.http3",
    "http_server.h2c_external",
    "websocket.disabled",
    "websocket.handler_prefix",
    "sse.handler_prefix",
    "http_stream.handler_prefix",
    "emulation.handler_prefix",
    "uni_sse.handler_prefix",
    "uni_sse.connect_code_to_http_response",
    "uni_http_stream.handler_prefix",
    "uni_http_stream.connect_code_to_http_response",
    "uni_websocket.handler_prefix",
    "uni_websocket.disable_disconnect_push",
    "init.handler_prefix",
    "prometheus.handler_prefix",
    "health.handler_prefix",
    "client.connect_code_to_unidirectional_disconnect",
    "http_api.error_mode",
    // What the process did beside.
    "log.file",
    "pid_file",
    "admin",
    "swagger",
    "debug",
    "opentelemetry",
    "graphite",
    // What is not there.
    "engine.type",
    "broker",
    "presence_manager",
    "map_broker.type",
    "controller",
    "shared_poll",
    "grpc_api",
    "consumers",
    "uni_grpc",
    "webtransport",
    "rpc.ping",
    "client.connect_include_server_time",
    "channel.without_namespace.map_clients_presence_channel_prefix",
    "channel.without_namespace.map_users_presence_channel_prefix",
    "channel.namespaces[].map_clients_presence_channel_prefix",
    "channel.namespaces[].map_users_presence_channel_prefix",
    // What let in more than longwire does.
    "client.insecure_skip_token_signature_verify",
    "client.user_id_http_header",
    // Without the certificate a backend is not reached, and whoever it would decide about is refused.
    "client.proxy.connect.http.tls",
    "client.proxy.refresh.http.tls",
    "channel.proxy.subscribe.http.tls",
    "channel.proxy.publish.http.tls",
    "channel.proxy.sub_refresh.http.tls",
    "rpc.proxy.http.tls",
    "proxies[].http.tls",
];

#[cfg(test)]
mod tests {
    use super::super::mapping::rows;
    use super::super::table::{Becomes, GROUPS};
    use super::*;
    use std::collections::BTreeSet;

    /// The settings that the table and the rules can make, with their sections.
    fn settings() -> BTreeSet<String> {
        let mut settings = BTreeSet::new();
        for group in GROUPS {
            for row in group.rows {
                match row.becomes {
                    Becomes::Setting(key, _) if group.section.is_empty() => settings.insert(key.to_owned()),
                    Becomes::Setting(key, _) => settings.insert(format!("{}.{key}", group.section)),
                    _ => continue,
                };
            }
        }
        for section in ["channel", "namespaces.NAME"] {
            for event in ["subscribe", "publish", "sub_refresh"] {
                settings.insert(format!("{section}.{event}_webhook"));
            }
        }
        for section in ["auth", "subscription_auth"] {
            for key in ["jwks_url", "audience_pattern", "issuer_pattern"] {
                settings.insert(format!("{section}.{key}"));
            }
        }
        settings.insert("rpc_namespaces.NAME.webhook".to_owned());
        settings
    }

    #[test]
    fn every_option_without_a_counterpart_says_what_it_closed() {
        let narrows: Vec<&str> = NARROWS.iter().flat_map(|row| row.without).copied().collect();
        let missing: BTreeSet<String> = rows()
            .into_iter()
            .filter(|(_, (_, row))| matches!(row.becomes, Becomes::Missing(..)))
            .map(|(option, _)| option)
            .collect();
        for option in &missing {
            let closes = narrows.contains(&option.as_str());
            let closes_nothing = CLOSES_NOTHING.contains(&option.as_str());
            assert!(
                closes != closes_nothing,
                "`{option}` stands in {}",
                if closes { "both" } else { "none" }
            );
        }
        let unknown: Vec<_> = CLOSES_NOTHING.iter().filter(|option| !missing.contains(**option)).collect();
        assert!(unknown.is_empty(), "these options have a counterpart, or are none: {unknown:?}");
    }

    #[test]
    fn what_narrows_and_what_is_left_out_exist() {
        let (rows, settings) = (rows(), settings());
        let is_option = |name: &str| {
            let is_missing = |path: &str| {
                rows.get(path).is_some_and(|(_, row)| matches!(row.becomes, Becomes::Missing(..)))
            };
            is_missing(name) || name.rsplit_once('.').is_some_and(|(table, _)| is_missing(table))
        };
        for row in NARROWS {
            for name in row.without {
                assert!(is_option(name) != settings.contains(*name), "`{name}` is no option and no setting");
            }
            for (place, keys) in row.out {
                let sections: BTreeSet<&str> = match place {
                    In(section) => [*section].into(),
                    Here => row.without.iter().map(|name| section_of(name)).collect(),
                };
                for (section, key) in sections.iter().flat_map(|s| keys.iter().map(move |key| (s, key))) {
                    let is_there = if *key == "*" {
                        settings.iter().any(|setting| setting.starts_with(&format!("{section}.")))
                    } else {
                        settings.contains(&format!("{section}.{key}"))
                    };
                    assert!(is_there, "`{section}.{key}` is never made");
                }
            }
        }
    }

    /// The section of longwire that an option or a setting is of.
    fn section_of(name: &'static str) -> &'static str {
        match rows().get(name) {
            Some((group, _)) => group.section,
            None => name.rsplit_once('.').expect("a setting stands in a section").0,
        }
    }
}
