//! Wire formats of model providers: pure functions over bytes, no IO, no clock, no task.
//!
//! The data plane's pipeline calls this crate in the order in which a request lives:
//!
//! - [`endpoint`] and [`dialect`]: which endpoint a path names, and which error shape its clients expect
//! - [`provider`], [`registry`] and [`compatible`]: providers as rows of a table
//! - [`envelope`]: the few members of a request that the gateway reads, as spans of the body: what it needs of a model
//!   ([`features`]), what it asks of the gateway ([`extras`]) and of providers ([`preferences`])
//! - [`address`]: where a call goes
//! - [`plan`]: whether the target speaks the client's dialect; where it does not, [`codec`] translates through the hub of
//!   [`ir`], with one folder of [`providers`] per dialect
//! - [`links`]: what a request names by URL and its target wants the bytes of
//! - `inline`: how large the files in a request may be, by target
//! - [`count`]: what a request would take in, for clients that ask
//! - [`multipart`]: the same for forms with files, while they stream through
//! - [`splice`]: the body that goes upstream, as slices of the client's bytes plus declared edits
//! - [`aws_event_stream`] and [`sigv4`]: what AWS frames its streams and signs its requests with
//! - [`sse`] and [`stream`]: a streamed answer, observed frame by frame and forwarded as it came
//! - [`usage_scan`], [`estimate`] and [`meter`]: what a call consumed, as reported or as guessed, in its own units;
//!   [`bound`]: what it can consume at most
//! - [`stop_chunk`]: the last chunk of a stream that the gateway stops
//! - [`error`]: upstream error bodies in, our error bodies out
//!
//! [`json`] is the strict, allocation-free walker under all of them, [`decimal`] reads money exactly.

pub mod address;
pub mod aws_event_stream;
pub mod bound;
pub mod codec;
pub mod compatible;
pub mod count;
pub mod decimal;
pub mod dialect;
pub mod endpoint;
pub mod envelope;
pub mod error;
pub mod estimate;
pub mod extras;
pub mod features;
pub mod finish_reason;
mod inline;
pub mod ir;
pub mod json;
pub mod links;
pub mod meter;
pub mod multipart;
pub mod plan;
pub mod preferences;
pub mod provider;
pub mod providers;
pub mod quirks;
pub mod registry;
pub mod service_tier;
pub mod sigv4;
pub mod splice;
pub mod sse;
pub mod stop_chunk;
pub mod stream;
pub mod transcode;
pub mod usage_scan;

pub use bound::MostInput;
pub use codec::{CodecError, Destination, Echo, Encoded, Inbound};
pub use count::Counter;
pub use dialect::{Dialect, ErrorDialect};
pub use endpoint::Endpoint;
pub use envelope::{Envelope, EnvelopeError, EnvelopeErrorKind, Span, parse, parse_call};
pub use error::{ErrorBody, UpstreamErrorInfo, decode_error, render_error, render_stream_error};
pub use estimate::{estimate_input_tokens, estimate_output_tokens, least_input_tokens, likely_input_tokens};
pub use extras::{Chain, Extras, Overrides, Said};
pub use features::{Features, Inlined};
pub use finish_reason::FinishReason;
pub use links::{File, Files, Link};
pub use meter::{Asked, measures};
pub use multipart::{Form, FormScanner, MultipartError, Piece};
pub use plan::{Conversion, Converted, Plan, plan};
pub use preferences::{MaxPrice, Preferences, Sort};
pub use provider::{AuthScheme, Hosting, LimitName, Provider, Quirks, StreamUsage};
pub use registry::{provider, providers};
pub use service_tier::ServiceTier;
pub use splice::{EditSet, Segments, Spliced, Target, splice, splice_capped};
pub use sse::{SseError, SseEvent, SseScanner};
pub use stop_chunk::stop_chunk;
pub use stream::{StreamError, StreamObserver};
pub use usage_scan::{CostEdit, CostPlace, Pricing, Told, UnaryInfo, scan_response};
