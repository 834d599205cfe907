#!/usr/bin/env python3
"""Builds the bundled model catalog, control-plane/src/catalog/bundled.json.

Facts (prices, limits, capabilities, names) come from three public packages whose versions are pinned in sources.py:

  litellm                (PyPI)  believed first
  @llmgateway/models     (npm)   context windows; second opinion on prices
  @earendil-works/pi-ai  (npm)   OpenRouter and NVIDIA; third opinion

Which models are taken, under which names and from whom is decided by hand in models.toml; its head explains the
fields. Where sources disagree by more than 1 % on a price, the first one wins and the disagreement is printed; an
[[override]] with a reason in models.toml settles it otherwise.

  tools/catalog/build.py                     rebuild (needs pip, npm, node and the registries)
  tools/catalog/build.py --check             rebuild in memory, fail if the checked-in file differs
  tools/catalog/build.py --downloads DIR     keep the packages in DIR and use what is there already
  python3 -m unittest discover tools/catalog  the tests of the merge, offline

To update: raise the versions and their sha256 in sources.py, add and remove models in models.toml, rebuild, read the
notes, look at the diff. Python 3.11, standard library only.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from assemble import CatalogError, assemble
from sources import PACKAGES, SourceError, load

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parent.parent / "control-plane" / "src" / "catalog" / "bundled.json"


def progress(text: str):
    print(f"catalog: {text}", file=sys.stderr, flush=True)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file would change")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="the catalog file")
    parser.add_argument("--models", type=Path, default=HERE / "models.toml", help="the curated list")
    parser.add_argument("--downloads", type=Path, help="folder for the packages (default: a temporary one)")
    parser.add_argument("--date", type=date.fromisoformat, help="date of the catalog (default: today, UTC)")
    for package in PACKAGES:
        flag = "--" + package.name.split("/")[-1 if "pi-ai" in package.name else 0].lstrip("@") + "-version"
        parser.add_argument(flag, dest=package.name, metavar="VERSION", help=f"default {package.version}")
    return parser.parse_args(argv)


def chosen_packages(args: argparse.Namespace) -> list:
    packages = []
    for package in PACKAGES:
        version = getattr(args, package.name)
        if version and version != package.version:
            progress(f"{package.name} {version}: not the pinned version, so its bytes are not verified")
            package = replace(package, version=version, sha256="")
        packages.append(package)
    return packages


def render(catalog: dict) -> str:
    """JSON with one line per field and per offering: small diffs, and readable."""
    lines = ["{", f'  "generated": {json.dumps(catalog["generated"])},', '  "sources": [']
    lines += joined(f"    {json.dumps(source)}" for source in catalog["sources"])
    lines += ["  ],", '  "models": [']
    lines += joined(render_model(model) for model in catalog["models"])
    lines += ["  ]", "}", ""]
    return "\n".join(lines)


def render_model(model: dict) -> str:
    fields = [f"      {json.dumps(key)}: {json.dumps(value)}" for key, value in model.items() if key != "offerings"]
    offerings = "\n".join(joined(f"        {json.dumps(offering)}" for offering in model["offerings"]))
    return "    {\n" + ",\n".join(fields) + ',\n      "offerings": [\n' + offerings + "\n      ]\n    }"


def joined(parts) -> list[str]:
    """The parts with a comma after each but the last."""
    parts = list(parts)
    return [f"{part}," for part in parts[:-1]] + parts[-1:]


def dated(catalog: dict, existing: dict | None, today: date) -> dict:
    """Keeps the old date when nothing else changed: the date is part of every price id."""
    if existing and {**existing, "generated": ""} == {**catalog, "generated": ""}:
        return catalog | {"generated": existing["generated"]}
    return catalog | {"generated": today.isoformat()}


def report(notes, models: list[dict]):
    sections = {
        "prices on which sources disagree by more than 1 % (the first is taken)": notes.prices,
        "reseller prices left out: more than twice or less than half of the list price": notes.dropped,
        "output limits on which sources disagree": notes.limits,
        "offers that end within 90 days, or have ended": notes.retiring,
    }
    for title, entries in sections.items():
        if entries:
            print(f"\n{title}:", *sorted(entries), sep="\n  ")
    offerings = [offering for model in models for offering in model["offerings"]]
    providers = {offering["provider"] for offering in offerings}
    unpriced = sum("price" not in offering for offering in offerings)
    print(
        f"\n{len(models)} models, {sum(len(m['aliases']) for m in models)} aliases, {len(offerings)} offerings"
        f" ({unpriced} without price) over {len(providers)} providers"
    )


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    before = args.out.read_text() if args.out.exists() else None
    existing = json.loads(before) if before else None
    today = args.date or datetime.now(UTC).date()
    if args.check and existing and not args.date:
        # What has retired since then is a reason to update, not a difference.
        today = date.fromisoformat(existing["generated"])
    packages = chosen_packages(args)
    with contextlib.ExitStack() as stack:
        if args.downloads:
            args.downloads.mkdir(parents=True, exist_ok=True)
        folder = args.downloads or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="catalog-")))
        try:
            sources = load(packages, folder.resolve(), progress)
            progress("merging")
            models, notes = assemble(tomllib.loads(args.models.read_text()), sources, today)
        except (CatalogError, SourceError) as error:
            print(error, file=sys.stderr)
            return 1
    catalog = {
        "generated": "",
        "sources": [{"package": p.name, "version": p.version, "registry": p.registry} for p in packages],
        "models": models,
    }
    text = render(dated(catalog, existing, today))
    report(notes, models)
    if args.check:
        progress("up to date" if text == before else f"{args.out} differs from what the sources give: rebuild it")
        return 0 if text == before else 1
    args.out.write_text(text)
    progress(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
