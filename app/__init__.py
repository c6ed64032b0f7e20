"""The browser app: `python -m app` or `attrib app`."""

import os

# read by gradio while it is imported
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
