"""Merges the fact sheets of the sources into the models of the catalog, and checks the result.

Called by build.py. Pure: takes the curated list and the sources, gives the catalog as plain values and a list of
notes for the maintainer.
"""

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation

from sources import PRICES, Sheet, nanos

# The ids of the product's provider table, and the other prefixes under which clients reach them.
PROVIDERS = frozenset(
    "alibaba anthropic azure bedrock cerebras cohere deepinfra deepseek fireworks google-ai-studio google-vertex groq"
    " hyperbolic mistral moonshot nebius novita nvidia openai openrouter perplexity sambanova together xai zai".split()
)
PREFIX_ALIASES = frozenset({"gemini", "vertex", "aws-bedrock"})
# They resell what others serve: their price moves with the upstream they pick, and they report what they charged.
RESELLERS = frozenset({"openrouter"})
CURATED_TAGS = frozenset({"code", "fast", "multilingual"})
LONG_CONTEXT = 200_000
MOST_USD_PER_MILLION = 1000
ABILITIES = ("vision", "audio_in", "audio_out", "video", "file", "tools", "json", "reasoning")
# What models do that do not chat: their endpoints, what they take and what they give.
KINDS = {
    "embedding": (["embeddings"], ["text"], ["embedding"]),
    "image_generation": (["images.generations", "images.edits"], ["text", "image"], ["image"]),
    "audio_speech": (["audio.speech"], ["text"], ["audio"]),
    "audio_transcription": (["audio.transcriptions"], ["audio"], ["text"]),
    "moderation": (["moderations"], ["text"], ["text"]),
    "rerank": (["rerank"], ["text"], ["text"]),
}
INPUTS = {"image": "vision", "audio": "audio_in", "video": "video", "file": "file"}
FIELDS = {
    "aliases", "can", "context_window", "endpoints", "first_listed", "id", "legacy", "max_output_tokens", "name", "offers",
    "owned_by", "released", "tags", "unlisted",
}  # fmt: skip


class CatalogError(Exception):
    """The curated list and the sources do not make a sound catalog. The text says which model and why."""


class Notes:
    """What the maintainer should look at; none of it stops the build."""

    def __init__(self):
        self.prices = []
        self.retiring = []
        self.dropped = []
        self.limits = []


def assemble(curated: dict, sources: list, today: date) -> tuple[list[dict], Notes]:
    """The models of the catalog, sorted by id. Raises `CatalogError`, with every reason, if it is not sound."""
    notes, errors = Notes(), []
    overrides = _overrides(curated, errors)
    models = []
    for entry in curated["model"]:
        try:
            models.append(_model(entry, sources, overrides, today, notes))
        except CatalogError as error:
            errors.append(str(error))
    errors += [f"override for {key[1]} at {key[0]}: no such offer" for key in overrides if not overrides[key]["used"]]
    models.sort(key=lambda model: model["id"])
    errors += _unsound(models)
    if errors:
        raise CatalogError("\n".join(errors))
    return models, notes


def _overrides(curated: dict, errors: list[str]) -> dict:
    """The curated price overrides by (provider, model)."""
    overrides = {}
    for entry in curated.get("override", []):
        key = (entry["provider"], entry["model"])
        if not entry.get("reason"):
            errors.append(f"override for {key[1]} at {key[0]}: says no reason")
        try:
            usd = {name: Decimal(entry[name]) for name in PRICES if name in entry}
        except (InvalidOperation, TypeError):
            errors.append(f"override for {key[1]} at {key[0]}: prices are decimal strings in USD per million")
            continue
        price = {name: nanos(amount, tokens=1_000_000) for name, amount in usd.items()}
        overrides[key] = {"price": price, "used": False}
    return overrides


