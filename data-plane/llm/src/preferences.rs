//! What a request says about the providers that it wants: OpenRouter's `provider{…}` (requirements E.6), and the
//! shorter forms of the same wishes. Read by [`mod@crate::envelope`], honoured by the data plane's `routing`.

use nemo_types::NanosPerMillion;

/// Which deployments a request would have, and in which order. Providers are named as in the catalog or by an alias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// These first, in this order; the others follow unless `allow_fallbacks` is false.
    pub order: Vec<Box<str>>,
    /// No others than these; empty: all.
    pub only: Vec<Box<str>>,
    pub ignore: Vec<Box<str>>,
    /// `false`: nothing but the primary pool, and of that only `order` if there is one.
    pub allow_fallbacks: Option<bool>,
    pub sort: Option<Sort>,
    /// Only deployments whose model supports everything that the request asks for.
    pub require_parameters: bool,
    pub max_price: MaxPrice,
}

/// What is best first, instead of the strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Price,
    Throughput,
    Latency,
}

impl Sort {
    pub const ALL: [Self; 3] = [Self::Price, Self::Throughput, Self::Latency];

    pub fn name(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.name() == name)
    }
}

/// Prices above which a deployment is not used. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxPrice {
    /// Per million input tokens.
    pub prompt: Option<NanosPerMillion>,
    /// Per million output tokens.
    pub completion: Option<NanosPerMillion>,
    /// Per million requests: the client says it per request.
    pub request: Option<NanosPerMillion>,
    /// Per million images: the client says it per image.
    pub image: Option<NanosPerMillion>,
}
