"""Makes the pretended device and the small networks importable: pytest's importlib mode puts no folder on the path."""

import sys
from pathlib import Path

for folder in ("devices", "contracts", "models"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
