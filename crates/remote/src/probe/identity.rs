//! What a server says of itself: name, version, models, limits.

use super::Limits;
use crate::json::Json;
use crate::{Api, Client, Failure};

/// What the routes of information said.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) server: Option<String>,
    pub(super) version: Option<String>,
    pub(super) models: Vec<String>,
    pub(super) limits: Limits,
    pub(super) notes: Vec<String>,
}

/// Asks the routes of information. One that does not answer is a note: servers switch them off, and generate all the same.
pub(super) fn ask(client: &Client) -> Identity {
    let mut identity = Identity::default();
    let endpoint = client.endpoint();
    let read: fn(&Json, &mut Identity);
    let answer = match endpoint.api {
        Api::Tgi | Api::Mindie => {
            read = info;
            client.get_json(endpoint.management(), "/info")
        }
        Api::LlamaCpp => {
            read = props;
            client.get_json(&endpoint.url, "/props")
        }
        Api::Vllm => {
            read = |json, identity| identity.version = text(json, "version");
            client.get_json(&endpoint.url, "/version")
        }
        Api::OpenAi => {
            read = |_, _| {};
            Ok(Json::Null)
        }
    };
    // `/props` is llama.cpp's own route. The other protocols are spoken by many servers, which may name themselves.
    identity.server = (endpoint.api == Api::LlamaCpp).then(|| "llama.cpp".into());
    match answer {
        Ok(json) => read(&json, &mut identity),
        Err(failure) => identity.notes.push(format!("No information about the server: {failure}.")),
    }
    if matches!(endpoint.api, Api::OpenAi | Api::Vllm | Api::Mindie) {
        let models = client.get_json(&endpoint.url, "/v1/models");
        list_of_models(models, &mut identity);
    }
    if let Some(model) = &endpoint.model
        && !identity.models.is_empty()
        && !identity.models.contains(model)
    {
        let listed = identity.models.join(", ");
        identity.notes.push(format!("The server does not list the model `{model}`: it lists {listed}."));
    }
    identity
}

fn text(json: &Json, name: &str) -> Option<String> {
    json.get(name).text().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn count(json: &Json, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| json.get(name).count()).map(u64::from)
}

/// Reads `/info` of TGI, and of MindIE, which has the fields of models in a list.
fn info(json: &Json, identity: &mut Identity) {
    identity.version = text(json, "version");
    identity.server = text(json, "router");
    let models = json.get("models").list();
    let named = |json: &Json| text(json, "model_id");
    identity.models = named(json).into_iter().chain(models.iter().filter_map(named)).collect();
    let first = json.get("models").at(0);
    identity.limits = Limits {
        max_input: count(json, &["max_input_tokens", "max_input_length"]),
        max_total: count(json, &["max_total_tokens"]).or_else(|| count(first, &["max_total_tokens"])),
        max_concurrent: count(json, &["max_concurrent_requests"]),
        max_batch_tokens: count(json, &["max_batch_total_tokens"]),
    };
}

fn props(json: &Json, identity: &mut Identity) {
    identity.version = text(json, "build_info");
    identity.models = text(json, "model_path").into_iter().collect();
    identity.limits = Limits {
        max_total: count(json.get("default_generation_settings"), &["n_ctx"]),
        max_concurrent: count(json, &["total_slots"]),
        ..Limits::default()
    };
}

fn list_of_models(answer: Result<Json, Failure>, identity: &mut Identity) {
    let json = match answer {
        Ok(json) => json,
        Err(failure) => {
            identity.notes.push(format!("No list of models: {failure}."));
            return;
        }
    };
    let list = json.get("data").list();
    identity.models = list.iter().filter_map(|model| text(model, "id")).collect();
    let first = json.get("data").at(0);
    identity.limits.max_total = identity.limits.max_total.or_else(|| count(first, &["max_model_len"]));
    // The only name that a server of this API gives itself.
    if identity.server.is_none() {
        identity.server = text(first, "owned_by");
    }
}
