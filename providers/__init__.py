"""Outbound adapters: one vendor product, one file, one class. Never imported by each other."""
