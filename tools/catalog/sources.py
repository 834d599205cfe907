"""Where the catalog's facts come from: three public packages, fetched, verified and read into one shape.

Called by build.py. A *fact sheet* is what one source says about one model at one provider; `assemble.py` merges
the sheets of several sources. Nothing but numbers, names and flags is read; descriptions stay where they are.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path


class SourceError(Exception):
    """A package could not be fetched, verified or read."""


@dataclass(frozen=True)
class Package:
    """A pinned package. `sha256` covers the bytes that are read, and only holds for `version`."""

    name: str
    version: str
    registry: str
    sha256: str


LITELLM = Package(
    "litellm", "1.109.1", "pypi", "8f8060d8ce7a40c91b995c74d6a27657543d49e3c1c53430dabd556f244392c6"
)
LLMGATEWAY = Package(
    "@llmgateway/models", "1.324.0", "npm", "b558d8bba556c4a44d08c42e5071dff75e90190dbeb7cc8af6c2ed2e4f278809"
)
PI_AI = Package(
    "@earendil-works/pi-ai", "1.5.2", "npm", "d5715efa834c23bfdf10a042b49df4ee169cc99000bf16d7998fab2d533b45f8"
)
PACKAGES = (LITELLM, LLMGATEWAY, PI_AI)

PRICES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")
# What else a call is priced by: the length of its prompt and the tier that serves it. Batches are no tier of a call.
TIERS = ("flex", "priority")
STEP_PRICES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
}
STEP = re.compile(rf"({'|'.join(sorted(STEP_PRICES, key=len, reverse=True))})(?:_above_(\d+)k_tokens)?(?:_({'|'.join(TIERS)}))?$")


@dataclass
class Sheet:
    """What one source says about one model at one provider. `None` means that it does not say."""

    source: str
    # Nano-USD per million tokens. A source's zero means "free tier", "not billed" or "unknown": never kept.
    price: dict[str, int] = field(default_factory=dict)
    # Nano-USD per million of other units than text tokens; zero where the source means free.
    units: dict[str, int] = field(default_factory=dict)
    # Other prices under a condition, in the order of threshold and tier.
    steps: list[dict] = field(default_factory=list)
    mode: str | None = None
    # Whole window, input and output together.
    window: int | None = None
    max_input: int | None = None
    max_output: int | None = None
    # vision, audio_in, audio_out, video, file, tools, json, reasoning
    can: dict[str, bool] = field(default_factory=dict)
    retires: date | None = None


# What litellm calls models that make something else than text from text, and embeddings.
OTHER_MODES = ("image_generation", "image_edit", "audio_speech", "audio_transcription", "moderation", "rerank")
# Unit -> litellm's name for its price, and how many units that price is for.
LITELLM_UNITS = {
    "images": ("input_cost_per_image", 1),
    "characters": ("input_cost_per_character", 1),
    "audio_milliseconds": ("input_cost_per_second", 1000),
    "search_units": ("input_cost_per_query", 1),
    "image_input_tokens": ("input_cost_per_image_token", 1),
    "image_output_tokens": ("output_cost_per_image_token", 1),
    "audio_input_tokens": ("input_cost_per_audio_token", 1),
    "audio_output_tokens": ("output_cost_per_audio_token", 1),
}

# How each source spells our provider ids. litellm: key prefixes, tried in order.
LITELLM_PREFIXES = {
    "alibaba": ("dashscope/",),
    "anthropic": ("",),
    "azure": ("azure/",),
    "bedrock": ("",),
    "cohere": ("", "cohere/"),
    "fireworks": ("fireworks_ai/",),
    "google-ai-studio": ("gemini/",),
    "google-vertex": ("vertex_ai/", ""),
    "openai": ("",),
    "together": ("together_ai/",),
}
LLMGATEWAY_PROVIDERS = {
    "bedrock": ("aws-bedrock", "aws-mantle"),
    "google-vertex": ("google-vertex", "vertex-anthropic", "vertex-openai"),
    "together": ("together-ai",),
}
# Files of the package that are read, by our provider id.
PI_AI_FILES = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "amazon-bedrock",
    "cerebras": "cerebras",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google-ai-studio": "google",
    "google-vertex": "google-vertex",
    "groq": "groq",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "nvidia": "nvidia",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "xai": "xai",
    "zai": "zai",
}


def nanos(amount, tokens: int) -> int | None:
    """`amount` USD for `tokens` tokens, in nano-USD per million tokens; None for nothing, zero or less."""
    if amount is None:
        return None
    exact = Decimal(str(amount)) * 1_000_000 * 1_000_000_000 / tokens
    # Binary fractions that leaked into a source (7.000000000000001e-08) end here.
    value = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    return value if value > 0 else None


def priced(amounts: dict, tokens: int) -> dict[str, int]:
    """The prices that are known and make sense as prices per token."""
    price = {name: value for name in PRICES if (value := nanos(amounts.get(name), tokens)) is not None}
    if "input" not in price:
        return {}
    # A cache write below the input price is not a price per token (some sources put storage per hour there).
    if price.get("cache_write", price["input"]) < price["input"]:
        del price["cache_write"]
    # A cache read above the input price is the audio or the write price in the wrong column.
    if price.get("cache_read", 0) > price["input"]:
        del price["cache_read"]
    # What is kept longer costs more, and reasoning as much as the rest of an answer unless it is said otherwise.
    if price.get("cache_write_1h", 0) < price.get("cache_write", price["input"]):
        price.pop("cache_write_1h", None)
    if price.get("reasoning") == price.get("output"):
        price.pop("reasoning", None)
    return price


def positive(value) -> int | None:
    """A count, or None for what is absent, zero or no integer."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None


