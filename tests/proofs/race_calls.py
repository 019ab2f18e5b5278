"""One process of a race: `python -m tests.proofs.race_calls CALLS`. Prints what became of each call.

It says "ready" and waits for a line before it begins, so that several begin together.
"""

import asyncio
import json
import os
import sys
from typing import Any

import django


async def outcome() -> dict[str, Any]:
    from completions.errors import LLMServiceError
    from completions.service import LLMService

    try:
        await LLMService(project="proofs").acomplete(
            {"messages": [{"role": "user", "content": "Go on."}], "config": {"max_tokens": 100}}
        )
    except LLMServiceError as error:
        return {"code": error.code, "status": error.status, "details": error.details}
    return {"code": "", "status": 200}


async def outcomes(calls: int) -> list[dict[str, Any]]:
    return await asyncio.gather(*(outcome() for _ in range(calls)))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmhub.settings")
    django.setup()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(asyncio.run(outcomes(int(sys.argv[1])))))


if __name__ == "__main__":
    main()
