//! How a request gets into its target's words: as it is, through the hub, or by a conversion of its own. Called when a
//! snapshot is compiled (which deployment serves what) and by dispatch, for every candidate.

use nemo_types::{Measure, Usage};

use crate::{
    Dialect, Endpoint, Provider,
    codec::{CodecError, Destination, Echo, Encoded},
    count::Counter,
};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// The target speaks the client's dialect: the body passes but for declared edits.
    Splice,
    /// A conversation, through [`crate::ir`].
    Transcode { from: Dialect, to: Dialect },
    /// Something that is no conversation: embeddings, images, rankings.
    Convert(&'static Conversion),
    /// A conversation that is to be counted and not answered, through [`crate::count`].
    Count { from: Dialect, by: Counter },
}

/// One endpoint in the words of one provider. The client's side is always OpenAI's (or, of rankings, Cohere's).
#[derive(Debug)]
pub struct Conversion {
    pub request: fn(&[u8], &Destination<'_>) -> Result<Encoded, CodecError>,
    pub response: fn(&[u8], &Echo) -> Result<Converted, CodecError>,
    /// Appended to the deployment's base URL. `model` is made of safe characters.
    pub path: fn(model: &str) -> String,
}

/// An answer that was converted.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    pub body: Vec<u8>,
    pub usage: Option<Usage>,
    pub measures: Vec<Measure>,
}

/// `None`: this provider can't serve the endpoint with this model.
pub fn plan(endpoint: Endpoint, provider: &Provider, model: &str) -> Option<Plan> {
    if provider.speaks_natively(endpoint, model) {
        return Some(Plan::Splice);
    }
    if let Some((_, conversion)) = provider.conversions.iter().find(|(of, _)| *of == endpoint) {
        return Some(Plan::Convert(conversion));
    }
    if let Some(from) = endpoint.counts() {
        return Some(Plan::Count { from, by: Counter::of(provider, model)? });
    }
    let (from, to) = (endpoint.dialect()?, provider.dialect(model)?);
    Some(Plan::Transcode { from, to })
}
