"""Backward rules and the engine that applies them; imports torch only."""