def _model(entry: dict, sources: list, overrides: dict, today: date, notes: Notes) -> dict:
    name = entry.get("id", "a model without id")
    if unknown := sorted(set(entry) - FIELDS):
        raise CatalogError(f"{name}: unknown fields {unknown}")
    if unknown := sorted(set(entry.get("can", {})) - set(ABILITIES)):
        raise CatalogError(f"{name}: unknown abilities {unknown}")
    if unknown := sorted(set(entry.get("tags", [])) - CURATED_TAGS):
        raise CatalogError(f"{name}: tags {unknown} are not curated ones ({sorted(CURATED_TAGS)})")
    offers = _sheets(entry, sources, today, notes)
    able = _abilities(offers) | entry.get("can", {})
    kind = next((s.mode for sheets in offers.values() for s in sheets if s.mode in KINDS), None)
    # Images, sound and searches have no window of tokens that a client could fill.
    chats, windowed = kind is None, kind in (None, "embedding")
    window = entry.get("context_window") or (_window(name, offers) if windowed else 0)
    model = {
        "id": name,
        "display_name": entry["name"],
        "owned_by": entry["owned_by"],
        "created_unix": _midnight_unix(entry.get("released") or entry["first_listed"]),
        "context_window": window,
    }
    if chats:
        model["max_output_tokens"] = min(entry.get("max_output_tokens") or _max_output(name, offers, notes), window)
    takes = ["text"] + [m for m, flag in INPUTS.items() if able.get(flag)]
    gives = ["text"] + (["audio"] if able.get("audio_out") else [])
    # Whether a provider has the Responses API is in its row of the provider table, not the model's to know.
    endpoints = ["chat.completions", "responses"]
    if kind == "embedding":
        endpoints, _, gives = KINDS[kind]
    elif kind:
        endpoints, takes, gives = KINDS[kind]
    model |= {
        "tags": _tags(entry, able, takes, gives, window, chats),
        "aliases": sorted(_aliases(entry)),
        "input_modalities": takes,
        "output_modalities": gives,
        "endpoints": entry.get("endpoints", endpoints),
        "offerings": _offerings(entry, offers, overrides, kind == "embedding", notes),
    }
    return model


def _midnight_unix(day: date) -> int:
    """Midnight UTC of that day."""
    return int(datetime.combine(day, time(), tzinfo=UTC).timestamp())


def _sheets(entry: dict, sources: list, today: date, notes: Notes) -> dict[str, list[Sheet]]:
    """What the sources say about each offer, in the curated order: the first one describes the model best."""
    offers = {}
    for provider, upstream in entry["offers"].items():
        if provider not in PROVIDERS:
            raise CatalogError(f"{entry['id']}: unknown provider {provider!r}")
        names = [upstream]
        # Some sources only list the undated name of a snapshot.
        if upstream in entry.get("aliases", []):
            names.append(entry["id"])
        found = (next(filter(None, (source.sheet(provider, name) for name in names)), None) for source in sources)
        sheets = [sheet for sheet in found if sheet]
        if not sheets and provider not in entry.get("unlisted", []):
            raise CatalogError(f"{entry['id']}: no source knows {upstream!r} at {provider}")
        retired = [sheet for sheet in sheets if sheet.retires and sheet.retires <= today]
        if retired and retired[0] is sheets[0] and not entry.get("legacy"):
            raise CatalogError(f"{entry['id']}: retired at {provider} since {retired[0].retires}")
        ends = min((sheet.retires for sheet in sheets if sheet.retires and sheet.retires > today), default=None)
        if ends and (ends - today).days <= 90:
            notes.retiring.append(f"{entry['id']} at {provider}: ends {ends}")
        notes.retiring += [f"{entry['id']} at {provider}: {s.source} says it ended {s.retires}" for s in retired]
        # A lower source that believes a living offer to be retired is out of date: its price is, too.
        offers[provider] = [sheet for sheet in sheets if sheet not in retired] or sheets
    return offers


def _abilities(offers: dict[str, list[Sheet]]) -> dict[str, bool]:
    """By majority of the sources on the first offer; the next offers only break a tie or a silence."""
    able = {}
    for ability in ABILITIES:
        ayes = noes = 0
        for sheets in offers.values():
            opinions = [sheet.can[ability] for sheet in sheets if ability in sheet.can]
            ayes += sum(opinions)
            noes += len(opinions) - sum(opinions)
            if ayes != noes:
                break
        able[ability] = ayes > noes
    return able


def _window(name: str, offers: dict[str, list[Sheet]]) -> int:
    for sheets in offers.values():
        known = [sheet.window for sheet in sheets if sheet.window]
        # Some sources only state the input limit, which is the best that is left.
        known += [sheet.max_input for sheet in sheets if sheet.max_input]
        if known:
            return known[0]
    raise CatalogError(f"{name}: no source knows the context window; give context_window in the list")


def _max_output(name: str, offers: dict[str, list[Sheet]], notes: Notes) -> int:
    for sheets in offers.values():
        # An output limit as large as the window is a placeholder when another source states a smaller one.
        real = [s.max_output for s in sheets if s.max_output and s.max_output < (s.window or s.max_input or 0)]
        known = real or [sheet.max_output for sheet in sheets if sheet.max_output]
        if known:
            if len(set(known)) > 1:
                notes.limits.append(f"{name}: output limit {known[0]} (others: {known[1:]})")
            return known[0]
    raise CatalogError(f"{name}: no source knows the output limit; give max_output_tokens in the list")


def _tags(entry: dict, able: dict, takes: list, gives: list, window: int, chats: bool) -> list[str]:
    tags = set(entry.get("tags", []))
    beyond_text = {"image", "audio", "video"}
    conditions = {
        "vision": "image" in takes,
        "audio": "audio" in takes or "audio" in gives,
        "multimodal": bool(beyond_text & {*takes, *gives}),
        "long-context": window >= LONG_CONTEXT,
        "function-calling": able.get("tools") and chats,
        "json": able.get("json") and chats,
        "reasoning": able.get("reasoning") and chats,
    }
    return sorted(tags | {tag for tag, holds in conditions.items() if holds})


