"""Makes the small models of other folders importable: pytest's importlib mode puts no folder on the path."""

import sys
from pathlib import Path

for folder in ("metrics", "contracts", "app", "oracles"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
