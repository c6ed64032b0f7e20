"""The table of methods as the README shows it, from the methods' cards: `python -m attrib.methods.table`."""

from __future__ import annotations

import sys

from attrib.methods import METHODS


def markdown() -> str:
    """One row per method: name, idea, what it costs, when it misleads."""
    rows = ["| method | asks | cost | misleads when |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        card = method.card
        rows.append(f"| `{name}` | {card.idea} | {card.cost} | {card.misleads} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
