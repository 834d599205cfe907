"""Offline tests of the catalog builder: `python3 -m unittest discover tools/catalog`."""

import json
import sys
import unittest
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import assemble
import build
from sources import LiteLlm, PiAi, Sheet, nanos

TODAY = date(2026, 11, 21)


class Source:
    """A source that knows what the test tells it."""

    def __init__(self, **sheets):
        self.sheets = {(provider, name): sheet for provider, names in sheets.items() for name, sheet in names.items()}

    def sheet(self, provider, upstream):
        return self.sheets.get((provider, upstream))


def sheet(source="one", usd=("2", "8"), **fields):
    price = dict(zip(("input", "output"), (nanos(amount, 1_000_000) for amount in usd)))
    facts = {"window": 128_000, "max_output": 16_000, "mode": "chat"} | fields
    return Sheet(source=source, price=price | facts.pop("cache", {}), **facts)


def entry(**fields):
    given = {"id": "m", "name": "M", "owned_by": "x", "released": date(2026, 1, 1), "offers": {"openai": "m"}}
    return given | fields


def build_one(model, *sources, overrides=None, today=TODAY):
    """The only model of a list, its notes, and the errors other than the list's small size."""
    curated = {"model": [model], "override": overrides or []}
    unsound = assemble._unsound
    assemble._unsound = lambda models: [e for e in unsound(models) if "are promised" not in e]
    try:
        models, notes = assemble.assemble(curated, list(sources), today)
    finally:
        assemble._unsound = unsound
    return models[0], notes


