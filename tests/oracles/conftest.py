"""Makes small models importable, also those of other folders: pytest's importlib mode puts no folder on the path."""

import sys
from pathlib import Path

for folder in ("models", "oracles"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
