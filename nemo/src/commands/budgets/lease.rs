//! What a node holds of a budget, as a row.

use nemo_proto::admin::{Amount, BudgetLease};

use crate::commands::{
    output::Entity,
    table::{Cell, Column},
};

impl Entity for BudgetLease {
    const KIND: &'static str = "lease";
    const NOUN: &'static str = "leases";
    const COLUMNS: &'static [Column] = &[
        Column::text("NODE"),
        Column::text("STATE"),
        Column::number("GRANTED"),
        Column::number("SPENT"),
        Column::number("RESERVED"),
        Column::number("LEFT"),
        Column::whole("WINDOW"),
        Column::whole("ID"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.node_id
    }

    fn cells(&self) -> Vec<Cell> {
        let usd = |amount: &Option<Amount>| Cell::from(amount.clone().unwrap_or_default().usd);
        vec![
            self.node_id.as_str().into(),
            Cell::state(&self.state),
            usd(&self.granted),
            usd(&self.spent),
            usd(&self.reserved),
            usd(&self.outstanding),
            super::present::start(self.window_start).into(),
            self.id.as_str().into(),
        ]
    }
}
