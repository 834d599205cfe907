"""What generated requests work on: an organization with one of everything, so that they get past 404.

Loaded by schemathesis; see run.sh. In requests that are meant to be valid, most ids are exchanged for real ones, and
members that only make sense together are made to do so, which a schema can't ask for. Requests that are meant to be
invalid stay as they are.
"""

import json
import os
import random
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies as st

URL = os.environ["NEMO_ADMIN_URL"] + "/admin/v1"
HEADERS = {"authorization": "Bearer " + os.environ["NEMO_ADMIN_TOKEN"], "content-type": "application/json"}
CHOICE = random.Random(20261121)
# How many of the well-formed ids become real ones.
REAL = 0.8
MODEL = "schemathesis/model"
# A tag that MODEL has, and so may be required.
TAG = "schemathesis"
# What settings hold that are no times in milliseconds: a schema can't say that a value depends on its key.
SETTINGS = {
    "routing.strategy": '"simple-shuffle"', "routing.retries": "1", "routing.max_retries": "4",
    "routing.unsupported": '"refuse"', "routing.max_cost_usd": '"0.50"', "routing.fetch_image_urls": '"on"',
    "routing.backoff_ms": "250", "cooldown.failures": "3",
    "billing.tiers": '[{"name": "pay-as-you-go", "fee_percent": "4"}]', "billing.tier": '"pay-as-you-go"',
    "credits.required": "false", "credits.signup_grant": '"0"', "credits.low_balance": '"1.50"',
    "cooldown.cluster_min_attempts": "20", "cooldown.cluster_error_percent": "50",
}


# Organizations have none of their own.
INSTALLATIONS = ("billing.tiers", "credits.signup_grant")


def call(method, path, body):
    """Sends a request that must succeed."""
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), HEADERS, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def existing(path):
    request = urllib.request.Request(URL + path, headers=HEADERS)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def made(path, body):
    return call("POST", path, body)


def fill(base):
    """One of everything that organizations and the operator both have; ids by collection."""
    credential = made(base + "/credentials", {"name": "c", "provider": "custom", "secret": "sk-secret"})
    deployment = made(base + "/deployments", {
        "provider": "custom", "base_url": "http://127.0.0.1:9/v1", "model": MODEL, "credential_id": credential["id"],
    })
    link = {"deployments": [{"deployment_id": deployment["id"], "weight": 1}]}
    group = made(base + "/model-groups", {"name": "g", "links": [link]})
    role = {"role": "viewer"} if base else {}
    token = made(base + "/admin-tokens", {"name": "t", **role})
    return {
        "credentials": credential["id"], "deployments": deployment["id"], "model-groups": group["id"],
        "admin-tokens": token["admin_token"]["id"],
    }


def fill_organization(name):
    organization = made("/organizations", {"name": name})["id"]
    base = f"/organizations/{organization}"
    team = made(base + "/teams", {"name": "t"})["id"]
    key = made(base + "/keys", {"team_id": team, "name": "k"})["key"]["id"]
    webhook = made(base + "/webhooks", {"name": "w", "url": "https://hooks.example.com/"})["webhook"]["id"]
    delivery = made(f"{base}/webhooks/{webhook}/test", {})["id"]
    # So that refunds have something to take from.
    movement = made(base + "/credits/movements", {"kind": "grant", "amount_usd": "9999999"})["id"]
    member = made(base + "/members", {"email": "a@example.com", "role": "viewer"})["id"]
    budget = made(base + "/budgets", {"name": "b", "limit_usd": "1", "window": "day", "team_id": team})["id"]
    limit = made(base + "/rate-limits", {"name": "l", "concurrent": 4, "key_id": key})["id"]
    return organization, {"budgets": budget, "rate-limits": limit, "webhooks": webhook, "webhook-deliveries": delivery, "movements": movement,
                          "teams": team, "keys": key, "members": member, **fill(base)}


