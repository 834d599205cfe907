//! One fact per offering, of what several sources say: field by field the first source that says it. Called by [`super::job`].

use std::collections::{BTreeMap, BTreeSet};

use super::Fact;

/// What is known of an offering, and from whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    pub fact: Fact,
    /// Which source each field is from.
    pub from: BTreeMap<&'static str, String>,
    /// All that list it.
    pub listed_by: BTreeSet<String>,
}

/// By provider and the provider's name of the model.
pub type Gathered = BTreeMap<(String, String), Known>;

/// `said`: sources in the order in which they are believed, the first the most.
pub fn gather(said: Vec<(String, Vec<Fact>)>) -> Gathered {
    let mut all = Gathered::new();
    for (source, facts) in said {
        for fact in facts {
            let key = (fact.provider.clone(), fact.upstream_model.clone());
            let known = all.entry(key).or_insert_with(|| Known {
                fact: Fact {
                    provider: fact.provider.clone(),
                    upstream_model: fact.upstream_model.clone(),
                    ..Fact::default()
                },
                ..Known::default()
            });
            known.listed_by.insert(source.clone());
            take(known, fact, &source);
        }
    }
    all
}

fn take(known: &mut Known, said: Fact, source: &str) {
    macro_rules! first {
        ($($field:ident)*) => {$(
            if known.fact.$field.is_none() && said.$field.is_some() {
                known.fact.$field = said.$field;
                known.from.insert(stringify!($field), source.to_owned());
            }
        )*};
    }
    if known.fact.amounts.is_none() && said.amounts.is_some() {
        known.fact.knows_steps = said.knows_steps;
        known.fact.amounts = said.amounts;
        known.from.insert("price", source.to_owned());
    }
    first!(display_name owned_by created_unix context_window max_output_tokens input_modalities output_modalities abilities);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::Amounts;

    #[test]
    fn each_field_is_the_first_sources_that_says_it() {
        let fact = |context, input: Option<i64>| Fact {
            provider: "openai".into(),
            upstream_model: "gpt-6".into(),
            context_window: context,
            amounts: input.map(|input| Amounts { input: Some(input), ..Amounts::default() }),
            ..Fact::default()
        };
        let all = gather(vec![
            ("providers:openai".into(), vec![fact(None, None)]),
            ("models.dev".into(), vec![fact(Some(400_000), Some(5))]),
            ("openrouter".into(), vec![fact(Some(1), Some(6))]),
        ]);
        let known = &all[&("openai".to_owned(), "gpt-6".to_owned())];
        assert_eq!(known.fact.context_window, Some(400_000));
        assert_eq!(known.fact.amounts.as_ref().unwrap().input, Some(5));
        assert_eq!(
            (known.from["price"].as_str(), known.from["context_window"].as_str()),
            ("models.dev", "models.dev")
        );
        assert_eq!(known.listed_by.len(), 3);
    }
}