class Prices(unittest.TestCase):
    def test_binary_fractions_of_a_source_become_exact_integers(self):
        raw = b'{"m": {"input_cost_per_token": 7.000000000000001e-08, "output_cost_per_token": 2.9999999999999997e-06}}'
        self.assertEqual(LiteLlm(raw).sheet("openai", "m").price, {"input": 70_000_000, "output": 3_000_000_000})

    def test_other_units_are_priced_per_million_and_never_beside_tokens(self):
        whisper = {"mode": "audio_transcription", "input_cost_per_second": 0.0001}
        tokens = whisper | {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}
        moderation = {"mode": "moderation", "input_cost_per_token": 0.0}
        image = {
            "mode": "image_generation", "input_cost_per_token": 5e-06, "output_cost_per_token": 1e-05,
            "output_cost_per_image_token": 3.2e-05,
        }  # fmt: skip
        chat = {"mode": "chat", "input_cost_per_token": 1e-06, "input_cost_per_audio_token": 1e-05}
        raw = json.dumps({"w": whisper, "t": tokens, "m": moderation, "i": image, "c": chat}).encode()
        found = {name: LiteLlm(raw).sheet("openai", name) for name in "wtmic"}
        self.assertEqual(found["w"].units, {"audio_milliseconds": 100_000_000})
        self.assertEqual((found["t"].units, found["t"].price["input"]), ({}, 2_500_000_000))
        self.assertEqual(found["m"].units, {"requests": 0})
        self.assertEqual(found["i"].units, {"image_output_tokens": 32_000_000_000})
        self.assertEqual(found["i"].price["output"], 32_000_000_000)
        self.assertEqual(found["c"].units, {})

    def test_a_model_that_does_not_chat_has_the_endpoints_of_its_kind(self):
        speech = Sheet(source="one", mode="audio_speech", units={"characters": 15_000_000_000})
        model, _ = build_one(entry(), Source(openai={"m": speech}))
        self.assertEqual((model["endpoints"], model["output_modalities"]), (["audio.speech"], ["audio"]))
        self.assertNotIn("max_output_tokens", model)
        price = {"units": [{"unit": "characters", "price": 15_000_000_000}]}
        self.assertEqual(model["offerings"][0]["price"], price)

    def test_steps_of_long_prompts_and_tiers_are_read(self):
        listed = {
            "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1.5e-05,
            "cache_creation_input_token_cost": 3e-06, "cache_creation_input_token_cost_above_1hr": 5e-06,
            "input_cost_per_token_above_272k_tokens": 5e-06, "output_cost_per_token_flex": 7.5e-06,
            "input_cost_per_token_above_272k_tokens_priority": 9e-06, "input_cost_per_token_batches": 1e-06,
            "input_cost_per_token_flex": 2.5e-06, "input_cost_per_audio_token_priority": 1e-06,
            "search_context_cost_per_query": {"search_context_size_medium": 0.01}, "mode": "chat",
            "max_input_tokens": 300_000, "max_output_tokens": 16_000,
        }
        read = LiteLlm(json.dumps({"m": listed}).encode()).sheet("openai", "m")
        self.assertEqual(read.steps, [
            {"service_tier": "flex", "output": 7_500_000_000},
            {"above_input_tokens": 272_000, "input": 5_000_000_000},
            {"above_input_tokens": 272_000, "service_tier": "priority", "input": 9_000_000_000},
        ])
        self.assertEqual((read.price["cache_write_1h"], read.units), (5_000_000_000, {"web_searches": 10_000_000_000_000}))
        read.window = 400_000
        model, _ = build_one(entry(), Source(openai={"m": read}))
        self.assertEqual(model["offerings"][0]["price"]["steps"], read.steps)
        override = {"provider": "openai", "model": "m", "input": "3", "reason": "raised today"}
        model, _ = build_one(entry(), Source(openai={"m": read}), overrides=[override])
        self.assertNotIn("steps", model["offerings"][0]["price"])

    def test_a_zero_is_unknown_not_free(self):
        cost = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}
        raw = json.dumps({"api": {"chat:m": {"id": "m", "cost": cost, "input": ["text"]}}}).encode()
        self.assertEqual(PiAi({"nvidia": raw}).sheet("nvidia", "m").price, {})

    def test_the_first_source_wins_and_the_disagreement_is_noted(self):
        one, two = Source(openai={"m": sheet()}), Source(openai={"m": sheet("two", ("2", "9"))})
        model, notes = build_one(entry(), one, two)
        self.assertEqual(model["offerings"][0]["price"], {"input": 2_000_000_000, "output": 8_000_000_000})
        self.assertEqual(notes.prices, ["m at openai: one 2/8, two 2/9"])

    def test_cache_prices_only_come_from_sources_that_agree_on_the_rest(self):
        cached = {"cache": {"cache_read": 200_000_000}}
        agreeing, other = sheet("two", **cached), sheet("two", ("4", "8"), **cached)
        model, _ = build_one(entry(), Source(openai={"m": sheet()}), Source(openai={"m": agreeing}))
        self.assertEqual(model["offerings"][0]["price"]["cache_read"], 200_000_000)
        model, _ = build_one(entry(), Source(openai={"m": sheet()}), Source(openai={"m": other}))
        self.assertNotIn("cache_read", model["offerings"][0]["price"])

    def test_an_override_replaces_the_price_and_must_say_why(self):
        source, override = Source(openai={"m": sheet()}), {"provider": "openai", "model": "m", "input": "2.5"}
        model, _ = build_one(entry(), source, overrides=[override | {"reason": "raised today"}])
        self.assertEqual(model["offerings"][0]["price"], {"input": 2_500_000_000, "output": 8_000_000_000})
        with self.assertRaisesRegex(assemble.CatalogError, "says no reason"):
            build_one(entry(), source, overrides=[override])

    def test_a_reseller_price_far_from_the_list_price_is_left_out(self):
        offers = {"openai": "m", "openrouter": "x/m"}
        for usd, kept in ((("2", "8"), True), (("0.1", "9"), False)):
            source = Source(openai={"m": sheet()}, openrouter={"x/m": sheet(usd=usd)})
            model, _ = build_one(entry(offers=offers), source)
            self.assertEqual("price" in model["offerings"][1], kept)

    def test_a_price_beyond_all_reason_is_an_error(self):
        with self.assertRaisesRegex(assemble.CatalogError, "m at openai: output price"):
            build_one(entry(), Source(openai={"m": sheet(usd=("2", "1001"))}))