def day(text) -> date | None:
    return date.fromisoformat(text[:10]) if text else None


def explicit(flags: dict) -> dict[str, bool]:
    """Drops what the source is silent about."""
    return {name: bool(value) for name, value in flags.items() if value is not None}


def litellm_units(entry: dict) -> dict[str, int]:
    """Prices by other units. Of what is billed by the token, no price by the second: answers tell tokens."""
    found = {unit: nanos(entry.get(name), count) for unit, (name, count) in LITELLM_UNITS.items()}
    units = {unit: price for unit, price in found.items() if price is not None}
    if entry.get("input_cost_per_token"):
        units.pop("audio_milliseconds", None)
    if entry.get("mode") == "moderation" and entry.get("input_cost_per_token") == 0:
        units["requests"] = 0
    return units


def litellm_steps(entry: dict) -> list[dict]:
    """Prices of long prompts and of tiers, where they differ from the price itself."""
    steps: dict[tuple[int, str], dict[str, int]] = {}
    for name, amount in entry.items():
        parts = STEP.fullmatch(name)
        if not parts or not (parts[2] or parts[3]):
            continue
        value = nanos(amount, 1)
        if value is not None and value != nanos(entry.get(parts[1]), 1):
            steps.setdefault((int(parts[2] or 0) * 1000, parts[3] or ""), {})[STEP_PRICES[parts[1]]] = value
    listed = []
    for (above, tier), prices in sorted(steps.items()):
        condition = ({"above_input_tokens": above} if above else {}) | ({"service_tier": tier} if tier else {})
        listed.append(condition | {name: prices[name] for name in PRICES if name in prices})
    return listed


def litellm_tools(entry: dict) -> dict[str, int]:
    """What the provider's own tools cost by the call. Where it depends on how much is read, what is usual."""
    searches = nanos((entry.get("search_context_cost_per_query") or {}).get("search_context_size_medium"), 1)
    return {} if searches is None else {"web_searches": searches}


