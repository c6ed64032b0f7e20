"""Patching: which components of a transformer carry the difference between two prompts."""
