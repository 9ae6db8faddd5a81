"""Reference pages that are generated from declarations.

python -m bec_lib.reference > docs/endpoints.md
python -m bec_lib.reference --check docs/endpoints.md     exit code 1 if the file is not what the table says
"""

from __future__ import annotations

import sys
from pathlib import Path

from bec_lib.endpoints import HOUR, all_endpoints


def endpoints_page() -> str:
    """The documentation page of the table, as Markdown."""
    lines = [
        "# Endpoints",
        "",
        "Generated from `bec_lib/endpoints.py` by `python -m bec_lib.reference`. Keys have `bec:{deployment}:` in front.",
        "Within a major version endpoints and message fields are added, never changed.",
        "",
        "| Name | Key | Kind | Messages | Written by | Kept | What it is |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, endpoint in all_endpoints():
        kept = []
        if endpoint.max_entries:
            kept.append(f"about {endpoint.max_entries:,} entries")
        if endpoint.expires_s:
            kept.append(
                f"{endpoint.expires_s:g} s"
                if endpoint.expires_s < HOUR
                else f"{endpoint.expires_s / HOUR:g} h"
            )
        types = ", ".join(f"`{kind.__name__}`" for kind in endpoint.messages)
        retention = "; ".join(kept) or "always"
        lines.append(
            f"| `{name}` | `{endpoint.key}` | {endpoint.kind} | {types} | {endpoint.writer} | {retention} | {endpoint.doc} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    page = endpoints_page()
    if arguments[:1] != ["--check"]:
        sys.stdout.write(page)
        return 0
    file = Path(arguments[1])
    if file.read_text(encoding="utf-8") == page:
        return 0
    print(
        f"{file} is not what bec_lib/endpoints.py says; run: python -m bec_lib.reference > {file}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