class LiteLlm:
    """litellm: one JSON object, keyed by `<provider prefix><model>`; prices are floats in USD per token."""

    name = "litellm"

    def __init__(self, raw: bytes):
        self.entries = json.loads(raw, parse_float=Decimal)

    def sheet(self, provider: str, upstream: str) -> Sheet | None:
        for prefix in LITELLM_PREFIXES.get(provider, (f"{provider}/",)):
            if entry := self.entries.get(prefix + upstream):
                return self._read(entry)
        return None

    def _read(self, entry: dict) -> Sheet:
        takes = entry.get("supported_modalities")
        other = entry.get("mode") in OTHER_MODES
        output = entry.get("output_cost_per_token")
        if entry.get("mode") == "image_generation":
            # Answers do not tell them apart: nearly all output is images.
            output = entry.get("output_cost_per_image_token") or output
        return Sheet(
            source=self.name,
            price=priced(
                {
                    "input": entry.get("input_cost_per_token"),
                    "output": output,
                    "cache_read": entry.get("cache_read_input_token_cost"),
                    "cache_write": entry.get("cache_creation_input_token_cost"),
                    "cache_write_1h": entry.get("cache_creation_input_token_cost_above_1hr"),
                    "reasoning": entry.get("output_cost_per_reasoning_token"),
                },
                tokens=1,
            ),
            units=litellm_units(entry) if other else litellm_tools(entry),
            steps=[] if other else litellm_steps(entry),
            mode=entry.get("mode"),
            max_input=positive(entry.get("max_input_tokens")),
            max_output=positive(entry.get("max_output_tokens")),
            can=explicit(
                {
                    "vision": entry.get("supports_vision"),
                    "audio_in": entry.get("supports_audio_input"),
                    "audio_out": entry.get("supports_audio_output"),
                    "video": "video" in takes if takes else None,
                    "file": entry.get("supports_pdf_input"),
                    "tools": entry.get("supports_function_calling"),
                    "json": entry.get("supports_response_schema"),
                    "reasoning": entry.get("supports_reasoning"),
                }
            ),
            retires=day(entry.get("deprecation_date")),
        )


class LlmGateway:
    """@llmgateway/models: models with one mapping per provider; prices are decimal strings in USD per token."""

    name = "@llmgateway/models"

    def __init__(self, raw: bytes):
        self.mappings = {}
        for model in json.loads(raw):
            for mapping in model["providers"]:
                key = (mapping["providerId"], mapping["externalId"])
                # The first one is the model's own; later ones are regional or renamed copies.
                self.mappings.setdefault(key, (model, mapping))

    def sheet(self, provider: str, upstream: str) -> Sheet | None:
        for theirs in LLMGATEWAY_PROVIDERS.get(provider, (provider,)):
            if found := self.mappings.get((theirs, upstream)):
                return self._read(*found)
        return None

    def _read(self, model: dict, mapping: dict) -> Sheet:
        json_output = mapping.get("jsonOutput"), mapping.get("jsonOutputSchema")
        return Sheet(
            source=self.name,
            price=priced(
                {
                    "input": mapping.get("inputPrice"),
                    "output": mapping.get("outputPrice"),
                    "cache_read": mapping.get("cacheReadInputPrice") or mapping.get("cachedInputPrice"),
                    "cache_write": mapping.get("cacheWriteInputPrice"),
                },
                tokens=1,
            ),
            mode="embedding" if "embedding" in (model.get("output") or []) else "chat",
            window=positive(mapping.get("contextSize")),
            max_output=positive(mapping.get("maxOutput")),
            can=explicit(
                {
                    "vision": mapping.get("vision"),
                    "audio_in": mapping.get("audio"),
                    "file": mapping.get("document"),
                    "tools": mapping.get("tools"),
                    "json": None if json_output == (None, None) else any(json_output),
                    "reasoning": mapping.get("reasoning"),
                }
            ),
            retires=day(mapping.get("deactivatedAt")),
        )


