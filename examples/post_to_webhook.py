"""Post what a search came to as one line of text to a webhook, such as a chat's.

    export WEBHOOK_URL=https://…
    python -m search.run --study "nightly-{date}" --on-finish "python examples/post_to_webhook.py"

Python's standard library is all it needs. The address is a secret: it comes from the environment,
and no message shows it.
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 20


def main() -> None:
    """Read the outcome from standard input and post it; exit with 1 where that fails."""
    url = os.environ.get("WEBHOOK_URL", "")
    if not url.startswith(("http://", "https://")):
        sys.exit("WEBHOOK_URL must be a web address that begins with http: set it")
    body = json.dumps({"text": in_a_line(json.load(sys.stdin))}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        sys.exit(f"the webhook must take the message: it answered {error.code}")
    except (OSError, http.client.HTTPException) as error:
        # Some errors quote the address.
        sys.exit(f"the webhook must be reachable: got {type(error).__name__}")


def in_a_line(outcome: dict[str, Any]) -> str:
    """What a person wants to read of it."""
    parts = [f"{outcome['study'] or 'a search'}: {outcome['state']}"]
    if best := outcome["best"]:
        value = f"{(outcome['metric'] or '').upper()} {best['value']:.4f}"
        parts.append(f"best trial {best['trial']}, {value}, {best['configuration']}")
    if verdict := outcome["verdict"]:
        parts.append(f"{verdict['outcome']}: {verdict['reason']}")
    parts += [outcome["error"] or "", outcome["links"]["mlflow"] or ""]
    return " | ".join(filter(None, parts))


if __name__ == "__main__":
    main()