# What all requests show: without it the rest is a series of 401.
OWN_TOKENS = [token["id"] for token in existing("/admin-tokens")["admin_tokens"]]
call("PUT", f"/models/{MODEL}", {"model": {"offerings": [{"provider": "custom"}], "tags": [TAG]}})
ORGANIZATION, OWNED = fill_organization("Schemathesis")
OPERATORS = fill("")


def is_id(value):
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def real(value, known):
    return known if known and is_id(value) and CHOICE.random() < REAL else value


def collection(path):
    """`teams` of `/admin/v1/organizations/{org_id}/teams/{id}`."""
    return path.split("/{id}")[0].rsplit("/", 1)[-1]


def settled(value):
    """Whole numbers without a fraction: JSON schema counts 5.0 among them, and the generator writes some so."""
    if isinstance(value, dict):
        return {name: settled(member) for name, member in value.items()}
    if isinstance(value, list):
        return [settled(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def work_on_links(links, deployment):
    """Links with something to choose from, and no deployment twice."""
    for link in links or []:
        del link["deployments"][1:]
        for member in link["deployments"]:
            member["deployment_id"] = real(member["deployment_id"], deployment)
            member["weight"] = member.get("weight") or 1


def work_on_tags(body):
    """Tags that are required are those of some model; of a list, or of one in a message."""
    for member in ("required_tags", "default_tags"):
        tags = body.get(member)
        if isinstance(tags, dict):
            tags["names"] = [TAG][:len(tags.get("names") or [])]
        elif tags:
            body[member] = [TAG]


def work_on_path(case, known):
    path, parameters = case.operation.path, case.path_parameters
    if "org_id" in parameters:
        parameters["org_id"] = real(parameters["org_id"], ORGANIZATION)
    if "org_id" in parameters and parameters.get("key") in INSTALLATIONS:
        parameters["key"] = "billing.tier"
    if collection(path) == "models":
        if case.method == "GET" and CHOICE.random() < REAL:
            parameters["id"] = MODEL
    # What everything hangs on is not deleted.
    elif "id" in parameters and case.method != "DELETE":
        of = ORGANIZATION if collection(path) == "organizations" else known.get(collection(path))
        parameters["id"] = real(parameters["id"], of)
    if "budget_id" in parameters:
        parameters["budget_id"] = real(parameters["budget_id"], known.get("budgets"))


def work_on_query(query):
    # Pages follow one another: a token that was made up is refused.
    query.pop("page_token", None)
    # The number and the hash of one entry go together.
    if "noted_hash" not in query or query.get("noted_seq", 0) in (0, "0"):
        query.pop("noted_seq", None)
        query.pop("noted_hash", None)
    # What is summed up has passed; generated times are still to come.
    if "from" in query:
        query["from"] = "2026-01-01T00:00:00Z"
        query.pop("to", None)


def work_on_limits(case, body, known):
    """On one team or key at most; a window whose length goes with its kind; a limit that limits."""
    if case.method == "POST" and collection(case.operation.path) in ("budgets", "rate-limits"):
        if body.get("team_id") or body.get("key_id"):
            member, of = CHOICE.choice([("team_id", "teams"), ("key_id", "keys")])
            body["team_id"] = body["key_id"] = ""
            body[member] = known[of]
        if "window" in body:
            body["window_hours"] = (body.get("window_hours") or 1) if body["window"] == "rolling" else 0
    if collection(case.operation.path) == "rate-limits":
        rates = ("requests_per_minute", "tokens_per_minute", "concurrent")
        # The last limit can't be taken away.
        if case.method == "PATCH" or not any(body.get(rate) for rate in rates):
            body["concurrent"] = body.get("concurrent") or 1


def work_on_body(case, body, known):
    work_on_limits(case, body, known)
    for member, of in (("team_id", "teams"), ("credential_id", "credentials")):
        if body.get(member):
            body[member] = real(body[member], known.get(of))
    links = body.get("links")
    work_on_links(links["links"] if isinstance(links, dict) else links, known["deployments"])
    if collection(case.operation.path) == "deployments":
        # A model of the catalog, at the provider that the credential is for.
        if body.get("credential_id"):
            body["credential_id"] = known["credentials"]
        if case.method == "POST":
            body.update(model=MODEL, provider="custom")
            body.setdefault("base_url", "http://127.0.0.1:9/v1")
    # Text that holds JSON.
    if body.get("metadata"):
        body["metadata"] = '{"team": "a"}'
    if "value" in body:
        body["value"] = SETTINGS.get(case.path_parameters["key"], "30000")
    work_on_tags(body)
    # An operator's token has no other role, an organization's no role of the operator.
    if case.method == "POST" and collection(case.operation.path) == "admin-tokens":
        body["role"] = "viewer" if "{org_id}" in case.operation.path else "operator"
    # Times are also taken from answers.
    if body.get("expires_at"):
        body["expires_at"] = "2099-12-31T23:59:59Z"
    if body.get("never_expires"):
        body.pop("expires_at", None)
    model = body.get("model")
    if isinstance(model, dict):
        # Not an alias of itself or of another model, and one offering per provider.
        model["aliases"] = [f"alias-{CHOICE.getrandbits(64)}" for _ in model.get("aliases") or []]
        model["offerings"] = (model.get("offerings") or [])[:1]
        # Groups ask for it.
        model["tags"] = [TAG]
    for price in [body.get("price"), *((model["offerings"] or [{}])[0].get("price") for model in [model]
                                       if isinstance(model, dict))]:
        if price:
            # One price for each unit, and one step for each condition, which has a price.
            price["units"] = (price.get("units") or [])[:1]
            price["steps"] = (price.get("steps") or [])[:1]
            for step in price["steps"]:
                step.update(above_input_tokens=step.get("above_input_tokens") or 200_000, input=3_000_000_000)
                if step.get("service_tier") == "auto":
                    step["service_tier"] = "flex"
            # The schema can't say that what is unusual must be confirmed.
            body["confirm_unusual_price"] = True
    if case.operation.path.endswith("/prices"):
        # Of what the catalog has, with a price in it, within about a year.
        body.update(model=MODEL, provider="custom")
        body["price"]["input"] = 3_000_000_000
        body.pop("effective_from", None)
    if case.operation.path.endswith("/rerate"):
        body["from"] = (datetime.now(timezone.utc) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body.pop("to", None)
        body["price_id"] = ""


def spare_own_token(case):
    """Generated ids are also taken from answers, such as the list of tokens."""
    parameters = case.path_parameters or {}
    if case.method != "GET" and parameters.get("id") in OWN_TOKENS:
        parameters["id"] = str(uuid.UUID(int=CHOICE.getrandbits(128), version=4))


@schemathesis.hook
def before_call(context, case, kwargs):
    meta = case.meta
    spare_own_token(case)
    # What is wrong on purpose stays as it is.
    if meta is None or not meta.generation.mode.is_positive:
        return
    known = OWNED if "{org_id}" in case.operation.path else OPERATORS
    stateful = meta.phase.name.value == "stateful"
    # Steps that follow from others have their ids from them.
    if case.path_parameters and not stateful:
        work_on_path(case, known)
    if case.query:
        work_on_query(case.query)
        if stateful:
            # What was only checked is not there for the next step.
            case.query.pop("validate_only", None)
    # The generator's header values lose their quotes, and then their characters.
    if case.headers and not case.headers.get("if-match", "*").strip('"'):
        case.headers.pop("if-match")
    if isinstance(case.body, dict):
        case.body = settled(case.body)
        work_on_body(case, case.body, known)


# Times that are still to come: what expires does so in the future.
schemathesis.openapi.format("date-time", st.datetimes(
    min_value=datetime(2080, 1, 1), max_value=datetime(2099, 1, 1),
).map(lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ")))
