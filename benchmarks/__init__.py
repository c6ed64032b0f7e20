"""Each method's time and memory beside the bare pass and the peers', in one process: `python -m benchmarks`."""
