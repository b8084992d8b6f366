"""Durable state: the tables, the engine with its group commit, and one module of queries per noun."""
