"""Inbound adapters: one vendor product, one file, one class. Bytes in, events out.

`endpoint.py` is the only module here that knows HTTP; files that begin with `_` help the others.
"""
