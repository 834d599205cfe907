//! OpenAI's Responses API, of clients and of upstreams: [`request`], [`response`] and [`stream`] translate, [`affinity`]
//! binds what a provider keeps or encrypts to the deployment that has made it, [`state`] refuses what can only be gone
//! on with there. Called through [`crate::codec`]; `affinity` also by the data plane, where Responses traffic passes as
//! it is.

pub mod affinity;
pub mod count_tokens;
pub mod request;
pub mod response;
pub mod state;
pub mod stream;

mod fixed;
mod reasoning;
mod wire;
mod write;
