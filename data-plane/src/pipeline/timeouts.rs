//! How long each wait of a request may be, and which of them was too long. The most specific setting wins: deployment,
//! organization, installation, node. Called by [`super::attempts`], [`super::dispatch`], [`super::respond`] and
//! [`super::feed`].

use std::{num::NonZeroU32, time::Duration};

use nemo_llm::Endpoint;
use nemo_snapshot::{Deployment, Routing, Timeouts as Configured};
use nemo_types::OrgId;
use tokio::time::Instant;

use super::error::{GatewayError, Kind};
use crate::config::Settings;

/// What was waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Connect,
    FirstByte,
    Idle,
    Total,
}

impl Waited {
    /// `error.code` of the 504, or of a stream's last event.
    pub fn code(self) -> &'static str {
        match self {
            Self::Connect => "connect_timeout",
            Self::FirstByte => "first_byte_timeout",
            Self::Idle => "idle_timeout",
            Self::Total => "total_timeout",
        }
    }

    /// What an upstream failed to do.
    pub fn what(self) -> &'static str {
        match self {
            Self::Connect => "did not accept a connection in time (connect timeout)",
            Self::FirstByte => "did not start to answer in time (first byte timeout)",
            Self::Idle => "stopped in the middle of its answer (idle timeout)",
            Self::Total => "did not finish its answer in time (total timeout)",
        }
    }

    /// For an answer that began already.
    pub fn error(self) -> GatewayError {
        let error = GatewayError::new(Kind::UpstreamTimeout, format!("The upstream {}.", self.what()));
        GatewayError { code: Some(self.code()), ..error }
    }
}

/// When a request must be over, and how long each wait may be.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The end of the whole request.
    pub at: Instant,
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    /// Silence after which a stream gets a comment.
    pub keep_alive: Option<Duration>,
    /// The client wants an earlier end than the configuration.
    pub hurried: bool,
    /// When the first frame must have come; set by [`Deadline::sent`].
    first_by: Instant,
}

impl Deadline {
    /// Counted from the request's start; `wanted` by the client, within the ceiling.
    pub fn new(
        settings: &Settings,
        routing: &Routing,
        org: OrgId,
        deployment: &Deployment,
        (started, wanted): (Instant, Option<Duration>),
    ) -> Self {
        let (installation, own) = routing.timeouts(org);
        let layers = [Some(&deployment.timeouts), own, Some(installation)];
        let pick = |field: fn(&Configured) -> Option<NonZeroU32>, node: Duration| {
            let found = layers.iter().flatten().find_map(|layer| field(layer));
            found.map_or(node, |millis| Duration::from_millis(millis.get().into()))
        };
        let ceiling = pick(|it| it.total_ms, settings.total_timeout());
        let at = started + wanted.map_or(ceiling, |wanted| wanted.min(ceiling));
        Self {
            at,
            connect: pick(|it| it.connect_ms, settings.connect_timeout()),
            first_byte: pick(|it| it.first_byte_ms, settings.head_timeout()),
            idle: pick(|it| it.idle_ms, settings.idle_timeout()),
            keep_alive: settings.keep_alive(),
            hurried: wanted.is_some_and(|wanted| wanted < ceiling),
            first_by: at,
        }
    }

    /// Google's clients take every line of a stream for data, so that there is no sign of life to send them.
    #[must_use]
    pub fn for_clients_of(self, endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::GenerateContent => Self { keep_alive: None, ..self },
            _ => self,
        }
    }

    /// Called when the request goes out: the wait for the first byte begins.
    pub fn sent(&mut self, now: Instant) {
        self.first_by = now + self.first_byte;
    }

    /// Until when the next frame must come, and what it is called if it does not. `last` is when one came, if any has.
    pub fn next_frame(&self, last: Option<Instant>) -> (Instant, Waited) {
        let (due, waited) =
            last.map_or((self.first_by, Waited::FirstByte), |last| (last + self.idle, Waited::Idle));
        if self.at <= due { (self.at, Waited::Total) } else { (due, waited) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(deployment: Configured, wanted: Option<u64>) -> (Deadline, Instant) {
        let settings = Settings::defaults().unwrap();
        let mut it = std::sync::Arc::into_inner(crate::testing::deployment("custom", "m")).unwrap();
        it.timeouts = deployment;
        let now = Instant::now();
        let wanted = wanted.map(Duration::from_millis);
        (Deadline::new(&settings, &Routing::default(), OrgId::generate(), &it, (now, wanted)), now)
    }

    #[tokio::test]
    async fn deployments_override_the_node_and_clients_only_shorten() {
        let (plain, now) = deadline(Configured::default(), None);
        assert_eq!(plain.connect, Duration::from_secs(5));
        assert_eq!(plain.at - now, Duration::from_secs(1800));
        let own = Configured {
            connect_ms: NonZeroU32::new(70),
            total_ms: NonZeroU32::new(9000),
            ..Configured::default()
        };
        let (own_only, now) = deadline(own, None);
        assert_eq!(
            (own_only.connect, own_only.at - now),
            (Duration::from_millis(70), Duration::from_secs(9))
        );
        assert_eq!(own_only.idle, plain.idle);
        let (shorter, now) = deadline(own, Some(500));
        assert_eq!((shorter.at - now, shorter.hurried), (Duration::from_millis(500), true));
        let (longer, now) = deadline(own, Some(60_000));
        assert_eq!(longer.at - now, Duration::from_secs(9), "never above the ceiling");
    }

    #[tokio::test]
    async fn the_wait_that_ends_first_gives_its_name() {
        let own = Configured {
            first_byte_ms: NonZeroU32::new(100),
            idle_ms: NonZeroU32::new(50),
            total_ms: NonZeroU32::new(1000),
            ..Configured::default()
        };
        let (mut deadline, now) = deadline(own, None);
        deadline.sent(now);
        let millis = Duration::from_millis;
        assert_eq!(deadline.next_frame(None), (now + millis(100), Waited::FirstByte));
        assert_eq!(deadline.next_frame(Some(now + millis(90))), (now + millis(140), Waited::Idle));
        assert_eq!(deadline.next_frame(Some(now + millis(990))), (now + millis(1000), Waited::Total));
    }
}