class PiAi:
    """@earendil-works/pi-ai: one JSON file per provider; prices are floats in USD per million tokens."""

    name = "@earendil-works/pi-ai"

    def __init__(self, files: dict[str, bytes]):
        self.entries = {}
        for provider, raw in files.items():
            for models in json.loads(raw, parse_float=Decimal).values():
                for key, entry in models.items():
                    if key.startswith("chat:"):
                        self.entries.setdefault((provider, entry["id"]), entry)

    def sheet(self, provider: str, upstream: str) -> Sheet | None:
        entry = self.entries.get((provider, upstream))
        if entry is None:
            return None
        cost = entry["cost"]
        return Sheet(
            source=self.name,
            price=priced(
                {
                    "input": cost.get("input"),
                    "output": cost.get("output"),
                    "cache_read": cost.get("cacheRead"),
                    "cache_write": cost.get("cacheWrite"),
                },
                tokens=1_000_000,
            ),
            mode="chat",
            window=positive(entry.get("contextWindow")),
            max_output=positive(entry.get("maxTokens")),
            # The package lists models for agents: every one of them calls tools.
            can={
                "vision": "image" in entry["input"],
                "tools": True,
                "reasoning": bool(entry.get("reasoning")),
            },
        )


def load(packages: list[Package], folder: Path, progress) -> list:
    """Fetches and reads the three packages, in the order in which they are believed."""
    litellm, llmgateway, pi_ai = packages
    progress(f"fetching {litellm.name} {litellm.version} (PyPI, about 40 MB)")
    sources = [LiteLlm(_verified(litellm, _litellm_bytes(litellm, folder)))]
    progress(f"fetching {llmgateway.name} {llmgateway.version} (npm)")
    sources.append(LlmGateway(_llmgateway_json(llmgateway, folder)))
    progress(f"fetching {pi_ai.name} {pi_ai.version} (npm)")
    sources.append(PiAi(_pi_ai_files(pi_ai, folder)))
    return sources


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise SourceError(f"{command[0]} is needed to fetch the packages and is not installed") from missing
    if done.returncode != 0:
        raise SourceError(f"`{' '.join(command[:4])} ...` failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _verified(package: Package, raw: bytes) -> bytes:
    digest = hashlib.sha256(raw).hexdigest()
    if package.sha256 and digest != package.sha256:
        raise SourceError(f"{package.name} {package.version}: sha256 is {digest}, expected {package.sha256}")
    return raw


def _litellm_bytes(package: Package, folder: Path) -> bytes:
    wheels = sorted(folder.glob(f"{package.name}-{package.version}-*.whl"))
    if not wheels:
        spec = f"{package.name}=={package.version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run([*pip, "--dest", str(folder), spec])
        wheels = sorted(folder.glob(f"{package.name}-{package.version}-*.whl"))
    if not wheels:
        raise SourceError(f"pip fetched no wheel of {package.name} {package.version}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return wheel.read("litellm/model_prices_and_context_window_backup.json")


def _npm_tarball(package: Package, folder: Path) -> Path:
    tarball = folder / f"{package.name.lstrip('@').replace('/', '-')}-{package.version}.tgz"
    if not tarball.exists():
        _run(["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"])
    _verified(package, tarball.read_bytes())
    return tarball


def _llmgateway_json(package: Package, folder: Path) -> bytes:
    """The package is JavaScript: node prints it as JSON, allowed to read its own folder and nothing else."""
    unpacked = folder / f"llmgateway-{package.version}"
    with tarfile.open(_npm_tarball(package, folder)) as archive:
        archive.extractall(unpacked, filter="data")
    entry = unpacked / "package" / "dist" / "models.js"
    script = "const m = await import(process.argv[1]); process.stdout.write(JSON.stringify(m.models));"
    failure = None
    # The flag lost its prefix between node 20 and 24.
    for permission in ("--permission", "--experimental-permission"):
        allowed = [permission, f"--allow-fs-read={unpacked}/*", "--no-warnings"]
        try:
            return _run(["node", *allowed, "--input-type=module", "-e", script, str(entry)]).encode()
        except SourceError as error:
            failure = error
    raise failure


def _pi_ai_files(package: Package, folder: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(_npm_tarball(package, folder)) as archive:
        for provider, stem in PI_AI_FILES.items():
            member = archive.extractfile(f"package/dist/providers/data/{stem}.json")
            if member is None:
                raise SourceError(f"{package.name} {package.version} has no data file for {provider}")
            files[provider] = member.read()
    return files
