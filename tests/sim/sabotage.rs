//! Ways to break the fleet on purpose.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// Every grant is told as twice as much.
    DoubledGrants,
    /// The control plane ingests an event each time that it comes.
    IngestTwice,
    /// Nodes are told a longer time to live than the control plane waits.
    LongLives,
    /// What the last process was doing when it was killed is forgotten.
    ForgetOpened,
    /// A process that comes back says at once that its former epoch is settled.
    ClosedTooEarly,
    /// The control plane gives a lost node's money away without waiting for its time to live.
    NoFencing,
    /// The limit is not looked at.
    NoLimit,
    /// What a node hands back is forgotten.
    LostReturns,
}

impl Sabotage {
    pub const ALL: &'static [Self] = &[
        Self::DoubledGrants,
        Self::IngestTwice,
        Self::LongLives,
        Self::ForgetOpened,
        Self::ClosedTooEarly,
        Self::NoFencing,
        Self::NoLimit,
        Self::LostReturns,
    ];
}
