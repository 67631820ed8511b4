"""The way to Weights & Biases: whether there is one, in a line that never holds the key."""

import os
from urllib.parse import urlsplit

import requests
import wandb

SECONDS = 5  # for an answer of the server
NO_KEY = "has no key here"


def refusal() -> str | None:
    """Say why nothing can be sent to W&B, server first; None where it can."""
    settings = wandb.setup().settings
    server = os.environ.get("WANDB_BASE_URL") or settings.base_url
    address = urlsplit(server)  # which may hold a password
    place = f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
    if not (settings.api_key or os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        return f"{place} {NO_KEY}"
    try:
        requests.get(server, timeout=SECONDS)
        return None if wandb.login(prompt=False) else f"{place} takes no key from here"
    except requests.RequestException:
        return f"{place} does not answer"
    except (wandb.Error, ValueError):  # whose message may hold the key
        return f"{place} does not take the key"
