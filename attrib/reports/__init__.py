"""Batch reports: from a folder of inputs to an audit that can be read, resumed and checked again."""
