"""Durable state: tables, the engine with its group commit, one module of queries per noun."""
