"""Measures the gateway against a bare server and against the usual stack, in one run."""
