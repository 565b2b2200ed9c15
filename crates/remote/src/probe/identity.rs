//! Asks a server what it is.

use crate::Client;
use crate::identity::Identity;
use crate::protocol::Base;

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
