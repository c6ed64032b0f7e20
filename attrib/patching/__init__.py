"""Patching: which components of a transformer carry the difference between two prompts.

What estimates are compared with the truth by stands on top of `explain`: `attrib.verify_effects` and
`attrib.sampled_correlation` in attrib/verification.py.
"""
