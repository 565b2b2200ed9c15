//! What a server says of itself: name, version, models, limits.

use super::Limits;
use crate::Client;
use crate::json::Json;
use crate::protocol::Base;

/// What the routes of information said.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) server: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) models: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) notes: Vec<String>,
}

/// Asks the protocol's routes of information. One that does not answer is a note: servers switch them off, and generate all the
/// same.
pub(super) fn ask(client: &Client) -> Identity {
    let mut identity =
        Identity { server: client.protocol().server().map(str::to_owned), ..Identity::default() };
    let endpoint = client.endpoint();
    for about in client.protocol().about() {
        let base = match about.base {
            Base::Inference => &endpoint.url,
            Base::Management => endpoint.management(),
        };
        match client.get_json(base, about.route) {
            Ok(json) => (about.read)(&json, &mut identity),
            Err(failure) => identity.notes.push(format!("No {}: {failure}.", about.what)),
        }
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

/// Returns a text of an answer, unless it is empty.
pub(crate) fn text(json: &Json, name: &str) -> Option<String> {
    json.get(name).text().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns the first count of an answer that has one of the names.
pub(crate) fn count(json: &Json, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| json.get(name).count()).map(u64::from)
}