def _aliases(entry: dict) -> set[str]:
    """The curated ones, and the name under which users of OpenRouter know the model."""
    aliases = set(entry.get("aliases", []))
    if slug := entry["offers"].get("openrouter"):
        author, _, name = slug.partition("/")
        aliases.add(name)
        # With a provider's prefix the router resolves it; any other author is part of the name.
        if author not in PROVIDERS | PREFIX_ALIASES:
            aliases.add(slug)
    return aliases - {entry["id"]}


def _offerings(entry: dict, offers: dict, overrides: dict, embeds: bool, notes: Notes) -> list[dict]:
    offerings, list_price = [], None
    for provider, sheets in offers.items():
        price = _price(entry["id"], provider, sheets, notes)
        if override := overrides.get((provider, entry["id"])):
            override["used"] = True
            price |= override["price"]
        elif provider in RESELLERS and list_price and not _near(list_price, price):
            notes.dropped.append(f"{entry['id']} at {provider}: {_usd(price)}, list price {_usd(list_price)}")
            price = {}
        if embeds:
            price.pop("output", None)
        list_price = list_price or price
        listed = {k: price[k] for k in PRICES if k in price}
        units = next((sheet.units for sheet in sheets if sheet.units), {})
        if units and (listed or "web_searches" not in units):
            listed["units"] = [{"unit": unit, "price": units[unit]} for unit in sorted(units)]
        believed = next((sheet for sheet in sheets if sheet.price), None)
        # Steps belong to the price that they were listed with.
        if price and believed and believed.steps and not override:
            listed["steps"] = believed.steps
        offering = {"provider": provider, "upstream_model": entry["offers"][provider]}
        offerings.append(offering | ({"price": listed} if listed else {}))
    return offerings


def _price(name: str, provider: str, sheets: list[Sheet], notes: Notes) -> dict[str, int]:
    """The first source's price. Sources that agree with it on input and output fill in its cache prices."""
    listed = [sheet for sheet in sheets if sheet.price]
    if not listed:
        return {}
    first, price = listed[0], dict(listed[0].price)
    for other in listed[1:]:
        apart = [k for k in ("input", "output") if not _within_1_percent(first.price.get(k), other.price.get(k))]
        if apart:
            said = f"{first.source} {_usd(first.price)}, {other.source} {_usd(other.price)}"
            notes.prices.append(f"{name} at {provider}: {said}")
        else:
            price = other.price | price
    return price


def _within_1_percent(one: int | None, other: int | None) -> bool:
    return one is None or other is None or abs(one - other) * 100 <= max(one, other)


def _near(list_price: dict[str, int], price: dict[str, int]) -> bool:
    """Whether input and output are within a factor of two of the list price."""
    pairs = [(list_price.get(k), price.get(k)) for k in ("input", "output")]
    return all(a is None or (b is not None and a <= 2 * b and b <= 2 * a) for a, b in pairs)


def _usd(price: dict[str, int]) -> str:
    amounts = [Decimal(price[k]) / 1_000_000_000 if k in price else None for k in ("input", "output")]
    return "/".join("?" if amount is None else f"{amount.normalize():f}" for amount in amounts)


def _unsound(models: list[dict]) -> list[str]:
    """What must hold for every catalog."""
    errors, taken = [], {}
    for model in models:
        for name in [model["id"], *model["aliases"]]:
            if name in taken:
                errors.append(f"the name {name!r} is taken by both {taken[name]} and {model['id']}")
            taken[name] = model["id"]
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?", name):
                errors.append(f"{model['id']}: {name!r} is no sound name")
        if "/" in model["id"]:
            errors.append(f"{model['id']}: an id has no provider prefix")
        if not 256 <= model["context_window"] <= 20_000_000 and "max_output_tokens" in model:
            errors.append(f"{model['id']}: context window {model['context_window']}")
        for offering in model["offerings"]:
            for kind, value in offering.get("price", {}).items():
                if kind == "units":
                    continue
                if kind == "steps":
                    values = [step[k] for step in value for k in PRICES if k in step]
                    value = max(values, default=0)
                if not 0 <= value <= MOST_USD_PER_MILLION * 1_000_000_000:
                    errors.append(f"{model['id']} at {offering['provider']}: {kind} price of {value} nano-USD")
    providers = {offering["provider"] for model in models for offering in model["offerings"]}
    if len(models) < 60 or len(providers) < 8:
        errors.append(f"{len(models)} models over {len(providers)} providers; at least 60 over 8 are promised")
    return errors