class Models(unittest.TestCase):
    def test_a_name_that_two_models_want_is_an_error(self):
        curated = {"model": [entry(), entry(id="n", aliases=["m"])]}
        with self.assertRaisesRegex(assemble.CatalogError, "'m' is taken by both m and n"):
            assemble.assemble(curated, [Source(openai={"m": sheet()})], TODAY)

    def test_an_offer_that_no_source_knows_is_an_error(self):
        with self.assertRaisesRegex(assemble.CatalogError, "no source knows 'm' at openai"):
            build_one(entry(), Source())

    def test_a_retired_offer_is_an_error_unless_the_model_is_kept_as_legacy(self):
        source = Source(openai={"m": sheet(retires=TODAY)})
        with self.assertRaisesRegex(assemble.CatalogError, "retired at openai since 2026-11-21"):
            build_one(entry(), source)
        self.assertEqual(build_one(entry(legacy=True), source)[0]["id"], "m")

    def test_tags_follow_from_the_facts(self):
        able = {"vision": True, "tools": True, "json": False}
        model, _ = build_one(entry(tags=["fast"]), Source(openai={"m": sheet(window=200_000, can=able)}))
        self.assertEqual(model["tags"], ["fast", "function-calling", "long-context", "multimodal", "vision"])
        self.assertEqual(model["input_modalities"], ["text", "image"])

    def test_a_tie_between_sources_is_broken_by_the_next_offer(self):
        yes, no = sheet(can={"tools": True}), sheet("two", can={"tools": False})
        offers = {"openai": "m", "azure": "m"}
        for third, tagged in ((yes, True), (no, False)):
            one, two = Source(openai={"m": yes}, azure={"m": third}), Source(openai={"m": no})
            model, _ = build_one(entry(offers=offers), one, two)
            self.assertEqual("function-calling" in model["tags"], tagged)

    def test_an_output_limit_as_large_as_the_window_yields_to_a_smaller_one(self):
        placeholder, real = sheet(window=128_000, max_output=128_000), sheet("two", max_output=32_000)
        model, _ = build_one(entry(), Source(openai={"m": placeholder}), Source(openai={"m": real}))
        self.assertEqual(model["max_output_tokens"], 32_000)

    def test_the_name_at_openrouter_is_an_alias_and_so_is_a_foreign_author(self):
        self.assertEqual(assemble._aliases(entry(offers={"openrouter": "meta-llama/m-1"})), {"m-1", "meta-llama/m-1"})
        self.assertEqual(assemble._aliases(entry(offers={"openrouter": "openai/m-1"})), {"m-1"})

    def test_a_misspelled_field_of_the_list_is_an_error(self):
        with self.assertRaisesRegex(assemble.CatalogError, r"unknown fields \['alias'\]"):
            build_one(entry(alias=["x"]), Source(openai={"m": sheet()}))


class File(unittest.TestCase):
    def test_it_is_json_with_one_line_per_offering(self):
        model, _ = build_one(entry(), Source(openai={"m": sheet()}))
        catalog = {"generated": "2026-11-21", "sources": [{"package": "p"}], "models": [model, model]}
        text = build.render(catalog)
        self.assertEqual(json.loads(text), catalog)
        self.assertEqual(sum('"provider"' in line for line in text.splitlines()), 2)

    def test_the_date_only_moves_when_something_else_does(self):
        old = {"generated": "2026-01-01", "sources": [], "models": []}
        self.assertEqual(build.dated(old | {"generated": ""}, old, TODAY)["generated"], "2026-01-01")
        self.assertEqual(build.dated(old | {"generated": "", "models": [1]}, old, TODAY)["generated"], "2026-11-21")


if __name__ == "__main__":
    unittest.main()
